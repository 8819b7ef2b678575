//! What the daemon asks of a mount beside the kernel: refresh, pending files, errors in words, `df`.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::inode::{LocalContent, Sweep};
use super::listing::Listing;
use super::{FileSystem, Ino, KernelCaches};
use crate::cache::ContentId;
use crate::model::{Entry, Error, ErrorKind, Kind, Name, Result, Usage};
use crate::outbox::save_copy;

/// How many errors `status` remembers.
const PROBLEMS: usize = 20;
/// How long a refresh waits for the kernel to forget, which may itself wait for an answer of this mount.
const KERNEL: Duration = Duration::from_secs(5);
/// How often `df` has the provider asked behind its back.
const USAGE_AGE: Duration = Duration::from_secs(60);
/// What the provider said of its room is asked for again before somebody is refused by it, once it is so old.
const ROOM_AGE: Duration = Duration::from_secs(5);
/// So many bytes are staged or sent before the provider is asked for its room unless somebody else wants to know it: 16 MiB.
const WORTH_ASKING: u64 = 16 << 20;
/// What `df` shows as size when the provider tells no limit: 1 PiB, as other cloud file systems do.
const UNLIMITED: u64 = 1 << 50;
/// `df` counts in these, in bytes.
const BLOCK: u32 = 4096;

/// How many rows of the state database are looked at when a directory is listed.
const ROWS_AT_ONCE: usize = 1000;
/// What something was done with so lately is kept though nobody seems to have it: another mount may be about to send it.
const LATELY: Duration = Duration::from_secs(3600);

/// A file that the provider doesn't have as it is here.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct PendingFile {
    pub path: String,
    pub bytes: u64,
    pub error: Option<String>,
}

/// Something that went wrong, in words.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    pub at: SystemTime,
    pub path: String,
    pub message: String,
}

/// The figures of `df`, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    pub blocks: u64,
    pub free: u64,
    /// In bytes.
    pub max_name: u32,
    /// In bytes.
    pub block_size: u32,
}

#[derive(Default)]
pub struct UsageCache {
    usage: Option<Usage>,
    asked: Option<Instant>,
    /// How many bytes more the provider has by what this mount has stored.
    stored: i64,
    /// The same when the provider was asked for what it told.
    stored_when_asked: i64,
}

impl UsageCache {
    /// The provider told what it had when so much was stored.
    fn told(&mut self, usage: Usage, stored: i64) {
        self.usage = Some(usage);
        self.stored_when_asked = stored;
    }

    /// Notes that the provider is being asked, and gives what `told` needs.
    fn ask(&mut self) -> i64 {
        self.asked = Some(Instant::now());
        self.stored
    }

    fn stored_since(&self) -> i64 {
        self.stored - self.stored_when_asked
    }

    fn is_older_than(&self, age: Duration) -> bool {
        self.asked.is_none_or(|asked| asked.elapsed() >= age)
    }
}

impl FileSystem {
    /// Finds out the rights anew and forgets what is known of names, attributes and listings.
    ///
    /// # Errors
    /// As `Provider::probe`.
    pub async fn refresh(&self) -> Result<Entry> {
        // What was asked for earlier must not be taken over later.
        let _turn = self.refreshing.take().await;
        let root = self.provider.probe().await?;
        self.provider_answered();
        self.forget_all_kept();
        let (known, free) = self.table.expire_all();
        self.retry_pending();
        self.table.with(Ino::ROOT, |node| {
            if node.entry.key != root.key {
                // What was set on the directory is kept by its key.
                node.local = None;
            }
            node.confirm(root.clone());
        })?;
        // Those of the rights of now, too.
        self.forget_all_kept();
        // A directory's name stays: somebody may work in it.
        let file = |ino: &Ino| {
            self.table
                .with(*ino, |node| node.entry.kind == Kind::File)
                .unwrap_or(false)
        };
        let files = known.iter().filter(|ino| file(ino));
        let names = files.filter_map(|ino| self.place(*ino).ok().flatten());
        let names: Vec<_> = names.chain(free).collect();
        let told = self.tell_kernel(move |kernel| {
            known.into_iter().for_each(|ino| kernel.forget_attributes(ino));
            names
                .iter()
                .for_each(|(parent, name)| kernel.forget_name(*parent, name.as_str().as_ref()));
        });
        if let Some(told) = told {
            // Whoever was told that it is done sees it. A kernel that is busy does it later.
            let _ = tokio::time::timeout(KERNEL, told).await;
        }
        Ok(root)
    }

    /// Forgets what is kept here of names that a directory doesn't have any more. Once for each directory in a mount, and
    /// a bounded number of rows at each of its listings.
    pub(super) fn forget_orphans(&self, directory: Ino, listing: &Listing) {
        if let Err(error) = self.sweep(directory, listing) {
            warn!(ino = directory.0, %error, "what is kept of files that are gone stays");
        }
    }

    fn sweep(&self, directory: Ino, listing: &Listing) -> Result<()> {
        let from = match self.table.with(directory, |node| node.sweep.clone())? {
            Sweep::Done => return Ok(()),
            Sweep::ToBegin => None,
            Sweep::At(path) => Some(path),
        };
        let (Some(path), namespace) = (self.table.path(directory), self.namespace()) else {
            return Ok(());
        };
        let before = SystemTime::now().checked_sub(LATELY).unwrap_or(SystemTime::UNIX_EPOCH);
        let kept = self
            .state
            .kept_names(&namespace, &path, before, from.as_deref(), ROWS_AT_ONCE)?;
        for text in kept.names {
            // What is no name cannot be anybody's.
            let Ok(name) = Name::new(text.as_str()) else { continue };
            // While it is locked nobody notes anything of a file that was just made.
            let _one = self.keeping.lock();
            if listing.children.contains_key(&name) || self.table.child(directory, &name).is_some() {
                continue;
            }
            if let Some(path) = self
                .path_below(directory, &name)
                .filter(|path| !self.left_over.has(path))
            {
                debug!(path, "what is kept of it is forgotten: it is gone");
                self.state.forget_gone(&namespace, &path)?;
            }
        }
        let sweep = kept.next.map_or(Sweep::Done, Sweep::At);
        self.table.with(directory, |node| node.sweep = sweep)
    }

    /// Files whose content is not at the provider.
    pub fn pending(&self) -> Vec<PendingFile> {
        let describe = |ino: Ino| {
            let path = self.table.path(ino)?;
            let (bytes, error) = self
                .table
                .with(ino, |node| {
                    (
                        node.content.as_ref().map_or(0, |c| c.staged.len()),
                        node.last_error.clone(),
                    )
                })
                .ok()?;
            Some(PendingFile {
                path,
                bytes,
                error: error.map(|error| error.to_string()),
            })
        };
        let changed = self.table.dirty().into_iter().filter_map(describe);
        changed.chain(self.left_over.pending()).collect()
    }

    /// Content that somebody has open or is reading: emptying a cache must leave it.
    pub fn content_in_use(&self) -> HashSet<ContentId> {
        self.fetcher.in_use()
    }

    /// Tries once to send everything that is pending; several at once where the queue runs.
    ///
    /// # Errors
    /// The first failure; the rest was tried all the same.
    pub async fn drain(&self) -> Result<()> {
        self.retry_pending();
        let mut outcome = self.take_over_again().await;
        for ino in self.table.dirty() {
            if !self.is_wanted(ino) {
                continue;
            }
            if let Err(error) = self.deliver(ino).await {
                self.note(ino, &error);
                outcome = outcome.and(Err(error));
            }
            self.table.settle(ino);
        }
        for ino in self.table.with_waiting_attributes() {
            // What is refused stays here and is none that waits.
            if let Err(error) = self.send_attributes(ino).await
                && self.attributes_wait(ino)
            {
                outcome = outcome.and(Err(error));
            }
            self.table.settle(ino);
        }
        outcome
    }

    /// Copies what could not be sent into a folder, below the paths it had; gives the copies. What is a part of a file
    /// stays where it is staged.
    ///
    /// # Errors
    /// The local disk's.
    pub fn export_unsent(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut copies = Vec::new();
        let mut outcome = Ok(());
        for ino in self.table.dirty() {
            let Some(path) = self.table.path(ino) else { continue };
            let Some(content) = self.table.with(ino, |node| node.content.clone())? else {
                continue;
            };
            if !content.staged.is_whole() {
                content.staged.backing().keep();
                let place = content.staged.backing().path().display();
                let message = format!("{path} is a change of a file whose rest is not here; it stays in {place}");
                outcome = outcome.and(Err(Error::new(ErrorKind::Busy, message)));
                continue;
            }
            copies.push(save_copy(
                &content.staged.file(),
                content.staged.len(),
                &folder.join(&path),
            )?);
        }
        outcome.map(|()| copies)
    }

    /// The latest errors, oldest first.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.lock().iter().cloned().collect()
    }

    /// Remembers why an operation on a node failed, unless failing is its ordinary answer.
    pub fn note(&self, ino: Ino, error: &Error) {
        let ordinary = matches!(
            error.kind(),
            ErrorKind::NotFound
                | ErrorKind::AlreadyExists
                | ErrorKind::NotEmpty
                | ErrorKind::NotPermitted
                | ErrorKind::NotADirectory
                | ErrorKind::IsADirectory
                | ErrorKind::NoAttribute
                | ErrorKind::AttributeBufferTooSmall
                | ErrorKind::CrossDevice
        );
        if ordinary {
            return;
        }
        let _ = self
            .table
            .with(ino, |node| node.last_error = Some(error.message().into()));
        if error.kind() == ErrorKind::Denied {
            self.distrust_rights(ino);
        }
        let path = self.table.path(ino).unwrap_or_default();
        let mut problems = self.problems.lock();
        if problems.len() == PROBLEMS {
            problems.pop_front();
        }
        problems.push_back(Problem {
            at: SystemTime::now(),
            path,
            message: error.message().to_owned(),
        });
    }

    /// The provider may have refused what the mode bits promised: they are to be asked for again.
    fn distrust_rights(&self, ino: Ino) {
        let parent = self.place(ino).ok().flatten().map(|(parent, _)| parent);
        for ino in std::iter::once(ino).chain(parent) {
            self.doubt(&[ino]);
        }
        self.tell_kernel(move |kernel| {
            std::iter::once(ino)
                .chain(parent)
                .for_each(|ino| kernel.forget_attributes(ino));
        });
    }

    /// What these names stand for isn't known any more. To be called when no operation on their directories is being
    /// answered by the caller.
    pub fn forget_names(&self, names: Vec<(Ino, OsString)>) {
        self.tell_kernel(move |kernel| {
            names
                .iter()
                .for_each(|(parent, name)| kernel.forget_name(*parent, name))
        });
    }

    pub(super) fn forget_pages(&self, ino: Ino) {
        self.tell_kernel(move |kernel| kernel.forget_content(ino));
    }

    /// The kernel may have to wait for requests of ours before it can forget.
    pub(super) fn tell_kernel(&self, what: impl FnOnce(&dyn KernelCaches) + Send + 'static) -> Option<JoinHandle<()>> {
        let kernel = self.kernel.get().cloned()?;
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        Some(runtime.spawn_blocking(move || what(&*kernel)))
    }

    /// Refuses what cannot fit at the provider beside what is staged and what was sent since the provider told its room:
    /// better `write` says so than `pending`.
    ///
    /// # Errors
    /// `Quota`.
    pub(super) async fn require_room(&self, ino: Ino, len: u64) -> Result<()> {
        let stored = u64::try_from(self.usage.lock().stored_since()).unwrap_or_default();
        if self.spool.used().saturating_add(stored) >= WORTH_ASKING {
            self.ask_for_usage();
        }
        if self.has_room(ino, len)? {
            return Ok(());
        }
        if self.usage.lock().is_older_than(ROOM_AGE) {
            // Somebody may have made room.
            let stored = self.usage.lock().ask();
            match self.provider.usage().await {
                Ok(usage) => self.usage.lock().told(usage, stored),
                Err(_) => return Ok(()),
            }
            if self.has_room(ino, len)? {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::Quota,
            "the provider has no room for so much; remove something there",
        ))
    }

    fn has_room(&self, ino: Ino, len: u64) -> Result<bool> {
        let free = {
            let cache = self.usage.lock();
            let Some(Usage {
                used,
                total: Some(total),
            }) = cache.usage
            else {
                return Ok(true);
            };
            total.saturating_sub(used.saturating_add_signed(cache.stored_since()))
        };
        // As if nothing of what is staged replaced anything.
        if self.spool.used().saturating_add(len) <= free {
            return Ok(true);
        }
        let content = self.table.with(ino, |node| node.content.clone())?;
        if content.as_ref().is_some_and(|content| len <= content.staged.len()) {
            return Ok(true);
        }
        // What the provider will have more, in bytes.
        let grows = |len: u64, content: &LocalContent| i128::from(len) - i128::from(content.replaced_bytes());
        let this = content.map_or(i128::from(len), |content| grows(len, &content));
        let others = self.table.dirty().into_iter().filter(|other| *other != ino);
        let others = others.map(|other| {
            let content = self.table.with(other, |node| node.content.clone()).ok().flatten();
            content.map_or(0, |content| grows(content.staged.len(), &content))
        });
        Ok(this + others.sum::<i128>() <= i128::from(free))
    }

    /// This mount has stored so many bytes more, or fewer.
    pub(super) fn provider_grew(&self, bytes: i64) {
        self.usage.lock().stored += bytes;
    }

    /// Has the provider asked how full it is, behind the caller's back, if that was not done lately.
    fn ask_for_usage(&self) {
        let stored = {
            let mut cache = self.usage.lock();
            if !cache.is_older_than(USAGE_AGE) {
                return;
            }
            cache.ask()
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (provider, cache) = (Arc::clone(&self.provider), Arc::clone(&self.usage));
            runtime.spawn(async move {
                if let Some(usage) = Self::provider_usage(provider).await {
                    cache.lock().told(usage, stored);
                }
            });
        }
    }

    /// What `df` shows, from memory; the provider is asked behind its back now and then.
    pub fn statistics(&self) -> Statistics {
        let usage = self.usage.lock().usage;
        self.ask_for_usage();
        let used = usage.map_or(0, |usage| usage.used);
        let total = usage.and_then(|usage| usage.total).unwrap_or(UNLIMITED).max(used);
        let max_name = self.provider.capabilities().max_name_chars.unwrap_or(255).min(255) as u32;
        let blocks = |bytes: u64| bytes.div_ceil(u64::from(BLOCK));
        Statistics {
            blocks: blocks(total),
            free: blocks(total) - blocks(used),
            max_name,
            block_size: BLOCK,
        }
    }
}
