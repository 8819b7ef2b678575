//! dStor, against the strict stand-in and its switchable assumptions.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use keymount::emulator::Running;
use keymount::emulator::dstor::{Account, Assumptions, DstorStore, MissingDirectory, Network, Offered, Redirect};
use keymount::model::{ContentAddress, Indexed, IndexedContent, IndexedFile};
use keymount::provider::Provider;
use keymount::state::PathIndex;

use crate::dstor_support::{client, index, names, settings};
use crate::suite::{Fixture, RawStore, run};

struct AtStandIn {
    account: Account,
    store: DstorStore,
    /// The tree, as another mount of the same remote has it.
    index: Arc<PathIndex>,
    /// The directory of the tree that is mounted.
    folder: &'static str,
    provider: Arc<dyn Provider>,
    running: Running,
}

impl AtStandIn {
    async fn new(assumptions: Assumptions, folder: &'static str) -> Self {
        let store = DstorStore::new(Network::Production, assumptions);
        let account = store.add_account("me@example.org", "correct horse");
        let key = account.add_key("test");
        let running = store.serve().await.unwrap();
        let index = index();
        for (depth, name) in names(folder).iter().enumerate() {
            let above = walk(&index, &names(folder)[..depth]).unwrap();
            index
                .insert(above.id, name, &IndexedContent::Directory, SystemTime::now())
                .unwrap();
        }
        let mut settings = settings();
        settings.path = names(folder);
        let provider = Arc::new(client(&running, &key, Arc::clone(&index), settings).await);
        Self {
            account,
            store,
            index,
            folder,
            provider,
            running,
        }
    }

    fn at(&self, path: &str) -> Option<Indexed> {
        walk(&self.index, &names(&format!("{}/{path}", self.folder)))
    }
}

fn walk(index: &PathIndex, path: &[keymount::model::Name]) -> Option<Indexed> {
    let root = index.entry(index.root()).unwrap();
    path.iter().try_fold(root, |at, name| index.child(at.id, name).ok())
}

impl Fixture for AtStandIn {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider)
    }

    fn raw(&self) -> Option<&dyn RawStore> {
        Some(self)
    }

    fn requests(&self) -> Option<usize> {
        Some(self.running.requests().len())
    }
}

#[async_trait]
impl RawStore for AtStandIn {
    async fn read(&self, path: &str) -> Option<Vec<u8>> {
        let hash = self.at(path)?.file()?.address.to_string();
        Some(self.store.read(&hash).expect("what the tree has is at dStor").to_vec())
    }

    async fn write(&self, path: &str, bytes: &[u8]) {
        let file = IndexedFile {
            address: ContentAddress::new(&self.account.put(&format!("/{path}"), bytes.to_vec())).unwrap(),
            size: bytes.len() as u64,
            sha256: None,
        };
        let now = SystemTime::now();
        match self.at(path) {
            Some(there) => {
                let expected = there.file().unwrap().address.clone();
                self.index.replace(there.id, &expected, &file, now).unwrap();
            }
            None => {
                let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
                let folder = self.at(folder).unwrap();
                self.index
                    .insert(folder.id, &names(name)[0], &IndexedContent::File(file), now)
                    .unwrap();
            }
        }
    }

    async fn remove(&self, path: &str) {
        self.index.remove(self.at(path).unwrap().id).unwrap();
    }

    async fn names(&self, folder: &str) -> Vec<String> {
        let children = self.index.children(self.at(folder).unwrap().id).unwrap();
        children
            .into_iter()
            .map(|child| child.name.unwrap().to_string())
            .collect()
    }
}

#[tokio::test]
async fn as_assumed() {
    run("dstor", async || AtStandIn::new(Assumptions::default(), "").await).await;
}

#[tokio::test]
async fn with_a_directory_of_the_tree_mounted() {
    run("dstor, directory", async || {
        AtStandIn::new(Assumptions::default(), "a b/ü").await
    })
    .await;
}

#[tokio::test]
async fn where_the_gateway_has_neither_parts_nor_heads_and_signs_its_addresses() {
    let assumptions = Assumptions {
        ranges: Offered::No,
        head: Offered::No,
        etags: Offered::No,
        redirect: Redirect::Signed { life: 60 },
        missing_directory: MissingDirectory::Refuse,
        ..Assumptions::default()
    };
    run("dstor, plain gateway", async || {
        AtStandIn::new(assumptions.clone(), "").await
    })
    .await;
}
