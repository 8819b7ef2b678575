//! Who may have how much on the way, and how much of it in memory.
//!
//! A request costs no memory before its answer begins, so that much more may be asked for than is held: on a fast line
//! with a long delay nearly all of it is on its way. Room for an answer is taken as a whole when it begins. Until there is
//! some, its bytes wait where they come from; and as every answer that has begun has its room, all of them come to an end.
//!
//! What came ahead of a reader keeps its room for a while, until it is read, so that it needn't be read from disk. But
//! only as long as no reader waits for anything: then room is needed elsewhere.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::cache::BLOCK;
use crate::model::{Error, Result};

/// What nobody waits for yet may take so many quarters of the memory: who waits finds some.
const AHEAD_IN_MEMORY: usize = 3;
/// What is asked for ahead, by all readers together and by one of them, in eighths of the memory: with the usual 48 MiB,
/// 128 and 96. The latter is bandwidth times delay of 8 Gbit/s at 100 ms.
const AHEAD: u64 = 21;
const AHEAD_OF_ONE: u64 = 16;

/// Permits are blocks.
pub(super) struct Rooms {
    memory: Arc<Semaphore>,
    /// The part of it that is for what nobody waits for yet.
    ahead_in_memory: Arc<Semaphore>,
    /// For what is asked for and nobody waits for yet.
    ahead: Arc<Semaphore>,
    blocks: usize,
    /// How many readers wait.
    waiting: Arc<watch::Sender<usize>>,
    /// How many answers wait for room.
    short: Arc<watch::Sender<usize>>,
}

/// Why a flight is made.
pub(super) enum Purpose {
    /// Somebody waits for it.
    Wanted,
    /// Somebody will probably ask for it.
    Ahead { _asked: Asked },
}

impl From<Option<Asked>> for Purpose {
    fn from(asked: Option<Asked>) -> Self {
        asked.map_or(Self::Wanted, |_asked| Self::Ahead { _asked })
    }
}

/// The right to ask for blocks that nobody waits for yet.
pub(super) struct Asked(OwnedSemaphorePermit);

/// One of those who wait.
pub(super) struct Waiting(Arc<watch::Sender<usize>>);

impl Waiting {
    fn among(others: &Arc<watch::Sender<usize>>) -> Self {
        others.send_modify(|waiting| *waiting += 1);
        Self(Arc::clone(others))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

/// The right to hold blocks in memory.
pub(super) struct Room {
    _memory: OwnedSemaphorePermit,
    _ahead: Option<OwnedSemaphorePermit>,
}

impl Rooms {
    /// `memory` is in bytes; one block at least.
    pub(super) fn new(memory: u64) -> Self {
        let most = Semaphore::MAX_PERMITS as u64 / AHEAD;
        let blocks = (memory / BLOCK).clamp(1, most.min(u32::MAX.into())) as usize;
        Self {
            memory: Arc::new(Semaphore::new(blocks)),
            ahead_in_memory: Arc::new(Semaphore::new((blocks * AHEAD_IN_MEMORY / 4).max(1))),
            ahead: Arc::new(Semaphore::new(eighths(blocks as u64, AHEAD) as usize)),
            blocks,
            waiting: Arc::new(watch::Sender::new(0)),
            short: Arc::new(watch::Sender::new(0)),
        }
    }

    /// To be held while a reader waits.
    pub(super) fn wait(&self) -> Waiting {
        Waiting::among(&self.waiting)
    }

    /// Comes back when a reader waits.
    pub(super) async fn somebody_waits(&self) {
        until_some(&self.waiting).await;
    }

    /// Comes back when there is no room for an answer.
    pub(super) async fn is_short(&self) {
        until_some(&self.short).await;
    }

    /// What one reader may ask for ahead, in bytes.
    pub(super) fn largest_window(&self) -> u64 {
        eighths(self.blocks as u64, AHEAD_OF_ONE) * BLOCK
    }

    /// How many blocks one flight may bring.
    pub(super) fn largest_flight(&self) -> u64 {
        (self.blocks * AHEAD_IN_MEMORY / 4).max(1) as u64
    }

    /// `None` while so much is asked for that more would keep others waiting.
    pub(super) fn ask_ahead(&self, blocks: u64) -> Option<Asked> {
        let permits = u32::try_from(blocks).ok()?;
        Arc::clone(&self.ahead).try_acquire_many_owned(permits).ok().map(Asked)
    }

    /// Waits until so many blocks may be in memory. Fails never: no semaphore is closed.
    pub(super) async fn take(&self, blocks: u64, purpose: &Purpose) -> Result<Room> {
        if let Some(room) = self.take_at_once(blocks, purpose) {
            return Ok(room);
        }
        let _waiting = Waiting::among(&self.short);
        let take = async |of: &Arc<Semaphore>, permits: u32| {
            let permit = Arc::clone(of).acquire_many_owned(permits).await;
            permit.map_err(|_| Error::internal("the download was interrupted"))
        };
        let (ahead, memory) = self.permits(blocks, purpose);
        Ok(Room {
            _ahead: match ahead {
                None => None,
                Some(permits) => Some(take(&self.ahead_in_memory, permits).await?),
            },
            _memory: take(&self.memory, memory).await?,
        })
    }

    /// As `take`, unless that means to wait.
    pub(super) fn take_at_once(&self, blocks: u64, purpose: &Purpose) -> Option<Room> {
        let take = |of: &Arc<Semaphore>, permits: u32| Arc::clone(of).try_acquire_many_owned(permits).ok();
        let (ahead, memory) = self.permits(blocks, purpose);
        Some(Room {
            _ahead: match ahead {
                None => None,
                Some(permits) => Some(take(&self.ahead_in_memory, permits)?),
            },
            _memory: take(&self.memory, memory)?,
        })
    }

    /// Of what is ahead, if it is that, and of the memory: what is larger than all takes all.
    fn permits(&self, blocks: u64, purpose: &Purpose) -> (Option<u32>, u32) {
        let at_most = |most: u64| blocks.min(most) as u32;
        let ahead = match purpose {
            Purpose::Wanted => None,
            Purpose::Ahead { .. } => Some(at_most(self.largest_flight())),
        };
        (ahead, at_most(self.blocks as u64))
    }

    /// In blocks.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.blocks - self.memory.available_permits()
    }

    #[cfg(test)]
    pub(super) fn is_all_free(&self) -> bool {
        let free = |of: &Semaphore| of.available_permits();
        self.held() == 0
            && free(&self.ahead_in_memory) as u64 == self.largest_flight()
            && free(&self.ahead) as u64 == eighths(self.blocks as u64, AHEAD)
    }
}

impl Asked {
    /// For that many of the blocks.
    pub(super) fn split(&mut self, blocks: u64) -> Option<Self> {
        self.0.split(blocks as usize).map(Self)
    }
}

/// Comes back when somebody waits.
async fn until_some(waiting: &watch::Sender<usize>) {
    // Fails when the sender is gone, which is held here.
    let _ = waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
}

fn eighths(blocks: u64, eighths: u64) -> u64 {
    (blocks * eighths / 8).max(1)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn more_is_asked_for_than_is_held_and_who_waits_finds_room() {
        let rooms = Rooms::new(8 * BLOCK);
        let mut asked: Vec<Asked> = std::iter::from_fn(|| rooms.ask_ahead(3)).collect();
        assert_eq!(asked.len(), 7);
        let ahead = |asked| Purpose::Ahead { _asked: asked };
        let mut take = || rooms.take(3, &ahead(asked.pop().unwrap())).now_or_never();
        let (first, second) = (take(), take());
        assert!(first.is_some() && second.is_some() && take().is_none());
        assert!(rooms.take(2, &Purpose::Wanted).now_or_never().is_some());
        drop((first, second, asked));
        assert!(rooms.is_all_free());
    }

    #[test]
    fn a_reader_that_waits_is_heard_of_until_it_has_what_it_wants() {
        let rooms = Rooms::new(BLOCK);
        let hears = || rooms.somebody_waits().now_or_never().is_some();
        assert!(!hears());
        let (one, other) = (rooms.wait(), rooms.wait());
        drop(one);
        assert!(hears());
        drop(other);
        assert!(!hears());
    }

    #[test]
    fn room_is_short_while_an_answer_waits_for_it() {
        let rooms = Rooms::new(2 * BLOCK);
        let is_short = || rooms.is_short().now_or_never().is_some();
        let all = rooms.take(2, &Purpose::Wanted).now_or_never();
        assert!(all.is_some() && !is_short());
        let mut more = Box::pin(rooms.take(1, &Purpose::Wanted));
        assert!((&mut more).now_or_never().is_none() && is_short());
        drop(all);
        assert!(more.now_or_never().is_some() && !is_short());
    }

    #[test]
    fn what_is_larger_than_all_takes_all() {
        let rooms = Rooms::new(1);
        assert_eq!((rooms.largest_flight(), rooms.largest_window()), (1, 2 * BLOCK));
        let all = rooms.take(100, &Purpose::Wanted).now_or_never();
        assert!(all.is_some() && rooms.take(1, &Purpose::Wanted).now_or_never().is_none());
    }
}
