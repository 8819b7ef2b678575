//! Hands the state's tree of paths to the provider that needs one, and to commands that read and write it as a whole.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::sharing::{SharedIndex, SharedTree};
use super::{Stage, StartError};
use crate::auth::GivenSecrets;
use crate::config::ResolvedRemote;
use crate::model::{
    AdoptedTree, ContentAddress, Error, ErrorKind, IndexId, Indexed, IndexedContent, IndexedFile, KeptTree, Listing,
    Name, Result, Taken, Taking,
};
use crate::net::TransportSettings;
use crate::paths::{Paths, private_directory};
pub use crate::provider::dstor::LONGEST_INDEX;
use crate::provider::dstor::{Index, index_file};
use crate::provider::registry::ProviderSpec;
use crate::state::{PathIndex, Shared, StateDb};

/// How long a command waits for a shared index.
const PATIENCE: Duration = Duration::from_secs(10);

/// A remote's tree, opened by a command. Mounts of the remote see its changes like those of others.
pub struct OpenIndex {
    index: Arc<PathIndex>,
    shared: Option<SharedIndex>,
}

/// Whether those who share a tree have what is in it here, and the other way round.
pub enum Told {
    Now,
    /// Why not yet.
    Later(Error),
}

/// # Errors
/// `InvalidInput` for a remote whose names its provider keeps; the local disk's; as the secret of the remote that has
/// the shared index cannot be read.
pub async fn open_index(remote: &ResolvedRemote, paths: &Paths, given: &GivenSecrets) -> Result<OpenIndex, StartError> {
    let ProviderSpec::Dstor(dstor) = &remote.provider else {
        let title = remote.provider.title();
        let why = format!("{title} keeps the names of its files itself; an index is kept for dStor only");
        return Err(Stage::Local.failed()(Error::new(ErrorKind::InvalidInput, why)));
    };
    let shared = match (&dstor.shared, &remote.shared_index) {
        (Some(place), Some(at)) => {
            let patience = TransportSettings::within(PATIENCE);
            let tree = SharedTree::open(at, place, paths, patience, given, Duration::ZERO).await;
            Some(tree.map_err(Stage::Credential.failed())?)
        }
        _ => None,
    };
    let with_others = if shared.is_some() { Shared::Yes } else { Shared::No };
    let opened = || {
        private_directory(paths.state())?;
        let state = Arc::new(StateDb::open(&paths.state_database())?);
        PathIndex::open(state, &namespace(remote), with_others)
    };
    let index = Arc::new(opened().map_err(Stage::Local.failed())?);
    Ok(OpenIndex {
        shared: shared.map(|shared| shared.start(Arc::clone(&index) as Arc<dyn Index>)),
        index,
    })
}

/// Each remote has a tree of its own, whatever key it uses; all remotes that are addresses share one.
pub fn tree_name(remote: &ResolvedRemote) -> String {
    match remote.name.split_once("://") {
        Some(_) => String::new(),
        None => remote.name.clone(),
    }
}

/// What the tree of a remote is called in the state.
pub fn namespace(remote: &ResolvedRemote) -> String {
    format!("dstor:{}tree/{}", remote.endpoint, tree_name(remote))
}

impl OpenIndex {
    /// In its written form.
    ///
    /// # Errors
    /// The local disk's.
    pub fn export(&self) -> Result<String> {
        index_file::write(&self.index.listing()?)
    }

    /// Takes in what is written in that form.
    ///
    /// # Errors
    /// `InvalidInput` with the number of the first line that is wrong, `Unsupported` for a newer form, the local disk's;
    /// nothing is changed then.
    pub fn import(&self, text: &str, taking: Taking) -> Result<Taken> {
        self.index.take(&index_file::read(text)?, taking)
    }

    /// Puts together what is here and what others have, where the tree is shared.
    pub async fn tell_others(&self) -> Told {
        let Some(shared) = &self.shared else { return Told::Now };
        let told = match tokio::time::timeout(PATIENCE, shared.sharing.exchange()).await {
            Ok(Ok(())) => Told::Now,
            Ok(Err(error)) => Told::Later(error),
            Err(_) => {
                let why = format!("{} doesn't answer", shared.sharing.place());
                Told::Later(Error::new(ErrorKind::TimedOut, why))
            }
        };
        shared.close().await;
        told
    }
}

impl Index for PathIndex {
    fn root(&self) -> IndexId {
        self.root()
    }

    fn entry(&self, id: IndexId) -> Result<Indexed> {
        self.entry(id)
    }

    fn child(&self, parent: IndexId, name: &Name) -> Result<Indexed> {
        self.child(parent, name)
    }

    fn children(&self, directory: IndexId) -> Result<Vec<Indexed>> {
        self.children(directory)
    }

    fn path(&self, id: IndexId) -> Result<Vec<Name>> {
        self.path(id)
    }

    fn uses(&self, address: &ContentAddress) -> Result<u64> {
        self.uses(address)
    }

    fn knows(&self, address: &ContentAddress) -> Result<bool> {
        self.knows(address)
    }

    fn insert(&self, parent: IndexId, name: &Name, content: &IndexedContent, modified: SystemTime) -> Result<Indexed> {
        self.insert(parent, name, content, modified)
    }

    fn replace(
        &self,
        id: IndexId,
        expected: &ContentAddress,
        file: &IndexedFile,
        modified: SystemTime,
    ) -> Result<Indexed> {
        self.replace(id, expected, file, modified)
    }

    fn remove(&self, id: IndexId) -> Result<()> {
        self.remove(id)
    }

    fn imported(&self) -> Result<Option<String>> {
        self.imported()
    }

    fn note_import(&self, digest: &str) -> Result<()> {
        self.note_import(digest)
    }

    fn relocate(&self, id: IndexId, to: IndexId, name: &Name, over: Option<&Indexed>) -> Result<Indexed> {
        self.relocate(id, to, name, over)
    }

    fn take(&self, listing: &Listing, taking: Taking) -> Result<Taken> {
        self.take(listing, taking)
    }

    fn has_pending(&self) -> Result<bool> {
        self.has_pending()
    }

    fn kept(&self) -> Result<KeptTree> {
        self.kept()
    }

    fn adopt(&self, merge: &mut dyn FnMut(KeptTree) -> Result<AdoptedTree>) -> Result<()> {
        self.adopt(merge)
    }
}
