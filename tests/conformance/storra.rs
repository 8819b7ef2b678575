//! Storra, against the strict stand-in and its switchable assumptions, with limits that are out of the way.

use std::sync::Arc;

use async_trait::async_trait;
use keymount::emulator::Running;
use keymount::emulator::storra::{
    Account, Assumptions, FolderDelete, FolderItems, MissingFolder, MissingParents, MoveOnto, Overwrite, ReservedNames,
    StorraStore, Validation, Visibility,
};
use keymount::model::{ErrorKind, Kind};
use keymount::provider::Provider;

use crate::storra_support::{account, client, settings};
use crate::suite::{Fixture, RawStore, run};

struct AtStandIn {
    account: Account,
    provider: Arc<dyn Provider>,
    /// The folder that is mounted, with a slash at its end; nothing for the whole account.
    folder: &'static str,
    running: Running,
}

impl AtStandIn {
    async fn new(assumptions: Assumptions, folder: &'static str) -> Self {
        let store = StorraStore::new(assumptions);
        store.lift_limits();
        let (account, key) = account(&store);
        if !folder.is_empty() {
            account.mkdir(folder.trim_end_matches('/')).unwrap();
        }
        let running = store.serve().await.unwrap();
        let provider = client(&running.url(), &key, settings(folder)).await;
        Self {
            account,
            provider: Arc::new(provider),
            folder,
            running,
        }
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.folder).trim_end_matches('/').to_owned()
    }
}

impl Fixture for AtStandIn {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider)
    }

    fn raw(&self) -> Option<&dyn RawStore> {
        Some(self)
    }

    fn refuses(&self, _: Kind, name: &str) -> Option<ErrorKind> {
        name.chars().any(char::is_control).then_some(ErrorKind::InvalidName)
    }

    fn requests(&self) -> Option<usize> {
        Some(self.running.requests().len())
    }
}

#[async_trait]
impl RawStore for AtStandIn {
    async fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.account.read(&self.path(path)).map(|bytes| bytes.to_vec())
    }

    async fn write(&self, path: &str, bytes: &[u8]) {
        self.account.put(&self.path(path), bytes.to_vec()).unwrap();
    }

    async fn remove(&self, path: &str) {
        assert!(self.account.remove(&self.path(path)));
    }

    async fn names(&self, folder: &str) -> Vec<String> {
        self.account.list(&self.path(folder)).unwrap()
    }
}

#[tokio::test]
async fn as_documented() {
    run("storra", async || AtStandIn::new(Assumptions::default(), "").await).await;
}

#[tokio::test]
async fn with_a_folder_mounted() {
    run("storra, folder", async || {
        AtStandIn::new(Assumptions::default(), "a b/ü/").await
    })
    .await;
}

/// Every guess of the stand-in turned to its other side.
#[tokio::test]
async fn where_the_service_guesses_otherwise() {
    let assumptions = Assumptions {
        overwrite: Overwrite::Replace,
        move_onto: MoveOnto::Replace,
        missing_parents: MissingParents::Created,
        missing_folder: MissingFolder::Empty,
        folder_items: FolderItems::Short,
        folder_delete: FolderDelete::RefuseNonEmpty,
        reserved_names: ReservedNames::PathsFirst,
        validation: Validation::UnprocessableContent,
        new_folder: Visibility::Public,
        ..Assumptions::default()
    };
    run("storra, otherwise", async || AtStandIn::new(assumptions, "").await).await;
}

/// Names that the API's own routes begin with, at the account's root.
#[tokio::test]
async fn in_a_folder_named_as_a_route() {
    run("storra, route", async || {
        AtStandIn::new(Assumptions::default(), "permissions/").await
    })
    .await;
}
