//! Closed files through the kernel: sent in the background, kept when the daemon is killed, sent by the next mount.

use axum::http::Method;
use keymount::emulator::{Fault, Rule};

use crate::drive::CludzDrive;
use crate::sandbox::{Sandbox, Who, until};

fn away() -> Fault {
    Fault::Status {
        status: 503,
        headers: Vec::new(),
        body: String::new(),
    }
}

fn kill(it: &CludzDrive) {
    for daemon in it.person.daemons() {
        std::process::Command::new("kill")
            .arg("-KILL")
            .arg(daemon.to_string())
            .status()
            .unwrap();
    }
    until("the end of the daemon", || it.person.daemons().is_empty());
}

#[test]
fn what_was_closed_survives_a_killed_daemon() {
    for who in Who::everybody() {
        let it = CludzDrive::new(who);
        it.drive.put("old", "before").unwrap();
        it.person.mount_as_usual("drive", &[]);
        it.server.faults().inject(Rule::always(Method::POST, "", away()));
        it.person
            .sh("echo after > old || exit 1; for n in 1 2 3 4 5 6 7 8; do echo text $n > new$n || exit 1; done")
            .ok();
        assert_eq!(it.person.sh("cat old new8").ok(), "after\ntext 8\n");
        let status = it.person.keymount(["status"]).ok();
        assert!(status.contains("9 files"), "{status}");
        kill(&it);
        assert_eq!(it.drive.read("old").unwrap(), "before");
        let pending = it.person.keymount(["pending", "list"]).ok();
        assert!(pending.contains("new8") && pending.contains("old"), "{pending}");

        it.server.faults().clear();
        it.person.mount_as_usual("drive", &[]);
        assert_eq!(it.person.sh("cat old new8").ok(), "after\ntext 8\n");
        it.person.unmount();
        assert_eq!(it.drive.read("old").unwrap(), "after\n");
        for n in 1..=8 {
            assert_eq!(it.drive.read(&format!("new{n}")).unwrap(), format!("text {n}\n"));
        }
        it.person.keymount(["pending", "list"]).says("nothing is pending\n");
    }
}

#[test]
fn what_waits_is_shown_tried_again_copied_out_and_left_to_the_next_mount() {
    for who in Who::everybody() {
        let it = CludzDrive::new(who);
        it.drive.put("old", "before").unwrap();
        it.person.mount_as_usual("drive", &[]);
        it.server.faults().inject(Rule::always(Method::POST, "", away()));
        it.person.sh("echo after > old && echo text > new").ok();
        let listed = it.person.keymount(["pending", "list"]).ok();
        assert_eq!(listed.matches("being sent").count(), 2, "{listed}");
        let tried = it.person.keymount(["pending", "retry"]).ok();
        assert!(tried.contains("2 files are tried again now"), "{tried}");
        let folder = it.person.path("work/copies");
        let folder = folder.to_str().unwrap();
        let copies = it.person.keymount(["pending", "export", folder]).ok();
        let contents: Vec<String> = copies
            .lines()
            .map(|copy| std::fs::read_to_string(copy).unwrap())
            .collect();
        assert_eq!(contents, ["text\n", "after\n"], "{copies}");
        let mount_point = it.person.mount_point();
        let left = it
            .person
            .keymount(["umount", "--no-wait", mount_point.to_str().unwrap()]);
        assert_eq!(left.code, Some(7), "{}", left.err);
        assert!(left.err.contains("2 files are not at the provider"), "{}", left.err);
        assert!(!it.person.is_mounted("mnt"));
        until("the end of the daemon", || it.person.daemons().is_empty());
        let listed = it.person.keymount(["pending", "list"]).ok();
        assert_eq!(listed.matches("sent by the next mount").count(), 2, "{listed}");
        assert_eq!(it.drive.read("old").unwrap(), "before");
        it.server.faults().clear();
        it.person.mount_as_usual("drive", &[]);
        assert_eq!(it.person.sh("cat old new").ok(), "after\ntext\n");
        it.person.unmount();
        assert_eq!(it.drive.read("old").unwrap(), "after\n");
        assert_eq!(it.drive.read("new").unwrap(), "text\n");
        it.person.keymount(["pending", "list"]).says("nothing is pending\n");
    }
}

/// The daemon is killed at a named place while a loop writes; what the loop was told to be closed is never gone.
#[test]
fn a_kill_anywhere_loses_nothing_that_was_closed() {
    let places = [
        "journal.begun:4",
        "journal.labelled:6",
        "journal.committed:3",
        "upload.begun:2",
        "upload.stored:1",
        "upload.struck:3",
    ];
    let everybody = Who::everybody();
    for (number, place) in places.iter().enumerate() {
        let mut it = CludzDrive::new(everybody[number % everybody.len()]);
        it.drive.put("old", "before").unwrap();
        it.person.variable(keymount::model::fail_point::VARIABLE, place);
        it.person.mount_as_usual("drive", &[]);
        let closed = it.person.file("work/closed", "", 0o644);
        it.person.sh(&format!(
            "for n in 1 2 3 4 5 6 7 8; do echo text $n > new$n && echo $n >> {0} || break; done 2>&1
             echo after > old && echo old >> {0}",
            closed.display()
        ));
        until("the end of the daemon", || it.person.daemons().is_empty());
        it.person.variable(keymount::model::fail_point::VARIABLE, "none:1");
        it.person.mount_as_usual("drive", &[]);
        let closed = std::fs::read_to_string(closed).unwrap();
        let check = |read: &dyn Fn(&str) -> String| {
            for name in closed.lines() {
                let (name, expected) = match name {
                    "old" => ("old".to_owned(), "after\n".to_owned()),
                    number => (format!("new{number}"), format!("text {number}\n")),
                };
                assert_eq!(read(&name), expected, "{place}: {closed}");
            }
        };
        check(&|name| it.person.sh(&format!("cat {name}")).ok());
        it.person.unmount();
        check(&|name| {
            it.drive
                .read(name)
                .map(|text| String::from_utf8(text.to_vec()).unwrap())
                .unwrap_or_default()
        });
        let doubles = it
            .drive
            .list("/")
            .unwrap()
            .into_iter()
            .filter(|name| name.contains("conflict"));
        assert_eq!(doubles.count(), 0, "{place}");
    }
}

#[test]
fn two_daemons_on_one_remote_keep_what_both_wrote() {
    for who in Who::everybody() {
        let it = CludzDrive::new(who);
        let other = Sandbox::new(who);
        let token = other.file("work/token", &it.drive.owner_token(), 0o600);
        other.configure(&format!(
            "[remotes.drive]\nprovider = \"cludz\"\nstorage = \"{}\"\nendpoint = \"{}\"\n\
             [remotes.drive.auth]\nmethod = \"token\"\ntoken = {{ file = \"{}\" }}\n",
            it.drive.id(),
            it.server.url(),
            token.display()
        ));
        it.drive.put("shared", "before").unwrap();
        it.person.mount_as_usual("drive", &[]);
        other.mount_as_usual("drive", &[]);
        assert_eq!(other.sh("cat shared").ok(), "before");
        it.server.faults().inject(Rule::always(Method::POST, "", away()));
        it.person.sh("echo one > shared; echo one > mine; echo one > both").ok();
        other.sh("echo two > shared; echo two > theirs; echo two > both").ok();
        it.server.faults().clear();
        it.person.unmount();
        other.unmount();
        let read = |name: &str| String::from_utf8(it.drive.read(name).unwrap().to_vec()).unwrap();
        assert_eq!((read("mine"), read("theirs")), ("one\n".to_owned(), "two\n".to_owned()));
        let names = it.drive.list("/").unwrap();
        for shared in ["shared", "both"] {
            let versions = names.iter().filter(|name| name.starts_with(shared));
            let mut contents: Vec<String> = versions.map(|name| read(name)).collect();
            contents.sort();
            assert_eq!(contents, ["one\n", "two\n"], "{names:?}");
        }
    }
}

#[test]
fn writing_fails_where_no_more_may_wait_and_what_waits_is_kept() {
    for who in Who::everybody() {
        let it = CludzDrive::new(who);
        it.person.mount_as_usual("drive", &["--staging-size", "1M"]);
        it.server.faults().inject(Rule::always(Method::POST, "", away()));
        it.person.sh("head -c 600000 /dev/zero > first").ok();
        it.person
            .sh("head -c 600000 /dev/zero > second")
            .refused("No space left on device");
        assert_eq!(it.person.sh("wc -c < first").ok().trim(), "600000");
        it.server.faults().clear();
        it.person.unmount();
        assert_eq!(it.drive.read("first").unwrap().len(), 600_000);
    }
}

/// A disk of its own for the state, as small as it can be; only root can make one.
#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    if Who::me() != Who::Root {
        return;
    }
    let it = CludzDrive::new(Who::Root);
    let state = it.person.path("state/keymount");
    std::fs::create_dir_all(&state).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=20m", "tmpfs"])
        .arg(&state)
        .status()
        .unwrap();
    assert!(mounted.success());
    it.person.mount_as_usual("drive", &[]);
    it.server.faults().inject(Rule::always(Method::POST, "", away()));
    it.person.sh("head -c 1000000 /dev/zero > first").ok();
    it.person
        .sh("head -c 9000000 /dev/zero > second")
        .refused("No space left on device");
    it.person.sh("rm second; echo small > third").ok();
    kill(&it);
    it.server.faults().clear();
    it.person.mount_as_usual("drive", &[]);
    assert_eq!(it.person.sh("wc -c < first; cat third").ok(), "1000000\nsmall\n");
    it.person.unmount();
    assert_eq!(it.drive.read("first").unwrap().len(), 1_000_000);
    assert_eq!(it.drive.read("third").unwrap(), "small\n");
}

#[test]
fn a_state_folder_that_cannot_be_written_is_told_before_anything_is_mounted() {
    use std::os::unix::fs::PermissionsExt;
    // Root may write everywhere.
    for who in Who::everybody().into_iter().filter(|who| *who != Who::Root) {
        let it = CludzDrive::new(who);
        let state = it.person.path("state");
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o500)).unwrap();
        let said = it
            .person
            .keymount(["mount".as_ref(), "drive".as_ref(), it.person.mount_point().as_os_str()]);
        assert!(said.code != Some(0) && said.err.contains("state"), "{said:?}");
        assert!(!it.person.is_mounted("mnt"));
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}

/// A service that fails for longer than whoever mounts waits costs no closed file its place in the mount.
#[test]
fn what_could_not_be_taken_over_when_mounting_is_there_when_the_service_answers() {
    let it = CludzDrive::new(Who::me());
    it.drive.put("deep/old", "before").unwrap();
    it.person.mount_as_usual("drive", &[]);
    it.server.faults().inject(Rule::always(Method::POST, "", away()));
    it.person.sh("echo after > deep/old && echo text > deep/new").ok();
    kill(&it);
    it.server.faults().clear();
    it.server
        .faults()
        .inject(Rule::when(usize::MAX, |_, target| target.contains("deep"), away()));
    it.person.mount_as_usual("drive", &["--op-timeout", "10s"]);
    let listed = it.person.keymount(["pending", "list"]).ok();
    assert_eq!(listed.matches("not in the mount yet").count(), 2, "{listed}");
    let status = it.person.keymount(["status"]).ok();
    assert!(status.contains("2 files"), "{status}");
    it.server.faults().clear();
    let tried = it.person.keymount(["pending", "retry"]).ok();
    assert!(tried.contains("2 files are tried again now"), "{tried}");
    until("the files in the mount", || {
        let content = it.person.sh("cat deep/old deep/new");
        content.code == Some(0) && content.out == "after\ntext\n"
    });
    it.person.unmount();
    assert_eq!(it.drive.read("deep/old").unwrap(), "after\n");
    assert_eq!(it.drive.read("deep/new").unwrap(), "text\n");
    it.person.keymount(["pending", "list"]).says("nothing is pending\n");
}
