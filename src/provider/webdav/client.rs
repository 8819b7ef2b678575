//! The requests to a WebDAV server, one method each, and the rights that refusals teach.
//!
//! How several requests make one safe change is in `change`, how bytes are checked in `read`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, RANGE};
use reqwest::{Method, Url};
use tokio::sync::OnceCell;
use tracing::debug;

use super::lock::{Lock, Locks, Proof, under};
use super::wire::{self, Described, Resource};
use crate::api::Api;
use crate::model::{Action, Entry, Error, ErrorKind, Name, ObjectKey, Result, Rights, Version};
use crate::net::{Body, Replay, Request, Response};
use crate::provider::Content;
use crate::provider::learned_rights::LearnedRights;

/// Many more than are stored at the same time: 1024.
const MOST_RESERVED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// One server, called as one user.
pub(super) struct Client {
    api: Arc<Api>,
    pub(super) rights: LearnedRights,
    /// What locks the server has, once it was asked.
    pub(super) locks: OnceCell<Locks>,
    pub(super) properties: Mutex<Properties>,
    /// The names that have an empty file of ours until something is stored there.
    reserved: Mutex<LruCache<String, ()>>,
}

/// What is known of a server's keeping properties that it doesn't know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Properties {
    #[default]
    Untried,
    /// One was seen again.
    Kept,
    Refused,
}

/// Whether an address ends with a slash: some servers know directories by it (RFC 4918, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Directory,
}

/// Under which condition something is stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition<'a> {
    /// The name is free.
    Free,
    /// The file there has this version.
    Version(&'a Version),
    /// None: what is there was looked at, and no condition can name it.
    Looked,
}

/// Whether a move may replace what has the name (RFC 4918, 10.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overwrite {
    Allowed,
    Refused,
}

impl Client {
    pub(super) fn new(api: Arc<Api>, assumed: Rights) -> Self {
        Self {
            api,
            rights: LearnedRights::new(assumed),
            locks: OnceCell::new(),
            properties: Mutex::default(),
            reserved: Mutex::new(LruCache::new(MOST_RESERVED)),
        }
    }

    /// The server's address without what its address doesn't tell.
    pub(super) fn address(&self) -> &Url {
        self.api.base()
    }

    pub(super) fn url(&self, path: &str, form: Form) -> Url {
        let names = path.split('/').filter(|name| !name.is_empty());
        let end = (form == Form::Directory || path.is_empty()).then_some("");
        self.api.url(names.chain(end))
    }

    /// # Errors
    /// `NotFound`.
    pub(super) async fn describe(&self, path: &str) -> Result<Described> {
        let found = self
            .propfind(path, Form::Plain, "0", wire::ENTRY_PROPERTIES, "look it up")
            .await?;
        match found.first() {
            Some(resource) => resource.describe(),
            None => Err(Error::not_found(format_args!("{path:?}"))),
        }
    }

    /// All that is in a directory.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub(super) async fn children(&self, path: &str) -> Result<Vec<(Name, Described)>> {
        let answer = self
            .propfind(path, Form::Directory, "1", wire::ENTRY_PROPERTIES, "list the directory")
            .await;
        let found = match self.rights.noting(path, Action::Read, answer) {
            // A file has no name with a slash at its end (Apache).
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                return Err(match self.describe(path).await {
                    Ok(described) if !described.is_directory() => not_a_directory(path),
                    _ => error,
                });
            }
            found => found?,
        };
        // A server behind a proxy may name other paths than it is called with, so only their lengths and ends count.
        let base = self.api.base();
        let mut paths: Vec<(Vec<String>, &Resource)> = found
            .iter()
            .filter_map(|resource| Some((resource.path(base)?, resource)))
            .collect();
        paths.sort_by_key(|(parts, _)| parts.len());
        let Some((own, described)) = paths.first() else {
            return Err(Error::bad_data(
                "list the directory: the server doesn't name the directory",
            ));
        };
        if !described.describe()?.is_directory() {
            return Err(not_a_directory(path));
        }
        let children = paths.iter().filter(|(parts, _)| parts.len() == own.len() + 1);
        Ok(children
            .filter_map(|(parts, resource)| {
                let text = parts.last()?;
                match (Name::new(text.as_str()), resource.describe()) {
                    (Ok(name), Ok(described)) => Some((name, described)),
                    (name, described) => {
                        debug!(?text, ?name, ?described, "an entry cannot be shown");
                        None
                    }
                }
            })
            .collect())
    }

    /// Used and available bytes, as far as the server tells (RFC 4331).
    pub(super) async fn quota(&self, path: &str) -> Result<(Option<u64>, Option<u64>)> {
        let found = self
            .propfind(path, Form::Directory, "0", wire::QUOTA_PROPERTIES, "ask for the quota")
            .await?;
        Ok(found.first().map(Resource::quota).unwrap_or_default())
    }

    async fn propfind(
        &self,
        path: &str,
        form: Form,
        depth: &'static str,
        properties: &'static str,
        purpose: &'static str,
    ) -> Result<Vec<Resource>> {
        let request = Request::new(method("PROPFIND")?, self.url(path, form), purpose)
            .replay(Replay::Idempotent)
            .header(HeaderName::from_static("depth"), HeaderValue::from_static(depth))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/xml; charset=utf-8"))
            .body(Body::Bytes(properties.as_bytes().into()));
        let response = self.api.call(&request).await?;
        if response.status.as_u16() != 207 {
            return Err(Error::bad_data(format!(
                "{purpose}: the server answered {} and no list; is this the address of a WebDAV folder?",
                response.status.as_u16()
            )));
        }
        wire::multistatus(&response.bytes(purpose).await?).map_err(|error| error.context(purpose))
    }

    /// `range` and `version` travel as conditions; the answer says what came of them.
    pub(super) async fn get(&self, path: &str, range: Option<String>, version: Option<&Version>) -> Result<Response> {
        let mut request = Request::get(self.url(path, Form::Plain), "read the file");
        if let Some(range) = range {
            request = request.header(RANGE, header(&range)?);
        }
        if let Some(etag) = version.and_then(wire::etag_of) {
            request = request.header(IF_MATCH, header(etag)?);
        }
        let answer = self.api.call(&request).await;
        self.rights.noting(folder_of(path), Action::Read, answer)
    }

    /// One request, of whatever method.
    pub(super) async fn send(&self, request: &Request) -> Result<Response> {
        self.api.call(request).await
    }

    /// A name whose lock made an empty file is free. Gives the version if the server tells it with its answer.
    ///
    /// # Errors
    /// `NotFound` when the directory is missing, `Changed` when the condition doesn't hold, `Busy` in its place under a lock.
    pub(super) async fn put(
        &self,
        path: &str,
        content: &Content,
        condition: Condition<'_>,
        lock: Option<&Lock>,
    ) -> Result<Option<Version>> {
        let source = content.clone();
        let body = Body::Stream {
            len: content.len(),
            open: Arc::new(move || source.stream()),
        };
        // Conditions make a second attempt after a lost answer fail, so the caller looks what came of the first.
        let mut request = Request::new(Method::PUT, self.url(path, Form::Plain), "store the file")
            .replay(Replay::Once)
            .body(body);
        match condition {
            Condition::Free if lock.is_some() => {}
            Condition::Looked => {}
            Condition::Free => request = request.header(IF_NONE_MATCH, HeaderValue::from_static("*")),
            Condition::Version(version) => {
                if let Some(etag) = wire::etag_of(version) {
                    request = request.header(IF_MATCH, header(etag)?);
                }
            }
        }
        request = self.proving(request, lock, Proof::OfAddress)?;
        let answer = self.api.call(&request).await;
        let response = self
            .rights
            .noting(folder_of(path), Action::Write, under(lock, answer))?;
        Ok(response
            .header(ETAG.as_str())
            .and_then(wire::strong_etag)
            .map(Version::new))
    }

    /// An empty file of a name that is free. Gives whether it was, or such a file is left from an earlier attempt.
    ///
    /// # Errors
    /// `NotFound` when the directory is missing.
    pub(super) async fn reserve(&self, path: &str) -> Result<bool> {
        let request = Request::new(Method::PUT, self.url(path, Form::Plain), "store the file")
            .replay(Replay::Once)
            .header(IF_NONE_MATCH, HeaderValue::from_static("*"))
            .body(Body::Bytes(Bytes::new()));
        let answer = self.api.call(&request).await;
        match self.rights.noting(folder_of(path), Action::Write, answer) {
            Ok(_) => {
                self.reserved.lock().put(path.to_owned(), ());
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Changed => Ok(self.reserved.lock().contains(path)),
            Err(error) if is_ambiguous(&error) => {
                // If it was made it is found at the next attempt.
                self.reserved.lock().put(path.to_owned(), ());
                Err(error)
            }
            // A directory has the name (409).
            Err(error) => self.describe(path).await.map(|_| false).map_err(|_| error),
        }
    }

    /// A name is no longer one that `reserve` made an empty file for.
    pub(super) fn not_reserved(&self, path: &str) {
        self.reserved.lock().pop(path);
    }

    pub(super) fn proving(&self, request: Request, lock: Option<&Lock>, of: Proof) -> Result<Request> {
        match lock {
            Some(lock) => Ok(request.header(HeaderName::from_static("if"), lock.proof(self, of)?)),
            None => Ok(request),
        }
    }

    /// # Errors
    /// `NotFound` when the directory above is missing, `InvalidInput` when the name is taken.
    pub(super) async fn make_collection(&self, path: &str) -> Result<()> {
        let request = Request::new(method("MKCOL")?, self.url(path, Form::Directory), "make the directory");
        self.change(folder_of(path), Action::Write, &request).await
    }

    /// Removes a file, or a directory with all that is in it.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn delete(&self, path: &str, form: Form, lock: Option<&Lock>) -> Result<()> {
        let request = Request::new(Method::DELETE, self.url(path, form), "remove it").replay(Replay::Once);
        let proof = match self.locks.get() {
            // Apache says 424 otherwise.
            Some(Locks::Fragile(_)) => Proof::OfTarget,
            _ => Proof::OfAddress,
        };
        let request = self.proving(request, lock, proof)?;
        under(
            lock,
            self.change(folder_of(path), Action::Delete, &self.in_turn(request))
                .await,
        )
    }

    /// # Errors
    /// `NotFound` also when the target's directory is missing, `Changed` when the name is taken and stays so, `Busy` in its
    /// place under a lock.
    pub(super) async fn move_to(
        &self,
        from: &str,
        to: &str,
        form: Form,
        overwrite: Overwrite,
        lock: Option<&Lock>,
    ) -> Result<()> {
        let flag = match overwrite {
            Overwrite::Allowed => "T",
            Overwrite::Refused => "F",
        };
        let request = Request::new(method("MOVE")?, self.url(from, form), "rename it")
            .header(
                HeaderName::from_static("destination"),
                header(self.url(to, form).as_str())?,
            )
            .header(HeaderName::from_static("overwrite"), HeaderValue::from_static(flag));
        let request = self.proving(request, lock, Proof::OfTarget)?;
        under(
            lock,
            self.change(folder_of(to), Action::Write, &self.in_turn(request)).await,
        )
    }

    async fn change(&self, folder: &str, action: Action, request: &Request) -> Result<()> {
        let answer = self.api.call(request).await;
        let response = self.rights.noting(folder, action, answer)?;
        if response.status.as_u16() != 207 {
            return Ok(());
        }
        // Some of the members failed (RFC 4918, 9.6.1): the first failure is the whole's.
        for resource in wire::multistatus(&response.bytes(request.purpose).await?)? {
            resource.describe().map_err(|error| error.context(request.purpose))?;
        }
        Ok(())
    }

    /// Whether the file there has exactly these bytes; for changes whose answer was lost.
    pub(super) async fn holds(&self, path: &str, content: &Content) -> bool {
        let same = async {
            let there = self.describe(path).await?;
            if there.is_directory() || there.size != content.len() {
                return Ok(false);
            }
            let theirs = self.get(path, None, there.condition()).await?;
            content.is_same_as(theirs.stream("read the file")).await
        };
        let same: Result<bool> = same.await;
        same.unwrap_or(false)
    }

    pub(super) fn entry(&self, path: &str, name: &Name, described: &Described) -> Entry {
        let folder = if described.is_directory() {
            path
        } else {
            folder_of(path)
        };
        Entry {
            key: ObjectKey::new(path),
            name: name.clone(),
            kind: described.kind,
            size: described.size,
            modified: described.modified,
            version: described.version.clone(),
            rights: self.rights.at(folder),
            labels: Default::default(),
            posix: described.posix.clone(),
        }
    }

    /// Where the files are, in words: the address without its percent signs.
    pub(super) fn identity(&self) -> String {
        let base = self.api.base();
        let path = percent_decode_str(base.path()).decode_utf8_lossy();
        format!("{}{path}", base.origin().ascii_serialization())
    }
}

/// Whether an attempt may have been carried out though no answer came.
pub(super) fn is_ambiguous(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut)
}

fn not_a_directory(path: &str) -> Error {
    Error::new(ErrorKind::NotADirectory, format!("{path:?} is not a directory"))
}

pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

pub(super) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

pub(super) fn method(name: &'static str) -> Result<Method> {
    Method::from_bytes(name.as_bytes()).map_err(|_| Error::internal("a method of WebDAV is malformed"))
}

pub(super) fn header(text: &str) -> Result<HeaderValue> {
    HeaderValue::try_from(text).map_err(|_| Error::bad_data("the server's entity tag fits into no header"))
}
