//! S3, against a real server that knows conditions. (`rclone serve s3` holds no empty directories and fails half of this.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use keymount::model::{ErrorKind, Kind};
use keymount::provider::Provider;

use crate::s3_support::{S3Server, SECRET_KEY, Software, client, given, key};
use crate::suite::{Fixture, run};

/// One prefix of a bucket that all cases share.
struct AtServer {
    provider: Arc<dyn Provider>,
    _server: Arc<S3Server>,
}

impl AtServer {
    async fn new(server: &Arc<S3Server>) -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("case {} %41", FOLDERS.fetch_add(1, Ordering::Relaxed));
        let keys = key(given(SECRET_KEY)).await;
        Self {
            provider: Arc::new(client(server, &name, keys)),
            _server: Arc::clone(server),
        }
    }
}

impl Fixture for AtServer {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider)
    }

    fn refuses(&self, _: Kind, name: &str) -> Option<ErrorKind> {
        let refused = name.chars().any(char::is_control)
            || name.starts_with(char::is_whitespace)
            || name.ends_with(char::is_whitespace);
        refused.then_some(ErrorKind::InvalidName)
    }
}

#[tokio::test]
async fn at_moto() {
    let server = Arc::new(S3Server::start(Software::Moto));
    server.make_bucket().await;
    run("s3, moto", async || AtServer::new(&server).await).await;
}
