//! What the inode table's lock covers: the nodes by number, and how they hang together.
//!
//! Who holds the lock, and for how long, is `table`'s affair.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::idle::Idle;
use super::inode::{Answer, Freshness, Ino, Node, Placement, Presence};
use crate::model::{Entry, Error, ErrorKind, Name, Result};

pub(super) struct Nodes {
    pub(super) nodes: HashMap<Ino, Node>,
    /// Derived numbers whose node went or got another name: whatever takes the name next is something else.
    pub(super) retired: HashSet<Ino>,
    /// What nothing needs, and is remembered.
    pub(super) idle: Idle,
    /// Where names go that the kernel is to forget; `None` before there is a kernel.
    pub(super) news: Option<UnboundedSender<(Ino, Name)>>,
}

pub(super) fn stale() -> Error {
    Error::new(ErrorKind::Changed, "the file is not known any more")
}

impl Nodes {
    pub(super) fn unused_number(&self) -> Ino {
        loop {
            let ino = Ino::unused();
            if !self.nodes.contains_key(&ino) {
                return ino;
            }
        }
    }

    /// The number of something that is found under a name.
    pub(super) fn number_for(&self, parent: Ino, name: &Name) -> Ino {
        let ino = Ino::derived(parent, name);
        if self.nodes.contains_key(&ino) || self.retired.contains(&ino) {
            return self.unused_number();
        }
        ino
    }

    /// What takes the node's name next doesn't get its number.
    pub(super) fn retire(&mut self, ino: Ino) {
        if ino.is_derived() {
            self.retired.insert(ino);
        }
    }

    pub(super) fn is_local(&self, ino: Ino) -> bool {
        self.nodes
            .get(&ino)
            .is_some_and(|node| node.presence == Presence::Local)
    }

    pub(super) fn add_name(&mut self, ino: Ino, placement: &Placement, parent: Ino, name: Name) -> Result<()> {
        let directory = self.nodes.get_mut(&parent).ok_or_else(stale)?;
        directory.name_appears(&name);
        directory.children.insert(name.clone(), ino);
        if let Some(node) = self.nodes.get_mut(&ino) {
            match placement {
                Placement::Removed => node.placement = Placement::Child { parent, name },
                _ => node.other_names.push((parent, name)),
            }
        }
        Ok(())
    }

    /// Lets two names stand for each other's nodes.
    pub(super) fn exchange(&mut self, first: &(Ino, Name), second: &(Ino, Name)) -> Result<()> {
        let (Some(one), Some(other)) = (self.child(first.0, &first.1), self.child(second.0, &second.1)) else {
            return Err(stale());
        };
        for (ino, from, to) in [(one, first, second), (other, second, first)] {
            if let Some(node) = self.nodes.get_mut(&ino) {
                match node.other_names.iter_mut().find(|name| *name == from) {
                    Some(name) => name.clone_from(to),
                    None => {
                        node.entry.name = to.1.clone();
                        node.placement = Placement::Child {
                            parent: to.0,
                            name: to.1.clone(),
                        };
                    }
                }
                node.learned = Instant::now();
            }
            if let Some(directory) = self.nodes.get_mut(&to.0) {
                directory.change(&to.1, None);
                directory.children.insert(to.1.clone(), ino);
            }
        }
        Ok(())
    }

    /// Takes one name away from what has it, and the node out of the tree with the last one.
    pub(super) fn drop_name(&mut self, parent: Ino, name: &Name) {
        let Some(ino) = self.child(parent, name) else { return };
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        if node.other_names.is_empty() {
            node.belief = None;
            self.retire(ino);
            return self.remove(ino);
        }
        match node
            .other_names
            .iter()
            .position(|other| *other == (parent, name.clone()))
        {
            Some(other) => drop(node.other_names.swap_remove(other)),
            None => {
                if let Some((parent, name)) = node.other_names.pop() {
                    node.placement = Placement::Child { parent, name };
                }
            }
        }
        if let Some(directory) = self.nodes.get_mut(&parent) {
            directory.children.remove(name);
        }
        self.rest(parent);
    }

    pub(super) fn child(&self, parent: Ino, name: &Name) -> Option<Ino> {
        self.nodes.get(&parent)?.children.get(name).copied()
    }

    pub(super) fn children_of(&self, directory: Ino) -> Vec<Ino> {
        let node = self.nodes.get(&directory);
        node.map_or_else(Vec::new, |node| node.children.values().copied().collect())
    }

    pub(super) fn refer(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.references += 1;
        }
    }

    /// Whether a node still stands for what the provider answered about its name. One that doesn't is pushed out.
    pub(super) fn is_current(&mut self, ino: Ino, entry: &Entry, answer: Answer) -> bool {
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

    pub(super) fn insert(&mut self, ino: Ino, parent: Ino, mut node: Node) -> Result<()> {
        let name = node.entry.name.clone();
        self.take_belief(parent, &name, &mut node);
        let directory = self.nodes.get_mut(&parent).ok_or_else(stale)?;
        directory.name_appears(&name);
        directory.children.insert(name.clone(), ino);
        node.placement = Placement::Child { parent, name };
        self.nodes.insert(ino, node);
        Ok(())
    }

    /// Remembers that a node's name is taken from its directory by what this mount does.
    pub(super) fn depart(&mut self, ino: Ino) {
        if let Some(Placement::Child { parent, name }) = self.nodes.get(&ino).map(|node| node.placement.clone())
            && let Some(directory) = self.nodes.get_mut(&parent)
        {
            directory.change(&name, None);
        }
    }

    /// Breaks the tie to the parent and leaves the node `Removed`.
    pub(super) fn unhook(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        let mut names = std::mem::take(&mut node.other_names);
        if let Placement::Child { parent, name } = std::mem::replace(&mut node.placement, Placement::Removed) {
            self.leave_belief(ino, parent, &name);
            names.push((parent, name));
        }
        for (parent, name) in names {
            if let Some(directory) = self.nodes.get_mut(&parent) {
                directory.children.remove(&name);
            }
            self.rest(parent);
        }
    }

    /// Adds the children that stay though an answer lacks them, and lets go of the others. Gives whether one stays only as
    /// long as something is being done with it: afterwards it may turn out to be gone.
    pub(super) fn keep_unlisted(
        &mut self,
        directory: Ino,
        children: &mut BTreeMap<Name, (Ino, Entry)>,
        answer: Answer,
    ) -> bool {
        let mut is_in_doubt = false;
        for ino in self.children_of(directory) {
            let Some(node) = self.nodes.get(&ino) else { continue };
            if children.contains_key(&node.entry.name) || node.presence == Presence::Local {
                continue;
            }
            if node.outlives(answer) {
                is_in_doubt |= !node.is_known_better(answer);
                children.insert(node.entry.name.clone(), (ino, node.entry.clone()));
            } else {
                self.remove(ino);
            }
        }
        is_in_doubt
    }

    pub(super) fn remove(&mut self, ino: Ino) {
        self.unhook(ino);
        self.drop_if_unneeded(ino);
    }

    pub(super) fn drop_clean_content(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino)
            && node.opens == 0
            && !node.is_ours()
        {
            node.content = None;
        }
    }

    pub(super) fn lose_keys_below(&mut self, top: Ino) {
        let mut directories = vec![top];
        while let Some(directory) = directories.pop() {
            if let Some(node) = self.nodes.get_mut(&directory) {
                node.listing = None;
                node.doubt_missing();
                // Whoever is listing it now gets the old keys.
                node.changes += 1;
                node.keys_since = node.changes;
            }
            for child in self.children_of(directory) {
                if let Some(node) = self.nodes.get_mut(&child) {
                    node.freshness = Freshness::KeyLost;
                    node.learned = Instant::now();
                    node.was_moved();
                    if node.entry.is_directory() {
                        directories.push(child);
                    }
                }
            }
        }
    }

    pub(super) fn is_within(&self, ino: Ino, directory: Ino) -> bool {
        let mut at = ino;
        loop {
            if at == directory {
                return true;
            }
            match self.nodes.get(&at).map(|node| &node.placement) {
                Some(Placement::Child { parent, .. }) => at = *parent,
                Some(Placement::Root | Placement::Removed) | None => return false,
            }
        }
    }

    pub(super) fn path(&self, ino: Ino) -> Option<String> {
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
