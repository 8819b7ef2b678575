//! A redirect takes no credential along: what other servers received is looked at byte by byte.
//!
//! The real program talks to a server that sends every request elsewhere, over http and over TLS.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

const CANARY: &str = "canary-5d0e8a91";
const DRIVE: &str = "3f0c1f6e-9d2b-4a57-8c64-0e5b7a1d2c3f";
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Also this machine, and another host as far as an address tells.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A server that gives every request the same answer and keeps what it received.
struct Server {
    address: SocketAddr,
    received: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves as long as the test runs.
    fn start(host: Ipv4Addr, tls: Option<Arc<ServerConfig>>, answer: String) -> Self {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let outcome = match &tls {
                    None => serve(stream, &log, &answer),
                    Some(config) => {
                        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                        serve(StreamOwned::new(connection, stream), &log, &answer)
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

fn serve(mut stream: impl Read + Write, log: &Mutex<Vec<String>>, answer: &str) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => break,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    log.lock().unwrap().push(String::from_utf8_lossy(&bytes).into_owned());
    stream.write_all(answer.as_bytes())?;
    stream.flush()
}

fn redirect(scheme: &str, to: SocketAddr) -> String {
    format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: {scheme}://{to}/caught/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
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

/// The ways in which a credential travels: header, query, bearer token, and beside a signature.
fn remotes(endpoint: &str) -> Vec<String> {
    let token = "token = { env = \"REDIRECT_TEST_SECRET\" }";
    vec![
        format!(
            "[remotes.x]\nprovider = \"cludz\"\nstorage = \"{DRIVE}\"\nendpoint = \"{endpoint}\"\n\
             [remotes.x.auth]\nmethod = \"token\"\n{token}\n"
        ),
        format!(
            "[remotes.x]\nprovider = \"cludz\"\nstorage = \"{DRIVE}\"\nendpoint = \"{endpoint}\"\n\
             [remotes.x.auth]\nmethod = \"token\"\nsend = \"query\"\n{token}\n"
        ),
        format!(
            "[remotes.x]\nprovider = \"reductstore\"\nendpoint = \"{endpoint}\"\n\
             [remotes.x.auth]\nmethod = \"token\"\n{token}\n"
        ),
        format!(
            "[remotes.x]\nprovider = \"webdav\"\nendpoint = \"{endpoint}\"\n\
             [remotes.x.auth]\nmethod = \"bearer\"\n{token}\n"
        ),
        format!(
            "[remotes.x]\nprovider = \"s3\"\nbucket = \"b\"\nendpoint = \"{endpoint}\"\n\
             [remotes.x.auth]\nmethod = \"static\"\naccess_key_id = \"{CANARY}\"\nsession_{token}\n\
             secret_access_key = {{ env = \"REDIRECT_TEST_SECRET\" }}\n"
        ),
    ]
}

fn ask(home: &TempDir, config: &str, authority: Option<&Path>) -> Output {
    let path = |name: &str| home.path().join(name);
    std::fs::create_dir_all(path("run")).unwrap();
    std::fs::set_permissions(path("run"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(path("config.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keymount"));
    command
        .args(["remote", "test", "x"])
        .env_clear()
        .env("HOME", home.path())
        .env("XDG_RUNTIME_DIR", path("run"))
        .env("KEYMOUNT_CONFIG", path("config.toml"))
        .env("REDIRECT_TEST_SECRET", CANARY);
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
            let target = Server::start(host, tls.clone(), nothing_here());
            let origin = Server::start(HERE, tls.clone(), redirect(scheme, target.address));
            for remote in remotes(&format!("{scheme}://{}", origin.address)) {
                let said = ask(&home, &remote, encrypted.then_some(&authority));
                assert!(!said.status.success(), "{said:?}");
            }
            let (sent, caught) = (origin.received(), target.received());
            assert!(sent.iter().all(|request| request.contains(CANARY)), "{sent:?}");
            assert!(caught.len() >= 5, "the redirect was followed: {caught:?}");
            assert!(!caught.concat().contains(CANARY), "{caught:?}");
        }
    }
}

#[test]
fn a_step_from_https_to_http_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (config, authority) = tls(home.path());
    let target = Server::start(HERE, None, nothing_here());
    let origin = Server::start(HERE, Some(config), redirect("http", target.address));
    for remote in remotes(&format!("https://{}", origin.address)) {
        let said = ask(&home, &remote, Some(&authority));
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(words.contains("it leads from https to http"), "{words}");
        assert!(!words.contains(CANARY), "{words}");
    }
    assert!(origin.received().len() >= 5);
    assert_eq!(target.received(), Vec::<String>::new());
}
