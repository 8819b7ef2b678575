//! Changes of several requests: look, change under a condition, look at what came of it.
//!
//! Services that know no conditions say so (501) or ignore them, so the name or the version is looked at right before
//! as well. What somebody else does between the two is then not seen; services that know conditions see it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::store::{Condition, Object, Store, check_name, folder_of};
use crate::model::{Entry, Error, ErrorKind, Name, ObjectId, ObjectKey, Result};
use crate::provider::{Content, Target};

/// Directories that are remembered to have a marker.
const MARKED: usize = 10_000;

/// A bucket that is changed.
pub(super) struct Changes {
    pub(super) store: Store,
    /// The directory that is there also when nothing is in it.
    root: String,
    /// Set once the service said that it knows no conditions.
    without_conditions: AtomicBool,
    /// Directories that stay when what is in them goes.
    marked: Mutex<HashSet<String>>,
}

impl Changes {
    pub(super) fn new(store: Store, root: String) -> Self {
        Self {
            store,
            root,
            without_conditions: AtomicBool::new(false),
            marked: Mutex::default(),
        }
    }

    fn conditions<'a>(&self, wanted: Condition<'a>) -> Condition<'a> {
        if self.without_conditions.load(Ordering::Relaxed) {
            Condition::Unchecked
        } else {
            wanted
        }
    }

    /// Whether a change is to be made again, without a condition.
    fn knows_none(&self, changed: &Result<()>) -> bool {
        matches!(changed, Err(error) if error.kind() == ErrorKind::Unsupported)
            && !self.without_conditions.swap(true, Ordering::Relaxed)
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
    /// `AlreadyExists`, `Changed`, `NotFound` when the directory is missing, `BadData`.
    pub(super) async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        let (parent, name) = (target.parent().as_str(), target.name());
        let key = format!("{parent}{name}");
        let wanted = match target {
            Target::New { .. } => {
                self.free(parent, name).await?;
                Condition::Free
            }
            Target::Replace { entry, .. } => {
                match found(self.store.object(&key).await)? {
                    Some(now) if now.version == entry.version => {}
                    _ => return Err(changed(name)),
                }
                Condition::Version(&entry.version)
            }
        };
        let mut stored = self.store.put(&key, content, self.conditions(wanted)).await.map(drop);
        if self.knows_none(&stored) {
            stored = self.store.put(&key, content, Condition::Unchecked).await.map(drop);
        }
        match stored {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Changed => {
                return Err(match target {
                    Target::New { .. } => exists(name),
                    Target::Replace { .. } => changed(name),
                });
            }
            Err(error) if is_ambiguous(&error) && self.holds(&key, content).await => {}
            Err(error) => return Err(error),
        }
        let object = self.store.object(&key).await?;
        if object.size != content.len() {
            return Err(Error::bad_data(format!(
                "write to the bucket: {} bytes were sent and the service has {}",
                content.len(),
                object.size
            )));
        }
        Ok(self.store.file(&key, name, &object))
    }

    /// Whether a name is free in a directory that exists.
    async fn free(&self, parent: &str, name: &Name) -> Result<()> {
        check_name(parent, name.as_str())?;
        match self.lookup(parent, name).await {
            Ok(_) => Err(exists(name)),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Err(_) if parent == self.root || self.store.any_below(parent).await? => Ok(()),
            Err(_) => Err(Error::not_found(format_args!("the directory {parent:?}"))),
        }
    }

    /// # Errors
    /// `AlreadyExists`, `NotFound` when the directory above is missing.
    pub(super) async fn make_directory(&self, parent: &str, name: &Name) -> Result<Entry> {
        self.free(parent, name).await?;
        let key = format!("{parent}{name}/");
        self.store.mark(&key).await?;
        Ok(self.store.directory(&key, name))
    }

    /// # Errors
    /// `NotFound`.
    pub(super) async fn remove_file(&self, entry: &Entry) -> Result<()> {
        let key = entry.key.as_str();
        self.store.object(key).await?;
        self.keep(folder_of(key)).await;
        self.store.delete(key).await
    }

    /// What somebody else puts into it between the two requests stays, and so does the directory.
    ///
    /// # Errors
    /// `NotFound`, `NotEmpty`.
    pub(super) async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        let key = entry.key.as_str();
        if !self.store.children(key).await?.is_empty() {
            return Err(not_empty(&entry.name));
        }
        self.keep(folder_of(key)).await;
        self.marked.lock().remove(key);
        self.store.delete(key).await?;
        self.store.rights.forget(key);
        Ok(())
    }

    /// Copies and removes: S3 knows no renaming. Until the new name holds the file, the old one does.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `IsADirectory`.
    pub(super) async fn rename(
        &self,
        entry: &Entry,
        parent: &str,
        name: &Name,
        replaced: Option<&Entry>,
    ) -> Result<Entry> {
        let (from, to) = (entry.key.as_str(), format!("{parent}{name}"));
        check_name(parent, name.as_str())?;
        let source = self.store.object(from).await?;
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
        let mut copied = self.store.copy(from, &to, self.conditions(wanted)).await;
        if self.knows_none(&copied) {
            copied = self.store.copy(from, &to, Condition::Unchecked).await;
        }
        if let Err(error) = copied {
            return Err(match error.kind() {
                ErrorKind::Changed => exists(name),
                _ => error,
            });
        }
        let object = self.store.object(&to).await?;
        if object.size != source.size {
            return Err(Error::bad_data("rename it: the copy has another length"));
        }
        self.keep(folder_of(from)).await;
        self.store.delete(from).await?;
        Ok(self.store.file(&to, name, &object))
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

    /// Whether the object there has exactly these bytes; for changes whose answer was lost.
    async fn holds(&self, key: &str, content: &Content) -> bool {
        let same = async {
            let there = self.store.object(key).await?;
            if there.size != content.len() {
                return Ok(false);
            }
            let whole = ObjectId {
                key: ObjectKey::new(key),
                version: there.version,
                size: there.size,
            };
            content.is_same_as(self.store.read(&whole, 0..whole.size).await?).await
        };
        let same: Result<bool> = same.await;
        same.unwrap_or(false)
    }
}

/// Whether a change may have happened though no answer came.
fn is_ambiguous(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut)
}

/// `None` where nothing is.
fn found(object: Result<Object>) -> Result<Option<Object>> {
    match object {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn exists(name: &Name) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{:?} exists already", name.as_str()))
}

fn changed(name: &Name) -> Error {
    let message = format!("{:?} was changed or removed by somebody else", name.as_str());
    Error::new(ErrorKind::Changed, message)
}

fn not_empty(name: &Name) -> Error {
    Error::new(ErrorKind::NotEmpty, format!("{:?} is not empty", name.as_str()))
}
