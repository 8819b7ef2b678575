//! Mounts that cannot be: each cause has its sentence and its exit code.

use crate::drive::CludzDrive;
use crate::sandbox::{Sandbox, Who, until};

#[test]
fn a_wrong_token() {
    let it = CludzDrive::new(Who::me());
    it.configure("not-the-token", "");
    let said = it
        .person
        .keymount(["mount".as_ref(), "drive".as_ref(), it.person.mount_point().as_os_str()]);
    said.fails(4, "token");
    assert!(!it.person.is_mounted("mnt"));
    assert!(it.person.daemons().is_empty());
}

#[test]
fn no_token_at_all() {
    let it = CludzDrive::new(Who::me());
    std::fs::write(it.person.path("work/token"), "").unwrap();
    it.person
        .keymount(["mount".as_ref(), "drive".as_ref(), it.person.mount_point().as_os_str()])
        .fails(4, "no secret");
}

#[test]
fn an_unreachable_server() {
    let it = CludzDrive::new(Who::me());
    let CludzDrive {
        person,
        server,
        runtime,
        ..
    } = it;
    runtime.block_on(server.stop());
    let mnt = person.mount_point();
    let arguments = ["mount", "drive", &mnt.display().to_string(), "--op-timeout", "2s"].map(str::to_owned);
    person.keymount(&arguments).fails(5, "cannot be reached");
}

#[test]
fn unusable_mount_points() {
    let it = CludzDrive::new(Who::me());
    let missing = it.person.path("none");
    it.person
        .keymount(["mount".as_ref(), "drive".as_ref(), missing.as_os_str()])
        .fails(6, "does not exist");
    it.person.file("work/full", "x", 0o644);
    let full = it.person.path("work");
    it.person
        .keymount(["mount".as_ref(), "drive".as_ref(), full.as_os_str()])
        .fails(6, "not empty");
    let file = it.person.path("work/full");
    it.person
        .keymount(["mount".as_ref(), "drive".as_ref(), file.as_os_str()])
        .fails(6, "not a directory");
    it.person.mount("drive", &[]);
    let mnt = it.person.mount_point();
    it.person
        .keymount(["mount".as_ref(), "drive".as_ref(), mnt.as_os_str()])
        .fails(6, "mounted already");
    it.person.unmount();
}

#[test]
fn configurations_that_cannot_be() {
    let person = Sandbox::new(Who::me());
    let mnt = person.mount_point();
    let mount = |what: &str| person.keymount(["mount".as_ref(), what.as_ref(), mnt.as_os_str()]);
    mount("nothing").fails(3, "nothing");
    person.configure("[remotes.x]\nprovider = \"cludz\"\nstorge = \"1\"\n");
    mount("x").fails(3, "storage");
    person.configure(
        "[remotes.x]\nprovider = \"cludz\"\nstorage = \"6f1c6d8e-5b0c-4e0e-9d2c-1f6a8b9c0d1e\"\n\
         [remotes.x.auth]\nmethod = \"token\"\ntoken = \"canary-in-the-file\"\n",
    );
    let said = mount("x");
    assert!(!said.err.contains("canary-in-the-file"), "{}", said.err);
    said.fails(3, "file");
}

#[test]
fn a_missing_directory_at_the_provider() {
    let it = CludzDrive::new(Who::me());
    let said = it.person.keymount([
        "mount".as_ref(),
        "drive:no/such".as_ref(),
        it.person.mount_point().as_os_str(),
    ]);
    assert_ne!(said.code, Some(0));
    assert!(
        said.err.contains("does not exist") || said.err.contains("404"),
        "{}",
        said.err
    );
}

/// A daemon that was killed leaves a dead mount; the next `mount` takes it away by itself.
#[test]
fn a_dead_mount_is_replaced() {
    for who in Who::everybody() {
        let it = CludzDrive::new(who);
        it.drive.put("file", "text").unwrap();
        it.person.mount("drive", &[]);
        let mut reader = it.person.start("exec 3< file; echo open; exec sleep 600");
        reader.wait_for("open");
        for daemon in it.person.daemons() {
            std::process::Command::new("kill")
                .arg("-KILL")
                .arg(daemon.to_string())
                .status()
                .unwrap();
        }
        until("the end of the daemon", || it.person.daemons().is_empty());
        it.person.sh("cat file").refused("");
        it.person.mount("drive", &[]);
        assert_eq!(it.person.sh("cat file").ok(), "text");
        drop(reader);
        it.person.unmount();
    }
}
