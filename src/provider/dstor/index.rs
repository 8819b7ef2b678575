//! Where the tree is kept: dStor finds contents by hash and offers no way to ask for names.

use std::time::SystemTime;

use crate::model::{
    AdoptedTree, ContentAddress, IndexId, Indexed, IndexedContent, IndexedFile, KeptTree, Listing, Name, Result, Taken,
    Taking,
};

/// One remote's tree. A change is kept when the call returns; calls are short and may run on any thread.
pub trait Index: Send + Sync + 'static {
    fn root(&self) -> IndexId;

    /// # Errors
    /// `NotFound`.
    fn entry(&self, id: IndexId) -> Result<Indexed>;

    /// # Errors
    /// `NotFound`.
    fn child(&self, parent: IndexId, name: &Name) -> Result<Indexed>;

    /// # Errors
    /// `NotFound`, `NotADirectory`.
    fn children(&self, directory: IndexId) -> Result<Vec<Indexed>>;

    /// The names from the root to an entry.
    ///
    /// # Errors
    /// `NotFound`.
    fn path(&self, id: IndexId) -> Result<Vec<Name>>;

    /// How many entries have this content, in all trees.
    ///
    /// # Errors
    /// As the local disk says.
    fn uses(&self, address: &ContentAddress) -> Result<u64>;

    /// Whether any tree here has this content or had it once.
    ///
    /// # Errors
    /// As the local disk says.
    fn knows(&self, address: &ContentAddress) -> Result<bool>;

    /// # Errors
    /// `NotFound` and `NotADirectory` for the parent, `AlreadyExists`.
    fn insert(&self, parent: IndexId, name: &Name, content: &IndexedContent, modified: SystemTime) -> Result<Indexed>;

    /// Gives a file another content, if it still has the expected one.
    ///
    /// # Errors
    /// `Changed`.
    fn replace(
        &self,
        id: IndexId,
        expected: &ContentAddress,
        file: &IndexedFile,
        modified: SystemTime,
    ) -> Result<Indexed>;

    /// Removes an entry; a directory must be empty, but for an immutable one, which goes as a whole.
    ///
    /// # Errors
    /// `NotFound`, `NotEmpty`.
    fn remove(&self, id: IndexId) -> Result<()>;

    /// The digest of the list that was imported last.
    ///
    /// # Errors
    /// As the local disk says.
    fn imported(&self) -> Result<Option<String>>;

    /// # Errors
    /// As the local disk says.
    fn note_import(&self, digest: &str) -> Result<()>;

    /// Gives an entry another place. What has the name there must be `over`, unchanged, and is removed.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `IsADirectory`, `AlreadyExists`, `NotEmpty`, `InvalidInput` for a directory below
    /// itself.
    fn relocate(&self, id: IndexId, to: IndexId, name: &Name, over: Option<&Indexed>) -> Result<Indexed>;

    /// Takes a listing in, as a whole or not at all.
    ///
    /// # Errors
    /// As the local disk says.
    fn take(&self, listing: &Listing, taking: Taking) -> Result<Taken>;

    /// Whether there are changes that those who share the tree don't have.
    ///
    /// # Errors
    /// As the local disk says.
    fn has_pending(&self) -> Result<bool>;

    /// The whole tree, with what those who share it don't have.
    ///
    /// # Errors
    /// As the local disk says.
    fn kept(&self) -> Result<KeptTree>;

    /// Makes the tree what `merge` makes of it, with all changes that came until then.
    ///
    /// # Errors
    /// Those of `merge`, and as the local disk says; nothing is changed then.
    fn adopt(&self, merge: &mut dyn FnMut(KeptTree) -> Result<AdoptedTree>) -> Result<()>;
}
