//! What came of an upload or a copy: a service that says that it stored something is not taken at its word.
//!
//! An entity tag that is made of the bytes proves them, in the answer and at the look that follows. Without such a tag what
//! is short is read again. What is there and isn't what was sent is somebody else's only where that somebody says so:
//! keymount names the version that it replaces, and numbers its uploads. Otherwise it counts as a clash, and both versions are kept.
//!
//! Whoever has the lock of a key looks before he gives it back, so that no other mount comes in between. Where conditions
//! keep the mounts apart, new files are looked at together (`looks`), and the same look finds a directory of their name.

use std::time::SystemTime;

use tracing::warn;

use super::apart::Apart;
use super::change::{Changes, found};
use super::looks::{Sight, UnderWay, alone};
use super::store::{Object, Sent};
use crate::model::{Error, ErrorKind, Name, ObjectId, ObjectKey, PosixAttributes, Result, ToldAttributes, Version};
use crate::provider::clash::{clash, exists};
use crate::provider::content::READ_BACK;
use crate::provider::{Content, Target};

/// What was uploaded, and where.
pub(super) struct Uploaded<'a> {
    pub(super) target: &'a Target,
    pub(super) key: &'a str,
    pub(super) content: &'a Content,
    pub(super) attributes: &'a PosixAttributes,
}

impl Changes {
    /// Makes sure that what was sent is stored, and gives back the lock. `under_way` is there for what wasn't looked at
    /// before. `None` when nothing is there, which may be somebody else's doing.
    ///
    /// # Errors
    /// `BadData` when it isn't as it was sent, or not there in spite of a lock; `AlreadyExists` and `Changed` when something else is there.
    pub(super) async fn settle(
        &self,
        uploaded: &Uploaded<'_>,
        mut sent: Sent,
        under_way: Option<UnderWay<'_>>,
    ) -> Result<Option<Object>> {
        let lock = sent.lock.take();
        let looking = self.verdict(uploaded, &sent, under_way);
        let settled = match &lock {
            Some(lock) => lock.keeping(&self.store, looking).await,
            None => looking.await,
        };
        let Some(lock) = lock else { return settled };
        lock.give_back(&self.store).await;
        // Nobody else could take it away.
        settled?
            .map(Some)
            .ok_or_else(|| wrong("the service said that it is stored, and has nothing there"))
    }

    /// What has the name now. Where many look together, an object that isn't what was stored is looked at once more.
    async fn sight(&self, uploaded: &Uploaded<'_>, sent: &Sent, under_way: Option<UnderWay<'_>>) -> Result<Sight> {
        let (key, attributes) = (uploaded.key, uploaded.attributes);
        let Some(under_way) = under_way else {
            let object = found(self.store.object(key).await)?;
            return Ok(Sight {
                object,
                is_directory: false,
            });
        };
        let goes_along = *attributes != PosixAttributes::default();
        if goes_along && self.keeps_metadata.get() != Some(&true) {
            drop(under_way);
            let sight = alone(&self.store, key).await?;
            if let Some(object) = sight.object.as_ref().filter(|object| is_sents(object, sent)) {
                let _ = self.keeps_metadata.set(object.posix == attributes.clone().into());
            }
            return Ok(sight);
        }
        let mut sight = self.looks.at(&self.store, key, under_way).await?;
        match &mut sight.object {
            // A listing doesn't tell what goes along.
            Some(object) if is_sents(object, sent) => object.posix = attributes.clone().into(),
            object => *object = found(self.store.object(key).await)?,
        }
        Ok(sight)
    }

    async fn verdict(
        &self,
        uploaded: &Uploaded<'_>,
        sent: &Sent,
        under_way: Option<UnderWay<'_>>,
    ) -> Result<Option<Object>> {
        let Uploaded {
            target, key, content, ..
        } = *uploaded;
        let sight = self.sight(uploaded, sent, under_way).await?;
        let Some(there) = sight.object else {
            return Ok(None);
        };
        if sight.is_directory {
            if is_sents(&there, sent) {
                self.take_back(target, key, &there.version).await;
            }
            return Err(clash(target));
        }
        if is_sents(&there, sent) {
            if there.size != content.len() {
                let (sent, has) = (content.len(), there.size);
                return Err(wrong(&format!("{sent} bytes were sent and the service has {has}")));
            }
            // One that is as it was before is looked into however long it is.
            let is_as_before = target.replaced_version() == Some(&there.version);
            if there.version == sent.tag || !(content.is_read_back() || is_as_before) {
                self.note_own(&there.version);
                return Ok(Some(there));
            }
            match self.is_same(key, &there, content).await {
                Ok(true) => {
                    self.note_own(&there.version);
                    return Ok(Some(there));
                }
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::Changed => return Err(clash(target)),
                Err(error) => return Err(error),
            }
            self.take_back(target, key, &there.version).await;
            return Err(wrong("the service stored something else than what was sent"));
        }
        if there.over.is_some() && there.over == sent.version {
            return Ok(Some(ours(content.len(), sent)));
        }
        match target {
            Target::Replace { entry, .. } if entry.version == there.version => Err(wrong(
                "the service said that it is stored, and has what was there before",
            )),
            _ if there.upload.as_ref() == Some(&sent.upload) => {
                self.take_back(target, key, &there.version).await;
                Err(wrong("the service stored something else than what was sent"))
            }
            _ => Err(clash(target)),
        }
    }

    /// Makes sure that a copy is there before what it is a copy of goes.
    ///
    /// # Errors
    /// `Busy` when it isn't there, `BadData` when it has other bytes, `AlreadyExists` when something else is there.
    pub(super) async fn settle_copy(
        &self,
        from: &str,
        source: &Object,
        to: &str,
        name: &Name,
        told: Option<Version>,
    ) -> Result<Object> {
        let Some(there) = found(self.store.object(to).await)? else {
            // Without a lock somebody else may have taken it away. What it is a copy of stays.
            let message = "rename it: the service said that it is copied, and has nothing there";
            return Err(Error::new(ErrorKind::Busy, message));
        };
        let is_told = told.as_ref() == Some(&there.version);
        let is_copy = there.version == source.version || {
            let is_open = there.size == source.size && (is_told || told.is_none());
            is_open && self.is_copy(from, source, to, &there).await?
        };
        if !is_copy && !is_told {
            // What the service doesn't call its copy may be somebody else's.
            return Err(exists(name));
        }
        if !is_copy {
            // The original may have got other bytes between the look at it and the copy.
            match found(self.store.object(from).await)? {
                Some(now) if now.version == there.version => {}
                Some(now) if now.version == source.version => {
                    return Err(wrong("the service stored something else than a copy"));
                }
                _ => return Err(Error::new(ErrorKind::Busy, "rename it: somebody else changes it")),
            }
        }
        self.note_own(&there.version);
        Ok(there)
    }

    /// Whether two objects of one length have the same bytes, as far as they are short.
    async fn is_copy(&self, from: &str, source: &Object, to: &str, there: &Object) -> Result<bool> {
        if source.size > READ_BACK {
            return Ok(true);
        }
        let bytes = self.bytes(from, source).await?;
        bytes
            .is_same_as(self.store.read(&id(to, there), 0..there.size).await?)
            .await
    }

    /// All bytes of a short object.
    async fn bytes(&self, key: &str, object: &Object) -> Result<Content> {
        let stream = self.store.read(&id(key, object), 0..object.size).await?;
        Content::from_bytes(&crate::provider::register::gathered(stream, READ_BACK).await?)
    }

    /// The object there if it has exactly these bytes; for changes whose answer was lost.
    pub(super) async fn held(&self, key: &str, content: &Content) -> Option<Object> {
        let there = self.store.object(key).await.ok()?;
        let is_same = there.size == content.len() && self.is_same(key, &there, content).await.unwrap_or(false);
        is_same.then_some(there)
    }

    async fn is_same(&self, key: &str, object: &Object, content: &Content) -> Result<bool> {
        let theirs = self.store.read(&id(key, object), 0..object.size).await?;
        content.is_same_as(theirs).await
    }

    /// Removes a new object that isn't what it should be, so that its name is free for the next attempt. What has
    /// replaced something stays: that is gone anyway.
    async fn take_back(&self, target: &Target, key: &str, version: &Version) {
        let may_be_others = self.apart(key).await.is_ok_and(|apart| apart == Apart::Looks);
        if may_be_others || matches!(target, Target::Replace { .. }) {
            return;
        }
        match self.delete(key, version).await {
            Ok(()) => warn!(key, "what was stored wrongly is removed"),
            Err(error) => warn!(key, %error, "what was stored wrongly stays"),
        }
    }
}

/// Whether an object is the one that was sent, as far as its version tells it.
fn is_sents(object: &Object, sent: &Sent) -> bool {
    let is_told = sent.version.as_ref().is_none_or(|told| object.version == *told);
    is_told || object.version == sent.tag
}

/// What was stored, as far as it is known when somebody has replaced it since.
fn ours(size: u64, sent: &Sent) -> Object {
    Object {
        size,
        version: sent.version.clone().unwrap_or_else(|| sent.tag.clone()),
        modified: SystemTime::now(),
        posix: ToldAttributes::Untold,
        over: None,
        upload: None,
    }
}

fn id(key: &str, object: &Object) -> ObjectId {
    ObjectId {
        key: ObjectKey::new(key),
        version: object.version.clone(),
        size: object.size,
    }
}

fn wrong(why: &str) -> Error {
    Error::new(ErrorKind::BadData, format!("write to the bucket: {why}"))
}
