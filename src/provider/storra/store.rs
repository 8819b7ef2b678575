//! Changes, each checked right before and looked at right after, and ordered so that a crash between any two requests
//! loses nothing.
//!
//! Storra has no conditional requests, and what an upload or a move to a taken path does isn't documented. So nothing is
//! ever sent to one: new content is uploaded under a temporary name in the same folder, the former one is put into the
//! trash, and the new one takes its name. After a crash the new content is there under a name that begins with
//! `.keymount-new-`, and the former in the trash.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tracing::{debug, warn};

use super::client::{Client, Paid, is_ambiguous};
use super::names::{self, Temporary, split, temporary};
use super::snapshot::Snapshot;
use super::tree::{Change, Tree};
use super::turns::Turns;
use super::wire::{Item, Visibility};
use crate::model::{Entry, Error, ErrorKind, Kind, Result, Version};
use crate::provider::Content;

/// Attempts of a change whose outcome stayed unknown and which then proved not to have happened.
pub(super) const ATTEMPTS: u32 = 3;

pub(super) struct Store {
    pub(super) client: Arc<Client>,
    pub(super) snapshot: Arc<Snapshot>,
    turns: Turns,
    /// Set once a new file was listed with the time that its upload told: then later ones need not be looked up.
    pub(super) uploads_tell_time: AtomicBool,
}

/// How a replacement failed.
enum Swap {
    /// Everything is as it was.
    Restored(Error),
    /// The former content is in the trash and the new one where it was before.
    InBetween(Error),
}

impl Store {
    pub(super) fn new(client: Arc<Client>, snapshot: Arc<Snapshot>) -> Self {
        Self {
            client,
            snapshot,
            turns: Turns::default(),
            uploads_tell_time: AtomicBool::new(false),
        }
    }

    /// A file under a name that is free.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` for the folder, `BadData`.
    pub(super) async fn create(&self, path: &str, content: &Content) -> Result<Item> {
        let _turns = self.turns.take(&[path]).await;
        let (folder, name) = split(path);
        self.snapshot.look_closely(&[folder], |tree| free(tree, path)).await??;
        if names::travels_in_headers(name) {
            let sent = self.send(folder, name, content).await?;
            return self.settled(path, sent).await;
        }
        self.client.reserve_changes(1, "name the file").await?;
        let (fresh_path, sent) = self.send_aside(path, content).await?;
        match self.moved(&fresh_path, &sent, path, None, Paid::Before).await {
            Ok(item) => self.kept_private(path, item).await,
            Err(error) => {
                self.discard(&fresh_path).await;
                Err(error)
            }
        }
    }

    /// New content for a file that must still have this version.
    ///
    /// # Errors
    /// `Changed`, `BadData`.
    pub(super) async fn replace(&self, old: &Entry, content: &Content) -> Result<Item> {
        let path = old.key.as_str();
        let _turns = self.turns.take(&[path]).await;
        let before = |tree: &Tree| known(tree, path, &old.version);
        self.snapshot.look(before).await?.ok_or_else(|| changed(path))?;
        let purpose = "replace the file";
        self.client.reserve_changes(cost_of_deleting(path) + 1, purpose).await?;
        let (fresh_path, sent) = self.send_aside(path, content).await?;
        let swapped = match self.expected(path, &old.version).await {
            // Just listed: the former content goes only when the new one is there.
            Ok(_) if !self.snapshot.knows(&fresh_path) => Err(Swap::Restored(Error::bad_data(format!(
                "the provider said that it stored {fresh_path:?}, but doesn't have it"
            )))),
            Ok(former) => self.swap_in(&fresh_path, &sent, path, &former).await,
            Err(error) => Err(Swap::Restored(error)),
        };
        match swapped {
            Ok(item) => self.kept_private(path, item).await,
            Err(Swap::Restored(error)) => {
                self.discard(&fresh_path).await;
                Err(as_conflict(error))
            }
            Err(Swap::InBetween(error)) => Err(as_conflict(error)),
        }
    }

    /// Gives an entry another path, over what is there if that is what is to be replaced.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `NotEmpty`, `IsADirectory`, `NotADirectory`, `BadData`.
    pub(super) async fn rename(&self, entry: &Entry, to: &str, replaced: Option<&Entry>) -> Result<Item> {
        let from = entry.key.as_str();
        let _turns = self.turns.take(&[from, to]).await;
        let look = |tree: &Tree| {
            let moved = tree.get(from).filter(|item| item.kind == entry.kind).cloned();
            let moved = moved.ok_or_else(|| not_found(from))?;
            if !tree.is_folder(split(to).0) {
                return Err(not_found(split(to).0));
            }
            Ok((moved, replaceable(tree, entry.kind, to, replaced)?))
        };
        if replaced.is_some() {
            self.snapshot.list_folder(split(to).0).await?;
        }
        let folders = [split(from).0, split(to).0];
        let folders = if folders[0] == folders[1] {
            &folders[..1]
        } else {
            &folders
        };
        let (moved, former) = self.snapshot.look_closely(folders, look).await??;
        let Some(former) = former else {
            return self.moved(from, &moved, to, None, Paid::Now).await;
        };
        if former.is_folder() && !self.snapshot.list_folder(to).await?.is_empty() {
            return Err(not_empty(to));
        }
        self.client
            .reserve_changes(cost_of_deleting(to) + 1, "replace by a move")
            .await?;
        self.swap_in(from, &moved, to, &former)
            .await
            .map_err(|(Swap::Restored(error) | Swap::InBetween(error))| error)
    }

    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub(super) async fn remove_file(&self, path: &str) -> Result<()> {
        let _turns = self.turns.take(&[path]).await;
        let look = |tree: &Tree| tree.get(path).cloned();
        let item = self.snapshot.look_closely(&[split(path).0], look).await?;
        match item {
            None => Err(not_found(path)),
            Some(item) if item.is_folder() => Err(Error::new(ErrorKind::IsADirectory, format!("{path:?} is a folder"))),
            Some(item) => self.remove(path, &item, Paid::Now).await,
        }
    }

    /// Looks into it first, for a deletion takes all that is in a folder. What somebody else puts there between the two
    /// requests goes into the trash with it.
    ///
    /// # Errors
    /// `NotFound`, `NotEmpty`.
    pub(super) async fn remove_folder(&self, path: &str) -> Result<()> {
        let _turns = self.turns.take(&[path]).await;
        let look = |tree: &Tree| tree.get(path).filter(|item| item.is_folder()).cloned();
        let Some(item) = self.snapshot.look(look).await? else {
            return Err(not_found(path));
        };
        if !self.snapshot.list_folder(path).await?.is_empty() {
            return Err(not_empty(path));
        }
        self.remove(path, &item, Paid::Now).await
    }

    /// # Errors
    /// `AlreadyExists`, `NotFound` for the folder above.
    pub(super) async fn create_folder(&self, path: &str) -> Result<Item> {
        let _turns = self.turns.take(&[path]).await;
        let folder = split(path).0;
        self.snapshot.look_closely(&[folder], |tree| free(tree, path)).await??;
        let mut attempt = 1;
        let made = loop {
            let error = match self.client.create_folder(path).await {
                Ok((stored, item)) if stored == path && item.is_folder() => break item,
                Ok((stored, _)) => return Err(stored_elsewhere(path, &stored)),
                Err(error) => error,
            };
            if !is_ambiguous(&error) {
                return Err(error);
            }
            // Nobody can tell an empty folder from another.
            match self.snapshot.list_folder(folder).await {
                Ok(items) => match items
                    .into_iter()
                    .find(|(known, item)| known == path && item.is_folder())
                {
                    Some((_, item)) => break item,
                    None if attempt < ATTEMPTS => attempt += 1,
                    None => return Err(error),
                },
                Err(_) => return Err(error),
            }
        };
        let made = made.just_made();
        self.snapshot.changed(Change::Put(path.to_owned(), made.clone()));
        self.kept_private(path, made).await
    }

    /// Sets who may see an entry.
    ///
    /// # Errors
    /// `NotFound`, `BadData`.
    pub(super) async fn set_visibility(&self, path: &str, visibility: Visibility) -> Result<Item> {
        let _turns = self.turns.take(&[path]).await;
        let folder = split(path).0;
        let look = |tree: &Tree| tree.get(path).cloned();
        let item = self.snapshot.look_closely(&[folder], look).await?;
        let item = item.ok_or_else(|| not_found(path))?;
        self.client.set_visibility(path, visibility).await?;
        let now = self.seen(path, &item).await?.unwrap_or(Item {
            visibility: Some(visibility),
            updated: None,
            ..item
        });
        let is_public = |visibility| visibility == Visibility::Public;
        if now
            .visibility
            .is_some_and(|now| is_public(now) != is_public(visibility))
        {
            return Err(Error::bad_data(format!(
                "the provider said that it changed who may see {path:?}, but it did not"
            )));
        }
        self.snapshot.changed(Change::Put(path.to_owned(), now.clone()));
        Ok(now)
    }

    /// The file, if it is now what an entry of this version stands for.
    async fn expected(&self, path: &str, version: &Version) -> Result<Item> {
        match self.snapshot.list_folder(split(path).0).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let now = self.snapshot.look(|tree| known(tree, path, version)).await?;
        now.ok_or_else(|| changed(path))
    }

    /// Puts what has a name into the trash and gives the name to what is at `source`. Both requests were counted before.
    async fn swap_in(&self, source: &str, moved: &Item, path: &str, former: &Item) -> Result<Item, Swap> {
        let in_between = |error: Error| {
            Swap::InBetween(error.context(format_args!(
                "the former {path:?} is in Storra's trash, the new one is {source:?}"
            )))
        };
        match self.remove(path, former, Paid::Before).await {
            Ok(()) => {}
            // It may be gone: then the new content is all there is.
            Err(error) if is_ambiguous(&error) => return Err(in_between(error)),
            Err(error) => return Err(Swap::Restored(error)),
        }
        let error = match self
            .moved(source, moved, path, former.id.as_deref(), Paid::Before)
            .await
        {
            Ok(item) => return Ok(item),
            Err(error) => error,
        };
        if error.kind() == ErrorKind::AlreadyExists {
            // Somebody else was faster and has the name now; what is to be stored is still here.
            return Err(Swap::Restored(error));
        }
        let restored = match former.id.as_deref() {
            Some(id) => self.client.restore(id).await,
            None => Err(not_found(path)),
        };
        // Whatever came of it is seen anew.
        let _ = self.snapshot.list_folder(split(path).0).await;
        match restored {
            Ok(()) => Err(Swap::Restored(error)),
            Err(why) => {
                warn!(path, %why, "what was to be replaced cannot be restored");
                Err(in_between(error))
            }
        }
    }

    /// Moves to a path that is free, and gives what is there afterwards. `former` is the id of what was there before.
    async fn moved(&self, from: &str, item: &Item, to: &str, former: Option<&str>, paid: Paid) -> Result<Item> {
        let mut attempt = 1;
        let mut paid = paid;
        loop {
            let doubt = match self.client.move_to(from, to, paid).await {
                Ok(()) => {
                    self.snapshot.changed(Change::Moved {
                        from: from.to_owned(),
                        to: to.to_owned(),
                    });
                    None
                }
                Err(error) if is_ambiguous(&error) => Some(error),
                Err(error) => return Err(error),
            };
            let items = match (self.snapshot.list_folder(split(to).0).await, doubt.as_ref()) {
                (Ok(items), _) => items,
                (Err(error), None) if error.kind() == ErrorKind::BadData => return Err(error),
                (Err(error), None) => {
                    debug!(to, %error, "what was moved cannot be looked at");
                    let moved = Item {
                        updated: None,
                        ..item.clone()
                    };
                    self.snapshot.changed(Change::Put(to.to_owned(), moved.clone()));
                    return Ok(moved);
                }
                (Err(_), Some(doubt)) => return Err(doubt.clone()),
            };
            // Whether a move keeps the id isn't documented.
            let is_it = |known: &Item| {
                known.kind == item.kind
                    && known.size == item.size
                    && (former.is_none() || known.id.as_deref() != former)
            };
            if let Some((_, there)) = items.into_iter().find(|(path, known)| path == to && is_it(known)) {
                self.snapshot.changed(Change::Moved {
                    from: from.to_owned(),
                    to: to.to_owned(),
                });
                self.snapshot.changed(Change::Put(to.to_owned(), there.clone()));
                if there.is_folder() {
                    // Whether what is in it counts as changed isn't documented.
                    self.snapshot.expire();
                }
                return Ok(there);
            }
            // What is known of the place that it left is wrong if it never left.
            self.snapshot.expire();
            if attempt == ATTEMPTS {
                return Err(doubt.unwrap_or_else(|| {
                    Error::bad_data(format!(
                        "the provider said that it moved {from:?} to {to:?}, but it did not"
                    ))
                }));
            }
            attempt += 1;
            paid = Paid::Now;
        }
    }

    /// Puts what has a path into the trash; an answer that was lost is made up for by looking.
    async fn remove(&self, path: &str, item: &Item, paid: Paid) -> Result<()> {
        let mut attempt = 1;
        let mut paid = paid;
        loop {
            let error = match self.put_into_trash(path, paid).await {
                Ok(()) => break,
                Err(error) => error,
            };
            if !is_ambiguous(&error) {
                if error.kind() == ErrorKind::NotFound {
                    self.snapshot.changed(Change::Removed(path.to_owned()));
                }
                return Err(error);
            }
            let Ok(items) = self.snapshot.list_folder(split(path).0).await else {
                return Err(error);
            };
            let is_it = |known: &Item| item.id.is_none() || known.id == item.id;
            if !items.iter().any(|(known, listed)| known == path && is_it(listed)) {
                break;
            }
            if attempt == ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
            paid = Paid::Now;
        }
        self.snapshot.changed(Change::Removed(path.to_owned()));
        Ok(())
    }

    /// What has a path that the API takes for one of its own is moved out of it first.
    async fn put_into_trash(&self, path: &str, paid: Paid) -> Result<()> {
        if !names::is_route(path) {
            return self.client.delete(path, paid).await;
        }
        let aside = temporary(Temporary::Old, split(path).1);
        match self.client.move_to(path, &aside, paid).await {
            Ok(()) => self.client.delete(&aside, paid).await,
            Err(error) => {
                if is_ambiguous(&error) {
                    // It may have got there.
                    let _ = self.client.delete(&aside, paid).await;
                }
                Err(error)
            }
        }
    }

    /// Removes what is of no use any more. A failure costs nothing but the room it takes.
    pub(super) async fn discard(&self, path: &str) {
        match self.put_into_trash(path, Paid::Before).await {
            Ok(()) => self.snapshot.changed(Change::Removed(path.to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.snapshot.changed(Change::Removed(path.to_owned()));
            }
            Err(error) => warn!(path, %error, "a temporary file is left at the provider"),
        }
    }
}

/// How many requests the deletion of a path takes.
fn cost_of_deleting(path: &str) -> u32 {
    if names::is_route(path) { 2 } else { 1 }
}

/// Whether something can be made at a path.
fn free(tree: &Tree, path: &str) -> Result<()> {
    let folder = split(path).0;
    if !tree.is_folder(folder) {
        return Err(not_found(folder));
    }
    match tree.get(path) {
        Some(_) => Err(exists(path)),
        None => Ok(()),
    }
}

/// The file at a path, if it is what an entry of this version stands for.
fn known(tree: &Tree, path: &str, version: &Version) -> Option<Item> {
    let item = tree.get(path)?;
    (!item.is_folder() && item.has(version)).then(|| item.clone())
}

/// What a rename puts into the trash; `None` when the path is free.
fn replaceable(tree: &Tree, kind: Kind, path: &str, replaced: Option<&Entry>) -> Result<Option<Item>> {
    let Some(there) = tree.get(path) else {
        return Ok(None);
    };
    let is_it = |replaced: &Entry| there.kind == replaced.kind && there.has(&replaced.version);
    if !replaced.is_some_and(is_it) {
        return Err(exists(path));
    }
    match (kind, there.kind) {
        (Kind::File, Kind::Directory) => Err(Error::new(ErrorKind::IsADirectory, format!("{path:?} is a folder"))),
        (Kind::Directory, Kind::File) => {
            let message = format!("{path:?} is not a folder");
            Err(Error::new(ErrorKind::NotADirectory, message))
        }
        _ => Ok(Some(there.clone())),
    }
}

/// A target that was gone or somebody else's when it was to be replaced.
fn as_conflict(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::AlreadyExists => Error::new(ErrorKind::Changed, error.message()),
        _ => error,
    }
}

fn not_found(path: &str) -> Error {
    Error::not_found(format_args!("{path:?}"))
}

pub(super) fn exists(path: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{path:?} exists already"))
}

fn changed(path: &str) -> Error {
    let message = format!("{path:?} was changed or removed by somebody else");
    Error::new(ErrorKind::Changed, message)
}

fn not_empty(path: &str) -> Error {
    Error::new(ErrorKind::NotEmpty, format!("{path:?} is not empty"))
}

pub(super) fn stored_elsewhere(path: &str, stored: &str) -> Error {
    let message = format!("Storra would store {path:?} as {stored:?}");
    Error::new(ErrorKind::InvalidName, message)
}
