//! Who waits for what: downloads that several readers share.
//!
//! A flight is a task that brings a run of blocks. Readers hold `Waiter`s; the task holds the `Pilot`. When the last
//! waiter goes, the task is aborted; when the task ends however it may, its blocks are free to be asked for anew.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::access;
use super::pattern::Pace;
use super::spill::Spill;
use crate::cache::Run;
use crate::model::{Error, Progress, Result};

/// The flights for one object.
#[derive(Default)]
pub(super) struct Flights(Mutex<Table>);

#[derive(Default)]
struct Table {
    next_number: u64,
    /// Counts the flights that ended, so that a reader notices when one ended behind its back.
    landed: u64,
    by_block: HashMap<u64, Arc<Flight>>,
    waiters: HashMap<u64, usize>,
}

/// Where a flight begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Provider,
    /// The cache, which is on a disk.
    Cache,
}

struct Flight {
    number: u64,
    origin: Origin,
    blocks: Range<u64>,
    news: watch::Receiver<News>,
    abort: OnceLock<AbortHandle>,
    wishes: Wishes,
}

/// What waiters wait for, so that it is delivered as soon as it is there, and in one piece.
#[derive(Default)]
struct Wishes {
    /// The ends of the runs of blocks.
    ends: Mutex<Vec<u64>>,
    new: Notify,
}

/// What a flight tells its waiters.
#[derive(Default)]
struct News {
    /// The blocks that are there, from the first on: neighbours, each of whole blocks.
    runs: Vec<Run>,
    /// Whether they were let go of, because the cache has them.
    is_unloaded: bool,
    /// Whether the task does nothing any more but wait for readers.
    is_resting: bool,
    /// Of an object that comes as a whole and may be served before its end: where it is, and how many bytes of it.
    part: Option<(Spill, u64)>,
    pace: Option<Pace>,
    end: Option<Result<()>>,
}

impl News {
    fn has(&self, block: u64) -> bool {
        self.runs.last().is_some_and(|run| block < run.blocks().end)
    }

    /// Those of the flight's blocks that are there in one piece.
    fn run(&self, wanted: &Range<u64>) -> Option<Run> {
        let run = self.runs.iter().find(|run| run.blocks().contains(&wanted.start))?;
        Some(run.part(wanted))
    }
}

/// The result of `Flights::board`.
pub(super) struct Boarding {
    pub(super) waiters: Vec<Waiter>,
    /// New flights; each is to be run by a task and then given to its `Launch`.
    pub(super) launches: Vec<(Launch, Pilot)>,
}

impl Flights {
    /// To be asked for before the cache is, and given to `board`.
    pub(super) fn landed(&self) -> u64 {
        self.0.lock().landed
    }

    /// Those of the blocks that no flight brings.
    pub(super) fn free(&self, mut blocks: Vec<u64>) -> Vec<u64> {
        let table = self.0.lock();
        blocks.retain(|block| !table.by_block.contains_key(block));
        blocks
    }

    /// Joins the flights that bring some of these blocks already.
    pub(super) fn join(self: &Arc<Self>, blocks: &Range<u64>) -> Vec<Waiter> {
        let mut table = self.0.lock();
        let mut joined = Vec::new();
        let mut block = blocks.start;
        while block < blocks.end {
            block = match table.by_block.get(&block).cloned() {
                Some(flight) => {
                    let next = flight.blocks.end;
                    joined.push(self.wait_for(&mut table, flight));
                    next
                }
                None => block + 1,
            };
        }
        joined
    }

    fn wait_for(self: &Arc<Self>, table: &mut Table, flight: Arc<Flight>) -> Waiter {
        *table.waiters.entry(flight.number).or_default() += 1;
        Waiter {
            flights: Arc::clone(self),
            news: flight.news.clone(),
            flight,
        }
    }

    /// Joins the flights that bring the missing blocks, and makes those that there aren't yet. `None` when a flight
    /// landed since `seen`: what is missing may be in the cache now.
    pub(super) fn board(self: &Arc<Self>, seen: u64, missing: &[u64], most: u64, origin: Origin) -> Option<Boarding> {
        let mut table = self.0.lock();
        if table.landed != seen {
            return None;
        }
        let in_flight = |block: &u64| table.by_block.contains_key(block);
        let free: Vec<u64> = missing.iter().copied().filter(|block| !in_flight(block)).collect();
        let mut launches = Vec::new();
        for blocks in access::requests(&free, most) {
            launches.push(self.add(&mut table, blocks, origin));
        }
        let mut joined: BTreeMap<u64, Arc<Flight>> = BTreeMap::new();
        for block in missing {
            if let Some(flight) = table.by_block.get(block) {
                joined.insert(flight.number, Arc::clone(flight));
            }
        }
        let waiters = joined.into_values().map(|flight| self.wait_for(&mut table, flight));
        Some(Boarding {
            waiters: waiters.collect(),
            launches,
        })
    }

    /// Whether the waiter was the last one and its flight is of no more use. Nobody joins it then.
    fn leave(&self, waiter: &Waiter) -> bool {
        let mut table = self.0.lock();
        let number = waiter.flight.number;
        if let Some(waiters) = table.waiters.get_mut(&number) {
            *waiters -= 1;
            if *waiters > 0 {
                return false;
            }
            table.waiters.remove(&number);
        }
        let is_of_no_use = {
            let news = waiter.news.borrow();
            news.end.is_none() || news.is_resting
        };
        if is_of_no_use {
            table.remove(&waiter.flight);
        }
        is_of_no_use
    }

    fn add(self: &Arc<Self>, table: &mut Table, blocks: Range<u64>, origin: Origin) -> (Launch, Pilot) {
        let (sender, receiver) = watch::channel(News::default());
        let number = table.next_number;
        table.next_number += 1;
        let flight = Arc::new(Flight {
            number,
            origin,
            blocks: blocks.clone(),
            news: receiver,
            abort: OnceLock::new(),
            wishes: Wishes::default(),
        });
        for block in blocks.clone() {
            table.by_block.insert(block, Arc::clone(&flight));
        }
        let pilot = Pilot {
            flights: Arc::clone(self),
            flight: Arc::clone(&flight),
            news: sender,
        };
        (Launch(flight), pilot)
    }
}

impl Table {
    fn remove(&mut self, flight: &Flight) {
        for block in flight.blocks.clone() {
            // Somebody may have asked for it anew.
            if self.by_block.get(&block).is_some_and(|now| now.number == flight.number) {
                self.by_block.remove(&block);
            }
        }
    }
}

/// Ties a flight to the task that runs it.
pub(super) struct Launch(Arc<Flight>);

impl Launch {
    /// To be called before the boarding reader awaits anything.
    pub(super) fn run_by(self, task: AbortHandle) {
        let _ = self.0.abort.set(task);
    }
}

/// The task's end of a flight.
pub(super) struct Pilot {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    news: watch::Sender<News>,
}

impl Pilot {
    pub(super) fn blocks(&self) -> Range<u64> {
        self.flight.blocks.clone()
    }

    pub(super) fn origin(&self) -> Origin {
        self.flight.origin
    }

    /// The first block that wasn't delivered yet.
    pub(super) fn next(&self) -> u64 {
        let news = self.news.borrow();
        news.runs
            .last()
            .map_or(self.flight.blocks.start, |run| run.blocks().end)
    }

    /// Comes back when somebody began to wait for blocks.
    pub(super) async fn new_wish(&self) {
        self.flight.wishes.new.notified().await;
    }

    /// Whether somebody waits for blocks of which the last one is among these.
    pub(super) fn is_wished_for(&self, blocks: &Range<u64>) -> bool {
        let ends = self.flight.wishes.ends.lock();
        ends.iter().any(|end| blocks.start < *end && *end <= blocks.end)
    }

    /// Bytes moved: the waiters' deadlines begin anew.
    pub(super) fn moved(&self) {
        self.news.send_modify(|_| {});
    }

    /// To be said before the last blocks are served.
    pub(super) fn paced(&self, pace: Pace) {
        self.news.send_modify(|news| news.pace = Some(pace));
    }

    /// Serves the next blocks.
    pub(super) fn deliver(&self, bytes: Bytes) {
        let first = self.next();
        self.news.send_modify(|news| news.runs.push(Run { first, bytes }));
    }

    /// So many bytes of the whole can be read from here on.
    pub(super) fn deliver_part(&self, spill: &Spill, bytes: u64) {
        self.news.send_modify(|news| match &mut news.part {
            // Another attempt brings again what is there.
            Some((_, there)) => *there = bytes.max(*there),
            part => *part = Some((spill.clone(), bytes)),
        });
    }

    /// What was delivered, from the first block on.
    pub(super) fn delivered(&self) -> Vec<Run> {
        self.news.borrow().runs.clone()
    }

    /// The cache has all of it: whoever still waits finds it there.
    pub(super) fn unload(&self) {
        self.news.send_modify(|news| {
            news.runs = Vec::new();
            news.is_unloaded = true;
        });
    }

    /// From here on the task does nothing any more but wait, and is aborted when the last waiter goes. Gives whether there
    /// is one.
    pub(super) fn rest(&self) -> bool {
        let table = self.flights.0.lock();
        let is_waited_for = table.waiters.contains_key(&self.flight.number);
        self.news.send_modify(|news| news.is_resting = is_waited_for);
        is_waited_for
    }

    /// As `end`, with the last blocks.
    pub(super) fn end_with(&self, last: Result<Bytes>) {
        let first = self.next();
        self.news.send_modify(|news| {
            news.end = Some(last.map(|bytes| news.runs.push(Run { first, bytes })));
        });
    }

    /// Nothing more comes. From here on nobody aborts the task; while it goes on, readers are served from the flight.
    pub(super) fn end(&self, result: Result<()>) {
        self.news.send_modify(|news| news.end = Some(result));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        let mut table = self.flights.0.lock();
        table.remove(&self.flight);
        table.landed += 1;
    }
}

/// A reader's end of a flight.
pub(super) struct Waiter {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    news: watch::Receiver<News>,
}

impl Waiter {
    pub(super) fn brings(&self, block: u64) -> bool {
        self.flight.blocks.contains(&block)
    }

    pub(super) fn origin(&self) -> Origin {
        self.flight.origin
    }

    /// All that the flight brings.
    pub(super) fn blocks(&self) -> &Range<u64> {
        &self.flight.blocks
    }

    /// Whether these blocks of the flight are there to be taken.
    pub(super) fn has(&self, blocks: &Range<u64>) -> bool {
        let news = self.news.borrow();
        news.is_unloaded || news.has(blocks.end - 1)
    }

    /// How the answer came, if it did.
    pub(super) fn pace(&self) -> Option<Pace> {
        self.news.borrow().pace
    }

    /// Whether all of it came.
    pub(super) fn has_all(&self) -> bool {
        matches!(self.news.borrow().end, Some(Ok(())))
    }

    /// Whether the task is gone, or will be.
    pub(super) fn is_over(&self) -> bool {
        self.news.has_changed().is_err() || matches!(self.news.borrow().end, Some(Err(_)))
    }

    /// Blocks of the flight from the first of these on, as soon as all of them are there; fewer when they didn't come in
    /// one piece, `None` when the cache has them.
    pub(super) async fn run(&mut self, blocks: &Range<u64>) -> Result<Option<Run>> {
        if !self.has(blocks) {
            self.flight.wishes.ends.lock().push(blocks.end);
            self.flight.wishes.new.notify_one();
        }
        self.until(|news| match (news.run(blocks), &news.end) {
            (Some(run), _) => Some(Ok(Some(run))),
            (None, _) if news.is_unloaded => Some(Ok(None)),
            (None, Some(Ok(()))) => Some(Err(interrupted())),
            (None, Some(Err(error))) => Some(Err(error.clone())),
            (None, None) => None,
        })
        .await
    }

    /// Waits until so many bytes of the whole can be read, and gives the place; `None` when all of it came and is kept.
    pub(super) async fn part(&mut self, bytes: u64) -> Result<Option<Spill>> {
        self.until(|news| match (&news.part, &news.end) {
            (_, Some(end)) => Some(end.clone().map(|()| None)),
            (Some((spill, there)), None) if *there >= bytes => Some(Ok(Some(spill.clone()))),
            _ => None,
        })
        .await
    }

    async fn until<T>(&mut self, ready: impl Fn(&News) -> Option<Result<T>>) -> Result<T> {
        loop {
            if let Some(result) = ready(&self.news.borrow_and_update()) {
                return result;
            }
            if self.news.changed().await.is_err() {
                // The task is gone; its last words may have come in the same moment.
                return ready(&self.news.borrow()).unwrap_or_else(|| Err(interrupted()));
            }
            Progress::tick();
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.flights.leave(self) {
            // Not under the lock: a runtime that is going down drops the task, and with it the pilot, at once.
            if let Some(task) = self.flight.abort.get() {
                task.abort();
            }
        }
    }
}

fn interrupted() -> Error {
    Error::internal("the download was interrupted")
}
