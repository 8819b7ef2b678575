//! CloudSync mounted with an API key: ordinary work, what each kind of key may do, and keys replaced in use.

use std::path::PathBuf;

use keymount::emulator::Running;
use keymount::emulator::cloudsync::{
    ApiKey, Assumptions, CloudSyncStore, Environment, FolderCreation, KeyManagement, Plan, Role, Scope, Workspace,
};
use keymount::emulator::{Fault, Rule};
use tokio::runtime::Runtime;

use crate::sandbox::{Sandbox, Who, told_of};
use crate::secrets::holders;

const OWNER: &str = "owner@example.com";
const MEMBER: &str = "member@example.com";

/// The stand-in with one workspace, and somebody who has it configured as `work`, with the key in a file.
struct Account {
    person: Sandbox,
    store: CloudSyncStore,
    workspace: Workspace,
    server: Running,
    _runtime: Runtime,
    file: PathBuf,
}

impl Account {
    fn new(who: Who) -> Self {
        Self::with(who, Assumptions::default())
    }

    fn with(who: Who, assumptions: Assumptions) -> Self {
        let store = CloudSyncStore::new(assumptions);
        store.add_user(OWNER, Plan::unlimited());
        store.add_user(MEMBER, Plan::unlimited());
        let workspace = store.add_workspace(OWNER, "project").unwrap();
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(store.serve_api()).unwrap();
        let person = Sandbox::new(who);
        let file = person.path("work/key");
        Self {
            person,
            store,
            workspace,
            server,
            _runtime: runtime,
            file,
        }
    }

    /// Writes the configuration; without a workspace all are mounted.
    fn configure(&self, key: &ApiKey, workspace: Option<&str>) {
        let file = self.person.file("work/key", key.secret(), 0o600);
        let workspace = workspace.map_or_else(String::new, |workspace| format!("workspace = \"{workspace}\"\n"));
        self.person.configure(&format!(
            "[remotes.work]\nprovider = \"cloudsync\"\nendpoint = \"{}v1\"\n{workspace}\
             [remotes.work.auth]\nmethod = \"api-key\"\nkey = {{ file = \"{}\" }}\n",
            self.server.url(),
            file.display()
        ));
    }

    fn key(&self, email: &str, name: &str, permissions: &[Scope]) -> ApiKey {
        self.store.create_key(email, name, permissions).unwrap()
    }

    fn secret(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap().trim().to_owned()
    }

    fn key_ids(&self) -> Vec<String> {
        self.store.keys(OWNER).into_iter().map(|(id, _)| id).collect()
    }
}

#[test]
fn ordinary_tools_work() {
    Who::each(|who| {
        for folders in [FolderCreation::WithoutContent, FolderCreation::Unsupported] {
            let it = Account::with(
                who,
                Assumptions {
                    folders,
                    ..Assumptions::default()
                },
            );
            it.configure(&it.key(OWNER, "all", &Scope::of_keys()), Some("project"));
            it.person.mount("work", &[]);
            let sh = |script: &str| it.person.sh(script);
            sh("mkdir -p src/deep && echo one > src/a && echo two > src/deep/b && cp -r src copy && diff -r src copy")
                .ok();
            assert_eq!(it.workspace.read("/copy/deep/b").unwrap(), "two\n");
            sh("mv copy/deep/b moved && mv moved src/deep/c && mv copy elsewhere && test -d elsewhere/deep && ls -lR")
                .ok();
            assert!(it.workspace.exists("/src/deep/c") && it.workspace.exists("/elsewhere/a"));
            sh("rmdir elsewhere").refused("Directory not empty");
            sh("rm -r elsewhere && test ! -e elsewhere").ok();
            sh("echo old > text && echo new > .text.swp && sync .text.swp && mv .text.swp text && cat text")
                .says("new\n");
            sh("echo more >> text && truncate -s 3 text && cat text").says("new");
            sh("dd if=/dev/urandom of=big bs=64k count=50 2>/dev/null && cp big twin && cmp big twin").ok();
            sh("printf XY | dd of=big bs=1 seek=100000 conv=notrunc 2>/dev/null && ! cmp -s big twin").ok();
            assert_eq!(&it.workspace.read("/big").unwrap()[100_000..100_002], b"XY");
            sh("df . | grep -q keymount && touch empty && test -f empty && rm empty big twin").ok();
            assert_eq!(it.workspace.list("/").unwrap(), ["src", "text"]);
            it.person.unmount();
            assert!(!it.person.is_mounted("mnt"));
        }
    });
}

/// What a file held before is listed, and made current again.
#[test]
fn former_versions_are_listed_and_restored() {
    let it = Account::new(Who::me());
    it.configure(&it.key(OWNER, "all", &Scope::of_keys()), Some("project"));
    it.person.mount("work", &["--sync", "--attr-ttl", "1h"]);
    let sh = |script: &str| it.person.sh(script);
    sh("echo one > file && echo longer > file && mkdir folder").ok();
    let listed = sh("getfattr --only-values -n user.keymount.versions file | cut -f 1,3").ok();
    let versions: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    assert_eq!(versions[0].1, "7", "the newest first");
    sh("getfattr -d file | grep -q versions").refused("");
    sh("getfattr -n user.keymount.versions folder").refused("No such attribute");
    sh("getfattr -n user.keymount.restore file").refused("No such attribute");
    let (first, _) = versions.iter().find(|(_, size)| *size == "4").unwrap();
    sh(&format!(
        "cat file && setfattr -n user.keymount.restore -v {first} file && cat file"
    ))
    .says("longer\none\n");
    assert_eq!(it.workspace.read("/file").unwrap(), "one\n");
    sh("setfattr -n user.keymount.restore -v 99 file").refused("No such file");
    sh("setfattr -n user.keymount.restore -v first file").refused("Invalid argument");
    sh("setfattr -n user.keymount.versions -v 1 file").refused("not supported");
    it.person.unmount();
}

#[test]
fn workspaces_are_directories() {
    Who::each(|who| {
        let it = Account::new(who);
        it.workspace.put("/file", "content").unwrap();
        it.configure(&it.key(OWNER, "all", &Scope::of_keys()), None);
        it.person.mount("work", &[]);
        let sh = |script: &str| it.person.sh(script);
        assert_eq!(sh("ls && cat project/file").ok(), "project\ncontent");
        sh("mkdir another-one && echo text > another-one/file").ok();
        let made = it.store.workspace("another-one").unwrap();
        assert_eq!(made.read("/file").unwrap(), "text\n");
        sh("mkdir 'Another One'").refused("Invalid argument");
        sh("mkdir project").refused("File exists");
        sh("rm another-one/file && rmdir another-one").refused("Operation not permitted");
        sh("mv another-one renamed").refused("Operation not permitted");
        assert!(made.is_there());
        sh("mv project/file another-one/ && cat another-one/file && test ! -e project/file").says("content");
        sh("echo x > file").refused("not supported");
        it.person.unmount();
    });
}

/// The modes of each kind of key and role, and what each may not do, whoever asks.
#[test]
fn rights_show_as_modes_and_are_enforced() {
    use Scope::{FilesRead, FilesWrite, WorkspacesRead};
    Who::each(|who| {
        for (permissions, role, directory, file) in [
            (&[FilesRead, FilesWrite][..], Role::Editor, "drwxr-xr-x", "-rw-r--r--"),
            (
                &[FilesRead, FilesWrite, WorkspacesRead],
                Role::Editor,
                "drwxr-xr-x",
                "-rw-r--r--",
            ),
            (
                &[FilesRead, FilesWrite, WorkspacesRead],
                Role::Viewer,
                "dr-xr-xr-x",
                "-r--r--r--",
            ),
            (&[FilesRead, WorkspacesRead], Role::Editor, "dr-xr-xr-x", "-r--r--r--"),
        ] {
            let it = Account::new(who);
            it.workspace.put("/file", "text").unwrap();
            it.workspace.put("/other", "text").unwrap();
            it.workspace.mkdir("/folder").unwrap();
            it.workspace.set_role(MEMBER, role).unwrap();
            it.configure(&it.key(MEMBER, "limited", permissions), Some("project"));
            it.person.mount("work", &[]);
            let modes = it.person.sh("stat -c %A . file").ok();
            let what = format!("{who:?} {permissions:?} {role:?}");
            assert_eq!(modes.lines().collect::<Vec<_>>(), [directory, file], "{what}");
            it.person.sh("test \"$(cat file)\" = text && ls folder").ok();
            for script in [
                "echo x > new",
                "echo x >> file",
                "mkdir sub",
                "chmod 600 file && chmod 644 file",
                "mv file renamed && mv renamed file",
                "rm -f other",
                "rmdir folder",
            ] {
                let said = it.person.sh(script);
                if file.contains('w') {
                    said.ok();
                } else {
                    said.refused("Permission denied");
                }
            }
            it.person.unmount();
        }
    });
}

/// Who may only write makes files and sees none.
#[test]
fn a_key_that_only_writes_makes_files() {
    Who::each(|who| {
        let it = Account::new(who);
        it.workspace.put("/file", "text").unwrap();
        it.configure(&it.key(OWNER, "writer", &[Scope::FilesWrite]), Some("project"));
        it.person.mount("work", &[]);
        assert_eq!(it.person.sh("stat -c %A .").ok().trim(), "d-wx--x--x");
        it.person.sh("ls").refused("Permission denied");
        it.person.sh("echo new > made").ok();
        it.person.unmount();
        assert_eq!(it.workspace.read("/made").unwrap(), "new\n");
        assert_eq!(it.workspace.read("/file").unwrap(), "text");
    });
}

/// A refusal takes the right away, and `refresh` asks for the rights anew.
#[test]
fn rights_follow_the_key() {
    let it = Account::new(Who::me());
    it.workspace.put("/file", "text").unwrap();
    let key = it.key(OWNER, "all", &Scope::of_keys());
    it.configure(&key, Some("project"));
    it.person.mount("work", &[]);
    it.person.sh("echo more >> file").ok();
    let mode = || it.person.sh("stat -c %A .").ok().trim().to_owned();
    assert_eq!(mode(), "drwxr-xr-x");
    let reading = [Scope::FilesRead, Scope::WorkspacesRead];
    assert!(it.store.set_key_permissions(key.id(), &reading));
    it.person.keymount(["refresh", "work"]).ok();
    assert_eq!(mode(), "dr-xr-xr-x");
    it.person.sh("echo more >> file").refused("Permission denied");
    assert!(it.store.set_key_permissions(key.id(), &Scope::of_keys()));
    it.person.keymount(["refresh", "work"]).ok();
    it.person.sh("echo more >> file").ok();
    // Revoked: what was read stays readable, and a new key in the file heals the mount.
    assert!(it.store.revoke_key(key.id()));
    it.person
        .file("work/key", it.key(OWNER, "next", &Scope::of_keys()).secret(), 0o600);
    it.person.sh("echo more >> file && cat file").ok();
    it.person.unmount();
}

#[test]
fn an_access_token_that_ended_needs_a_login() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let it = Account::new(Who::me());
    it.workspace.put("/file", "text").unwrap();
    let good = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&good);
    it.store.trust(move |token| {
        let recognised = token == "at_live_canary-of-somebody" && still.load(Ordering::Relaxed);
        recognised.then(|| keymount::emulator::cloudsync::ForeignGrant {
            email: OWNER.into(),
            scopes: Scope::of_oauth(),
        })
    });
    let file = it.person.file("work/token", "at_live_canary-of-somebody", 0o600);
    it.person.configure(&format!(
        "[remotes.work]\nprovider = \"cloudsync\"\nendpoint = \"{}v1\"\nworkspace = \"project\"\n\
         [remotes.work.auth]\nmethod = \"access-token\"\ntoken = {{ file = \"{}\" }}\n",
        it.server.url(),
        file.display()
    ));
    it.person.mount("work", &["--attr-ttl", "0"]);
    it.person.sh("cat file && echo new > new").ok();
    good.store(false, Ordering::Relaxed);
    it.person.sh("mkdir more").refused("Permission denied");
    let status = it.person.keymount(["status"]).ok();
    let status = status.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(status.contains("access-token, needs login"), "{status}");
    assert!(!status.contains("canary"), "{status}");
    it.person.unmount();
}

/// A reader and writer never see that the key is replaced. No secret is anywhere but in the file.
#[test]
fn a_key_is_replaced_under_a_mount_in_use() {
    Who::each(|who| {
        let it = Account::new(who);
        let laptop = it
            .store
            .create_key_for(Environment::Sandbox, OWNER, "laptop", &Scope::of_keys())
            .unwrap();
        // Another one of the same name, which is nobody's business.
        let twin = it.key(OWNER, "laptop", &[Scope::FilesRead]);
        it.configure(&laptop, Some("project"));
        it.person.mount("work", &["--attr-ttl", "0", "-vv"]);
        it.person.sh("echo constant > file").ok();
        let mut said = vec![it.person.keymount(["status"])];
        let status = said[0].out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(status.contains("api-key laptop (sandbox), valid"), "{status}");

        let stop = it.person.path("work/stop");
        let reader = it.person.start(&format!(
            "n=0; echo start; until test -e {}; do n=$((n+1)); test \"$(cat file)\" = constant || echo failed; \
             ls > /dev/null || echo failed; echo $n > new-$n && test \"$(cat new-$n)\" = $n && rm new-$n || echo failed; \
             done; echo end $n",
            stop.display()
        ));
        let mut secrets = vec![laptop.secret().to_owned()];
        for _ in 0..2 {
            said.push(it.person.keymount(["keys", "rotate", "work", "--expires", "90d"]));
            let last = said.last().unwrap();
            assert_eq!(last.code, Some(0), "{last:?}");
            secrets.push(it.secret());
        }
        it.person.file("work/stop", "", 0o644);
        let reader = reader.wait();
        assert!(
            reader.out.contains("end ") && !reader.out.contains("failed"),
            "{reader:?}"
        );
        let keys = it.store.keys(OWNER);
        assert_eq!(keys.len(), 2, "{keys:?}");
        assert!(keys.iter().any(|(id, _)| id == twin.id()) && !keys.iter().any(|(id, _)| id == laptop.id()));
        for arguments in [
            &["keys", "list", "work"][..],
            &["keys", "list", "work", "--json"],
            &["status", "--json"],
            &["doctor"],
        ] {
            said.push(it.person.keymount(arguments));
        }
        let list = said[said.len() - 4]
            .out
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let (id, name) = keys.iter().find(|(id, _)| id != twin.id()).unwrap();
        assert!(
            list.contains(&format!("{name} [{id}] (in use here) files:read, files:write")),
            "{list}"
        );
        let daemon = it.person.daemons()[0];
        let process = ["cmdline", "environ"].map(|name| told_of(daemon, name));
        it.person.unmount();
        for secret in &secrets {
            assert!(
                said.iter()
                    .all(|said| !said.out.contains(secret) && !said.err.contains(secret))
            );
            assert!(
                process
                    .iter()
                    .all(|text| !String::from_utf8_lossy(text).contains(secret))
            );
        }
        let home = it.person.path("");
        assert_eq!(holders(&home, &secrets[0]) + &holders(&home, &secrets[1]), "");
        assert_eq!(holders(&home, &secrets[2]).trim(), it.file.display().to_string());
    });
}

/// Each step is refused once. What is in the file works, and so does the mount.
#[test]
fn a_rotation_that_fails_leaves_a_working_key() {
    use axum::http::Method;
    for (step, rule, (old, keys), words) in [
        (
            "creation refused",
            Rule::always(Method::POST, "/api-keys", Fault::status(403)),
            (true, 1),
            "dashboard",
        ),
        (
            "creation lost",
            Rule::once(Method::POST, "/api-keys", Fault::DropAfterEffect),
            (true, 1),
            "removed again",
        ),
        (
            "creation never arrived",
            Rule::once(Method::POST, "/api-keys", Fault::DropConnection),
            (true, 1),
            "no key was made",
        ),
        (
            "the end of the old key",
            Rule::always(Method::DELETE, "/api-keys/", Fault::status(403)),
            (true, 2),
            "keymount keys revoke work key_",
        ),
    ] {
        let it = Account::new(Who::me());
        let laptop = it.key(OWNER, "laptop", &Scope::of_keys());
        it.configure(&laptop, Some("project"));
        it.person.mount("work", &["--attr-ttl", "0"]);
        it.person.sh("echo text > file").ok();
        it.server.faults().inject(rule);
        let said = it.person.keymount(["keys", "rotate", "work"]);
        it.server.faults().clear();
        assert!(said.code != Some(0) && said.err.contains(words), "{step}: {said:?}");
        let there = it.key_ids();
        assert_eq!(there.len(), keys, "{step}");
        assert_eq!(there.iter().any(|id| id == laptop.id()), old, "{step}");
        assert_eq!(it.person.sh("cat file && ls").ok(), "text\nfile\n", "{step}");
        it.person.keymount(["remote", "test", "work"]).ok();
        if keys == 2 {
            it.person
                .keymount(["keys", "revoke", "work", laptop.id(), "--yes"])
                .ok();
        }
        it.person.keymount(["keys", "rotate", "work"]).ok();
        assert_eq!(it.key_ids().len(), 1, "{step}");
        it.person.sh("cat file && echo more >> file").ok();
        it.person.unmount();
    }
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let it = Account::new(Who::me());
    let all = it.key(OWNER, "laptop", &Scope::of_keys());
    it.configure(&all, Some("project"));
    let keys = |arguments: &[&str]| it.person.keymount(["keys"].iter().chain(arguments));
    for (wrong, words) in [
        (&[][..], "--permission"),
        (&["--read", "project"], "--permission"),
        (&["--permission", "files:delete"], "no permission of this provider"),
        (&["--permission", "files:read", "--ttl", "1d"], "--ttl"),
    ] {
        let create = ["create", "work", "phone", "--print"];
        let every: Vec<&str> = create.iter().chain(wrong).copied().collect();
        keys(&every).fails(2, words);
    }
    assert_eq!(it.key_ids().len(), 1);
    let made = keys(&[
        "create",
        "work",
        "phone",
        "--permission",
        "files:read",
        "--permission",
        "workspaces:read",
        "--expires",
        "90d",
        "--print",
    ]);
    let secret = made.out.trim().to_owned();
    assert!(
        secret.starts_with("sk_live_") && !made.err.contains(&secret),
        "{made:?}"
    );
    assert!(made.err.contains("which may: files:read, workspaces:read"), "{made:?}");
    keys(&["create", "work", "phone", "--full-access", "--print"]).ok();
    let list = keys(&["list", "work"]).ok();
    assert!(
        list.contains("(in use here)") && list.matches("phone").count() == 2,
        "{list}"
    );
    keys(&["revoke", "work", "phone", "--yes"]).fails(1, "several keys are called");
    let json: serde_json::Value = serde_json::from_str(&keys(&["list", "work", "--json"]).ok()).unwrap();
    let phones: Vec<&serde_json::Value> = json["keys"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key["name"] == "phone")
        .collect();
    assert_eq!(
        phones[0]["permissions"],
        serde_json::json!(["files:read", "workspaces:read"])
    );
    keys(&["revoke", "work", phones[0]["id"].as_str().unwrap(), "--yes"]).ok();
    keys(&["revoke", "work", "phone", "--yes"]).ok();
    assert_eq!(it.key_ids(), [all.id()]);
    keys(&["revoke", "work", "laptop"]).fails(8, "the key that the remote work uses");
    assert_eq!(it.key_ids(), [all.id()]);

    let it = Account::with(
        Who::me(),
        Assumptions {
            key_management: KeyManagement::Forbidden,
            ..Assumptions::default()
        },
    );
    it.configure(&it.key(OWNER, "laptop", &Scope::of_keys()), Some("project"));
    it.person.keymount(["keys", "list", "work"]).fails(12, "dashboard");
    it.person
        .keymount(["keys", "rotate", "work"])
        .fails(2, "does not tell which key is in use");
}
