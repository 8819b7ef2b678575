//! Ordinary work on a mounted dStor account, with tokens that end while it goes on.

use std::cell::Cell;

use keymount::emulator::Running;
use keymount::emulator::dstor::{Account, Assumptions, DstorStore, Network, Processing};
use secrecy::ExposeSecret;
use tokio::runtime::Runtime;

use crate::s3_server::{self, BUCKET, KEY_ID, S3Server, SECRET_KEY};
use crate::sandbox::{Sandbox, Who, until};
use crate::webdav_server::{self, DavServer, PASSWORD, USER};

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
        self.person.configure(&self.remote(more, auth));
    }

    /// The remote's tables in a configuration.
    fn remote(&self, more: &str, auth: &str) -> String {
        format!(
            "[remotes.drive]\nprovider = \"dstor\"\nnetwork = \"testnet\"\nendpoint = \"{}\"\n{more}\n\
             [remotes.drive.auth]\n{auth}\n",
            self.server.url()
        )
    }

    /// Lets a person with a machine of their own share the tree through another remote.
    fn share_with(&self, person: &Sandbox, other: &str) {
        let key = person.file("work/key", self.account.add_key("shared").expose_secret(), 0o600);
        let index = "index = { remote = \"team\", path = \"key mount/drive.jsonl\" }";
        let auth = format!("method = \"temp-token\"\napi_key = {{ file = \"{}\" }}", key.display());
        person.configure(&format!("{}{other}", self.remote(index, &auth)));
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
    Who::each(|who| {
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
    });
}

/// Tokens live twelve seconds, and the next one is got four seconds before the end. The mount lives on, and no request
/// is refused on the way.
#[test]
fn tokens_are_renewed_while_the_mount_goes_on() {
    Who::each(|who| {
        let it = DstorAccount::new(who);
        it.configure("", "lifetime = \"12s\"");
        it.person.mount("drive", &[]);
        let credential = it.credential();
        assert_eq!(
            (&credential["method"], &credential["environment"]),
            (&"temp-token".into(), &"testnet".into())
        );
        let number = Cell::new(0);
        until("the third token", || {
            number.set(number.get() + 1);
            let number = number.get();
            it.person
                .sh(&format!("echo {number} > f{number} && sync f{number} && cat f{number}"))
                .says(&format!("{number}\n"));
            it.store.exchanges() >= 3
        });
        // It is kept on the disk before it is used.
        until("the third token in use", || it.credential()["state"] == "valid");
        it.person.sh("echo last > last && sync last && cat last").says("last\n");
        assert_eq!(it.refusals(), 0, "{:?}", it.server.requests());
        it.person.unmount();
    });
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
    Who::each(|who| {
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
    });
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

/// A content never changes: what was read once is asked for never again, whatever its file is called and wherever.
#[test]
fn what_was_read_once_is_never_asked_for_again() {
    let it = DstorAccount::new(Who::me());
    it.person.mount("drive", &["--attr-ttl", "0"]);
    it.person
        .sh("head -c 3000000 /dev/urandom > big && cp big twin && mkdir d && sync big twin")
        .ok();
    it.person.unmount();
    it.person.mount("drive", &["--attr-ttl", "0"]);
    it.person.sh("cat big > /dev/null").ok();
    it.server.forget_requests();
    it.person
        .sh("for i in 1 2 3; do cat big twin | cksum; done && mv big d/other && cat d/other > /dev/null && touch twin && cat twin > /dev/null")
        .ok();
    it.person.unmount();
    let asked: Vec<_> = it
        .server
        .requests()
        .into_iter()
        .filter(|request| request.target.contains("ipfs"))
        .collect();
    assert!(asked.is_empty(), "{asked:?}");
    it.person.mount("drive", &["--attr-ttl", "0"]);
    it.server.forget_requests();
    it.person.sh("cat d/other twin > /dev/null").ok();
    assert!(it.server.requests().is_empty(), "{:?}", it.server.requests());
    it.person.unmount();
}

#[test]
fn the_index_is_written_down_and_taken_in() {
    let it = DstorAccount::new(Who::me());
    it.person.mount("drive", &[]);
    it.person
        .sh("mkdir -p a/b && echo one > a/b/f && echo two > g && sync g a/b/f")
        .ok();
    let text = it.person.keymount(["index", "export", "drive"]).ok();
    assert!(
        text.starts_with("{\"index\":\"dstor\",\"version\":1}\n{\"path\":\"a\",\"kind\":\"directory\"}\n"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 5);
    let file = it.person.path("work/index.jsonl");
    let file = file.to_str().unwrap();
    it.person.keymount(["index", "export", "drive", file]).ok();
    assert_eq!(std::fs::read_to_string(file).unwrap(), text);
    // With the mount there: what is removed comes back with the list, and what is other stays.
    it.person
        .sh("rm a/b/f && echo other > g && sync g && echo new > h && sync h")
        .ok();
    let said = it.person.keymount(["index", "import", "drive", file]).ok();
    assert_eq!(said, "drive: 1 added, 1 other than in the list and kept\n");
    it.person.unmount();
    it.person.mount("drive", &[]);
    it.person.sh("cat a/b/f g h").says("one\nother\nnew\n");
    it.person.unmount();
    let said = it.person.keymount(["index", "import", "drive", file, "--replace"]).ok();
    assert_eq!(said, "drive: 1 replaced, 1 removed\n");
    assert_eq!(it.person.keymount(["index", "export", "drive"]).ok(), text);
    // One wrong line, and nothing is changed.
    let wrong = text.replace("\"hash\":\"Qm", "\"hash\":\"?");
    let said = it
        .person
        .keymount_reading(&wrong, ["index", "import", "drive", "-", "--replace"]);
    said.fails(3, "line 4: hash is not one");
    assert_eq!(it.person.keymount(["index", "export", "drive"]).ok(), text);
    // Another machine begins with it, and reads what is at dStor.
    let other = Sandbox::new(Who::me());
    let key = other.file("work/key", it.account.add_key("other").expose_secret(), 0o600);
    let auth = format!("method = \"temp-token\"\napi_key = {{ file = \"{}\" }}", key.display());
    other.configure(&it.remote("", &auth));
    let said = other.keymount_reading(&text, ["index", "import", "drive", "-"]).ok();
    assert_eq!(said, "drive: 4 added\n");
    other.mount("drive", &[]);
    other.sh("cat a/b/f g").says("one\ntwo\n");
    other.unmount();
    it.person
        .keymount(["index", "export", "drive:a"])
        .fails(2, "without a directory");
}

fn webdav_remote(person: &Sandbox, server: &DavServer) -> String {
    let file = person.file("work/password", PASSWORD, 0o600);
    format!(
        "[remotes.team]\nprovider = \"webdav\"\nendpoint = \"{}\"\n[remotes.team.auth]\nmethod = \"basic\"\n\
         username = \"{USER}\"\npassword = {{ file = \"{}\" }}\n",
        server.endpoint(),
        file.display()
    )
}

fn s3_remote(person: &Sandbox, server: &S3Server) -> String {
    let file = person.file("work/secret", SECRET_KEY, 0o600);
    format!(
        "[remotes.team]\nprovider = \"s3\"\nendpoint = \"{}\"\nbucket = \"{BUCKET}\"\n[remotes.team.auth]\n\
         method = \"static\"\naccess_key_id = \"{KEY_ID}\"\nsecret_access_key = {{ file = \"{}\" }}\n",
        server.endpoint(),
        file.display()
    )
}

/// Waits until both show the same names, and these many.
#[track_caller]
fn until_both_have(people: [&Sandbox; 2], count: usize) {
    until("both see the same", || {
        let [one, two] = people.map(|person| person.sh("find . | sort").ok());
        one == two && one.lines().count() == count + 1
    });
}

/// Two machines on one account: each sees what the other does, and of two changes at once none is lost, also when the
/// shared index was out of reach meanwhile.
#[test]
fn two_machines_share_a_tree_through_a_webdav_server() {
    let it = DstorAccount::new(Who::me());
    let mut dav = DavServer::start(webdav_server::Software::WsgiDav);
    let people = Who::everybody();
    let (one, two) = (&it.person, Sandbox::new(*people.last().unwrap()));
    for person in [one, &two] {
        it.share_with(person, &webdav_remote(person, &dav));
        person.mount("drive", &["--attr-ttl", "0", "--op-timeout", "15s"]);
    }
    one.sh("mkdir d && echo one > d/f").ok();
    until("the other sees the file", || two.sh("cat d/f").out == "one\n");
    two.sh("echo two > d/f && mv d e").ok();
    until("the other sees the change", || one.sh("cat e/f").out == "two\n");
    one.sh("test ! -e d && rm e/f && rmdir e").ok();
    until("the other sees the removal", || two.sh("ls").out.is_empty());
    dav.stop();
    one.sh("echo mine > report.txt && echo only > one").ok();
    two.sh("echo yours > report.txt && mkdir here && echo only > here/two")
        .ok();
    one.sh("cat report.txt").says("mine\n");
    dav.start_again();
    until_both_have([one, &two], 5);
    let both = one.sh("cat report*.txt | sort").ok();
    assert_eq!(both, "mine\nyours\n");
    assert_eq!(two.sh("cat report*.txt | sort").ok(), both);
    let said = one.sh("ls").ok();
    assert!(said.contains("report (conflict from "), "{said}");
    // What was done last is there when the mount is gone.
    two.sh("rm -r here").ok();
    two.unmount();
    until("the removal is seen", || !one.sh("ls").out.contains("here"));
    one.unmount();
    let text = one.keymount(["index", "export", "drive"]).ok();
    assert_eq!(text.lines().count(), 4, "{text}");
}

/// Both write at the same time, again and again.
#[test]
fn no_change_of_two_machines_is_lost_in_a_bucket() {
    let it = DstorAccount::new(Who::me());
    let bucket = S3Server::start(s3_server::Software::Moto);
    Runtime::new().unwrap().block_on(bucket.make_bucket());
    let (one, two) = (&it.person, Sandbox::new(Who::me()));
    for person in [one, &two] {
        it.share_with(person, &s3_remote(person, &bucket));
        person.mount_as_usual("drive", &["--attr-ttl", "0"]);
    }
    let script = |name: &str| format!("for i in $(seq 15); do echo $i > {name}$i && mkdir {name}d$i || exit 1; done");
    let (first, second) = (one.start(&script("a")), two.start(&script("b")));
    for running in [first, second] {
        running.wait().ok();
    }
    for person in [one, &two] {
        person.sh("sync -f .").ok();
    }
    until_both_have([one, &two], 60);
    let sum = "cat a? a?? b? b?? 2>/dev/null | sort | cksum";
    assert_eq!(one.sh(sum).out, two.sh(sum).out);
    for person in [one, &two] {
        person.unmount();
    }
    let exports = [one, &two].map(|person| person.keymount(["index", "export", "drive"]).ok());
    assert_eq!(exports[0], exports[1]);
    assert_eq!(exports[0].lines().count(), 61);
}

#[test]
fn a_place_where_changes_would_be_lost_is_refused() {
    let it = DstorAccount::new(Who::me());
    let dav = DavServer::start(webdav_server::Software::Rclone);
    it.share_with(&it.person, &webdav_remote(&it.person, &dav));
    let mnt = it.person.mount_point();
    let mount = ["mount".as_ref(), "drive".as_ref(), mnt.as_os_str()];
    it.person.keymount(mount).fails(1, "ignores conditions of writes");
    it.share_with(&it.person, "");
    it.person
        .keymount(mount)
        .fails(3, "remotes.drive.index.remote = \"team\" is not the name of a remote");
    it.share_with(
        &it.person,
        &it.remote("", "method = \"temp-token\"\napi_key = { stored = true }")
            .replace("drive", "team"),
    );
    it.person
        .keymount(mount)
        .fails(3, "can be shared through S3 and WebDAV");
}
