//! Cludz, against the strict stand-in and its switchable assumptions.

use std::sync::Arc;

use async_trait::async_trait;
use keymount::emulator::Running;
use keymount::emulator::cludz::{Assumptions, CludzStore, Drive, Duplicates, Overwrite};
use keymount::model::{ErrorKind, Kind};
use keymount::provider::Provider;

use crate::cludz_support::{Token, client, client_with};
use crate::suite::{Fixture, RawStore, run};

struct AtStandIn {
    drive: Drive,
    provider: Arc<dyn Provider>,
    /// The folder of the drive that is mounted, with a slash at its end.
    folder: &'static str,
    skips: &'static [(&'static str, &'static str)],
    running: Running,
}

impl AtStandIn {
    async fn new(assumptions: Assumptions, token: fn(String) -> Token) -> Self {
        let store = CludzStore::new(assumptions);
        let drive = store.add_drive();
        let running = store.serve().await.unwrap();
        let provider = client(running.url(), drive.id(), token(drive.owner_token())).await;
        Self {
            drive,
            provider: Arc::new(provider),
            folder: "/",
            skips: &[],
            running,
        }
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.folder)
    }
}

impl Fixture for AtStandIn {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider)
    }

    fn raw(&self) -> Option<&dyn RawStore> {
        Some(self)
    }

    /// The rules of the documentation, written down independently of the client, and control characters.
    fn refuses(&self, _: Kind, name: &str) -> Option<ErrorKind> {
        let stem = name.split('.').next().unwrap().to_uppercase();
        let refused = name.contains(|c: char| r#"/*?<>|:"\'"#.contains(c) || c.is_control())
            || ["CON", "NUL", "COM1"].contains(&stem.as_str());
        refused.then_some(ErrorKind::InvalidName)
    }

    fn requests(&self) -> Option<usize> {
        Some(self.running.requests().len())
    }

    fn skips(&self) -> &'static [(&'static str, &'static str)] {
        self.skips
    }
}

#[async_trait]
impl RawStore for AtStandIn {
    async fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.drive.read(&self.path(path)).map(|bytes| bytes.to_vec())
    }

    async fn write(&self, path: &str, bytes: &[u8]) {
        self.drive.put(&self.path(path), bytes.to_vec()).unwrap();
    }

    async fn remove(&self, path: &str) {
        assert!(self.drive.remove(&self.path(path)));
    }

    async fn names(&self, folder: &str) -> Vec<String> {
        self.drive.list(&self.path(folder)).unwrap()
    }
}

#[tokio::test]
async fn with_the_token_in_a_header() {
    run("cludz", async || {
        AtStandIn::new(Assumptions::default(), Token::Header).await
    })
    .await;
}

#[tokio::test]
async fn with_the_token_in_the_query() {
    run("cludz, query token", async || {
        AtStandIn::new(Assumptions::default(), Token::Query).await
    })
    .await;
}

#[tokio::test]
async fn with_a_folder_of_the_drive_mounted() {
    run("cludz, folder", async || {
        let store = CludzStore::default();
        let drive = store.add_drive();
        drive.mkdir("/a b/ü").unwrap();
        let running = store.serve().await.unwrap();
        let token = Token::Header(drive.owner_token());
        let provider = client_with(running.url(), drive.id(), token, "a b/ü", None).await;
        AtStandIn {
            drive,
            provider: Arc::new(provider),
            folder: "/a b/ü/",
            skips: &[],
            running,
        }
    })
    .await;
}

#[tokio::test]
async fn where_uploads_overwrite() {
    let assumptions = Assumptions {
        overwrite: Overwrite::Replace,
        duplicates: Duplicates::Accepted,
        ..Assumptions::default()
    };
    let skips = &[
        (
            "concurrent_creates_of_one_name_have_one_winner",
            "the service overwrites without a condition, so the last of several wins",
        ),
        (
            "concurrent_replaces_of_one_version_keep_a_whole_content",
            "the service overwrites without a condition, so the last of several wins",
        ),
    ];
    run("cludz, overwriting", async || AtStandIn {
        skips,
        ..AtStandIn::new(assumptions, Token::Header).await
    })
    .await;
}

#[tokio::test]
async fn where_details_have_no_times() {
    let assumptions = Assumptions {
        detail_has_times: false,
        ..Assumptions::default()
    };
    run("cludz, no times", async || {
        AtStandIn::new(assumptions, Token::Header).await
    })
    .await;
}
