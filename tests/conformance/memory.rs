//! The reference provider in its forms, bare and behind the fault decorator without faults.

use std::sync::Arc;

use async_trait::async_trait;
use keymount::model::{ErrorKind, Kind};
use keymount::provider::faulty::Faulty;
use keymount::provider::memory::{Addressing, Memory, Options};
use keymount::provider::{AttributeSupport, Capabilities, LabelSupport, NamedBy, Provider, Reads};

use crate::suite::{Fixture, RawStore, run};

struct InMemory {
    store: Memory,
    provider: Arc<dyn Provider>,
    forbidden: &'static [char],
}

impl InMemory {
    fn new(options: Options) -> Self {
        let forbidden = options.forbidden;
        let store = Memory::new(options);
        Self {
            provider: Arc::new(store.clone()),
            store,
            forbidden,
        }
    }
}

impl Fixture for InMemory {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider)
    }

    fn raw(&self) -> Option<&dyn RawStore> {
        Some(self)
    }

    fn refuses(&self, _: Kind, name: &str) -> Option<ErrorKind> {
        name.contains(self.forbidden).then_some(ErrorKind::InvalidName)
    }
}

#[async_trait]
impl RawStore for InMemory {
    async fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.store.content(path).map(|bytes| bytes.to_vec())
    }

    async fn write(&self, path: &str, bytes: &[u8]) {
        self.store.put(path, bytes.to_vec()).unwrap();
    }

    async fn remove(&self, path: &str) {
        self.store.remove(path).unwrap();
    }

    async fn names(&self, folder: &str) -> Vec<String> {
        let inside = |path: String| match path.rsplit_once('/') {
            Some((parent, name)) => (parent == folder).then(|| name.to_owned()),
            None => folder.is_empty().then_some(path),
        };
        self.store.snapshot().into_keys().filter_map(inside).collect()
    }
}

#[tokio::test]
async fn with_ranges() {
    run("memory", async || InMemory::new(Options::default())).await;
}

/// Everything that a provider may lack is lacking.
#[tokio::test]
async fn with_whole_objects_only() {
    let options = || Options {
        capabilities: Capabilities {
            reads: Reads::WholeOnly,
            bytes: NamedBy::Object,
            labels: LabelSupport::None,
            attributes: AttributeSupport::None,
            max_file_size: Some(10_000_000),
            max_name_chars: Some(60),
            rename_directories: false,
            move_files: false,
            lists_ahead: 1,
        },
        addressing: Addressing::Ids,
        forbidden: &['?', '\\', '\n'],
        ..Options::default()
    };
    run("memory, least", async || InMemory::new(options())).await;
}

#[tokio::test]
async fn behind_the_fault_decorator() {
    let fresh = async || {
        let bare = InMemory::new(Options {
            capabilities: Capabilities {
                attributes: AttributeSupport::Stored,
                ..Options::default().capabilities
            },
            ..Options::default()
        });
        InMemory {
            provider: Arc::new(Faulty::over(bare.provider())),
            ..bare
        }
    };
    run("memory, decorated", fresh).await;
}

#[test]
fn identities_differ() {
    let (one, two) = (Memory::default(), Memory::default());
    assert_ne!(one.identity(), two.identity());
    assert_eq!(one.identity(), one.clone().identity());
}
