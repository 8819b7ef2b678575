//! A strict stand-in for ReductStore 1.21.
//!
//! Responsible for the part of `/api/v1` that a file client needs, as the provider's documentation describes it and as
//! it was measured on a server 1.21.5 ("measured" in comments): server, token, bucket, entry and record endpoints,
//! label updates, queries per entry with their batches, removal, quotas. Unlike the Cludz stand-in it isn't stricter
//! than the real server where that one is known to be lenient, so that a client sees the same from both.
//!
//! Left out: query links, attachments (`$meta`), the multi-entry `/io` API, batched writes and label updates (501),
//! replications and lifecycles, the `$system` bucket, rate limits, IP allow-lists (kept and shown, not enforced), the
//! limit on the number of headers, extensions, and operators of `when` beyond `$eq`, `$ne`, `$and`, `$or` and `$limit`.
//! Different on purpose: removal is over after a number of looks at what is removed instead of after some time
//! ([`Removal`]); a continuous query waits a second for news, not fifteen; sizes on disk are estimates; `oldest_record`
//! is exact after removals; a read never returns bytes of a neighbouring record.

mod condition;
mod failure;
mod http;
mod names;
mod queries;
mod records;
mod settings;
mod storage;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use uuid::Uuid;

use self::queries::Queries;
use self::settings::SettingsUpdate;
use self::storage::{Bucket, Labels, NewRecord, RecordBody, Storage};
use self::tokens::{NewToken, Origin, Tokens};
pub use self::tokens::{Permissions, ROOT_TOKEN};
use super::{ANY_PORT, Running, Service, launch};

/// Whether the server asks for tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Yes; this is the value of the token with full access (`RS_API_TOKEN`).
    Token(String),
    /// No (`RS_DISABLE_AUTH=true`).
    Disabled,
}

/// How long a removed bucket or entry stays around as `DELETING`. The real server removes in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Not at all.
    AtOnce,
    /// The next so many requests that look at it are told that it is being deleted.
    AfterSightings(u32),
}

/// Which form of the token API a store speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenApi {
    /// That of 1.21.
    Current,
    /// That of the first servers, as the provider's documentation of version 1.0 has it: no `/me`, no end of a token, flat
    /// bodies, lists of names and times.
    First,
}

/// How a store behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether the server asks for tokens.
    pub auth: Auth,
    /// How removal goes.
    pub removal: Removal,
    /// The form of the token API.
    pub token_api: TokenApi,
}

impl Default for Options {
    /// A random full-access token; one look at what is being removed.
    fn default() -> Self {
        Self {
            auth: Auth::Token(Uuid::new_v4().simple().to_string()),
            removal: Removal::AfterSightings(1),
            token_api: TokenApi::Current,
        }
    }
}

/// A record with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The content.
    pub content: Bytes,
    /// Its content type.
    pub content_type: String,
    /// Labels by name.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// A server's content and tokens; clones are handles on the same.
///
/// The methods act at once and past the HTTP surface, as another client or the administrator would.
#[derive(Debug, Clone)]
pub struct ReductStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    auth: Auth,
    state: Mutex<State>,
    /// Told about every change, for continuous queries.
    changed: Notify,
}

#[derive(Debug, Clone)]
struct State {
    tokens: Tokens,
    token_api: TokenApi,
    storage: Storage,
    queries: Queries,
    /// The number of the latest upload.
    uploads: u64,
    started: Instant,
}

impl Default for ReductStore {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl ReductStore {
    /// An empty store.
    pub fn new(options: Options) -> Self {
        let tokens = match &options.auth {
            Auth::Token(value) => Tokens::with_root(value.clone()),
            Auth::Disabled => Tokens::Disabled,
        };
        let state = State {
            tokens,
            token_api: options.token_api,
            storage: Storage::new(options.removal),
            queries: Queries::default(),
            uploads: 0,
            started: Instant::now(),
        };
        Self::from_parts(options.auth, state)
    }

    fn from_parts(auth: Auth, state: State) -> Self {
        Self {
            shared: Arc::new(Shared {
                auth,
                state: Mutex::new(state),
                changed: Notify::new(),
            }),
        }
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

    /// The value of the token with full access; nothing if tokens don't matter.
    pub fn root_token(&self) -> Option<String> {
        match &self.shared.auth {
            Auth::Token(value) => Some(value.clone()),
            Auth::Disabled => None,
        }
    }

    /// Makes a token and returns its value; nothing if there is one of that name or tokens don't matter.
    pub fn create_token(&self, name: &str, permissions: Permissions) -> Option<String> {
        let token = NewToken::new(name, permissions);
        let value = token.value();
        self.lock().tokens.create(name, token).ok().map(|_| value)
    }

    /// Removes a token made through the API; whether there was one.
    pub fn revoke_token(&self, name: &str) -> bool {
        self.lock().tokens.remove(name).is_ok()
    }

    /// The names of all tokens, sorted; none if tokens don't matter.
    pub fn token_names(&self) -> Vec<String> {
        self.lock().tokens.names()
    }

    /// Replaces a token's permissions; whether there is such a token.
    pub fn set_permissions(&self, name: &str, permissions: Permissions) -> bool {
        self.lock().tokens.set_permissions(name, permissions)
    }

    /// Lets a token's time be over; whether there is such a token.
    pub fn expire_token(&self, name: &str) -> bool {
        self.lock().tokens.expire(name)
    }

    /// Makes a bucket without quota; whether the name is valid and was free.
    pub fn create_bucket(&self, name: &str) -> bool {
        self.lock()
            .storage
            .create(name, &SettingsUpdate::default(), Origin::Api)
            .is_ok()
    }

    /// Makes a bucket that the API can't remove, rename or change; whether the name is valid and was free.
    pub fn provision_bucket(&self, name: &str) -> bool {
        self.lock()
            .storage
            .create(name, &SettingsUpdate::default(), Origin::Provisioned)
            .is_ok()
    }

    /// Makes an entry with its parents; whether that could be done.
    pub fn create_entry(&self, bucket: &str, entry: &str) -> bool {
        self.in_bucket(bucket, |storage| storage.entry_or_new(bucket, entry).is_ok())
            .unwrap_or(false)
    }

    /// Writes a record in place of one with the same timestamp; whether the bucket is there and has room.
    pub fn put(&self, bucket: &str, entry: &str, ts: u64, record: StoredRecord) -> bool {
        let written = self.in_bucket(bucket, |storage| {
            // Nothing to replace is as good as something replaced.
            let _ = storage.remove_record(bucket, entry, ts);
            let StoredRecord {
                content,
                content_type,
                labels,
            } = record;
            let new = NewRecord {
                length: content.len() as u64,
                content_type,
                labels,
            };
            let begun = storage.begin_write(bucket, entry, ts, new, 0).is_ok();
            if begun {
                storage.end_write(entry, ts, 0, Some(content));
            }
            begun
        });
        self.shared.changed.notify_waiters();
        written.unwrap_or(false)
    }

    /// A record, if it is complete.
    pub fn read(&self, bucket: &str, entry: &str, ts: u64) -> Option<StoredRecord> {
        self.in_bucket(bucket, |storage| {
            let record = storage.peek(entry)?.records.get(&ts)?;
            let RecordBody::Complete(content) = &record.body else {
                return None;
            };
            let (content_type, labels): (String, Labels) = (record.content_type.clone(), record.labels.clone());
            Some(StoredRecord {
                content: content.clone(),
                content_type,
                labels,
            })
        })?
    }

    /// Removes a record; whether there was one.
    pub fn remove(&self, bucket: &str, entry: &str, ts: u64) -> bool {
        self.in_bucket(bucket, |storage| storage.remove_record(bucket, entry, ts).is_ok())
            .unwrap_or(false)
    }

    /// Removes an entry with all beneath it, at once; whether there was one.
    pub fn remove_entry(&self, bucket: &str, entry: &str) -> bool {
        let removed = self.in_bucket(bucket, |storage| {
            storage.remove_entry(bucket, entry, Removal::AtOnce).is_ok()
        });
        removed.unwrap_or(false)
    }

    /// Leaves a record as an upload that was cut off leaves it; whether there is such a record.
    pub fn break_record(&self, bucket: &str, entry: &str, ts: u64) -> bool {
        self.in_bucket(bucket, |storage| storage.break_record(entry, ts))
            .unwrap_or(false)
    }

    /// The names of a bucket's entries, sorted.
    pub fn entries(&self, bucket: &str) -> Option<Vec<String>> {
        self.in_bucket(bucket, |storage| storage.names())
    }

    /// The timestamps of an entry's records, broken and unfinished ones included.
    pub fn timestamps(&self, bucket: &str, entry: &str) -> Option<Vec<u64>> {
        self.in_bucket(bucket, |storage| {
            storage.peek(entry).map(|entry| entry.records.keys().copied().collect())
        })?
    }

    /// Forgets every open query, as their time running out would.
    pub fn expire_queries(&self) {
        self.lock().queries.expire_all();
    }

    fn in_bucket<T>(&self, bucket: &str, act: impl FnOnce(&mut Bucket) -> T) -> Option<T> {
        self.lock().storage.peek(bucket).map(act)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }
}

impl StoredRecord {
    /// Content without labels and of no particular type.
    pub fn plain(content: impl Into<Bytes>) -> Self {
        Self {
            content: content.into(),
            content_type: "application/octet-stream".to_owned(),
            labels: Labels::new(),
        }
    }

    /// The same with one more label.
    #[must_use]
    pub fn with_label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }
}

impl Service for ReductStore {
    async fn answer(self, request: Request) -> Response {
        http::answer(self, request).await
    }

    fn fork(&self) -> Self {
        Self::from_parts(self.shared.auth.clone(), self.lock().clone())
    }
}

#[cfg(test)]
mod tests;
