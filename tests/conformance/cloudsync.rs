//! CloudSync, against the strict stand-in and its switchable assumptions.

use std::sync::Arc;

use async_trait::async_trait;
use keymount::emulator::Running;
use keymount::emulator::cloudsync::{
    Assumptions, CloudSyncStore, Deletion, FolderCreation, Parents, Plan, Ranges, Scope, Statuses, Times, Workspace,
};
use keymount::model::{ErrorKind, Kind};
use keymount::provider::Provider;

use crate::cloudsync_support::{Credential, OWNER, client, settings};
use crate::suite::{Fixture, RawStore, run};

/// What of the account is mounted.
#[derive(Clone, Copy)]
enum Mounted {
    Workspace,
    Folder,
    /// All workspaces; the cases work in one of their own.
    Account,
}

const WORKPLACE: &str = "workplace";
const FOLDER: &str = "a b/ü";

struct AtStandIn {
    store: CloudSyncStore,
    workspace: Option<Workspace>,
    provider: Arc<dyn Provider>,
    mounted: Mounted,
    running: Running,
}

impl AtStandIn {
    async fn new(assumptions: Assumptions, mounted: Mounted) -> Self {
        let store = CloudSyncStore::new(assumptions);
        store.add_user(OWNER, Plan::unlimited());
        let workspace = match mounted {
            Mounted::Account => None,
            _ => Some(store.add_workspace(OWNER, "My Project").unwrap()),
        };
        let place = match (&workspace, mounted) {
            (Some(workspace), Mounted::Folder) => {
                workspace.mkdir(&format!("/{FOLDER}")).unwrap();
                settings(Some(workspace.id()), FOLDER)
            }
            (Some(workspace), _) => settings(Some(&workspace.slug()), ""),
            (None, _) => settings(None, ""),
        };
        let key = store.create_key(OWNER, "tests", &Scope::of_keys()).unwrap();
        let running = store.serve_api().await.unwrap();
        let provider = client(&running.url(), Credential::ApiKey(key.secret().into()), place).await;
        Self {
            store,
            workspace,
            provider: Arc::new(provider),
            mounted,
            running,
        }
    }

    fn workspace(&self) -> Workspace {
        self.workspace
            .clone()
            .or_else(|| self.store.workspace(WORKPLACE))
            .unwrap()
    }

    fn path(&self, path: &str) -> String {
        let inner = match (self.mounted, path) {
            (Mounted::Folder, "") => FOLDER.to_owned(),
            (Mounted::Folder, path) => format!("{FOLDER}/{path}"),
            (_, path) => path.to_owned(),
        };
        format!("/{inner}")
    }
}

impl Fixture for AtStandIn {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider)
    }

    fn raw(&self) -> Option<&dyn RawStore> {
        Some(self)
    }

    fn workplace(&self) -> Option<&'static str> {
        matches!(self.mounted, Mounted::Account).then_some(WORKPLACE)
    }

    fn refuses(&self, _: Kind, name: &str) -> Option<ErrorKind> {
        name.contains(|c: char| c.is_control())
            .then_some(ErrorKind::InvalidName)
    }

    fn requests(&self) -> Option<usize> {
        Some(self.running.requests().len())
    }
}

#[async_trait]
impl RawStore for AtStandIn {
    async fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.workspace().read(&self.path(path)).map(|bytes| bytes.to_vec())
    }

    async fn write(&self, path: &str, bytes: &[u8]) {
        self.workspace().put(&self.path(path), bytes.to_vec()).unwrap();
    }

    async fn remove(&self, path: &str) {
        assert!(self.workspace().remove(&self.path(path)));
    }

    async fn names(&self, folder: &str) -> Vec<String> {
        self.workspace().list(&self.path(folder)).unwrap()
    }
}

#[tokio::test]
async fn with_a_workspace_mounted() {
    run("cloudsync", async || {
        AtStandIn::new(Assumptions::default(), Mounted::Workspace).await
    })
    .await;
}

#[tokio::test]
async fn with_a_folder_of_a_workspace_mounted() {
    run("cloudsync, folder", async || {
        AtStandIn::new(Assumptions::default(), Mounted::Folder).await
    })
    .await;
}

#[tokio::test]
async fn with_all_workspaces_mounted() {
    run("cloudsync, all workspaces", async || {
        AtStandIn::new(Assumptions::default(), Mounted::Account).await
    })
    .await;
}

/// Statuses as HTTP has them, folders that must be called so and whose parents must be there, answers without a body.
#[tokio::test]
async fn where_the_service_is_stricter_than_its_samples() {
    let assumptions = Assumptions {
        statuses: Statuses::Standard,
        folders: FolderCreation::Typed,
        parents: Parents::Required,
        ranges: Ranges::Served,
        deletion: Deletion::NoContent,
        times: Times::Seconds,
        ..Assumptions::default()
    };
    run("cloudsync, stricter", async || {
        AtStandIn::new(assumptions, Mounted::Workspace).await
    })
    .await;
}

#[tokio::test]
async fn where_folders_only_come_with_files() {
    let assumptions = Assumptions {
        folders: FolderCreation::Unsupported,
        ..Assumptions::default()
    };
    run("cloudsync, no folders", async || {
        AtStandIn::new(assumptions, Mounted::Workspace).await
    })
    .await;
}
