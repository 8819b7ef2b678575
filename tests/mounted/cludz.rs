//! Ordinary work on a mounted Cludz drive.

use keymount::emulator::cludz::{Assumptions, Grant, Overwrite, Sharing};

use crate::drive::CludzDrive;
use crate::sandbox::Who;

#[test]
fn ordinary_tools_work() {
    Who::each(|who| {
        let it = CludzDrive::new(who);
        it.person.mount("drive", &[]);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/model");
        let copied = it.person.path("work/source");
        std::process::Command::new("cp")
            .arg("-r")
            .arg(source)
            .arg(&copied)
            .status()
            .unwrap();
        std::process::Command::new("chmod")
            .args(["-R", "a+rX"])
            .arg(&copied)
            .status()
            .unwrap();
        let copied = copied.display();
        it.person
            .sh(&format!("cp -r {copied} here && diff -r {copied} here"))
            .ok();
        it.person.sh("test \"$(ls here | wc -l)\" -ge 5 && ls -lR | grep -q rights.rs && find . -name '*.rs' | grep -q error.rs").ok();
        assert!(it.drive.exists("here/rights.rs"), "{:?}", it.drive.list(""));
        it.person
            .sh("echo one > f && echo two >> f && test \"$(cat f)\" = \"$(printf 'one\\ntwo')\"")
            .ok();
        assert_eq!(it.drive.read("f").unwrap(), "one\ntwo\n");
        it.person
            .sh("mv f g && test ! -e f && cat g && mkdir d && rmdir d")
            .ok();
        // Another directory means another copy, whose attributes say what there is to say about it.
        it.person
            .sh("mkdir d && touch -d 2005-05-05 g && mv g d/g 2>&1 && mv d/g g 2>&1 && date -d @$(stat -c %Y g) +%Y && rmdir d")
            .says("2005\n");
        it.person
            .sh("truncate -s 3 g && test \"$(cat g)\" = one && truncate -s 0 g && test ! -s g")
            .ok();
        it.person
            .sh("dd if=/dev/urandom of=big bs=64k count=50 2>/dev/null && cp big copy && cmp big copy")
            .ok();
        it.person
            .sh("printf XY | dd of=big bs=1 seek=100000 conv=notrunc 2>/dev/null && ! cmp -s big copy")
            .ok();
        assert_eq!(&it.drive.read("big").unwrap()[100_000..100_002], b"XY");
        it.person
            .sh("df . | grep -q keymount && stat -f . && stat big && touch empty && test -f empty")
            .ok();
        it.person.sh("rm -r here && test ! -e here").ok();
        assert!(!it.drive.exists("here"));
        it.person.unmount();
        assert!(!it.person.is_mounted("mnt"));
    });
}

/// Write a temporary file, fsync it, rename it over the old one: what vim, gedit and most editors do.
#[test]
fn an_editors_save_leaves_the_new_text() {
    for overwrite in [Overwrite::Refuse, Overwrite::Replace] {
        let it = CludzDrive::with(
            Who::me(),
            Assumptions {
                overwrite,
                ..Default::default()
            },
        );
        it.person.mount("drive", &[]);
        it.person.sh("echo old > text").ok();
        it.person
            .sh("echo new > .text.swp && sync .text.swp && mv .text.swp text && test \"$(cat text)\" = new")
            .ok();
        it.person
            .sh("cp text text~ && echo newer > text && test \"$(cat text)\" = newer && ls -A")
            .ok();
        assert_eq!(it.drive.read("text").unwrap(), "newer\n");
        let mut left = it.drive.list("").unwrap();
        left.sort();
        assert_eq!(left, ["text", "text~"]);
        it.person.unmount();
    }
}

/// The modes of each kind of token, and what each may not do, whoever asks.
#[test]
fn rights_show_as_modes_and_are_enforced() {
    Who::each(|who| {
        for (grant, directory, file) in [
            (Grant::WriteDelete, "drwxr-xr-x", "-rw-r--r--"),
            (Grant::Write, "drwxr-xr-t", "-rw-r--r--"),
            (Grant::Delete, "drwxr-xr-x", "-r--r--r--"),
            (Grant::Read, "dr-xr-xr-x", "-r--r--r--"),
        ] {
            // With a server that refuses to overwrite, replacing a file takes the right to delete as well.
            let it = CludzDrive::with(
                who,
                Assumptions {
                    overwrite: Overwrite::Replace,
                    ..Default::default()
                },
            );
            it.drive.put("file", "text").unwrap();
            it.drive.put("other", "text").unwrap();
            it.drive.mkdir("folder").unwrap();
            let token = it.drive.share("friend");
            it.drive.set_grant("friend", "", grant).unwrap();
            it.configure(&token, "");
            it.person.mount("drive", &[]);
            let modes = it.person.sh("stat -c %A . file").ok();
            assert_eq!(
                modes.lines().collect::<Vec<_>>(),
                [directory, file],
                "{who:?} {grant:?}"
            );
            it.person.sh("test \"$(cat file)\" = text && ls").ok();
            let denied = "Permission denied";
            let writes = matches!(grant, Grant::Write | Grant::WriteDelete);
            let deletes = matches!(grant, Grant::Delete | Grant::WriteDelete);
            for script in [
                "echo x > new",
                "echo x >> file",
                "mkdir sub",
                "chmod 600 file",
                "mv file renamed && mv renamed file",
            ] {
                let said = it.person.sh(script);
                if writes {
                    said.ok();
                } else {
                    said.refused(denied)
                };
            }
            for script in ["rm -f other", "rmdir folder"] {
                let said = it.person.sh(script);
                if deletes {
                    said.ok();
                } else {
                    said.refused(denied)
                };
            }
            it.person.unmount();
        }
    });
}

/// `access(2)` says beforehand what the daemon will say; the sticky bit keeps others, and the daemon everybody, from
/// removing.
#[test]
fn access_agrees_and_others_get_what_is_left_to_them() {
    for who in Who::everybody() {
        let it = CludzDrive::new(who);
        it.drive.put("file", "text").unwrap();
        let token = it.drive.share("friend");
        for (grant, writable) in [(Grant::Read, false), (Grant::Write, true)] {
            it.drive.set_grant("friend", "", grant).unwrap();
            it.configure(&token, "");
            it.person.mount("drive", &[]);
            // Root may write whatever the bits say, until the daemon is asked.
            if who != Who::Root {
                let can = if writable { "" } else { "! " };
                it.person
                    .sh(&format!(
                        "test -r file && {can}test -w file && {can}test -w . && ! test -x file"
                    ))
                    .ok();
            }
            it.person.sh("rm -f file").refused("Permission denied");
            it.person.unmount();
        }
    }
    if let [Who::Root, Who::User { uid, gid }] = Who::everybody()[..] {
        let it = CludzDrive::new(Who::Root);
        it.drive.put("file", "text").unwrap();
        let other = |script: &str| {
            let script = format!("exec setpriv --reuid {uid} --regid {gid} --clear-groups sh -c '{script}'");
            it.person.sh(&script)
        };
        let options = format!("--gid={gid}");
        it.person.mount("drive", &["--allow-other", "--umask", "027", &options]);
        assert_eq!(it.person.sh("stat -c %A file").ok().trim(), "-rw-r-----");
        other("cat file").says("text");
        other("echo x >> file").refused("Permission denied");
        other("rm -f file").refused("Permission denied");
        it.person.unmount();
        it.person.mount("drive", &[]);
        other("cat file").refused("Permission denied");
        it.person.unmount();
    }
}

#[test]
fn rights_can_be_told_and_a_public_folder_needs_no_token() {
    let it = CludzDrive::new(Who::me());
    it.drive.put("public/file", "for all").unwrap();
    it.drive.set_sharing("public", Sharing::Public).unwrap();
    it.configure(&it.drive.owner_token(), "rights = \"r\"");
    it.person.mount("drive", &[]);
    assert_eq!(it.person.sh("stat -c %A .").ok().trim(), "dr-xr-xr-x");
    it.person.sh("rm -f public/file").refused("Permission denied");
    it.person
        .sh("getfattr --only-values -n user.keymount.visibility public")
        .says("public");
    it.person
        .sh("getfattr -n user.keymount.visibility .")
        .refused("No such attribute");
    it.person.unmount();
    it.configure_public();
    it.person.mount("drive:public", &[]);
    assert_eq!(
        it.person.sh("cat file; stat -c ' %A' file").ok(),
        "for all -r--r--r--\n"
    );
    it.person.sh("echo x > new").refused("Permission denied");
    it.person.unmount();
}

#[test]
fn a_read_only_mount_says_so() {
    let it = CludzDrive::new(Who::me());
    it.drive.put("file", "text").unwrap();
    it.person.mount("drive", &["--read-only"]);
    it.person.sh("cat file").ok();
    for script in ["echo x > new", "rm file", "mkdir d", "touch file", "mv file g"] {
        it.person.sh(script).refused("Read-only file system");
    }
    it.person.unmount();
}

#[test]
fn names_that_cludz_cannot_hold_are_refused_before_anything_is_sent() {
    let it = CludzDrive::new(Who::me());
    it.person.mount("drive", &[]);
    it.server.forget_requests();
    it.person.sh("echo x > 'a:b'").refused("Invalid argument");
    it.person.sh("echo x > CON").refused("Invalid argument");
    it.person
        .sh(&format!("echo x > {}", "n".repeat(51)))
        .refused("File name too long");
    assert!(
        it.server.requests().iter().all(|request| request.method == "GET"),
        "{:?}",
        it.server.requests()
    );
    it.person.sh(&format!("echo x > {} && ls", "n".repeat(50))).ok();
    it.person
        .sh("echo x > 'spaces and %41 #+?&=ü.txt' 2>/dev/null || echo x > 'spaces and %41 #+&=ü.txt'; cat spaces*")
        .ok();
    it.person.unmount();
}

#[test]
fn a_file_beyond_the_limit_is_refused_while_it_is_written() {
    let it = CludzDrive::new(Who::me());
    it.person.mount("drive", &[]);
    it.person.sh("truncate -s 100000001 huge").refused("File too large");
    it.person
        .sh("dd if=/dev/zero of=huge bs=1M seek=99 count=1 2>&1 >/dev/null | cat >&2; exit 1")
        .refused("File too large");
    it.person.unmount();
}

#[test]
fn attributes_tell_what_is_known() {
    let it = CludzDrive::new(Who::me());
    it.drive.put("file", "text").unwrap();
    it.person.mount("drive", &[]);
    let shown = it.person.sh("getfattr -d file").ok();
    for line in [
        "user.keymount.provider=\"cludz\"",
        "user.keymount.rights=\"rwd\"",
        "user.keymount.state=\"stored\"",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    it.person.sh("setfattr -n user.color -v blue file").ok();
    it.person
        .sh("setfattr -n user.keymount.rights -v r file")
        .refused("Operation not supported");
    it.person
        .sh("chmod 750 file && touch -d '2020-02-03 04:05:06.789 UTC' file")
        .ok();
    it.person.unmount();
    it.person.mount("drive", &[]);
    let kept = it.person.sh("stat -c '%a %Y' file").ok();
    assert_eq!(kept.trim(), "750 1580702706");
    it.person
        .sh("getfattr --only-values -n user.color file && setfattr -x user.color file && getfattr -d file | grep -c color; true")
        .says("blue0\n");
    it.person.unmount();
}
