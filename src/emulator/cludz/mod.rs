//! A strict stand-in for Cludz Storage.
//!
//! Responsible for `https://storage.cludz.net/storage/{uuid}/…` as the provider documents it: token authentication
//! (storage/authentication), listing and download (storage/download), upload (storage/upload), rename
//! (storage/rename), folder permissions (storage/permissions) and `?detail=true` (the provider's SDK). What none of
//! these says is an assumption and stands in [`Assumptions`]; what they don't allow is refused.
//!
//! It isn't responsible for the separate Cludz API (`X-API-Key`), the dashboard, quotas, rate limits and guest flags:
//! the documentation names them without saying how they behave on the wire. Content lives in memory.

mod assumptions;
mod http;
mod names;
mod target;
mod tree;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{ANY_PORT, Running, Service, launch};
pub use assumptions::{Assumptions, Duplicates, Overwrite};
pub use tree::{Grant, Info, InfoKind, Sharing, SharingStatus, StoreError, Subscription};
use tree::{State, segments};

/// Several storages ("drives"); clones are handles on the same content.
#[derive(Debug, Clone)]
pub struct CludzStore {
    drives: Arc<Mutex<BTreeMap<Uuid, Drive>>>,
    assumptions: Assumptions,
}

impl Default for CludzStore {
    fn default() -> Self {
        Self::new(Assumptions::default())
    }
}

impl CludzStore {
    /// A store without drives.
    pub fn new(assumptions: Assumptions) -> Self {
        Self {
            drives: Arc::default(),
            assumptions,
        }
    }

    /// Adds an empty drive with a random id and owner token.
    pub fn add_drive(&self) -> Drive {
        self.add_drive_with(Uuid::new_v4(), random_token())
    }

    /// Adds an empty drive, in place of one with the same id.
    pub fn add_drive_with(&self, id: Uuid, owner_token: impl Into<String>) -> Drive {
        let drive = Drive {
            id,
            state: Arc::new(Mutex::new(State::new(owner_token.into()))),
        };
        self.drives.lock().insert(id, drive.clone());
        drive
    }

    /// The drive with this id.
    pub fn drive(&self, id: Uuid) -> Option<Drive> {
        self.drives.lock().get(&id).cloned()
    }

    /// Serves the store on a free port of loopback.
    ///
    /// # Errors
    /// If the port can't be opened.
    pub async fn serve(&self) -> std::io::Result<Running> {
        launch(self.clone(), ANY_PORT).await
    }

    /// Serves the store on this address, for example the one a stopped server had.
    ///
    /// # Errors
    /// If the address can't be opened.
    pub async fn start_on(&self, address: SocketAddr) -> std::io::Result<Running> {
        launch(self.clone(), address).await
    }
}

impl Service for CludzStore {
    async fn answer(self, request: Request) -> Response {
        http::answer(&self, request).await
    }

    fn fork(&self) -> Self {
        let drives = self
            .drives
            .lock()
            .iter()
            .map(|(id, drive)| (*id, drive.fork()))
            .collect();
        Self {
            drives: Arc::new(Mutex::new(drives)),
            assumptions: self.assumptions,
        }
    }
}

/// One storage, seen from its owner's side: every method acts at once and past the HTTP surface.
///
/// Paths are absolute within the drive (`/documents/report.pdf`); names are taken as they are.
#[derive(Debug, Clone)]
pub struct Drive {
    id: Uuid,
    state: Arc<Mutex<State>>,
}

impl Drive {
    /// The storage's id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The token with all rights.
    pub fn owner_token(&self) -> String {
        self.state.lock().owner_token().to_owned()
    }

    /// Gives the drive another owner token; the former one is unknown from now on.
    pub fn replace_owner_token(&self, secret: impl Into<String>) {
        self.state.lock().replace_owner_token(secret.into());
    }

    /// Makes a shared access token without any grant and returns its secret.
    pub fn share(&self, name: impl Into<String>) -> String {
        let secret = random_token();
        self.share_as(name, secret.clone());
        secret
    }

    /// Makes a shared access token with this secret, or gives the token of this name a new secret.
    pub fn share_as(&self, name: impl Into<String>, secret: impl Into<String>) {
        self.state.lock().share(name.into(), secret.into());
    }

    /// Forgets the shared access token of this name; whether there was one. Its grants stay for a later namesake.
    pub fn revoke(&self, name: &str) -> bool {
        self.state.lock().revoke(name)
    }

    /// Gives the token of this name explicit access to a folder, in place of what it inherits there.
    ///
    /// # Errors
    /// If there is no such token or folder.
    pub fn set_grant(&self, name: &str, folder: &str, grant: Grant) -> Result<(), StoreError> {
        self.state.lock().set_grant(name, &segments(folder), Some(grant))
    }

    /// Takes the explicit access away, so that the folder inherits again.
    ///
    /// # Errors
    /// If there is no such token or folder.
    pub fn clear_grant(&self, name: &str, folder: &str) -> Result<(), StoreError> {
        self.state.lock().set_grant(name, &segments(folder), None)
    }

    /// Makes a folder and all beneath it public or not.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn set_sharing(&self, folder: &str, sharing: Sharing) -> Result<(), StoreError> {
        self.state.lock().set_sharing(&segments(folder), sharing)
    }

    /// Lets the subscription run out or renews it.
    pub fn set_subscription(&self, subscription: Subscription) {
        self.state.lock().set_subscription(subscription);
    }

    /// Writes a file, in place of one that is there; missing folders on the way are made.
    ///
    /// # Errors
    /// If a file is in the way of a folder, or a folder in the way of the file.
    pub fn put(&self, path: &str, content: impl Into<Bytes>) -> Result<(), StoreError> {
        self.state.lock().put(&segments(path), content.into())
    }

    /// Makes a folder and those on the way to it; one that is there already is fine.
    ///
    /// # Errors
    /// If a file is in the way.
    pub fn mkdir(&self, path: &str) -> Result<(), StoreError> {
        self.state.lock().make_folders(&segments(path))
    }

    /// A file's content.
    pub fn read(&self, path: &str) -> Option<Bytes> {
        self.state.lock().read(&segments(path))
    }

    /// Whether a file or folder has this path.
    pub fn exists(&self, path: &str) -> bool {
        self.info(path).is_some()
    }

    /// What the store knows of a file or folder besides its content.
    pub fn info(&self, path: &str) -> Option<Info> {
        self.state.lock().info(&segments(path))
    }

    /// The names in a folder, sorted.
    pub fn list(&self, folder: &str) -> Option<Vec<String>> {
        self.state.lock().names(&segments(folder))
    }

    /// Removes a file, or a folder with all that is in it; whether there was one.
    pub fn remove(&self, path: &str) -> bool {
        self.state.lock().remove(&segments(path))
    }

    /// Moves a file or folder, in place of what is at the new path.
    ///
    /// # Errors
    /// If there is nothing to move, or no folder to move it to.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.state.lock().rename(&segments(from), &segments(to))
    }

    /// The time of the latest change, before which nothing new will be dated.
    pub fn latest_change(&self) -> Timestamp {
        self.state.lock().latest_change()
    }

    fn fork(&self) -> Self {
        Self {
            id: self.id,
            state: Arc::new(Mutex::new(self.state.lock().clone())),
        }
    }
}

fn random_token() -> String {
    Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests;
