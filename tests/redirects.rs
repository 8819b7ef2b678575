//! A redirect takes no credential along: what other servers received is looked at byte by byte.
//!
//! The real program talks to servers that send requests elsewhere, over http and over TLS. What a token is got with is
//! never sent after a redirect at all.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use keymount::auth::oauth::{OauthClient, OauthSpec};
use keymount::auth::renewing::{Exchange, Granted, Keeper};
use keymount::auth::{GivenSecrets, SecretSource, StoreSpec, StoredSecret};
use keymount::net::PlainHttp;
use keymount::provider::registry::cloudsync_server;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

const CANARY: &str = "canary-5d0e8a91";
const DRIVE: &str = "3f0c1f6e-9d2b-4a57-8c64-0e5b7a1d2c3f";
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Also this machine, and another host as far as an address tells.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What a server says to a request, given as it came.
type Answers = dyn Fn(&str) -> String + Send + Sync;

/// A server that keeps what it received.
struct Server {
    address: SocketAddr,
    received: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves as long as the test runs.
    fn start(host: Ipv4Addr, tls: Option<Arc<ServerConfig>>, answer: String) -> Self {
        Self::answering(host, tls, move |_| answer.clone())
    }

    fn answering(
        host: Ipv4Addr,
        tls: Option<Arc<ServerConfig>>,
        answers: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let outcome = match &tls {
                    None => serve(stream, &log, &answers),
                    Some(config) => {
                        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                        serve(StreamOwned::new(connection, stream), &log, &answers)
                    }
                };
                // A client that goes away early has its reasons; what it sent is in the log.
                drop(outcome);
            }
        });
        Self { address, received }
    }

    fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }
}

fn serve(mut stream: impl Read + Write, log: &Mutex<Vec<String>>, answers: &Answers) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&bytes) {
        match stream.read(&mut buffer)? {
            0 => break,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    let request = String::from_utf8_lossy(&bytes).into_owned();
    let answer = answers(&request);
    log.lock().unwrap().push(request);
    stream.write_all(answer.as_bytes())?;
    stream.flush()
}

/// Whether a request is there with its body.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn redirect(scheme: &str, to: SocketAddr) -> String {
    redirect_as("307 Temporary Redirect", scheme, to)
}

fn redirect_as(status: &str, scheme: &str, to: SocketAddr) -> String {
    format!("HTTP/1.1 {status}\r\nLocation: {scheme}://{to}/caught/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// A token for whoever asks for one, and the redirect for everything else.
fn token_then(redirect: String) -> impl Fn(&str) -> String + Send + Sync {
    move |request| {
        if !request.contains("/temp-token") {
            return redirect.clone();
        }
        let body = format!("{{\"access_token\":\"{CANARY}-access\"}}");
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

fn nothing_here() -> String {
    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
}

/// A certificate for this machine, signed by nobody but itself, and where it can be read.
fn tls(folder: &Path) -> (Arc<ServerConfig>, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed([HERE.to_string(), ELSEWHERE.to_string()]).unwrap();
    let path = folder.join("authority.pem");
    std::fs::write(&path, made.cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    (Arc::new(config), path)
}

/// A remote and the command that sends its credential.
struct Case {
    remote: String,
    secret: String,
    command: &'static [&'static str],
}

/// The ways in which a credential travels to a provider's API.
fn cases(endpoint: &str) -> Vec<Case> {
    const SOURCE: &str = "{ env = \"REDIRECT_TEST_SECRET\" }";
    let case = |provider: &str, auth: &str| Case {
        remote: format!(
            "[remotes.x]\nprovider = {provider}\nendpoint = \"{endpoint}\"\n[remotes.x.auth]\nmethod = {auth} = {SOURCE}\n"
        ),
        secret: CANARY.to_owned(),
        command: &["remote", "test", "x"],
    };
    let cludz = format!("\"cludz\"\nstorage = \"{DRIVE}\"");
    vec![
        case(&cludz, "\"token\"\ntoken"),
        case(&cludz, "\"token\"\nsend = \"query\"\ntoken"),
        case("\"reductstore\"", "\"token\"\ntoken"),
        case("\"cloudsync\"", "\"api-key\"\nkey"),
        case("\"cloudsync\"", "\"access-token\"\ntoken"),
        case("\"webdav\"", "\"bearer\"\ntoken"),
        case(
            "\"s3\"\nbucket = \"b\"",
            &format!("\"static\"\naccess_key_id = \"{CANARY}\"\nsession_token = {SOURCE}\nsecret_access_key"),
        ),
        case("\"storra\"", "\"api-key\"\nkey"),
        Case {
            secret: format!("{CANARY:x<64}"),
            ..case("\"dstor\"", "\"temp-token\"\napi_key")
        },
        Case {
            remote: format!(
                "[remotes.x]\nprovider = \"storra\"\nendpoint = \"{endpoint}\"\n\
                 [remotes.x.auth]\nmethod = \"api-key\"\nkey = {SOURCE}\n\
                 [remotes.x.keys_auth]\nmethod = \"session\"\ncookie = {SOURCE}\n"
            ),
            secret: format!("session={CANARY}"),
            command: &["keys", "list", "x"],
        },
    ]
}

fn ask(home: &TempDir, case: &Case, authority: Option<&Path>) -> Output {
    let path = |name: &str| home.path().join(name);
    std::fs::create_dir_all(path("run")).unwrap();
    std::fs::set_permissions(path("run"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(path("config.toml"), &case.remote).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keymount"));
    command
        .args(case.command)
        .env_clear()
        .env("HOME", home.path())
        .env("XDG_RUNTIME_DIR", path("run"))
        .env("KEYMOUNT_CONFIG", path("config.toml"))
        .env("REDIRECT_TEST_SECRET", &case.secret);
    if let Some(authority) = authority {
        command.env("SSL_CERT_FILE", authority);
    }
    command.output().unwrap()
}

#[test]
fn another_host_and_another_port_get_the_request_without_the_credential() {
    let home = tempfile::tempdir().unwrap();
    let (config, authority) = tls(home.path());
    for encrypted in [false, true] {
        let scheme = if encrypted { "https" } else { "http" };
        let tls = encrypted.then(|| Arc::clone(&config));
        for host in [HERE, ELSEWHERE] {
            let count = cases("").len();
            for number in 0..count {
                // A token that is kept from one would be used by the next.
                let state = home.path().join(".local");
                let _ = std::fs::remove_dir_all(state);
                let target = Server::start(host, tls.clone(), nothing_here());
                let answers = token_then(redirect(scheme, target.address));
                let origin = Server::answering(HERE, tls.clone(), answers);
                let case = &cases(&format!("{scheme}://{}", origin.address))[number];
                let said = ask(&home, case, encrypted.then_some(&authority));
                assert!(!said.status.success(), "{said:?}");
                let (sent, caught) = (origin.received(), target.received());
                assert!(!sent.is_empty(), "{}: {said:?}", case.remote);
                assert!(sent.iter().all(|request| request.contains(CANARY)), "{sent:?}");
                assert!(!caught.is_empty(), "it was not followed: {} {said:?}", case.remote);
                assert!(!caught.concat().contains(CANARY), "{caught:?}");
                let words = [said.stdout, said.stderr].concat();
                assert!(!String::from_utf8_lossy(&words).contains(CANARY));
            }
        }
    }
}

#[test]
fn a_step_from_https_to_http_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (config, authority) = tls(home.path());
    let target = Server::start(HERE, None, nothing_here());
    let origin = Server::answering(HERE, Some(config), token_then(redirect("http", target.address)));
    let cases = cases(&format!("https://{}", origin.address));
    let count = cases.len();
    for case in cases {
        let said = ask(&home, &case, Some(&authority));
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(words.contains("it leads from https to http"), "{words}");
        assert!(!words.contains(CANARY), "{words}");
    }
    assert!(origin.received().len() >= count);
    assert_eq!(target.received(), Vec::<String>::new());
}

/// What a token is asked for with is worth more than the token, and is sent nowhere but where the configuration says.
#[test]
fn what_tokens_are_got_with_follows_no_redirect() {
    const STATUSES: [&str; 5] = [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ];
    // Whoever asks for a token tries again for some seconds, so all ask at once.
    std::thread::scope(|scope| {
        for status in STATUSES {
            for way in [Way::Key, Way::Password, Way::Refresh] {
                scope.spawn(move || leads_nowhere(status, way));
            }
        }
    });
}

/// What a token is got with.
#[derive(Clone, Copy, Debug)]
enum Way {
    Key,
    Password,
    Refresh,
}

fn leads_nowhere(status: &str, way: Way) {
    let home = tempfile::tempdir().unwrap();
    let target = Server::start(ELSEWHERE, None, nothing_here());
    let origin = Server::start(HERE, None, redirect_as(status, "http", target.address));
    let endpoint = format!("http://{}", origin.address);
    let secret = match way {
        Way::Key => format!("{CANARY:x<64}"),
        Way::Password => CANARY.to_owned(),
        Way::Refresh => format!("{CANARY}-client"),
    };
    let dstor = |auth: &str| {
        format!(
            "[remotes.x]\nprovider = \"dstor\"\nendpoint = \"{endpoint}\"\n[remotes.x.auth]\n\
             {auth} = {{ env = \"REDIRECT_TEST_SECRET\" }}\n"
        )
    };
    let remote = match way {
        Way::Key => dstor("method = \"temp-token\"\napi_key"),
        Way::Password => dstor("method = \"login\"\nemail = \"me@example.org\"\npassword"),
        Way::Refresh => format!(
            "[remotes.x]\nprovider = \"cloudsync\"\nendpoint = \"http://127.0.0.1:9/v1\"\n\
             auth_endpoint = \"{endpoint}\"\n[remotes.x.auth]\nmethod = \"oauth\"\nclient_id = \"keymount\"\n\
             client_secret = {{ env = \"REDIRECT_TEST_SECRET\" }}\n"
        ),
    };
    let (words, parts) = match way {
        Way::Key => ("a key is sent nowhere else", vec![secret.clone()]),
        Way::Password => ("a key is sent nowhere else", vec![format!("\"{CANARY}\"")]),
        Way::Refresh => {
            keep_ended_grant(&home, &endpoint, &secret);
            let parts = vec![format!("\"{CANARY}-refresh\""), format!("\"{secret}\"")];
            ("secrets are not sent after it", parts)
        }
    };
    let case = Case {
        remote,
        secret,
        command: &["remote", "test", "x"],
    };
    refused(&ask(&home, &case, None), words);
    let sent = origin.received().concat();
    for part in parts {
        assert!(sent.contains(&part), "{part} was never sent: {sent}");
    }
    assert_eq!(target.received(), Vec::<String>::new(), "{status} {way:?}");
}

#[track_caller]
fn refused(said: &Output, words: &str) {
    let err = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        !said.status.success() && err.contains(words),
        "{words:?} is missing: {err}"
    );
    assert!(!err.contains(CANARY), "{err}");
}

/// Somebody logged in long ago: the token ended, and there is one to renew it with.
fn keep_ended_grant(home: &TempDir, server: &str, client_secret: &str) {
    let state = home.path().join(".local/state/keymount");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    let kept = StoredSecret {
        remote: "x".into(),
        field: "grant".into(),
        store: StoreSpec::Files {
            folder: state.join("secrets"),
            passphrase: None,
        },
    };
    let spec = OauthSpec {
        server: cloudsync_server(Some(server.parse().unwrap())).unwrap(),
        client_id: "keymount".into(),
        client_secret: Some(SecretSource::Env("REDIRECT_TEST_SECRET".into())),
        scopes: None,
        kept: kept.clone(),
    };
    let granted = Granted {
        access: format!("{CANARY}-access").into(),
        life: Some(Duration::from_secs(60)),
        refresh: Some(format!("{CANARY}-refresh").into()),
        scopes: None,
    };
    let mut given = GivenSecrets::default();
    given.insert("REDIRECT_TEST_SECRET", client_secret.into());
    let client = OauthClient::new(spec, PlainHttp::LoopbackOnly).unwrap();
    let keeper = Keeper::new(kept, state.join("renew-x.lock"));
    let long_ago = SystemTime::now() - Duration::from_secs(86_400);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let basis = client.basis(&given).await.unwrap();
        let patience = Duration::from_secs(10);
        keeper
            .install(&granted, &basis, long_ago, &given, patience)
            .await
            .unwrap();
    });
}
