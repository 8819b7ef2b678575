//! Ordinary work on a mounted Storra account, within its limits, and its keys.

use keymount::emulator::Running;
use keymount::emulator::storra::{Account, Bucket, Plan, StorraStore, Visibility};
use tokio::runtime::Runtime;

use crate::sandbox::{Sandbox, Who};
use crate::secrets::holders;

/// The stand-in, an account, and somebody who has it configured as `cloud`, the key in a file.
struct Cloud {
    person: Sandbox,
    store: StorraStore,
    account: Account,
    key: String,
    server: Running,
    _runtime: Runtime,
}

impl Cloud {
    fn new(who: Who) -> Self {
        let runtime = Runtime::new().unwrap();
        let store = StorraStore::default();
        let account = store.add_account("owner@example.com");
        let key = account.create_key("laptop");
        let server = runtime.block_on(store.serve()).unwrap();
        let it = Self {
            person: Sandbox::new(who),
            store,
            account,
            key,
            server,
            _runtime: runtime,
        };
        it.person.file("work/key", &it.key, 0o600);
        it.configure("", "");
        it
    }

    /// Writes the configuration, with more lines for the remote and at the end.
    fn configure(&self, more: &str, end: &str) {
        self.person.configure(&format!(
            "[remotes.cloud]\nprovider = \"storra\"\nendpoint = \"{}\"\n{more}\n\
             [remotes.cloud.auth]\nmethod = \"api-key\"\nkey = {{ file = \"{}\" }}\n{end}",
            self.server.url(),
            self.person.path("work/key").display()
        ));
    }

    fn key_in_file(&self) -> String {
        std::fs::read_to_string(self.person.path("work/key"))
            .unwrap()
            .trim()
            .to_owned()
    }

    fn is_public(&self, path: &str) -> bool {
        self.account.info(path).unwrap().visibility == Visibility::Public
    }
}

/// What was deleted is in Storra's trash; the mounted directory lists it, takes it back and empties it.
#[test]
fn the_trash_is_listed_restored_from_and_emptied() {
    let it = Cloud::new(Who::me());
    it.account.put("folder/keep me", "text").unwrap();
    it.account.put("other", "text").unwrap();
    it.person.mount("cloud", &[]);
    let sh = |script: &str| it.person.sh(script);
    sh("rm -r folder/* other && ls folder").says("");
    let listed = sh("getfattr --only-values -n user.keymount.trash . | sort -k 3").ok();
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split('\t').collect()).collect();
    let paths: Vec<&str> = lines.iter().map(|line| line[2]).collect();
    assert_eq!(paths, ["folder/keep me", "other"]);
    sh("getfattr -d . | grep -q trash").refused("");
    sh("getfattr -n user.keymount.trash folder").refused("No such attribute");
    let restore = |id: &str| sh(&format!("setfattr -n user.keymount.restore -v '{id}' ."));
    restore(lines[0][0]).ok();
    sh("cat 'folder/keep me'").says("text");
    restore("file_00000000").refused("No such file");
    sh("setfattr -n user.keymount.trash -v all .").refused("Invalid argument");
    sh("setfattr -n user.keymount.trash -v empty . && getfattr --only-values -n user.keymount.trash .").says("");
    assert!(it.account.trash().is_empty());
    it.person.unmount();
    it.person.mount("cloud", &["--read-only"]);
    sh("setfattr -n user.keymount.trash -v empty .").refused("Read-only");
    it.person.unmount();
}

#[test]
fn ordinary_tools_work_within_the_limits() {
    Who::each(|who| {
        let it = Cloud::new(who);
        for number in 0..300 {
            it.account
                .put(&format!("many/{}/f{number}", number % 7), "text")
                .unwrap();
        }
        it.person.mount("cloud", &[]);
        it.person
            .sh("test $(find . -type f | wc -l) = 300 && ls -lR > /dev/null && du -s . && stat many/*/*")
            .ok();
        assert_eq!(it.account.counted(Bucket::List), 1, "one listing for all of it");
        it.person.sh("stat -c %a . many many/0/f0").says("700\n700\n600\n");
        it.person
            .sh("mkdir d && echo one > d/f && echo two >> d/f && cat d/f")
            .says("one\ntwo\n");
        assert_eq!(it.account.read("d/f").unwrap(), "one\ntwo\n");
        it.person
            .sh("mv d e && cat e/f && mv e/f g && rmdir e && cat g")
            .says("one\ntwo\none\ntwo\n");
        it.person
            .sh("echo new > .g.swp && sync .g.swp && mv .g.swp g && cat g")
            .says("new\n");
        it.person
            .sh("cp g copy && cmp g copy && rm copy && test ! -e copy")
            .ok();
        it.person.sh("rmdir many").fails(1, "not empty");
        it.person.sh("df . | grep -q keymount").ok();
        assert!(
            it.account
                .visibilities()
                .iter()
                .all(|(_, visibility)| *visibility == Visibility::Private)
        );
        let status = it.person.keymount(["status"]).ok();
        assert!(status.contains("api-key") && !status.contains(&it.key), "{status}");
        it.person.unmount();
        assert_eq!(
            holders(&it.person.path(""), &it.key).trim(),
            it.person.path("work/key").display().to_string()
        );
    });
}

/// Attributes are set by name, or by `chmod` where the remote says so; nothing else publishes.
#[test]
fn only_what_is_meant_to_is_published() {
    let it = Cloud::new(Who::me());
    it.person.mount("cloud", &[]);
    it.person
        .sh("umask 0; echo x > file && chmod 666 file && cp -p file copy && mkdir -m 777 open")
        .ok();
    assert!(!it.is_public("file") && !it.is_public("copy") && !it.is_public("open"));
    it.person.sh("setfattr -n user.keymount.visibility -v public file").ok();
    assert!(it.is_public("file"));
    it.person
        .sh("getfattr --only-values -n user.keymount.visibility file")
        .says("public");
    it.person.sh("cp -a file twin && cp --preserve=all file triplet").ok();
    assert!(
        !it.is_public("twin") && !it.is_public("triplet"),
        "copies of a public file"
    );
    it.person
        .sh("setfattr -n user.keymount.visibility -v private file")
        .ok();
    assert!(!it.is_public("file"));
    it.person
        .sh("setfattr -n user.keymount.visibility -v loud file")
        .fails(1, "Invalid argument");
    it.person
        .sh("setfattr -n user.colour -v blue file && getfattr --only-values -n user.colour file")
        .says("blue");
    it.person.unmount();

    it.configure("chmod_publishes = true", "");
    it.person.mount("cloud", &[]);
    it.person.sh("umask 0; echo x > new && cp -p file second").ok();
    assert!(
        !it.is_public("new") && !it.is_public("second"),
        "modes of new files and copied ones"
    );
    it.person.sh("chmod o+r new").ok();
    assert!(it.is_public("new"));
    it.person.sh("chmod o-r new").ok();
    assert!(!it.is_public("new"));
    it.person.unmount();
}

#[test]
fn refusals_are_sentences() {
    let it = Cloud::new(Who::me());
    let mount = |it: &Cloud| {
        it.person
            .keymount(["mount", "cloud", &it.person.mount_point().display().to_string()])
    };
    it.account.set_plan(Plan::Free);
    let said = mount(&it);
    assert!(
        said.code != Some(0) && said.err.contains("upgrade at /dashboard/settings"),
        "{said:?}"
    );
    it.account.set_plan(Plan::Pro);
    it.account.revoke_key(&it.key);
    let said = mount(&it);
    assert!(
        said.code != Some(0) && said.err.contains("wrong or was revoked"),
        "{said:?}"
    );
    let said = it.person.keymount(["keys", "list", "cloud"]);
    assert!(
        said.code != Some(0) && said.err.contains("keymount login cloud --keys"),
        "{said:?}"
    );
    assert!(!said.err.contains(&it.key));
    assert!(!it.person.is_mounted("mnt"));
}

/// A dashboard's session replaces the key under a mount in use, and the old one is worth nothing afterwards.
#[test]
fn a_key_is_replaced_with_a_session_under_a_mount() {
    let it = Cloud::new(Who::me());
    it.store.lift_limits();
    it.configure(
        "",
        "[remotes.cloud.keys_auth]\nmethod = \"session\"\ncookie = { stored = true }\n",
    );
    let cookie = it.account.open_session();
    let said = it.person.keymount_reading("nonsense=1\n", ["login", "cloud", "--keys"]);
    assert!(said.code != Some(0) && said.err.contains("dashboard/login"), "{said:?}");
    let said = it
        .person
        .keymount_reading(&format!("{cookie}\n"), ["login", "cloud", "--keys"])
        .ok();
    assert!(
        said.contains("good, there are 1 keys") && !said.contains(&cookie),
        "{said}"
    );
    it.person.mount("cloud", &["--attr-ttl", "0"]);
    it.person.sh("echo constant > file").ok();
    let list = it.person.keymount(["keys", "list", "cloud"]).ok();
    assert!(list.contains("laptop [sk_") && list.contains("(in use here)"), "{list}");
    let refused = it.person.keymount(["keys", "revoke", "cloud", "laptop"]);
    assert!(refused.code != Some(0), "{refused:?}");
    let rotated = it.person.keymount(["keys", "rotate", "cloud"]);
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    let new = it.key_in_file();
    assert_ne!(new, it.key);
    let keys = it.account.keys();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(keys[0].prefix, new[..11]);
    it.person
        .sh("cat file && echo more > file2 && cat file2")
        .says("constant\nmore\n");
    let secret = it.person.path("work/second");
    let write_to = secret.display().to_string();
    it.person
        .keymount(["keys", "create", "cloud", "phone", "--write-to", &write_to])
        .ok();
    let phone = std::fs::read_to_string(&secret).unwrap().trim().to_owned();
    it.person
        .keymount(["keys", "revoke", "cloud", &phone[..11], "--yes"])
        .ok();
    assert_eq!(it.account.keys().len(), 1);
    let doctor = it.person.keymount(["doctor"]);
    assert!(
        doctor.out.contains("the dashboard cookie for keys is good"),
        "{doctor:?}"
    );
    it.account.end_session(&cookie);
    let ended = it.person.keymount(["keys", "list", "cloud"]);
    assert!(
        ended.code != Some(0) && ended.err.contains("the session of Storra's dashboard has ended"),
        "{ended:?}"
    );
    for said in [&rotated, &refused, &doctor, &ended] {
        for secret in [&it.key, &new, &phone, &cookie] {
            assert!(
                !said.out.contains(secret.as_str()) && !said.err.contains(secret.as_str()),
                "{said:?}"
            );
        }
    }
    it.person.sh("cat file").says("constant\n");
    it.person.unmount();
}
