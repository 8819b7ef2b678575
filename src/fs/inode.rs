//! One file or directory: where it hangs, what is known of it, and what was changed here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::backing::Backing;
use super::beliefs::{Belief, Parked};
use super::listing::Listing;
use super::missing::ToldMissing;
use super::turn::Turn;
use crate::model::{Entry, Error, Kind, Name, ObjectKey, Rights, ToldAttributes, Version};
use crate::outbox::Staged;
use crate::state::{LocalAttributes, LocalTimes};

/// How many changed names a directory remembers for answers from before; somebody may have it open for days.
const MOST_CHANGED: usize = 10_000;

/// An inode number as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

/// An entry of which the provider knows nothing: a file before it is sent, or a node that only this host has.
pub fn entry_of_this_host(name: Name, rights: Rights, modified: SystemTime) -> Entry {
    Entry {
        key: ObjectKey::new(""),
        name,
        kind: Kind::File,
        size: 0,
        modified,
        version: Version::new(""),
        rights,
        labels: Default::default(),
        posix: Default::default(),
    }
}

/// The bit that the numbers have which follow from names.
const DERIVED: u64 = 1 << 62;

impl Ino {
    /// FUSE fixes the number of the mounted directory.
    pub const ROOT: Self = Self(1);

    /// The number that follows from a name: the same in every mount, as long as the directory has the same number.
    pub fn derived(parent: Self, name: &Name) -> Self {
        let mut hash = Sha256::new();
        hash.update(parent.0.to_le_bytes());
        hash.update(name.as_str());
        let mut number = [0; 8];
        number.copy_from_slice(&hash.finalize()[..8]);
        Self(u64::from_le_bytes(number) >> 2 | DERIVED)
    }

    /// A number that nobody had.
    pub fn unused() -> Self {
        Self(fastrand::u64(Self::ROOT.0 + 1..DERIVED))
    }

    pub fn is_derived(self) -> bool {
        self.0 & DERIVED != 0
    }
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
    /// Of a kind that the provider has no place for: it is kept here, and its entry's key and version mean nothing.
    Local,
}

/// How much the node's entry can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The provider said so then.
    Checked(Instant),
    /// A former mount said so. A directory is shown so; a file is asked for, with all that is in its directory.
    Remembered,
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

/// When the provider was asked, and when it answered. What this mount did since it asked counts more than the answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub asked: Instant,
    /// `Node::changes` of the directory when it was asked.
    pub changes: u64,
    pub came: Instant,
    pub told: Told,
}

/// Who was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// This mount.
    Now,
    /// A former one: it shows what was there, and proves nothing.
    Before,
}

/// What a content grew out of. It stays the same through everything that this mount does: writing, sending, renaming,
/// whatever versions the provider makes of that. What somebody else stores begins another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage(u64);

impl Lineage {
    /// One that nothing has yet.
    pub fn begin() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Content that was changed here.
#[derive(Clone)]
pub struct LocalContent {
    pub staged: Arc<Staged>,
    /// Of the version that it began with, and of what is made of it.
    pub lineage: Lineage,
    /// What it is a change of, as the provider had it when the change began; `None` for a new file.
    pub replaces: Option<Entry>,
}

impl LocalContent {
    /// What it takes the place of at the provider, in bytes.
    pub fn replaced_bytes(&self) -> u64 {
        self.replaces.as_ref().map_or(0, |entry| entry.size)
    }
}

/// How many names were not found in a directory lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Misses {
    count: u32,
    since: Option<Instant>,
}

impl Misses {
    /// One more; gives how many they are within `window`.
    pub fn add(&mut self, window: Duration) -> u32 {
        if self.since.is_none_or(|since| since.elapsed() >= window) {
            *self = Self {
                count: 0,
                since: Some(Instant::now()),
            };
        }
        self.count += 1;
        self.count
    }
}

/// A look through the state database that goes on in steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sweep {
    #[default]
    ToBegin,
    /// From here on.
    At(String),
    Done,
}

/// One file or directory.
pub struct Node {
    pub placement: Placement,
    pub entry: Entry,
    pub presence: Presence,
    pub freshness: Freshness,
    /// When this mount changed the node, or asked for what it knows: earlier questions' answers are void.
    pub learned: Instant,
    /// When it was last to be asked for again: earlier questions' answers are better than what is known, and not to be
    /// relied on.
    doubted: Option<Instant>,
    pub listing: Option<Arc<Listing>>,
    /// Names that were looked for in it and not found.
    pub misses: Misses,
    /// Content that was changed here; `None` while the provider's is the truth.
    pub content: Option<LocalContent>,
    /// What is kept here of it; `None` until it was read from the state database.
    pub local: Option<LocalAttributes>,
    /// How many directories are in this directory, where that is known.
    pub subdirectories: Option<u32>,
    /// Whose turn it is to change this node at the provider.
    pub turn: Arc<Turn>,
    /// Whose turn it is to list this directory: who comes meanwhile waits for that answer.
    pub listing_turn: Arc<Turn>,
    /// The version that this mount made last.
    pub sent: Option<Version>,
    /// Of the provider's content as it is known.
    pub lineage: Lineage,
    /// The version whose pages the kernel may hold.
    pub kernel_version: Option<Version>,
    /// What the kernel reads all of its open handles from, if it does so by itself.
    pub backing: Option<Arc<Backing>>,
    pub last_error: Option<Arc<str>>,
    /// How far what is kept here of names in this directory was looked through for those that are gone.
    pub sweep: Sweep,
    /// Attributes were set that the provider is to have, and its content needn't be sent.
    pub attributes_wait: bool,
    /// Why the provider refused what was changed here, as long as that is to be resolved.
    pub clash: Option<Error>,
    /// Whether a program opened it to read it.
    pub(super) was_read: bool,
    /// What a program was shown that may have been outdated then.
    pub(super) belief: Option<Belief>,
    /// The name that it gave up to somebody else's version, as long as the kernel may have it under that.
    pub(super) aside_from: Option<(Ino, Name)>,
    /// The same as `belief` of names in a directory that have no node now.
    pub(super) believed: HashMap<Name, Parked>,
    /// Names that are not in a directory by what the kernel was told.
    pub(super) missing: Option<ToldMissing>,
    /// Counts what this mount changed in a directory.
    pub changes: u64,
    /// The names with the count and what they stand for since, as long as an answer from before may come or be read.
    pub(super) changed: HashMap<Name, (u64, Option<(Ino, Entry)>)>,
    /// What earlier answers say is to be looked up anew: the directory was renamed, or too much changed to remember.
    pub(super) keys_since: u64,
    /// Questions about a directory that are not done with.
    pub(super) questions: u64,
    pub(super) children: BTreeMap<Name, Ino>,
    /// Further names of a `Presence::Local` node.
    pub(super) other_names: Vec<(Ino, Name)>,
    /// References: the kernel's, and those of operations at work.
    pub(super) references: u64,
    pub(super) opens: u64,
    /// How many of `opens` may write.
    pub(super) writers: u64,
}

impl Node {
    pub fn new(entry: Entry, presence: Presence, freshness: Freshness, learned: Instant) -> Self {
        Self {
            placement: Placement::Removed,
            entry,
            presence,
            freshness,
            learned,
            doubted: None,
            listing: None,
            misses: Misses::default(),
            content: None,
            local: None,
            subdirectories: None,
            turn: Arc::default(),
            listing_turn: Arc::default(),
            sent: None,
            lineage: Lineage::begin(),
            kernel_version: None,
            backing: None,
            last_error: None,
            sweep: Sweep::default(),
            attributes_wait: false,
            clash: None,
            was_read: false,
            belief: None,
            aside_from: None,
            believed: HashMap::new(),
            missing: None,
            changes: 0,
            changed: HashMap::new(),
            keys_since: 0,
            questions: 0,
            children: BTreeMap::new(),
            other_names: Vec::new(),
            references: 0,
            opens: 0,
            writers: 0,
        }
    }

    /// This is how it is now, by what this mount did.
    pub fn confirm(&mut self, entry: Entry) {
        let now = Instant::now();
        self.take_over(entry, now, now);
    }

    /// What the provider answered, unless something newer is known.
    pub fn update(&mut self, entry: &Entry, answer: Answer) {
        let counts = answer.told == Told::Now && self.learned <= answer.asked;
        if self.presence == Presence::AtProvider && self.entry.kind == entry.kind && counts {
            if self.entry.version != entry.version && self.sent.as_ref() != Some(&entry.version) {
                self.lineage = Lineage::begin();
                self.belief = self.belief.filter(|belief| !belief.may_be_ours(entry));
            }
            self.take_over(entry.clone(), answer.asked, answer.came);
            if !self.may_rely_on(answer) {
                self.freshness = Freshness::Expired;
            }
        }
    }

    /// Whether an answer is of after the last doubt.
    pub(super) fn may_rely_on(&self, answer: Answer) -> bool {
        self.doubted.is_none_or(|doubted| doubted <= answer.asked)
    }

    /// The provider has what was changed here, or an earlier state of it, as this entry: it is what that is a change of.
    pub fn confirm_content(&mut self, entry: Entry) {
        self.sent = Some(entry.version.clone());
        if let Some(content) = &mut self.content {
            if content.replaces.replace(entry.clone()).is_none() {
                // There was nothing under its name that somebody could have meant.
                self.belief = None;
            }
            self.lineage = content.lineage;
        }
        self.confirm(entry);
    }

    /// What is read and written now grew out of this.
    pub fn current_lineage(&self) -> Lineage {
        self.content.as_ref().map_or(self.lineage, |content| content.lineage)
    }

    /// As `confirm`, after this mount changed something else than the content: if that made another version, its bytes
    /// are those that it had before, of this lineage.
    pub fn confirm_same_content(&mut self, entry: Entry, lineage: Lineage) {
        if let Some(content) = &mut self.content {
            content.replaces = Some(entry.clone());
        }
        // Somebody may have found the new version before the answer came, and opened it.
        let found = std::mem::replace(&mut self.lineage, lineage);
        self.belief = self.belief.map(|belief| belief.renamed(found, lineage));
        if self.entry.version != entry.version {
            if self.kernel_version.as_ref() == Some(&self.entry.version) {
                self.kernel_version = Some(entry.version.clone());
            }
            self.sent = Some(entry.version.clone());
        }
        self.confirm(entry);
    }

    /// When that was changed which the provider lacks.
    pub(super) fn modified_here(&self) -> Option<SystemTime> {
        let content = self.content.as_ref().filter(|content| content.staged.is_dirty());
        content.map(|content| content.staged.modified())
    }

    /// What was here is the provider's version that this node has now, made of another. The times that were set on that, or
    /// else when its content was changed, are this version's; gives what is to be kept, if that is news.
    pub(super) fn times_follow(
        &mut self,
        made_of: &Version,
        changed_here: Option<SystemTime>,
    ) -> Option<LocalAttributes> {
        let version = self.entry.version.clone();
        let is_known = changed_here.is_some() || self.entry.is_directory();
        let local = self.local.as_mut()?;
        let had_times = local.times.is_some();
        let set = local.times.take().filter(|times| is_known || times.version == *made_of);
        local.times = match (set, changed_here) {
            (Some(times), _) => Some(LocalTimes { version, ..times }),
            (None, Some(modified)) => Some(LocalTimes::written(modified, version)),
            (None, None) => None,
        };
        if !had_times && local.times.is_none() {
            return None;
        }
        local.changed = local.changed.max(changed_here);
        Some(local.clone())
    }

    fn take_over(&mut self, mut entry: Entry, learned: Instant, checked: Instant) {
        let outdated = |content: &LocalContent| {
            // What is a change of nothing doesn't depend on what the provider has.
            let replaces = content.replaces.as_ref();
            replaces.is_some_and(|replaced| replaced.version != entry.version)
        };
        if !self.is_dirty() && self.content.as_ref().is_some_and(outdated) {
            // It holds nothing that the provider lacks, and the provider has something newer.
            self.content = None;
        }
        // They go with the version, as far as an answer that doesn't tell them can say.
        if entry.posix == ToldAttributes::Untold && self.entry.version == entry.version {
            entry.posix = self.entry.posix.clone();
        }
        // What was shown turns out to have been the latest.
        let lineage = self.lineage;
        self.belief = self.belief.filter(|belief| !belief.is_confirmed(lineage, learned));
        self.entry = entry;
        self.presence = Presence::AtProvider;
        self.freshness = Freshness::Checked(checked);
        self.learned = learned;
    }

    /// Whether somebody needs it for itself: the kernel, a handle, an operation, or what is to be sent.
    pub(super) fn is_in_use(&self) -> bool {
        self.references > 0
            || self.opens > 0
            || self.placement == Placement::Root
            || (self.placement != Placement::Removed && (self.is_dirty() || self.attributes_wait))
    }

    pub(super) fn is_needed(&self) -> bool {
        self.is_in_use() || !self.children.is_empty()
    }

    /// What a name in this directory stands for by what this mount did.
    pub(super) fn change(&mut self, name: &Name, child: Option<(Ino, Entry)>) {
        self.changes += 1;
        self.believed.remove(name);
        if self.questions > 0 || self.opens > 0 {
            self.changed.insert(name.clone(), (self.changes, child.clone()));
            if self.changed.len() > MOST_CHANGED {
                self.changed = HashMap::new();
                self.keys_since = self.changes;
            }
        }
        if let Some(listing) = self.listing.as_mut().map(Arc::make_mut) {
            match child {
                Some(child) => drop(listing.children.insert(name.clone(), child)),
                None => drop(listing.children.remove(name)),
            }
            // It has what this mount did.
            listing.answer.changes = self.changes;
        }
    }

    /// What this mount did since this directory was listed may be missing from the answer, and is added; gives whether all
    /// of it is known.
    pub(super) fn add_changes(&self, listing: &mut Listing) -> bool {
        let listed_at = listing.answer.changes;
        for (name, (count, since)) in &self.changed {
            if *count > listed_at {
                match since {
                    Some(child) => drop(listing.children.insert(name.clone(), child.clone())),
                    None => drop(listing.children.remove(name)),
                }
            }
        }
        let is_whole = listed_at >= self.keys_since;
        if is_whole {
            listing.answer.changes = self.changes;
        }
        is_whole
    }

    /// What this mount did in this directory since an answer was asked for; `None` when that isn't known name by name.
    pub(super) fn changed_since(&self, answer: Answer) -> Option<HashSet<Name>> {
        let since = self.changed.iter().filter(|(_, (count, _))| *count > answer.changes);
        (self.keys_since <= answer.changes).then(|| since.map(|(name, _)| name.clone()).collect())
    }

    /// An answer about a child in the light of what this mount did since it asked; `None` when it took the name away.
    pub(super) fn corrected(&self, entry: Entry, answer: Answer) -> Option<Entry> {
        match self.changed.get(&entry.name) {
            Some((count, since)) if *count > answer.changes => since.as_ref().map(|(_, entry)| entry.clone()),
            _ => Some(entry),
        }
    }

    /// Nobody waits for or reads an answer from before any more.
    pub(super) fn forget_changes(&mut self) {
        if self.questions == 0 && self.opens == 0 {
            self.changed = HashMap::new();
        }
    }

    /// Whether it stays in the tree though the provider answered that it isn't there.
    pub(super) fn outlives(&self, answer: Answer) -> bool {
        self.is_known_better(answer) || self.turn.is_taken()
    }

    /// Whether what is known here counts, and not such an answer.
    pub(super) fn is_known_better(&self, answer: Answer) -> bool {
        let is_newer = self.learned > answer.asked || !self.may_rely_on(answer);
        self.is_ours() || self.writers > 0 || is_newer
    }

    /// To be asked for again before it is relied on.
    pub fn expire(&mut self) {
        if let Some(listing) = &mut self.listing {
            Arc::make_mut(listing).expire();
        }
        if matches!(self.freshness, Freshness::Checked(_) | Freshness::Remembered) {
            self.freshness = Freshness::Expired;
        }
        self.doubt_missing();
        self.doubted = Some(Instant::now());
    }

    /// One handle more.
    pub(super) fn opened(&mut self, writes: bool) {
        self.opens += 1;
        self.writers += u64::from(writes);
    }

    /// Whether attributes are to be sent by themselves.
    pub(super) fn has_attributes_to_send(&self) -> bool {
        self.attributes_wait && !self.is_removed() && !self.is_dirty()
    }

    /// Whether the provider lacks something of its content.
    pub fn is_dirty(&self) -> bool {
        self.content.as_ref().is_some_and(|content| content.staged.is_dirty())
    }

    pub fn is_removed(&self) -> bool {
        self.placement == Placement::Removed
    }

    /// Whether what is known here counts, whatever the provider says.
    pub fn is_ours(&self) -> bool {
        self.presence != Presence::AtProvider || self.is_dirty()
    }
}
