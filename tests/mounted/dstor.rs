//! Ordinary work on a mounted dStor account, with tokens that end while it goes on.

use std::cell::Cell;

use keymount::emulator::Running;
use keymount::emulator::dstor::{Account, Assumptions, DstorStore, Network, Processing};
use secrecy::ExposeSecret;
use tokio::runtime::Runtime;

use crate::sandbox::{Sandbox, Who, until};

struct DstorAccount {
    person: Sandbox,
    store: DstorStore,
    account: Account,
    server: Running,
    /// The server's.
    _runtime: Runtime,
}

impl DstorAccount {
    fn new(who: Who) -> Self {
        let runtime = Runtime::new().unwrap();
        let assumptions = Assumptions {
            processing: Processing { adding: 0, saving: 0 },
            ..Assumptions::default()
        };
        let store = DstorStore::new(Network::Testnet, assumptions);
        let account = store.add_account("me@example.org", "correct horse");
        let server = runtime.block_on(store.serve()).unwrap();
        let it = Self {
            person: Sandbox::new(who),
            store,
            account,
            server,
            _runtime: runtime,
        };
        it.configure("", "");
        it
    }

    /// Writes the configuration with a key in a file: more lines for the remote and for its `auth`.
    fn configure(&self, more: &str, auth: &str) {
        let key = self.account.add_key("laptop");
        let file = self.person.file("work/key", key.expose_secret(), 0o600);
        let method = format!(
            "method = \"temp-token\"\napi_key = {{ file = \"{}\" }}\n{auth}",
            file.display()
        );
        self.configure_auth(more, &method);
    }

    fn configure_auth(&self, more: &str, auth: &str) {
        self.person.configure(&format!(
            "[remotes.drive]\nprovider = \"dstor\"\nnetwork = \"testnet\"\nendpoint = \"{}\"\n{more}\n\
             [remotes.drive.auth]\n{auth}\n",
            self.server.url()
        ));
    }

    fn credential(&self) -> serde_json::Value {
        let said = self.person.keymount(["status", "--json"]).ok();
        let status: serde_json::Value = serde_json::from_str(&said).unwrap();
        status["daemons"][0]["mounts"][0]["credential"].clone()
    }

    fn refusals(&self) -> usize {
        let requests = self.server.requests();
        requests.iter().filter(|request| request.status == Some(401)).count()
    }
}

#[test]
fn ordinary_tools_work_and_the_tree_is_there_again() {
    for who in Who::everybody() {
        let it = DstorAccount::new(who);
        it.person.mount("drive", &[]);
        assert_eq!(it.person.sh("stat -c %A .").ok().trim(), "drwxr-xr-x");
        let source = it.person.path("work/source");
        std::process::Command::new("cp")
            .arg("-r")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/model"))
            .arg(&source)
            .status()
            .unwrap();
        std::process::Command::new("chmod")
            .args(["-R", "a+rX"])
            .arg(&source)
            .status()
            .unwrap();
        let source = source.display();
        it.person
            .sh(&format!(
                "cp -r {source} here && diff -r {source} here && ls -lR | grep -q rights.rs"
            ))
            .ok();
        it.person
            .sh("dd if=/dev/urandom of=big bs=64k count=50 2>/dev/null && cp big copy && cmp big copy && sync big")
            .ok();
        it.person
            .sh("printf XY | dd of=big bs=1 seek=100000 conv=notrunc 2>/dev/null && ! cmp -s big copy")
            .ok();
        it.person
            .sh("mkdir -p a/b && mv here a/b/there && mv a/b/there/rights.rs 'r \"ü' && test -s 'r \"ü' && rm copy")
            .ok();
        it.person
            .sh("echo old > text && echo new > .text.swp && sync .text.swp && mv .text.swp text && touch -d 2005-05-05 text")
            .ok();
        it.person.sh("rmdir a").refused("Directory not empty");
        let before = it.person.sh("find . | sort && cat big a/b/there/* | sha256sum").ok();
        it.person.unmount();
        let uploads = it.account.files().len();
        it.person.mount("drive", &["--read-only", "--no-disk-cache"]);
        let after = it.person.sh("find . | sort && cat big a/b/there/* | sha256sum").ok();
        assert_eq!(after, before);
        it.person
            .sh("date -d @$(stat -c %Y text) +%Y && cat text")
            .says("2005\nnew\n");
        it.person.sh("rm text").refused("Read-only file system");
        assert_eq!(it.account.files().len(), uploads);
        it.person.unmount();
        let big = it.account.files().iter().filter(|file| file.path == "/big").count();
        assert!(
            big >= 1,
            "what was uploaded is in the portal's directory of the same path"
        );
        it.person.mount("drive:a/b", &[]);
        assert_eq!(it.person.sh("ls").ok(), "there\n");
        it.person.unmount();
    }
}

/// Tokens live three seconds; the mount lives on, and no request is refused on the way.
#[test]
fn tokens_are_renewed_while_the_mount_goes_on() {
    for who in Who::everybody() {
        let it = DstorAccount::new(who);
        it.configure("", "lifetime = \"3s\"");
        it.person.mount("drive", &[]);
        let credential = it.credential();
        assert_eq!(
            (&credential["method"], &credential["environment"]),
            (&"temp-token".into(), &"testnet".into())
        );
        let number = Cell::new(0);
        until("the fourth token", || {
            number.set(number.get() + 1);
            let number = number.get();
            it.person
                .sh(&format!("echo {number} > f{number} && sync f{number} && cat f{number}"))
                .says(&format!("{number}\n"));
            it.store.exchanges() >= 4
        });
        assert_eq!(it.refusals(), 0, "{:?}", it.server.requests());
        assert_eq!(it.credential()["state"], "valid");
        it.person.unmount();
    }
}

#[test]
fn a_token_is_shared_by_all_processes_and_replaced_when_it_is_refused() {
    let it = DstorAccount::new(Who::me());
    it.person.mount("drive", &[]);
    it.person.unmount();
    it.person.mount("drive", &[]);
    assert_eq!(it.store.exchanges(), 1, "the token that is kept is good for a year");
    it.account.expire_tokens();
    it.person.sh("echo x > f && sync f").ok();
    assert_eq!(it.store.exchanges(), 2);
    it.person.unmount();
}

/// A key of somebody else, or of the other network, is told at once; `login` keeps a good one and heals the mount.
#[test]
fn login_keeps_a_key_and_heals_the_mount() {
    for who in Who::everybody() {
        let it = DstorAccount::new(who);
        it.configure_auth("", "method = \"temp-token\"\napi_key = { stored = true }");
        let mnt = it.person.mount_point();
        let mount = ["mount".as_ref(), "drive".as_ref(), mnt.as_os_str()];
        it.person.keymount(mount).fails(4, "keymount login drive");
        let login = |key: &str| it.person.keymount_reading(&format!("{key}\n"), ["login", "drive"]);
        login(&"canary00".repeat(8)).fails(4, "testnet network does not accept the API key");
        login("short").fails(4, "64 letters and digits");
        let said = login(it.account.add_key("first").expose_secret()).ok();
        assert!(said.contains("good, rights rwd"), "{said}");
        it.person.mount("drive", &[]);
        it.person.sh("echo text > f && sync f").ok();
        it.account.revoke_key("first");
        it.account.expire_tokens();
        it.person.sh("echo more > g && sync g").refused("Permission denied");
        assert_eq!(it.credential()["state"], "needs-login");
        assert_eq!(it.person.sh("cat f").ok(), "text\n");
        login(it.account.add_key("second").expose_secret()).ok();
        it.person.sh("sync g").ok();
        assert_eq!(it.account.read("/g").unwrap(), "more\n");
        assert_eq!(it.credential()["state"], "valid");
        // The key and the token that was got with it.
        let kept = || {
            std::fs::read_dir(it.person.path("state/keymount/secrets"))
                .unwrap()
                .flatten()
        };
        let secrets = || {
            kept()
                .filter(|file| file.file_name().to_string_lossy().ends_with(".secret"))
                .count()
        };
        assert_eq!(secrets(), 2);
        it.person.keymount(["logout", "drive"]).ok();
        assert_eq!(secrets(), 0);
        assert_eq!(it.credential()["state"], "needs-login");
        it.person.unmount();
    }
}

#[test]
fn a_password_works_and_removing_can_be_forbidden() {
    let it = DstorAccount::new(Who::me());
    let password = it.person.file("work/password", "correct horse\n", 0o600);
    it.configure_auth(
        "on_unlink = \"deny\"",
        &format!(
            "method = \"login\"\nemail = \"me@example.org\"\npassword = {{ file = \"{}\" }}",
            password.display()
        ),
    );
    it.person.mount("drive", &[]);
    assert_eq!(it.credential()["method"], "login");
    assert_eq!(it.person.sh("stat -c %A .").ok().trim(), "drwxr-xr-t");
    it.person.sh("echo x > f && echo y > f && sync f").ok();
    it.person.sh("rm f").refused("Permission denied");
    it.person.unmount();
    let said = it.person.keymount(["remote", "test", "drive"]).ok();
    assert!(said.contains("rw"), "{said}");
}
