//! The file system under the kernel's hands, over the reference provider with faults that no service gives on demand.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use keymount::cache::{BlockCache, DiskCache, MemoryCache};
use keymount::fetch::{FetchSettings, Fetcher};
use keymount::fs::{CloseMeans, FileSystem, FsSettings};
use keymount::fuse::{self, Detach, MountSettings, Session};
use keymount::model::ErrorKind;
use keymount::outbox::Spool;
use keymount::provider::Provider;
use keymount::provider::faulty::{Fault, Faulty, Gate, Operation, Times};
use keymount::provider::memory::Memory;
use keymount::state::StateDb;
use tokio::runtime::Runtime;

use crate::sandbox::until;

/// How long an operation may stand still in tests that are not about that.
const LONG: Duration = Duration::from_secs(30);
/// In tests that are. What works must be over before. A change that was given up goes on for three quarters of this,
/// within which a test must open its gate.
const SHORT: Duration = Duration::from_secs(10);

/// A mount that this process serves, used by others.
struct Served {
    store: Memory,
    provider: Arc<Faulty<Memory>>,
    fs: Arc<FileSystem>,
    session: Session,
    runtime: Runtime,
    folder: tempfile::TempDir,
}

impl Served {
    fn new(attr_ttl: Duration) -> Self {
        Self::with_deadline(attr_ttl, LONG)
    }

    fn with_deadline(attr_ttl: Duration, op_timeout: Duration) -> Self {
        let folder = tempfile::Builder::new().prefix("served-").tempdir().unwrap();
        Self::over(
            Arc::new(MemoryCache::new(16 << 20)),
            folder,
            false,
            attr_ttl,
            op_timeout,
        )
    }

    /// Nothing can be written, and what was read is kept on disk.
    fn read_only_on_disk(attr_ttl: Duration) -> (Self, Arc<dyn BlockCache>) {
        let folder = tempfile::Builder::new().prefix("served-").tempdir().unwrap();
        let cache: Arc<dyn BlockCache> = Arc::new(DiskCache::open(&folder.path().join("cache"), 1 << 30).unwrap());
        // It keeps nothing before it has counted what is there, which this waits for.
        Runtime::new().unwrap().block_on(cache.clear(&HashSet::new()));
        let served = Self::over(Arc::clone(&cache), folder, true, attr_ttl, LONG);
        (served, cache)
    }

    fn over(
        cache: Arc<dyn BlockCache>,
        folder: tempfile::TempDir,
        read_only: bool,
        attr_ttl: Duration,
        op_timeout: Duration,
    ) -> Self {
        let directory = folder.path().join("mnt");
        std::fs::create_dir(&directory).unwrap();
        let me = std::fs::metadata("/proc/self").unwrap();
        let store = Memory::default();
        let provider = Arc::new(Faulty::new(store.clone()));
        let dynamic: Arc<dyn Provider> = Arc::clone(&provider) as _;
        let fetching = FetchSettings {
            spill_directory: folder.path().to_owned(),
            spill_limit: 1 << 30,
            memory: 16 << 20,
        };
        let fetcher = Arc::new(Fetcher::new(Arc::clone(&dynamic), cache, fetching));
        let fs = Arc::new(FileSystem::new(
            dynamic,
            fetcher,
            Spool::open(folder.path()).unwrap(),
            Arc::new(StateDb::open(&folder.path().join("state.db")).unwrap()),
            store.entry_at("").unwrap(),
            FsSettings {
                read_only,
                uid: me.uid(),
                gid: me.gid(),
                umask: 0o022,
                attr_ttl,
                close: CloseMeans::Sent,
                remote: "memory".to_owned(),
            },
        ));
        let runtime = Runtime::new().unwrap();
        let settings = MountSettings {
            directory,
            remote: "memory".to_owned(),
            read_only,
            allow_other: false,
            op_timeout,
        };
        let session = runtime.block_on(fuse::mount(Arc::clone(&fs), settings)).unwrap();
        Self {
            store,
            provider,
            fs,
            session,
            runtime,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("mnt").join(name)
    }

    /// Runs a shell script in the mount; what hangs fails.
    fn sh(&self, script: &str) -> (bool, String) {
        let output = Command::new("timeout")
            .args(["120", "sh", "-c", &format!("cd \"$MNT\" || exit 99\n{script}")])
            .env("MNT", self.path(""))
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        assert_ne!(output.status.code(), Some(124), "it hangs: {script}");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    #[track_caller]
    fn ok(&self, script: &str) -> String {
        let (success, said) = self.sh(script);
        assert!(success, "{script}: {said}");
        said
    }

    #[track_caller]
    fn refused(&self, script: &str, message: &str) {
        let (success, said) = self.sh(script);
        assert!(!success && said.contains(message), "{script}: {success} {said}");
    }

    /// The next call is carried out, and its answer waits.
    fn stall_next_answer(&self, operation: Operation) -> Gate {
        let gate = Gate::new();
        self.provider
            .inject(operation, Times::Next(1), Fault::StallAnswer(gate.clone()));
        gate
    }

    fn stall(&self, operation: Operation) -> Gate {
        let gate = Gate::new();
        self.provider
            .inject(operation, Times::Always, Fault::Stall(gate.clone()));
        gate
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.session.detach(Detach::Lazy));
    }
}

/// With the rights that this takes; without them the same bytes come from the daemon.
#[test]
fn a_complete_file_is_read_by_the_kernel_alone() {
    let (served, cache) = Served::read_only_on_disk(Duration::ZERO);
    let (old, new) = (vec![b'o'; 300_000], vec![b'n'; 200_000]);
    served.store.put("f", old.clone()).unwrap();
    // A handle whose reads go through the daemon, without pages that were read before.
    let read = "dd if=f iflag=nocache count=0 status=none; cat f | wc -c";
    until("all of it is on disk", || {
        served.ok(read);
        let before = cache.usage().hits;
        served.ok(read);
        before == cache.usage().hits || !served.fs.does_kernel_read_files()
    });
    let mut reader = Command::new("sh")
        .args(["-c", "exec 3<f; head -c 5 <&3; echo; read go; exec cat <&3"])
        .current_dir(served.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(reader.stdout.take().unwrap());
    let mut begun = String::new();
    said.read_line(&mut begun).unwrap();
    assert_eq!(begun, "ooooo\n");
    served.store.put("f", new.clone()).unwrap();
    assert_eq!(served.ok("cat f").into_bytes(), new, "whoever opens it now gets this");
    if served.fs.does_kernel_read_files() {
        writeln!(reader.stdin.take().unwrap(), "go").unwrap();
        let mut rest = Vec::new();
        said.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, old[5..], "whoever had it open goes on");
    }
    drop(reader.stdin.take());
    let _ = reader.wait();
    assert_eq!(served.ok("cat f").into_bytes(), new);
}

/// The next ones are on their way before they are asked for, and none is broken off and asked for again, though the kernel
/// may read them by itself and doesn't say so.
#[test]
fn small_files_are_asked_for_once_each() {
    const MANY: u64 = 300;
    let (it, _) = Served::read_only_on_disk(Duration::from_secs(600));
    it.fs.start_fetching_ahead();
    for n in 0..MANY {
        it.store.put(&format!("small/{n:03}"), format!("{n:04096}")).unwrap();
    }
    let round_trip = Fault::Delay(Duration::from_millis(20));
    it.provider.inject(Operation::Read, Times::Always, round_trip);
    assert_eq!(it.ok("cat small/* | wc -c").trim(), (MANY * 4096).to_string());
    let (reads, others) = (it.provider.calls(Operation::Read), it.provider.all_calls());
    assert!(reads <= MANY + MANY / 20, "{reads} reads");
    // The top, the directory, and what there is to use.
    assert!(others - reads <= 6, "{} questions beside {reads} reads", others - reads);
}

/// `ls -l` asks every file for both, and stops where it hears that there are none.
#[test]
fn labels_and_access_lists_are_not_supported() {
    let it = Served::new(Duration::from_secs(60));
    it.store.put("f", "x").unwrap();
    for name in ["security.selinux", "system.posix_acl_access", "trusted.any"] {
        it.refused(&format!("getfattr -n {name} f"), "not supported");
    }
    it.refused("getfattr -n user.none f", "No such attribute");
    it.ok("test \"$(ls -l f | cut -c 1-11)\" = '-rw-r--r-- ' && cp -a f g && cmp f g");
}

/// Each call that can wait for the provider ends with ETIMEDOUT when it stands still; meanwhile others work, and the same
/// one works again as soon as the provider does.
#[test]
fn nothing_waits_longer_than_the_deadline() {
    let cases = [
        (Operation::Lookup, "cat unknown", "test ! -e unknown"),
        (Operation::List, "ls folder", "ls folder"),
        (Operation::Read, "cat file", "cat file"),
        (
            Operation::Read,
            "echo x | dd of=file oflag=append conv=notrunc",
            "printf x >> file",
        ),
        (Operation::CreateDirectory, "mkdir made", "test -d made || mkdir made"),
        (Operation::RemoveFile, "rm -f file", "test ! -e file || rm file"),
        (
            Operation::RemoveDirectory,
            "rmdir folder",
            "test ! -e folder || rmdir folder",
        ),
        (Operation::Rename, "mv file moved", "test -e moved || mv file moved"),
        (
            Operation::Upload,
            "echo x | cp /dev/stdin new",
            "echo x | cp /dev/stdin new",
        ),
        (Operation::Upload, "truncate -s 2 file", "truncate -s 2 file"),
        (
            Operation::Upload,
            "echo x | cp /dev/stdin file",
            "echo y | cp /dev/stdin file",
        ),
        (
            Operation::SetLabels,
            "setfattr -n user.a -v b file",
            "setfattr -n user.a -v b file",
        ),
    ];
    let stands_still = |(operation, script, healed): (Operation, &str, &str)| {
        // All of them at once, each with several processes.
        let it = Served::with_deadline(Duration::ZERO, 2 * SHORT);
        it.store.put("other", "other").unwrap();
        it.store.put("file", "text").unwrap();
        it.store.make_directory("folder").unwrap();
        it.ok("stat file folder other");
        let gate = it.stall(operation);
        it.refused(script, "Connection timed out");
        it.ok("stat -f .");
        it.provider.heal();
        // Whoever stands at the gate stays there.
        it.ok("test \"$(cat other)\" = other");
        it.ok(healed);
        gate.open();
        it.ok("rm -rf new made moved file");
        assert!(it.fs.pending().is_empty(), "{script}: {:?}", it.fs.pending());
    };
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || stands_still(case));
        }
    });
}

/// What is known is shown while the provider stands still, and not only when it refuses.
#[test]
fn a_provider_that_stands_still_is_away() {
    let it = Served::with_deadline(Duration::ZERO, SHORT);
    for n in 0..5 {
        it.store.put(&format!("folder/{n}"), "text").unwrap();
    }
    it.ok("ls -l folder");
    for operation in [Operation::Lookup, Operation::List, Operation::Stat] {
        it.stall(operation);
    }
    let _ = it.sh("stat folder/0");
    // How long that is known is a few seconds, and then it takes another look.
    until("all names", || {
        it.sh("ls -l folder | grep -c text; ls folder | wc -l").1.lines().last() == Some("5")
    });
}

/// The deadline is answered while the upload goes on; that it arrived is known afterwards.
#[test]
fn an_upload_that_ends_after_its_deadline_is_no_conflict() {
    let it = Served::with_deadline(Duration::from_secs(60), SHORT);
    let gate = it.stall_next_answer(Operation::Upload);
    it.refused("echo one | cp /dev/stdin file", "Connection timed out");
    gate.open();
    it.ok("echo two >> file; sync file");
    assert_eq!(it.store.content("file").unwrap(), "one\ntwo\n");
    assert!(it.fs.pending().is_empty());
}

#[test]
fn names_that_come_after_the_deadline_are_seen() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let it = Served::with_deadline(Duration::from_secs(60), SHORT);
            let gate = it.stall_next_answer(Operation::CreateDirectory);
            it.refused("mkdir late", "Connection timed out");
            gate.open();
            // The kernel forgets that it was missing when it is done with the answer.
            until("the directory", || it.path("late").exists());
            it.ok("test -d late && rmdir late");
        });
        scope.spawn(|| {
            let it = Served::with_deadline(Duration::from_secs(60), SHORT);
            it.ok("echo one > file");
            let gate = it.stall_next_answer(Operation::Rename);
            // `mv` would try again by itself.
            let rename = r#"perl -e 'rename("file", "moved") or die "$!"'"#;
            it.refused(rename, "Connection timed out");
            gate.open();
            until("the end of the rename", || !it.path("file").exists());
            it.ok("test -e moved && echo two >> moved");
            assert_eq!(it.store.content("moved").unwrap(), "one\ntwo\n");
        });
    });
}

#[test]
fn a_panic_costs_one_answer() {
    let it = Served::new(Duration::ZERO);
    it.store.put("file", "text").unwrap();
    it.store.put("unread", "text").unwrap();
    for (operation, script) in [
        (Operation::Lookup, "cat file"),
        (Operation::List, "ls"),
        (Operation::Read, "cat unread"),
        (Operation::Upload, "echo x | cp /dev/stdin new"),
        (Operation::Rename, "mv file moved && mv moved file"),
        (Operation::SetLabels, "setfattr -n user.a -v b file"),
    ] {
        // The kernel repeats a read ahead that failed.
        it.provider.inject(operation, Times::Always, Fault::Panic);
        it.refused(script, "Input/output error");
        it.provider.heal();
        it.ok(script);
    }
    assert!(
        it.fs
            .problems()
            .iter()
            .any(|problem| problem.message.contains("defect"))
    );
}

#[test]
fn large_directories_are_read_and_removed_whole() {
    const MANY: usize = 5000;
    let it = Served::new(Duration::from_secs(60));
    for n in 0..MANY {
        it.store.put(&format!("many/file number {n}"), "x").unwrap();
    }
    assert_eq!(it.ok("ls many | sort -u | wc -l").trim(), MANY.to_string());
    it.provider.reset_counts();
    assert_eq!(it.ok("ls -l many | grep -c 'file number'").trim(), MANY.to_string());
    assert_eq!(it.provider.all_calls(), 0, "it was all known");
    // Positions stay valid, and rewinding looks again.
    it.ok(
        r#"perl -e '
        opendir(my $d, "many") or die; my (@all, @at);
        for (;;) { my $at = telldir($d); my $name = readdir($d); last unless defined $name; push @at, $at; push @all, $name }
        die scalar(@all) unless @all == 5002;
        for my $n (4000, 17, 2500, 5001, 0) {
            seekdir($d, $at[$n]); my $name = readdir($d); die "$n: $name, $all[$n]" unless $name eq $all[$n] }
        open(my $f, ">", "many/new") or die; close($f) or die;
        rewinddir($d); my $count = () = readdir($d); die $count unless $count == 5003;
        unlink("many/new") or die'"#,
    );
    it.ok("rm -r many && test ! -e many");
    assert!(it.store.snapshot().is_empty());
}

/// What the kernel keeps of a file is let go of when somebody else changed it.
#[test]
fn remote_changes_reach_the_kernel() {
    let it = Served::new(Duration::ZERO);
    it.store.put("file", "first").unwrap();
    assert_eq!(it.ok("cat file"), "first");
    it.store.put("file", "other").unwrap();
    assert_eq!(it.ok("cat file"), "other");
    it.store.put("file", "longer than before").unwrap();
    assert_eq!(it.ok("cat file; stat -c %s file"), "longer than before18\n");
    it.store.put("file", "").unwrap();
    assert_eq!(it.ok("cat file; stat -c %s file"), "0\n");
    it.store.remove("file").unwrap();
    it.store.put("file/inner", "deep").unwrap();
    assert_eq!(it.ok("cat file/inner; ls"), "deepfile\n");
    it.store.remove("file").unwrap();
    it.store.put("file", "flat").unwrap();
    assert_eq!(it.ok("cat file"), "flat");
    it.store.put("late", "late").unwrap();
    assert_eq!(it.ok("cat late"), "late", "that it wasn't there isn't remembered");
    it.ok(
        "ls -i file > /dev/null; before=$(stat -c %i file); mv file moved; test \"$(stat -c %i moved)\" = \"$before\"",
    );
    it.store.put("file", "third").unwrap();
    assert_eq!(it.ok("cat file moved"), "thirdflat");
}

/// The kernel answers for a missing name by itself, and hears of it as soon as the name isn't missing any more.
#[test]
fn a_missing_name_is_asked_for_once() {
    let it = Served::new(Duration::from_secs(600));
    it.store.put("d/there", "x").unwrap();
    it.ok("stat d");
    // No listing answers: each look that comes here goes on to the provider.
    let denied = Fault::Fail(ErrorKind::Denied);
    it.provider.inject(Operation::List, Times::Always, denied);
    it.provider.reset_counts();
    it.ok("n=0; while [ $n -lt 1000 ]; do ! test -e d/missing || exit 1; n=$((n+1)); done");
    let looks = it.provider.calls(Operation::Lookup);
    // A kernel that is short of memory forgets what it likes.
    assert!((1..=50).contains(&looks), "{looks}");
    it.provider.heal();

    it.store.put("d/missing", "x").unwrap();
    it.runtime.block_on(it.fs.refresh()).unwrap();
    until("the name", || it.path("d/missing").exists());

    // By this mount: at once, and missing again at once.
    it.ok("cd d; for n in a b c d e f; do ! test -e $n || exit 1; done");
    it.ok(
        "cd d; echo x > a && test -f a; mkdir b && test -d b; mv a c && test -f c && ! test -e a; \
         ln -s there d && test -L d; ln -P d e && test -L e; mkfifo f && test -p f; \
         (cd b && test \"$(pwd -P)\" = \"$(realpath .)\" && test -n \"$(/bin/pwd)\")",
    );
    it.ok("cd d; rm c d e f; rmdir b; for n in a b c d e f; do ! test -e $n || exit 1; done");
    it.ok("cd d; for n in a b c d e f; do echo $n > $n && test \"$(cat $n)\" = $n && rm $n && ! test -e $n || exit 1; done");
}

/// A name that somebody else makes is there when the answer that it is missing is too old.
#[test]
fn a_missing_name_is_asked_for_again_after_the_ttl() {
    let it = Served::new(Duration::from_secs(1));
    it.store.put("d/there", "x").unwrap();
    it.ok("! test -e d/missing");
    it.store.put("d/missing", "x").unwrap();
    until("the name", || it.path("d/missing").exists());
}

#[test]
fn modes_can_be_taken_and_given_back() {
    let it = Served::new(Duration::from_secs(60));
    it.ok("umask 027; echo x > file; mkdir folder; test \"$(stat -c %a file)\" = 640; test \"$(stat -c %a folder)\" = 750");
    it.ok(
        "chmod 000 file folder; test \"$(stat -c %a file folder | sort -u)\" = 0; chmod 755 file folder; test -x file",
    );
    it.ok("install -m 700 file tool && test \"$(stat -c %a tool)\" = 700 && ./tool 2>/dev/null; test $? != 126");
    it.ok("touch -d '2001-02-03 04:05:06' file && cp -p file copy && test \"$(stat -c %Y file)\" = \"$(stat -c %Y copy)\"");
    it.ok("mv copy file && test \"$(date -d @$(stat -c %Y file) +%Y)\" = 2001");
    it.ok("mkdir tree && cp -p file tree/f && touch -d 2002-03-04 tree && tar c tree | (mkdir out && tar x -C out)");
    it.ok("test \"$(stat -c '%a %Y' tree tree/f)\" = \"$(cd out && stat -c '%a %Y' tree tree/f)\"");
    it.ok("sleep 0; echo more >> file; test \"$(date -d @$(stat -c %Y file) +%Y)\" != 2001");
}
