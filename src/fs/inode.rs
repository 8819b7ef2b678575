//! The inode table: which numbers the kernel holds, and what each stands for.
//!
//! One lock covers numbers, names and lookup counts, and it is never held across an await. Numbers are never used twice.
//! A node lives while the kernel remembers it, a handle is open on it, a child hangs below it, or its content is not yet
//! at the provider.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::listing::Listing;
use crate::model::{Entry, Error, ErrorKind, Name, Result, Version};
use crate::outbox::Staged;
use crate::state::LocalAttributes;

/// An inode number as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// FUSE fixes the number of the mounted directory.
    pub const ROOT: Self = Self(1);
}

/// Where a node hangs in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    Root,
    Child {
        parent: Ino,
        name: Name,
    },
    /// Unlinked or replaced; only open handles still know it.
    Removed,
}

/// Whether the provider has the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    AtProvider,
    /// Made here and not sent yet: its entry's key and version mean nothing.
    Unsent,
}

/// How much the node's entry can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The provider said so then.
    Checked(Instant),
    /// To be asked for again before it is shown; the key still holds.
    Expired,
    /// An ancestor was renamed: the key must be looked up anew.
    KeyLost,
}

impl Freshness {
    pub fn is_within(self, ttl: Duration) -> bool {
        matches!(self, Self::Checked(at) if at.elapsed() < ttl)
    }
}

/// Content that was changed here.
#[derive(Clone)]
pub struct LocalContent {
    pub staged: Arc<Staged>,
    /// What it is a change of, as the provider had it when the change began; `None` for a new file.
    pub replaces: Option<Entry>,
}

/// One file or directory.
pub struct Node {
    pub placement: Placement,
    pub entry: Entry,
    pub presence: Presence,
    pub freshness: Freshness,
    pub listing: Option<Arc<Listing>>,
    /// Content that was changed here; `None` while the provider's is the truth.
    pub content: Option<LocalContent>,
    /// What `chmod` and `utimens` set; `None` until it was read from the state database.
    pub local: Option<LocalAttributes>,
    /// Serialises what changes this node at the provider.
    pub changes: Arc<tokio::sync::Mutex<()>>,
    /// Counts the contents that this mount gave it, so that handles follow local changes but not remote ones.
    pub local_contents: u64,
    /// The version whose pages the kernel may hold.
    pub kernel_version: Option<Version>,
    pub last_error: Option<Arc<str>>,
    /// Counts the changes of a directory made here: a listing that began before one of them is not kept.
    pub revision: u64,
    lookups: u64,
    opens: u64,
    children: u64,
}

impl Node {
    fn new(placement: Placement, entry: Entry, presence: Presence) -> Self {
        Self {
            placement,
            entry,
            presence,
            freshness: Freshness::Checked(Instant::now()),
            listing: None,
            content: None,
            revision: 0,
            local: None,
            changes: Arc::default(),
            local_contents: 0,
            kernel_version: None,
            last_error: None,
            lookups: 0,
            opens: 0,
            children: 0,
        }
    }

    pub fn opens(&self) -> u64 {
        self.opens
    }

    pub fn confirm(&mut self, entry: Entry) {
        self.entry = entry;
        self.presence = Presence::AtProvider;
        self.freshness = Freshness::Checked(Instant::now());
    }

    fn is_needed(&self) -> bool {
        self.lookups > 0
            || self.opens > 0
            || self.children > 0
            || self.placement == Placement::Root
            || (self.placement != Placement::Removed && self.is_dirty())
    }

    /// To be asked for again before it is relied on.
    pub fn expire(&mut self) {
        if let Some(listing) = &mut self.listing {
            Arc::make_mut(listing).expire();
        }
        if matches!(self.freshness, Freshness::Checked(_)) {
            self.freshness = Freshness::Expired;
        }
    }

    /// Whether the provider lacks something of its content.
    pub fn is_dirty(&self) -> bool {
        self.content.as_ref().is_some_and(|content| content.staged.is_dirty())
    }

    /// Whether what is known here counts, whatever the provider says.
    pub fn is_ours(&self) -> bool {
        self.presence == Presence::Unsent || self.is_dirty()
    }
}

pub struct Table {
    inner: Mutex<Inner>,
}

struct Inner {
    nodes: HashMap<Ino, Node>,
    names: HashMap<(Ino, Name), Ino>,
    next: u64,
}

fn stale() -> Error {
    Error::new(ErrorKind::Changed, "the file is not known any more")
}

impl Table {
    pub fn new(root: Entry) -> Self {
        let nodes = HashMap::from([(Ino::ROOT, Node::new(Placement::Root, root, Presence::AtProvider))]);
        Self {
            inner: Mutex::new(Inner {
                nodes,
                names: HashMap::new(),
                next: Ino::ROOT.0 + 1,
            }),
        }
    }

    /// Looks at or changes one node.
    ///
    /// # Errors
    /// `Changed` (ESTALE) for a number that is not in the table.
    pub fn with<T>(&self, ino: Ino, look: impl FnOnce(&mut Node) -> T) -> Result<T> {
        self.inner.lock().nodes.get_mut(&ino).map(look).ok_or_else(stale)
    }

    pub fn child(&self, parent: Ino, name: &Name) -> Option<Ino> {
        self.inner.lock().names.get(&(parent, name.clone())).copied()
    }

    /// Puts what the provider said of a child into the table; a node of another kind under that name is pushed out.
    ///
    /// `number` is the one that a listing already showed, if any.
    pub fn attach(&self, parent: Ino, entry: Entry, number: Option<Ino>) -> Result<Ino> {
        let mut inner = self.inner.lock();
        if let Some(ino) = inner.names.get(&(parent, entry.name.clone())).copied() {
            if inner.nodes.get(&ino).is_some_and(|node| node.entry.kind == entry.kind) {
                inner.update(ino, &entry);
                return Ok(ino);
            }
            inner.remove(ino);
        }
        let ino = number
            .filter(|ino| !inner.nodes.contains_key(ino))
            .unwrap_or_else(|| inner.take_number());
        inner.insert(ino, parent, Node::new(Placement::Removed, entry, Presence::AtProvider))?;
        Ok(ino)
    }

    /// A new file that the provider doesn't have yet.
    pub fn attach_unsent(&self, parent: Ino, entry: Entry, staged: Arc<Staged>) -> Result<Ino> {
        let mut inner = self.inner.lock();
        if let Some(old) = inner.names.get(&(parent, entry.name.clone())).copied() {
            inner.remove(old);
        }
        let ino = inner.take_number();
        let mut node = Node::new(Placement::Removed, entry, Presence::Unsent);
        node.content = Some(LocalContent { staged, replaces: None });
        node.local = Some(LocalAttributes::default());
        inner.insert(ino, parent, node)?;
        Ok(ino)
    }

    /// Counts one more reference by the kernel.
    pub fn remember(&self, ino: Ino) {
        if let Some(node) = self.inner.lock().nodes.get_mut(&ino) {
            node.lookups += 1;
        }
    }

    pub fn forget(&self, ino: Ino, lookups: u64) {
        let mut inner = self.inner.lock();
        if let Some(node) = inner.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(lookups);
        }
        inner.drop_if_unneeded(ino);
    }

    pub fn opened(&self, ino: Ino) -> Result<()> {
        self.with(ino, |node| node.opens += 1)
    }

    /// One handle fewer; gives how many are left.
    pub fn closed(&self, ino: Ino) -> u64 {
        let mut inner = self.inner.lock();
        let left = match inner.nodes.get_mut(&ino) {
            Some(node) => {
                node.opens = node.opens.saturating_sub(1);
                node.opens
            }
            None => 0,
        };
        inner.drop_if_unneeded(ino);
        left
    }

    /// Takes a node out of the tree; open handles keep it.
    pub fn remove(&self, ino: Ino) {
        self.inner.lock().remove(ino);
    }

    /// Lets go of a node that nothing needs any more.
    pub fn settle(&self, ino: Ino) {
        self.inner.lock().drop_if_unneeded(ino);
    }

    /// Hangs a node elsewhere; what hung there is pushed out, and the keys below it are lost.
    pub fn relocate(&self, ino: Ino, parent: Ino, name: &Name) -> Result<()> {
        let mut inner = self.inner.lock();
        if let Some(old) = inner.names.get(&(parent, name.clone())).copied()
            && old != ino
        {
            inner.remove(old);
        }
        inner.unhook(ino);
        let mut node = inner.nodes.remove(&ino).ok_or_else(stale)?;
        node.entry.name = name.clone();
        inner.insert(ino, parent, node)?;
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

    /// What a directory holds: the provider's children, joined with what was changed here since `started`.
    ///
    /// Nodes that the provider no longer lists are pushed out.
    pub fn reconcile(&self, directory: Ino, listed: Vec<Entry>, started: Instant) -> Listing {
        let mut inner = self.inner.lock();
        let mut children = BTreeMap::new();
        for entry in listed {
            let ino = match inner.names.get(&(directory, entry.name.clone())).copied() {
                Some(ino) => {
                    inner.update(ino, &entry);
                    ino
                }
                None => inner.take_number(),
            };
            children.insert(entry.name.clone(), (ino, entry));
        }
        for ino in inner.children_of(directory) {
            let Some(node) = inner.nodes.get(&ino) else { continue };
            let newer = matches!(node.freshness, Freshness::Checked(at) if at >= started);
            let name = node.entry.name.clone();
            if children
                .get(&name)
                .is_some_and(|(_, entry)| entry.kind == node.entry.kind)
            {
                continue;
            }
            if node.is_ours() || newer {
                children.insert(name, (ino, node.entry.clone()));
            } else {
                inner.remove(ino);
            }
        }
        Listing::new(children)
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

    #[cfg(test)]
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

    fn children_of(&self, directory: Ino) -> Vec<Ino> {
        self.names
            .iter()
            .filter(|((parent, _), _)| *parent == directory)
            .map(|(_, ino)| *ino)
            .collect()
    }

    /// Takes over what the provider says of a known node of the same kind.
    fn update(&mut self, ino: Ino, entry: &Entry) {
        if let Some(node) = self.nodes.get_mut(&ino)
            && node.entry.kind == entry.kind
            && node.presence == Presence::AtProvider
        {
            node.confirm(entry.clone());
        }
    }

    fn insert(&mut self, ino: Ino, parent: Ino, mut node: Node) -> Result<()> {
        let name = node.entry.name.clone();
        self.nodes.get_mut(&parent).ok_or_else(stale)?.children += 1;
        node.placement = Placement::Child {
            parent,
            name: name.clone(),
        };
        self.names.insert((parent, name), ino);
        self.nodes.insert(ino, node);
        Ok(())
    }

    /// Breaks the tie to the parent and leaves the node `Removed`.
    fn unhook(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        if let Placement::Child { parent, name } = std::mem::replace(&mut node.placement, Placement::Removed) {
            self.names.remove(&(parent, name));
            if let Some(parent_node) = self.nodes.get_mut(&parent) {
                parent_node.children = parent_node.children.saturating_sub(1);
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

    fn lose_keys_below(&mut self, top: Ino) {
        let mut parents = vec![top];
        while let Some(parent) = parents.pop() {
            for ((_, _), child) in self.names.iter().filter(|((p, _), _)| *p == parent) {
                if let Some(node) = self.nodes.get_mut(child) {
                    node.freshness = Freshness::KeyLost;
                    node.listing = None;
                    if node.entry.is_directory() {
                        parents.push(*child);
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
    use crate::model::{Kind, ObjectKey, Rights};
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

    #[test]
    fn forgotten_nodes_leave_nothing_behind() {
        let table = Table::new(entry("root", Kind::Directory));
        let folder = table.attach(Ino::ROOT, entry("d", Kind::Directory), None).unwrap();
        let file = table.attach(folder, entry("f", Kind::File), None).unwrap();
        table.remember(folder);
        table.remember(file);
        table.remember(file);
        table.forget(folder, 1);
        assert_eq!(table.path(file).as_deref(), Some("d/f"), "a child keeps its parent");
        table.forget(file, 2);
        assert_eq!(table.len(), 1);
        assert_eq!(table.child(Ino::ROOT, &Name::new("d").unwrap()), None);
    }

    #[test]
    fn numbers_are_never_used_twice() {
        let table = Table::new(entry("root", Kind::Directory));
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10 {
            let ino = table.attach(Ino::ROOT, entry("f", Kind::File), None).unwrap();
            assert!(seen.insert(ino));
            table.remember(ino);
            table.forget(ino, 1);
        }
    }

    #[test]
    fn another_kind_under_a_name_is_another_node() {
        let table = Table::new(entry("root", Kind::Directory));
        let file = table.attach(Ino::ROOT, entry("x", Kind::File), None).unwrap();
        table.remember(file);
        let folder = table.attach(Ino::ROOT, entry("x", Kind::Directory), None).unwrap();
        assert_ne!(file, folder);
        assert_eq!(table.path(file), None);
        assert_eq!(
            table.attach(Ino::ROOT, entry("x", Kind::Directory), None).unwrap(),
            folder
        );
    }

    #[test]
    fn a_moved_directory_loses_the_keys_below_it() {
        let table = Table::new(entry("root", Kind::Directory));
        let folder = table.attach(Ino::ROOT, entry("d", Kind::Directory), None).unwrap();
        let file = table.attach(folder, entry("f", Kind::File), None).unwrap();
        table.remember(file);
        table.relocate(folder, Ino::ROOT, &Name::new("e").unwrap()).unwrap();
        assert_eq!(table.path(file).as_deref(), Some("e/f"));
        assert_eq!(table.with(file, |node| node.freshness).unwrap(), Freshness::KeyLost);
    }
}
