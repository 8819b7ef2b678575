//! Hands the state's tree of paths to the provider that needs one.

use std::time::SystemTime;

use crate::model::{ContentAddress, IndexId, Indexed, IndexedContent, IndexedFile, Name, Result};
use crate::provider::dstor::Index;
use crate::state::PathIndex;

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
}
