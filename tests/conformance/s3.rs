//! S3, against a real server that knows conditions, and against a cluster that doesn't. (`rclone serve s3` holds no empty
//! directories and fails half of this.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use keymount::model::{ErrorKind, Kind};
use keymount::provider::Provider;

use crate::garage_support::{Garage, REGION};
use crate::s3_support::{S3Server, SECRET_KEY, Software, client, client_at, given, key, key_of};
use crate::suite::{Fixture, run};

/// One prefix of a bucket that all cases share.
struct AtServer<S> {
    provider: Arc<dyn Provider>,
    _server: Arc<S>,
}

/// A name for the next prefix.
fn prefix() -> String {
    static FOLDERS: AtomicU32 = AtomicU32::new(0);
    format!("case {} %41", FOLDERS.fetch_add(1, Ordering::Relaxed))
}

impl<S: Send + Sync> Fixture for AtServer<S> {
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
    at_moto_as("s3, moto", Software::Moto).await;
}

/// Where conditions keep the mounts apart, as at Amazon S3.
#[tokio::test]
async fn at_moto_that_minds_every_condition() {
    at_moto_as("s3, moto with conditions on copies", Software::MotoWithCopies).await;
}

async fn at_moto_as(what: &'static str, software: Software) {
    let server = Arc::new(S3Server::start(software));
    server.make_bucket().await;
    run(what, async || AtServer {
        provider: Arc::new(client(&server, &prefix(), key(given(SECRET_KEY)).await)),
        _server: Arc::clone(&server),
    })
    .await;
}

/// Three nodes: what one stores, another one has to list.
#[tokio::test]
async fn at_a_garage_cluster() {
    let garage = Arc::new(Garage::start().await);
    run("s3, Garage with three nodes", async || {
        let keys = key_of(garage.key_id(), given(garage.secret_key())).await;
        AtServer {
            provider: Arc::new(client_at(&garage.endpoint(0), REGION, &prefix(), keys)),
            _server: Arc::clone(&garage),
        }
    })
    .await;
}
