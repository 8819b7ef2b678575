//! Secrets leave no trace: canaries are searched for wherever somebody else could look.

use std::path::Path;

use crate::drive::CludzDrive;
use crate::sandbox::{Who, told_of};

/// Every file below a folder that holds the text. What is mounted there is not searched: reading it would cache it.
pub fn holders(folder: &Path, text: &str) -> String {
    let found = std::process::Command::new("grep")
        .args(["-rlaF", "--exclude-dir=mnt", "--", text])
        .arg(folder)
        .output()
        .unwrap();
    String::from_utf8_lossy(&found.stdout).into_owned()
}

#[test]
fn a_token_is_in_no_log_no_state_no_process() {
    const CANARY: &str = "canary-4f1d7c5be2";
    for who in Who::everybody() {
        let mut it = CludzDrive::new(who);
        it.drive.replace_owner_token(CANARY);
        it.drive.put("file", "text").unwrap();
        it.person.configure(&format!(
            "[remotes.drive]\nprovider = \"cludz\"\nstorage = \"{}\"\nendpoint = \"{}\"\n\
             [remotes.drive.auth]\nmethod = \"token\"\nsend = \"query\"\ntoken = {{ env = \"CLUDZ_STORAGE_TOKEN\" }}\n",
            it.drive.id(),
            it.server.url()
        ));
        it.person.variable("CLUDZ_STORAGE_TOKEN", CANARY);
        it.person.mount("drive", &["-vv"]);
        it.person
            .sh("cat file && echo new > new && ls -l && getfattr -d file && ls missing")
            .refused("missing");
        it.drive.replace_owner_token("somebody-elses");
        it.person.sh("cat other").refused("");
        it.drive.replace_owner_token(CANARY);
        it.person.keymount(["refresh", "drive"]).ok();

        let mut shown = String::new();
        for arguments in [&["status"][..], &["status", "--json"], &["doctor"]] {
            let said = it.person.keymount(arguments);
            shown += &said.out;
            shown += &said.err;
        }
        assert!(!shown.contains(CANARY), "{shown}");
        let daemons = it.person.daemons();
        assert_eq!(daemons.len(), 1);
        for name in ["cmdline", "environ"] {
            let bytes = told_of(daemons[0], name);
            assert!(
                !String::from_utf8_lossy(&bytes).contains(CANARY),
                "{name} of the daemon"
            );
        }
        it.person.unmount();
        let home = it.person.path("");
        assert!(
            it.person.path("state").read_dir().unwrap().next().is_some(),
            "there is a state folder to search"
        );
        assert_eq!(holders(&home, CANARY), "");
    }
}

#[test]
fn a_token_on_the_command_line_is_refused() {
    const CANARY: &str = "canary-on-the-line";
    let it = CludzDrive::new(Who::me());
    let id = it.drive.id();
    let mnt = it.person.mount_point().display().to_string();
    for arguments in [
        vec!["mount".to_owned(), format!("cludz://{id}?token={CANARY}"), mnt.clone()],
        vec!["mount".to_owned(), format!("cludz://{CANARY}@{id}/"), mnt.clone()],
        vec![
            "mount".to_owned(),
            format!("reductstore://:{CANARY}@127.0.0.1:1/"),
            mnt.clone(),
        ],
    ] {
        let said = it.person.keymount(&arguments);
        assert!(
            !format!("{}{}", said.out, said.err).contains(CANARY),
            "{} {}",
            said.out,
            said.err
        );
        assert!(matches!(said.code, Some(2 | 3)), "{said:?}");
    }
    let flag = it.person.keymount(["mount", "--token", CANARY, "drive", &mnt]);
    assert_eq!(flag.code, Some(2));
}

/// A program that keymount starts inherits no secret: here the one that prints the token writes down what it was given.
#[test]
fn children_inherit_no_secret() {
    const CANARY: &str = "canary-77ab01d9e4";
    let mut it = CludzDrive::new(Who::me());
    it.drive.put("file", "text").unwrap();
    let token = it.person.file("work/token", &it.drive.owner_token(), 0o600);
    let seen = it.person.path("work/environment");
    it.person.configure(&format!(
        "[remotes.drive]\nprovider = \"cludz\"\nstorage = \"{}\"\nendpoint = \"{}\"\n\
         [remotes.drive.auth]\nmethod = \"token\"\ntoken = {{ command = [\"sh\", \"-c\", \"env >> '{}'; cat '{}'\"] }}\n",
        it.drive.id(),
        it.server.url(),
        seen.display(),
        token.display()
    ));
    for variable in [
        "KEYMOUNT_TOKEN",
        "CLUDZ_STORAGE_TOKEN",
        "RS_API_TOKEN",
        "REDUCT_API_TOKEN",
    ] {
        it.person.variable(variable, CANARY);
    }
    it.person.mount("drive", &[]);
    it.person.keymount(["refresh", "drive"]).ok();
    assert_eq!(it.person.sh("cat file").ok(), "text");
    it.person.unmount();
    let environment = std::fs::read_to_string(seen).unwrap();
    assert!(environment.contains("PATH="), "{environment}");
    assert!(!environment.contains(CANARY), "{environment}");
}
