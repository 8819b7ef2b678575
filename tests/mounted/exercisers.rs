//! Exercisers that nobody here wrote, on single files of a mount: fsx, fio, and SQLite whose power goes out.

use std::path::PathBuf;

use axum::http::Method;
use keymount::emulator::{Fault, Rule};

use crate::drive::CludzDrive;
use crate::program::installed;
use crate::sandbox::{Sandbox, Who, until};

/// How often fsx changes and compares a file, unless `KEYMOUNT_TEST_FSX_OPERATIONS` says otherwise.
const FSX_OPERATIONS: u64 = 4_000;
/// With how many seeds each profile is run, unless `KEYMOUNT_TEST_FSX_SEEDS` says otherwise.
const FSX_SEEDS: u64 = 2;

pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")),
        Err(_) => default,
    }
}

fn fsx() -> PathBuf {
    installed("KEYMOUNT_TEST_FSX", "fsx-0.3.2/bin/fsx")
}

/// What fsx does, as it is written in its configuration.
struct Profile {
    name: &'static str,
    configuration: &'static str,
}

const DEFAULT: Profile = Profile {
    name: "default",
    configuration: "[weights]\nclose_open = 0.3\ninvalidate = 0.3\n",
};
const MAPPED: Profile = Profile {
    name: "mapped",
    configuration: "nomsyncafterwrite = true\n[weights]\nclose_open = 0.3\ninvalidate = 1\nmapread = 4\nmapwrite = 4\n",
};
/// A file of several blocks, so that parts of it are changed, with every call that fsx knows; `fsync` is an upload.
const EVERYTHING: Profile = Profile {
    name: "everything",
    configuration: "flen = 3000000\n[opsize]\nmax = 200000\n[weights]\nclose_open = 0.5\ninvalidate = 0.2\nfsync = 0.02\n\
                    fdatasync = 0.02\nposix_fallocate = 0.5\npunch_hole = 0.5\nsendfile = 0.5\nposix_fadvise = 0.2\n\
                    copy_file_range = 0.5\n",
};

/// Runs fsx in a mount; what it left is then at the provider, byte for byte.
fn exercise(it: &CludzDrive, profile: &Profile, seed: u64, operations: u64) {
    let name = format!("{}-{seed}", profile.name);
    let configuration = it
        .person
        .file(&format!("work/{name}.toml"), profile.configuration, 0o644);
    let program = it.person.path("work/fsx");
    if !program.exists() {
        // Where everybody may execute it. By another process: what this one has open for writing, its children that are
        // being started have too, and nobody can execute it.
        let copied = std::process::Command::new("cp").arg(fsx()).arg(&program).status();
        assert!(copied.unwrap().success());
    }
    let said = it.person.sh(&format!(
        "{} -q -N {operations} -S {seed} -f {} -P {} {name}",
        program.display(),
        configuration.display(),
        it.person.path("work").display()
    ));
    assert_eq!(said.code, Some(0), "fsx {name}:\n{}\n{}", said.out, said.err);
    // Nobody but the one who mounts may look into the mount, not even root.
    let copy = it.person.path(&format!("work/{name}.copy"));
    it.person.sh(&format!("cp {name} {}", copy.display())).ok();
    let mine = std::fs::read(copy).unwrap();
    until_all_is_sent(&it.person);
    assert!(
        it.drive.read(&name).unwrap() == mine,
        "{name} is another one at the provider"
    );
    it.server.forget_requests();
}

/// Waits until everything is at the provider; the limit only ends a test that would hang.
#[track_caller]
pub fn until_all_is_sent(person: &Sandbox) {
    let start = std::time::Instant::now();
    loop {
        let pending = person.keymount(["pending", "list"]).ok();
        if pending == "nothing is pending\n" {
            return;
        }
        assert!(start.elapsed().as_secs() < 60, "it isn't sent:\n{pending}");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

/// Everybody in turn: one seed each.
fn exercise_all(profile: &Profile) {
    let operations = number("KEYMOUNT_TEST_FSX_OPERATIONS", FSX_OPERATIONS);
    let seeds = number("KEYMOUNT_TEST_FSX_SEEDS", FSX_SEEDS);
    let everybody = Who::everybody();
    for (number, who) in everybody.iter().enumerate() {
        let it = CludzDrive::new(*who);
        it.person.mount_as_usual("drive", &[]);
        for seed in (1..=seeds).skip(number).step_by(everybody.len()) {
            let began = std::time::Instant::now();
            exercise(&it, profile, seed, operations);
            println!(
                "fsx {}, seed {seed}, {who:?}: {operations} operations in {:?}",
                profile.name,
                began.elapsed()
            );
        }
        it.person.unmount();
    }
}

#[test]
fn fsx_by_default() {
    exercise_all(&DEFAULT);
}

#[test]
fn fsx_with_mappings() {
    exercise_all(&MAPPED);
}

#[test]
fn fsx_with_everything_on_parts_of_a_larger_file() {
    exercise_all(&EVERYTHING);
}

/// Random writes of blocks, each with a checksum in it, that are read back and compared: through the page cache and by
/// mappings, then by another mount from the provider.
#[test]
fn fio_verifies_random_writes() {
    for who in Who::everybody() {
        let it = CludzDrive::new(who);
        it.person.mount_as_usual("drive", &[]);
        let common = "--size=6m --bs=4k-64k --bsrange=4k-64k --norandommap=0 --verify=crc32c --randrepeat=1 \
                      --verify_fatal=1 --output-format=terse --directory=. --fallocate=none";
        for engine in ["psync", "mmap"] {
            let job = format!("fio --name={engine} --ioengine={engine} --rw=randwrite {common}");
            // Part of the file anew: the rest is the version at the provider.
            let part = format!("{job} --io_size=1m --randseed=7 --do_verify=1");
            it.person.sh(&format!("{job} --do_verify=1")).ok();
            until_all_is_sent(&it.person);
            it.person.sh(&part).ok();
        }
        it.person.unmount();
        it.person.keymount(["pending", "list"]).says("nothing is pending\n");
        it.person.mount_as_usual("drive", &["--no-disk-cache"]);
        for engine in ["psync", "mmap"] {
            let here = it.person.sh(&format!("cksum < {engine}.0.0")).ok();
            let bytes = it.drive.read(&format!("{engine}.0.0")).unwrap();
            assert_eq!(bytes.len(), 6 << 20);
            it.person.file("work/theirs", "", 0o644);
            std::fs::write(it.person.path("work/theirs"), &bytes).unwrap();
            assert_eq!(here, it.person.sh("cksum < ../work/theirs").ok());
        }
        it.person.unmount();
    }
}

/// Every call that changes or looks at a part of a file, compared with bytes in memory, which are left at the end.
const PARTS: &str = r#"
import ctypes, errno, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
KEEP, PUNCH, COLLAPSE, ZERO = 1, 2, 8, 16
def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, offset, length):
        return ctypes.get_errno()
model = bytearray(b"0123456789abcdef" * (3 << 16))
def put(at, data):
    if len(model) < at + len(data):
        model.extend(bytes(at + len(data) - len(model)))
    model[at:at + len(data)] = data
def size_is_right(fd):
    assert os.fstat(fd).st_size == os.stat("part").st_size == len(model), (os.fstat(fd).st_size, len(model))
fd = os.open("part", os.O_RDWR)
before = os.fstat(fd).st_mtime_ns
os.pwrite(fd, b"mine", 1000000); put(1000000, b"mine")
size_is_right(fd)
assert os.fstat(fd).st_mtime_ns > before
print("written", flush=True)
sys.stdin.readline()
appenders = [os.open("part", os.O_WRONLY | os.O_APPEND) for _ in range(3)]
for turn in range(30):
    line = b"line %d\n" % turn
    os.write(appenders[turn % 3], line); put(len(model), line)
    size_is_right(fd)
os.ftruncate(fd, 2500000); del model[2500000:]
size_is_right(fd)
os.ftruncate(fd, 2600000); put(2600000, b"")
size_is_right(fd)
assert fallocate(fd, PUNCH | KEEP, 1 << 20, 1 << 18) is None
put(1 << 20, bytes(1 << 18))
assert fallocate(fd, ZERO, 2590000, 20000) is None
put(2590000, bytes(20000))
size_is_right(fd)
assert fallocate(fd, KEEP, 0, 4 << 20) is None
assert fallocate(fd, 0, 0, 2700000) is None
put(2700000, b"")
size_is_right(fd)
assert fallocate(fd, COLLAPSE, 0, 4096) == errno.EOPNOTSUPP
assert os.lseek(fd, 0, os.SEEK_HOLE) == 1 << 20
assert os.lseek(fd, 1 << 20, os.SEEK_DATA) == (1 << 20) + (1 << 18)
try:
    os.lseek(fd, len(model), os.SEEK_DATA)
    assert False
except OSError as error:
    assert error.errno == errno.ENXIO
os.pwrite(fd, b"behind the end", 2800000); put(2800000, b"behind the end")
size_is_right(fd)
copied = os.copy_file_range(fd, fd, 100000, 5, 1500000)
assert copied == 100000
put(1500000, model[5:100005])
shared = mmap.mmap(fd, len(model))
shared[777:781] = b"MAPS"; put(777, b"MAPS")
other = os.open("part", os.O_RDONLY)
shared.flush()
assert os.pread(other, 4, 777) == b"MAPS"
again = mmap.mmap(other, len(model), prot=mmap.PROT_READ)
assert again[777:781] == b"MAPS"
os.rename("part", "renamed")
os.pwrite(fd, b"renamed", 12); put(12, b"renamed")
os.rename("renamed", "part")
for end in (0, 12, 1 << 20, 1500000, 2599990, len(model)):
    at = max(0, end - 1000)
    assert os.pread(other, 2000, at) == model[at:at + 2000], end
shared[:100] = b"m" * 100; put(0, b"m" * 100)
for it in (shared, again):
    it.close()
for it in (fd, other, *appenders):
    os.close(it)
assert open("part", "rb").read() == model
open(sys.argv[1], "wb").write(model)
os.truncate("part", 1000)
assert os.stat("part").st_size == 1000
truncating = os.open("part", os.O_WRONLY | os.O_TRUNC)
assert os.stat("part").st_size == 0
os.write(truncating, model)
os.close(truncating)
"#;

#[test]
fn every_call_for_parts_of_files() {
    for who in Who::everybody() {
        let it = CludzDrive::new(who);
        let content = "0123456789abcdef".repeat(3 << 16);
        it.drive.put("part", content.clone()).unwrap();
        let script = it.person.file("work/parts.py", PARTS, 0o644);
        let expected = it.person.file("work/expected", "", 0o666);
        it.person.mount_as_usual("drive", &[]);
        it.server.forget_requests();
        let mut shell = it.person.open_shell();
        let (go, said) = (it.person.path("work/go"), it.person.path("work/said"));
        shell.says(&format!("mkfifo {} {}", go.display(), said.display()), "");
        let run = format!(
            "python3 {} {} <{} >{} 2>&1 &",
            script.display(),
            expected.display(),
            go.display(),
            said.display()
        );
        shell.says(&run, "");
        shell.says(
            &format!(
                "exec 8>{} 9<{}; read -r line <&9; echo \"$line\"",
                go.display(),
                said.display()
            ),
            "written\n",
        );
        let fetched: u64 = it.server.requests().iter().map(|request| request.bytes_out).sum();
        assert!(fetched < 20_000, "{fetched} bytes were fetched for a change of 4");
        shell.says("echo go >&8; cat <&9; wait $!", "");
        until_all_is_sent(&it.person);
        let model = std::fs::read(&expected).unwrap();
        assert!(
            it.drive.read("part").unwrap() == model,
            "something else is at the provider"
        );
        drop(shell);
        it.person.unmount();
    }
}

/// Commits numbered rows until it is killed, in rollback-journal mode; prints each number when it is committed.
const COMMITTING: &str = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
db.execute("pragma journal_mode = delete")
db.execute("pragma synchronous = full")
db.execute("pragma cache_size = 5")
db.execute("create table if not exists rows (number integer primary key, filling blob)")
last = db.execute("select coalesce(max(number), 0) from rows").fetchone()[0]
print("begin", flush=True)
while True:
    last += 1
    db.execute("begin immediate")
    db.execute("insert into rows values (?, randomblob(3000))", (last,))
    db.execute("update rows set filling = randomblob(2500) where number % 7 = ?", (last % 7,))
    db.execute("commit")
    print(last, flush=True)
"#;

/// What is in the database afterwards, and whether it is whole.
const CHECKING: &str = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(*db.execute("pragma integrity_check").fetchone())
count, last = db.execute("select count(*), coalesce(max(number), 0) from rows").fetchone()
assert count == last, (count, last)
print(last)
"#;

fn committed(it: &CludzDrive, at_least: u64) {
    let script = it.person.path("work/check.py");
    let said = it.person.sh(&format!("python3 {} test.db", script.display())).ok();
    let (whole, last) = said.trim().split_once('\n').unwrap();
    assert_eq!(whole, "ok");
    let last: u64 = last.parse().unwrap();
    // What was being committed may be there too.
    assert!(last == at_least || last == at_least + 1, "{last} of {at_least}");
}

#[test]
fn sqlite_is_whole_when_it_or_the_daemon_is_killed() {
    let it = CludzDrive::new(Who::me());
    let commit = it.person.file("work/commit.py", COMMITTING, 0o644);
    it.person.file("work/check.py", CHECKING, 0o644);
    it.person.mount_as_usual("drive", &[]);
    let mut done = 0;
    for round in 0..4u64 {
        let mut sqlite = it.person.start(&format!("exec python3 {} test.db", commit.display()));
        sqlite.wait_for("begin");
        // Rounds end at different places: between, before and in the middle of requests.
        for _ in 0..3 + round {
            done = last_number(&sqlite.wait_for(""));
        }
        if round % 2 == 0 {
            sqlite.signal("KILL");
            done = rest(sqlite, done);
        } else {
            kill_daemon(&it);
            done = rest(sqlite, done);
            it.person.mount_as_usual("drive", &[]);
        }
        committed(&it, done);
    }
    // While nothing can be sent, nothing is committed, and what was is whole.
    it.server
        .faults()
        .inject(Rule::always(Method::POST, "", Fault::status(507)));
    let sqlite = it.person.start(&format!("exec python3 {} test.db", commit.display()));
    done = rest(sqlite, done);
    it.server.faults().clear();
    committed(&it, done);
    it.person.unmount();
    it.person.mount_as_usual("drive", &[]);
    committed(&it, done);
    it.person.unmount();
}

fn last_number(lines: &str) -> u64 {
    let last = lines.lines().last().unwrap_or_default();
    last.parse().unwrap_or(0)
}

/// Waits for its end; gives the last number that it printed, or the one known before.
fn rest(sqlite: crate::sandbox::Running, known: u64) -> u64 {
    let said = sqlite.wait();
    said.out
        .lines()
        .rev()
        .find_map(|line| line.parse().ok())
        .unwrap_or(known)
}

pub fn kill_daemon(it: &CludzDrive) {
    for daemon in it.person.daemons() {
        std::process::Command::new("kill")
            .arg("-KILL")
            .arg(daemon.to_string())
            .status()
            .unwrap();
    }
    until("the end of the daemon", || it.person.daemons().is_empty());
}
