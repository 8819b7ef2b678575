//! What a walk will want next: the small files after those that were read in order, the directories after those that
//! were listed in order. `tar`, `cp -r`, `grep -r` and `find` walk so.
//!
//! Which directories come next is `course`'s affair, which files `sequence`'s; which blocks of one file are fetched ahead is
//! `fetch`'s.

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
use super::sequence::{Place, Sequence};
use super::{FileSystem, Ino};
use crate::fetch::Source;
use crate::model::{Entry, Kind, Name};

/// Files up to this many bytes are fetched before they are opened.
const SMALL: u64 = 256 * 1024;
/// Directories that somebody reads through and that are remembered: 64.
const SEQUENCES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);
/// Courses through directories that are remembered.
const COURSES: usize = 8;
/// What is known for a shorter time is not worth having before it is asked for.
const LEAST_TTL: Duration = Duration::from_secs(1);

pub(super) struct Walks {
    /// Tasks need the file system that begins them.
    of: OnceLock<Weak<FileSystem>>,
    files: Mutex<LruCache<Ino, Sequence<Arc<Source>>>>,
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
            files: Mutex::new(LruCache::new(SEQUENCES)),
            courses: Mutex::default(),
            at_once,
            listing: Arc::new(Semaphore::new(at_once)),
        }
    }
}

impl FileSystem {
    /// Fetches ahead from now on, for as long as this file system lives.
    pub fn start_fetching_ahead(self: &Arc<Self>) {
        let _ = self.walks.of.set(Arc::downgrade(self));
    }

    /// A file is being read for the first time since it was opened, or the kernel is about to read it by itself.
    pub(super) fn file_is_read(&self, ino: Ino) {
        let Some((listing, parent, name)) = self.walked(ino) else {
            return;
        };
        let small = |entry: &Entry| entry.kind == Kind::File && (1..=SMALL).contains(&entry.size) && entry.rights.read;
        let (wanted, _of_no_use, _forgotten) = {
            let mut sequences = self.walks.files.lock();
            let forgotten = if sequences.contains(&parent) {
                None
            } else {
                let latest = sequences.iter().next();
                let begun = latest.map_or_else(Sequence::default, |(_, latest)| Sequence::going_on(latest));
                sequences.push(parent, begun)
            };
            let sequence = sequences.get_or_insert_mut(parent, Sequence::default);
            let wanted = sequence.step(Place { ino, name }, &listing, small);
            let wanted: Vec<_> = wanted
                .into_iter()
                .map(|(_, entry)| Arc::new(self.fetcher.open(entry.object())))
                .collect();
            let of_no_use = sequence.hold(wanted.iter().cloned());
            (wanted, of_no_use, forgotten)
        };
        if !wanted.is_empty() {
            tokio::spawn(async move {
                for source in wanted {
                    source.fetch_ahead().await;
                }
            });
        }
    }

    /// Lists a directory whose files somebody reads one after the other, so that what is known of one is asked for with
    /// all others. Gives whether it is listed now; otherwise each file is to be asked for.
    pub(super) async fn list_if_read_through(&self, directory: Ino) -> bool {
        let is_read_through = {
            let sequences = self.walks.files.lock();
            sequences.peek(&directory).is_some_and(Sequence::is_sure)
        };
        is_read_through
            && match self.listing(directory).await {
                Ok(_) => true,
                Err(error) => {
                    self.means_away(&error);
                    false
                }
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
