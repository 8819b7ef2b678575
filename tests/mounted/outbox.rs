//! Closed files through the kernel: sent in the background, kept when the daemon is killed, sent by the next mount.

use axum::http::Method;
use keymount::emulator::{Fault, Rule};

use crate::drive::CludzDrive;
use crate::sandbox::{Who, until};

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
