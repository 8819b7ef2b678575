//! The file system: inodes, directories, handles, and every operation as an async method with plain arguments.
//!
//! It decides what is allowed (rights, read-only), what is fresh, and what is sent when. It knows no kernel interface:
//! numbers and replies are its own types, which `fuse` translates.

mod ahead;
mod attributes;
mod backing;
mod beliefs;
mod conflicts;
mod course;
mod directory;
mod exchange;
mod extras;
mod files;
mod handle;
mod idle;
mod inode;
mod kept;
mod left_over;
mod listing;
mod local;
mod lookup;
mod maintenance;
mod missing;
mod moving;
mod namespace;
mod nodes;
mod outgoing;
mod partial;
mod reference;
mod resume;
mod sending;
mod sequence;
mod shared;
mod table;
mod turn;
mod watch;
mod xattr;

pub use attributes::{AttributeChange, Attributes, Caller, Child, Found, Owners};
pub use backing::HandleReads;
pub use directory::DirEntry;
pub use files::{Access, Opened};
pub use handle::HandleId;
pub use inode::Ino;
pub use kept::Viewer;
pub use maintenance::{PendingFile, Problem, Statistics};
pub use missing::Looked;
pub use namespace::RenameMode;
pub use outgoing::CloseMeans;
pub use partial::Allocation;
pub use reference::Reference;
pub use resume::Resumed;
pub use xattr::SetMode;

pub use crate::outbox::{Length, Seek};

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::fetch::Fetcher;
use crate::model::{Action, Entry, Error, ErrorKind, Result, Rights, Usage};
use crate::outbox::{Journal, Queue, Spool};
use crate::provider::Provider;
use crate::state::StateDb;
use ahead::Walks;
use handle::Handles;
use inode::{Freshness, Node, Placement, Presence};
use kept::Kept;
use left_over::LeftOver;
use maintenance::UsageCache;
use moving::Moving;
use reference::Question;
use table::Table;
use turn::Turn;

/// How long a provider that gave no answer is not asked again about what is known: a file manager that looks at a
/// hundred files waits for one deadline, not for a hundred.
const AWAY: Duration = Duration::from_secs(5);

/// How a mount behaves, whatever its provider.
#[derive(Clone, Debug)]
pub struct FsSettings {
    pub read_only: bool,
    /// The owner that `stat` shows of what nobody gave another one.
    pub uid: u32,
    pub gid: u32,
    /// Takes bits from the copies of the owner's rights.
    pub umask: u32,
    /// How long attributes and listings count without asking.
    pub attr_ttl: Duration,
    pub close: CloseMeans,
    /// The remote as it is typed, for people who look into the journal.
    pub remote: String,
}

/// What the kernel should forget because it changed behind its back. `fuse` implements it.
pub trait KernelCaches: Send + Sync + 'static {
    fn forget_attributes(&self, ino: Ino);
    /// What a name stands for.
    fn forget_name(&self, parent: Ino, name: &OsStr);
    /// Attributes and pages.
    fn forget_content(&self, ino: Ino);
}

/// A mounted provider.
pub struct FileSystem {
    provider: Arc<dyn Provider>,
    fetcher: Arc<Fetcher>,
    spool: Arc<Spool>,
    journal: Journal,
    queue: Arc<Queue>,
    state: Arc<StateDb>,
    settings: FsSettings,
    owners: Owners,
    table: Arc<Table>,
    handles: Handles,
    /// Held from the look at a file to the handing in of what the journal is to say of it: no older state is written
    /// after a newer one. Never across an await; the table's lock is taken under it.
    journaling: Mutex<()>,
    /// Held from the look at what is kept of a node until its change is kept: an upload that ends notes times while
    /// somebody sets a mode.
    keeping: Mutex<()>,
    /// Held while a directory gets another name at the provider.
    renaming: tokio::sync::RwLock<()>,
    /// Which directory that is, for those who have something to do below it.
    moving: Moving,
    /// Held while a path and what is kept under it change together, and by who looks at both. `keeping` comes before it.
    paths: RwLock<()>,
    /// Whose turn it is to find out the rights anew.
    refreshing: Turn,
    usage: Arc<Mutex<UsageCache>>,
    problems: Mutex<VecDeque<Problem>>,
    kernel: OnceLock<Arc<dyn KernelCaches>>,
    /// Whether the kernel reads files by itself.
    kernel_reads: AtomicBool,
    /// When the provider last gave no answer to a question about something known.
    away_since: Mutex<Option<Instant>>,
    walks: Walks,
    kept: Option<Kept>,
    left_over: LeftOver,
}

impl FileSystem {
    /// `root` is what `Provider::probe` gave.
    pub fn new(
        provider: Arc<dyn Provider>,
        fetcher: Arc<Fetcher>,
        spool: Spool,
        state: Arc<StateDb>,
        root: Entry,
        settings: FsSettings,
    ) -> Self {
        let spool = Arc::new(spool);
        let walks = Walks::new(provider.capabilities().lists_ahead);
        Self {
            provider,
            fetcher,
            journal: Journal::new(Arc::clone(&state), Arc::clone(&spool)),
            spool,
            queue: Arc::default(),
            state,
            settings,
            owners: Owners::Mounter,
            table: Arc::new(Table::new(root)),
            handles: Handles::default(),
            journaling: Mutex::default(),
            keeping: Mutex::default(),
            renaming: tokio::sync::RwLock::default(),
            moving: Moving::default(),
            paths: RwLock::default(),
            refreshing: Turn::default(),
            usage: Arc::default(),
            problems: Mutex::default(),
            kernel: OnceLock::new(),
            kernel_reads: AtomicBool::new(false),
            away_since: Mutex::default(),
            walks,
            kept: None,
            left_over: LeftOver::default(),
        }
    }

    pub fn with_owners(self, owners: Owners) -> Self {
        Self { owners, ..self }
    }

    /// Tells whom to notify of changes; only the first call counts.
    pub fn connect_kernel(&self, kernel: Arc<dyn KernelCaches>) {
        if self.kernel.set(Arc::clone(&kernel)).is_ok() {
            self.tell_of_names(kernel);
        }
    }

    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.provider
    }

    pub fn settings(&self) -> &FsSettings {
        &self.settings
    }

    /// What tells this mount's rows in the state database from others'.
    fn namespace(&self) -> String {
        let root = self.table.with(Ino::ROOT, |root| root.entry.key.to_string());
        // The root is always there.
        format!("{}#{}", self.provider.identity(), root.unwrap_or_default())
    }

    /// What the credential may do with the mounted directory, as last probed.
    pub fn root_rights(&self) -> Rights {
        self.table
            .with(Ino::ROOT, |root| self.rights(&root.entry))
            .unwrap_or(Rights::NONE)
    }

    /// The grants as far as this mount lets them through.
    fn rights(&self, entry: &Entry) -> Rights {
        if self.settings.read_only {
            entry.rights.and(Rights::READ)
        } else {
            entry.rights
        }
    }

    fn require(&self, entry: &Entry, action: Action) -> Result<()> {
        if action != Action::Read && self.settings.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the mount is read-only"));
        }
        if entry.rights.allows(action) {
            return Ok(());
        }
        let what = match action {
            Action::Read => "read",
            Action::Write => "write to",
            Action::Delete => "delete",
        };
        Err(Error::denied(format!("the credential may not {what} {}", entry.name)))
    }

    /// The entry with a key that holds; its attributes may be older than the TTL.
    async fn entry(&self, ino: Ino) -> Result<Entry> {
        let (freshness, presence, placement, entry, ours) = self.table.with(ino, |node| {
            (
                node.freshness,
                node.presence,
                node.placement.clone(),
                node.entry.clone(),
                node.is_ours(),
            )
        })?;
        let Placement::Child { parent, name } = placement else {
            return Ok(entry);
        };
        if freshness != Freshness::KeyLost || presence == Presence::Local {
            return Ok(entry);
        }
        let parent_entry = Box::pin(self.entry(parent)).await?;
        let question = self.table.question(parent)?;
        match self.provider.lookup(&parent_entry.key, &name).await {
            Ok(found) => {
                self.table.with(ino, |node| {
                    if let Some(replaced) = node.content.as_mut().and_then(|content| content.replaces.as_mut()) {
                        replaced.key = found.key.clone();
                        replaced.name = found.name.clone();
                    }
                    node.update(&found, question.answered());
                })?;
                Ok(found)
            }
            Err(error) if self.was_moved(parent, &parent_entry.key, &error).await => Box::pin(self.entry(ino)).await,
            Err(error) if error.kind() == ErrorKind::NotFound && ours => Ok(entry),
            Err(error) => Err(self.lost(ino, error, &question)),
        }
    }

    /// The entry, asked for again when the TTL has passed.
    async fn fresh_entry(&self, ino: Ino) -> Result<Entry> {
        self.entry(ino).await?;
        // At once: what was just sent has another key than it had before.
        let (entry, fresh, removed, freshness) = self.table.with(ino, |node| {
            let fresh = node.is_ours() || node.freshness.is_within(self.settings.attr_ttl);
            (node.entry.clone(), fresh, node.is_removed(), node.freshness)
        })?;
        if fresh || removed || self.provider_is_away() {
            return Ok(entry);
        }
        if freshness == Freshness::Remembered
            && let Some(entry) = self.settled(ino, &entry).await?
        {
            return Ok(entry);
        }
        if let Some((parent, _)) = self.place(ino)? {
            if self.list_if_read_through(parent).await {
                let ttl = self.settings.attr_ttl;
                let listed = |node: &mut Node| node.freshness.is_within(ttl).then(|| node.entry.clone());
                if let Some(entry) = self.table.with(ino, listed)? {
                    return Ok(entry);
                }
            }
            // Who did not answer that is not asked again: one deadline is for all questions of a call.
            if self.provider_is_away() {
                return Ok(entry);
            }
        }
        let question = self.table.question(ino)?;
        let asked = match self.provider.stat(&entry).await {
            // Where a replaced file gets another key, its name tells more than its key.
            Err(error) if error.kind() == ErrorKind::NotFound => self.find_again(ino, error).await,
            answer => answer,
        };
        match asked {
            Ok(current) if current.kind == entry.kind => {
                self.provider_answered();
                self.table.with(ino, |node| {
                    node.update(&current, question.answered());
                    node.entry.clone()
                })
            }
            Ok(_) => {
                self.table.gone(ino, question.answered());
                Err(Error::new(ErrorKind::Changed, format!("{} was replaced", entry.name)))
            }
            // What is known is better than nothing; only what isn't known fails.
            Err(error) if self.means_away(&error) => Ok(entry),
            Err(error) if self.was_moved(ino, &entry.key, &error).await => Box::pin(self.fresh_entry(ino)).await,
            Err(error) => Err(self.lost(ino, error, &question)),
        }
    }

    async fn find_again(&self, ino: Ino, error: Error) -> Result<Entry> {
        let Some((parent, name)) = self.place(ino)? else {
            return Err(error);
        };
        let parent = self.entry(parent).await?;
        self.provider.lookup(&parent.key, &name).await
    }

    /// Whether an error says nothing of the object, only that nobody answers us now; that is remembered for a while.
    fn means_away(&self, error: &Error) -> bool {
        let away = is_no_answer(error);
        if away {
            self.no_answer();
        }
        away
    }

    /// Tells that a question was given up: the provider is away.
    pub fn no_answer(&self) {
        *self.away_since.lock() = Some(Instant::now());
    }

    /// Whether the provider did not answer a moment ago: what is known is then shown without asking again.
    fn provider_is_away(&self) -> bool {
        self.away_since.lock().is_some_and(|since| since.elapsed() < AWAY)
    }

    fn provider_answered(&self) {
        *self.away_since.lock() = None;
    }

    /// Takes a node that the provider no longer has out of the tree.
    fn lost(&self, ino: Ino, error: Error, question: &Question) -> Error {
        if error.kind() == ErrorKind::NotFound {
            self.table.gone(ino, question.answered());
        }
        error
    }

    /// After a change that failed, perhaps in the middle: what is known of these may be wrong.
    fn doubt(&self, nodes: &[Ino]) {
        for ino in nodes {
            let _ = self.table.with(*ino, Node::expire);
        }
    }

    /// How many files and directories are known: with the root, those that the kernel, a handle or an upload needs.
    pub fn known(&self) -> usize {
        self.table.len()
    }

    /// How long the kernel may rely on a node.
    fn ttl(&self, ino: Ino) -> Duration {
        let ttl = self.settings.attr_ttl;
        let remaining = self.table.with(ino, |node| match node.freshness {
            _ if node.is_ours() => ttl,
            Freshness::Checked(at) => ttl.saturating_sub(Instant::now().duration_since(at)),
            // The kernel is told when it turns out to be another one.
            Freshness::Remembered if node.entry.is_directory() => ttl,
            Freshness::Remembered | Freshness::Expired | Freshness::KeyLost => Duration::ZERO,
        });
        remaining.unwrap_or_default()
    }

    async fn provider_usage(provider: Arc<dyn Provider>) -> Option<Usage> {
        provider.usage().await.ok()
    }
}

/// Whether an error says nothing of what was asked about, only that nobody answers us now.
fn is_no_answer(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NeedsLogin | ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::RateLimited { .. }
    )
}
