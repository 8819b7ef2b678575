//! Tokens that keymount keeps: `login` puts them there and heals mounts, `logout` forgets them, and they leak nowhere.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::drive::CludzDrive;
use crate::sandbox::{Who, told_of};

const CANARY: &str = "canary-9c27e1ab50";

/// Every file below a folder that holds the text.
fn holders(folder: &Path, text: &str) -> Vec<String> {
    let found = std::process::Command::new("grep")
        .args(["-rlaF", "--", text])
        .arg(folder)
        .output()
        .unwrap();
    String::from_utf8_lossy(&found.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

impl CludzDrive {
    fn stored(who: Who, token: &str) -> Self {
        let it = Self::new(who);
        it.drive.replace_owner_token(token);
        it.drive.put("file", "text").unwrap();
        it.configure_stored("");
        it
    }

    fn credential(&self) -> serde_json::Value {
        let said = self.person.keymount(["status", "--json"]).ok();
        let status: serde_json::Value = serde_json::from_str(&said).unwrap();
        status["daemons"][0]["mounts"][0]["credential"].clone()
    }

    fn kept(&self) -> std::path::PathBuf {
        self.person.path("state/keymount/secrets/drive.token.secret")
    }
}

#[test]
fn a_piped_token_is_checked_kept_and_mounted_with() {
    Who::each(|who| {
        let it = CludzDrive::stored(who, CANARY);
        let mnt = it.person.mount_point();
        let mount = ["mount".as_ref(), "drive".as_ref(), mnt.as_os_str()];
        it.person.keymount(mount).fails(4, "run: keymount login drive");

        let wrong = it.person.keymount_reading("not-the-token\n", ["login", "drive"]);
        wrong.fails(4, "nothing was stored");
        assert!(!it.kept().exists());

        let said = it
            .person
            .keymount_reading(&format!("{CANARY}\n"), ["login", "drive"])
            .ok();
        assert!(said.contains("good, rights rwd"), "{said}");
        let kept = std::fs::metadata(it.kept()).unwrap();
        let folder = std::fs::metadata(it.kept().parent().unwrap()).unwrap();
        assert_eq!((kept.mode() & 0o7777, folder.mode() & 0o7777), (0o600, 0o700));

        it.person.mount("drive", &[]);
        assert_eq!(it.person.sh("cat file").ok(), "text");
        assert_eq!(it.credential()["source"], "stored");
        it.person.unmount();
    });
}

#[test]
fn login_heals_a_mount_in_place_and_logout_ends_its_credential() {
    Who::each(|who| {
        let it = CludzDrive::stored(who, "first");
        it.drive.put("other", "more").unwrap();
        it.drive.put("third", "even more").unwrap();
        it.person.keymount_reading("first", ["login", "drive"]).ok();
        it.person.mount("drive", &[]);
        let daemons = it.person.daemons();
        assert_eq!(it.person.sh("cat file").ok(), "text");

        it.drive.replace_owner_token("second");
        it.person.sh("cat other").refused("Permission denied");
        assert_eq!(it.credential()["state"], "rejected");
        let said = it.person.keymount_reading("second", ["login", "drive"]).ok();
        assert!(said.contains("credential valid"), "{said}");
        assert_eq!(it.person.sh("cat other").ok(), "more");

        let said = it.person.keymount(["logout", "drive"]).ok();
        assert!(said.contains("until you revoke it in Cludz's dashboard"), "{said}");
        assert!(said.contains("needs a login now"), "{said}");
        assert!(!it.kept().exists());
        assert_eq!(it.credential()["state"], "needs-login");
        it.person.sh("cat third").refused("Permission denied");
        assert_eq!(it.person.sh("cat other").ok(), "more", "what was read stays readable");
        it.person
            .keymount(["refresh", "drive"])
            .fails(4, "run: keymount login drive");
        let said = it.person.keymount(["logout", "drive"]).ok();
        assert!(said.contains("nothing to forget"), "{said}");

        it.person.keymount_reading("second", ["login", "drive"]).ok();
        assert_eq!(it.credential()["state"], "valid");
        assert_eq!(it.person.sh("cat third").ok(), "even more");
        assert_eq!(it.person.daemons(), daemons, "the mount was never replaced");
        it.person.unmount();
    });
}

/// Before anybody logged in, or with a token that the provider refuses.
#[test]
fn a_mount_may_wait_for_a_login() {
    Who::each(|who| {
        for before in [None, Some("an old one")] {
            let it = CludzDrive::stored(who, "first");
            if let Some(old) = before {
                it.person.keymount_reading(old, ["login", "--no-check", "drive"]).ok();
            }
            let outside = |script: &str| it.person.command("sh").args(["-c", script]).output().unwrap();
            it.person.mount("drive", &["--wait-for-login"]);
            let daemons = it.person.daemons();
            let state = it.credential()["state"].clone();
            assert_eq!(state, before.map_or("needs-login", |_| "rejected"));
            let shown = outside("stat -c %a \"$MNT\"");
            assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), "0");
            for script in ["ls \"$MNT\"", "cat \"$MNT/file\"", "echo text > \"$MNT/new\""] {
                let refused = outside(script);
                let words = String::from_utf8_lossy(&refused.stderr).into_owned();
                assert!(
                    !refused.status.success() && words.contains("Permission denied"),
                    "{script}: {words}"
                );
            }
            let said = it.person.keymount_reading("first", ["login", "drive"]).ok();
            assert!(said.contains("rights rwd, credential valid"), "{said}");
            assert_eq!(it.person.sh("stat -c %a . && cat file").ok(), "755\ntext");
            it.person.sh("echo more > new && chmod 700 .").ok();
            assert_eq!(it.person.daemons(), daemons, "the mount was never replaced");
            it.person.unmount();
        }
    });
}

/// Somebody may have stored another token without any daemon being told.
#[test]
fn a_rejected_token_is_read_again_from_the_store() {
    let it = CludzDrive::stored(Who::me(), "first");
    it.drive.put("other", "more").unwrap();
    it.person.keymount_reading("first", ["login", "drive"]).ok();
    it.person.mount("drive", &[]);
    let runtime = it.person.path("run");
    let away = it.person.path("away");
    std::fs::rename(&runtime, &away).unwrap();
    it.person
        .keymount_reading("second", ["login", "--no-check", "drive"])
        .ok();
    std::fs::rename(&away, &runtime).unwrap();
    it.drive.replace_owner_token("second");
    assert_eq!(it.person.sh("cat other").ok(), "more");
    assert_eq!(it.credential()["state"], "valid");
    it.person.unmount();
}

#[test]
fn a_mount_with_the_token_from_elsewhere_is_left_alone() {
    let it = CludzDrive::new(Who::me());
    let token = it.drive.owner_token();
    it.person.mount("drive", &[]);
    it.configure_stored("");
    let said = it.person.keymount_reading(&token, ["login", "drive"]).ok();
    assert!(said.contains("from elsewhere"), "{said}");
    let said = it.person.keymount(["logout", "drive"]).ok();
    assert!(said.contains("from elsewhere"), "{said}");
    assert_eq!(it.credential()["state"], "valid");
    it.person.unmount();
}

#[test]
fn with_a_passphrase_the_token_is_nowhere_to_be_read() {
    Who::each(|who| {
        let mut it = CludzDrive::stored(who, CANARY);
        it.configure_stored("[store]\npassphrase = { env = \"STORE_WORDS\" }\n");
        let words = "canary-correct-horse";
        let login = |it: &CludzDrive| it.person.keymount_reading(CANARY, ["login", "drive"]);
        login(&it).fails(4, "passphrase cannot be had");
        it.person.variable("STORE_WORDS", words);
        let said = login(&it).ok();
        assert!(said.contains("encrypted"), "{said}");

        it.person.mount("drive", &["-vv"]);
        assert_eq!(it.person.sh("cat file").ok(), "text");
        it.person.keymount(["refresh", "drive"]).ok();
        it.drive.put("other", "more").unwrap();
        it.drive.replace_owner_token("somebody-elses");
        it.person.sh("cat other").refused("Permission denied");
        it.drive.replace_owner_token(CANARY);
        login(&it).ok();
        assert_eq!(it.person.sh("cat other").ok(), "more");
        let daemon = it.person.daemons()[0];
        for name in ["cmdline", "environ"] {
            let bytes = told_of(daemon, name);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(!text.contains(CANARY) && !text.contains(words), "{name} of the daemon");
        }
        it.person.unmount();
        for secret in [CANARY, words] {
            assert_eq!(holders(&it.person.path(""), secret), [""; 0]);
        }
        it.person.variable("STORE_WORDS", "others");
        let mnt = it.person.mount_point();
        let mount = ["mount".as_ref(), "drive".as_ref(), mnt.as_os_str()];
        it.person.keymount(mount).fails(4, "another passphrase");
    });
}

#[test]
fn without_one_it_is_in_its_file_and_nowhere_else() {
    Who::each(|who| {
        let it = CludzDrive::stored(who, CANARY);
        let mut shown = it.person.keymount_reading(CANARY, ["login", "drive"]).ok();
        it.person.mount("drive", &["-vv"]);
        it.person
            .sh("cat file && echo new > new && ls -l && getfattr -d file")
            .ok();
        it.drive.replace_owner_token("somebody-elses");
        it.person.sh("cat missing").refused("");
        it.drive.replace_owner_token(CANARY);
        it.person.keymount(["refresh", "drive"]).ok();
        for arguments in [&["status"][..], &["status", "--json"], &["doctor"], &["remote", "list"]] {
            let said = it.person.keymount(arguments);
            shown += &said.out;
            shown += &said.err;
        }
        assert!(shown.contains("a token is kept in"), "{shown}");
        assert!(!shown.contains(CANARY), "{shown}");
        let daemon = it.person.daemons()[0];
        for name in ["cmdline", "environ"] {
            let bytes = told_of(daemon, name);
            assert!(
                !String::from_utf8_lossy(&bytes).contains(CANARY),
                "{name} of the daemon"
            );
        }
        let home = it.person.path("");
        assert_eq!(holders(&home, CANARY), [it.kept().display().to_string()]);
        it.person.keymount(["logout", "drive"]).ok();
        it.person.unmount();
        assert_eq!(holders(&home, CANARY), [""; 0]);
    });
}

#[test]
fn a_terminal_never_shows_what_is_typed() {
    let it = CludzDrive::stored(Who::me(), CANARY);
    let asked = "Token for drive (not shown): ";
    let shown = it
        .person
        .on_a_terminal("\"$KEYMOUNT\" login drive; stty -a", &[(asked, &format!("{CANARY}\n"))]);
    assert!(shown.contains("good, rights rwd"), "{shown}");
    assert!(!shown.contains(CANARY), "{shown}");
    let settings: Vec<&str> = shown.split_whitespace().collect();
    assert!(settings.contains(&"echo") && settings.contains(&"isig"), "{shown}");
    it.person.keymount(["logout", "drive"]).ok();

    let shown = it.person.on_a_terminal(
        "\"$KEYMOUNT\" login drive; echo \"code $?\"; stty -a",
        &[(asked, "half\x03")],
    );
    assert!(shown.contains("cancelled") && shown.contains("code 4"), "{shown}");
    let settings: Vec<&str> = shown.split_whitespace().collect();
    assert!(settings.contains(&"echo") && settings.contains(&"isig"), "{shown}");
    assert!(!it.kept().exists());
}
