//! Nodes that nothing needs any more, and that know what nobody else knows here: what a directory holds, what programs
//! were shown of names in it, and a file or directory that is in no listing.
//!
//! A kernel that is short of memory forgets them while programs work with them. All that would be asked for again, and
//! couldn't be found while nobody answers. So the latest are remembered, as far as there is room.

use lru::LruCache;

use super::inode::{Ino, Placement, Presence};
use super::nodes::Nodes;

/// What all idle nodes may remember together, in names of listings: some 20 MiB.
const MOST_NAMES: usize = 50_000;
/// A node takes as much memory as so many names of a listing.
const NODE: usize = 4;

/// Which nodes are idle, in the order in which they became so.
pub(super) struct Idle {
    /// With how many names each counts for.
    nodes: LruCache<Ino, usize>,
    names: usize,
    most: usize,
}

impl Default for Idle {
    fn default() -> Self {
        Self::with_room_for(MOST_NAMES)
    }
}

impl Idle {
    pub(super) fn with_room_for(most: usize) -> Self {
        Self {
            nodes: LruCache::unbounded(),
            names: 0,
            most,
        }
    }

    fn enter(&mut self, ino: Ino, names: usize) {
        self.names += names;
        self.names -= self.nodes.put(ino, names).unwrap_or(0);
    }

    fn leave(&mut self, ino: Ino) {
        self.names -= self.nodes.pop(&ino).unwrap_or(0);
    }

    /// Takes out the one that has been idle for longest, while there are too many names.
    fn too_old(&mut self) -> Option<Ino> {
        if self.names <= self.most {
            return None;
        }
        let (oldest, names) = self.nodes.pop_lru()?;
        self.names -= names;
        Some(oldest)
    }
}

impl Nodes {
    /// Lets go of a node that nothing needs; one that is worth remembering stays a while.
    pub(super) fn drop_if_unneeded(&mut self, ino: Ino) {
        self.rest(ino);
        while let Some(oldest) = self.idle.too_old() {
            // Some came to be needed again.
            if self.nodes.get(&oldest).is_some_and(|node| !node.is_needed()) {
                self.discard(oldest);
            }
        }
    }

    /// As `drop_if_unneeded`, where the next call of that one sees to the room.
    pub(super) fn rest(&mut self, ino: Ino) {
        if self.nodes.get(&ino).is_none_or(|node| node.is_needed()) {
            return;
        }
        match self.remembers(ino) {
            Some(names) => self.idle.enter(ino, names),
            None => self.discard(ino),
        }
    }

    /// How many names a node counts for that is worth remembering.
    fn remembers(&self, ino: Ino) -> Option<usize> {
        let node = self.nodes.get(&ino)?;
        let Placement::Child { parent, name } = &node.placement else {
            return None;
        };
        let above = self.nodes.get(parent).and_then(|parent| parent.listing.as_ref());
        let is_listed = above.is_some_and(|listing| listing.children.contains_key(name));
        let has_names = node.listing.is_some() || !node.believed.is_empty();
        if node.presence != Presence::AtProvider || (is_listed && !has_names) {
            return None;
        }
        let listed = node.listing.as_ref().map_or(0, |listing| listing.children.len());
        Some(NODE + listed + node.believed.len())
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
        assert_eq!((idle.names, idle.nodes.len()), (0, 0));
    }
}
