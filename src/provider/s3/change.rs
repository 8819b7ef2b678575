//! Changes of several requests: look, change under a condition, look at what came of it.
//!
//! Where the service doesn't mind conditions (`apart`), a change is made under a lock, and what it depends on is looked at
//! under that lock. Services that know no conditions at all say so (501); they are asked without from then on.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use super::apart::{Apart, find_out};
use super::lock::{Lease, Lock, OWN, is_left};
use super::looks::Looks;
use super::names::{check_name, folder_of};
use super::settle::Uploaded;
use super::store::{Condition, Object, PART, Sent, Store};
use crate::model::{Entry, Error, ErrorKind, Name, Result, ToldAttributes, Version};
use crate::provider::clash::{changed, clash, exists, not_empty};
use crate::provider::{Content, Target};

/// How often a new file is sent that is gone at once. Somebody else may have taken it away, which isn't likely twice.
const ATTEMPTS: u32 = 2;
/// What another mount has stored is left alone for so long where there are no locks, so that it sees it.
const UNSEEN: Duration = Duration::from_secs(3);
/// Versions that are remembered to be this mount's own.
const OWN_VERSIONS: usize = 10_000;
/// Files in parts that are stored at the same time: each has some of its parts in memory.
const IN_PARTS: usize = 4;
/// Directories that are remembered to have a marker.
const MARKED: usize = 10_000;

/// A bucket that is changed.
pub(super) struct Changes {
    pub(super) store: Store,
    /// The directory that is there also when nothing is in it.
    root: String,
    /// Found out by the first change.
    apart: OnceCell<Apart>,
    lease: Lease,
    /// Set once the service said that it knows no conditions.
    without_conditions: AtomicBool,
    /// Directories that stay when what is in them goes.
    marked: Mutex<HashSet<String>>,
    in_parts: Semaphore,
    /// What this mount has stored, and seen there.
    own: Mutex<HashSet<Version>>,
    pub(super) looks: Looks,
    /// Whether the service keeps what goes along with an object, once that was seen.
    pub(super) keeps_metadata: OnceLock<bool>,
}

impl Changes {
    pub(super) fn new(store: Store, root: String, lease: Lease) -> Self {
        Self {
            store,
            root,
            apart: OnceCell::new(),
            lease,
            without_conditions: AtomicBool::new(false),
            marked: Mutex::default(),
            in_parts: Semaphore::new(IN_PARTS),
            own: Mutex::default(),
            looks: Looks::default(),
            keeps_metadata: OnceLock::new(),
        }
    }

    /// Found out beside the first key that is changed: the rights hold there.
    pub(super) async fn apart(&self, key: &str) -> Result<Apart> {
        let found = self.apart.get_or_try_init(|| find_out(&self.store, folder_of(key)));
        found.await.copied()
    }

    /// Changes something under a condition, and once more without it where the service says that it knows none.
    async fn conditionally<'a, T, F>(&self, wanted: Condition<'a>, change: impl Fn(Condition<'a>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let known = !self.without_conditions.load(Ordering::Relaxed);
        match change(if known { wanted } else { Condition::Unchecked }).await {
            Err(error) if known && error.kind() == ErrorKind::Unsupported => {
                self.without_conditions.store(true, Ordering::Relaxed);
                change(Condition::Unchecked).await
            }
            other => other,
        }
    }

    /// Looks at a key and changes it, while nobody else does where locks keep them apart.
    async fn alone<T>(&self, key: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.lock(key).await? {
            None => work.await,
            Some(lock) => {
                let done = lock.keeping(&self.store, work).await;
                lock.give_back(&self.store).await;
                done
            }
        }
    }

    async fn lock(&self, key: &str) -> Result<Option<Lock>> {
        match self.apart(key).await? {
            Apart::Conditions | Apart::Looks => Ok(None),
            Apart::Locks => Lock::take(&self.store, key, self.lease).await.map(Some),
        }
    }

    /// # Errors
    /// `NotFound`.
    pub(super) async fn lookup(&self, parent: &str, name: &Name) -> Result<Entry> {
        let key = format!("{parent}{name}");
        match self.store.object(&key).await {
            Ok(object) => Ok(self.store.file(&key, name, &object)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let key = format!("{key}/");
                if self.store.any_below(&key).await? {
                    Ok(self.store.directory(&key, name))
                } else {
                    Err(Error::not_found(format_args!("{:?}", name.as_str())))
                }
            }
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// `AlreadyExists`, `Changed`, `NotFound` when the directory is missing, `BadData`, `Busy`.
    pub(super) async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        let name = target.name();
        let key = format!("{}{name}", target.parent().as_str());
        let wanted = match target {
            Target::New { .. } => Condition::Free,
            Target::Replace { entry, .. } => Condition::Version(&entry.version),
        };
        if matches!(target, Target::New { .. }) {
            // Before there is a lock in the directory, which would make one.
            self.room(target.parent().as_str(), name).await?;
        }
        let apart = self.apart(&key).await?;
        // A condition says whether the name is free, and the look afterwards whether it is a directory's, too.
        let is_told_after = apart == Apart::Conditions
            && matches!(target, Target::New { .. })
            && content.is_read_back()
            && !self.without_conditions.load(Ordering::Relaxed);
        // Nobody sends a long file for nothing. Under a lock it is looked at again.
        if !is_told_after && (apart != Apart::Locks || content.len() > PART) {
            self.may_store(target).await?;
        }
        let there = match target {
            Target::Replace { entry, .. } if entry.posix == ToldAttributes::Untold => {
                self.store.object(&key).await?.posix
            }
            _ => ToldAttributes::None,
        };
        let attributes = target.attributes(content, &there);
        let enter = async || -> Result<Option<Lock>> {
            let Some(lock) = self.lock(&key).await? else {
                return Ok(None);
            };
            if let Err(error) = lock.keeping(&self.store, self.may_store(target)).await {
                lock.give_back(&self.store).await;
                return Err(error);
            }
            Ok(Some(lock))
        };
        let _turn = match content.len() > PART {
            // It is never closed.
            true => self.in_parts.acquire().await.ok(),
            false => None,
        };
        let uploaded = Uploaded {
            target,
            key: &key,
            content,
            attributes: &attributes,
        };
        for _ in 0..ATTEMPTS {
            let under_way = is_told_after.then(|| self.looks.begin());
            let sent = self.put(&uploaded, wanted, &enter, is_told_after).await?;
            if let Some(object) = self.settle(&uploaded, sent, under_way).await? {
                return Ok(self.store.file(&key, name, &object));
            }
            if let Target::Replace { .. } = target {
                return Err(changed(name));
            }
        }
        let message = format!(
            "the service said that {:?} is stored, and has nothing there",
            name.as_str()
        );
        Err(Error::new(ErrorKind::Busy, message))
    }

    async fn put<F>(
        &self,
        uploaded: &Uploaded<'_>,
        wanted: Condition<'_>,
        enter: impl Fn() -> F,
        is_told_after: bool,
    ) -> Result<Sent>
    where
        F: Future<Output = Result<Option<Lock>>>,
    {
        let Uploaded {
            target,
            key,
            content,
            attributes,
        } = *uploaded;
        let sent = if is_told_after {
            self.store.put(key, content, attributes, wanted, &enter).await
        } else {
            let put = |condition| self.store.put(key, content, attributes, condition, &enter);
            self.conditionally(wanted, put).await
        };
        match sent {
            Err(error) if error.kind() == ErrorKind::Changed => Err(clash(target)),
            Err(error) if is_ambiguous(&error) => match self.held(key, content).await {
                Some(object) => Ok(Sent {
                    version: Some(object.version.clone()),
                    tag: object.version,
                    upload: object.upload.unwrap_or_default(),
                    lock: None,
                }),
                None => Err(error),
            },
            sent => sent,
        }
    }

    /// Whether what an upload takes for granted is so.
    async fn may_store(&self, target: &Target) -> Result<()> {
        let (parent, name) = (target.parent().as_str(), target.name());
        match target {
            Target::New { .. } => self.free(parent, name).await,
            Target::Replace { entry, .. } => match found(self.store.object(&format!("{parent}{name}")).await)? {
                Some(now) if now.version == entry.version => Ok(()),
                _ => Err(changed(name)),
            },
        }
    }

    /// Whether there is a directory that such a name can be in.
    async fn room(&self, parent: &str, name: &Name) -> Result<()> {
        check_name(parent, name.as_str())?;
        if parent == self.root || self.store.rooms.is_there(parent) || self.store.any_below(parent).await? {
            return Ok(());
        }
        Err(Error::not_found(format_args!("the directory {parent:?}")))
    }

    async fn free(&self, parent: &str, name: &Name) -> Result<()> {
        match self.lookup(parent, name).await {
            Ok(_) => Err(exists(name)),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// # Errors
    /// `AlreadyExists`, `NotFound` when the directory above is missing.
    pub(super) async fn make_directory(&self, parent: &str, name: &Name) -> Result<Entry> {
        let key = format!("{parent}{name}/");
        self.room(parent, name).await?;
        self.alone(&key, async {
            self.free(parent, name).await?;
            self.store.mark(&key).await?;
            Ok(self.store.directory(&key, name))
        })
        .await
    }

    /// # Errors
    /// `NotFound`, `Changed` when it is another version than the entry's.
    pub(super) async fn remove_file(&self, entry: &Entry) -> Result<()> {
        let key = entry.key.as_str();
        self.alone(key, async {
            let there = self.store.object(key).await?;
            if there.version != entry.version {
                return Err(changed(&entry.name));
            }
            self.leave_alone(key, &there.version, there.modified).await?;
            self.keep(folder_of(key)).await;
            self.delete(key, &entry.version).await
        })
        .await
    }

    pub(super) fn note_own(&self, version: &Version) {
        let mut own = self.own.lock();
        if own.len() == OWN_VERSIONS {
            own.clear();
        }
        own.insert(version.clone());
    }

    /// Waits until whoever has stored an object has seen it: who finds nothing would take the service for a liar.
    async fn leave_alone(&self, key: &str, version: &Version, stored: SystemTime) -> Result<()> {
        if self.apart(key).await? != Apart::Conditions || self.own.lock().contains(version) {
            return Ok(());
        }
        // Where the two clocks differ by more it is a wait in vain, or none.
        let age = SystemTime::now().duration_since(stored).unwrap_or_default();
        tokio::time::sleep(UNSEEN.saturating_sub(age)).await;
        Ok(())
    }

    pub(super) async fn delete(&self, key: &str, version: &Version) -> Result<()> {
        let condition = Condition::Version(version);
        self.conditionally(condition, |condition| self.store.delete(key, condition))
            .await
    }

    /// What somebody else puts into it between the two requests stays, and so does the directory.
    ///
    /// # Errors
    /// `NotFound`, `NotEmpty`, `Busy`.
    pub(super) async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        let key = entry.key.as_str();
        if !self.store.children(key).await?.is_empty() {
            return Err(not_empty(&entry.name));
        }
        if self.apart(key).await? == Apart::Locks {
            self.sweep(key, &entry.name).await?;
        }
        self.keep(folder_of(key)).await;
        self.marked.lock().remove(key);
        self.store.delete(key, Condition::Unchecked).await?;
        self.store.rights.forget(key);
        Ok(())
    }

    /// Takes away what keeps a directory there though nothing is shown in it: locks of mounts that are gone.
    async fn sweep(&self, directory: &str, name: &Name) -> Result<()> {
        // By this machine's clock, which need not be the service's.
        let lease = Lease {
            over: self.lease.over * 10,
        };
        for (object, stored) in self.store.marks(&format!("{directory}{OWN}")).await? {
            if !is_left(stored, SystemTime::now(), lease) {
                let message = format!("something in {:?} is being changed", name.as_str());
                return Err(Error::new(ErrorKind::Busy, message));
            }
            self.store.delete_mark(&object).await?;
        }
        Ok(())
    }

    /// Copies and removes: S3 knows no renaming. Until the new name holds the file, the old one does.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `IsADirectory`, `Busy`.
    pub(super) async fn rename(
        &self,
        entry: &Entry,
        parent: &str,
        name: &Name,
        replaced: Option<&Entry>,
    ) -> Result<Entry> {
        let (from, to) = (entry.key.as_str(), format!("{parent}{name}"));
        check_name(parent, name.as_str())?;
        // In one order, so that nobody waits in a circle.
        let (first, second) = if from < to.as_str() {
            (from, to.as_str())
        } else {
            (to.as_str(), from)
        };
        self.alone(first, self.alone(second, self.carry(from, &to, parent, name, replaced)))
            .await
    }

    async fn carry(&self, from: &str, to: &str, parent: &str, name: &Name, replaced: Option<&Entry>) -> Result<Entry> {
        let source = self.store.object(from).await?;
        self.leave_alone(from, &source.version, source.modified).await?;
        let there = match self.lookup(parent, name).await {
            Ok(there) => Some(there),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let wanted = match (&there, replaced) {
            (None, _) => Condition::Free,
            (Some(there), Some(replaced)) if there.is_directory() && replaced.is_directory() => {
                let message = format!("{:?} is a directory", name.as_str());
                return Err(Error::new(ErrorKind::IsADirectory, message));
            }
            (Some(there), Some(replaced)) if there.kind == replaced.kind && there.version == replaced.version => {
                Condition::Version(&replaced.version)
            }
            (Some(_), _) => return Err(exists(name)),
        };
        if let Some(there) = there.as_ref().filter(|there| !there.is_directory()) {
            self.leave_alone(to, &there.version, there.modified).await?;
        }
        let copied = self.conditionally(wanted, |condition| self.store.copy(from, to, condition));
        let version = copied.await.map_err(|error| match error.kind() {
            ErrorKind::Changed => exists(name),
            _ => error,
        })?;
        let copy = self.settle_copy(from, &source, to, name, version).await?;
        self.keep(folder_of(from)).await;
        match self.delete(from, &source.version).await {
            // Somebody gave the old name new content since: that is a file of its own.
            Err(error) if error.kind() == ErrorKind::Changed => {}
            deleted => deleted?,
        }
        Ok(self.store.file(to, name, &copy))
    }

    /// Makes sure that a directory stays when nothing is left in it. One that can't be marked is gone then, as others
    /// who use the bucket expect.
    async fn keep(&self, directory: &str) {
        if directory == self.root || self.marked.lock().contains(directory) {
            return;
        }
        if self.store.mark(directory).await.is_ok() {
            let mut marked = self.marked.lock();
            if marked.len() == MARKED {
                marked.clear();
            }
            marked.insert(directory.to_owned());
        }
    }
}

/// Whether a change may have happened though no answer came.
fn is_ambiguous(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut)
}

/// `None` where nothing is.
pub(super) fn found(object: Result<Object>) -> Result<Option<Object>> {
    match object {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
