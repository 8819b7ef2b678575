//! Who waits for what: downloads that several readers share.
//!
//! A flight is a task that brings a run of blocks. Readers hold `Waiter`s; the task holds the `Pilot`. When the last
//! waiter goes, the task is aborted; when the task ends however it may, its blocks are free to be asked for anew.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::access;
use super::spill::Spill;
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

struct Flight {
    number: u64,
    blocks: Range<u64>,
    news: watch::Receiver<News>,
    abort: OnceLock<AbortHandle>,
}

/// What a flight tells its waiters.
#[derive(Default)]
struct News {
    /// The blocks that are there, from the first on.
    blocks: Vec<Bytes>,
    /// Whether they were let go of, because the cache has them.
    is_unloaded: bool,
    /// Of an object that comes as a whole and may be served before its end: where it is, and how many bytes of it.
    part: Option<(Spill, u64)>,
    end: Option<Result<()>>,
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
    pub(super) fn board(self: &Arc<Self>, seen: u64, missing: &[u64], most: u64) -> Option<Boarding> {
        let mut table = self.0.lock();
        if table.landed != seen {
            return None;
        }
        let in_flight = |block: &u64| table.by_block.contains_key(block);
        let free: Vec<u64> = missing.iter().copied().filter(|block| !in_flight(block)).collect();
        let mut launches = Vec::new();
        for blocks in access::requests(&free, most) {
            launches.push(self.add(&mut table, blocks));
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
        let over = waiter.news.borrow().end.is_some();
        if !over {
            table.remove(&waiter.flight);
        }
        !over
    }

    fn add(self: &Arc<Self>, table: &mut Table, blocks: Range<u64>) -> (Launch, Pilot) {
        let (sender, receiver) = watch::channel(News::default());
        let number = table.next_number;
        table.next_number += 1;
        let flight = Arc::new(Flight {
            number,
            blocks: blocks.clone(),
            news: receiver,
            abort: OnceLock::new(),
        });
        for block in blocks.clone() {
            table.by_block.insert(block, Arc::clone(&flight));
        }
        let pilot = Pilot {
            flights: Arc::clone(self),
            number,
            blocks,
            news: sender,
        };
        (Launch(flight), pilot)
    }
}

impl Table {
    fn remove(&mut self, flight: &Flight) {
        self.release(flight.number, flight.blocks.clone());
    }

    fn release(&mut self, number: u64, blocks: Range<u64>) {
        for block in blocks {
            // Somebody may have asked for it anew.
            if self.by_block.get(&block).is_some_and(|flight| flight.number == number) {
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
    number: u64,
    blocks: Range<u64>,
    news: watch::Sender<News>,
}

impl Pilot {
    pub(super) fn blocks(&self) -> Range<u64> {
        self.blocks.clone()
    }

    /// The first block that wasn't delivered yet.
    pub(super) fn next(&self) -> u64 {
        self.blocks.start + self.news.borrow().blocks.len() as u64
    }

    /// Bytes moved: the waiters' deadlines begin anew.
    pub(super) fn moved(&self) {
        self.news.send_modify(|_| {});
    }

    /// Serves the next block.
    pub(super) fn deliver(&self, block: Bytes) {
        self.news.send_modify(|news| news.blocks.push(block));
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
    pub(super) fn delivered(&self) -> Vec<Bytes> {
        self.news.borrow().blocks.clone()
    }

    /// The cache has all of it: whoever still waits finds it there.
    pub(super) fn unload(&self) {
        self.news.send_modify(|news| {
            news.blocks = Vec::new();
            news.is_unloaded = true;
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
        table.release(self.number, self.blocks.clone());
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

    /// Whether one of the flight's blocks is there to be taken.
    pub(super) fn has(&self, block: u64) -> bool {
        let place = (block - self.flight.blocks.start) as usize;
        let news = self.news.borrow();
        news.is_unloaded || news.blocks.len() > place
    }

    /// Whether nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.news.borrow().end.is_some()
    }

    /// One of the flight's blocks as soon as it is there; `None` when the cache has it.
    pub(super) async fn block(&mut self, block: u64) -> Result<Option<Bytes>> {
        let place = (block - self.flight.blocks.start) as usize;
        self.until(|news| match (news.blocks.get(place), &news.end) {
            (Some(bytes), _) => Some(Ok(Some(bytes.clone()))),
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
