//! What directories held in a former mount: shown at once, asked for behind.
//!
//! At the first look into a directory after a mount, what the state database has of it is shown while the provider is
//! asked; what turns out to be different is told to the kernel. Names and directories are shown so. Everything else waits
//! for the provider's answer about the directory: what a file is, whether it is there, and that a name is free. While
//! nobody answers, what is known is shown, as everywhere.
//!
//! Rows are written behind, in groups. What this mount changes in a directory takes its row away first.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::warn;

use super::inode::{Answer, Freshness, Node, Presence, Told};
use super::listing::Listing;
use super::lookup::Sought;
use super::reference::Reference;
use super::{FileSystem, Ino};
use crate::model::{Entry, Error, Kind, Name, ObjectKey, Result};
use crate::provider::LISTS_AHEAD;
use crate::state::{KeptListing, MOST_BYTES};

/// How often is looked whether there are listings to be written, together.
const GROUP: Duration = Duration::from_secs(1);
/// A directory is written when nothing was changed in it for so long: one that is being filled is written once.
const QUIET: Duration = Duration::from_secs(2);
/// Directories that wait to be written. More are not kept, this time.
const MOST_WAITING: usize = 4096;
/// Entries that are written in one transaction: others wait for the state database some milliseconds.
const ENTRIES_AT_ONCE: usize = 2_000;
/// How many questions wait behind, for each that the provider bears at the same time, where questions are few: what
/// somebody needs now is not to wait for a thousand directories that a walk went through.
const MOST_BEHIND: usize = 8;
/// What all looks at directories of a new mount may wait for the provider together before they are shown what was
/// known. A provider that is quick shows nothing old, and a walk through a large tree doesn't feel it.
const PATIENCE: Duration = Duration::from_millis(250);

/// Who may see what is kept: equal words for credentials that may see the same. `None` when that isn't known.
pub type Viewer = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// How the question about a directory ended; `None` as long as it is asked.
type Asked = Option<Result<()>>;

/// What a mount has to do with the listings of former ones.
pub(super) struct Kept {
    viewer: Viewer,
    hash: RandomState,
    began: Instant,
    patience: Mutex<Duration>,
    inner: Mutex<Inner>,
    /// Held while what is kept of a directory is read.
    recalling: Mutex<()>,
    /// How many directories are asked for at the same time.
    asking: Arc<Semaphore>,
    /// How many questions may be on their way without anybody's waiting for them.
    most_behind: usize,
}

#[derive(Default)]
struct Inner {
    /// Directories that were looked into in this mount, as hashes of their keys.
    seen: HashSet<u64>,
    /// Directories of which there is no row, and those of which this mount has read or written one, as hashes of their
    /// keys. Of the others nobody knows.
    without_row: HashSet<u64>,
    with_row: HashSet<u64>,
    /// Questions on their way.
    asked: HashMap<Ino, watch::Receiver<Asked>>,
    waiting: HashMap<Ino, Waiting>,
    is_writing: bool,
}

/// A directory that is to be written.
struct Waiting {
    since: Instant,
    what: What,
}

enum What {
    Listed(ObjectKey, Arc<Listing>),
    /// It was changed here: what is known of it when it is written.
    Changed,
}

impl Kept {
    pub fn new(viewer: Viewer, at_once: usize) -> Self {
        Self {
            viewer,
            hash: RandomState::new(),
            began: Instant::now(),
            patience: Mutex::new(PATIENCE),
            inner: Mutex::default(),
            recalling: Mutex::default(),
            asking: Arc::new(Semaphore::new(at_once.max(1))),
            most_behind: match at_once {
                1..LISTS_AHEAD => at_once * MOST_BEHIND,
                _ => usize::MAX,
            },
        }
    }

    fn hashed(&self, directory: &ObjectKey) -> u64 {
        self.hash.hash_one(directory)
    }

    /// What a row says: older than everything that this mount knows.
    fn answer(&self) -> Answer {
        Answer {
            asked: self.began,
            changes: 0,
            came: self.began,
            told: Told::Before,
        }
    }
}

impl FileSystem {
    /// Keeps what directories hold for the next mount, and shows what the last one kept.
    pub fn with_kept_listings(mut self, viewer: Viewer) -> Self {
        let at_once = self.provider.capabilities().lists_ahead;
        // Who wants every answer fresh wants no old ones.
        self.kept = (!self.settings.attr_ttl.is_zero()).then(|| Kept::new(viewer, at_once));
        self
    }

    /// Whose rows count: of this directory of this remote, for a credential that may see what it sees.
    fn kept_namespace(&self) -> Option<(&Kept, String)> {
        let kept = self.kept.as_ref()?;
        let viewer = (kept.viewer)()?;
        let rights = self.table.with(Ino::ROOT, |root| root.entry.rights).ok()?;
        Some((kept, format!("{} {rights} {viewer}", self.namespace())))
    }

    /// What a former mount knew of a directory that nobody looked into since, now known here, too.
    fn recall(&self, ino: Ino) -> Option<Arc<Listing>> {
        let (kept, namespace) = self.kept_namespace()?;
        self.walks.file_system()?;
        let unknown = |node: &mut Node| {
            let can_be = node.listing.is_none()
                && node.presence == Presence::AtProvider
                && node.freshness != Freshness::KeyLost
                && node.changes == 0;
            can_be.then(|| node.entry.key.clone())
        };
        // One at a time: whoever comes second finds what the first one read.
        let _one = kept.recalling.lock();
        if let Some(known) = self.table.with(ino, |node| node.listing.clone()).ok()? {
            return known.is_remembered().then_some(known);
        }
        let key = self.table.with(ino, unknown).ok().flatten()?;
        if !kept.inner.lock().seen.insert(kept.hashed(&key)) {
            return None;
        }
        let entries = self.state.listing(&namespace, &key).unwrap_or_else(|error| {
            warn!(%error, "what a directory held is not known");
            None
        })?;
        kept.inner.lock().with_row.insert(kept.hashed(&key));
        let numbers = self.kept_numbers(ino, &entries);
        let listing = Arc::new(self.table.reconcile(ino, entries, &numbers, kept.answer()));
        self.table
            .with(ino, |node| {
                let unchanged = node.changes == 0 && node.listing.is_none();
                if unchanged {
                    node.subdirectories = Some(listing.subdirectories());
                    node.listing = Some(Arc::clone(&listing));
                }
                unchanged.then_some(listing)
            })
            .ok()
            .flatten()
    }

    /// A listing of a former mount that nobody answered for yet.
    pub(super) fn remembered(&self, ino: Ino) -> Option<Arc<Listing>> {
        self.kept.as_ref()?;
        let known = self.table.with(ino, |node| node.listing.clone()).ok()?;
        match known {
            Some(listing) => listing.is_remembered().then_some(listing),
            None => self.recall(ino),
        }
    }

    /// What a directory holds as far as is known, while it is asked for. If the answer comes soon, it is that.
    pub(super) async fn shown_meanwhile(&self, ino: Ino, remembered: Arc<Listing>) -> Arc<Listing> {
        let (Some(kept), Some(mut asked)) = (&self.kept, self.ask_behind(ino)) else {
            return remembered;
        };
        let patience = *kept.patience.lock();
        if !patience.is_zero() {
            let began = Instant::now();
            let _ = tokio::time::timeout(patience, asked.wait_for(Option::is_some)).await;
            let mut patience = kept.patience.lock();
            *patience = patience.saturating_sub(began.elapsed());
        }
        let now = self.table.with(ino, |node| node.listing.clone()).ok().flatten();
        now.unwrap_or(remembered)
    }

    /// Waits until the provider has answered what a directory holds that was known from a former mount.
    ///
    /// # Errors
    /// As the provider's answer.
    pub(super) async fn answered(&self, ino: Ino) -> Result<()> {
        let Some(mut asked) = self.ask_about(ino, usize::MAX) else {
            return Ok(());
        };
        match asked.wait_for(Option::is_some).await.map(|asked| asked.clone()) {
            Ok(Some(outcome)) => outcome,
            // It ended without one.
            Ok(None) | Err(_) => Err(Error::internal("asking for a directory was interrupted")),
        }
    }

    /// Asks for a directory that is known from a former mount, unless too many are asked for.
    fn ask_behind(&self, ino: Ino) -> Option<watch::Receiver<Asked>> {
        self.ask_about(ino, self.kept.as_ref()?.most_behind)
    }

    /// Who asks meanwhile joins.
    fn ask_about(&self, ino: Ino, most: usize) -> Option<watch::Receiver<Asked>> {
        let kept = self.kept.as_ref()?;
        let of = self.walks.file_system()?;
        let mut inner = kept.inner.lock();
        if let Some(asked) = inner.asked.get(&ino) {
            return Some(asked.clone());
        }
        if inner.asked.len() >= most {
            return None;
        }
        let (report, asked) = watch::channel(None);
        inner.asked.insert(ino, asked.clone());
        let permits = Arc::clone(&kept.asking);
        let task = async move {
            let Ok(_permit) = permits.acquire().await else { return };
            let Some(fs) = of.upgrade() else { return };
            let outcome = fs.ask_once(ino).await;
            if let Some(kept) = &fs.kept {
                kept.inner.lock().asked.remove(&ino);
            }
            let _ = report.send(Some(outcome));
        };
        tokio::spawn(task);
        Some(asked)
    }

    async fn ask_once(&self, ino: Ino) -> Result<()> {
        let turn = self.table.with(ino, |node| Arc::clone(&node.listing_turn))?;
        let _turn = turn.take().await;
        let remembered = |node: &mut Node| node.listing.clone().filter(|listing| listing.is_remembered());
        let Some(known) = self.table.with(ino, remembered)? else {
            return Ok(());
        };
        match self.ask(ino).await {
            Ok(listing) => {
                self.tell_differences(ino, &known, &listing);
                Ok(())
            }
            Err(error) => {
                if !self.means_away(&error) {
                    // Nothing that follows from it counts.
                    self.table.doubt_inside(ino);
                }
                Err(error)
            }
        }
    }

    /// The kernel has what was known before.
    fn tell_differences(&self, directory: Ino, known: &Listing, listed: &Listing) {
        let mut names: Vec<Name> = Vec::new();
        let mut changed = Vec::new();
        for (name, (ino, entry)) in &known.children {
            match listed.children.get(name) {
                Some((number, now)) if number == ino && now.kind == entry.kind => {
                    if now != entry {
                        changed.push((*ino, now.version != entry.version));
                    }
                }
                _ => names.push(name.clone()),
            }
        }
        let added = listed
            .children
            .keys()
            .filter(|name| !known.children.contains_key(*name));
        names.extend(added.cloned());
        if names.is_empty() && changed.is_empty() {
            return;
        }
        self.tell_kernel(move |kernel| {
            kernel.forget_content(directory);
            for name in &names {
                kernel.forget_name(directory, name.as_str().as_ref());
            }
            for (ino, is_content) in changed {
                if is_content {
                    kernel.forget_content(ino);
                } else {
                    kernel.forget_attributes(ino);
                }
            }
        });
    }

    /// A child by what a former mount knew of its directory; `None` where that doesn't answer it.
    pub(super) async fn find_remembered(
        &self,
        parent: Ino,
        name: &Name,
        known: &mut Option<Reference>,
    ) -> Result<Option<Sought>> {
        let Some(remembered) = self.remembered(parent) else {
            // Unless the answer came just now.
            return match self.fresh_listing(parent) {
                Some(listing) => self.listed(parent, name, &listing, known.take()).map(Some),
                None => Ok(None),
            };
        };
        let child = remembered.children.get(name);
        let attach = |number: Ino, entry: &Entry| {
            let entry = entry.clone();
            let reference = self.table.attach(parent, entry, Some(number), remembered.answer);
            reference.map(Sought::There)
        };
        if let Some((number, entry)) = child.filter(|(_, entry)| entry.is_directory() || self.provider_is_away()) {
            self.ask_behind(parent);
            return attach(*number, entry).map(Some);
        }
        match (self.answered(parent).await, child) {
            (Ok(()), _) => match self.fresh_listing(parent) {
                Some(listing) => self.listed(parent, name, &listing, known.take()).map(Some),
                None => Ok(None),
            },
            (Err(error), Some((number, entry))) if self.means_away(&error) => attach(*number, entry).map(Some),
            (Err(_), _) => Ok(None),
        }
    }

    /// What a node from a former mount is now; `None` when it is to be asked for by itself.
    pub(super) async fn settled(&self, ino: Ino, entry: &Entry) -> Result<Option<Entry>> {
        let Some((parent, _)) = self.place(ino)? else {
            return Ok(None);
        };
        if self.remembered(parent).is_none() {
            // Unless the answer came just now.
            let ttl = self.settings.attr_ttl;
            let answered = |node: &mut Node| node.freshness.is_within(ttl).then(|| node.entry.clone());
            return self.table.with(ino, answered);
        }
        if entry.kind == Kind::Directory {
            // Shown so long; the kernel is told what turns out to be different.
            self.ask_behind(parent);
            return Ok(Some(entry.clone()));
        }
        match self.answered(parent).await {
            Ok(()) => {}
            Err(error) if self.means_away(&error) => return Ok(Some(entry.clone())),
            Err(_) => return Ok(None),
        }
        let (freshness, entry, is_gone) = self
            .table
            .with(ino, |node| (node.freshness, node.entry.clone(), node.is_removed()))
            .map_err(|_| Error::not_found(&entry.name))?;
        if is_gone {
            return Err(Error::not_found(&entry.name));
        }
        Ok(freshness.is_within(self.settings.attr_ttl).then_some(entry))
    }

    /// The provider answered what a directory holds, after `before`: the next mount is to know.
    pub(super) fn keep_listing(
        &self,
        ino: Ino,
        directory: ObjectKey,
        listing: &Arc<Listing>,
        before: Option<&Listing>,
    ) {
        let Some(kept) = &self.kept else { return };
        let is_written = {
            let mut inner = kept.inner.lock();
            let hashed = kept.hashed(&directory);
            inner.seen.insert(hashed);
            inner.with_row.contains(&hashed)
        };
        if !is_written || before.is_none_or(|before| before.children != listing.children) {
            self.to_be_written(kept, ino, What::Listed(directory, Arc::clone(listing)));
        }
    }

    /// This mount changed something in a directory. What is kept of it goes at once: should this process be killed, the
    /// next mount must not show less than this one.
    pub(super) fn kept_is_outdated(&self, ino: Ino) {
        let Some((kept, namespace)) = self.kept_namespace() else {
            return;
        };
        let Ok(key) = self.table.with(ino, |node| node.entry.key.clone()) else {
            return;
        };
        self.forget_kept(kept, &namespace, &key);
        self.to_be_written(kept, ino, What::Changed);
    }

    /// A directory was made or removed: what is kept of one that had its key is of another.
    pub(super) fn kept_is_of_another(&self, directory: &ObjectKey) {
        if let Some((kept, namespace)) = self.kept_namespace() {
            kept.inner.lock().seen.insert(kept.hashed(directory));
            self.forget_kept(kept, &namespace, directory);
        }
    }

    fn forget_kept(&self, kept: &Kept, namespace: &str, directory: &ObjectKey) {
        let hashed = kept.hashed(directory);
        let may_have_row = {
            let mut inner = kept.inner.lock();
            inner.with_row.remove(&hashed);
            inner.without_row.insert(hashed)
        };
        if may_have_row && let Err(error) = self.state.forget_listings(namespace, [directory]) {
            warn!(%error, "what a directory held is kept though it changed");
        }
    }

    /// Nothing that is kept counts any more.
    pub(super) fn forget_all_kept(&self) {
        let Some((kept, namespace)) = self.kept_namespace() else {
            return;
        };
        {
            let mut inner = kept.inner.lock();
            inner.waiting.clear();
            inner.with_row.clear();
        }
        if let Err(error) = self.state.forget_all_listings(&namespace) {
            warn!(%error, "what directories held is kept though it isn't to be");
        }
    }

    fn to_be_written(&self, kept: &Kept, ino: Ino, what: What) {
        let Some(of) = self.walks.file_system() else { return };
        let mut inner = kept.inner.lock();
        if inner.waiting.len() >= MOST_WAITING && !inner.waiting.contains_key(&ino) {
            return;
        }
        let since = Instant::now();
        inner.waiting.insert(ino, Waiting { since, what });
        if inner.is_writing || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        inner.is_writing = true;
        drop(inner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(GROUP).await;
                let Some(fs) = of.upgrade() else { return };
                fs.write_waiting(QUIET).await;
                let Some(kept) = &fs.kept else { return };
                let mut inner = kept.inner.lock();
                if inner.waiting.is_empty() {
                    inner.is_writing = false;
                    return;
                }
            }
        });
    }

    /// Writes at once what waits to be written. To be called at the end: the next mount shows the same, and the journal has
    /// nothing of what was sent.
    pub async fn write_kept(&self) {
        self.journal.caught_up().await;
        if let Err(error) = self.state.keep_attributes() {
            warn!(%error, "modes and times of files are not kept");
        }
        self.write_waiting(Duration::ZERO).await;
    }

    /// Writes what has waited for so long.
    async fn write_waiting(&self, quiet: Duration) {
        let Some((kept, namespace)) = self.kept_namespace() else {
            return;
        };
        let is_quiet = |_: &Ino, waiting: &mut Waiting| waiting.since.elapsed() >= quiet;
        let waiting: Vec<_> = kept.inner.lock().waiting.extract_if(is_quiet).collect();
        let current = |(ino, waiting): (Ino, Waiting)| match waiting.what {
            What::Listed(key, listing) => Some((key, listing)),
            What::Changed => {
                let known = self
                    .table
                    .with(ino, |node| (node.entry.key.clone(), node.listing.clone()));
                let (key, listing) = known.ok()?;
                Some((
                    key,
                    listing.filter(|listing| !listing.is_remembered() && !listing.is_expired())?,
                ))
            }
        };
        let listings: Vec<(ObjectKey, Arc<Listing>)> = waiting.into_iter().filter_map(current).collect();
        if listings.is_empty() {
            return;
        }
        {
            let mut inner = kept.inner.lock();
            for (key, _) in &listings {
                let hashed = kept.hashed(key);
                inner.without_row.remove(&hashed);
                inner.with_row.insert(hashed);
            }
        }
        let state = Arc::clone(&self.state);
        let writing = tokio::task::spawn_blocking(move || -> Result<()> {
            let mut group = Vec::new();
            let mut entries = 0;
            for (directory, listing) in &listings {
                let listed = listing.children.values().map(|(_, entry)| entry);
                // What this mount made and the provider doesn't have has no key.
                let there: Vec<&Entry> = listed.filter(|entry| !entry.key.as_str().is_empty()).collect();
                entries += there.len();
                group.push(KeptListing {
                    directory: directory.clone(),
                    entries: there,
                });
                if entries >= ENTRIES_AT_ONCE {
                    state.keep_listings(&namespace, &std::mem::take(&mut group), MOST_BYTES)?;
                    entries = 0;
                }
            }
            state.keep_listings(&namespace, &group, MOST_BYTES)
        });
        match writing.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "what directories hold is not kept for the next mount"),
            Err(_) => warn!("what directories hold is not kept for the next mount: writing it was interrupted"),
        }
    }
}
