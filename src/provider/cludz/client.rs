//! The requests to Cludz Storage: one method each, and the knowledge of rights that their answers bring.
//!
//! How several requests make one safe change is in `store`, how bytes are checked in `read`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::join3;
use futures_util::stream::{self, StreamExt};
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use tokio::sync::RwLock;
use tracing::debug;

use super::names;
use super::passing::PassingNames;
use super::wire::{Described, Detail, Envelope, Listed};
use crate::api::Api;
use crate::model::{Action, Entry, Error, ErrorKind, Name, ObjectKey, Result, Rights};
use crate::net::{Body, Replay, Request, Response};
use crate::provider::learned_rights::LearnedRights;

/// Folders of one listing whose rights are asked for; further ones show what they inherit until they are looked at.
const MAX_FOLDERS_ASKED: usize = 64;
/// Folders asked about at the same time.
const FOLDERS_AT_ONCE: usize = 8;
/// What no JSON parser takes, to ask for the right to write without writing.
const NO_JSON: &[u8] = b"{";
/// Attempts of a change whose outcome stayed unknown and which then proved not to have happened.
const ATTEMPTS: u32 = 3;

/// Whether rights are found out by asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    Probe,
    /// They are given, or there is no token: Cludz lets nobody write or delete without one.
    Never,
}

/// What suffices to believe in a rename whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The new name is one that nobody else can have made: it exists.
    NewExists,
    /// The new name exists and the old one is gone.
    OldIsGone,
}

/// What shows that a change happened though its answer was lost.
#[derive(Clone, Copy)]
enum Proof<'a> {
    Gone(&'a str),
    Renamed {
        old: &'a str,
        new: &'a str,
        evidence: Evidence,
    },
}

/// Whether a path is addressed as a folder, with a slash at its end as in all of the documentation's examples.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Folder,
}

pub(super) struct Client {
    api: Arc<Api>,
    storage: String,
    pub(super) rights: LearnedRights,
    asking: Asking,
    /// Set once `?detail=true` came without times; then listings are asked for them.
    details_lack_times: AtomicBool,
    /// Set once an upload to a taken name was refused: the documentation leaves open whether files can be overwritten.
    refuses_overwriting: AtomicBool,
    pub(super) passing: PassingNames,
    /// Held for writing while a folder gets another name, for reading by whoever changes several names in one.
    pub(super) folders: RwLock<()>,
}

impl Client {
    pub(super) fn new(api: Arc<Api>, storage: uuid::Uuid, assumed: Rights, asking: Asking) -> Self {
        Self {
            api,
            storage: storage.to_string(),
            rights: LearnedRights::new(assumed),
            asking,
            details_lack_times: AtomicBool::new(false),
            refuses_overwriting: AtomicBool::new(false),
            passing: PassingNames::default(),
            folders: RwLock::default(),
        }
    }

    pub(super) fn identity(&self) -> String {
        format!("cludz:{}storage/{}", self.api.base(), self.storage)
    }

    pub(super) fn refuses_overwriting(&self) -> bool {
        self.refuses_overwriting.load(Ordering::Relaxed)
    }

    fn url(&self, path: &str, form: Form) -> Url {
        let parts = path.split('/').filter(|part| !part.is_empty());
        let slash = (form == Form::Folder || path.is_empty()).then_some("");
        self.api
            .url(["storage", &self.storage].into_iter().chain(parts).chain(slash))
    }

    /// Sends a change and reads its answer to the end, so that the connection can be used again.
    async fn change(&self, request: &Request) -> Result<Bytes> {
        let response = self.api.call(request).await?;
        // The status said that it is done; what follows is only words.
        Ok(response.bytes(request.purpose).await.unwrap_or_default())
    }

    /// What `?detail=true` tells, which may lack the time.
    pub(super) async fn detail(&self, path: &str) -> Result<Described> {
        let purpose = "look at the file";
        let mut url = self.url(path, Form::Plain);
        url.query_pairs_mut().append_pair("detail", "true");
        let response = self.api.call(&Request::get(url, purpose)).await?;
        if is_download(&response) {
            return Err(Error::bad_data(format!(
                "{purpose}: the provider sent content instead of facts"
            )));
        }
        let envelope: Envelope<Detail> = response.json(purpose).await?;
        Ok(Described::from(&envelope.data))
    }

    /// Kind, size, version and time. Where details have no times the folder's listing is asked, which has all of it;
    /// the storage's own root, and what is in a folder that cannot be listed, then have no time.
    pub(super) async fn describe(&self, path: &str) -> Result<Described> {
        if self.details_lack_times.load(Ordering::Relaxed)
            && let Some(described) = self.describe_by_listing(path).await?
        {
            return Ok(described);
        }
        let described = self.detail(path).await?;
        if described.modified.is_some() || path.is_empty() {
            return Ok(described);
        }
        if !self.details_lack_times.swap(true, Ordering::Relaxed) {
            debug!("the provider's details have no times; listings are used for them");
        }
        Ok(self.describe_by_listing(path).await?.unwrap_or(described))
    }

    /// `None` when the folder has no listing for this credential.
    async fn describe_by_listing(&self, path: &str) -> Result<Option<Described>> {
        if path.is_empty() {
            return Ok(None);
        }
        let (folder, name) = split(path);
        match self.list(folder).await {
            Ok(items) => match items.iter().find(|item| item.name == name) {
                Some(item) => Ok(Some(Described::from(item))),
                None => Err(Error::not_found(format_args!("{name:?}"))),
            },
            Err(error) if error.kind() == ErrorKind::Denied => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let purpose = "list the folder";
        let not_a_directory = || Error::new(ErrorKind::NotADirectory, format!("{folder:?} is not a folder"));
        match self
            .api
            .call(&Request::get(self.url(folder, Form::Folder), purpose))
            .await
        {
            Ok(response) if is_download(&response) => Err(not_a_directory()),
            Ok(response) => Ok(response.json::<Envelope<Vec<Listed>>>(purpose).await?.data),
            // A file with a slash behind it: what the service answers isn't documented.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                match self.detail(folder).await {
                    Ok(described) if !described.is_directory() => Err(not_a_directory()),
                    Err(gone) if gone.kind() == ErrorKind::NotFound => Err(gone),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for a file's bytes, all of them or a range.
    pub(super) async fn download(&self, path: &str, range: Option<HeaderValue>) -> Result<Response> {
        let request = Request::get(self.url(path, Form::Plain), "download the file");
        let request = match range {
            Some(range) => request.header(reqwest::header::RANGE, range),
            None => request,
        };
        self.api.call(&request).await
    }

    /// Uploads a body of one file to a folder.
    pub(super) async fn post_file(&self, folder: &str, body: Body) -> Result<()> {
        let request = Request::new(Method::POST, self.url(folder, Form::Folder), "upload the file").body(body);
        let result = self.change(&request).await;
        if matches!(&result, Err(error) if error.kind() == ErrorKind::AlreadyExists) {
            self.refuses_overwriting.store(true, Ordering::Relaxed);
        }
        self.noting(folder, Action::Write, result).map(drop)
    }

    /// Creates an empty file or a folder; gives the answer's body.
    pub(super) async fn post_json(
        &self,
        folder: &str,
        body: &serde_json::Value,
        purpose: &'static str,
    ) -> Result<Bytes> {
        let request = Request::new(Method::POST, self.url(folder, Form::Folder), purpose).json(body);
        let result = self.change(&request).await;
        self.noting(folder, Action::Write, result)
    }

    /// Gives an entry another name in its folder. An answer that was lost is made up for by looking.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`.
    pub(super) async fn put_name(&self, path: &str, new: &Name, evidence: Evidence) -> Result<()> {
        let (folder, _) = split(path);
        let new_path = join(folder, new.as_str());
        let request = Request::new(Method::PUT, self.url(path, Form::Plain), "rename")
            .json(&serde_json::json!({ "new_name": new.as_str() }))
            .replay(Replay::Once);
        let proof = Proof::Renamed {
            old: path,
            new: &new_path,
            evidence,
        };
        let result = self.settled(&request, proof).await;
        self.noting(folder, Action::Write, result)
    }

    /// Removes a file, or a folder with all that is in it.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn delete(&self, path: &str, described: &Described) -> Result<()> {
        let form = if described.is_directory() {
            Form::Folder
        } else {
            Form::Plain
        };
        let request = Request::new(Method::DELETE, self.url(path, form), "remove").replay(Replay::Once);
        let result = self.settled(&request, Proof::Gone(path)).await;
        let folder = self.folder_of(path, described);
        self.noting(folder, Action::Delete, result)
    }

    /// Sends a change that must not be sent twice blindly: when its outcome is unknown, it looks for the proof.
    async fn settled(&self, request: &Request, proof: Proof<'_>) -> Result<()> {
        let mut attempt = 1;
        loop {
            let Err(error) = self.change(request).await else {
                return Ok(());
            };
            if !is_ambiguous(&error) || attempt == ATTEMPTS {
                return Err(error);
            }
            // When even that cannot be seen the first failure is the one to tell.
            match self.is_proved(proof).await {
                Ok(true) => return Ok(()),
                Ok(false) => attempt += 1,
                Err(_) => return Err(error),
            }
        }
    }

    async fn is_proved(&self, proof: Proof<'_>) -> Result<bool> {
        match proof {
            Proof::Gone(path) => Ok(!self.exists(path).await?),
            Proof::Renamed { old, new, evidence } => Ok(self.exists(new).await?
                && match evidence {
                    Evidence::NewExists => true,
                    Evidence::OldIsGone => !self.exists(old).await?,
                }),
        }
    }

    pub(super) async fn exists(&self, path: &str) -> Result<bool> {
        match self.detail(path).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Remembers a refusal.
    pub(super) fn noting<T>(&self, folder: &str, action: Action, result: Result<T>) -> Result<T> {
        if matches!(&result, Err(error) if error.kind() == ErrorKind::Denied) {
            debug!(folder, ?action, "the provider refused");
            self.rights.refused(folder, action);
        }
        result
    }

    /// The folder whose rights an entry has: a folder's own, a file's is the one it is in.
    fn folder_of<'a>(&self, path: &'a str, described: &Described) -> &'a str {
        if described.is_directory() { path } else { split(path).0 }
    }

    pub(super) fn entry(&self, path: &str, name: &Name, described: &Described) -> Entry {
        Entry {
            key: ObjectKey::new(path),
            name: name.clone(),
            kind: described.kind,
            size: described.size,
            modified: described.modified.unwrap_or(SystemTime::UNIX_EPOCH),
            version: described.version.clone(),
            rights: self.rights.at(self.folder_of(path, described)),
            labels: BTreeMap::new(),
            posix: Default::default(),
        }
    }

    /// The entry of a path, with its folder's rights asked for where those above don't allow everything: a shared
    /// token may have more in a folder than above it.
    pub(super) async fn entry_of(&self, path: &str, name: &Name) -> Result<Entry> {
        let described = match self.describe(path).await {
            Err(error) if error.kind() == ErrorKind::Denied => {
                self.rights.refused(path, Action::Read);
                // A folder that one may not look into is listed where it lies all the same.
                match self.describe_by_listing(path).await {
                    Ok(Some(described)) if described.is_directory() => described,
                    _ => return Err(error),
                }
            }
            other => other?,
        };
        if described.is_directory() {
            self.ask_if_unknown(path).await;
        }
        Ok(self.entry(path, name, &described))
    }

    /// The entries of a listing, each name once.
    pub(super) async fn entries_of(&self, folder: &str) -> Result<Vec<Entry>> {
        let passing = self.passing.paths();
        let items = self.noting(folder, Action::Read, self.list(folder).await)?;
        self.ask_if_unknown(folder).await;
        let mut children = BTreeMap::new();
        for item in &items {
            let path = join(folder, &item.name);
            if passing.contains(&path) || self.passing.contains(&path) {
                continue;
            }
            match Name::new(item.name.clone()) {
                Ok(name) => {
                    children.insert(name, Described::from(item));
                }
                Err(error) => debug!(folder, %error, "an entry is left out of the listing"),
            }
        }
        let paths: Vec<(String, &Name, &Described)> = children
            .iter()
            .map(|(name, described)| (join(folder, name.as_str()), name, described))
            .collect();
        let folders: Vec<String> = paths
            .iter()
            .filter(|(_, _, described)| described.is_directory())
            .map(|(path, _, _)| path.clone())
            .take(MAX_FOLDERS_ASKED)
            .collect();
        stream::iter(folders)
            .for_each_concurrent(FOLDERS_AT_ONCE, |path| async move { self.ask_if_unknown(&path).await })
            .await;
        let entries = paths
            .iter()
            .map(|(path, name, described)| self.entry(path, name, described));
        Ok(entries.collect())
    }

    async fn ask_if_unknown(&self, folder: &str) {
        if self.rights.at(folder) != Rights::ALL && !self.rights.knows(folder) {
            self.ask(folder, &names::probe()).await;
        }
    }

    /// Finds out the rights on a folder without changing anything; what cannot be found out is inherited.
    ///
    /// To write is to be allowed where a rename with a malformed body isn't refused with 403, to delete where the
    /// deletion of a name that nobody has isn't. The order of the service's checks is not documented, so a right found
    /// here may still be refused later, which is then noted. `child` is the name that the malformed rename is for.
    pub(super) async fn ask(&self, folder: &str, child: &str) {
        if self.asking == Asking::Never {
            return;
        }
        let inherited = self.rights.at(folder);
        let missing = join(folder, &names::probe());
        let rename = Request::new(
            Method::PUT,
            self.url(&join(folder, child), Form::Plain),
            "ask for rights",
        )
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(Body::Bytes(Bytes::from_static(NO_JSON)));
        let delete = Request::new(Method::DELETE, self.url(&missing, Form::Plain), "ask for rights");
        let (read, write, delete) = join3(self.detail(folder), self.change(&rename), self.change(&delete)).await;
        let rights = Rights {
            read: allowed(&read).unwrap_or(inherited.read),
            write: allowed(&write).unwrap_or(inherited.write),
            delete: allowed(&delete).unwrap_or(inherited.delete),
        };
        debug!(folder, %rights, "rights asked for");
        self.rights.learn(folder, rights);
    }
}

/// What an answer to a probe says, if it says something about rights.
fn allowed<T>(answer: &Result<T>) -> Option<bool> {
    match answer {
        Ok(_) => Some(true),
        Err(error) => match error.kind() {
            ErrorKind::Denied => Some(false),
            ErrorKind::NotFound
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidName
            | ErrorKind::AlreadyExists
            | ErrorKind::Quota => Some(true),
            _ => None,
        },
    }
}

/// Whether a failed change may have happened all the same.
pub(super) fn is_ambiguous(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut)
}

/// Whether an answer is a file's content: only downloads have this header.
fn is_download(response: &Response) -> bool {
    response.headers.contains_key(CONTENT_DISPOSITION)
}

pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

/// Folder and name of a path; the root has neither.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
