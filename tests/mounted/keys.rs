//! Keys through the program: made, listed and revoked, and replaced under a mount that is in use, whatever fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keymount::auth::{GivenSecrets, StoreSpec, StoredSecret};
use keymount::emulator::reductstore::{Auth, Options, Permissions, ROOT_TOKEN, ReductStore, TokenApi};
use keymount::emulator::{Fault, Rule, Running};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::sandbox::{Said, Sandbox, Who, told_of};
use crate::secrets::holders;
use crate::server::{ReductServer, TOKEN};

const ROOT: &str = "root-of-the-stand-in";

/// Writes the configuration of the remote `store`: its token's source, and a source for keys.
fn configure(person: &Sandbox, endpoint: &str, source: &str, keys: Option<&str>) {
    let keys = keys.map_or_else(String::new, |source| {
        format!("[remotes.store.keys_auth]\nmethod = \"token\"\ntoken = {source}\n")
    });
    person.configure(&format!(
        "[remotes.store]\nprovider = \"reductstore\"\nendpoint = \"{endpoint}\"\nbucket = \"data\"\n\
         [remotes.store.auth]\nmethod = \"token\"\ntoken = {source}\n{keys}"
    ));
}

fn file_source(path: &Path) -> String {
    format!("{{ file = \"{}\" }}", path.display())
}

/// A stand-in with the bucket `data` and the key `laptop` for it, and somebody who has that configured in a file.
struct StandIn {
    person: Sandbox,
    store: ReductStore,
    server: Running,
    runtime: Runtime,
    token: PathBuf,
    manager: PathBuf,
}

impl StandIn {
    fn new(who: Who, token_api: TokenApi) -> Self {
        let store = ReductStore::new(Options {
            auth: Auth::Token(ROOT.into()),
            token_api,
            ..Options::default()
        });
        assert!(store.create_bucket("data"));
        let laptop = store
            .create_token("laptop", Permissions::buckets(&["data"], &["data"]))
            .unwrap();
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(store.serve()).unwrap();
        let person = Sandbox::new(who);
        let token = person.file("work/token", &laptop, 0o600);
        let manager = person.file("work/manager", ROOT, 0o600);
        let it = Self {
            person,
            store,
            server,
            runtime,
            token,
            manager,
        };
        it.configure(&file_source(&it.token));
        it
    }

    fn configure(&self, source: &str) {
        let manager = file_source(&self.manager);
        configure(&self.person, self.server.url().as_str(), source, Some(&manager));
    }

    fn secret(&self) -> String {
        std::fs::read_to_string(&self.token).unwrap().trim().to_owned()
    }

    fn keys(&self) -> Vec<String> {
        let names = self.store.token_names();
        names.into_iter().filter(|name| name != ROOT_TOKEN).collect()
    }

    fn posts(&self) -> usize {
        let requests = self.server.requests();
        requests.iter().filter(|request| request.method == "POST").count()
    }

    /// A fault for the matching requests from the n-th on, counted from 1.
    fn fail_from(&self, n: usize, method: &'static str, part: &'static str, fault: Fault) {
        let seen = AtomicUsize::new(0);
        let when = move |got: &axum::http::Method, target: &str| {
            *got == method && target.contains(part) && seen.fetch_add(1, Ordering::Relaxed) + 1 >= n
        };
        self.server.faults().inject(Rule::when(usize::MAX, when, fault));
    }

    fn rotate(&self) -> Said {
        self.person.keymount(["keys", "rotate", "store"])
    }
}

/// The name that `status --json` tells of the mount's key.
fn key_in_status(person: &Sandbox) -> String {
    let json = person.keymount(["status", "--json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    let key = &status["daemons"][0]["mounts"][0]["credential"]["key"]["name"];
    key.as_str().unwrap_or_default().to_owned()
}

/// Asks the real server with some token; gives the status.
fn asked(server: &ReductServer, token: &str, path: &str) -> String {
    let header = format!("Authorization: Bearer {token}");
    let url = server.url(path);
    let output = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header, &url])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The real server: a key is replaced twice under a reader and writer that never see it. No secret is anywhere but in the
/// file, and the old ones are worth nothing.
#[test]
fn a_key_is_replaced_under_a_mount_in_use() {
    Who::each(|who| {
        let server = ReductServer::start(&[]);
        let person = Sandbox::new(who);
        let manager = person.file("work/manager", TOKEN, 0o600);
        let token = person.path("work/token");
        configure(&person, &server.endpoint(), &file_source(&manager), None);
        let shown = token.display().to_string();
        let create = ["keys", "create", "store", "laptop", "--read", "data", "--write", "data"];
        let limits = ["--expires", "90d", "--ttl", "12h", "--write-to", &shown];
        let mut said = vec![person.keymount(create.iter().chain(&limits))];
        let status = Command::new("curl")
            .args(["-sf", "-X", "POST", "-d", "{}", "-H"])
            .arg(format!("Authorization: Bearer {TOKEN}"))
            .arg(server.url("b/data"))
            .status();
        assert!(status.unwrap().success());

        let keys = file_source(&manager);
        configure(&person, &server.endpoint(), &file_source(&token), Some(&keys));
        person.mount("store", &["--attr-ttl", "0", "-vv"]);
        person.sh("echo constant > file").ok();
        said.push(person.keymount(["status"]));
        let status = said[1].out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(status.contains("token laptop, valid for"), "{status}");
        assert!(status.contains("ends after 12 hours without use"), "{status}");
        let json = person.keymount(["status", "--json"]).ok();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let credential = &json["daemons"][0]["mounts"][0]["credential"];
        assert!(credential["until"].as_u64().is_some() && credential["key"]["idle_limit"] == 43_200);

        let stop = person.path("work/stop");
        let reader = person.start(&format!(
            "n=0; echo start; until test -e {}; do n=$((n+1)); test \"$(cat file)\" = constant || echo failed; \
             ls > /dev/null || echo failed; echo $n > new-$n && test \"$(cat new-$n)\" = $n && rm new-$n || echo failed; \
             done; echo end $n",
            stop.display()
        ));
        let mut secrets = Vec::new();
        let mut names = vec!["laptop".to_owned()];
        for _ in 0..2 {
            secrets.push(std::fs::read_to_string(&token).unwrap().trim().to_owned());
            said.push(person.keymount(["keys", "rotate", "store"]));
            assert_eq!(said.last().unwrap().code, Some(0), "{:?}", said.last());
            names.push(key_in_status(&person));
        }
        person.file("work/stop", "", 0o644);
        let reader = reader.wait();
        assert!(
            reader.out.contains("end ") && !reader.out.contains("failed"),
            "{reader:?}"
        );
        assert!(names.iter().all(|name| name.starts_with("laptop")), "{names:?}");
        assert!(names[1] != names[0] && names[2] != names[1], "{names:?}");
        for (secret, name) in secrets.iter().zip(&names) {
            assert_eq!(asked(&server, secret, "info"), "401", "{name} is revoked");
            assert_eq!(asked(&server, TOKEN, &format!("tokens/{name}")), "404");
        }
        secrets.push(std::fs::read_to_string(&token).unwrap().trim().to_owned());
        assert_eq!(asked(&server, &secrets[2], "b/data"), "200");
        assert_eq!(
            std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&token).unwrap()) & 0o7777,
            0o600
        );

        for arguments in [
            &["keys", "list", "store"][..],
            &["keys", "list", "store", "--json"],
            &["status"],
            &["status", "--json"],
            &["doctor"],
        ] {
            said.push(person.keymount(arguments));
        }
        let list = &said[said.len() - 5].out;
        assert!(list.contains(&format!("{} (in use here)", names[2])), "{list}");
        let daemon = person.daemons()[0];
        let process = ["cmdline", "environ"].map(|name| told_of(daemon, name));
        person.unmount();
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
        let home = person.path("");
        assert_eq!(holders(&home, &secrets[0]) + &holders(&home, &secrets[1]), "");
        assert_eq!(holders(&home, &secrets[2]).trim(), shown);
    });
}

/// Each step is refused once. What is in the file works, the mount works, and the sentence says what is left to do.
#[test]
fn a_rotation_that_fails_leaves_a_working_key() {
    // The step, which keys there are afterwards (old, new), and what is said.
    type Break = fn(&StandIn);
    let steps: [(&str, Break, (bool, bool), &str); 7] = [
        (
            "creation refused",
            |it| it.fail_from(1, "POST", "/tokens/", Fault::status(403)),
            (true, false),
            "full access",
        ),
        (
            "creation lost",
            |it| it.fail_from(1, "POST", "/tokens/", Fault::DropAfterEffect),
            (true, false),
            "removed again",
        ),
        (
            "creation never arrived",
            |it| it.fail_from(1, "POST", "/tokens/", Fault::DropConnection),
            (true, false),
            "no key was made",
        ),
        (
            "the look at the new key",
            |it| it.fail_from(2, "GET", "/tokens/laptop-", Fault::status(403)),
            (true, false),
            "full access",
        ),
        (
            "the proof",
            |it| it.fail_from(2, "GET", "/me", Fault::Garbage),
            (true, false),
            "does not work",
        ),
        (
            "the mount's refresh",
            |it| it.fail_from(3, "GET", "/me", Fault::Garbage),
            (true, true),
            "keymount keys revoke store laptop",
        ),
        (
            "the end of the old key",
            |it| it.fail_from(1, "DELETE", "/tokens/laptop", Fault::status(403)),
            (true, true),
            "keymount keys revoke store laptop",
        ),
    ];
    for (step, break_it, (old, new), words) in steps {
        let it = StandIn::new(Who::me(), TokenApi::Current);
        it.person.mount("store", &["--attr-ttl", "0"]);
        it.person.sh("echo text > file").ok();
        let before = it.secret();
        break_it(&it);
        let said = it.rotate();
        it.server.faults().clear();
        assert!(said.code != Some(0) && said.err.contains(words), "{step}: {said:?}");
        let keys = it.keys();
        assert_eq!(keys.contains(&"laptop".to_owned()), old, "{step}: {keys:?}");
        assert_eq!(
            keys.iter().any(|name| name.starts_with("laptop-")),
            new,
            "{step}: {keys:?}"
        );
        assert_eq!(it.secret() != before, new, "{step}: the file has the key that is there");
        assert_eq!(it.person.sh("cat file && ls").ok(), "text\nfile\n", "{step}");
        it.person.keymount(["remote", "test", "store"]).ok();
        if new {
            it.person.keymount(["refresh", "store"]).ok();
            it.person.keymount(["keys", "revoke", "store", "laptop", "--yes"]).ok();
        }
        it.rotate().ok();
        assert_eq!(it.keys().len(), 1, "{step}: {:?}", it.keys());
        it.person.sh("cat file && echo more >> file").ok();
        it.person.unmount();
    }
}

/// A lost answer to the last step is no failure: the old key is gone, as was wanted.
#[test]
fn the_last_answer_may_get_lost() {
    let it = StandIn::new(Who::me(), TokenApi::Current);
    let lost = Rule::once(axum::http::Method::DELETE, "/tokens/laptop", Fault::DropAfterEffect);
    it.server.faults().inject(lost);
    it.rotate().ok();
    assert_eq!(it.keys().len(), 1);
}

/// SIGKILL while each request is on its way.
#[test]
fn a_rotation_that_is_killed_leaves_a_working_key() {
    for (method, part, nth) in [
        ("POST", "/tokens/laptop-", 1),
        ("GET", "/tokens/laptop-", 2),
        ("GET", "/me", 2),
        ("GET", "/me", 3),
        ("DELETE", "/tokens/laptop", 1),
    ] {
        let it = StandIn::new(Who::me(), TokenApi::Current);
        it.person.mount("store", &["--attr-ttl", "0"]);
        it.person.sh("echo text > file").ok();
        it.server.forget_requests();
        it.fail_from(nth, method, part, Fault::Hold(Arc::new(Notify::new())));
        let rotation = it.person.start_keymount(["keys", "rotate", "store"]);
        it.runtime.block_on(it.server.wait_until(|requests| {
            let matching = requests
                .iter()
                .filter(|request| request.method == method && request.target.contains(part));
            matching.count() >= nth
        }));
        rotation.signal("KILL");
        let said = rotation.wait();
        it.server.faults().clear();
        assert_eq!(said.code, None);
        assert!(
            said.err
                .contains("should this be interrupted, remove it with: keymount keys revoke store laptop-"),
            "{method} {part}: {said:?}"
        );
        it.person.keymount(["remote", "test", "store"]).ok();
        assert_eq!(it.person.sh("cat file").ok(), "text\n", "{method} {part}");
        it.rotate().ok();
        it.person.sh("cat file && echo more >> file").ok();
        it.person.unmount();
        let hidden = std::fs::read_dir(it.person.path("work")).unwrap().flatten();
        let left = hidden.filter(|entry| entry.file_name().to_string_lossy().starts_with(".keymount"));
        let secrets = left.map(|entry| std::fs::read_to_string(entry.path()).unwrap());
        assert!(
            secrets.into_iter().all(|text| text.is_empty()),
            "no secret is left beside the file"
        );
    }
}

/// Whoever cannot end well isn't begun.
#[test]
fn what_cannot_be_rotated_is_refused_before_anything_is_made() {
    let mut it = StandIn::new(Who::me(), TokenApi::Current);
    let elsewhere = it.person.path("work/elsewhere").display().to_string();
    it.person
        .keymount(["keys", "rotate", "store", "--write-to", &elsewhere])
        .fails(2, "leave --write-to away");
    it.person
        .keymount(["keys", "rotate", "store", "--key", "other"])
        .fails(2, "not with other");
    it.configure("{ command = [\"cat\", \"/nowhere\"] }");
    it.rotate().fails(2, "--write-to FILE");
    it.person.variable("STORE_TOKEN", &it.secret());
    it.configure("{ env = \"STORE_TOKEN\" }");
    it.rotate().fails(2, "--write-to FILE");
    it.person
        .keymount(["keys", "rotate", "store", "--write-to", "/nowhere/token"])
        .fails(11, "nothing was made");
    it.configure(&file_source(&it.manager));
    it.rotate().fails(2, "the server's settings");

    configure(&it.person, it.server.url().as_str(), &file_source(&it.token), None);
    it.rotate().fails(12, "[remotes.store.keys_auth]");
    it.person
        .keymount(["keys", "list", "store"])
        .fails(12, "[remotes.store.keys_auth]");
    assert_eq!((it.posts(), it.keys()), (0, vec!["laptop".to_owned()]));
}

/// A variable: the daemons get the new value, and the person is told to. A command that reads the file is believed, another
/// one keeps the old key alive. keymount's own store is written by itself.
#[test]
fn other_sources_are_switched_as_far_as_they_can_be() {
    let mut it = StandIn::new(Who::me(), TokenApi::Current);
    let copy = it.person.path("work/copy").display().to_string();
    let write_to = ["keys", "rotate", "store", "--write-to", &copy];
    it.person.variable("STORE_TOKEN", &it.secret());
    it.configure("{ env = \"STORE_TOKEN\" }");
    it.person.mount("store", &["--attr-ttl", "0"]);
    let said = it.person.keymount(write_to).ok();
    assert!(said.contains("export STORE_TOKEN=\"$(cat "), "{said}");
    assert_eq!(it.keys().len(), 1);
    it.person.sh("echo text > file && cat file").ok();
    it.person.unmount();

    it.configure(&format!("{{ command = [\"cat\", \"{copy}\"] }}"));
    it.person.mount("store", &["--attr-ttl", "0"]);
    it.person.keymount(write_to).ok();
    assert_eq!(it.keys().len(), 1);
    it.person.sh("cat file").ok();
    it.person.unmount();

    let frozen = it
        .person
        .file("work/frozen", &std::fs::read_to_string(&copy).unwrap(), 0o600);
    it.configure(&format!("{{ command = [\"cat\", \"{}\"] }}", frozen.display()));
    it.person.mount("store", &["--attr-ttl", "0"]);
    let said = it.person.keymount(write_to);
    assert!(said.code == Some(1) && said.err.contains("was not revoked"), "{said:?}");
    assert_eq!(it.keys().len(), 2);
    it.person.sh("cat file").ok();
    it.person.unmount();

    let stored = StoredSecret {
        remote: "store".into(),
        field: "token".into(),
        store: StoreSpec::Files {
            folder: it.person.path("state/keymount/secrets"),
            passphrase: None,
        },
    };
    let none = GivenSecrets::default();
    let secret = std::fs::read_to_string(&copy).unwrap().trim().into();
    let put = stored.put(&secret, &none);
    it.runtime.block_on(put).unwrap();
    it.configure("{ stored = true }");
    it.person.mount("store", &["--attr-ttl", "0"]);
    let used = key_in_status(&it.person);
    it.rotate().ok();
    assert!(!it.keys().contains(&used) && it.keys().contains(&key_in_status(&it.person)));
    it.person.sh("cat file").ok();
    it.person.unmount();
    it.person.mount("store", &[]);
    it.person.unmount();
}

/// Servers of the first versions don't tell which key is in use.
#[test]
fn the_first_servers_keys_are_replaced_too() {
    let it = StandIn::new(Who::me(), TokenApi::First);
    it.person.mount("store", &["--attr-ttl", "0"]);
    it.rotate().fails(2, "--key NAME");
    assert_eq!(it.posts(), 0);
    it.person.keymount(["keys", "rotate", "store", "--key", "laptop"]).ok();
    assert!(
        it.keys().len() == 1 && it.keys()[0].starts_with("laptop-"),
        "{:?}",
        it.keys()
    );
    it.person.sh("echo text > file && cat file").ok();
    let list = it.person.keymount(["keys", "list", "store"]).ok();
    assert!(list.contains("read data; write data"), "{list}");
    let name = it.keys()[0].clone();
    it.person
        .keymount(["keys", "revoke", "store", &name])
        .fails(8, "cannot be told whether");
    it.person.unmount();
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let it = StandIn::new(Who::me(), TokenApi::Current);
    let person = &it.person;
    let keys = |arguments: &[&str]| person.keymount(["keys"].iter().chain(arguments));
    keys(&["create", "store", "k", "--read", "data"]).fails(2, "--write-to FILE");
    assert_eq!(
        keys(&["create", "store", "k", "--print"]).code,
        Some(2),
        "rights are needed"
    );
    for wrong in [
        &["--expires", "soon"][..],
        &["--ttl", "0d"],
        &["--expires", "2001-01-01"],
    ] {
        let create = ["create", "store", "k", "--full-access", "--print"];
        let all: Vec<&str> = create.iter().chain(wrong).copied().collect();
        assert_eq!(keys(&all).code, Some(2), "{wrong:?}");
    }
    assert_eq!(it.posts(), 0);

    let made = keys(&[
        "create", "store", "phone", "--read", "data", "--write", "logs-*", "--print",
    ]);
    let secret = made.out.trim().to_owned();
    assert!(secret.starts_with("phone-") && !made.err.contains(&secret), "{made:?}");
    assert!(made.err.contains("read data; write logs-*"), "{made:?}");
    let file = person.path("work/key").display().to_string();
    let create = [
        "create",
        "store",
        "pad",
        "--full-access",
        "--expires",
        "2999-01-31",
        "--write-to",
        &file,
    ];
    let made = keys(&create);
    let secret = std::fs::read_to_string(&file).unwrap();
    assert!(!made.err.contains(secret.trim()) && made.out.is_empty(), "{made:?}");
    keys(&create).fails(1, "exists");
    keys(&["create", "store", "pad", "--full-access", "--print"]).fails(1, "already exists");

    let list = keys(&["list", "store"]).ok();
    for part in [
        "laptop (in use here)",
        "phone",
        "full access",
        "2999-01-31",
        "(from the server's settings)",
    ] {
        assert!(list.contains(part), "{part:?} is missing in {list}");
    }
    let json: serde_json::Value = serde_json::from_str(&keys(&["list", "store", "--json"]).ok()).unwrap();
    let names: Vec<_> = json["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["name"])
        .collect();
    assert_eq!(names, [ROOT_TOKEN, "laptop", "pad", "phone"]);
    assert_eq!(json["keys"][1]["in_use"], true);
    assert_eq!(json["keys"][3]["write"][0], "logs-*");

    keys(&["revoke", "store", "phone"]).fails(2, "say --yes");
    keys(&["revoke", "store", "laptop"]).fails(8, "the remote store uses");
    keys(&["revoke", "store", ROOT_TOKEN]).fails(8, "manages the keys");
    keys(&["revoke", "store", "none"]).fails(11, "doesn't exist");
    keys(&["revoke", "store", "phone", "--yes"]).ok();
    keys(&["revoke", "store", ROOT_TOKEN, "--yes"]).fails(1, "provisioned");
    person.mount("store", &[]);
    keys(&["revoke", "store", "laptop"]).fails(8, "is mounted with the key laptop");
    keys(&["revoke", "store", "laptop", "--yes"]).ok();
    person.unmount();
    assert_eq!(it.keys(), ["pad"]);
    assert_eq!(
        keys(&["list", "cludz://3f0c1f6e-9d2b-4a57-8c64-0e5b7a1d2c3f"]).code,
        Some(1)
    );
}
