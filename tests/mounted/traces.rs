//! The whole life of a credential, from login to logout, and then a search for every secret that played a part in it: in
//! what commands printed, in what others can see of processes, and in every file.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::Method;
use jiff::SignedDuration;
use keymount::auth::oauth::{self as auth, OauthSpec};
use keymount::auth::renewing::{Exchange, Granted, Keeper};
use keymount::auth::{GivenSecrets, StoreSpec, StoredSecret};
use keymount::emulator::cloudsync::{
    Assumptions, CloudSyncStore, Consent, DeviceFlow, GrantKind, OauthClient, Plan, Refreshing, Revocation, Scope,
    Tokens, Workspace,
};
use keymount::emulator::dstor::{self, DstorStore, Network};
use keymount::emulator::storra::StorraStore;
use keymount::emulator::{Fault, Rule, Running};
use keymount::net::PlainHttp;
use keymount::provider::registry::cloudsync_server;
use reqwest::StatusCode;
use reqwest::header::LOCATION;
use secrecy::ExposeSecret;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::sandbox::{Running as Process, Said, Sandbox, Who, told_of, until};
use crate::secrets::holders;

const CLIENT_SECRET: &str = "canary-client-secret-61aa";
const PASSPHRASE: &str = "canary-correct-horse-07be";
const ADA: &str = "ada@example.com";

/// What was printed and shown.
#[derive(Default)]
struct Traces(String);

impl Traces {
    fn of(&mut self, said: Said) -> Said {
        self.0 += &said.out;
        self.0 += &said.err;
        said
    }

    #[track_caller]
    fn done<const N: usize>(&mut self, person: &Sandbox, arguments: [&str; N]) -> String {
        self.of(person.keymount(arguments)).ok()
    }

    /// Everything that tells something, whether it can or not.
    fn all_that_tells(&mut self, person: &Sandbox, remote: &str) {
        for arguments in [
            &["status"][..],
            &["status", "--json"],
            &["doctor"],
            &["keys", "list", remote],
            &["keys", "list", remote, "--json"],
            &["pending", "list"],
            &["remote", "list"],
            &["remote", "show", remote],
            &["remote", "test", remote],
        ] {
            self.of(person.keymount(arguments));
        }
        for daemon in person.daemons() {
            let socket = person.path(&format!("run/keymount/daemon-{daemon}.sock"));
            let mut curl = person.command("curl");
            curl.args(["-sS", "--fail", "--unix-socket"]).arg(socket);
            let metrics = curl.arg("http://localhost/metrics").output().unwrap();
            assert!(metrics.status.success(), "{metrics:?}");
            let text = String::from_utf8_lossy(&metrics.stdout).into_owned();
            assert!(text.contains("keymount_"), "{text}");
            self.0 += &text;
            for name in ["cmdline", "environ"] {
                self.0 += &String::from_utf8_lossy(&told_of(daemon, name));
            }
        }
    }

    /// No secret was printed or shown, and none is in a file but these.
    #[track_caller]
    fn hold_none_of(&self, person: &Sandbox, secrets: &[String], but: &[PathBuf]) {
        assert!(!secrets.is_empty());
        let but: Vec<String> = but.iter().map(|path| path.display().to_string()).collect();
        for secret in secrets {
            assert!(secret.len() >= 8, "{secret:?} proves nothing");
            assert!(!self.0.contains(secret.as_str()), "{secret} was shown: {}", self.0);
            let files = holders(&person.path(""), secret);
            let files: Vec<&str> = files
                .lines()
                .filter(|file| !but.iter().any(|but| but == file))
                .collect();
            assert_eq!(files, [""; 0], "{secret} is in files");
        }
    }
}

/// CloudSync with all that its documentation leaves open, and somebody who logs in there.
struct Sync {
    person: Sandbox,
    store: CloudSyncStore,
    _workspace: Workspace,
    api: Running,
    auth: Running,
    runtime: Runtime,
}

impl Sync {
    fn new(who: Who, passphrase: bool) -> Self {
        let store = CloudSyncStore::new(Assumptions {
            device: DeviceFlow::Offered {
                interval: SignedDuration::from_secs(1),
                lifetime: SignedDuration::from_mins(10),
            },
            revocation: Revocation::Offered,
            refreshing: Refreshing::Rotates,
            ..Assumptions::default()
        });
        store.add_user(ADA, Plan::unlimited());
        let workspace = store.add_workspace(ADA, "project").unwrap();
        for name in ["one", "two", "three", "four", "five"] {
            workspace.put(&format!("/{name}"), name).unwrap();
        }
        store.add_client(OauthClient::confidential("keymount", CLIENT_SECRET));
        store.set_consent(Consent::Allows(ADA.into()));
        let runtime = Runtime::new().unwrap();
        let api = runtime.block_on(store.serve_api()).unwrap();
        let auth = runtime.block_on(store.serve_auth()).unwrap();
        let mut person = Sandbox::new(who);
        person.variable("SYNC_CLIENT_SECRET", CLIENT_SECRET);
        let keeping = if passphrase {
            person.variable("STORE_WORDS", PASSPHRASE);
            "[store]\npassphrase = { env = \"STORE_WORDS\" }\n"
        } else {
            ""
        };
        person.configure(&format!(
            "[remotes.sync]\nprovider = \"cloudsync\"\nendpoint = \"{}v1\"\nauth_endpoint = \"{}\"\n\
             workspace = \"project\"\n[remotes.sync.auth]\nmethod = \"oauth\"\nclient_id = \"keymount\"\n\
             client_secret = {{ env = \"SYNC_CLIENT_SECRET\" }}\n{keeping}",
            api.url(),
            auth.url(),
        ));
        Self {
            person,
            store,
            _workspace: workspace,
            api,
            auth,
            runtime,
        }
    }

    /// A desktop whose opener writes down what it was started with.
    fn give_desktop(&mut self) {
        let folder = self.person.path("work");
        let folder = folder.display();
        self.person.file(
            "work/xdg-open",
            &format!(
                "#!/bin/sh\n(env; tr '\\0' '\\n' </proc/$PPID/cmdline; echo \"$@\") >'{folder}/given'\n\
                 echo \"$1\" >'{folder}/opening' && mv '{folder}/opening' '{folder}/opened'\n"
            ),
            0o755,
        );
        self.person.variable("PATH", &format!("{folder}:/usr/bin:/bin"));
        self.person.variable("DISPLAY", ":99");
    }

    fn begin_login(&self) -> (Process, String) {
        let mut login = self.person.start_keymount(["login", "sync", "--wait", "45s"]);
        let opened = self.person.path("work/opened");
        until("the browser's start or the login's end", || {
            opened.exists() || login.has_ended()
        });
        if !opened.exists() {
            panic!("no browser was started: {:?}", login.wait());
        }
        let address = std::fs::read_to_string(&opened).unwrap().trim().to_owned();
        std::fs::remove_file(opened).unwrap();
        (login, address)
    }

    /// Where a server sends a browser that asks for this address.
    fn sent_to(&self, address: &str) -> String {
        let answer = self.runtime.block_on(browser().get(address).send()).unwrap();
        assert!(answer.status().is_redirection(), "{answer:?}");
        answer.headers()[LOCATION].to_str().unwrap().to_owned()
    }

    fn page(&self, address: &str) -> (StatusCode, String) {
        self.runtime.block_on(async {
            let answer = browser().get(address).send().await.unwrap();
            (answer.status(), answer.text().await.unwrap())
        })
    }

    /// What a login of an hour ago left: the token is good for some more seconds, and due.
    fn keep_almost_ended(&self, tokens: &Tokens) {
        let state = self.person.path("state/keymount");
        std::fs::create_dir_all(&state).unwrap();
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
        let kept = StoredSecret {
            remote: "sync".into(),
            field: "grant".into(),
            store: StoreSpec::Files {
                folder: state.join("secrets"),
                passphrase: None,
            },
        };
        let spec = OauthSpec {
            server: cloudsync_server(Some(self.auth.url())).unwrap(),
            client_id: "keymount".into(),
            client_secret: None,
            scopes: None,
            kept: kept.clone(),
        };
        let granted = Granted {
            access: tokens.access().into(),
            life: Some(Duration::from_secs(3600)),
            refresh: tokens.refresh().map(Into::into),
            scopes: None,
        };
        let keeper = Keeper::new(kept, state.join("renew-sync.lock"));
        let client = auth::OauthClient::new(spec, PlainHttp::LoopbackOnly).unwrap();
        let asked = SystemTime::now() - Duration::from_secs(3560);
        let given = GivenSecrets::default();
        self.runtime.block_on(async {
            let basis = client.basis(&given).await.unwrap();
            let patience = Duration::from_secs(10);
            keeper.install(&granted, &basis, asked, &given, patience).await.unwrap();
        });
    }

    fn kept(&self) -> PathBuf {
        self.person.path("state/keymount/secrets/sync.grant.secret")
    }
}

/// A stored secret is text between bytes.
fn content(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned()
}

fn browser() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

#[test]
fn a_grant_leaves_no_trace() {
    Who::each_with(&[false, true], |who, passphrase| {
        let mut it = Sync::new(who, passphrase);
        it.give_desktop();
        let mut traces = Traces::default();

        let (login, door) = it.begin_login();
        let question = it.sent_to(&door);
        let answer = it.sent_to(&question);
        let (status, page) = it.page(&answer);
        assert_eq!(status, StatusCode::OK, "{page}");
        traces.0 += &page;
        let said = traces.of(login.wait()).ok();
        assert!(said.contains("access is granted"), "{said}");

        it.person.mount("sync", &["-vv", "--attr-ttl", "0"]);
        it.person
            .sh("cat one && echo new > new && ls -l && getfattr -d one")
            .ok();
        it.store.expire_access_tokens();
        it.person.sh("cat two && echo more > more").ok();
        traces.done(&it.person, ["refresh", "sync"]);
        let renewed = it.store.access_tokens().len();
        assert!(renewed >= 3, "{renewed} tokens: it was not renewed");
        traces.all_that_tells(&it.person, "sync");
        assert!(it.kept().exists());

        assert_eq!(it.store.revoke_grants_of(ADA), 1);
        it.person.sh("cat three").refused("Permission denied");
        traces.of(it.person.keymount(["refresh", "sync"]));
        traces.all_that_tells(&it.person, "sync");

        // On another device, beside the mount.
        let login = it.person.start_keymount(["login", "sync", "--device", "--wait", "60s"]);
        until("a device's question", || !it.store.device_requests().is_empty());
        let code = it.store.device_requests()[0].user_code.clone();
        assert!(it.store.approve_device(&code, ADA));
        let said = traces.of(login.wait()).ok();
        assert!(said.contains("credential valid"), "{said}");
        it.person.sh("cat four").ok();
        traces.all_that_tells(&it.person, "sync");

        let mut secrets = it.store.secrets();
        for kind in ["code_", "device_", "at_live_", "rt_live_"] {
            assert!(secrets.iter().any(|secret| secret.starts_with(kind)), "no {kind}");
        }
        let state = |address: &str| {
            let url = reqwest::Url::parse(address).unwrap();
            let pair = url.query_pairs().find(|(name, _)| name == "state");
            pair.unwrap().1.into_owned()
        };
        assert!(secrets.contains(&state(&question)));
        secrets.extend([CLIENT_SECRET.to_owned(), PASSPHRASE.to_owned()]);
        let held_by = holders(&it.person.path(""), "rt_live_");
        if passphrase {
            assert_eq!(held_by, "");
            traces.hold_none_of(&it.person, &secrets, &[]);
        } else {
            assert_eq!(held_by.trim(), it.kept().display().to_string());
            traces.hold_none_of(&it.person, &secrets, &[it.kept()]);
            let kept = content(&it.kept());
            let here = |kind: &str| {
                secrets
                    .iter()
                    .filter(|s| s.starts_with(kind) && kept.contains(s.as_str()))
                    .count()
            };
            assert_eq!((here("at_live_"), here("rt_live_")), (1, 1), "only the newest are kept");
            assert_eq!((here("code_"), here("device_")), (0, 0));
            assert_eq!(std::fs::metadata(it.kept()).unwrap().mode() & 0o7777, 0o600);
        }
        let said = traces.done(&it.person, ["logout", "sync"]);
        assert!(said.contains("revoked at CloudSync"), "{said}");
        traces.all_that_tells(&it.person, "sync");
        it.person.sh("cat five").refused("Permission denied");
        it.person.unmount();
        traces.hold_none_of(&it.person, &it.store.secrets(), &[]);
        traces.hold_none_of(&it.person, &secrets, &[]);
        let given = std::fs::read_to_string(it.person.path("work/given")).unwrap();
        assert!(given.contains(&door) && given.contains("PATH="), "{given}");
        drop((it.api, it.auth));
    });
}

/// The answer may bring another refresh token, and the old one is worth nothing then.
#[test]
fn a_command_ends_after_the_renewal_that_it_began() {
    let it = Sync::new(Who::me(), false);
    let scopes = [Scope::FilesRead, Scope::WorkspacesRead, Scope::OfflineAccess];
    let first = it.store.grant(ADA, "keymount", &scopes).unwrap();
    it.keep_almost_ended(&first);
    let answer = Arc::new(Notify::new());
    let held = Rule::always(Method::POST, "/oauth/token", Fault::Hold(Arc::clone(&answer)));
    it.auth.faults().inject(held);
    let mut list = it.person.start_keymount(["keys", "list", "sync", "--json"]);
    // All is printed, and the answer isn't there yet.
    list.wait_for("\"keys\"");
    until("a request for a token", || {
        it.auth
            .requests()
            .iter()
            .any(|request| request.target == "/oauth/token")
    });
    answer.notify_one();
    list.wait().ok();
    let refreshed = it.store.exchanges(GrantKind::RefreshToken);
    assert_eq!((refreshed.granted, refreshed.refused), (1, 0));
    let secrets = it.store.secrets();
    let kept = content(&it.kept());
    let kept: Vec<&String> = secrets.iter().filter(|secret| kept.contains(secret.as_str())).collect();
    assert_eq!(kept.len(), 2);
    assert!(
        kept.iter()
            .all(|secret| *secret != first.access() && Some(secret.as_str()) != first.refresh())
    );
}

/// Other users see what a browser is told to open. It leads them nowhere, and they cannot answer.
#[test]
fn other_users_can_neither_read_nor_answer_a_login() {
    let [me, other] = Who::everybody()[..] else {
        // Only root can be somebody else.
        return;
    };
    let mut it = Sync::new(other, false);
    it.give_desktop();
    let (login, door) = it.begin_login();
    let question = it.sent_to(&door);
    let answer = it.sent_to(&question);
    let stranger = Sandbox::new(Who::User {
        uid: 65_534,
        gid: 65_534,
    });
    for address in [&door, &answer] {
        let mut curl = stranger.command("curl");
        let said = curl.args(["-sS", "-i", "--noproxy", "*", address]).output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(text.starts_with("HTTP/1.1 403 "), "{text} {said:?}");
        assert!(
            !text.to_lowercase().contains("location:") && text.contains("somebody else"),
            "{text}"
        );
    }
    assert_eq!(me, Who::Root);
    let (status, page) = it.page(&answer);
    assert_eq!(status, StatusCode::OK, "{page}");
    login.wait().ok();
}

/// A key or a password in keymount's store, the tokens that it brings, and those that replaced them.
#[test]
fn what_brings_tokens_leaves_no_trace() {
    /// How every JSON Web Token begins that is signed as dStor's are.
    const TOKEN: &str = "eyJhbGciOiJIUzI1NiIs";
    Who::each_with(&[false, true], |who, passphrase| {
        let runtime = Runtime::new().unwrap();
        let store = DstorStore::new(
            Network::Testnet,
            dstor::Assumptions {
                processing: dstor::Processing { adding: 0, saving: 0 },
                ..dstor::Assumptions::default()
            },
        );
        let password = "canary-password-83c1";
        let account = store.add_account("me@example.org", password);
        let key = account.add_key("laptop").expose_secret().to_owned();
        let server = runtime.block_on(store.serve()).unwrap();
        let mut person = Sandbox::new(who);
        let keeping = if passphrase {
            person.variable("STORE_WORDS", PASSPHRASE);
            "[store]\npassphrase = { env = \"STORE_WORDS\" }\n"
        } else {
            ""
        };
        let secrets = [
            key.clone(),
            password.to_owned(),
            PASSPHRASE.to_owned(),
            TOKEN.to_owned(),
        ];
        for (auth, field, secret) in [
            ("method = \"temp-token\"\napi_key", "api_key", key.as_str()),
            (
                "method = \"login\"\nemail = \"me@example.org\"\npassword",
                "password",
                password,
            ),
        ] {
            let mut traces = Traces::default();
            person.configure(&format!(
                "[remotes.drive]\nprovider = \"dstor\"\nnetwork = \"testnet\"\nendpoint = \"{}\"\n\
                 [remotes.drive.auth]\n{auth} = {{ stored = true }}\n{keeping}",
                server.url()
            ));
            traces
                .of(person.keymount_reading(&format!("{secret}\n"), ["login", "drive"]))
                .ok();
            person.mount("drive", &["-vv"]);
            person.sh("echo new > new && cat new && ls -l").ok();
            let before = store.exchanges();
            account.expire_tokens();
            person.sh("echo more > more").ok();
            assert!(store.exchanges() > before, "it was not renewed");
            traces.done(&person, ["refresh", "drive"]);
            traces.all_that_tells(&person, "drive");
            let kept = |field: &str| person.path(&format!("state/keymount/secrets/drive.{field}.secret"));
            let allowed = [kept(field), kept("grant")];
            if passphrase {
                traces.hold_none_of(&person, &secrets, &[]);
            } else {
                traces.hold_none_of(&person, &secrets, &allowed);
                assert_eq!(
                    holders(&person.path(""), secret).trim(),
                    allowed[0].display().to_string()
                );
                assert_eq!(
                    holders(&person.path(""), TOKEN).trim(),
                    allowed[1].display().to_string()
                );
                for file in &allowed {
                    assert_eq!(std::fs::metadata(file).unwrap().mode() & 0o7777, 0o600);
                }
            }
            traces.done(&person, ["logout", "drive"]);
            traces.all_that_tells(&person, "drive");
            person.unmount();
            traces.hold_none_of(&person, &secrets, &[]);
        }
    });
}

/// Keys that are presented as they are, and the session that manages them.
#[test]
fn keys_and_sessions_leave_no_trace() {
    Who::each_with(&[false, true], |who, passphrase| {
        let runtime = Runtime::new().unwrap();
        let storra = StorraStore::default();
        storra.lift_limits();
        let account = storra.add_account(ADA);
        let storra_key = account.create_key("laptop");
        let cookie = account.open_session();
        let session = cookie
            .split("; ")
            .filter_map(|pair| Some(pair.split_once('=')?.1.to_owned()));
        let sync = CloudSyncStore::new(Assumptions::default());
        sync.add_user(ADA, Plan::unlimited());
        let workspace = sync.add_workspace(ADA, "project").unwrap();
        let sync_key = sync.create_key(ADA, "laptop", &Scope::of_keys()).unwrap();
        let storra_server = runtime.block_on(storra.serve()).unwrap();
        let sync_server = runtime.block_on(sync.serve_api()).unwrap();
        account.put("one", "one").unwrap();
        workspace.put("/one", "one").unwrap();
        let mut person = Sandbox::new(who);
        let keeping = if passphrase {
            person.variable("STORE_WORDS", PASSPHRASE);
            "[store]\npassphrase = { env = \"STORE_WORDS\" }\n"
        } else {
            ""
        };
        person.configure(&format!(
            "[remotes.cloud]\nprovider = \"storra\"\nendpoint = \"{}\"\n\
             [remotes.cloud.auth]\nmethod = \"api-key\"\nkey = {{ stored = true }}\n\
             [remotes.cloud.keys_auth]\nmethod = \"session\"\ncookie = {{ stored = true }}\n\
             [remotes.work]\nprovider = \"cloudsync\"\nendpoint = \"{}v1\"\nworkspace = \"project\"\n\
             [remotes.work.auth]\nmethod = \"api-key\"\nkey = {{ stored = true }}\n{keeping}",
            storra_server.url(),
            sync_server.url()
        ));
        let mut traces = Traces::default();
        let mut login = |secret: &str, arguments: &[&str]| {
            traces
                .of(person.keymount_reading(&format!("{secret}\n"), arguments))
                .ok();
        };
        login(&storra_key, &["login", "cloud"]);
        login(&cookie, &["login", "cloud", "--keys"]);
        login(sync_key.secret(), &["login", "work"]);
        let mut secrets: Vec<String> = session.collect();
        secrets.extend([storra_key.clone(), sync_key.secret().to_owned(), PASSPHRASE.to_owned()]);
        for remote in ["cloud", "work"] {
            person.mount(remote, &["-vv", "--attr-ttl", "0"]);
            person.sh("cat one && echo new > new && ls -l").ok();
            traces.all_that_tells(&person, remote);
            let rotated = traces.of(person.keymount(["keys", "rotate", remote]));
            assert_eq!(rotated.code, Some(0), "{rotated:?}");
            person.sh("cat new && echo newer > new").ok();
            let made = person.path(&format!("work/made-for-{remote}"));
            let write_to = made.display().to_string();
            let create = ["keys", "create", remote, "phone", "--write-to", &write_to];
            let more: &[&str] = if remote == "work" {
                &["--permission", "files:read"]
            } else {
                &[]
            };
            traces.of(person.keymount([&create[..], more].concat())).ok();
            secrets.push(std::fs::read_to_string(&made).unwrap().trim().to_owned());
            std::fs::remove_file(made).unwrap();
            if !passphrase {
                let kept = content(&person.path(&format!("state/keymount/secrets/{remote}.key.secret")));
                assert!(kept.contains("sk_"), "the new key is kept");
                let key: String = kept[kept.find("sk_").unwrap()..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                assert_ne!(key, sync_key.secret());
                assert_ne!(key, storra_key);
                secrets.push(key);
            }
            traces.all_that_tells(&person, remote);
            person.unmount();
        }
        let files = ["cloud.key", "cloud.keys_auth%2Ecookie", "work.key"];
        let kept = files.map(|name| person.path(&format!("state/keymount/secrets/{name}.secret")));
        let allowed: &[PathBuf] = if passphrase { &[] } else { &kept };
        traces.hold_none_of(&person, &secrets, allowed);
        for remote in ["cloud", "work"] {
            traces.done(&person, ["logout", remote]);
        }
        traces.hold_none_of(&person, &secrets, &[]);
    });
}
