//! The inode table: which numbers the kernel holds, and what each stands for.
//!
//! One lock covers numbers, names and reference counts, and it is never held across an await. What is found at the
//! provider has the number that follows from its name, so that it is the same in every mount; what is made here has a
//! number that nobody had. In one mount no number stands for two nodes. A node lives while somebody has a reference to it,
//! a handle is open on it, a child hangs below it, or its content is not yet at the provider; some of them a while longer,
//! see `idle`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::idle::Idle;
use super::inode::{Answer, Freshness, Ino, LocalContent, Node, Placement, Presence, Told};
use super::listing::Listing;
use super::nodes::{Nodes, stale};
use super::reference::{Question, Reference};
use crate::model::{Entry, Error, ErrorKind, Kind, Name, ObjectKey, Result};
use crate::outbox::Staged;
use crate::state::LocalAttributes;

pub struct Table {
    pub(super) inner: Mutex<Nodes>,
}

/// Something that may have changed at the provider.
#[derive(Clone, Debug)]
pub struct Outdated {
    pub ino: Ino,
    pub kind: Kind,
    /// Its directory and its name there.
    pub place: Option<(Ino, Name)>,
}

impl Table {
    pub fn new(root: Entry) -> Self {
        let now = Instant::now();
        let mut root = Node::new(root, Presence::AtProvider, Freshness::Checked(now), now);
        root.placement = Placement::Root;
        Self {
            inner: Mutex::new(Nodes {
                nodes: HashMap::from([(Ino::ROOT, root)]),
                retired: HashSet::new(),
                idle: Idle::default(),
                news: None,
            }),
        }
    }

    /// One reference more to a node.
    pub fn refer(&self, ino: Ino) {
        self.inner.lock().refer(ino);
    }

    /// Looks at or changes one node.
    ///
    /// # Errors
    /// `Changed` (ESTALE) for a number that is not in the table.
    pub fn with<T>(&self, ino: Ino, look: impl FnOnce(&mut Node) -> T) -> Result<T> {
        self.inner.lock().nodes.get_mut(&ino).map(look).ok_or_else(stale)
    }

    /// As `with`, for a change after which the provider has the node: from the same moment on it is in its directory's
    /// listing.
    ///
    /// # Errors
    /// `Changed` (ESTALE) for a number that is not in the table.
    pub fn with_listed<T>(&self, ino: Ino, change: impl FnOnce(&mut Node) -> T) -> Result<T> {
        let mut inner = self.inner.lock();
        let node = inner.nodes.get_mut(&ino).ok_or_else(stale)?;
        let outcome = change(node);
        if let (Placement::Child { parent, name }, Presence::AtProvider) = (&node.placement, node.presence) {
            let (parent, name, entry) = (*parent, name.clone(), node.entry.clone());
            if let Some(directory) = inner.nodes.get_mut(&parent) {
                directory.change(&name, Some((ino, entry)));
            }
        }
        Ok(outcome)
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
        Ok(Question::new(self.reference(&mut inner, ino), changes))
    }

    /// A reference to something whose node was seen under the table's lock.
    fn reference(self: &Arc<Self>, inner: &mut Nodes, ino: Ino) -> Reference {
        inner.refer(ino);
        Reference::counted(Arc::clone(self), ino)
    }

    /// A reference to a node that is in the table.
    ///
    /// # Errors
    /// `Changed` (ESTALE) for a number that is not in the table.
    pub fn hold(self: &Arc<Self>, ino: Ino) -> Result<Reference> {
        let mut inner = self.inner.lock();
        if !inner.nodes.contains_key(&ino) {
            return Err(stale());
        }
        Ok(self.reference(&mut inner, ino))
    }

    pub fn child(self: &Arc<Self>, parent: Ino, name: &Name) -> Option<Reference> {
        let mut inner = self.inner.lock();
        let ino = inner.child(parent, name)?;
        Some(self.reference(&mut inner, ino))
    }

    /// Puts what the provider said of a child into the table; a node of another kind under that name is pushed out,
    /// unless it counts more than the answer.
    ///
    /// `number` is the one that a listing already showed, or that is kept for the name, if any.
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
        let directory = inner.nodes.get(&parent).ok_or_else(stale)?;
        let name = entry.name.clone();
        // What was sent since it was asked had no version then, or another one.
        let corrected = directory.corrected(entry, answer);
        if let Some(ino) = inner.child(parent, &name) {
            let is_current = match &corrected {
                Some(entry) => inner.is_current(ino, entry, answer),
                // It took the name after this mount had taken that from another.
                None => true,
            };
            if is_current {
                return Ok(self.reference(&mut inner, ino));
            }
        }
        let entry = corrected.ok_or_else(|| Error::not_found(&name))?;
        let directory = inner.nodes.get(&parent).ok_or_else(stale)?;
        let freshness = if answer.changes < directory.keys_since {
            Freshness::KeyLost
        } else if directory.may_rely_on(answer) {
            match answer.told {
                Told::Now => Freshness::Checked(answer.came),
                Told::Before => Freshness::Remembered,
            }
        } else {
            Freshness::Expired
        };
        let ino = number
            .filter(|ino| !inner.nodes.contains_key(ino))
            .unwrap_or_else(|| inner.number_for(parent, &name));
        let node = Node::new(entry, Presence::AtProvider, freshness, answer.asked);
        inner.insert(ino, parent, node)?;
        Ok(self.reference(&mut inner, ino))
    }

    /// A new file that the provider doesn't have yet; with the number that a former mount gave it, if any.
    ///
    /// # Errors
    /// `AlreadyExists` when the name has something that the provider lacks, `Changed` when the directory is gone.
    pub fn attach_unsent(
        self: &Arc<Self>,
        parent: Ino,
        entry: Entry,
        number: Option<Ino>,
        staged: Arc<Staged>,
    ) -> Result<Reference> {
        let mut inner = self.inner.lock();
        if let Some(old) = inner.child(parent, &entry.name) {
            if inner.nodes.get(&old).is_some_and(Node::is_ours) {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("{} exists", entry.name)));
            }
            inner.remove(old);
        }
        let number = number.filter(|ino| !inner.nodes.contains_key(ino));
        let ino = number.unwrap_or_else(|| inner.unused_number());
        let now = Instant::now();
        let mut node = Node::new(entry, Presence::Unsent, Freshness::Checked(now), now);
        node.content = Some(LocalContent {
            staged,
            lineage: node.lineage,
            replaces: None,
        });
        node.local = Some(LocalAttributes {
            ino: Some(ino.0),
            ..LocalAttributes::default()
        });
        inner.insert(ino, parent, node)?;
        Ok(self.reference(&mut inner, ino))
    }

    /// A node that only this host has, or another name of one.
    ///
    /// # Errors
    /// `AlreadyExists` when the name has something else that counts, `Changed` when the directory is gone.
    pub fn attach_local(self: &Arc<Self>, parent: Ino, entry: Entry, local: LocalAttributes) -> Result<Reference> {
        let mut inner = self.inner.lock();
        let name = entry.name.clone();
        let ino = local.ino.map_or_else(|| inner.unused_number(), Ino);
        if let Some(there) = inner.child(parent, &name) {
            let is_local = inner
                .nodes
                .get(&there)
                .is_some_and(|node| node.presence == Presence::Local);
            if there == ino && is_local {
                return Ok(self.reference(&mut inner, ino));
            }
            if inner.nodes.get(&there).is_some_and(Node::is_ours) {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("{name} exists")));
            }
            inner.remove(there);
        }
        match inner.nodes.get(&ino).map(|node| node.placement.clone()) {
            None => {
                let now = Instant::now();
                let mut node = Node::new(entry, Presence::Local, Freshness::Checked(now), now);
                node.local = Some(LocalAttributes {
                    ino: Some(ino.0),
                    ..local
                });
                inner.insert(ino, parent, node)?;
            }
            Some(placement) => inner.add_name(ino, &placement, parent, name)?,
        }
        Ok(self.reference(&mut inner, ino))
    }

    /// Takes one name from a node; with the last one it goes out of the tree, and open handles keep it.
    pub fn remove_name(&self, parent: Ino, name: &Name) {
        let mut inner = self.inner.lock();
        if let Some(directory) = inner.nodes.get_mut(&parent) {
            directory.change(name, None);
        }
        inner.drop_name(parent, name);
    }

    /// Whether a node has this name.
    pub fn has_name(&self, ino: Ino, parent: Ino, name: &Name) -> bool {
        self.inner.lock().child(parent, name) == Some(ino)
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
        self.with(ino, |node| node.opened(writes))
    }

    /// One handle fewer; with the last one, content that the provider has goes.
    pub fn closed(&self, ino: Ino, writes: bool) {
        // Dropped after the lock: letting go of a file takes locks of its own.
        let _backing;
        let mut inner = self.inner.lock();
        if let Some(node) = inner.nodes.get_mut(&ino) {
            _backing = if node.opens <= 1 { node.backing.take() } else { None };
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
        inner.retire(ino);
        if let Some(node) = inner.nodes.get_mut(&ino) {
            node.belief = None;
        }
        inner.remove(ino);
    }

    /// Takes a node out of the tree, so that its name is looked up again and gets another number, if the provider has all
    /// of it. Open handles keep it.
    pub fn supersede(&self, ino: Ino) {
        let mut inner = self.inner.lock();
        if ino != Ino::ROOT && inner.nodes.get(&ino).is_some_and(|node| !node.is_ours()) {
            inner.remove(ino);
        }
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
        let mut was_read = false;
        if let Some(old) = inner.child(parent, name).filter(|old| *old != ino) {
            was_read = inner.nodes.get(&old).is_some_and(|old| old.was_read);
            inner.drop_name(parent, name);
        }
        inner.retire(ino);
        // What was shown goes with it.
        let belief = inner.nodes.get_mut(&ino).and_then(|node| node.belief.take());
        inner.unhook(ino);
        let moved = inner.nodes.remove(&ino).ok_or_else(stale).and_then(|mut node| {
            node.entry.name = name.clone();
            node.learned = Instant::now();
            node.was_read |= was_read;
            node.belief = belief;
            inner.insert(ino, parent, node)
        });
        if let Some(node) = inner.nodes.get_mut(&parent) {
            node.references -= 1;
        }
        moved?;
        inner.lose_keys_below(ino);
        Ok(())
    }

    /// Lets two names stand for each other's nodes, neither of which the provider has.
    ///
    /// # Errors
    /// `Changed` when one of them is gone.
    pub fn exchange(&self, first: &(Ino, Name), second: &(Ino, Name)) -> Result<()> {
        self.inner.lock().exchange(first, second)
    }

    /// The path below the mount point, `""` for the root; `None` for what was removed.
    pub fn path(&self, ino: Ino) -> Option<String> {
        self.inner.lock().path(ino)
    }

    /// Whether a node is a directory or somewhere below it.
    pub fn is_within(&self, ino: Ino, directory: Ino) -> bool {
        self.inner.lock().is_within(ino, directory)
    }

    /// Whether a changed file below a directory is being sent.
    pub fn is_sent_from_within(&self, directory: Ino) -> bool {
        let inner = self.inner.lock();
        let sent = |node: &Node| node.is_dirty() && node.turn.is_taken();
        let mut sent = inner.nodes.iter().filter(|(_, node)| sent(node));
        sent.any(|(ino, _)| inner.is_within(*ino, directory))
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

    /// Files of which attributes are to be sent by themselves.
    pub fn with_waiting_attributes(&self) -> Vec<Ino> {
        let inner = self.inner.lock();
        let waiting = inner.nodes.iter().filter(|(_, node)| node.has_attributes_to_send());
        waiting.map(|(ino, _)| *ino).collect()
    }

    /// What a directory holds: the provider's children, joined with what was changed here since it was asked.
    ///
    /// Nodes that the provider no longer lists are pushed out.
    /// `kept` are the numbers that names have which don't follow from them.
    pub fn reconcile(&self, directory: Ino, listed: Vec<Entry>, kept: &HashMap<Name, Ino>, answer: Answer) -> Listing {
        let mut inner = self.inner.lock();
        let mut children = BTreeMap::new();
        for entry in listed {
            let corrected = match inner.nodes.get(&directory) {
                Some(node) => node.corrected(entry, answer),
                None => Some(entry),
            };
            let Some(entry) = corrected else { continue };
            let known = inner.child(directory, &entry.name);
            if known.is_some_and(|ino| inner.is_local(ino)) {
                continue;
            }
            let current = known.filter(|ino| inner.is_current(*ino, &entry, answer));
            let child = match current.and_then(|ino| Some((ino, inner.nodes.get(&ino)?.entry.clone()))) {
                Some(child) => child,
                None => {
                    let number = kept.get(&entry.name).copied();
                    let number = number.filter(|ino| !inner.nodes.contains_key(ino));
                    (
                        number.unwrap_or_else(|| inner.number_for(directory, &entry.name)),
                        entry,
                    )
                }
            };
            children.insert(child.1.name.clone(), child);
        }
        let is_in_doubt = inner.keep_unlisted(directory, &mut children, answer);
        if let Some(directory) = inner.nodes.get_mut(&directory) {
            directory.names_appear(&children);
        }
        let mut listing = Listing::new(children, answer);
        if is_in_doubt {
            listing.expire();
        }
        listing
    }

    /// What a directory shows: a listing with what this mount did since, and with what isn't sent yet. All of it is of one
    /// moment: a file that is sent just then goes from one to the other.
    pub fn shown(&self, directory: Ino, listing: &Arc<Listing>) -> Vec<(Ino, Entry)> {
        let inner = self.inner.lock();
        let Some(node) = inner.nodes.get(&directory) else {
            return listing.children.values().cloned().collect();
        };
        // The one that is kept was changed along.
        let newest = node.listing.as_ref();
        let newest = newest.filter(|kept| kept.answer.came >= listing.answer.came);
        let mut newest = Listing::clone(newest.unwrap_or(listing));
        node.add_changes(&mut newest);
        let mut children = newest.children;
        for ino in inner.children_of(directory) {
            let Some(child) = inner.nodes.get(&ino) else { continue };
            if child.presence == Presence::Unsent {
                children
                    .entry(child.entry.name.clone())
                    .or_insert_with(|| (ino, child.entry.clone()));
            }
        }
        children.into_values().collect()
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

    /// Marks everything as to be asked for again; gives the numbers that the kernel may hold attributes of, and names that
    /// it may believe to be free.
    pub fn expire_all(&self) -> (Vec<Ino>, Vec<(Ino, Name)>) {
        let mut inner = self.inner.lock();
        let free = inner.nodes.values_mut().flat_map(Node::take_missing).collect();
        inner.nodes.values_mut().for_each(Node::expire);
        (inner.nodes.keys().copied().collect(), free)
    }

    /// What a former mount knew of a directory doesn't count any more.
    pub fn doubt_inside(&self, directory: Ino) {
        let mut inner = self.inner.lock();
        if let Some(node) = inner.nodes.get_mut(&directory) {
            node.expire();
        }
        for child in inner.children_of(directory) {
            if let Some(node) = inner.nodes.get_mut(&child)
                && node.freshness == Freshness::Remembered
            {
                node.freshness = Freshness::Expired;
            }
        }
    }

    /// Directories that are relied on without asking, because they were listed or something in them was looked for within
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
            if let Some(at) = node.told_missing(ttl) {
                used(*ino, at);
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
    /// what the kernel may hold of it, and names that it may believe to be free.
    pub fn expire_within(&self, directories: Option<&HashSet<&ObjectKey>>) -> (Vec<Outdated>, Vec<(Ino, Name)>) {
        let mut inner = self.inner.lock();
        let meant =
            |node: &Node| directories.is_none_or(|keys| node.entry.is_directory() && keys.contains(&node.entry.key));
        let directories: HashSet<Ino> = inner
            .nodes
            .iter()
            .filter(|(_, node)| meant(node))
            .map(|(ino, _)| *ino)
            .collect();
        let (mut outdated, mut free) = (Vec::new(), Vec::new());
        for (ino, node) in &mut inner.nodes {
            let place = match &node.placement {
                Placement::Child { parent, name } => Some((*parent, name.clone())),
                Placement::Root | Placement::Removed => None,
            };
            let inside = place.as_ref().is_some_and(|(parent, _)| directories.contains(parent));
            if !inside && !directories.contains(ino) {
                continue;
            }
            free.extend(node.take_missing());
            node.expire();
            outdated.push(Outdated {
                ino: *ino,
                kind: node.entry.kind,
                place,
            });
        }
        (outdated, free)
    }

    /// How many nodes somebody needs, with the directories above them; the root is always one.
    pub fn len(&self) -> usize {
        let inner = self.inner.lock();
        let mut needed = HashSet::new();
        for (ino, _) in inner.nodes.iter().filter(|(_, node)| node.is_in_use()) {
            let mut at = *ino;
            while needed.insert(at) {
                match inner.nodes.get(&at).map(|node| &node.placement) {
                    Some(Placement::Child { parent, .. }) => at = *parent,
                    Some(Placement::Root | Placement::Removed) | None => break,
                }
            }
        }
        needed.len()
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
            posix: Default::default(),
        }
    }

    /// Where nothing is remembered that nobody needs.
    fn table() -> Arc<Table> {
        let table = Table::new(entry("root", Kind::Directory));
        table.inner.lock().idle = Idle::with_room_for(0);
        Arc::new(table)
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
    fn a_forgotten_file_comes_back_under_its_number_and_another_one_does_not() {
        let (table, other_mount) = (table(), super::tests::table());
        let first = attach(&table, Ino::ROOT, "f", Kind::File).ino();
        assert_eq!(table.len(), 1);
        assert_eq!(attach(&table, Ino::ROOT, "f", Kind::File).ino(), first);
        assert_eq!(attach(&other_mount, Ino::ROOT, "f", Kind::File).ino(), first);
        assert_ne!(attach(&table, Ino::ROOT, "g", Kind::File).ino(), first);
        let mut seen = std::collections::HashSet::from([first]);
        for _ in 0..10 {
            let file = attach(&table, Ino::ROOT, "f", Kind::File);
            table.remove(file.ino());
            seen.insert(file.ino());
        }
        assert_eq!(
            seen.len(),
            10,
            "the first one is removed under its number, and no other has that"
        );
    }

    #[test]
    fn a_node_that_only_this_host_has_lives_as_long_as_one_of_its_names() {
        let table = table();
        let local = LocalAttributes {
            ino: Some(77),
            special: Some(crate::model::Special::Fifo),
            ..LocalAttributes::default()
        };
        let name = |name: &str| Name::new(name).unwrap();
        let attach = |at: &str| {
            table
                .attach_local(Ino::ROOT, entry(at, Kind::File), local.clone())
                .unwrap()
        };
        let (first, second) = (attach("a"), attach("b"));
        assert_eq!((first.ino(), second.ino()), (Ino(77), Ino(77)));
        table.remove_name(Ino::ROOT, &name("a"));
        assert_eq!(table.path(Ino(77)).as_deref(), Some("b"));
        assert!(!table.has_name(Ino(77), Ino::ROOT, &name("a")));
        let listing = table.reconcile(
            Ino::ROOT,
            vec![entry("b", Kind::File)],
            &HashMap::new(),
            table.question(Ino::ROOT).unwrap().answered(),
        );
        assert!(listing.children.is_empty(), "the one here has the name");
        table.remove_name(Ino::ROOT, &name("b"));
        assert_eq!(table.path(Ino(77)), None);
        drop((first, second));
        assert_eq!(table.len(), 1);
    }

    /// Whatever is done between the moment at which a listing is had and the one at which it is shown.
    #[test]
    fn what_is_made_and_sent_and_forgotten_meanwhile_is_shown() {
        let table = table();
        let name = |name: &str| Name::new(name).unwrap();
        table.opened(Ino::ROOT, false).unwrap();
        for is_kept in [true, false] {
            let question = table.question(Ino::ROOT).unwrap();
            let listed = table.reconcile(
                Ino::ROOT,
                vec![entry("there", Kind::File), entry("removed", Kind::File)],
                &HashMap::new(),
                question.answered(),
            );
            let listed = Arc::new(listed);
            let of_root = |root: &mut Node| root.listing = is_kept.then(|| Arc::clone(&listed));
            table.with(Ino::ROOT, of_root).unwrap();
            let removed = attach(&table, Ino::ROOT, "removed", Kind::File);
            table.remove(removed.ino());
            let sent = attach(&table, Ino::ROOT, "sent", Kind::File);
            let number = sent.ino();
            table
                .with_listed(number, |node| node.confirm(entry("sent", Kind::File)))
                .unwrap();
            drop((removed, sent, question));
            assert!(table.child(Ino::ROOT, &name("sent")).is_none(), "nobody needs it");
            let shown = table.shown(Ino::ROOT, &listed);
            let names: Vec<&str> = shown.iter().map(|(_, entry)| entry.name.as_str()).collect();
            assert_eq!(names, ["sent", "there"], "{is_kept}");
            assert_eq!(shown[0].0, number);
        }
        table.closed(Ino::ROOT, false);
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

    /// Who reads a directory has what is in it from one moment, and asks for it one by one, some of it twice.
    #[test]
    fn what_was_listed_before_it_was_sent_has_the_version_that_was_sent() {
        let table = table();
        table.opened(Ino::ROOT, false).unwrap();
        let before = table.question(Ino::ROOT).unwrap();
        let unsent = Entry {
            version: Version::new(""),
            ..entry("f", Kind::File)
        };
        let sent = attach(&table, Ino::ROOT, "f", Kind::File);
        table
            .with_listed(sent.ino(), |node| node.confirm(entry("f", Kind::File)))
            .unwrap();
        drop(sent);
        let listed = || table.attach(Ino::ROOT, unsent.clone(), None, before.answered());
        let (first, second) = (listed().unwrap(), listed().unwrap());
        assert_eq!(first.ino(), second.ino());
        let version = table.with(first.ino(), |node| node.entry.version.clone()).unwrap();
        assert_eq!(version, Version::new("1"));
        table.closed(Ino::ROOT, false);
    }

    #[tokio::test]
    async fn what_stays_for_being_worked_with_is_asked_for_again() {
        let table = table();
        let file = attach(&table, Ino::ROOT, "f", Kind::File);
        let turn = table.with(file.ino(), |node| Arc::clone(&node.turn)).unwrap();
        let is_expired_with = |expected: &[&str]| {
            let question = table.question(Ino::ROOT).unwrap();
            let listing = table.reconcile(Ino::ROOT, Vec::new(), &HashMap::new(), question.answered());
            let names: Vec<&str> = listing.children.keys().map(Name::as_str).collect();
            assert_eq!(names, expected);
            listing.is_expired()
        };
        let held = turn.take().await;
        assert!(is_expired_with(&["f"]));
        drop(held);
        assert!(!is_expired_with(&[]));
    }

    #[test]
    fn what_was_asked_before_a_change_does_not_undo_it() {
        let table = table();
        let file = attach(&table, Ino::ROOT, "f", Kind::File);
        let before = table.question(Ino::ROOT).unwrap();
        table.remove(file.ino());
        drop(file);
        let listing = table.reconcile(
            Ino::ROOT,
            vec![entry("f", Kind::File)],
            &HashMap::new(),
            before.answered(),
        );
        assert!(listing.children.is_empty());
        let late = table.attach(Ino::ROOT, entry("f", Kind::File), None, before.answered());
        assert_eq!(late.unwrap_err().kind(), ErrorKind::NotFound);
        attach(&table, Ino::ROOT, "f", Kind::File);
        drop(before);
        let remembered = table.with(Ino::ROOT, |root| root.changed.len()).unwrap();
        assert_eq!((remembered, table.len()), (0, 1));
    }
}
