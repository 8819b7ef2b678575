//! pjdfstest over mounts: what fails is what `docs/posix.md` lists, with a reason each, and nothing else.
//!
//! Over S3 it is a part of the suite; `KEYMOUNT_TEST_MORE` makes it all of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::object_stores;
use crate::program::installed;
use crate::s3_server::{self as s3, S3Server};
use crate::sandbox::{Sandbox, Who};
use crate::webdav_server::{self as dav, DavServer};

/// What the table says of tests that fail everywhere.
const EVERYWHERE: &str = "everywhere";
/// What JuiceFS passes of the same suite on the same kernel.
const JUICEFS: usize = 347;
/// The suite's tests, by parts that take about the same time and run at once.
const WHOLE: [&[&str]; 3] = [
    &[
        "chmod::",
        "chown::",
        "open::",
        "truncate::",
        "utimensat::",
        "posix_fallocate::",
    ],
    // Those of `unlink` and `symlink`, too: a name is meant by any part of it.
    &["link::", "mkdir::", "mkfifo::"],
    &["mknod::", "rename::", "rmdir::"],
];
/// How many they are.
const TESTS: usize = 398;
/// What goes another way where there are no directories, only keys.
const OF_S3: [&[&str]; 2] = [&["rmdir::"], &["mkdir::"]];
/// Whose files a test may belong to beside root's: they are on every Debian.
const NOBODY: (&str, &str) = ("nobody", "nogroup");

/// The tests that may fail at one kind of mount, by the last table of `docs/posix.md`.
fn listed(kind: &str) -> BTreeSet<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/posix.md")).unwrap();
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, test, place, reason, _] = cells[..] else {
            return None;
        };
        let test = test.strip_prefix('`')?.strip_suffix('`')?;
        assert!(!reason.is_empty(), "{test} fails for no reason");
        (test.contains("::") && (place == EVERYWHERE || place == kind)).then(|| test.to_owned())
    });
    rows.collect()
}

/// The group that a user has, by its name.
fn group_of(user: &str) -> String {
    let printed = Command::new("id").args(["-gn", user]).output().unwrap();
    String::from_utf8(printed.stdout).unwrap().trim().to_owned()
}

/// What the suite says of its tests.
#[derive(Default)]
struct Verdict {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
    skipped: BTreeSet<String>,
    printed: String,
}

impl Verdict {
    fn take(&mut self, output: &Output) {
        let printed = String::from_utf8_lossy(&output.stdout);
        for (verdict, tests) in [
            (" ok", &mut self.passed),
            (" FAILED", &mut self.failed),
            (" skipped", &mut self.skipped),
        ] {
            let lines = printed.lines().filter_map(|line| line.strip_suffix(verdict));
            tests.extend(lines.map(|test| test.trim().to_owned()));
        }
        self.printed += &printed;
        self.printed += &String::from_utf8_lossy(&output.stderr);
    }
}

/// Runs parts of the suite in the mount, all at once.
fn run(person: &Sandbox, parts: &[&[&str]]) -> Verdict {
    let user = std::env::var("KEYMOUNT_TEST_USER").unwrap();
    let mut settings = String::from("[features]\nposix_fallocate = {}\nutime_now = {}\nutimensat = {}\n");
    write!(
        settings,
        "[settings]\nnaptime = 0.001\nallow_remount = false\n[dummy_auth]\nentries = [{:?}, {:?}]\n",
        [NOBODY.0, NOBODY.1],
        [&user, &group_of(&user)]
    )
    .unwrap();
    let settings = person.file("work/pjdfstest.toml", &settings, 0o644);
    let program = installed("KEYMOUNT_TEST_PJDFSTEST", "pjdfstest-0.2.2/bin/pjdfstest");
    // Sockets have names of at most 107 bytes, and the suite's own take most of them.
    let short = tempfile::Builder::new().prefix("k").tempdir_in("/tmp").unwrap();
    let mount_point = short.path().join("m");
    std::os::unix::fs::symlink(person.mount_point(), &mount_point).unwrap();
    std::fs::set_permissions(short.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let run = |names: &[&str]| -> Output {
        let mut command = person.command(&program);
        // What it prints of a failure otherwise is where it was compiled.
        command.env("RUST_BACKTRACE", "0").arg("-c").arg(&settings);
        command.arg("-p").arg(&mount_point as &Path).args(names);
        command.output().unwrap()
    };
    let mut verdict = Verdict::default();
    std::thread::scope(|scope| {
        let parts: Vec<_> = parts.iter().map(|names| scope.spawn(|| run(names))).collect();
        parts.into_iter().for_each(|part| verdict.take(&part.join().unwrap()));
    });
    verdict
}

/// Runs all of the suite in the mount, or a part of it, and compares.
fn check(person: &Sandbox, kind: &str, part: Option<&[&[&str]]>) {
    let verdict = run(person, part.unwrap_or(&WHOLE));
    let Verdict {
        passed,
        failed,
        skipped,
        printed,
    } = &verdict;
    let all = passed.len() + failed.len() + skipped.len();
    println!(
        "{kind}: {} of {all} passed, {} failed, {} skipped",
        passed.len(),
        failed.len(),
        skipped.len()
    );
    let meant = |test: &String| part.is_none_or(|parts| parts.iter().any(|names| is_named(test, names)));
    let expected: BTreeSet<String> = listed(kind).into_iter().filter(meant).collect();
    assert_eq!(*failed, expected, "{printed}");
    match part {
        None => {
            assert_eq!(all, TESTS, "another suite, or a part of it was not run: {printed}");
            assert!(passed.len() > JUICEFS, "only {} passed", passed.len());
        }
        Some(_) => assert!(passed.len() > expected.len(), "{printed}"),
    }
}

/// As the suite chooses its tests.
fn is_named(test: &str, names: &[&str]) -> bool {
    names.iter().any(|name| test.contains(name))
}

/// As an ordinary user nobody can be changed to somebody else, which most of the suite does.
fn is_root(test: &str) -> bool {
    if Who::me() == Who::Root {
        return true;
    }
    if let Some(skips) = std::env::var_os("KEYMOUNT_TEST_SKIPS") {
        let mut skips = std::fs::OpenOptions::new().append(true).open(skips).unwrap();
        writeln!(skips, "{test}\tpjdfstest needs root").unwrap();
    }
    false
}

#[test]
fn posix_over_webdav() {
    if !is_root("posix::posix_over_webdav") {
        return;
    }
    let server = DavServer::start(dav::Software::WsgiDav);
    let person = Sandbox::new(Who::Root);
    object_stores::configure_webdav(&person, &server, "");
    person.mount_as_usual("store", &["--allow-other"]);
    check(&person, "WebDAV", None);
    person.unmount();
    assert_eq!(std::fs::read_dir(server.data()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn posix_over_s3() {
    if !is_root("posix::posix_over_s3") {
        return;
    }
    let server = S3Server::start(s3::Software::Moto);
    tokio::runtime::Runtime::new().unwrap().block_on(server.make_bucket());
    let person = Sandbox::new(Who::Root);
    object_stores::configure_s3(&person, &server, "");
    person.mount_as_usual("store", &["--allow-other"]);
    let all = std::env::var_os("KEYMOUNT_TEST_MORE").is_some();
    check(&person, "S3", (!all).then_some(&OF_S3));
    person.unmount();
}
