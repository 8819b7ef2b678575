//! Unmounting, refreshing, status: a mount's life and the commands that steer it.

use keymount::emulator::cludz::Grant;

use crate::drive::CludzDrive;
use crate::sandbox::{Who, until};

#[test]
fn unmounting_names_who_is_in_the_way() {
    Who::each(|who| {
        let it = CludzDrive::new(who);
        it.drive.put("file", "text").unwrap();
        it.person.mount("drive", &[]);
        let mut reader = it.person.start("exec 3< file; echo open; exec sleep 600");
        reader.wait_for("open");
        let mnt = it.person.mount_point();
        let said = it.person.keymount(["umount".as_ref(), mnt.as_os_str()]);
        assert_eq!(said.code, Some(8), "{} {}", said.out, said.err);
        assert!(
            said.err.contains(&reader.id().to_string()),
            "{} is not in {}",
            reader.id(),
            said.err
        );
        assert!(said.err.contains("--lazy"), "{}", said.err);
        assert_eq!(it.person.sh("cat file").ok(), "text", "it is still mounted");
        it.person
            .keymount(["umount".as_ref(), "--lazy".as_ref(), mnt.as_os_str()])
            .ok();
        assert!(!it.person.is_mounted("mnt"));
        drop(reader);
        until("the end of the daemon", || it.person.daemons().is_empty());
    });
}

#[test]
fn the_flag_forms_and_the_helpers_name_work() {
    let it = CludzDrive::new(Who::me());
    it.drive.put("file", "text").unwrap();
    let mnt = it.person.mount_point();
    it.person.mount("drive", &[]);
    it.person.keymount(["--status".as_ref(), mnt.as_os_str()]).ok();
    it.person.keymount(["--refresh".as_ref(), mnt.as_os_str()]).ok();
    it.person.keymount(["--unmount".as_ref(), mnt.as_os_str()]).ok();
    assert!(!it.person.is_mounted("mnt"));

    let helper = it.person.path("work/mount.keymount");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_keymount"), &helper).unwrap();
    if it.person.who == Who::Root || std::fs::metadata(&helper).is_ok() {
        let mut command = it.person.command(&helper);
        let status = command
            .arg("drive")
            .arg(&mnt)
            .args(["-o", "ro,_netdev,user,umask=077"])
            .status()
            .unwrap();
        assert!(status.success());
        it.person.sh("echo x > new").refused("Read-only file system");
        assert_eq!(it.person.sh("stat -c %a file").ok().trim(), "400");
        it.person.unmount();
    }
}

#[test]
fn a_plain_umount_ends_the_daemon() {
    Who::each(|who| {
        let it = CludzDrive::new(who);
        it.person.mount("drive", &[]);
        it.person.sh("echo x > file").ok();
        let script = if who == Who::Root {
            "cd / && umount \"$MNT\""
        } else {
            "cd / && fusermount3 -u \"$MNT\""
        };
        // `keymount status` of a test beside this one may be looking at the mount.
        until("an end that nobody is in the way of", || {
            let said = it.person.sh(script);
            assert!(said.code == Some(0) || said.err.contains("busy"), "{said:?}");
            said.code == Some(0)
        });
        until("the end of the daemon", || it.person.daemons().is_empty());
        assert_eq!(it.drive.read("file").unwrap(), "x\n");
    });
}

#[test]
fn sigterm_unmounts() {
    let it = CludzDrive::new(Who::me());
    it.person.mount("drive", &[]);
    it.person.sh("echo x > file").ok();
    let daemons = it.person.daemons();
    assert_eq!(daemons.len(), 1);
    std::process::Command::new("kill")
        .arg(daemons[0].to_string())
        .status()
        .unwrap();
    until("the end of the daemon", || it.person.daemons().is_empty());
    assert!(!it.person.is_mounted("mnt"));
}

/// A token is replaced at the provider: the mount says so, and heals by `refresh` while it stays mounted.
#[test]
fn refresh_reads_the_token_again_and_shows_new_rights() {
    let it = CludzDrive::new(Who::me());
    it.drive.put("file", "text").unwrap();
    let token = it.drive.share("friend");
    it.drive.set_grant("friend", "", Grant::Read).unwrap();
    it.configure(&token, "");
    it.person.mount("drive", &["--attr-ttl", "0"]);
    assert_eq!(it.person.sh("stat -c %A file").ok().trim(), "-r--r--r--");

    it.drive.set_grant("friend", "", Grant::WriteDelete).unwrap();
    let mnt = it.person.mount_point();
    it.person.keymount(["refresh".as_ref(), mnt.as_os_str()]).ok();
    assert_eq!(it.person.sh("stat -c %A file").ok().trim(), "-rw-r--r--");
    it.person.sh("echo more >> file").ok();

    it.drive.revoke("friend");
    it.person.sh("ls new-name").refused("Permission denied");
    let status = it.person.keymount(["status", "--json"]).ok();
    assert!(status.contains("rejected"), "{status}");

    it.drive.share_as("friend", "another-secret-1234567890");
    it.drive.set_grant("friend", "", Grant::WriteDelete).unwrap();
    it.person.file("work/token", "another-secret-1234567890\n", 0o600);
    it.person.keymount(["refresh", "drive"]).ok();
    assert_eq!(it.person.sh("cat file").ok(), "textmore\n");
    let status = it.person.keymount(["status", "--json"]).ok();
    assert!(!status.contains("rejected"), "{status}");
    it.person.unmount();
}

/// `refresh` hands over its own value of a variable that the daemon was started with.
#[test]
fn refresh_brings_the_variables_new_value() {
    let mut it = CludzDrive::new(Who::me());
    it.drive.put("file", "text").unwrap();
    it.person.configure(&format!(
        "[remotes.drive]\nprovider = \"cludz\"\nstorage = \"{}\"\nendpoint = \"{}\"\n\
         [remotes.drive.auth]\nmethod = \"token\"\ntoken = {{ env = \"MY_TOKEN\" }}\n",
        it.drive.id(),
        it.server.url()
    ));
    it.person.variable("MY_TOKEN", &it.drive.owner_token());
    it.person.mount("drive", &["--attr-ttl", "0"]);
    it.drive.replace_owner_token("the-next-owner-token");
    it.person.sh("cat file").refused("Permission denied");
    it.person.variable("MY_TOKEN", "the-next-owner-token");
    it.person
        .keymount(["refresh".as_ref(), it.person.mount_point().as_os_str()])
        .ok();
    assert_eq!(it.person.sh("cat file").ok(), "text");
    it.person.unmount();
}

#[test]
fn status_tells_what_is_mounted() {
    let it = CludzDrive::new(Who::me());
    it.person.keymount(["status"]).ok();
    it.person.mount("drive", &[]);
    it.person.sh("ls missing").refused("No such file");
    let shown = it.person.keymount(["status"]).ok();
    let mnt = it.person.mount_point().display().to_string();
    assert!(shown.contains("drive") && shown.contains("rwd"), "{shown}");
    let json: serde_json::Value = serde_json::from_str(&it.person.keymount(["status", "--json"]).ok()).unwrap();
    assert!(json.to_string().contains(&mnt), "{json}");
    it.person.keymount(["doctor"]).ok();
    let daemons = it.person.daemons();
    assert_eq!(daemons.len(), 1);
    it.person.unmount();
    // The next mount finds what it kept free to be used.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemons[0])).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "the daemon goes on: {stat}");
    let json = it.person.keymount(["status", "--json"]).ok();
    assert!(!json.contains(&mnt), "{json}");
}

/// A changed file that cannot be sent: `close` says so, the text stays readable, and unmounting doesn't throw it away.
#[test]
fn what_cannot_be_sent_is_not_thrown_away() {
    use keymount::emulator::{Fault, Rule};
    let it = CludzDrive::new(Who::me());
    it.person.mount("drive", &["--op-timeout", "6s"]);
    it.server
        .faults()
        .inject(Rule::when(1_000_000, |method, _| method == "POST", Fault::status(500)));
    it.person.sh("echo precious | dd of=file status=none").refused("");
    assert_eq!(it.person.sh("cat file").ok(), "precious\n");
    let mnt = it.person.mount_point();
    let said = it.person.keymount(["umount".as_ref(), mnt.as_os_str()]);
    assert_eq!(said.code, Some(7), "{} {}", said.out, said.err);
    it.server.faults().clear();
    if it.person.is_mounted("mnt") {
        it.person.unmount();
        assert_eq!(it.drive.read("file").unwrap(), "precious\n");
    } else {
        let saved = it.person.path("state/keymount");
        let found = std::process::Command::new("grep")
            .args(["-rl", "precious"])
            .arg(saved)
            .output()
            .unwrap();
        assert!(found.status.success(), "it was thrown away");
    }
}
