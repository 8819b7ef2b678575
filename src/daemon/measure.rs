//! How fast a remote is over this machine's link, for `bench`: through the same downloads as a mount, without one.
//!
//! It decides what is measured and for how long; `cli` shows it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::memory::{Keeping, MemoryBudget};
use super::stack::{LARGEST_WHOLE, Reach, Remote};
use super::{Stage, StartError};
use crate::auth::GivenSecrets;
use crate::cache::MemoryCache;
use crate::config::{ResolvedRemote, WithoutLogin};
use crate::fetch::{FetchSettings, Fetcher};
use crate::model::{Action, Bandwidth, Entry, Error, ErrorKind, Name, ObjectKey, Result};
use crate::net::TransportSettings;
use crate::paths::{Paths, private_directory};
use crate::provider::{Content, Provider, Reads, Target};
use crate::state::StateDb;

/// How long a request may go without progress: a person waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long removing what was written may take, beyond the time for measuring.
const CLEANING: Duration = Duration::from_secs(30);
/// What programs read at a time, and what a random read asks for; in bytes.
const PIECE: usize = 128 << 10;
const PAGE: usize = 4 << 10;
/// A file of fewer bytes says nothing about random reads.
const LEAST_FOR_RANDOM: u64 = 1 << 20;
/// Random reads of one task.
const RANDOM_READS: u64 = 100;
/// A small file has at most so many bytes.
const SMALL: u64 = 64 << 10;
/// How many directories are looked through for a file, and how many small ones are read.
const MOST_DIRECTORIES: usize = 100;
const MOST_SMALL: usize = 200;
/// What is written, in bytes: large files one after the other, then small ones.
const LARGE_WRITE: usize = 4 << 20;
const MOST_LARGE_WRITES: u64 = 8;
const MOST_SMALL_WRITES: u64 = 100;
/// The beginning of the name of the directory that is written into; with what follows as short as every provider takes.
pub const BENCH_FOLDER: &str = "keymount-bench-";

/// Whether something may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    None,
    /// In a directory of its own, which is removed afterwards.
    Cleaned,
}

#[derive(Clone, Debug)]
pub struct MeasureSettings {
    /// The file that is read, from the remote's directory; the largest that is found if not given.
    pub file: Option<String>,
    /// All measurements together take no longer; only what was written is removed even if that takes longer.
    pub time: Duration,
    pub writes: Writes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One small request after the other.
    Request,
    Sequential,
    RandomOne,
    RandomSixteen,
    SmallFiles,
    LargeWrites,
    SmallWrites,
}

impl Work {
    const ALL: [Self; 7] = [
        Self::Request,
        Self::Sequential,
        Self::RandomOne,
        Self::RandomSixteen,
        Self::SmallFiles,
        Self::LargeWrites,
        Self::SmallWrites,
    ];

    /// Its part of the time that is left, against those that follow.
    fn weight(self) -> u32 {
        match self {
            Self::Sequential => 4,
            Self::RandomOne | Self::LargeWrites => 2,
            Self::Request | Self::RandomSixteen | Self::SmallFiles | Self::SmallWrites => 1,
        }
    }

    fn is_write(self) -> bool {
        matches!(self, Self::LargeWrites | Self::SmallWrites)
    }
}

/// What was done in which time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    pub operations: u64,
    pub bytes: u64,
    pub elapsed: Duration,
    /// Half of the operations took no longer, and 99 of 100.
    pub median: Duration,
    pub slowest: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Done(Figures),
    /// Why it wasn't measured, as a part of a sentence.
    Skipped(String),
}

#[derive(Clone, Debug)]
pub struct Measured {
    /// The file that was read, from the remote's directory, and its bytes.
    pub file: Option<(String, u64)>,
    pub works: Vec<(Work, Outcome)>,
    /// What could not be removed again, and why.
    pub left_behind: Option<(String, Error)>,
}

/// Measures; `begins` is told what comes next. When `cancelled`, what was written is removed and the rest left out.
///
/// # Errors
/// With the step that failed, as a mount would; `NotFound` for a file that isn't there.
pub async fn measure(
    remote: &ResolvedRemote,
    paths: &Paths,
    given: &GivenSecrets,
    settings: &MeasureSettings,
    cancelled: &CancellationToken,
    begins: impl Fn(Work),
) -> Result<Measured, StartError> {
    let state = || {
        private_directory(paths.state())?;
        Ok(Arc::new(StateDb::open(&paths.state_database())?))
    };
    let reach = Reach {
        patience: TransportSettings::within(PATIENCE),
        bandwidth: Bandwidth::default(),
    };
    let opened = Remote::open(remote, paths, reach, WithoutLogin::Fail, given, Duration::ZERO, state).await?;
    let bench = Bench {
        provider: Arc::clone(&opened.provider),
        paths,
        budget: MemoryBudget::here(Keeping::InMemory),
        settings,
        cancelled,
        end: Instant::now() + settings.time,
    };
    let measured = bench.run(begins).await;
    opened.authenticator.close().await;
    if let Some(shared) = &opened.shared {
        shared.close().await;
    }
    measured
}

struct Bench<'a> {
    provider: Arc<dyn Provider>,
    paths: &'a Paths,
    budget: MemoryBudget,
    settings: &'a MeasureSettings,
    cancelled: &'a CancellationToken,
    end: Instant,
}

/// What there is to read.
#[derive(Default)]
struct Found {
    file: Option<(String, Entry)>,
    small: Vec<Entry>,
}

impl Bench<'_> {
    async fn run(&self, begins: impl Fn(Work)) -> Result<Measured, StartError> {
        let root = self.provider.probe().await.map_err(Stage::Probe.failed())?;
        let found = self.find(&root).await.map_err(Stage::Probe.failed())?;
        private_directory(&self.paths.staging()).map_err(Stage::Local.failed())?;
        let mut folder = None;
        let mut works = Vec::new();
        for work in Work::ALL {
            if work.is_write() && self.settings.writes == Writes::None || self.cancelled.is_cancelled() {
                continue;
            }
            begins(work);
            let outcome = match self.one(work, &root, &found, &mut folder).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Skipped(error.message().to_owned()),
            };
            works.push((work, outcome));
        }
        let left_behind = match folder {
            Some(folder) => self
                .remove(&folder)
                .await
                .err()
                .map(|error| (folder.name.to_string(), error)),
            None => None,
        };
        Ok(Measured {
            file: found.file.map(|(path, entry)| (path, entry.size)),
            works,
            left_behind,
        })
    }

    async fn one(&self, work: Work, root: &Entry, found: &Found, folder: &mut Option<Entry>) -> Result<Outcome> {
        let until = self.until(work);
        let skipped = |why: &str| Ok(Outcome::Skipped(why.to_owned()));
        let reads = self.provider.capabilities().reads;
        match (work, &found.file) {
            (Work::Request, _) => {
                let ask = |_| self.provider.stat(root).map(|answer| answer.map(|_| 0));
                Ok(self.repeat(1, until, 20, ask).await?)
            }
            (Work::Sequential | Work::RandomOne | Work::RandomSixteen, None) => skipped("no file was found to read"),
            (Work::Sequential, Some((_, entry))) => {
                let source = self.fetcher(self.budget.cache).open(entry.object());
                let source = &source;
                let read = move |number: u64| async move {
                    let bytes = source.read(number * PIECE as u64, PIECE).await?;
                    Ok(bytes.len() as u64)
                };
                Ok(self.repeat(1, until, entry.size.div_ceil(PIECE as u64), read).await?)
            }
            (Work::RandomOne | Work::RandomSixteen, Some(_)) if reads != Reads::Ranges => {
                skipped("the provider gives files only as a whole")
            }
            (Work::RandomOne | Work::RandomSixteen, Some((_, entry))) if entry.size < LEAST_FOR_RANDOM => {
                skipped("the largest file that was found has less than 1 MiB")
            }
            (Work::RandomOne | Work::RandomSixteen, Some((_, entry))) => {
                let fetcher = self.fetcher(0);
                let read = |_| {
                    // Each by a reader of its own, who has no habits.
                    let source = fetcher.open(entry.object());
                    let page = fastrand::u64(0..entry.size / PAGE as u64);
                    async move {
                        let bytes = source.read(page * PAGE as u64, PAGE).await?;
                        Ok(bytes.len() as u64)
                    }
                };
                let tasks = if work == Work::RandomOne { 1 } else { 16 };
                Ok(self.repeat(tasks, until, RANDOM_READS * tasks as u64, read).await?)
            }
            (Work::SmallFiles, _) if found.small.is_empty() => skipped("no file of at most 64 KiB was found"),
            (Work::SmallFiles, _) => {
                let fetcher = self.fetcher(self.budget.cache);
                let read = |number: u64| {
                    let entry = &found.small[number as usize];
                    let source = fetcher.open(entry.object());
                    async move {
                        let bytes = source.read(0, entry.size as usize).await?;
                        Ok(bytes.len() as u64)
                    }
                };
                Ok(self.repeat(1, until, found.small.len() as u64, read).await?)
            }
            (Work::LargeWrites | Work::SmallWrites, _) if !root.rights.allows(Action::Write) => {
                skipped("the key may not write")
            }
            (Work::LargeWrites | Work::SmallWrites, _) if !root.rights.allows(Action::Delete) => {
                skipped("the key may not delete, so nothing could be removed again")
            }
            (Work::LargeWrites, _) => {
                self.store(work, until, root, folder, LARGE_WRITE, MOST_LARGE_WRITES)
                    .await
            }
            (Work::SmallWrites, _) => self.store(work, until, root, folder, PAGE, MOST_SMALL_WRITES).await,
        }
    }

    /// When a work must have ended, so that those after it get their part.
    fn until(&self, work: Work) -> Instant {
        let follow = Work::ALL.into_iter().skip_while(|other| *other != work);
        let wanted = follow.filter(|work| !work.is_write() || self.settings.writes == Writes::Cleaned);
        let all: u32 = wanted.map(Work::weight).sum();
        let now = Instant::now();
        now + self.end.saturating_duration_since(now) * work.weight() / all.max(1)
    }

    /// Does an operation again and again, so many at a time, until there are none left or the time is over. An operation
    /// gives the bytes that it moved.
    async fn repeat<F: Future<Output = Result<u64>>>(
        &self,
        tasks: usize,
        until: Instant,
        operations: u64,
        operation: impl Fn(u64) -> F,
    ) -> Result<Outcome> {
        let begin = Instant::now();
        let timed = |number| {
            let begin = Instant::now();
            let running = operation(number);
            async move { running.await.map(|bytes| (bytes, begin.elapsed())) }
        };
        let mut running = std::pin::pin!(stream::iter(0..operations).map(timed).buffer_unordered(tasks));
        let (mut times, mut bytes, mut elapsed) = (Vec::new(), 0, Duration::ZERO);
        loop {
            let next = tokio::select! {
                biased;
                () = self.cancelled.cancelled() => ControlFlow::Break(()),
                next = tokio::time::timeout_at(until, running.next()) => match next {
                    Ok(Some(done)) => ControlFlow::Continue(done?),
                    Ok(None) | Err(_) => ControlFlow::Break(()),
                },
            };
            let ControlFlow::Continue((moved, took)) = next else {
                break;
            };
            bytes += moved;
            times.push(took);
            elapsed = begin.elapsed();
        }
        Ok(figures(times, bytes, elapsed).map_or_else(
            || Outcome::Skipped("not one operation ended in its time; give more with --seconds".to_owned()),
            Outcome::Done,
        ))
    }

    fn fetcher(&self, kept: u64) -> Fetcher {
        let settings = FetchSettings {
            spill_directory: self.paths.staging(),
            spill_limit: LARGEST_WHOLE,
            memory: self.budget.in_flight,
        };
        Fetcher::new(Arc::clone(&self.provider), Arc::new(MemoryCache::new(kept)), settings)
    }

    /// # Errors
    /// `NotFound` and `IsADirectory` for a named file; what else fails while looking ends the search.
    async fn find(&self, root: &Entry) -> Result<Found> {
        let mut found = Found::default();
        let mut folders = VecDeque::from([(String::new(), root.key.clone())]);
        if let Some(path) = &self.settings.file {
            found.file = Some(self.named(root, path).await?);
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            if !folder.is_empty() {
                folders = VecDeque::from([(format!("{folder}/"), self.named_entry(root, folder).await?.key)]);
            }
        }
        let until = Instant::now() + self.settings.time / 8;
        for _ in 0..MOST_DIRECTORIES {
            let Some((path, key)) = folders.pop_front() else { break };
            let listing = tokio::select! {
                () = self.cancelled.cancelled() => break,
                listing = tokio::time::timeout_at(until, self.provider.list(&key)) => listing,
            };
            // Nobody has to have leave to see all of it.
            let Ok(listing) = listing else { break };
            for entry in listing.unwrap_or_default() {
                let name = format!("{path}{}", entry.name);
                if entry.is_directory() {
                    folders.push_back((format!("{name}/"), entry.key));
                } else if entry.rights.allows(Action::Read) {
                    self.consider(&mut found, name, entry);
                }
            }
        }
        Ok(found)
    }

    fn consider(&self, found: &mut Found, path: String, entry: Entry) {
        if (1..=SMALL).contains(&entry.size) && found.small.len() < MOST_SMALL {
            found.small.push(entry.clone());
        }
        let largest = found.file.as_ref().map_or(0, |(_, file)| file.size);
        if self.settings.file.is_none() && entry.size > largest {
            found.file = Some((path, entry));
        }
    }

    async fn named(&self, root: &Entry, path: &str) -> Result<(String, Entry)> {
        let entry = self.named_entry(root, path).await?;
        if entry.is_directory() {
            return Err(Error::new(ErrorKind::IsADirectory, format!("{path} is a directory")));
        }
        Ok((path.to_owned(), entry))
    }

    async fn named_entry(&self, root: &Entry, path: &str) -> Result<Entry> {
        let mut entry = root.clone();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            entry = self.provider.lookup(&entry.key, &Name::new(name)?).await?;
        }
        Ok(entry)
    }

    /// Stores new files, each of so many bytes that neither compress nor repeat.
    async fn store(
        &self,
        work: Work,
        until: Instant,
        root: &Entry,
        folder: &mut Option<Entry>,
        len: usize,
        most: u64,
    ) -> Result<Outcome> {
        if folder.is_none() {
            let name = Name::new(format!("{BENCH_FOLDER}{:08x}", fastrand::u32(..)))?;
            *folder = Some(self.provider.create_directory(&root.key, &name).await?);
        }
        let Some(Entry { key: parent, .. }) = folder else {
            return Err(Error::internal("there is no directory to write into"));
        };
        let parent: &ObjectKey = parent;
        let store = |number: u64| async move {
            let mut bytes = vec![0; len];
            fastrand::Rng::new().fill(&mut bytes);
            let target = Target::New {
                parent: parent.clone(),
                name: Name::new(format!("{work:?}-{number}"))?,
            };
            let content = Content::from_bytes(&bytes)?;
            self.provider.upload(&target, &content).await.map(|_| len as u64)
        };
        self.repeat(1, until, most, store).await
    }

    /// Also what was being stored when the time was over.
    async fn remove(&self, folder: &Entry) -> Result<()> {
        let removing = async {
            for entry in self.provider.list(&folder.key).await? {
                self.provider.remove_file(&entry).await?;
            }
            self.provider.remove_directory(folder).await
        };
        let late = || Error::new(ErrorKind::TimedOut, "removing it took too long");
        tokio::time::timeout(CLEANING, removing)
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

fn figures(mut times: Vec<Duration>, bytes: u64, elapsed: Duration) -> Option<Figures> {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len().checked_sub(1)? * part / 100).copied();
    Some(Figures {
        operations: times.len() as u64,
        bytes,
        elapsed,
        median: at(50)?,
        slowest: at(99)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_what_was_done() {
        assert_eq!(figures(Vec::new(), 0, Duration::ZERO), None);
        let times = (1..=101).rev().map(Duration::from_millis).collect();
        let all = figures(times, 7, Duration::from_secs(1)).unwrap();
        assert_eq!((all.operations, all.bytes), (101, 7));
        assert_eq!(
            (all.median, all.slowest),
            (Duration::from_millis(51), Duration::from_millis(100))
        );
    }
}
