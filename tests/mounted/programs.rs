//! Programs that ask more of a file system than reading and writing: editors and how they save, archives with links and
//! modes, a compiler's target folder. At WebDAV servers that differ in their locks and tags, by everybody.

use std::path::Path;

use crate::object_stores::configure_webdav;
use crate::sandbox::{Sandbox, Who};
use crate::webdav_server::{APACHES_OWN, DavServer, Software};

const SERVERS: [Software; 2] = [Software::WsgiDav, Software::Apache];

/// A mount of an empty server.
fn mounted(who: Who, software: Software) -> (Sandbox, DavServer) {
    let server = DavServer::start(software);
    let mut person = Sandbox::new(who);
    person.variable("TERM", "dumb");
    person.variable("GIT_CONFIG_GLOBAL", "/dev/null");
    configure_webdav(&person, &server, "");
    person.mount_as_usual("store", &[]);
    (person, server)
}

/// Unmounts, which waits until the server has everything, and mounts what is there with the state that is kept.
fn mount_again(person: &Sandbox) {
    person.unmount();
    person.mount_as_usual("store", &[]);
}

fn stored(server: &DavServer, name: &str) -> String {
    std::fs::read_to_string(server.data().join(name)).unwrap()
}

#[test]
fn editors_save() {
    Who::each_with(&SERVERS, |who, software| {
        let (person, server) = mounted(who, software);
        let inode = "stat -c %i,%a file";
        person.sh("printf 'one\\ntwo\\n' > file && chmod 640 file").ok();
        // In place with a backup, and by a new file in its place.
        for (number, way) in ["yes", "no"].into_iter().enumerate() {
            let typed = format!(
                "vim -Nu NONE -i NONE -n -es -c 'set backup writebackup backupskip= backupcopy={way} fsync' \
                 -c '1s/.*/vim {number}/' -c 'wq' file </dev/null && cat file file~ && stat -c %a file"
            );
            let before = if number == 0 { "one" } else { "vim 0" };
            person
                .sh(&typed)
                .says(&format!("vim {number}\ntwo\n{before}\ntwo\n640\n"));
        }
        // With a swap file, as people use it.
        person
            .sh("vim -Nu NONE -i NONE -es -c '2s/.*/swapped/' -c 'wq' file </dev/null && cat file && ls -A")
            .says("vim 1\nswapped\nfile\nfile~\n");
        let saved = person.sh(inode).ok();
        mount_again(&person);
        person.sh(inode).says(&saved);
        person.sh(EMACS).says("by emacs\nvim 1\nswapped\n");
        person.sh(LIBRE_OFFICE).says("by libreoffice\n600\n");
        person.sh(NANO).says("by nano\nby libreoffice\n");
        person.unmount();
        assert_eq!(stored(&server, "file"), "by nano\n");
        let names = std::fs::read_dir(server.data()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.filter(|name| name != APACHES_OWN).collect();
        names.sort();
        assert_eq!(names, ["file", "file~"]);
    });
}

/// What Emacs does (files.el, filelock.c): a symbolic link to nowhere as the lock, the old file renamed to be the backup, a
/// new one written and synced, its mode set, and the lock read and removed.
const EMACS: &str = r#"python3 - <<'END'
import os, stat
os.symlink("somebody@host.1234:1700000000", ".#file")
try:
    os.symlink("another@host.1", ".#file")
except FileExistsError:
    pass
mode = stat.S_IMODE(os.stat("file").st_mode)
os.rename("file", "file~")
new = os.open("file", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
os.write(new, b"by emacs\n")
os.fsync(new)
os.close(new)
os.chmod("file", mode)
assert os.readlink(".#file") == "somebody@host.1234:1700000000"
os.unlink(".#file")
END
cat file file~"#;

/// What LibreOffice does (sfx2's medium and sal's files): an exclusive lock file beside it, an advisory lock on the document,
/// the document written to a temporary file in the same directory, a backup copy, and a rename over the document.
const LIBRE_OFFICE: &str = r#"python3 - <<'END'
import fcntl, os, shutil
lock = os.open(".~lock.file#", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.write(lock, b",somebody,host,22.11.2026 10:00,file:///;")
os.close(lock)
document = os.open("file", os.O_RDWR)
fcntl.lockf(document, fcntl.LOCK_EX | fcntl.LOCK_NB)
temporary = os.open("lu1234abcd.tmp", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.write(temporary, b"x" * 70000)
os.ftruncate(temporary, 0)
os.lseek(temporary, 0, os.SEEK_SET)
os.write(temporary, b"by libreoffice\n")
os.fsync(temporary)
shutil.copy2("file", "lu1234back.tmp")
os.close(temporary)
os.rename("lu1234abcd.tmp", "file")
assert os.fstat(document).st_nlink == 0
assert os.pread(document, 100, 0) == b"by emacs\n"
os.pwrite(document, b"lost", 0)
os.close(document)
os.unlink("lu1234back.tmp")
os.unlink(".~lock.file#")
END
cat file && stat -c %a file"#;

/// What nano does with `--backup`: the backup copied with its owner, mode and times, the file truncated and written in place.
const NANO: &str = r#"python3 - <<'END'
import os
was = os.stat("file")
if os.path.exists("file~"):
    os.unlink("file~")
backup = os.open("file~", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
os.fchown(backup, was.st_uid, was.st_gid)
os.fchmod(backup, was.st_mode & 0o7777)
with open("file", "rb") as old:
    os.write(backup, old.read())
os.utime(backup, ns=(was.st_atime_ns, was.st_mtime_ns))
os.close(backup)
kept = os.stat("file~")
assert (kept.st_mtime_ns, kept.st_mode) == (was.st_mtime_ns, was.st_mode)
new = os.open("file", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
os.write(new, b"by nano\n")
os.close(new)
END
cat file file~"#;

/// Locks of both kinds, of parts and of wholes, between two processes; each goes with its process.
const LOCKS: &str = r#"printf 0123456789 > file && python3 - <<'END'
import fcntl, os, signal, subprocess, sys

def another(code):
    """Another process that says when it has its lock, and keeps it until it is killed."""
    begin = "import fcntl, os, time\nfd = os.open('file', os.O_RDWR)\n"
    process = subprocess.Popen([sys.executable, "-c", begin + code + "\nprint(flush=True)\ntime.sleep(600)"], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process

def kill(process):
    process.kill()
    process.wait()

def refused(attempt, *rest):
    try:
        attempt(*rest)
    except BlockingIOError:
        return True

fd = os.open("file", os.O_RDWR)
process = another("fcntl.lockf(fd, fcntl.LOCK_EX, 3, 2)")
assert refused(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
assert refused(fcntl.lockf, fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 4)
fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 2, 0)
fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 5)
kill(process)
fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
fcntl.lockf(fd, fcntl.LOCK_UN)

process = another("fcntl.flock(fd, fcntl.LOCK_SH)")
fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
assert refused(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.rename("file", "renamed")
assert refused(fcntl.flock, os.open("renamed", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
kill(process)
fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
same = os.open("renamed", os.O_RDWR)
assert refused(fcntl.flock, same, fcntl.LOCK_SH | fcntl.LOCK_NB)
os.close(fd)
fcntl.flock(same, fcntl.LOCK_SH | fcntl.LOCK_NB)
END
rm renamed"#;

#[test]
fn what_one_process_locks_no_other_one_can() {
    Who::each_with(&SERVERS, |who, software| {
        let (person, _server) = mounted(who, software);
        person.sh(LOCKS).says("");
        person.unmount();
    });
}

/// Neither `O_TRUNC` that only reads, which the kernel refuses last of all, nor writing changes a program while it runs.
const RUNS: &str = r#"
import errno, os, shutil, subprocess
shutil.copy(shutil.which("sleep"), "runs")
size = os.stat("runs").st_size
running = subprocess.Popen(["./runs", "1000"])
try:
    for flags in os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_TRUNC:
        try:
            os.open("runs", flags)
            raise SystemExit(f"{flags} was not refused")
        except OSError as error:
            assert error.errno == errno.ETXTBSY, error
        assert os.stat("runs").st_size == size, flags
    assert running.poll() is None, running.returncode
finally:
    running.kill()
    running.wait()
os.close(os.open("runs", os.O_RDONLY | os.O_TRUNC))
assert os.stat("runs").st_size == 0
"#;

#[test]
fn a_program_that_runs_is_not_emptied() {
    Who::each_with(&SERVERS, |who, software| {
        let (person, server) = mounted(who, software);
        person.file("work/runs.py", RUNS, 0o644);
        person.sh("python3 ../work/runs.py").says("");
        person.unmount();
        assert_eq!(stored(&server, "runs"), "");
    });
}

/// A tree with what archives carry: links, modes, times, a fifo.
const TREE: &str = "mkdir -p t/bin t/empty && printf '#!/bin/sh\\necho runs\\n' > t/bin/tool && chmod 755 t/bin/tool && \
                    printf secret > t/private && chmod 600 t/private && ln -s bin/tool t/link && ln -s nowhere t/broken && \
                    ln -s bin t/folder && touch -d '2001-02-03 04:05:06.789012345' t/private t/bin/tool t/empty && \
                    touch -h -d '2002-02-03 04:05:06' t/link && chmod 750 t/bin";
/// All that there is to say of a tree but the numbers. Not every rsync keeps the times of links.
const SHOW: &str =
    "find . -mindepth 1 -type l -printf '%P %y %l\\n' -o -mindepth 1 -printf '%P %y %m %T@\\n' | LC_ALL=C sort";

fn make_tree(person: &Sandbox) {
    person.sh(&format!("cd ../work && {TREE} && mkfifo t/fifo")).ok();
}

#[test]
fn archives_keep_links_modes_and_times() {
    Who::each_with(&SERVERS, |who, software| {
        let (person, _server) = mounted(who, software);
        make_tree(&person);
        let expected = person.sh(&format!("cd ../work/t && {SHOW}")).ok();
        person.sh("tar c --format=posix -C ../work t | tar x -p").ok();
        person.sh(&format!("cd t && {SHOW}")).says(&expected);
        person
            .sh("./t/bin/tool && ./t/link && cat t/private && test ! -e t/broken")
            .says("runs\nruns\nsecret");
        mount_again(&person);
        person.sh(&format!("cd t && {SHOW}")).says(&expected);
        person.sh("tar c --format=posix t | tar d -C ../work").says("");
        // Nothing to do twice.
        person.sh("rsync -a --delete -i ../work/t/ t/").says("");
        person
            .sh("rm ../work/t/link && ln -s elsewhere ../work/t/link && rm ../work/t/fifo && chmod 700 ../work/t/private && \
                 rsync -a --delete ../work/t/ t/")
            .ok();
        let changed = person.sh(&format!("cd ../work/t && {SHOW}")).ok();
        assert_ne!(changed, expected);
        person.sh(&format!("cd t && {SHOW}")).says(&changed);
        person.sh("rsync -a --delete -i ../work/t/ t/").says("");
        person.sh("rm -r t && ls -A").says("");
        // What zip keeps has whole seconds, even ones.
        person
            .sh("cd ../work && touch -d '2001-02-03 04:05:06' t/private t/bin/tool && zip -qry t.zip t -x '*/fifo' && \
                 cd \"$MNT\" && unzip -q ../work/t.zip && cd t && test -x bin/tool && readlink link broken && \
                 stat -c '%a %Y' private bin/tool > ../../work/a && cd ../../work/t && stat -c '%a %Y' private bin/tool > ../b && \
                 cmp ../a ../b")
            .says("elsewhere\nnowhere\n");
        person.unmount();
    });
}

#[test]
fn git_keeps_links_and_modes() {
    Who::each_with(&SERVERS, |who, software| {
        let (person, _server) = mounted(who, software);
        make_tree(&person);
        let git = "git -c user.name=n -c user.email=e@x -c init.defaultBranch=main -c gc.auto=0";
        person
            .sh(&format!(
                "cp -a ../work/t repo && cd repo && rm fifo && {git} init -q . && {git} add -A && {git} commit -qm one"
            ))
            .ok();
        mount_again(&person);
        // Numbers and times are the same, so that nothing is to be looked at again.
        person
            .sh("cd repo && git status --short && git fsck --strict 2>&1")
            .ok();
        person
            .sh("git clone -q repo clone && cd clone && git ls-files -s | cut -c1-6 | sort | uniq -c && ./link && readlink broken")
            .says("      1 100644\n      1 100755\n      3 120000\nruns\nnowhere\n");
        person
            .sh(&format!(
                "cd clone && ln -sf elsewhere broken && chmod -x bin/tool && git diff --summary && {git} commit -qam two && \
                 {git} checkout -q HEAD~1 && readlink broken && test -x bin/tool && {git} checkout -q main && readlink broken"
            ))
            .says(" mode change 100755 => 100644 bin/tool\nnowhere\nelsewhere\n");
        person.unmount();
    });
}

#[test]
fn a_crate_is_built_with_its_target_folder_in_the_mount() {
    // Where the toolchain of the one who runs the tests is.
    let (mut person, _server) = mounted(Who::me(), Software::WsgiDav);
    for name in ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        if let Ok(value) = std::env::var(name) {
            person.variable(name, &value);
        }
    }
    let home = std::env::var("HOME").unwrap();
    for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        if std::env::var_os(name).is_none() && Path::new(&home).join(folder).exists() {
            person.variable(name, &format!("{home}/{folder}"));
        }
    }
    let cargo = format!("{} build --offline -q", env!("CARGO"));
    person
        .sh(&format!(
            "mkdir -p c/src && cd c && printf '[package]\\nname = \"c\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n' > Cargo.toml && \
             printf 'fn main() {{ println!(\"{{}}\", c::word()); }}\\n' > src/main.rs && \
             printf 'pub fn word() -> &'\"'\"'static str {{ \"built\" }}\\n' > src/lib.rs && {cargo} && ./target/debug/c"
        ))
        .says("built\n");
    // Nothing changed, in another mount too: nothing is built again.
    mount_again(&person);
    person
        .sh(&format!(
            "cd c && {} build --offline -v 2>&1 | grep -c '^ *Fresh c '",
            env!("CARGO")
        ))
        .says("1\n");
    person
        .sh(&format!(
            "cd c && sed -i s/built/again/ src/lib.rs && {cargo} && ./target/debug/c"
        ))
        .says("again\n");
    person.unmount();
}
