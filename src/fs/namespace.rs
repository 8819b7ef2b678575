//! Names: making directories, removing, renaming.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;
use tracing::warn;

use super::inode::{Node, Placement, Presence};
use super::listing::Listing;
use super::reference::Reference;
use super::{Child, FileSystem, Ino};
use crate::model::{Action, Entry, Error, ErrorKind, Kind, Name, Result, Version};
use crate::outbox::{Staged, Step};
use crate::provider::Place;

/// What `renameat2` was asked to mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    Replace,
    /// `RENAME_NOREPLACE`.
    KeepExisting,
}

impl FileSystem {
    /// # Errors
    /// `AlreadyExists`, `Denied`, `ReadOnly`, and as `Provider::create_directory`.
    pub async fn make_directory(&self, parent: Ino, name: &OsStr, mode: u32, umask: u32) -> Result<Child> {
        self.stands_still(parent).await;
        // Where a directory is made anew under another name, nothing is made in it meanwhile.
        let _names = if self.provider.capabilities().rename_directories {
            None
        } else {
            Some(self.renaming.read().await)
        };
        let keys = self.keys_now(parent);
        let (name, parent_entry) = self.may_create(parent, name, Kind::Directory).await?;
        let making = self.making(parent, &name);
        let made = self.provider.create_directory(&parent_entry.key, &name).await;
        let entry = made.inspect_err(|_| self.doubt(&[parent]))?;
        self.kept_is_of_another(&entry.key);
        let now = self.table.question(parent)?.answered();
        let reference = self.table.attach(parent, entry, None, now)?;
        self.doubt_key(reference.ino(), keys);
        let empty = self.table.question(reference.ino())?.answered();
        self.list_node(reference.ino());
        self.table.with(reference.ino(), |node| {
            // Nothing is in it, so nobody is asked what is; unless somebody was faster.
            if node.changes == empty.changes {
                node.listing
                    .get_or_insert_with(|| Arc::new(Listing::new(BTreeMap::new(), empty)));
            }
            node.subdirectories = Some(0);
        })?;
        self.note_new(reference.ino(), mode, umask);
        self.count_directories(parent, 1);
        self.names_changed(parent);
        let child = self.as_child(reference)?;
        making.succeeded();
        Ok(child)
    }

    /// # Errors
    /// `IsADirectory`, `Denied`, `ReadOnly`, and as `Provider::remove_file`.
    pub async fn unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.remove(parent, name, Kind::File).await
    }

    /// # Errors
    /// `NotADirectory`, `NotEmpty`, `Denied`, `ReadOnly`, and as `Provider::remove_directory`.
    pub async fn remove_directory(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.remove(parent, name, Kind::Directory).await
    }

    /// # Errors
    /// `CrossDevice` when the provider cannot move it there, `AlreadyExists` when nothing may be replaced,
    /// `Denied` and `ReadOnly`, and as `Provider::rename`.
    pub async fn rename(&self, from: (Ino, &OsStr), to: (Ino, &OsStr), mode: RenameMode) -> Result<()> {
        let (from, to) = ((from.0, Name::from_os(from.1)?), (to.0, Name::from_os(to.1)?));
        let making = self.making(to.0, &to.1);
        self.rename_or_look_again(&from, &to, mode).await?;
        making.succeeded();
        Ok(())
    }

    async fn rename_or_look_again(&self, from: &(Ino, Name), to: &(Ino, Name), mode: RenameMode) -> Result<()> {
        match self.rename_once(from, to, mode).await {
            // What is to be replaced is not what it was thought to be: look again, once.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && mode == RenameMode::Replace => {
                let child = self.table.child(to.0, &to.1);
                let thought = child.as_ref().and_then(|child| self.version_there(child.ino()));
                if let Some(child) = &child {
                    // It may have been put aside by this.
                    let _ = self.settle_clash(child.ino()).await;
                    self.doubt(&[child.ino()]);
                }
                self.doubt(&[to.0]);
                let there = self.find(to.0, &to.1).await;
                if self
                    .is_foreign((to.0, &to.1), there.as_ref().ok(), thought.as_ref())
                    .await
                {
                    // Nobody here has seen what somebody else has stored there: both are kept.
                    return self.rename_aside(from, to, error).await;
                }
                self.rename_once(from, to, mode).await
            }
            // What was changed here was changed or removed there, too: if it keeps its name, that can be renamed.
            Err(error) if error.kind() == ErrorKind::Changed => {
                let child = self.table.child(from.0, &from.1);
                let clashes = |child: &Reference| self.table.with(child.ino(), |node| node.clash.is_some());
                let Some(child) = child.filter(|child| clashes(child).unwrap_or(false)) else {
                    return Err(error);
                };
                self.settle_clash(child.ino()).await?;
                self.rename_once(from, to, mode).await
            }
            outcome => outcome,
        }
    }

    /// The version of a file that the provider has, as far as it is known.
    fn version_there(&self, ino: Ino) -> Option<Version> {
        let of = |node: &mut Node| {
            let is_there = node.presence == Presence::AtProvider && !node.entry.is_directory();
            is_there.then(|| node.entry.version.clone())
        };
        self.table.with(ino, of).ok().flatten()
    }

    /// Whether a name stands for a version of somebody else's that nobody here has opened, or for another one than was
    /// thought.
    async fn is_foreign(
        &self,
        (parent, name): (Ino, &Name),
        there: Option<&Reference>,
        thought: Option<&Version>,
    ) -> bool {
        let _turn = match there {
            // What is being sent is this mount's own afterwards.
            Some(there) => self.turn(there.ino()).await.ok(),
            None => None,
        };
        let is_own = |there: &Reference| {
            let sent = self.table.with(there.ino(), |node| node.sent.clone());
            sent.is_ok_and(|sent| sent == self.version_there(there.ino()))
        };
        let foreign = there.filter(|there| !is_own(there));
        let version = foreign.and_then(|there| self.version_there(there.ino()));
        self.table.is_unread(parent, name) || version.is_some_and(|version| Some(&version) != thought)
    }

    /// What was changed here of a file that is removed, or that a rename pushes out: nobody wants it any more. What the
    /// journal has of it is struck out after its node is gone, so that whoever is about to enter it notices.
    pub(super) fn staged_of(&self, ino: Option<Ino>) -> Option<Arc<Staged>> {
        let content = ino.and_then(|ino| self.table.with(ino, |node| node.content.clone()).ok()?);
        content.map(|content| content.staged)
    }

    pub(super) async fn rename_once(&self, from: &(Ino, Name), to: &(Ino, Name), mode: RenameMode) -> Result<()> {
        let (old_name, new_name) = (&from.1, &to.1);
        let source = self.find(from.0, old_name).await?;
        let ino = source.ino();
        let target_directory = self.entry(to.0).await?;
        let entry = self.entry(ino).await?;
        self.require(&entry, Action::Write)?;
        self.require(&target_directory, Action::Write)?;
        self.provider.check_name(&target_directory.key, entry.kind, new_name)?;
        let over = match self.find(to.0, new_name).await {
            Ok(over) if over.ino() == ino => return Ok(()),
            Ok(over) => Some(over),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let over_ino = over.as_ref().map(Reference::ino);
        if let Some(over) = over_ino {
            if mode == RenameMode::KeepExisting {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("{new_name} exists")));
            }
            let replaced = self.entry(over).await?;
            self.may_replace(&entry, &replaced)?;
            if replaced.is_directory() {
                self.must_be_empty_here(over, new_name)?;
            }
        }

        let _turns = self.turns(ino, over_ino).await?;
        // Whose turn it was before may have renamed or removed them.
        if !self.table.has_name(ino, from.0, old_name) {
            return Err(Error::not_found(old_name));
        }
        if self.table.child(to.0, new_name).as_ref().map(Reference::ino) != over_ino {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{new_name} was replaced")));
        }
        self.recognise(ino).await?;
        if let Some(over) = over_ino {
            self.recognise(over).await?;
        }
        let presence = self.table.with(ino, |node| node.presence)?;
        if presence != Presence::Local
            && let Some(over) = over_ino
        {
            self.keep_open_content(over).await?;
        }
        if presence == Presence::Local {
            self.rename_local(ino, from, to, over_ino).await?;
        } else if presence == Presence::Unsent {
            self.rename_unsent(ino, to.0, new_name, over_ino).await?;
        } else {
            self.send_staged_if_closed(ino).await?;
            let replaced = match over_ino {
                Some(over) => {
                    // Else its change would be found beside what took its place, should this process end in the middle.
                    let _ = self.send_staged_if_closed(over).await;
                    self.table.replaceable(over)?
                }
                None => None,
            };
            let is_directory = self.table.with(ino, |node| node.entry.is_directory())?;
            let _names = if is_directory {
                Some(self.renaming.write().await)
            } else {
                None
            };
            for above in [from.0, to.0] {
                self.stands_still(above).await;
            }
            let keys = self.keys_now(to.0);
            let entry = self.entry(ino).await?;
            let lineage = self.table.with(ino, |node| node.lineage)?;
            let source = Place {
                parent: self.entry(from.0).await?.key,
                name: old_name.clone(),
            };
            let target = Place {
                parent: self.entry(to.0).await?.key,
                name: new_name.clone(),
            };
            let _on_its_way = is_directory.then(|| self.moving.begin(ino));
            let is_made_anew = is_directory && !self.provider.capabilities().rename_directories;
            if is_made_anew && self.table.is_sent_from_within(ino) {
                // What is sent is there in a moment, and nothing further is begun.
                return Err(still_holds_something());
            }
            if let (true, Some(old)) = (is_directory, self.table.path(ino)) {
                // What waits below it must be found by either name, should this process end in the middle.
                let above = self.table.path(to.0).filter(|above| !above.is_empty());
                let new = above.map_or_else(|| new_name.to_string(), |above| format!("{above}/{new_name}"));
                self.commit_or_warn(vec![Step::Intend { from: old, to: new }]).await;
            }
            if over_ino.is_some_and(|over| self.is_wanted(over))
                && let Some(path) = over_ino.and_then(|over| self.table.path(over))
            {
                // Afterwards it is nowhere, which is not known before the provider has answered.
                let (from, to) = (path, String::new());
                self.commit_or_warn(vec![Step::Intend { from, to }]).await;
            }
            fail_point!("rename.begun");
            let renamed = if is_made_anew {
                self.rename_empty_directory(&entry, &target, replaced.as_ref()).await
            } else {
                self.provider.rename(&entry, &source, &target, replaced.as_ref()).await
            };
            let renamed = renamed.inspect_err(|error| {
                self.doubt(&[ino, from.0, to.0]);
                self.doubt(over_ino.as_slice());
                self.table.may_stand_for((to.0, new_name), entry.size, error);
            })?;
            fail_point!("rename.stored");
            let replaced = self.staged_of(over_ino);
            let moved = self.relocated(ino, to.0, new_name)?;
            let moved = moved.map(|(from, to)| Step::Move { from, to });
            self.with_new_version(ino, &entry.version, |node| {
                node.sent = Some(renamed.version.clone());
                node.confirm_same_content(renamed, lineage);
            })?;
            self.doubt_key(ino, keys);
            // Whoever asked may rely on it when this returns.
            self.enter_moved(ino, replaced, moved).await?;
        }
        self.list_node(ino);
        self.touched(ino);
        if let Some(over) = over_ino {
            self.touched(over);
        }
        if entry.is_directory() {
            self.count_directories(from.0, -1);
            self.count_directories(to.0, if over_ino.is_some() { 0 } else { 1 });
        }
        self.names_changed(from.0);
        self.names_changed(to.0);
        Ok(())
    }

    /// Where the provider renames no directories: one that has nothing at the provider takes its new name by being made
    /// anew there. What was not sent yet goes with it.
    ///
    /// # Errors
    /// `CrossDevice` for one that has something there, `NotEmpty` when what it is to replace has, and as the provider's.
    async fn rename_empty_directory(&self, entry: &Entry, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        if let Some(replaced) = replaced
            && !self.provider.list(&replaced.key).await?.is_empty()
        {
            return Err(Error::new(ErrorKind::NotEmpty, format!("{} is not empty", to.name)));
        }
        if !self.provider.list(&entry.key).await?.is_empty() {
            return Err(still_holds_something());
        }
        let renamed = match replaced {
            Some(replaced) => replaced.clone(),
            None => self.provider.create_directory(&to.parent, &to.name).await?,
        };
        self.provider.remove_directory(entry).await?;
        Ok(renamed)
    }

    /// The turns of one or two nodes, in the order of their numbers, so that nobody waits in a circle.
    pub(super) async fn turns(&self, ino: Ino, other: Option<Ino>) -> Result<Vec<OwnedMutexGuard<()>>> {
        let mut numbers = vec![ino];
        numbers.extend(other);
        numbers.sort_unstable();
        let mut turns = Vec::new();
        for number in numbers {
            turns.push(self.turn(number).await?);
        }
        Ok(turns)
    }

    /// The turn to change a node at the provider.
    pub(super) async fn turn(&self, ino: Ino) -> Result<OwnedMutexGuard<()>> {
        let turn = self.table.with(ino, |node| node.turn.clone())?;
        Ok(turn.take().await)
    }

    /// Checks that a child of this kind may be made; gives its name and the directory.
    pub(super) async fn may_create(&self, parent: Ino, name: &OsStr, kind: Kind) -> Result<(Name, Entry)> {
        let name = Name::from_os(name)?;
        let directory = self.entry(parent).await?;
        self.require(&directory, Action::Write)?;
        self.provider.check_name(&directory.key, kind, &name)?;
        Ok((name, directory))
    }

    fn may_replace(&self, entry: &Entry, replaced: &Entry) -> Result<()> {
        match (entry.kind, replaced.kind) {
            (Kind::File, Kind::Directory) => {
                return Err(Error::new(
                    ErrorKind::IsADirectory,
                    format!("{} is a directory", replaced.name),
                ));
            }
            (Kind::Directory, Kind::File) => {
                return Err(Error::new(
                    ErrorKind::NotADirectory,
                    format!("{} is a file", replaced.name),
                ));
            }
            _ => {}
        }
        self.require(replaced, Action::Delete)
    }

    /// Has the provider remove what was seen there, by the key that holds.
    pub(super) async fn remove_there(&self, ino: Ino, seen: &Entry) -> Result<()> {
        let mut entry = seen.clone();
        loop {
            self.stands_still(ino).await;
            let removed = match entry.kind {
                Kind::File => self.provider.remove_file(&entry).await,
                Kind::Directory => self.provider.remove_directory(&entry).await,
            };
            let Err(error) = removed else { return Ok(()) };
            if !self.was_moved(ino, &entry.key, &error).await {
                return Err(error);
            }
            let now = self.entry(ino).await?;
            if now.key == entry.key {
                return Err(error);
            }
            if now.version != seen.version && !seen.is_directory() {
                let message = format!("{} is another version by now", now.name);
                return Err(Error::new(ErrorKind::Changed, message));
            }
            entry = now;
        }
    }

    async fn remove(&self, parent: Ino, name: &OsStr, kind: Kind) -> Result<()> {
        let name = Name::from_os(name)?;
        let reference = self.find(parent, &name).await?;
        let ino = reference.ino();
        let entry = self.entry(ino).await?;
        match (kind, entry.kind) {
            (Kind::File, Kind::Directory) => {
                return Err(Error::new(ErrorKind::IsADirectory, format!("{name} is a directory")));
            }
            (Kind::Directory, Kind::File) => {
                return Err(Error::new(ErrorKind::NotADirectory, format!("{name} is a file")));
            }
            _ => {}
        }
        self.require(&entry, Action::Delete)?;
        let _turn = self.turn(ino).await?;
        // Whose turn it was before may have renamed or removed it.
        if !self.table.has_name(ino, parent, &name) {
            return Err(Error::not_found(&name));
        }
        self.recognise(ino).await?;
        // Its key may have changed by a rename above.
        self.stands_still(ino).await;
        self.entry(ino).await?;
        let of = |node: &mut Node| (node.presence, node.is_dirty(), node.entry.clone());
        let (presence, is_dirty, entry) = self.table.with(ino, of)?;
        if presence == Presence::Local {
            return self.remove_local(ino, parent, &name);
        }
        if kind == Kind::Directory {
            self.must_be_empty_here(ino, &name)?;
        }
        self.keep_open_content(ino).await?;
        fail_point!("unlink.begun");
        let outcome = match presence {
            Presence::Unsent => Ok(()),
            _ => self.remove_there(ino, &entry).await,
        };
        if let Err(error) = &outcome
            && error.kind() != ErrorKind::NotFound
        {
            self.doubt(&[ino, parent]);
            // The kernel's idea of its length is the former version's.
            self.forget_pages(ino);
            return outcome.map_err(|error| match error.kind() {
                // To `ESTALE` the kernel would ask again, for a version that nobody here has seen.
                ErrorKind::Changed => {
                    let message = format!("{name} was just changed by somebody else; look at it and remove it again");
                    Error::new(ErrorKind::Busy, message)
                }
                _ => error,
            });
        }
        if let Some(path) = self.table.path(ino)
            && let Err(error) = self.state.remove(&self.namespace(), &path)
        {
            warn!(path, %error, "the modes and times of what was removed are kept");
        }
        if kind == Kind::Directory {
            self.kept_is_of_another(&entry.key);
        }
        fail_point!("unlink.stored");
        let staged = self.staged_of(Some(ino));
        self.table.remove(ino);
        self.forget_removed(staged).await;
        self.touched(ino);
        if kind == Kind::Directory {
            self.count_directories(parent, -1);
        }
        self.names_changed(parent);
        match outcome {
            // Nothing was there any more, and what was here is gone.
            Err(_) if is_dirty => Ok(()),
            outcome => outcome,
        }
    }

    /// The provider says whether a directory is empty there; what only this host has, it doesn't know.
    fn must_be_empty_here(&self, directory: Ino, name: &Name) -> Result<()> {
        if self.table.unsent_children(directory).is_empty() && self.local_children(directory)?.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotEmpty, format!("{name} is not empty")))
    }

    /// A directory holds one directory more or fewer.
    fn count_directories(&self, directory: Ino, change: i32) {
        let _ = self.table.with(directory, |node| {
            node.subdirectories = node.subdirectories.and_then(|count| count.checked_add_signed(change));
        });
    }

    /// A file that the provider doesn't have takes its new name here; it will be sent as the new version of what it replaces.
    ///
    /// In the journal, it takes its name in the same moment in which what it replaces goes.
    async fn rename_unsent(&self, ino: Ino, parent: Ino, name: &Name, over: Option<Ino>) -> Result<()> {
        let (replaced, sent) = match over {
            Some(over) => (
                self.table.replaceable(over)?,
                self.table.with(over, |node| node.sent.clone())?,
            ),
            None => (None, None),
        };
        let replaced_content = self.staged_of(over);
        self.relocated(ino, parent, name)?;
        self.table.with(ino, |node| {
            if let Some(replaced) = &replaced {
                node.entry = replaced.clone();
                node.presence = Presence::AtProvider;
                node.sent = sent;
            }
            if let Some(content) = &mut node.content {
                content.replaces = replaced;
            }
        })?;
        fail_point!("rename.begun");
        self.enter_moved(ino, replaced_content, None).await
    }

    /// A node hangs elsewhere, and so does everything below it; gives the paths before and after, for the journal.
    pub(super) fn relocated(&self, ino: Ino, parent: Ino, name: &Name) -> Result<Option<(String, String)>> {
        let _one = self.keeping.lock();
        let _paths = self.paths.write();
        let old_path = self.table.path(ino);
        self.table.relocate(ino, parent, name)?;
        if self.table.with(ino, |node| node.entry.is_directory()).unwrap_or(true) {
            // What is below has other keys now, and perhaps something else will have the old ones.
            self.forget_all_kept();
        }
        let paths = old_path.zip(self.table.path(ino));
        if let Some((old, new)) = &paths
            && let Err(error) = self.state.rename(&self.namespace(), old, new)
        {
            warn!(old, new, %error, "the modes and times of what was renamed are not kept");
        }
        Ok(paths)
    }

    /// The directory that holds a node, and the name it has there.
    pub(super) fn place(&self, ino: Ino) -> Result<Option<(Ino, Name)>> {
        self.table.with(ino, |node| match &node.placement {
            Placement::Child { parent, name } => Some((*parent, name.clone())),
            Placement::Root | Placement::Removed => None,
        })
    }
}

fn still_holds_something() -> Error {
    let message = "the provider renames no directories that hold something";
    Error::new(ErrorKind::CrossDevice, message)
}
