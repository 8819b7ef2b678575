//! Tokens in a real keyring: GNOME Keyring behind a session bus of the test's own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::drive::CludzDrive;
use crate::sandbox::{Sandbox, Who, until};

const CANARY: &str = "canary-51d0c3e77f";

/// A bus and the keyring on it; both end with the test.
struct Session(Vec<Child>);

impl Drop for Session {
    fn drop(&mut self) {
        for child in self.0.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Session {
    fn start(person: &mut Sandbox) -> Self {
        let mut it = Self::without_keyring(person);
        let mut command = person.command("gnome-keyring-daemon");
        command.args(["--foreground", "--unlock", "--components=secrets"]);
        let mut keyring = quiet(&mut command).stdin(Stdio::piped()).spawn().unwrap();
        keyring.stdin.take().unwrap().write_all(b"a login password").unwrap();
        it.0.push(keyring);
        until("the keyring on the bus", || {
            has_owner(person, "org.freedesktop.secrets")
        });
        it
    }

    /// No service of the machine is started on demand.
    fn without_keyring(person: &mut Sandbox) -> Self {
        let address = format!("unix:path={}", person.path("run/bus").display());
        let configuration = person.file(
            "work/bus.conf",
            &format!(
                "<busconfig><type>session</type><listen>{address}</listen><policy context=\"default\">\
                 <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>"
            ),
            0o600,
        );
        let mut command = person.command("dbus-daemon");
        command.arg("--nofork").arg("--print-address=1");
        command.arg(format!("--config-file={}", configuration.display()));
        let mut bus = quiet(&mut command).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(bus.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:path="), "no bus: {line:?}");
        person.variable("DBUS_SESSION_BUS_ADDRESS", &address);
        Self(vec![bus])
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::null()).stderr(Stdio::null())
}

fn has_owner(person: &Sandbox, name: &str) -> bool {
    let output = person
        .command("dbus-send")
        .args([
            "--session",
            "--print-reply",
            "--dest=org.freedesktop.DBus",
            "/org/freedesktop/DBus",
        ])
        .arg("org.freedesktop.DBus.NameHasOwner")
        .arg(format!("string:{name}"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).contains("boolean true")
}

/// Locks or unlocks nothing by itself: only what the keyring's own tool does.
fn lock(person: &Sandbox) {
    let locked = person
        .command("dbus-send")
        .args([
            "--session",
            "--print-reply",
            "--dest=org.freedesktop.secrets",
            "/org/freedesktop/secrets",
        ])
        .args([
            "org.freedesktop.Secret.Service.Lock",
            "array:objpath:/org/freedesktop/secrets/collection/login",
        ])
        .output()
        .unwrap();
    assert!(locked.status.success(), "{}", String::from_utf8_lossy(&locked.stderr));
}

#[test]
fn a_token_in_the_keyring_mounts_heals_and_is_forgotten() {
    Who::each(|who| {
        let mut it = CludzDrive::new(who);
        let _session = Session::start(&mut it.person);
        it.drive.replace_owner_token("first");
        for (name, text) in [("file", "text"), ("other", "more"), ("third", "even more")] {
            it.drive.put(name, text).unwrap();
        }
        it.configure_keyring();
        let mnt = it.person.mount_point();
        let mount = ["mount".as_ref(), "drive".as_ref(), mnt.as_os_str()];
        it.person.keymount(mount).fails(4, "run: keymount login drive");
        let said = it.person.keymount_reading("first", ["login", "drive"]).ok();
        assert!(said.contains("kept in the OS keyring"), "{said}");
        it.person.mount("drive", &["-vv"]);
        assert_eq!(it.person.sh("cat file").ok(), "text");

        it.drive.replace_owner_token(CANARY);
        it.person.sh("cat other").refused("Permission denied");
        it.person.keymount_reading(CANARY, ["login", "drive"]).ok();
        assert_eq!(it.person.sh("cat other").ok(), "more");
        assert!(
            it.person
                .keymount(["doctor"])
                .out
                .contains("a token is kept in the OS keyring")
        );

        it.person.keymount(["logout", "drive"]).ok();
        let status = it.person.keymount(["status", "--json"]).ok();
        assert!(status.contains("\"needs-login\""), "{status}");
        it.person.sh("cat third").refused("Permission denied");
        it.person.keymount_reading(CANARY, ["login", "drive"]).ok();
        assert_eq!(it.person.sh("cat third").ok(), "even more");
        it.person.unmount();
        let found = Command::new("grep")
            .args(["-rlaF", "--", CANARY])
            .arg(it.person.path(""))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    });
}

#[test]
fn a_locked_keyring_is_not_an_empty_one() {
    let mut it = CludzDrive::new(Who::me());
    let _session = Session::start(&mut it.person);
    let token = it.drive.owner_token();
    it.drive.put("file", "text").unwrap();
    it.configure_keyring();
    it.person.keymount_reading(&token, ["login", "drive"]).ok();
    it.person.mount("drive", &[]);
    lock(&it.person);
    let refresh = it.person.keymount(["refresh", "drive"]);
    assert!(refresh.err.contains("keyring is locked"), "{refresh:?}");
    assert_eq!(it.person.sh("cat file").ok(), "text", "the token at hand stays");
    it.person.unmount();
    let mnt = it.person.mount_point();
    it.person
        .keymount(["mount".as_ref(), "drive".as_ref(), mnt.as_os_str()])
        .fails(4, "keyring is locked");
}

#[test]
fn without_a_keyring_the_other_way_is_named() {
    let mut it = CludzDrive::new(Who::me());
    it.configure_keyring();
    let token = it.drive.owner_token();
    it.person.variable(
        "DBUS_SESSION_BUS_ADDRESS",
        &format!("unix:path={}", it.person.path("run/none").display()),
    );
    it.person
        .keymount_reading(&token, ["login", "drive"])
        .fails(4, "{ stored = true }");
    let _session = Session::without_keyring(&mut it.person);
    it.person
        .keymount_reading(&token, ["login", "drive"])
        .fails(4, "{ stored = true }");
}
