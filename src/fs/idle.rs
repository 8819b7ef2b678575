//! Directories that nothing needs any more, and of which something is known that nobody else knows here.
//!
//! A kernel that is short of memory forgets directories while programs work below them. What those hold would be asked
//! for again, and couldn't be found while nobody answers; and what programs were shown of names in them would be
//! forgotten. So the latest are remembered, as long as all of them together hold no more than so many names.

use std::collections::{BTreeMap, HashMap};

use super::inode::{Ino, Node, Placement};
use super::nodes::Nodes;

/// Names in all idle directories together: some 20 MiB.
const MOST_NAMES: usize = 50_000;

/// Which directories are idle, and since when.
pub(super) struct Idle {
    latest: u64,
    by_age: BTreeMap<u64, Ino>,
    /// With when it entered, and how many names it counts for.
    entered: HashMap<Ino, (u64, usize)>,
    names: usize,
    most: usize,
}

impl Default for Idle {
    fn default() -> Self {
        Self::with_room_for(MOST_NAMES)
    }
}

impl Idle {
    fn with_room_for(most: usize) -> Self {
        Self {
            latest: 0,
            by_age: BTreeMap::new(),
            entered: HashMap::new(),
            names: 0,
            most,
        }
    }

    fn enter(&mut self, ino: Ino, names: usize) {
        self.leave(ino);
        self.latest += 1;
        self.by_age.insert(self.latest, ino);
        self.entered.insert(ino, (self.latest, names));
        self.names += names;
    }

    fn leave(&mut self, ino: Ino) {
        if let Some((age, names)) = self.entered.remove(&ino) {
            self.by_age.remove(&age);
            self.names -= names;
        }
    }

    /// Takes out the one that has been idle for longest, while there are too many names.
    fn too_old(&mut self) -> Option<Ino> {
        let (_, oldest) = self.by_age.first_key_value().filter(|_| self.names > self.most)?;
        let oldest = *oldest;
        self.leave(oldest);
        Some(oldest)
    }
}

impl Node {
    /// How many names an idle directory remembers, itself included; `None` when there is nothing to remember.
    fn remembers(&self) -> Option<usize> {
        let listed = self.listing.as_ref().map(|listing| listing.children.len());
        let is_there = matches!(self.placement, Placement::Child { .. });
        let knows = is_there && (listed.is_some() || !self.believed.is_empty());
        knows.then(|| 1 + listed.unwrap_or(0) + self.believed.len())
    }
}

impl Nodes {
    /// Lets go of a node that nothing needs; a directory of which something is known stays a while.
    pub(super) fn drop_if_unneeded(&mut self, ino: Ino) {
        self.rest(ino);
        while let Some(oldest) = self.idle.too_old() {
            // Some came to be needed again.
            if self.nodes.get(&oldest).is_some_and(|node| !node.is_needed()) {
                self.discard(oldest);
            }
        }
    }

    /// As `drop_if_unneeded`, where the next call of that one sees to the number of names.
    pub(super) fn rest(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get(&ino).filter(|node| !node.is_needed()) else {
            return;
        };
        match node.remembers() {
            Some(names) => self.idle.enter(ino, names),
            None => self.discard(ino),
        }
    }

    fn discard(&mut self, ino: Ino) {
        self.idle.leave(ino);
        self.unhook(ino);
        self.nodes.remove(&ino);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_was_idle_for_longest_goes_first() {
        let mut idle = Idle::with_room_for(10);
        for (number, names) in [(2, 4), (3, 4), (4, 2)] {
            idle.enter(Ino(number), names);
            assert_eq!(idle.too_old(), None);
        }
        // It was needed meanwhile, and has more names now.
        idle.enter(Ino(2), 8);
        assert_eq!(idle.too_old(), Some(Ino(3)));
        assert_eq!(idle.too_old(), None);
        idle.leave(Ino(4));
        idle.leave(Ino(4));
        assert_eq!(idle.names, 8);
        idle.enter(Ino(5), 11);
        assert_eq!(
            [idle.too_old(), idle.too_old(), idle.too_old()],
            [Some(Ino(2)), Some(Ino(5)), None]
        );
        assert_eq!((idle.names, idle.by_age.len(), idle.entered.len()), (0, 0, 0));
    }
}
