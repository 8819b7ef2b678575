//! What walks through large trees cost, in requests.
//!
//! The table of provider, command and requests is written to `target/tmp/requests.txt` (below `CARGO_TARGET_DIR` if that
//! is set), and printed when a test fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use keymount::emulator::storra::Bucket;
use percent_encoding::percent_decode_str;

use crate::counting::Asked;
use crate::sandbox::{Sandbox, Who};
use crate::service::{Kind, REMOTE, Seed, Service, Storra};

const DIRECTORIES: usize = 100;
/// In each directory.
const FILES: usize = 100;
/// Longer than any walk here takes: what it costs is not to depend on how busy the machine is.
const TTL: &str = "3600";

fn tree(directories: usize, files: usize) -> Vec<Seed> {
    let file = |directory: usize, file: usize| {
        let path = format!("d{directory:02}/f{file:02}");
        (path, format!("content {directory} {file}\n").into_bytes())
    };
    (0..directories)
        .flat_map(|directory| (0..files).map(move |number| file(directory, number)))
        .collect()
}

/// A command and what it prints when it saw all of the tree.
fn commands(directories: usize, files: usize) -> [(&'static str, &'static str, String); 3] {
    let all = format!("{}\n", 1 + directories + directories * files);
    [
        ("find", "find . | wc -l", all.clone()),
        ("ls -lR", "ls -lR | grep -c '^-'", format!("{}\n", directories * files)),
        ("du", "du -a . | wc -l", all),
    ]
}

/// What `df` shows is asked for in the background, once a minute at most; `find` has a look at it, too.
const BEHIND_DF: usize = 1;

/// The most that one walk through the large tree may ask.
fn most(kind: Kind) -> usize {
    let listings = match kind {
        // Everything is listed at once, a thousand entries on a page.
        Kind::Storra => (DIRECTORIES + DIRECTORIES * FILES).div_ceil(1000),
        // The names are in keymount's own state.
        Kind::Dstor => 0,
        // A look at the bucket for all directories in it, then a query each.
        Kind::ReductStore => 1 + DIRECTORIES,
        _ => 1 + DIRECTORIES,
    };
    listings + BEHIND_DF
}

/// What a walk asked for. At ReductStore the followers of what others change look at the bucket and at the directories
/// that were used last, too, and the server chooses how many parts an answer has: there each directory counts once.
fn counted(kind: Kind, asked: &[Asked]) -> usize {
    if kind != Kind::ReductStore {
        return asked.len();
    }
    let asked = asked.iter().filter(|asked| !asked.target.contains("/batch?q="));
    asked
        .map(|asked| (&asked.method, &asked.target))
        .collect::<BTreeSet<_>>()
        .len()
}

/// Whether a file of this name is asked for. Identifiers are random, and may have the same letters in them.
fn names(asked: &Asked, file: &str) -> bool {
    let target = percent_decode_str(&asked.target).decode_utf8_lossy();
    target
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|part| part == file)
}

/// Whether it is `df`'s question, which has an address of its own.
fn is_about_room(kind: Kind, asked: &Asked) -> bool {
    matches!(kind, Kind::CloudSync | Kind::Storra) && asked.target.ends_with("/me")
}

/// The most that a walk may ask when all is known. At ReductStore it is what the followers ask, the more the longer a
/// walk takes; each directory asked again would be twice that.
fn most_again(kind: Kind) -> usize {
    match kind {
        Kind::ReductStore => DIRECTORIES / 2,
        // They are asked for the room as for what the directory at the top is.
        Kind::WebdavRclone | Kind::WebdavWsgiDav => BEHIND_DF,
        Kind::Cludz | Kind::CloudSync | Kind::Storra | Kind::Dstor | Kind::S3Moto | Kind::S3Rclone => 0,
    }
}

/// How often each was asked, the most frequent first.
fn tally(asked: &[Asked]) -> Vec<(usize, String)> {
    let mut counts = BTreeMap::new();
    for asked in asked {
        *counts.entry(format!("{} {}", asked.method, asked.target)).or_insert(0) += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().map(|(what, count)| (count, what)).collect();
    counts.sort_by(|a, b| b.cmp(a));
    counts.truncate(20);
    counts
}

/// Gives the lines of the table.
fn walk(kind: Kind) -> String {
    let service = kind.start();
    let person = Sandbox::new(Who::me());
    service.configure(&person);
    service.seed(&person, &tree(DIRECTORIES, FILES));
    let mut table = String::new();
    for (name, command, printed) in commands(DIRECTORIES, FILES) {
        person.mount(REMOTE, &["--attr-ttl", TTL]);
        service.forget();
        person.sh(command).says(&printed);
        let asked = service.asked();
        let _ = writeln!(table, "{:<12} {name:<7} {:>4}", format!("{kind:?}"), asked.len());
        let times = counted(kind, &asked);
        assert!(
            times <= most(kind),
            "{kind:?}: {name} asked {times} times: {:?}",
            tally(&asked)
        );
        let about_a_file = asked.iter().find(|asked| names(asked, "f42"));
        assert_eq!(about_a_file, None, "{kind:?}: {name}");
        if name != "ls -lR" {
            person.unmount();
            continue;
        }
        service.forget();
        person
            .sh("find . -printf '%s\\n' > /dev/null && getfattr -d -m - d42/* d43 > /dev/null")
            .ok();
        let asked = service.asked();
        let again = counted(kind, &asked) - asked.iter().filter(|asked| is_about_room(kind, asked)).count();
        assert!(
            again <= most_again(kind),
            "{kind:?}: a second walk after {name}: {:?}",
            tally(&asked)
        );
        person.unmount();
    }
    table
}

/// Writes the lines down, in the order of the providers.
fn write_table(tables: &[String]) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("requests.txt");
    let head = format!("requests of one walk through {DIRECTORIES} directories with {FILES} files each\n");
    let table = head + &tables.concat();
    println!("{table}");
    std::fs::write(path, table).unwrap();
}

#[test]
fn a_walk_costs_one_listing_for_each_directory() {
    /// As many as share two processors well.
    const AT_ONCE: usize = 3;
    let kinds = [
        Kind::Cludz,
        Kind::CloudSync,
        Kind::Storra,
        Kind::Dstor,
        Kind::ReductStore,
        Kind::S3Rclone,
        Kind::WebdavRclone,
    ];
    let mut tables = Vec::new();
    for some in kinds.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let walks: Vec<_> = some.iter().map(|kind| scope.spawn(|| walk(*kind))).collect();
            let walked = walks.into_iter().map(|walk| walk.join());
            tables.extend(walked.map(|walk| walk.unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        });
    }
    write_table(&tables);
}

/// What `find`, `ls` and a file manager do all day leaves nearly all of Storra's hundred listings an hour.
#[test]
fn two_thousand_files_at_storra_leave_the_hours_listings() {
    const FILES: usize = 50;
    let storra = Storra::start();
    let person = Sandbox::new(Who::me());
    storra.configure(&person);
    storra.seed(&person, &tree(40, FILES));
    person.mount(REMOTE, &[]);
    for (_, command, printed) in commands(40, FILES) {
        person.sh(command).says(&printed);
    }
    // A file manager opens directories one after another: it reads the names, looks at each entry and its attributes, and
    // makes icons of what some begin with.
    person
        .sh(
            "for d in d0*; do ls -U $d > /dev/null; stat $d/* > /dev/null; getfattr -d -m - $d/* > /dev/null 2>&1; \
             head -c 1024 $d/f00 $d/f01 > /dev/null; done; ls -la . > /dev/null; df . > /dev/null",
        )
        .ok();
    for (_, command, printed) in commands(40, FILES) {
        person.sh(command).says(&printed);
    }
    let listings = storra.account.counted(Bucket::List);
    assert!(listings <= 6, "{listings} listings");
    assert_eq!(storra.account.counted(Bucket::Download), 20);
    person.unmount();
}
