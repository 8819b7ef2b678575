//! `remote add` on a terminal: what a newcomer is asked, and that it mounts afterwards.

use crate::drive::CludzDrive;
use crate::sandbox::Who;

const CANARY: &str = "canary-4be1d09c22";

#[test]
fn a_newcomer_is_asked_and_can_mount() {
    Who::each(|who| {
        let it = CludzDrive::new(who);
        it.drive.replace_owner_token(CANARY);
        it.drive.put("file", "text").unwrap();
        it.person.configure("# mine\n");
        let storage = format!("{}\n", it.drive.id());
        let endpoint = format!("{}\n", it.server.url());
        let (wrong, right) = ("not-the-token\n", format!("{CANARY}\n"));
        let shown = it.person.on_a_terminal(
            "\"$KEYMOUNT\" remote add; echo \"code $?\"; stty -a",
            &[
                ("Where is your storage?", "one\n"),
                ("That is none of them.", "1\n"),
                ("How do you prove who you are?", "\n"),
                ("called [cludz]: ", "my drive\n"),
                ("id (dashboard", "no-uuid\n"),
                ("[https://storage.cludz.net]: ", endpoint.as_str()),
                ("Please answer again", ""),
                ("called [cludz]: ", "drive\n"),
                ("[no-uuid]: ", storage.as_str()),
                ("Address of the service", "\n"),
                ("Token for drive (not shown): ", wrong),
                ("Type the token again? [y/N]", "y\n"),
                ("Token for drive (not shown): ", right.as_str()),
            ],
        );
        assert!(shown.contains("rights rwd: it may read, write and delete"), "{shown}");
        assert!(
            shown.contains("the token is kept in") && shown.contains("code 0"),
            "{shown}"
        );
        assert!(!shown.contains(CANARY), "{shown}");
        let settings: Vec<&str> = shown.split_whitespace().collect();
        assert!(settings.contains(&"echo") && settings.contains(&"isig"), "{shown}");
        let text = std::fs::read_to_string(it.person.path("config/keymount/config.toml")).unwrap();
        assert!(text.starts_with("# mine\n") && !text.contains(CANARY), "{text}");

        it.person.mount("drive", &["--bandwidth", "off:1M"]);
        assert_eq!(it.person.sh("cat file").ok(), "text");
        let mnt = it.person.mount_point();
        let said = it.person.keymount(["remote", "remove", "drive", "--yes"]);
        assert_eq!(said.code, Some(8), "{} {}", said.out, said.err);
        assert!(
            said.err.contains(&format!("keymount umount {}", mnt.display())),
            "{}",
            said.err
        );
        it.person.unmount();
        let shown = it.person.on_a_terminal(
            "\"$KEYMOUNT\" remote remove drive; echo \"code $?\"",
            &[("[y/N]", "n\n")],
        );
        assert!(
            shown.contains("nothing was removed") && shown.contains("code 1"),
            "{shown}"
        );
        let shown = it.person.on_a_terminal(
            "\"$KEYMOUNT\" remote remove drive; echo \"code $?\"",
            &[("[y/N]", "y\n")],
        );
        assert!(
            shown.contains("token is forgotten") && shown.contains("code 0"),
            "{shown}"
        );
        assert!(!it.person.path("state/keymount/secrets/drive.token.secret").exists());
    });
}

#[test]
fn what_fails_writes_nothing_unless_told_to() {
    let it = CludzDrive::new(Who::me());
    it.person.configure("");
    let storage = format!("storage={}", it.drive.id());
    let endpoint = format!("endpoint={}", it.server.url());
    let add = format!("\"$KEYMOUNT\" remote add d --provider cludz --set {storage} --set {endpoint}; echo \"code $?\"");
    let config = || std::fs::read_to_string(it.person.path("config/keymount/config.toml")).unwrap();
    let asked = "Token for d (not shown): ";
    let shown = it.person.on_a_terminal(
        &add,
        &[
            (asked, "wrong\n"),
            ("again? [y/N]", "n\n"),
            ("all the same? [y/N]", "n\n"),
        ],
    );
    assert!(
        shown.contains("nothing was written") && shown.contains("code 4"),
        "{shown}"
    );
    assert_eq!(config(), "");
    let shown = it.person.on_a_terminal(&add, &[(asked, "half\x03")]);
    assert!(shown.contains("cancelled"), "{shown}");
    let shown = it.person.on_a_terminal(
        &add,
        &[
            (asked, "wrong\n"),
            ("again? [y/N]", "n\n"),
            ("all the same? [y/N]", "y\n"),
        ],
    );
    assert!(shown.contains("code 0"), "{shown}");
    assert!(config().contains("[remotes.d]"));
    let shown = it.person.on_a_terminal(&add, &[]);
    assert!(
        shown.contains("there is a remote d already") && shown.contains("code 3"),
        "{shown}"
    );
    // Its prompt says what kind of secret it is, and `login` repairs what was saved.
    let token = format!("{}\n", it.drive.owner_token());
    let shown = it
        .person
        .on_a_terminal("\"$KEYMOUNT\" login d", &[(asked, token.as_str())]);
    assert!(shown.contains("the token is good, rights rwd"), "{shown}");
}

#[test]
fn an_old_key_is_named_while_it_is_mounted() {
    let mut it = CludzDrive::new(Who::me());
    it.drive.replace_owner_token(CANARY);
    it.configure(CANARY, "");
    it.person.sh("touch -d 2020-01-02T12:00 ../work/token").ok();
    it.person.mount("drive", &[]);
    let status = it.person.keymount(["status"]).ok();
    assert!(status.contains("its file was last changed on 2020-01-02"), "{status}");
    it.person.unmount();

    // Nobody can date a variable: its key is young when it is seen for the first time.
    it.person.configure(&format!(
        "[remotes.drive]\nprovider = \"cludz\"\nstorage = \"{}\"\nendpoint = \"{}\"\n\
         [remotes.drive.auth]\nmethod = \"token\"\ntoken = {{ env = \"MY_TOKEN\" }}\n",
        it.drive.id(),
        it.server.url()
    ));
    it.person.variable("MY_TOKEN", CANARY);
    it.person.mount("drive", &[]);
    let seen = |it: &CludzDrive| -> serde_json::Value {
        let status = it.person.keymount(["status", "--json"]).ok();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["daemons"][0]["mounts"][0]["credential"]["since"].clone()
    };
    let first = seen(&it);
    assert_eq!(first["known"], "seen");
    it.person.unmount();
    let remembered = it.person.path("state/keymount/first-seen.json");
    let text = std::fs::read_to_string(&remembered).unwrap();
    assert!(!text.contains(CANARY), "{text}");
    let mut old: serde_json::Value = serde_json::from_str(&text).unwrap();
    old["keys"]["drive"]["since"] = 1_600_000_000.into();
    std::fs::write(&remembered, old.to_string()).unwrap();
    it.person.mount("drive", &[]);
    let status = it.person.keymount(["status"]).ok();
    assert!(
        status.contains("seen here for the first time on 2020-09-13"),
        "{status}"
    );
    it.person.unmount();
}
