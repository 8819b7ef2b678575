//! A strict stand-in for dStor.
//!
//! Responsible for what the provider's public material says of `https://api.dstor.cloud`: exchanging API keys and logins
//! for access tokens (developer tokens), uploading in announced posts with a status to watch (the API's README), and
//! reading by hash (the source of the serving nodes). What none of these says is an assumption and stands in
//! [`Assumptions`]; what they don't allow is refused.
//!
//! Hashes only look like IPFS's: they are taken of the bytes, without UnixFS framing. Not offered: the API of
//! 2019 (`/v0`), the upload of before 2022, a token in the query, rate limits and quotas (nothing documents any), and
//! listing, deleting and renaming, unless a test makes up paths for them ([`Console`]). Content lives in memory.

mod accounts;
mod assumptions;
mod clock;
mod console;
mod endpoint;
mod gateway;
mod http;
mod jwt;
mod objects;
mod uploads;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use secrecy::SecretString;
use uuid::Uuid;

pub use self::accounts::StoredFile;
use self::accounts::{Accounts, Means, Owner};
pub use self::assumptions::{
    Assumptions, Console, Excess, MissingContent, MissingDirectory, Offered, Processing, Redirect, Revocation, SameName,
};
use self::clock::Clock;
pub use self::endpoint::Endpoint;
use self::jwt::SigningKey;
use self::objects::{Object, Objects};
use self::uploads::Upload;
pub use self::uploads::{Stage, UploadFailure};
use super::{ANY_PORT, Running, Service, launch};

/// Characters of an API key (documented).
pub const KEY_LENGTH: usize = 64;

/// One of the provider's two worlds; keys, tokens and content of one mean nothing to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// `api.dstor.cloud`.
    Production,
    /// `api.testnet.dstor.cloud`.
    Testnet,
}

/// A network with its accounts and content; clones are handles on the same.
#[derive(Debug, Clone)]
pub struct DstorStore {
    network: Network,
    assumptions: Arc<Assumptions>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone)]
struct State {
    clock: Clock,
    accounts: Accounts,
    objects: Objects,
    /// By upload token.
    uploads: BTreeMap<String, Upload>,
    failures: VecDeque<UploadFailure>,
    processing: Processing,
    /// Signs time-limited hashes.
    links: SigningKey,
    exchanges: usize,
}

impl DstorStore {
    /// A network without accounts.
    pub fn new(network: Network, assumptions: Assumptions) -> Self {
        let state = State {
            clock: Clock::default(),
            accounts: Accounts::new(assumptions::issuer(network)),
            objects: Objects::default(),
            uploads: BTreeMap::new(),
            failures: VecDeque::new(),
            processing: assumptions.processing,
            links: SigningKey::random(),
            exchanges: 0,
        };
        Self {
            network,
            assumptions: Arc::new(assumptions),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Which network this is.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Opens an account without API keys; it has one directory, `Library`.
    pub fn add_account(&self, email: impl Into<String>, password: impl Into<String>) -> Account {
        let password = SecretString::from(password.into());
        let id = self.state.lock().accounts.add(email.into(), password);
        Account {
            store: self.clone(),
            id,
        }
    }

    /// Serves the network on a free port of loopback.
    ///
    /// # Errors
    /// If the port can't be opened.
    pub async fn serve(&self) -> std::io::Result<Running> {
        launch(self.clone(), ANY_PORT).await
    }

    /// Serves the network on this address, for example the one a stopped server had.
    ///
    /// # Errors
    /// If the address can't be opened.
    pub async fn serve_on(&self, address: SocketAddr) -> std::io::Result<Running> {
        launch(self.clone(), address).await
    }

    /// How many access tokens have been handed out over HTTP.
    pub fn exchanges(&self) -> usize {
        self.state.lock().exchanges
    }

    /// The time by the server's clock, which also dates its answers.
    pub fn now(&self) -> Timestamp {
        self.state.lock().clock.now()
    }

    /// Stops the server's clock at this time.
    pub fn stop_clock_at(&self, time: Timestamp) {
        self.state.lock().clock.stop_at(time);
    }

    /// Puts the server's clock, running or stopped, forward, or back by a negative duration.
    pub fn shift_clock(&self, by: SignedDuration) {
        self.state.lock().clock.shift(by);
    }

    /// Sets how long uploads take from now on, those under way included.
    pub fn set_processing(&self, processing: Processing) {
        self.state.lock().processing = processing;
    }

    /// Lets an upload fail: the one whose token is next asked for and hasn't been chosen by an earlier call.
    pub fn fail_next_upload(&self, stage: Stage, explanation: impl Into<String>) {
        let explanation = explanation.into();
        self.state
            .lock()
            .failures
            .push_back(UploadFailure { stage, explanation });
    }

    /// Stores content that belongs to no account; its hash.
    pub fn put(&self, content: impl Into<Bytes>) -> String {
        self.state.lock().objects.put(content.into())
    }

    /// Stores a hashed folder that belongs to no account, of files by their relative paths; its hash.
    pub fn put_folder<P: AsRef<str>, C: Into<Bytes>>(&self, files: impl IntoIterator<Item = (P, C)>) -> String {
        let files: Vec<_> = files
            .into_iter()
            .map(|(path, content)| (path.as_ref().split('/').map(str::to_owned).collect(), content.into()))
            .collect();
        self.state.lock().objects.put_folder("", &files, &mut Vec::new())
    }

    /// The content of this hash, if it is a file's.
    pub fn read(&self, hash: &str) -> Option<Bytes> {
        match self.state.lock().objects.get(hash) {
            Some(Object::File(content)) => Some(content.clone()),
            _ => None,
        }
    }

    /// The hashes of all files and folders, sorted.
    pub fn hashes(&self) -> Vec<String> {
        self.state.lock().objects.hashes()
    }

    /// Loses the content of this hash, as nodes do with what nobody keeps; whether it was there.
    pub fn forget(&self, hash: &str) -> bool {
        self.state.lock().objects.forget(hash)
    }

    /// A form of this hash that the gateway accepts for so long by the server's clock.
    pub fn time_limited(&self, hash: &str, life: SignedDuration) -> String {
        let state = self.state.lock();
        gateway::sign(&state.links, hash, state.clock.seconds().saturating_add(life.as_secs()))
    }
}

impl Service for DstorStore {
    async fn answer(self, request: Request) -> Response {
        http::answer(&self, request).await
    }

    fn fork(&self) -> Self {
        Self {
            network: self.network,
            assumptions: Arc::clone(&self.assumptions),
            state: Arc::new(Mutex::new(self.state.lock().clone())),
        }
    }
}

/// One account, seen past the HTTP surface: every method acts at once.
///
/// Paths begin with `/` and end with the file's name.
#[derive(Debug, Clone)]
pub struct Account {
    store: DstorStore,
    id: Uuid,
}

impl Account {
    /// The account's id, the `sub` of its tokens.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Makes a random API key, in place of one of the same name, which is revoked. The name is what the log of requests
    /// shows.
    pub fn add_key(&self, name: impl Into<String>) -> SecretString {
        let key: String = [Uuid::new_v4(), Uuid::new_v4()]
            .map(|half| half.simple().to_string())
            .concat();
        let key = SecretString::from(key);
        self.with(|owner| owner.set(Means::Key(name.into()), key.clone()));
        key
    }

    /// Makes an API key with this value, in place of one of the same name, which is revoked. Requests can only carry one
    /// of [`KEY_LENGTH`] characters.
    pub fn add_key_as(&self, name: impl Into<String>, key: impl Into<String>) {
        let key = SecretString::from(key.into());
        self.with(|owner| owner.set(Means::Key(name.into()), key));
    }

    /// Revokes the key of this name; whether there was one that was good.
    pub fn revoke_key(&self, name: &str) -> bool {
        self.with(|owner| owner.revoke(&Means::Key(name.to_owned())))
            .unwrap_or(false)
    }

    /// Gives the account another password.
    pub fn set_password(&self, password: impl Into<String>) {
        let password = SecretString::from(password.into());
        self.with(|owner| owner.set(Means::Login, password));
    }

    /// Lets every access token that the account has been given so far expire now.
    pub fn expire_tokens(&self) {
        self.with(Owner::end_tokens);
    }

    /// The account's files and hashed folders, in the order they were stored.
    pub fn files(&self) -> Vec<StoredFile> {
        self.with(|owner| owner.files.clone()).unwrap_or_default()
    }

    /// The latest content stored at this path.
    pub fn read(&self, path: &str) -> Option<Bytes> {
        let file = self.files().into_iter().rev().find(|file| file.path == path)?;
        self.store.read(&file.hash)
    }

    /// The account's directories, without slashes at their ends, sorted.
    pub fn directories(&self) -> Vec<String> {
        self.with(|owner| owner.directories()).unwrap_or_default()
    }

    /// Stores a file "by another client", whether or not its path is taken; its hash.
    pub fn put(&self, path: &str, content: impl Into<Bytes>) -> String {
        let content = content.into();
        let mut state = self.store.state.lock();
        let size = content.len() as u64;
        let hash = state.objects.put(content);
        let file = StoredFile {
            path: path.to_owned(),
            hash: hash.clone(),
            size,
            created: state.clock.now(),
            comment: None,
        };
        if let Some(owner) = state.accounts.owner(self.id) {
            let directory = path.trim_start_matches('/').rsplit_once('/');
            owner.enter(
                directory.map_or("", |(directory, _)| directory),
                MissingDirectory::Create,
            );
            owner.keep(file, SameName::KeepBoth);
        }
        hash
    }

    /// Takes the files of this path out of the account; how many there were.
    pub fn remove(&self, path: &str) -> usize {
        self.with(|owner| owner.files.extract_if(.., |file| file.path == path).count())
            .unwrap_or(0)
    }

    fn with<T>(&self, action: impl FnOnce(&mut Owner) -> T) -> Option<T> {
        self.store.state.lock().accounts.owner(self.id).map(action)
    }
}

#[cfg(test)]
mod tests;
