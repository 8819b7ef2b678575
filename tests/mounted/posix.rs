//! pjdfstest over mounts: what fails is what `docs/posix.md` lists, with a reason each, and nothing else.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;

use crate::object_stores;
use crate::program::installed;
use crate::s3_server::{self as s3, S3Server};
use crate::sandbox::{Sandbox, Who};
use crate::webdav_server::{self as dav, DavServer};

/// What the table says of tests that fail everywhere.
const EVERYWHERE: &str = "everywhere";
/// What JuiceFS passes of the same suite on the same kernel.
const JUICEFS: usize = 347;
/// Whose files a test may belong to beside root's: they are on every Debian.
const NOBODY: (&str, &str) = ("nobody", "nogroup");

/// The tests that may fail at one kind of mount, by the last table of `docs/posix.md`.
fn listed(kind: &str) -> BTreeSet<String> {
    let page = std::fs::read_to_string("docs/posix.md").unwrap();
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

/// Runs the suite in the mount and compares.
fn check(person: &Sandbox, kind: &str) {
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
    let mut command = person.command(installed("KEYMOUNT_TEST_PJDFSTEST", "pjdfstest-0.2.2/bin/pjdfstest"));
    // Sockets have names of at most 107 bytes, and the suite's own take most of them.
    let short = tempfile::Builder::new().prefix("k").tempdir_in("/tmp").unwrap();
    let mount_point = short.path().join("m");
    std::os::unix::fs::symlink(person.mount_point(), &mount_point).unwrap();
    std::fs::set_permissions(short.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // What it prints of a failure otherwise is where it was compiled.
    command.env("RUST_BACKTRACE", "0").arg("-c").arg(settings);
    let output = command.arg("-p").arg(&mount_point).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let ended = |verdict: &str| -> BTreeSet<String> {
        let lines = printed.lines().filter_map(|line| line.strip_suffix(verdict));
        lines.map(|test| test.trim().to_owned()).collect()
    };
    let (passed, failed) = (ended(" ok"), ended(" FAILED"));
    println!(
        "{kind}: {} passed, {} failed, {} skipped",
        passed.len(),
        failed.len(),
        ended(" skipped").len()
    );
    assert_eq!(
        failed,
        listed(kind),
        "{printed}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(passed.len() > JUICEFS, "only {} passed", passed.len());
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
    check(&person, "WebDAV");
    person.unmount();
    assert_eq!(std::fs::read_dir(server.data()).unwrap().count(), 0, "nothing is left");
}

#[test]
#[ignore = "it takes three times as long as over WebDAV; run: cargo test --test mounted posix_over_s3 -- --ignored"]
fn posix_over_s3() {
    assert!(is_root("posix::posix_over_s3"));
    let server = S3Server::start(s3::Software::Moto);
    tokio::runtime::Runtime::new().unwrap().block_on(server.make_bucket());
    let person = Sandbox::new(Who::Root);
    object_stores::configure_s3(&person, &server, "");
    person.mount_as_usual("store", &["--allow-other"]);
    check(&person, "S3");
    person.unmount();
}
