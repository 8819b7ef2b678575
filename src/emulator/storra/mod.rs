//! A strict stand-in for Storra Cloud.
//!
//! Responsible for `/api/v1/client/…` with `X-API-Key` and for the dashboard's `/api/v1/dashboard/users/me/api-keys`
//! with session cookies, as the provider documents them: authentication, user-management, file-listing, file-upload,
//! file-download, folder-management, file-operations, file-sharing, rate-limiting and error-handling. What none of
//! these pages says is an assumption and stands in [`Assumptions`]; what they don't allow is refused.
//!
//! It isn't responsible for logging in to the dashboard, for the rest of the dashboard, and for the addresses of public
//! items: the documentation has no request for them. Content lives in memory.

mod accounts;
mod answers;
mod assumptions;
mod client;
mod clock;
mod content;
mod dashboard;
mod grants;
mod path;
mod rates;
mod refusal;
mod request;
mod tree;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use uuid::Uuid;

use super::{ANY_PORT, Running, Service, launch};
use accounts::{AccountState, World, prefix_of};
pub use accounts::{KeyInfo, Plan, UploadPreference};
pub use assumptions::{
    Assumptions, CollidingIds, DownloadUrl, FolderDelete, FolderItems, MissingFolder, MissingParents, MoveOnto,
    Overwrite, Ranges, ReservedNames, SharedPath, Validation, Visibility,
};
pub use grants::Level;
use path::ItemPath;
pub use rates::Bucket;
use tree::{Content, ItemKind, mime_of};
pub use tree::{StoreError, TrashUse};

/// Several accounts behind one server; clones are handles on the same content.
#[derive(Debug, Clone)]
pub struct StorraStore {
    world: Arc<Mutex<World>>,
}

impl Default for StorraStore {
    fn default() -> Self {
        Self::new(Assumptions::default())
    }
}

impl StorraStore {
    /// A store without accounts.
    pub fn new(assumptions: Assumptions) -> Self {
        Self {
            world: Arc::new(Mutex::new(World::new(assumptions))),
        }
    }

    /// Adds an account with Cloud Pro, without keys and items.
    pub fn add_account(&self, email: impl Into<String>) -> Account {
        let id = self.world.lock().add_account(email.into());
        Account {
            id,
            world: Arc::clone(&self.world),
        }
    }

    /// Gives a bucket another limit than the documented one, for every key and at once; windows stay as long as they are.
    pub fn set_limit(&self, bucket: Bucket, requests: u32) {
        self.world.lock().limits.set(bucket, requests);
    }

    /// Gives every bucket a limit that nothing reaches.
    pub fn lift_limits(&self) {
        for bucket in Bucket::ALL {
            self.set_limit(bucket, u32::MAX);
        }
    }

    /// The time at the server.
    pub fn now(&self) -> Timestamp {
        self.world.lock().clock.now()
    }

    /// Stops the clock, so that only [`StorraStore::advance`] moves it.
    pub fn stop_clock(&self) {
        self.world.lock().clock.stop();
    }

    /// Moves the clock on: windows of rates roll, the trash expires.
    pub fn advance(&self, by: Duration) {
        let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
        self.world.lock().clock.advance(by);
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

impl Service for StorraStore {
    async fn answer(self, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        if let Some(rest) = path.strip_prefix(client::BASE) {
            client::answer(&self, rest, request).await
        } else if let Some(rest) = path.strip_prefix(dashboard::BASE) {
            dashboard::answer(&self, rest, request).await
        } else {
            request::discard(request).await;
            refusal::Refusal::NoRoute.into_response(Validation::BadRequest)
        }
    }

    fn fork(&self) -> Self {
        Self {
            world: Arc::new(Mutex::new(self.world.lock().clone())),
        }
    }
}

/// One account, seen from its owner's side: every method acts at once, past the HTTP surface and its limits.
///
/// Paths are those of the API (`documents/report.pdf`).
#[derive(Debug, Clone)]
pub struct Account {
    id: Uuid,
    world: Arc<Mutex<World>>,
}

/// What the store knows of a file or folder besides its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The id of the API: `file_` or `folder_` and 8 digits.
    pub id: String,
    /// The UUID that the id is the start of.
    pub uuid: Uuid,
    /// File or folder.
    pub kind: InfoKind,
    /// As the API shows it: grants make a private item a shared one.
    pub visibility: Visibility,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed, moved, or shown to others.
    pub updated: Timestamp,
}

/// File or folder, and what only one of them has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InfoKind {
    /// A file.
    File {
        /// Its length in bytes.
        size: u64,
        /// Its MIME type.
        mime: String,
        /// The value of its `ETag` header.
        etag: String,
    },
    /// A folder.
    Folder,
}

impl Account {
    /// The account's email address.
    pub fn email(&self) -> String {
        self.with(|account, _| account.email.clone())
    }

    /// Lets the owner subscribe or unsubscribe.
    pub fn set_plan(&self, plan: Plan) {
        self.with(|account, _| account.plan = plan);
    }

    /// Turns the trash on or off; what is in it stays.
    pub fn set_trash(&self, trash: TrashUse) {
        self.with(|account, _| account.trash_use = trash);
    }

    /// Makes an API key and returns its secret, which the store itself forgets.
    pub fn create_key(&self, label: impl Into<String>) -> String {
        self.with(|account, now| account.create_key(label.into(), now).0)
    }

    /// Makes an API key with this secret, in place of one that begins with the same 11 characters.
    pub fn create_key_as(&self, label: impl Into<String>, secret: &str) {
        self.with(|account, now| account.add_key(label.into(), secret, now));
    }

    /// Revokes a key, given its secret or its prefix; whether there was one.
    pub fn revoke_key(&self, key: &str) -> bool {
        self.with(|account, _| account.revoke_key(prefix_of(key)))
    }

    /// The keys that aren't revoked, in the order they were made.
    pub fn keys(&self) -> Vec<KeyInfo> {
        self.with(|account, _| account.keys.iter().map(|key| key.info.clone()).collect())
    }

    /// Logs in to the dashboard and returns the session's cookies, as the value of a `Cookie` header.
    pub fn open_session(&self) -> String {
        self.with(|account, _| account.open_session())
    }

    /// Logs out of the session with these cookies; whether there was one.
    pub fn end_session(&self, cookies: &str) -> bool {
        self.with(|account, _| account.end_session(cookies))
    }

    /// Requests of a key, given its secret or its prefix, in the bucket's window now; `None` for an unknown key.
    pub fn used(&self, key: &str, bucket: Bucket) -> Option<u32> {
        let mut world = self.world.lock();
        let now = world.clock.now();
        let mut keys = world.account(self.id)?.keys.iter_mut();
        let key = keys.find(|known| known.info.prefix == prefix_of(key))?;
        Some(key.windows.used(bucket, now))
    }

    /// Requests of all keys that counted against the bucket, since the account was made.
    pub fn counted(&self, bucket: Bucket) -> u64 {
        self.with(|account, _| account.totals.get(&bucket).copied().unwrap_or(0))
    }

    /// Writes a file, in place of one that is there and under its id; missing folders on the way are made. New files are
    /// private.
    ///
    /// # Errors
    /// If the path is none, or something of another kind is in the way.
    pub fn put(&self, path: &str, content: impl Into<Bytes>) -> Result<(), StoreError> {
        let path = item_path(path)?;
        let content = Content::new(content.into(), mime_of(path.name()));
        self.with(|account, now| account.tree.put(&path, content, now))
    }

    /// Makes a folder and those on the way to it; one that is there already is fine.
    ///
    /// # Errors
    /// If the path is none, or a file is in the way.
    pub fn mkdir(&self, path: &str) -> Result<(), StoreError> {
        let path = item_path(path)?;
        self.with(|account, now| account.tree.make_folders(&path, now))
    }

    /// The content of the file that the path means.
    pub fn read(&self, path: &str) -> Option<Bytes> {
        let path = item_path(path).ok()?;
        self.with(|account, _| Some(account.tree.at(&path)?.content()?.bytes.clone()))
    }

    /// The contents of all files with this path, the oldest first: uploads may have made several.
    pub fn read_all(&self, path: &str) -> Vec<Bytes> {
        let Ok(path) = item_path(path) else {
            return Vec::new();
        };
        self.with(|account, _| {
            let files = account.tree.files().filter(|item| item.path == path);
            files.filter_map(|item| Some(item.content()?.bytes.clone())).collect()
        })
    }

    /// Whether a file or folder has this path.
    pub fn exists(&self, path: &str) -> bool {
        self.info(path).is_some()
    }

    /// What the store knows of a file or folder besides its content.
    pub fn info(&self, path: &str) -> Option<Info> {
        let path = item_path(path).ok()?;
        self.with(|account, _| {
            let item = account.tree.at(&path)?;
            let kind = match &item.kind {
                ItemKind::Folder => InfoKind::Folder,
                ItemKind::File(content) => InfoKind::File {
                    size: item.size(),
                    mime: content.mime.clone(),
                    etag: content.etag.clone(),
                },
            };
            Some(Info {
                id: item.short_id(),
                uuid: item.id,
                kind,
                visibility: item.shown_visibility(),
                created: item.created,
                updated: item.updated,
            })
        })
    }

    /// The names in a folder, sorted, twice where two files share one; the root is the empty path.
    pub fn list(&self, folder: &str) -> Option<Vec<String>> {
        let folder = ItemPath::parse(folder).ok()?;
        self.with(|account, _| {
            let names = account.tree.children(&folder).map(|item| item.path.name().to_owned());
            let mut names: Vec<String> = names.collect();
            names.sort();
            account.tree.is_folder(&folder).then_some(names)
        })
    }

    /// Every path with how visible it is, sorted.
    pub fn visibilities(&self) -> Vec<(String, Visibility)> {
        self.with(|account, _| {
            let items = account.tree.items().iter();
            let mut all: Vec<_> = items
                .map(|item| (item.path.to_string(), item.shown_visibility()))
                .collect();
            all.sort_by(|(a, _), (b, _)| a.cmp(b));
            all
        })
    }

    /// Makes an item visible to others or not.
    ///
    /// # Errors
    /// If nothing is at the path.
    pub fn set_visibility(&self, path: &str, visibility: Visibility) -> Result<(), StoreError> {
        let path = item_path(path)?;
        self.with(|account, now| {
            let item = account.tree.at_mut(&path).ok_or(StoreError::Missing)?;
            item.visibility = visibility;
            item.updated = now;
            Ok(())
        })
    }

    /// Grants an item to somebody.
    ///
    /// # Errors
    /// If nothing is at the path, or they have a grant already.
    pub fn grant(&self, path: &str, email: &str, level: Level) -> Result<(), StoreError> {
        let path = item_path(path)?;
        self.with(|account, now| {
            let item = account.tree.at_mut(&path).ok_or(StoreError::Missing)?;
            item.grant(email, level, now).map(drop).map_err(|_| StoreError::Taken)
        })
    }

    /// Gives an item another UUID, for example one that begins like another's.
    ///
    /// # Errors
    /// If nothing is at the path.
    pub fn set_uuid(&self, path: &str, uuid: Uuid) -> Result<(), StoreError> {
        let path = item_path(path)?;
        self.with(|account, _| {
            account.tree.at_mut(&path).ok_or(StoreError::Missing)?.id = uuid;
            Ok(())
        })
    }

    /// Removes a file, or a folder with all that is in it, past the trash; whether there was one.
    pub fn remove(&self, path: &str) -> bool {
        let Ok(path) = item_path(path) else {
            return false;
        };
        self.with(|account, _| account.tree.remove(&path))
    }

    /// Moves a file or folder.
    ///
    /// # Errors
    /// Those of the API's move.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let (from, to) = (item_path(from)?, item_path(to)?);
        self.with(|account, now| account.tree.relocate(&from, &to, now).map(drop))
    }

    /// The paths of what was deleted and can be restored, the latest first.
    pub fn trash(&self) -> Vec<String> {
        let mut world = self.world.lock();
        let now = world.clock.now();
        let Some(account) = world.account(self.id) else {
            return Vec::new();
        };
        let tops = account.tree.trash(now).into_iter().filter_map(|trashed| trashed.top());
        tops.map(|item| item.path.to_string()).collect()
    }

    /// Bytes of all files, the trash's too.
    pub fn storage_used(&self) -> u64 {
        self.with(|account, _| account.tree.used())
    }

    /// Acts on the account at the time of a new change.
    fn with<T>(&self, act: impl FnOnce(&mut AccountState, Timestamp) -> T) -> T {
        let mut world = self.world.lock();
        let now = world.clock.tick();
        match world.account(self.id) {
            Some(account) => act(account, now),
            None => unreachable!("accounts are never removed"),
        }
    }
}

fn item_path(path: &str) -> Result<ItemPath, StoreError> {
    match ItemPath::parse(path) {
        Ok(path) if !path.is_root() => Ok(path),
        _ => Err(StoreError::Unusable),
    }
}

#[cfg(test)]
mod tests;
