//! The requests to one bucket, through opendal: objects as files, prefixes and marker objects as directories.
//!
//! A directory is there when a key begins with its path and a slash. `mkdir` makes that key itself, an empty object.
//! How several requests make one safe change is in `change`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{StreamExt, TryStreamExt, stream};
use opendal::services::S3;
use opendal::{HttpTransporter, OperationContext, Operator, Writer};
use parking_lot::Mutex;
use reqsign_core::ProvideCredentialChain;
use tracing::debug;

use super::errors;
use super::ghosts::Ghosts;
use super::keys::{AccessKeys, Asked};
use super::lock::{Lock, OWN};
use super::metadata;
use super::names::{at, check_name, folder_of};
use super::proof::Tag;
use super::rooms::Rooms;
use super::wire::{Wire, bytes_of};
use crate::api::Api;
use crate::auth::{AfterRejection, Authenticator, Generation};
use crate::model::{
    Action, Entry, Error, ErrorKind, Kind, Name, ObjectId, ObjectKey, PosixAttributes, Result, Rights, ToldAttributes,
    Version,
};
use crate::provider::learned_rights::LearnedRights;
use crate::provider::{ByteStream, Content};

/// The version of every directory.
const DIRECTORY_VERSION: &str = "directory";
/// Bytes of an upload in memory, and of one of its parts: large enough to keep a connection busy.
pub(super) const PART: u64 = 8 << 20;
/// Amazon S3 user guide, "Amazon S3 multipart upload limits": 10,000 parts; some room is left.
const PARTS: u64 = 9_000;

/// What a bucket is asked with.
pub(super) struct Store {
    endpoint: String,
    bucket: String,
    region: String,
    transport: HttpTransporter,
    /// None signs nothing: a public bucket.
    keys: Option<Arc<AccessKeys>>,
    /// Signs with the key of a generation.
    signing: Mutex<Option<(Generation, Operator)>>,
    pub(super) rights: LearnedRights,
    ghosts: Ghosts,
    pub(super) rooms: Rooms,
}

/// One object, as far as a file needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// In bytes.
    pub(super) size: u64,
    pub(super) version: Version,
    pub(super) modified: SystemTime,
    pub(super) posix: ToldAttributes,
    /// The version that it was stored over, where keymount stored it and it was looked at.
    pub(super) over: Option<Version>,
    /// The upload that stored it, as for `over`.
    pub(super) upload: Option<String>,
}

/// What was sent and said to be stored.
pub(super) struct Sent {
    /// As the service told it, if it did.
    pub(super) version: Option<Version>,
    /// The entity tag of services that make it of the bytes.
    pub(super) tag: Version,
    /// Goes with it.
    pub(super) upload: String,
    /// Under which it was stored, to be given back.
    pub(super) lock: Option<Lock>,
}

/// Under which condition something is stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition<'a> {
    /// The key is free.
    Free,
    /// The object there has this version.
    Version(&'a Version),
    /// None: the service knows no conditions.
    Unchecked,
}

impl Store {
    pub(super) fn new(
        api: Arc<Api>,
        bucket: &str,
        region: &str,
        keys: Option<Arc<AccessKeys>>,
        assumed: Rights,
    ) -> Self {
        Self {
            endpoint: api.base().as_str().trim_end_matches('/').to_owned(),
            bucket: bucket.to_owned(),
            region: region.to_owned(),
            transport: HttpTransporter::new(Wire::new(api)),
            keys,
            signing: Mutex::default(),
            rights: LearnedRights::new(assumed),
            ghosts: Ghosts::default(),
            rooms: Rooms::default(),
        }
    }

    pub(super) fn identity(&self) -> String {
        format!("s3 {}/{}", self.endpoint, self.bucket)
    }

    /// The operator that signs with the key of the moment.
    fn operator(&self) -> Result<(Operator, Generation)> {
        let generation = self.keys.as_ref().map_or(Generation(0), |keys| keys.generation());
        let mut signing = self.signing.lock();
        if let Some((of, operator)) = &*signing
            && *of == generation
        {
            return Ok((operator.clone(), generation));
        }
        let builder = S3::default()
            .bucket(&self.bucket)
            .region(&self.region)
            .endpoint(&self.endpoint)
            .disable_config_load();
        let builder = match &self.keys {
            Some(keys) => {
                builder.credential_provider_chain(ProvideCredentialChain::new().push(Asked(Arc::clone(keys))))
            }
            None => builder.skip_signature(),
        };
        let context = OperationContext::new().with_http_transport(self.transport.clone());
        let operator = Operator::new(builder).map_err(errors::ours)?.with_context(context);
        *signing = Some((generation, operator.clone()));
        Ok((operator, generation))
    }

    /// Asks with the key of the moment; after a rejection once more with the next one, if there is one.
    pub(super) async fn ask<T, F>(&self, work: impl Fn(Operator) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut is_first = true;
        loop {
            if let Some(keys) = &self.keys {
                keys.ready().await?;
            }
            let (operator, generation) = self.operator()?;
            let outcome = work(operator).await;
            let Some(keys) = &self.keys else { return outcome };
            match outcome {
                Ok(done) => {
                    keys.accepted(generation);
                    return Ok(done);
                }
                Err(error)
                    if is_first
                        && error.kind() == ErrorKind::NeedsLogin
                        && keys.rejected(generation).await == AfterRejection::TryAgain =>
                {
                    is_first = false;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The object with this key.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn object(&self, key: &str) -> Result<Object> {
        let look =
            || self.ask(async |operator| metadata::whole_object(&operator.stat(key).await.map_err(errors::ours)?));
        match look().await {
            // A refusal of HEAD has no words that say why; one of a listing has.
            Err(error) if error.kind() == ErrorKind::Denied => {
                self.any_below(folder_of(key)).await?;
                look().await
            }
            other => other,
        }
    }

    /// Whether any key begins like this, which is a directory's path with its slash, or empty.
    pub(super) async fn any_below(&self, directory: &str) -> Result<bool> {
        let answer = self
            .ask(async |operator| {
                let listing = operator.lister_with(directory).recursive(true).limit(1);
                let mut found = listing.await.map_err(errors::ours)?;
                while let Some(entry) = found.try_next().await.map_err(errors::ours)? {
                    if !self.is_ghost(&operator, entry.path()).await? {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
            .await;
        if matches!(answer, Ok(true)) {
            self.rooms.seen(directory);
        }
        self.rights.noting(directory, Action::Read, answer)
    }

    /// Whether a key is listed though it was removed.
    async fn is_ghost(&self, operator: &Operator, key: &str) -> Result<bool> {
        if !self.ghosts.may_be(key) {
            return Ok(false);
        }
        // opendal looks at a marker by listing it, which would say the same again.
        if key.ends_with('/') {
            return Ok(true);
        }
        match operator.stat(key).await.map_err(errors::ours) {
            Ok(_) => {
                self.ghosts.is_there(key);
                Ok(false)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// What is directly in a directory, files before directories of the same name; `None` for what is a directory.
    ///
    /// # Errors
    /// `NotFound` when no key begins like this.
    pub(super) async fn children(&self, directory: &str) -> Result<Vec<(Name, Option<Object>)>> {
        let answer = self
            .ask(async |operator| {
                let mut children = Vec::new();
                let mut is_there = directory.is_empty();
                let mut found = operator.lister(at(directory)).await.map_err(errors::ours)?;
                while let Some(entry) = found.try_next().await.map_err(errors::ours)? {
                    if self.is_ghost(&operator, entry.path()).await? {
                        continue;
                    }
                    is_there = true;
                    let Some(rest) = entry.path().strip_prefix(directory) else {
                        continue;
                    };
                    let (text, is_directory) = match rest.strip_suffix('/') {
                        Some(text) => (text, true),
                        None => (rest, false),
                    };
                    // The directory's own marker; and keys that are no paths, as `a//b`.
                    if text.is_empty() || text.contains('/') {
                        continue;
                    }
                    let described = if is_directory {
                        None
                    } else {
                        Some(metadata::object(entry.metadata())?)
                    };
                    match check_name(directory, text) {
                        Ok(name) => children.push((name, described)),
                        Err(error) => debug!(text, %error, "an object cannot be shown"),
                    }
                }
                if !is_there {
                    return Err(Error::not_found(format_args!("{directory:?}")));
                }
                Ok(children)
            })
            .await;
        let mut children = self.rights.noting(directory, Action::Read, answer)?;
        self.rooms.seen(directory);
        for number in (0..children.len()).rev() {
            let inner = format!("{directory}{}/", children[number].0);
            // The last that was in it may be gone, and then it is gone itself.
            if children[number].1.is_none() && self.ghosts.may_be_below(&inner) && !self.any_below(&inner).await? {
                children.remove(number);
            }
        }
        // A key and keys below it may have one name: the file is shown.
        children.sort_by(|(one, described), (other, also)| (one, described.is_none()).cmp(&(other, also.is_none())));
        children.dedup_by(|later, earlier| later.0 == earlier.0);
        Ok(children)
    }

    /// Bytes of exactly this version.
    ///
    /// # Errors
    /// `NotFound`, `Changed`, `BadData`.
    pub(super) async fn read(&self, wanted: &ObjectId, range: Range<u64>) -> Result<ByteStream> {
        let key = wanted.key.as_str();
        if range.start > range.end || range.end > wanted.size {
            let message = format!("{range:?} cannot be asked for of {} bytes", wanted.size);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if range.is_empty() {
            // Nothing can be asked for by range, and the version matters all the same.
            if self.object(key).await?.version != wanted.version && wanted.size == 0 {
                return Err(changed(key));
            }
            return Ok(stream::empty().boxed());
        }
        let answer = self
            .ask(async |operator| {
                let reader = operator
                    .reader_with(key)
                    .if_match(wanted.version.as_str())
                    .await
                    .map_err(errors::ours)?;
                let mut bytes = reader
                    .into_bytes_stream(range.clone())
                    .await
                    .map_err(errors::ours)?
                    .map(bytes_of)
                    .boxed();
                // The request is made by the first look at the stream.
                let first = bytes.try_next().await?.unwrap_or_default();
                Ok((first, bytes))
            })
            .await;
        let (first, rest) = match self.rights.noting(folder_of(key), Action::Read, answer) {
            Ok(begun) => begun,
            Err(error) if matches!(error.kind(), ErrorKind::Changed | ErrorKind::BadData) => {
                return Err(match self.object(key).await {
                    Ok(now) if now.version != wanted.version => changed(key),
                    Err(gone) if gone.kind() == ErrorKind::NotFound => gone,
                    _ => error,
                });
            }
            Err(error) => return Err(error),
        };
        let len = range.end - range.start;
        let all = stream::once(std::future::ready(Ok(first))).chain(rest);
        Ok(exactly(all.boxed(), len))
    }

    /// Stores a whole file, in parts where it is long. Nothing is there until the last part is, and before that `enter`
    /// says whether it may be, with the lock under which it is.
    ///
    /// # Errors
    /// `enter`'s, `Changed` when the condition doesn't hold, `Unsupported` when the service knows no conditions.
    pub(super) async fn put<F>(
        &self,
        key: &str,
        content: &Content,
        attributes: &PosixAttributes,
        condition: Condition<'_>,
        enter: impl Fn() -> F,
    ) -> Result<Sent>
    where
        F: Future<Output = Result<Option<Lock>>>,
    {
        let part = PART.max(content.len().div_ceil(PARTS));
        let answer = self
            .ask(async |operator| {
                let upload = format!("{:016x}", fastrand::u64(..));
                let metadata = metadata::write(attributes, condition, &upload);
                let mut writer = writer(&operator, key, part, metadata, condition).await?;
                let sent = async {
                    let (mut bytes, mut tag) = (content.stream(), Tag::new(part));
                    while let Some(chunk) = bytes.try_next().await? {
                        tag.update(&chunk);
                        writer.write(chunk).await.map_err(errors::ours)?;
                    }
                    let lock = enter().await?;
                    let closing = async { writer.close().await.map_err(errors::ours) };
                    let closed = match &lock {
                        None => closing.await,
                        Some(lock) => lock.keeping(self, closing).await,
                    };
                    match (closed, lock) {
                        (Ok(stored), lock) => Ok(Sent {
                            version: stored.etag().map(version_of),
                            tag: tag.finish(),
                            upload,
                            lock,
                        }),
                        (Err(error), lock) => {
                            if let Some(lock) = lock {
                                lock.give_back(self).await;
                            }
                            Err(error)
                        }
                    }
                }
                .await;
                if sent.is_err() {
                    // Parts that stay would be paid for.
                    let _ = writer.abort().await;
                }
                sent
            })
            .await;
        self.ghosts.is_there(key);
        self.rights.noting(folder_of(key), Action::Write, answer)
    }

    /// Stores a few bytes at once.
    ///
    /// # Errors
    /// As `put`.
    pub(super) async fn put_bytes(&self, key: &str, bytes: &'static [u8], condition: Condition<'_>) -> Result<()> {
        let answer = self
            .ask(async |operator| {
                let mut writer = writer(&operator, key, PART, HashMap::new(), condition).await?;
                writer.write(bytes).await.map_err(errors::ours)?;
                writer.close().await.map(drop).map_err(errors::ours)
            })
            .await;
        self.ghosts.is_there(key);
        self.rights.noting(folder_of(key), Action::Write, answer)
    }

    /// Stores an empty object that is keymount's own.
    pub(super) async fn put_mark(&self, key: &str) -> Result<()> {
        self.put_bytes(key, b"", Condition::Unchecked).await
    }

    pub(super) async fn delete_mark(&self, key: &str) -> Result<()> {
        self.delete(key, Condition::Unchecked).await
    }

    /// The objects in one directory that begin like this, with the time when they were stored, by the service's clock.
    pub(super) async fn marks(&self, prefix: &str) -> Result<Vec<(String, SystemTime)>> {
        let answer = self
            .ask(async |operator| {
                let mut marks = Vec::new();
                let mut found = operator.lister(prefix).await.map_err(errors::ours)?;
                while let Some(entry) = found.try_next().await.map_err(errors::ours)? {
                    if entry.path().starts_with(prefix) && !entry.path().ends_with('/') {
                        let stored = entry.metadata().last_modified();
                        let stored = stored.map_or(SystemTime::UNIX_EPOCH, SystemTime::from);
                        marks.push((entry.path().to_owned(), stored));
                    }
                }
                Ok(marks)
            })
            .await;
        self.rights.noting(folder_of(prefix), Action::Read, answer)
    }

    /// Makes a directory's marker; there may be one already.
    pub(super) async fn mark(&self, directory: &str) -> Result<()> {
        let answer = self
            .ask(async |operator| operator.create_dir(directory).await.map_err(errors::ours))
            .await;
        self.ghosts.is_there(directory);
        self.rights.noting(directory, Action::Write, answer)
    }

    /// Removes a key, which may be gone already.
    ///
    /// # Errors
    /// `Changed` when the condition doesn't hold, `Unsupported` when the service knows no conditions.
    pub(super) async fn delete(&self, key: &str, condition: Condition<'_>) -> Result<()> {
        let answer = self
            .ask(async |operator| {
                let deleting = operator.delete_with(key);
                match condition {
                    Condition::Version(version) => deleting.if_match(version.as_str()),
                    Condition::Free | Condition::Unchecked => deleting,
                }
                .await
                .map_err(errors::ours)
            })
            .await;
        // A lock is never the last that is there of a directory.
        if !key[folder_of(key).len()..].starts_with(OWN) {
            self.rooms.doubt(key);
        }
        if answer.is_ok() {
            self.ghosts.removed(key);
        }
        self.rights.noting(folder_of(key), Action::Delete, answer)
    }

    /// Copies inside the service, in parts what is too large for one copy. Gives the version where the service tells it.
    ///
    /// # Errors
    /// `NotFound`, `Changed` when the condition doesn't hold, `Unsupported` when the service knows no conditions.
    pub(super) async fn copy(&self, from: &str, to: &str, condition: Condition<'_>) -> Result<Option<Version>> {
        let answer = self
            .ask(async |operator| {
                let copying = operator.copy_with(from, to);
                match condition {
                    Condition::Free => copying.if_not_exists(true),
                    Condition::Version(version) => copying.if_match(version.as_str()),
                    Condition::Unchecked => copying,
                }
                .await
                .map(|stored| stored.etag().map(version_of))
                .map_err(errors::ours)
            })
            .await;
        self.ghosts.is_there(to);
        self.rights.noting(folder_of(to), Action::Write, answer)
    }

    pub(super) fn file(&self, key: &str, name: &Name, object: &Object) -> Entry {
        Entry {
            key: ObjectKey::new(key),
            name: name.clone(),
            kind: Kind::File,
            size: object.size,
            modified: object.modified,
            version: object.version.clone(),
            rights: self.rights.at(folder_of(key)),
            labels: Default::default(),
            posix: object.posix.clone(),
        }
    }

    /// Directories have no times: most of them are no objects.
    pub(super) fn directory(&self, key: &str, name: &Name) -> Entry {
        Entry {
            key: ObjectKey::new(key),
            name: name.clone(),
            kind: Kind::Directory,
            size: 0,
            modified: SystemTime::UNIX_EPOCH,
            version: Version::new(DIRECTORY_VERSION),
            rights: self.rights.at(key),
            labels: Default::default(),
            posix: Default::default(),
        }
    }
}

/// An entity tag as headers have it, also where a document names it without its quotes.
pub(super) fn version_of(etag: &str) -> Version {
    Version::new(if etag.starts_with('"') {
        etag.to_owned()
    } else {
        format!("\"{etag}\"")
    })
}

async fn writer(
    operator: &Operator,
    key: &str,
    part: u64,
    metadata: HashMap<String, String>,
    condition: Condition<'_>,
) -> Result<Writer> {
    let writer = operator.writer_with(key).chunk(part as usize);
    let writer = match metadata.is_empty() {
        true => writer,
        false => writer.user_metadata(metadata),
    };
    match condition {
        Condition::Free => writer.if_not_exists(true),
        Condition::Version(version) => writer.if_match(version.as_str()),
        Condition::Unchecked => writer,
    }
    .await
    .map_err(errors::ours)
}

/// All bytes, or an error where there are more or fewer.
fn exactly(bytes: ByteStream, len: u64) -> ByteStream {
    let wrong = move |seen: u64| {
        Error::bad_data(format!(
            "read from the bucket: {len} bytes were promised and {seen} came"
        ))
    };
    stream::try_unfold((bytes, 0u64), move |(mut bytes, start)| async move {
        let Some(chunk) = bytes.try_next().await? else {
            return if start == len { Ok(None) } else { Err(wrong(start)) };
        };
        let seen = start + chunk.len() as u64;
        if seen > len {
            return Err(wrong(seen));
        }
        Ok(Some((chunk, (bytes, seen))))
    })
    .boxed()
}

fn changed(key: &str) -> Error {
    Error::new(ErrorKind::Changed, format!("{key:?} was replaced since it was opened"))
}
