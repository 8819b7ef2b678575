//! Which small files somebody who reads through a directory will want next.
//!
//! `tar`, `rsync` and `grep -r` read files in the order of their names, `cp -r` in the order of their inode numbers. A
//! sequence is one such reader in one directory. It asks nobody; who fetches ahead is `ahead`.

use std::collections::VecDeque;
use std::ops::Bound;

use super::Ino;
use super::listing::Listing;
use crate::model::{Entry, Name};

/// Files read one after the other before they count as a sequence.
const SURE: u32 = 3;
/// How many are had ahead at first, and at most.
const FIRST_BATCH: usize = 8;
const LARGEST_BATCH: usize = 64;
/// A step may leave out so many.
const SKIPS: usize = 2;
/// The largest directory whose files are sought by their numbers: each time, all of them are looked at.
const MOST_BY_NUMBER: usize = 10_000;

/// How a reader goes through a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Names,
    Numbers,
}

/// A file in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub ino: Ino,
    pub name: Name,
}

/// One reader in one directory.
pub(super) struct Sequence<Held> {
    order: Order,
    /// Where the reader was last, and after how many steps in this order.
    last: Option<Place>,
    steps: u32,
    /// The last step, if it was to somewhere else.
    stray: Option<Place>,
    batch: usize,
    /// What was sent for and not come to yet, in order.
    coming: VecDeque<Place>,
    /// The last that was sent for.
    until: Option<Place>,
    /// What was sent for, kept until it is likely used.
    held: VecDeque<Held>,
}

impl Order {
    /// The next ones after a place; all of them in front of the first.
    fn after<'a>(
        self,
        place: Option<&Place>,
        most: usize,
        listing: &'a Listing,
        fits: &impl Fn(&Entry) -> bool,
    ) -> Vec<(Ino, &'a Entry)> {
        let fitting = |(ino, entry): &'a (Ino, Entry)| fits(entry).then_some((*ino, entry));
        match self {
            Self::Names => {
                let first = place.map_or(Bound::Unbounded, |place| Bound::Excluded(&place.name));
                let rest = listing.children.range::<Name, _>((first, Bound::Unbounded));
                rest.filter_map(|(_, child)| fitting(child)).take(most).collect()
            }
            Self::Numbers if listing.children.len() > MOST_BY_NUMBER => Vec::new(),
            Self::Numbers => {
                let first = place.map_or(Ino(0), |place| place.ino);
                let rest = listing.children.values().filter(|(ino, _)| *ino > first);
                let mut rest: Vec<_> = rest.filter_map(fitting).collect();
                if most < rest.len() {
                    rest.select_nth_unstable_by_key(most, |(ino, _)| *ino);
                    rest.truncate(most);
                }
                rest.sort_unstable_by_key(|(ino, _)| *ino);
                rest
            }
        }
    }
}

impl<Held> Default for Sequence<Held> {
    fn default() -> Self {
        Self {
            order: Order::Names,
            last: None,
            steps: 0,
            stray: None,
            batch: FIRST_BATCH,
            coming: VecDeque::new(),
            until: None,
            held: VecDeque::new(),
        }
    }
}

impl<Held> Sequence<Held> {
    /// The reader of another directory, come here: if it goes on as it did there, its first step tells enough.
    pub fn going_on(from: &Self) -> Self {
        Self {
            order: from.order,
            steps: if from.is_sure() { SURE - 1 } else { 0 },
            ..Self::default()
        }
    }

    pub fn is_sure(&self) -> bool {
        self.steps >= SURE
    }

    /// Takes note of a step, and says what to send for now. Of what the directory holds only what fits counts.
    pub fn step(&mut self, to: Place, listing: &Listing, fits: impl Fn(&Entry) -> bool) -> Vec<(Ino, Entry)> {
        if self.last.as_ref() == Some(&to) {
            return Vec::new();
        }
        let follows = |order: Order, from: Option<&Place>| {
            let next = order.after(from, SKIPS + 1, listing, &fits);
            next.iter().any(|(ino, _)| *ino == to.ino)
        };
        // Several may read at the same time, so it is not always the first.
        let place = self.coming.iter().position(|coming| *coming == to);
        let ahead = match place {
            Some(place) => {
                self.coming.remove(place);
                self.steps += 1;
                self.coming.len() - place
            }
            None if (self.last.is_some() || self.steps > 0) && follows(self.order, self.last.as_ref()) => {
                self.steps += 1;
                self.coming.clear();
                0
            }
            None => {
                let from = self.stray.as_ref().or(self.last.as_ref());
                let order = [Order::Names, Order::Numbers]
                    .into_iter()
                    .find(|order| from.is_some() && follows(*order, from));
                if order.is_none() && self.is_sure() && self.last.is_some() {
                    // Perhaps somebody else, in between.
                    self.stray = Some(to);
                    return Vec::new();
                }
                *self = Self {
                    order: order.unwrap_or(Order::Names),
                    steps: 1 + u32::from(order.is_some()),
                    // It may still be wanted.
                    held: std::mem::take(&mut self.held),
                    ..Self::default()
                };
                0
            }
        };
        self.stray = None;
        let last = self.last.insert(to);
        if self.steps < SURE || ahead > self.batch / 2 {
            return Vec::new();
        }
        let until = self.until.as_ref().filter(|_| ahead > 0).unwrap_or(last);
        let wanted = self.order.after(Some(until), self.batch - ahead, listing, &fits);
        let wanted: Vec<_> = wanted.into_iter().map(|(ino, entry)| (ino, entry.clone())).collect();
        self.batch = (self.batch * 2).min(LARGEST_BATCH);
        self.coming.extend(wanted.iter().map(|(ino, entry)| Place {
            ino: *ino,
            name: entry.name.clone(),
        }));
        let passed = self.coming.len().saturating_sub(2 * LARGEST_BATCH);
        self.coming.drain(..passed);
        self.until = self.coming.back().cloned();
        wanted
    }

    /// Keeps what was sent for; gives back what nobody came for, to be let go of without a lock.
    pub fn hold(&mut self, held: impl IntoIterator<Item = Held>) -> Vec<Held> {
        self.held.extend(held);
        let old = self.held.len().saturating_sub(2 * LARGEST_BATCH);
        self.held.drain(..old).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use tokio::time::Instant;

    use super::*;
    use crate::fs::inode::{Answer, Told};
    use crate::model::{Kind, ObjectKey, Rights, Version};

    /// Files `000`, `001`, ... whose numbers fall as their names rise.
    fn listing(files: u64) -> Listing {
        let child = |number: u64| {
            let name = Name::new(format!("{number:03}")).unwrap();
            let entry = Entry {
                key: ObjectKey::new(name.as_str()),
                name: name.clone(),
                kind: Kind::File,
                size: 1,
                modified: SystemTime::UNIX_EPOCH,
                version: Version::new("1"),
                rights: Rights::ALL,
                labels: Default::default(),
                posix: Default::default(),
            };
            (name, (Ino(1000 - number), entry))
        };
        let now = Instant::now();
        let answer = Answer {
            asked: now,
            changes: 0,
            came: now,
            told: Told::Now,
        };
        Listing::new((0..files).map(child).collect::<BTreeMap<_, _>>(), answer)
    }

    fn read(sequence: &mut Sequence<()>, listing: &Listing, number: u64) -> Vec<u64> {
        let place = Place {
            ino: Ino(1000 - number),
            name: Name::new(format!("{number:03}")).unwrap(),
        };
        let wanted = sequence.step(place, listing, |_| true);
        wanted.into_iter().map(|(ino, _)| 1000 - ino.0).collect()
    }

    #[tokio::test]
    async fn who_reads_in_order_has_more_and_more_ahead_each_once() {
        for upwards in [true, false] {
            let (listing, mut sequence) = (listing(300), Sequence::default());
            let number = |step: u64| if upwards { step } else { 299 - step };
            let (mut sent, mut ahead) = (Vec::new(), 0);
            for step in 0..300 {
                let wanted = read(&mut sequence, &listing, number(step));
                sent.extend(wanted);
                let now = (sent.len() as u64 + 3).saturating_sub(step + 1);
                assert!(now <= LARGEST_BATCH as u64);
                ahead = ahead.max(now);
            }
            assert_eq!(sent, (3..300).map(number).collect::<Vec<_>>());
            assert_eq!(ahead, LARGEST_BATCH as u64);
        }
    }

    #[tokio::test]
    async fn a_few_may_be_left_out_and_several_may_read_at_the_same_time() {
        let (listing, mut sequence) = (listing(300), Sequence::default());
        for number in [0, 2] {
            assert!(read(&mut sequence, &listing, number).is_empty());
        }
        let mut sent = read(&mut sequence, &listing, 5);
        for number in [7, 6, 9, 11, 10, 14, 12] {
            sent.extend(read(&mut sequence, &listing, number));
            assert!(sequence.is_sure());
        }
        assert_eq!(sent, (6..6 + sent.len() as u64).collect::<Vec<_>>());
        assert!(sent.len() > 16);
    }

    #[tokio::test]
    async fn one_look_elsewhere_ends_nothing_and_two_in_order_begin_anew() {
        let (listing, mut sequence) = (listing(300), Sequence::default());
        for number in 0..3 {
            read(&mut sequence, &listing, number);
        }
        assert!(read(&mut sequence, &listing, 200).is_empty());
        for number in 3..7 {
            read(&mut sequence, &listing, number);
        }
        assert!(sequence.is_sure());
        assert!(read(&mut sequence, &listing, 100).is_empty());
        assert!(read(&mut sequence, &listing, 101).is_empty());
        assert_eq!(read(&mut sequence, &listing, 102), (103..111).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn no_order_is_none() {
        let (listing, mut sequence) = (listing(300), Sequence::default());
        for number in [70, 3, 140, 60, 0, 29, 200, 190, 21, 20, 180] {
            assert!(read(&mut sequence, &listing, number).is_empty(), "{number}");
        }
    }

    #[tokio::test]
    async fn who_went_through_the_last_directory_goes_through_this_one() {
        let (listing, mut last) = (listing(20), Sequence::default());
        let mut unsure = Sequence::going_on(&last);
        assert!(read(&mut unsure, &listing, 0).is_empty());
        for number in (0..20).rev() {
            read(&mut last, &listing, number);
        }
        let mut next = Sequence::going_on(&last);
        assert_eq!(read(&mut next, &listing, 19), (11..19).rev().collect::<Vec<_>>());
        let mut elsewhere = Sequence::going_on(&last);
        assert!(read(&mut elsewhere, &listing, 10).is_empty());
        assert!(!elsewhere.is_sure());
    }
}
