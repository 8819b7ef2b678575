//! What a walk will want next: the small files after those that were read in order, the directories after those that
//! were listed in order. `tar`, `cp -r`, `grep -r` and `find` walk so.
//!
//! Which directories come next is `course`'s affair, which blocks of one file are fetched ahead is `fetch`'s.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::{Arc, OnceLock, Weak};

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Duration;

use super::course::{Course, Planned, Subdirectory};
use super::listing::Listing;
use super::reference::Reference;
use super::{FileSystem, Ino};
use crate::fetch::Source;
use crate::model::{Entry, Kind, Name};

/// Files up to this many bytes are fetched before they are opened.
const SMALL: u64 = 256 * 1024;
/// Files read in order before they count as a walk.
const SURE_OF_FILES: u32 = 3;
/// How many are had ahead at first, and at most.
const FIRST_BATCH: usize = 8;
const LARGEST_BATCH: usize = 64;
/// A step may leave out so many.
const SKIPS: usize = 2;
/// Walks that are remembered, one for each directory that somebody goes through: 64.
const WALKS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);
/// Courses through directories that are remembered.
const COURSES: usize = 8;
/// What is known for a shorter time is not worth having before it is asked for.
const LEAST_TTL: Duration = Duration::from_secs(1);

pub(super) struct Walks {
    /// Tasks need the file system that begins them.
    of: OnceLock<Weak<FileSystem>>,
    files: Mutex<LruCache<Ino, Walk<Arc<Source>>>>,
    /// The one that somebody went on with last is the last.
    courses: Mutex<Vec<Course<Reference>>>,
    /// How many directories are listed ahead at the same time, of all courses.
    at_once: usize,
    listing: Arc<Semaphore>,
}

impl Walks {
    /// Whom tasks work for, once there may be any.
    pub fn file_system(&self) -> Option<Weak<FileSystem>> {
        self.of.get().cloned()
    }

    pub fn new(at_once: usize) -> Self {
        Self {
            of: OnceLock::new(),
            files: Mutex::new(LruCache::new(WALKS)),
            courses: Mutex::default(),
            at_once,
            listing: Arc::new(Semaphore::new(at_once)),
        }
    }
}

/// How far somebody got through a directory, in the order of names.
struct Walk<Held> {
    last: Option<Name>,
    streak: u32,
    batch: usize,
    /// The last that was sent for.
    until: Option<Name>,
    /// What was sent for, kept until it is likely used.
    held: VecDeque<Held>,
}

impl<Held> Default for Walk<Held> {
    fn default() -> Self {
        Self {
            last: None,
            streak: 0,
            batch: FIRST_BATCH,
            until: None,
            held: VecDeque::new(),
        }
    }
}

impl<Held> Walk<Held> {
    /// Takes note of a step, and says what to send for now.
    fn step(&mut self, name: &Name, sure: u32, listing: &Listing, fits: impl Fn(&Entry) -> bool) -> Vec<(Ino, Entry)> {
        let after = |name: &Name| {
            let rest = (Bound::Excluded(name.clone()), Bound::Unbounded);
            listing.children.range(rest).filter(|(_, (_, entry))| fits(entry))
        };
        match self.last.replace(name.clone()) {
            Some(last) if last == *name => return Vec::new(),
            Some(last) if after(&last).take(SKIPS + 1).any(|(next, _)| next == name) => self.streak += 1,
            _ => {
                *self = Self {
                    last: Some(name.clone()),
                    streak: 1,
                    ..Self::default()
                };
            }
        }
        if self.streak < sure {
            return Vec::new();
        }
        let until = self
            .until
            .take()
            .filter(|until| until > name)
            .unwrap_or_else(|| name.clone());
        let ahead = after(name).take_while(|(next, _)| **next <= until).count();
        let mut wanted = Vec::new();
        if ahead <= self.batch / 2 {
            let more = after(&until).take(self.batch - ahead);
            wanted.extend(more.map(|(_, (number, entry))| (*number, entry.clone())));
            self.batch = (self.batch * 2).min(LARGEST_BATCH);
        }
        self.until = Some(wanted.last().map_or(until, |(_, entry)| entry.name.clone()));
        wanted
    }

    /// Keeps what was sent for; gives back what nobody came for, to be let go of without a lock.
    fn hold(&mut self, held: impl IntoIterator<Item = Held>) -> Vec<Held> {
        self.held.extend(held);
        let old = self.held.len().saturating_sub(2 * LARGEST_BATCH);
        self.held.drain(..old).collect()
    }
}

impl FileSystem {
    /// Fetches ahead from now on, for as long as this file system lives.
    pub fn start_fetching_ahead(self: &Arc<Self>) {
        let _ = self.walks.of.set(Arc::downgrade(self));
    }

    /// A file is being read for the first time since it was opened.
    pub(super) fn file_is_read(&self, ino: Ino) {
        let Some((listing, parent, name)) = self.walked(ino) else {
            return;
        };
        let small = |entry: &Entry| entry.kind == Kind::File && (1..=SMALL).contains(&entry.size) && entry.rights.read;
        let (wanted, _of_no_use) = {
            let mut walks = self.walks.files.lock();
            let walk = walks.get_or_insert_mut(parent, Walk::default);
            let wanted = walk.step(&name, SURE_OF_FILES, &listing, small);
            let wanted: Vec<_> = wanted
                .into_iter()
                .map(|(_, entry)| Arc::new(self.fetcher.open(entry.object())))
                .collect();
            let of_no_use = walk.hold(wanted.iter().cloned());
            (wanted, of_no_use)
        };
        if !wanted.is_empty() {
            tokio::spawn(async move {
                for source in wanted {
                    source.fetch_ahead().await;
                }
            });
        }
    }

    /// Somebody begins to list a directory.
    pub(super) fn directory_is_listed(&self, ino: Ino) {
        if !self.goes_ahead() {
            return;
        }
        {
            let mut courses = self.walks.courses.lock();
            match courses.iter_mut().rposition(|course| course.step(ino)) {
                Some(place) => courses[place..].rotate_left(1),
                None => {
                    let forgotten = courses.len().saturating_sub(COURSES - 1);
                    courses.drain(..forgotten);
                    courses.push(self.beginning(ino));
                }
            }
        }
        self.list_ahead();
    }

    /// A directory was listed, by somebody or ahead of somebody.
    pub(super) fn directory_was_listed(&self, ino: Ino, listing: &Listing) {
        if !self.goes_ahead() {
            return;
        }
        {
            let mut courses = self.walks.courses.lock();
            for course in courses.iter_mut() {
                course.found(ino, subdirectories(listing, Bound::Unbounded));
            }
        }
        self.list_ahead();
    }

    /// A walk that nobody is known to be on. What is beside the directory comes after it, as far as it is known.
    fn beginning(&self, ino: Ino) -> Course<Reference> {
        match self.walked(ino) {
            Some((listing, parent, name)) => {
                Course::beginning(ino, Some(parent), subdirectories(&listing, Bound::Excluded(&name)))
            }
            None => Course::beginning(ino, None, []),
        }
    }

    fn list_ahead(&self) {
        let Some(of) = self.walks.of.get() else { return };
        let hold = |planned: &Planned<Reference>| {
            let known = self.table.with(planned.parent, |node| {
                let listing = node.listing.as_ref()?;
                let (_, entry) = listing.children.get(&planned.name)?;
                Some((entry.clone(), listing.answer))
            });
            let (entry, answer) = known.ok().flatten()?;
            let node = self
                .table
                .attach(planned.parent, entry, Some(planned.ino), answer)
                .ok()?;
            (node.ino() == planned.ino).then_some(node)
        };
        let wanted: Vec<Ino> = {
            let mut courses = self.walks.courses.lock();
            let ttl = self.settings.attr_ttl;
            let next = courses
                .iter_mut()
                .map(|course| course.next(self.walks.at_once, ttl, hold));
            next.collect::<Vec<_>>().concat()
        };
        for number in wanted {
            let (of, listing) = (Weak::clone(of), Arc::clone(&self.walks.listing));
            tokio::spawn(async move {
                let Ok(_turn) = listing.acquire().await else { return };
                let Some(fs) = of.upgrade() else { return };
                // Whoever asks for it is told what is wrong.
                match fs.listing(number).await {
                    Ok(listing) => fs.directory_was_listed(number, &listing),
                    Err(_) => fs
                        .walks
                        .courses
                        .lock()
                        .iter_mut()
                        .for_each(|course| course.found(number, [])),
                }
            });
        }
    }

    /// Whether it is worth while to go ahead.
    fn goes_ahead(&self) -> bool {
        self.walks.of.get().is_some() && self.settings.attr_ttl >= LEAST_TTL && !self.provider_is_away()
    }

    /// Where a node hangs, if its directory was listed lately and it is worth while to go ahead.
    fn walked(&self, ino: Ino) -> Option<(Arc<Listing>, Ino, Name)> {
        if !self.goes_ahead() {
            return None;
        }
        let (parent, name) = self.place(ino).ok()??;
        Some((self.fresh_listing(parent)?, parent, name))
    }
}

/// The directories in a listing that may be listed themselves, in the order in which `readdir` gives them.
fn subdirectories<'a>(listing: &'a Listing, after: Bound<&'a Name>) -> impl Iterator<Item = Subdirectory> + 'a {
    let rest = listing.children.range((after.cloned(), Bound::Unbounded));
    let directories = rest.filter(|(_, (_, entry))| entry.kind == Kind::Directory && entry.rights.read);
    directories.map(|(name, (ino, _))| Subdirectory {
        ino: *ino,
        name: name.clone(),
    })
}
