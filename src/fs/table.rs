//! The inode table: which numbers the kernel holds, and what each stands for.
//!
//! One lock covers numbers, names and reference counts, and it is never held across an await. Numbers are never used
//! twice. A node lives while somebody has a reference to it, a handle is open on it, a child hangs below it, or its
//! content is not yet at the provider.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::inode::{Answer, Freshness, Ino, LocalContent, Node, Placement, Presence};
use super::listing::Listing;
use crate::model::{Entry, Error, ErrorKind, Kind, Name, ObjectKey, Result};
use crate::outbox::Staged;
use crate::state::LocalAttributes;

pub struct Table {
    inner: Mutex<Inner>,
}

struct Inner {
    nodes: HashMap<Ino, Node>,
    next: u64,
}

/// A node that stays in the table while this lives. The kernel's count is made of those that were kept for it.
pub struct Reference {
    table: Arc<Table>,
    ino: Ino,
}

impl Reference {
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// The kernel has it from now on and gives it back by `forget`.
    pub fn keep(self) {
        self.table.with_inner(|inner| inner.refer(self.ino));
    }
}

impl std::fmt::Debug for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reference({})", self.ino.0)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.table.forget(self.ino, 1);
    }
}

/// The provider is being asked about a node or what is in it.
pub struct Question {
    node: Reference,
    asked: Instant,
    changes: u64,
}

impl Question {
    pub fn answered(&self) -> Answer {
        Answer {
            asked: self.asked,
            changes: self.changes,
            came: Instant::now(),
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let _ = self.node.table.with(self.node.ino, |node| {
            node.questions -= 1;
            node.forget_changes();
        });
    }
}

/// Something that may have changed at the provider.
#[derive(Clone, Debug)]
pub struct Outdated {
    pub ino: Ino,
    pub kind: Kind,
    /// Its directory and its name there.
    pub place: Option<(Ino, Name)>,
}

fn stale() -> Error {
    Error::new(ErrorKind::Changed, "the file is not known any more")
}

impl Table {
    pub fn new(root: Entry) -> Self {
        let now = Instant::now();
        let mut root = Node::new(root, Presence::AtProvider, Freshness::Checked(now), now);
        root.placement = Placement::Root;
        Self {
            inner: Mutex::new(Inner {
                nodes: HashMap::from([(Ino::ROOT, root)]),
                next: Ino::ROOT.0 + 1,
            }),
        }
    }

    fn with_inner<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock())
    }

    /// Looks at or changes one node.
    ///
    /// # Errors
    /// `Changed` (ESTALE) for a number that is not in the table.
    pub fn with<T>(&self, ino: Ino, look: impl FnOnce(&mut Node) -> T) -> Result<T> {
        self.inner.lock().nodes.get_mut(&ino).map(look).ok_or_else(stale)
    }

    /// To be called before the provider is asked, and kept until its answer is in the table.
    ///
    /// # Errors
    /// `Changed` for a number that is not in the table.
    pub fn question(self: &Arc<Self>, ino: Ino) -> Result<Question> {
        let mut inner = self.inner.lock();
        let node = inner.nodes.get_mut(&ino).ok_or_else(stale)?;
        node.questions += 1;
        let changes = node.changes;
        Ok(Question {
            node: self.reference(&mut inner, ino),
            asked: Instant::now(),
            changes,
        })
    }

    /// A reference to something whose node was seen under the table's lock.
    fn reference(self: &Arc<Self>, inner: &mut Inner, ino: Ino) -> Reference {
        inner.refer(ino);
        Reference {
            table: Arc::clone(self),
            ino,
        }
    }

    pub fn child(self: &Arc<Self>, parent: Ino, name: &Name) -> Option<Reference> {
        let mut inner = self.inner.lock();
        let ino = inner.child(parent, name)?;
        Some(self.reference(&mut inner, ino))
    }

    /// Puts what the provider said of a child into the table; a node of another kind under that name is pushed out,
    /// unless it counts more than the answer.
    ///
    /// `number` is the one that a listing already showed, if any.
    ///
    /// # Errors
    /// `NotFound` when this mount removed the name since it asked, `Changed` when the directory is gone.
    pub fn attach(
        self: &Arc<Self>,
        parent: Ino,
        entry: Entry,
        number: Option<Ino>,
        answer: Answer,
    ) -> Result<Reference> {
        let mut inner = self.inner.lock();
        if let Some(ino) = inner.child(parent, &entry.name)
            && inner.is_current(ino, &entry, answer)
        {
            return Ok(self.reference(&mut inner, ino));
        }
        let directory = inner.nodes.get(&parent).ok_or_else(stale)?;
        let name = entry.name.clone();
        let entry = directory
            .corrected(entry, answer)
            .ok_or_else(|| Error::not_found(&name))?;
        let freshness = if answer.changes < directory.keys_since {
            Freshness::KeyLost
        } else {
            Freshness::Checked(answer.came)
        };
        let ino = number
            .filter(|ino| !inner.nodes.contains_key(ino))
            .unwrap_or_else(|| inner.take_number());
        let node = Node::new(entry, Presence::AtProvider, freshness, answer.asked);
        inner.insert(ino, parent, node)?;
        Ok(self.reference(&mut inner, ino))
    }

    /// A new file that the provider doesn't have yet.
    ///
    /// # Errors
    /// `AlreadyExists` when the name has something that the provider lacks, `Changed` when the directory is gone.
    pub fn attach_unsent(self: &Arc<Self>, parent: Ino, entry: Entry, staged: Arc<Staged>) -> Result<Reference> {
        let mut inner = self.inner.lock();
        if let Some(old) = inner.child(parent, &entry.name) {
            if inner.nodes.get(&old).is_some_and(Node::is_ours) {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("{} exists", entry.name)));
            }
            inner.remove(old);
        }
        let ino = inner.take_number();
        let now = Instant::now();
        let mut node = Node::new(entry, Presence::Unsent, Freshness::Checked(now), now);
        node.content = Some(LocalContent { staged, replaces: None });
        node.local = Some(LocalAttributes::default());
        inner.insert(ino, parent, node)?;
        Ok(self.reference(&mut inner, ino))
    }

    pub fn forget(&self, ino: Ino, references: u64) {
        let mut inner = self.inner.lock();
        if let Some(node) = inner.nodes.get_mut(&ino) {
            node.references = node.references.saturating_sub(references);
        }
        inner.drop_if_unneeded(ino);
    }

    /// One handle more.
    ///
    /// # Errors
    /// `Changed` for a number that is not in the table.
    pub fn opened(&self, ino: Ino, writes: bool) -> Result<()> {
        self.with(ino, |node| {
            node.opens += 1;
            node.writers += u64::from(writes);
        })
    }

    /// One handle fewer; with the last one, content that the provider has goes.
    pub fn closed(&self, ino: Ino, writes: bool) {
        let mut inner = self.inner.lock();
        if let Some(node) = inner.nodes.get_mut(&ino) {
            node.opens = node.opens.saturating_sub(1);
            node.writers = node.writers.saturating_sub(u64::from(writes));
            node.forget_changes();
        }
        inner.drop_clean_content(ino);
        inner.drop_if_unneeded(ino);
    }

    /// Lets go of a copy of what the provider has, and of a node that nothing needs any more.
    pub fn settle(&self, ino: Ino) {
        let mut inner = self.inner.lock();
        inner.drop_clean_content(ino);
        inner.drop_if_unneeded(ino);
    }

    /// Takes a node out of the tree that this mount removed; open handles keep it.
    pub fn remove(&self, ino: Ino) {
        let mut inner = self.inner.lock();
        inner.depart(ino);
        inner.remove(ino);
    }

    /// Takes a node out of the tree that the provider answered to be gone, unless it counts more than the answer.
    pub fn gone(&self, ino: Ino, answer: Answer) {
        let mut inner = self.inner.lock();
        if ino != Ino::ROOT && inner.nodes.get(&ino).is_some_and(|node| !node.outlives(answer)) {
            inner.remove(ino);
        }
    }

    /// Hangs a node elsewhere; what hung there is pushed out, and the keys below it are lost.
    ///
    /// # Errors
    /// `Changed` when the node or the directory is gone.
    pub fn relocate(&self, ino: Ino, parent: Ino, name: &Name) -> Result<()> {
        let mut inner = self.inner.lock();
        if !inner.nodes.contains_key(&parent) {
            return Err(stale());
        }
        // It must not go while the node hangs nowhere.
        inner.refer(parent);
        inner.depart(ino);
        if let Some(directory) = inner.nodes.get_mut(&parent) {
            directory.change(name, None);
        }
        if let Some(old) = inner.child(parent, name)
            && old != ino
        {
            inner.remove(old);
        }
        inner.unhook(ino);
        let moved = inner.nodes.remove(&ino).ok_or_else(stale).and_then(|mut node| {
            node.entry.name = name.clone();
            node.learned = Instant::now();
            inner.insert(ino, parent, node)
        });
        if let Some(node) = inner.nodes.get_mut(&parent) {
            node.references -= 1;
        }
        moved?;
        inner.lose_keys_below(ino);
        Ok(())
    }

    /// The path below the mount point, `""` for the root; `None` for what was removed.
    pub fn path(&self, ino: Ino) -> Option<String> {
        self.inner.lock().path(ino)
    }

    /// Every node whose content the provider lacks.
    pub fn dirty(&self) -> Vec<Ino> {
        let inner = self.inner.lock();
        let dirty = |node: &Node| node.placement != Placement::Removed && node.is_dirty();
        let mut numbers: Vec<Ino> = inner
            .nodes
            .iter()
            .filter(|(_, node)| dirty(node))
            .map(|(ino, _)| *ino)
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// What a directory holds: the provider's children, joined with what was changed here since it was asked.
    ///
    /// Nodes that the provider no longer lists are pushed out.
    pub fn reconcile(&self, directory: Ino, listed: Vec<Entry>, answer: Answer) -> Listing {
        let mut inner = self.inner.lock();
        let mut children = BTreeMap::new();
        for entry in listed {
            let corrected = match inner.nodes.get(&directory) {
                Some(node) => node.corrected(entry, answer),
                None => Some(entry),
            };
            let Some(entry) = corrected else { continue };
            let known = inner.child(directory, &entry.name);
            let current = known.filter(|ino| inner.is_current(*ino, &entry, answer));
            let child = match current.and_then(|ino| Some((ino, inner.nodes.get(&ino)?.entry.clone()))) {
                Some(child) => child,
                None => (inner.take_number(), entry),
            };
            children.insert(child.1.name.clone(), child);
        }
        for ino in inner.children_of(directory) {
            let Some(node) = inner.nodes.get(&ino) else { continue };
            if children.contains_key(&node.entry.name) {
                continue;
            }
            if node.outlives(answer) {
                children.insert(node.entry.name.clone(), (ino, node.entry.clone()));
            } else {
                inner.remove(ino);
            }
        }
        Listing::new(children, answer)
    }

    /// Nodes made here below a directory, which a listing taken earlier lacks.
    pub fn unsent_children(&self, directory: Ino) -> Vec<(Ino, Entry)> {
        let inner = self.inner.lock();
        let unsent = |ino: &Ino| inner.nodes.get(ino).filter(|node| node.presence == Presence::Unsent);
        let children = inner.children_of(directory);
        children
            .into_iter()
            .filter_map(|ino| unsent(&ino).map(|node| (ino, node.entry.clone())))
            .collect()
    }

    /// Marks everything as to be asked for again; gives the numbers that the kernel may hold attributes of.
    pub fn expire_all(&self) -> Vec<Ino> {
        let mut inner = self.inner.lock();
        inner.nodes.values_mut().for_each(Node::expire);
        inner.nodes.keys().copied().collect()
    }

    /// Directories that are relied on without asking, because they were listed or something in them was looked at within
    /// the TTL; the latest first, and no more than so many.
    pub fn relied_on(&self, ttl: Duration, most: usize) -> Vec<ObjectKey> {
        let inner = self.inner.lock();
        let mut latest: HashMap<Ino, Instant> = HashMap::new();
        let mut used = |directory: Ino, at: Instant| {
            let known = latest.entry(directory).or_insert(at);
            *known = at.max(*known);
        };
        for (ino, node) in &inner.nodes {
            if let Some(listing) = node.listing.as_ref().filter(|listing| listing.is_within(ttl)) {
                used(*ino, listing.answer.came);
            }
            if let (Freshness::Checked(at), Placement::Child { parent, .. }) = (node.freshness, &node.placement)
                && at.elapsed() < ttl
                && node.presence == Presence::AtProvider
            {
                used(*parent, at);
            }
        }
        let mut directories: Vec<(Instant, Ino)> = latest.into_iter().map(|(ino, at)| (at, ino)).collect();
        directories.sort_unstable_by(|a, b| b.cmp(a));
        let key = |ino: Ino| {
            let node = inner.nodes.get(&ino)?;
            (node.freshness != Freshness::KeyLost).then(|| node.entry.key.clone())
        };
        let keys = directories.into_iter().filter_map(|(_, ino)| key(ino));
        keys.take(most).collect()
    }

    /// Marks directories and what is in them as to be asked for again, or everything without any directory named. Gives
    /// what the kernel may hold of it.
    pub fn expire_within(&self, directories: Option<&HashSet<&ObjectKey>>) -> Vec<Outdated> {
        let mut inner = self.inner.lock();
        let meant =
            |node: &Node| directories.is_none_or(|keys| node.entry.is_directory() && keys.contains(&node.entry.key));
        let directories: HashSet<Ino> = inner
            .nodes
            .iter()
            .filter(|(_, node)| meant(node))
            .map(|(ino, _)| *ino)
            .collect();
        let mut outdated = Vec::new();
        for (ino, node) in &mut inner.nodes {
            let place = match &node.placement {
                Placement::Child { parent, name } => Some((*parent, name.clone())),
                Placement::Root | Placement::Removed => None,
            };
            let inside = place.as_ref().is_some_and(|(parent, _)| directories.contains(parent));
            if !inside && !directories.contains(ino) {
                continue;
            }
            node.expire();
            outdated.push(Outdated {
                ino: *ino,
                kind: node.entry.kind,
                place,
            });
        }
        outdated
    }

    /// How many nodes there are; the root is always one.
    pub fn len(&self) -> usize {
        self.inner.lock().nodes.len()
    }
}

impl Inner {
    fn take_number(&mut self) -> Ino {
        let ino = Ino(self.next);
        self.next += 1;
        ino
    }

    fn child(&self, parent: Ino, name: &Name) -> Option<Ino> {
        self.nodes.get(&parent)?.children.get(name).copied()
    }

    fn children_of(&self, directory: Ino) -> Vec<Ino> {
        let node = self.nodes.get(&directory);
        node.map_or_else(Vec::new, |node| node.children.values().copied().collect())
    }

    fn refer(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.references += 1;
        }
    }

    /// Whether a node still stands for what the provider answered about its name. One that doesn't is pushed out.
    fn is_current(&mut self, ino: Ino, entry: &Entry, answer: Answer) -> bool {
        let Some(node) = self.nodes.get_mut(&ino) else {
            return false;
        };
        if node.entry.kind == entry.kind {
            node.update(entry, answer);
            return true;
        }
        let outlives = node.outlives(answer);
        if !outlives {
            self.remove(ino);
        }
        outlives
    }

    fn insert(&mut self, ino: Ino, parent: Ino, mut node: Node) -> Result<()> {
        let name = node.entry.name.clone();
        let directory = self.nodes.get_mut(&parent).ok_or_else(stale)?;
        directory.children.insert(name.clone(), ino);
        node.placement = Placement::Child { parent, name };
        self.nodes.insert(ino, node);
        Ok(())
    }

    /// Remembers that a node's name is taken from its directory by what this mount does.
    fn depart(&mut self, ino: Ino) {
        if let Some(Placement::Child { parent, name }) = self.nodes.get(&ino).map(|node| node.placement.clone())
            && let Some(directory) = self.nodes.get_mut(&parent)
        {
            directory.change(&name, None);
        }
    }

    /// Breaks the tie to the parent and leaves the node `Removed`.
    fn unhook(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        if let Placement::Child { parent, name } = std::mem::replace(&mut node.placement, Placement::Removed) {
            if let Some(directory) = self.nodes.get_mut(&parent) {
                directory.children.remove(&name);
            }
            self.drop_if_unneeded(parent);
        }
    }

    fn remove(&mut self, ino: Ino) {
        self.unhook(ino);
        self.drop_if_unneeded(ino);
    }

    fn drop_if_unneeded(&mut self, ino: Ino) {
        if self.nodes.get(&ino).is_some_and(|node| !node.is_needed()) {
            self.unhook(ino);
            self.nodes.remove(&ino);
        }
    }

    fn drop_clean_content(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino)
            && node.opens == 0
            && !node.is_ours()
        {
            node.content = None;
        }
    }

    fn lose_keys_below(&mut self, top: Ino) {
        let mut directories = vec![top];
        while let Some(directory) = directories.pop() {
            if let Some(node) = self.nodes.get_mut(&directory) {
                node.listing = None;
                // Whoever is listing it now gets the old keys.
                node.changes += 1;
                node.keys_since = node.changes;
            }
            for child in self.children_of(directory) {
                if let Some(node) = self.nodes.get_mut(&child) {
                    node.freshness = Freshness::KeyLost;
                    node.learned = Instant::now();
                    if node.entry.is_directory() {
                        directories.push(child);
                    }
                }
            }
        }
    }

    fn path(&self, ino: Ino) -> Option<String> {
        let mut names = Vec::new();
        let mut at = ino;
        loop {
            match &self.nodes.get(&at)?.placement {
                Placement::Root => break,
                Placement::Child { parent, name } => {
                    names.push(name.as_str());
                    at = *parent;
                }
                Placement::Removed => return None,
            }
        }
        names.reverse();
        Some(names.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Rights, Version};
    use std::time::SystemTime;

    fn entry(name: &str, kind: Kind) -> Entry {
        Entry {
            key: ObjectKey::new(name),
            name: Name::new(name).unwrap(),
            kind,
            size: 0,
            modified: SystemTime::UNIX_EPOCH,
            version: Version::new("1"),
            rights: Rights::ALL,
            labels: Default::default(),
        }
    }

    fn table() -> Arc<Table> {
        Arc::new(Table::new(entry("root", Kind::Directory)))
    }

    fn attach(table: &Arc<Table>, parent: Ino, name: &str, kind: Kind) -> Reference {
        let answer = table.question(parent).unwrap().answered();
        table.attach(parent, entry(name, kind), None, answer).unwrap()
    }

    #[test]
    fn forgotten_nodes_leave_nothing_behind() {
        let table = table();
        let folder = attach(&table, Ino::ROOT, "d", Kind::Directory);
        let file = attach(&table, folder.ino(), "f", Kind::File);
        let number = file.ino();
        file.keep();
        drop(folder);
        assert_eq!(
            table.path(number).as_deref(),
            Some("d/f"),
            "a child keeps its parent, and the kernel its node"
        );
        table.forget(number, 1);
        assert_eq!(table.len(), 1);
        assert!(table.child(Ino::ROOT, &Name::new("d").unwrap()).is_none());
    }

    #[test]
    fn numbers_are_never_used_twice() {
        let table = table();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10 {
            assert!(seen.insert(attach(&table, Ino::ROOT, "f", Kind::File).ino()));
        }
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn another_kind_under_a_name_is_another_node() {
        let table = table();
        let file = attach(&table, Ino::ROOT, "x", Kind::File);
        let folder = attach(&table, Ino::ROOT, "x", Kind::Directory);
        assert_ne!(file.ino(), folder.ino());
        assert_eq!(table.path(file.ino()), None);
        assert_eq!(attach(&table, Ino::ROOT, "x", Kind::Directory).ino(), folder.ino());
    }

    #[test]
    fn a_moved_directory_loses_the_keys_below_it() {
        let table = table();
        let folder = attach(&table, Ino::ROOT, "d", Kind::Directory);
        let file = attach(&table, folder.ino(), "f", Kind::File);
        table
            .relocate(folder.ino(), Ino::ROOT, &Name::new("e").unwrap())
            .unwrap();
        assert_eq!(table.path(file.ino()).as_deref(), Some("e/f"));
        assert_eq!(
            table.with(file.ino(), |node| node.freshness).unwrap(),
            Freshness::KeyLost
        );
    }

    #[test]
    fn what_was_asked_before_a_change_does_not_undo_it() {
        let table = table();
        let file = attach(&table, Ino::ROOT, "f", Kind::File);
        let before = table.question(Ino::ROOT).unwrap();
        table.remove(file.ino());
        drop(file);
        let listing = table.reconcile(Ino::ROOT, vec![entry("f", Kind::File)], before.answered());
        assert!(listing.children.is_empty());
        let late = table.attach(Ino::ROOT, entry("f", Kind::File), None, before.answered());
        assert_eq!(late.unwrap_err().kind(), ErrorKind::NotFound);
        attach(&table, Ino::ROOT, "f", Kind::File);
        drop(before);
        let remembered = table.with(Ino::ROOT, |root| root.changed.len()).unwrap();
        assert_eq!((remembered, table.len()), (0, 1));
    }
}
