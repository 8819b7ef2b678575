//! Which names the kernel was told not to be there, for how long, and that it is told otherwise before that is over.
//!
//! The kernel answers such a name by itself. It is told so only by what the provider answered, for as long as that answer
//! counts here; from then on it is noted in the directory's node. Whatever gets the name, and whatever makes the answer
//! doubtful, has the kernel forget the name, unless the kernel itself is having something made under it. The note is made
//! under the table's lock before the kernel is answered, and the kernel holds its directory until then: nothing can get the
//! name in between without the kernel's forgetting it afterwards.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use super::inode::{Answer, Node, Told};
use super::lookup::Sought;
use super::nodes::Nodes;
use super::table::Table;
use super::{Child, FileSystem, Ino, KernelCaches};
use crate::model::{Error, Name, Result};

/// How many names of one directory the kernel may believe to be free; it asks for others every time.
const MOST_TOLD: usize = 4096;
/// How long an answer may be on its way to the kernel, which counts from when it comes; assumed.
const ON_THE_WAY: Duration = Duration::from_secs(1);
/// How many names are told at once at most.
const AT_ONCE: usize = 1024;

/// A name in a directory that the kernel is to forget.
type Place = (Ino, Name);

/// What is behind a name, for the kernel.
#[derive(Debug)]
pub enum Looked {
    There(Child),
    /// Nothing, and for so long nobody has to be asked again.
    Missing {
        stays: Duration,
    },
}

/// The names in one directory that the kernel may believe to be free.
pub(super) struct ToldMissing {
    directory: Ino,
    /// With the moment from which on the kernel asks for it by itself.
    until: HashMap<Name, Instant>,
    latest: Instant,
    news: UnboundedSender<Place>,
}

impl ToldMissing {
    fn new(directory: Ino, news: UnboundedSender<Place>) -> Self {
        Self {
            directory,
            until: HashMap::new(),
            latest: Instant::now(),
            news,
        }
    }

    /// Notes a name; gives whether there was room for it.
    fn add(&mut self, name: &Name, until: Instant) -> bool {
        if self.until.len() >= MOST_TOLD {
            let now = Instant::now();
            self.until.retain(|_, until| *until > now);
        }
        let has_room = self.until.len() < MOST_TOLD;
        if has_room {
            self.until.insert(name.clone(), until);
            self.latest = self.latest.max(until);
        }
        has_room
    }

    /// The kernel is to forget these.
    fn forget(&mut self, is_meant: impl Fn(&Name) -> bool) {
        for (name, _) in self.until.extract_if(|name, _| is_meant(name)) {
            // Nobody listens any more when the mount is gone.
            let _ = self.news.send((self.directory, name));
        }
    }
}

impl Node {
    /// How long the answer still counts that a name is not there.
    fn lacks_for(&self, name: &Name, answer: Answer, ttl: Duration) -> Duration {
        let came = match self.listing.as_ref().filter(|listing| listing.is_within(ttl)) {
            Some(listing) if listing.children.contains_key(name) => return Duration::ZERO,
            Some(listing) => listing.answer.came,
            None if answer.told == Told::Now && answer.changes == self.changes && self.may_rely_on(answer) => {
                answer.came
            }
            None => return Duration::ZERO,
        };
        ttl.saturating_sub(came.elapsed())
    }

    /// Something has this name in this directory.
    pub(super) fn name_appears(&mut self, name: &Name) {
        if let Some(missing) = self.missing.as_mut().filter(|missing| missing.until.contains_key(name)) {
            missing.forget(|other| other == name);
        }
    }

    /// This directory was listed.
    pub(super) fn names_appear<T>(&mut self, listed: &BTreeMap<Name, T>) {
        if let Some(missing) = &mut self.missing {
            missing.forget(|name| listed.contains_key(name));
        }
    }

    /// That names are missing in this directory isn't known any more.
    pub(super) fn doubt_missing(&mut self) {
        if let Some(mut missing) = self.missing.take() {
            missing.forget(|_| true);
        }
    }

    /// As `doubt_missing`, by someone who tells the kernel.
    pub(super) fn take_missing(&mut self) -> Vec<Place> {
        let missing = self.missing.take();
        let places = missing.map(|missing| {
            let names = missing.until.into_keys();
            names.map(move |name| (missing.directory, name)).collect()
        });
        places.unwrap_or_default()
    }

    /// When the kernel was last told that something is missing here, if it still believes so.
    pub(super) fn told_missing(&self, ttl: Duration) -> Option<Instant> {
        let latest = self.missing.as_ref()?.latest;
        (latest > Instant::now()).then(|| latest.checked_sub(ttl))?
    }
}

impl Nodes {
    /// The kernel asks for a name, or has something made under it: it relies on the answer, and on nothing before.
    /// Gives whether it had been told that nothing is there.
    fn asks_again(&mut self, parent: Ino, name: &Name) -> bool {
        let directory = self.nodes.get_mut(&parent);
        let missing = directory.and_then(|directory| directory.missing.as_mut());
        missing.is_some_and(|missing| missing.until.remove(name).is_some())
    }
}

impl Table {
    /// How long the kernel may believe that nothing has this name, by what the provider answered; from now on it does.
    fn tell_missing(&self, parent: Ino, name: &Name, answer: Answer, ttl: Duration) -> Duration {
        let mut inner = self.inner.lock();
        let Some(news) = inner.news.clone() else {
            // Nobody would tell it otherwise.
            return Duration::ZERO;
        };
        let is_there = inner.child(parent, name).is_some();
        let directory = inner.nodes.get_mut(&parent);
        let Some(directory) = directory.filter(|directory| !is_there && !directory.is_removed()) else {
            return Duration::ZERO;
        };
        let stays = directory.lacks_for(name, answer, ttl);
        let Some(until) = Instant::now().checked_add(stays + ON_THE_WAY) else {
            return Duration::ZERO;
        };
        let missing = directory.missing.get_or_insert_with(|| ToldMissing::new(parent, news));
        if !stays.is_zero() && missing.add(name, until) {
            stays
        } else {
            Duration::ZERO
        }
    }

    /// From now on, names are noted that the kernel is to forget; gives them as they come.
    fn note_news(&self) -> UnboundedReceiver<Place> {
        let (news, appeared) = mpsc::unbounded_channel();
        self.inner.lock().news = Some(news);
        appeared
    }
}

/// The kernel is having something made under a name. Unless that succeeds, it doesn't know what is there.
#[must_use]
pub(super) struct Making<'a> {
    table: &'a Table,
    /// `None` when the kernel has nothing to forget.
    believed: Option<Place>,
}

impl Making<'_> {
    /// It is there, and the kernel is told so.
    pub fn succeeded(mut self) {
        self.believed = None;
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let Some(place) = self.believed.take() else { return };
        if let Some(news) = &self.table.inner.lock().news {
            let _ = news.send(place);
        }
    }
}

impl FileSystem {
    /// What the kernel is to know of a name.
    ///
    /// # Errors
    /// As `Provider::lookup`. `NotFound` when nothing is known to be there, and that isn't to be relied on.
    pub async fn look(&self, parent: Ino, name: &OsStr) -> Result<Looked> {
        let name = Name::from_os(name)?;
        self.table.inner.lock().asks_again(parent, &name);
        match self.look_for(parent, &name).await? {
            Sought::There(reference) => self.as_child(reference).map(Looked::There),
            Sought::Missing(_) if self.provider_is_away() => Err(Error::not_found(&name)),
            Sought::Missing(answer) => {
                let stays = self.table.tell_missing(parent, &name, answer, self.settings.attr_ttl);
                if stays.is_zero() {
                    return Err(Error::not_found(&name));
                }
                Ok(Looked::Missing { stays })
            }
        }
    }

    /// To be called before something is made that the kernel asked for.
    pub(super) fn making(&self, parent: Ino, name: &Name) -> Making<'_> {
        let was_believed = self.table.inner.lock().asks_again(parent, name);
        Making {
            table: &self.table,
            believed: was_believed.then(|| (parent, name.clone())),
        }
    }

    /// Has the kernel forget names as soon as something has them, for as long as this file system lives.
    pub(super) fn tell_of_names(&self, kernel: Arc<dyn KernelCaches>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut appeared = self.table.note_news();
        runtime.spawn(async move {
            let mut places = Vec::new();
            while appeared.recv_many(&mut places, AT_ONCE).await > 0 {
                let mut directories: HashMap<Ino, Vec<Name>> = HashMap::new();
                for (directory, name) in places.drain(..) {
                    directories.entry(directory).or_default().push(name);
                }
                // One that is busy holds up no other one.
                for (directory, names) in directories {
                    let kernel = Arc::clone(&kernel);
                    tokio::task::spawn_blocking(move || {
                        let forget = |name: &Name| kernel.forget_name(directory, name.as_str().as_ref());
                        names.iter().for_each(forget);
                    });
                }
            }
        });
    }
}
