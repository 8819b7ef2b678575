//! What people run on files every day, on every provider that can be written to: copied trees, archives, repositories,
//! databases. Uploads go on in the background, as usual. Then everything is drained, mounted anew without any cache, and
//! compared by its hashes.

use crate::sandbox::{Sandbox, Who};
use crate::service::{Kind, REMOTE, Service};

/// Makes what is copied, in `work`, where nothing is mounted.
const SOURCES: &str = r#"
cd ../work
mkdir -p 'tree/deep/with space' tree/deep/er tree/empty
for i in 1 2 3 4 5 6; do echo "content of $i" > tree/deep/f$i; done
printf '#!/bin/sh\necho runs\n' > tree/deep/er/run.sh
head -c 300000 /dev/urandom > 'tree/deep/with space/large'
: > tree/nothing
chmod 755 tree/deep/er/run.sh
chmod 600 tree/deep/f2
touch -d '2005-06-07 08:09:10.123456789 UTC' tree/deep/f1 tree/deep/er
tar cf tree.tar tree
git init -q -b main repo && cd repo
for i in 1 2 3; do mkdir -p src/$i; echo "fn f$i() {}" > src/$i/mod.rs; done
head -c 20000 /dev/urandom > data
git add . && git -c user.name=Me -c user.email=me@example.org commit -q -m first
echo more >> src/1/mod.rs
git -c user.name=Me -c user.email=me@example.org commit -q -a -m second
"#;

/// One program at work in the mount, and what shows afterwards, in a new mount, that it worked.
#[derive(Clone, Copy)]
struct Program {
    name: &'static str,
    works: &'static str,
    worked: &'static str,
}

const CP: Program = Program {
    name: "cp -a",
    works: "cp -a ../work/tree copied && diff -r ../work/tree copied && test $(stat -c %a copied/deep/f2) = 600",
    worked: "diff -r ../work/tree copied && test -x copied/deep/er/run.sh && test $(stat -c %Y copied/deep/f1) = 1118131750",
};

/// Some providers have no times for directories but those of what is in them: rsync sets them again after a mount.
const RSYNC: Program = Program {
    name: "rsync -a",
    works: "rsync -a ../work/tree/ synced && rsync -a --itemize-changes ../work/tree/ synced",
    worked: "rsync -a --itemize-changes ../work/tree/ synced | sed '/^\\.d\\.\\.t/d' && \
             rsync -ac --itemize-changes ../work/tree/ synced",
};

const TAR: Program = Program {
    name: "tar x",
    works: "tar xf ../work/tree.tar && tar df ../work/tree.tar",
    worked: "tar df ../work/tree.tar",
};

const GIT: Program = Program {
    name: "git clone",
    works: "git clone -q ../work/repo cloned && git -C cloned status --porcelain && git -C cloned fsck --strict --no-progress",
    worked: "git -C cloned status --porcelain && git -C cloned fsck --strict --no-progress && \
             test $(git -C cloned rev-parse origin/main) = $(git -C ../work/repo rev-parse HEAD)",
};

/// Without the fifteen samples of hooks that git puts into every repository.
const GIT_WITHOUT_SAMPLES: Program = Program {
    name: "git clone --template=",
    works: "git clone -q --template= ../work/repo cloned && git -C cloned status --porcelain && \
            git -C cloned fsck --strict --no-progress",
    ..GIT
};

const GIT_COMMIT: Program = Program {
    name: "git commit",
    works: "cd cloned && echo here >> src/2/mod.rs && mkdir new && echo new > new/file && git add . && \
            git -c user.name=Me -c user.email=me@example.org commit -q -m third && git checkout -q -b other && \
            git reset -q --hard HEAD~1 && git checkout -q main && git status --porcelain && \
            git fsck --strict --no-progress",
    worked: "cd cloned && git status --porcelain && git fsck --strict --no-progress && git log --oneline main | wc -l | grep -q 3 && \
             git rev-parse -q --verify other > /dev/null && cat src/2/mod.rs | grep -q here",
};

const GIT_GC: Program = Program {
    name: "git gc",
    works: "cd cloned && git gc -q && git status --porcelain && git fsck --strict --no-progress",
    worked: "cd cloned && git status --porcelain && git fsck --strict --no-progress",
};

const SQLITE: Program = Program {
    name: "sqlite3",
    works: "sqlite3 base.db 'create table t(a integer primary key, b text)' && \
            sqlite3 base.db \"begin; with recursive n(i) as (select 1 union all select i + 1 from n where i < 500) \
              insert into t select i, 'text ' || i from n; commit\" && \
            sqlite3 base.db 'begin; update t set b = 1 where a < 100; rollback' && \
            sqlite3 base.db \"update t set b = 'new' where a = 500\" && \
            test \"$(sqlite3 base.db 'pragma journal_mode; pragma integrity_check; select count(*), sum(a), max(b) from t')\" = \
                 \"$(printf 'delete\\nok\\n500|125250|text 99')\" && test ! -e base.db-journal",
    worked: "test \"$(sqlite3 base.db 'pragma integrity_check; select count(*), sum(a) from t; select b from t where a = 500')\" = \
                 \"$(printf 'ok\\n500|125250\\nnew')\" && test ! -e base.db-journal",
};

const ALL: [Program; 7] = [CP, RSYNC, TAR, GIT, GIT_COMMIT, GIT_GC, SQLITE];

/// The hash of every file in the mount, and every directory.
const HASHES: &str = "find . -type d | LC_ALL=C sort; find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum";

/// For servers in Python, which take a hundred times as long for a request: what the others show anyway, only when
/// `KEYMOUNT_TEST_MORE` is set.
fn some() -> Vec<Program> {
    if std::env::var_os("KEYMOUNT_TEST_MORE").is_some() {
        return ALL.to_vec();
    }
    vec![CP, RSYNC, GIT_WITHOUT_SAMPLES, SQLITE]
}

struct Desk {
    person: Sandbox,
    _service: Box<dyn Service>,
}

impl Desk {
    fn at(kind: Kind) -> Self {
        let service = kind.start();
        let person = Sandbox::new(Who::me());
        service.configure(&person);
        person.sh(SOURCES).ok();
        Self {
            person,
            _service: service,
        }
    }

    /// Runs the programs one after another, all in one mount.
    fn run(&self, programs: &[Program]) {
        let person = &self.person;
        person.mount_as_usual(REMOTE, &[]);
        for program in programs {
            let said = person.sh(program.works);
            assert_eq!(
                (said.code, said.out.as_str()),
                (Some(0), ""),
                "{}: {}",
                program.name,
                said.err
            );
        }
        let before = person.sh(HASHES).ok();
        person.unmount();
        std::fs::remove_dir_all(person.path("cache")).unwrap();
        person.mount_as_usual(REMOTE, &[]);
        assert_eq!(person.sh(HASHES).ok(), before);
        for program in programs {
            let said = person.sh(program.worked);
            assert_eq!(
                (said.code, said.out.as_str()),
                (Some(0), ""),
                "{}, afterwards: {}",
                program.name,
                said.err
            );
        }
        person.unmount();
    }
}

/// What git writes while it packs has names of more than the fifty characters that Cludz takes.
#[test]
fn cludz() {
    let desk = Desk::at(Kind::Cludz);
    desk.run(&[CP, RSYNC, TAR, GIT, GIT_COMMIT, SQLITE]);
    desk.person.mount_as_usual(REMOTE, &[]);
    let packed = desk.person.sh(GIT_GC.works);
    packed.refused("File name too long");
    desk.person
        .sh("git -C cloned status --porcelain && git -C cloned fsck --strict --no-progress")
        .says("");
    desk.person.unmount();
}

#[test]
fn cloudsync() {
    Desk::at(Kind::CloudSync).run(&ALL);
}

#[test]
fn dstor() {
    Desk::at(Kind::Dstor).run(&ALL);
}

#[test]
fn reductstore() {
    Desk::at(Kind::ReductStore).run(&ALL);
}

#[test]
fn s3_moto() {
    Desk::at(Kind::S3Moto).run(&some());
}

#[test]
fn webdav_wsgidav() {
    Desk::at(Kind::WebdavWsgiDav).run(&some());
}

#[test]
fn webdav_rclone() {
    Desk::at(Kind::WebdavRclone).run(&ALL);
}

/// Each with the documented limits of one hour.
#[test]
fn storra_within_its_hour() {
    for program in [CP, RSYNC, TAR, GIT_WITHOUT_SAMPLES, SQLITE] {
        Desk::at(Kind::Storra).run(&[program]);
    }
}
