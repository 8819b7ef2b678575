//! A version of an object that somebody has open.

use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ahead::Ahead;
use super::flight::{Boarding, Flights, Launch, Origin, Pilot, Waiter};
use super::gathered::Gathered;
use super::pattern::Pace;
use super::room::{Asked, Purpose};
use super::spill::{self, Spill};
use super::{Shared, access, download};
use crate::cache::{BLOCK, ContentId, FEW, Run, WholeFile};
use crate::model::{ObjectId, Progress, Result};
use crate::provider::Reads;

/// The blocks that are put into the cache at once from a local file: 1 MiB.
const FILL: u64 = (1 << 20) / BLOCK;

/// All bytes of one version, wherever they are, for one reader, whose habits it learns. Clones and whoever opens the same
/// version share what is on the way.
pub struct Source {
    pub(super) object: Arc<Object>,
    ahead: Mutex<Ahead>,
}

pub(super) struct Object {
    pub(super) id: ObjectId,
    pub(super) content: ContentId,
    pub(super) shared: Arc<Shared>,
    flights: Arc<Flights>,
    /// The verified whole, once there was need of it.
    spill: OnceLock<Spill>,
}

impl Clone for Source {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.object))
    }
}

impl Source {
    pub(super) fn new(object: Arc<Object>) -> Self {
        Self {
            ahead: Mutex::new(Ahead::new(object.shared.largest_window())),
            object,
        }
    }

    pub fn object(&self) -> &ObjectId {
        &self.object.id
    }

    /// Bytes of exactly this version; fewer than asked for only at its end. What will probably be asked for next is
    /// fetched beside it.
    ///
    /// # Errors
    /// `Changed` or `NotFound` when the provider has the version no more, `BadData` when it sends something else twice,
    /// `TooLarge` and `NoSpace` when the whole is needed and has no room here, and what the provider refuses with.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        let pieces = self.pieces(access::clip(offset, len, self.object.id.size)).await?;
        Ok(joined(pieces))
    }

    /// Sends for the whole object unless enough is on the way. It comes for as long as this source lives.
    pub async fn fetch_ahead(&self) {
        let blocks = access::blocks(&(0..self.object.id.size));
        if let Some(waiters) = self.object.send_for(blocks).await {
            self.ahead.lock().hold(waiters);
        }
    }

    /// The local file that has all of it, if there is one.
    pub async fn whole_file(&self) -> Option<WholeFile> {
        let object = &self.object;
        object.shared.cache.whole(&object.content, object.id.size).await
    }

    /// Fills the cache from a local file that holds this very version: it was just uploaded. A file of another length
    /// is none, and nothing that goes wrong matters.
    pub async fn prime(&self, file: &Arc<File>) {
        let matches = file
            .metadata()
            .is_ok_and(|metadata| metadata.len() == self.object.id.size);
        if matches {
            self.object.fill_cache(|range| spill::read(file, range)).await;
        }
    }

    /// The bytes of a range that lies in the object, in pieces.
    async fn pieces(&self, wanted: Range<u64>) -> Result<Vec<Bytes>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let size = self.object.id.size;
        let (extent, plan, _of_no_use) = match self.object.shared.reads {
            Reads::Ranges => self.ahead.lock().note(&wanted, size),
            Reads::WholeOnly | Reads::WholeInOrder => (wanted.clone(), Vec::new(), Vec::new()),
        };
        let (wait, waiting) = oneshot::channel();
        let mut wait = Some(wait);
        let reading = async {
            let read = self.object.pieces(wanted.clone(), extent.clone(), &mut wait).await;
            drop(wait);
            Ok(match read? {
                Served::Pieces(pieces) => pieces,
                Served::Asked(pieces, pace) => {
                    self.ahead.lock().answered(pace);
                    pieces
                }
                Served::FromPart(bytes, waiter) => {
                    let _of_no_use = self.ahead.lock().hold_one(waiter);
                    vec![bytes]
                }
            })
        };
        let fetching_ahead = async {
            let waits_for = waiting.await.ok();
            if waits_for.is_some() && extent != wanted {
                // It goes on for this reader when the beginning is here.
                let rest = self.object.flights.join(&access::blocks(&extent));
                self.ahead.lock().hold(rest);
            }
            self.fetch_ranges_ahead(plan).await;
            if let Some(origin) = waits_for {
                let more = self.ahead.lock().stalled(&wanted, size, Instant::now(), origin);
                self.fetch_ranges_ahead(more).await;
            }
        };
        tokio::join!(reading, fetching_ahead).0
    }

    async fn fetch_ranges_ahead(&self, ranges: Vec<Range<u64>>) {
        for range in ranges {
            // The runtime begins with what was spawned last. Let alone, it begins with what was spawned before, which so gets
            // a connection that is free.
            tokio::task::yield_now().await;
            match self.object.send_for(access::blocks(&range)).await {
                Some(waiters) => self.ahead.lock().hold(waiters),
                None => return self.ahead.lock().give_back(range.start),
            }
            let kept = self.object.bring(access::blocks(&range)).await;
            self.ahead.lock().hold(kept);
        }
    }
}

/// How a reader got its bytes.
enum Served {
    Pieces(Vec<Bytes>),
    /// After it was asked for, for this reader.
    Asked(Vec<Bytes>, Pace),
    /// From a whole that is still coming, for as long as somebody waits for it.
    FromPart(Bytes, Waiter),
}

impl Object {
    pub(super) fn new(id: ObjectId, content: ContentId, shared: Arc<Shared>) -> Self {
        Self {
            id,
            content,
            shared,
            flights: Arc::default(),
            spill: OnceLock::new(),
        }
    }

    pub(super) fn keep(&self, whole: Spill) {
        let _ = self.spill.set(whole);
    }

    pub(super) async fn fill_cache_from_spill(&self) {
        if let Some(whole) = self.spill.get() {
            self.fill_cache(|range| whole.read(range)).await;
        }
    }

    /// An object that doesn't fit is left out: it would only drive out itself, and everything else.
    async fn fill_cache<F: Future<Output = Result<Bytes>>>(&self, read: impl Fn(Range<u64>) -> F) {
        let size = self.id.size;
        if size > self.shared.cache.usage().cap {
            return;
        }
        let all = access::blocks(&(0..size));
        for first in all.clone().step_by(FILL as usize) {
            let run = first..(first + FILL).min(all.end);
            let Ok(bytes) = read(access::bytes(&run, size)).await else {
                return;
            };
            let run = Run { first, bytes };
            self.shared.cache.put(&self.content, vec![run]).await;
            Progress::tick();
        }
    }

    /// The bytes of a range that lies in the object, in pieces. If any of them must be asked for, all of `extent` is.
    /// Whoever listens hears when it takes time.
    async fn pieces(
        self: &Arc<Self>,
        range: Range<u64>,
        extent: Range<u64>,
        wait: &mut Option<oneshot::Sender<Origin>>,
    ) -> Result<Served> {
        let mut gathered = Gathered::new(access::blocks(&range));
        let mut on_the_way: Vec<Waiter> = Vec::new();
        let mut asked = None;
        let mut pace = None;
        while !gathered.is_complete() {
            if let Some(whole) = self.spill.get() {
                return Ok(Served::Pieces(vec![whole.read(range).await?]));
            }
            let seen = self.flights.landed();
            let wanted = access::blocks(&range);
            if self.shared.reads == Reads::Ranges {
                on_the_way.extend(self.flights.join(&wanted));
            }
            let is_coming = |block| on_the_way.iter().any(|waiter| waiter.brings(block));
            for run in gathered.absent(|block| !is_coming(block)) {
                self.cached(run).await.into_iter().for_each(|run| gathered.add(run));
            }
            let mut missing: Vec<u64> = gathered
                .absent(|block| !is_coming(block))
                .into_iter()
                .flatten()
                .collect();
            if !missing.is_empty() {
                if extent != range {
                    let extent = access::blocks(&extent);
                    let rest = self.shared.cache.missing(&self.content, wanted.end..extent.end);
                    missing.extend(rest.await);
                }
                let Some(boarding) = self.board(seen, &self.unit(missing), Origin::Provider) else {
                    continue;
                };
                on_the_way.extend(self.launched(boarding, None));
                asked = Some(Instant::now());
            }
            for mut waiter in on_the_way.drain(..) {
                if self.shared.reads != Reads::Ranges {
                    match waiter.part(range.end).await? {
                        Some(part) => return Ok(Served::FromPart(part.read(range).await?, waiter)),
                        None => continue,
                    }
                }
                for blocks in gathered.absent(|block| waiter.brings(block)) {
                    self.take(&mut waiter, blocks, &mut gathered, wait).await?;
                }
                pace = waiter.pace().or(pace);
            }
        }
        let pieces = gathered.cut(&range);
        Ok(match asked {
            Some(asked) => Served::Asked(pieces, pace.unwrap_or_else(|| Pace::of_its_beginning(asked.elapsed()))),
            None => Served::Pieces(pieces),
        })
    }

    /// Takes blocks from the flight that brings them, unless the cache has them.
    async fn take(
        &self,
        waiter: &mut Waiter,
        mut blocks: Range<u64>,
        gathered: &mut Gathered,
        wait: &mut Option<oneshot::Sender<Origin>>,
    ) -> Result<()> {
        let _waiting = (!waiter.has(&blocks)).then(|| {
            // Nobody may want to know any more.
            wait.take().map(|wait| wait.send(waiter.origin()));
            self.shared.rooms.wait()
        });
        while !blocks.is_empty() {
            let Some(run) = waiter.run(&blocks).await? else { break };
            blocks.start = run.blocks().end;
            gathered.add(run);
        }
        Ok(())
    }

    pub(super) async fn cached(&self, blocks: Range<u64>) -> Vec<Run> {
        let mut found = self.shared.cache.get(&self.content, blocks).await;
        found.retain(|run| {
            let place = access::bytes(&run.blocks(), self.id.size);
            place.end.checked_sub(place.start) == Some(run.bytes.len() as u64)
        });
        found
    }

    /// Sends for what is neither there nor on the way, for nobody who waits. `None` when enough is on the way.
    async fn send_for(self: &Arc<Self>, blocks: Range<u64>) -> Option<Vec<Waiter>> {
        loop {
            let seen = self.flights.landed();
            let missing = self.shared.cache.missing(&self.content, blocks.clone()).await;
            let missing = self.flights.free(self.unit(missing));
            if missing.is_empty() || self.spill.get().is_some() {
                return Some(Vec::new());
            }
            let asked = self.shared.rooms.ask_ahead(missing.len() as u64)?;
            if let Some(boarding) = self.board(seen, &missing, Origin::Provider) {
                return Some(self.launched(boarding, Some(asked)));
            }
        }
    }

    /// Has what is on disk read before it is wanted, unless it is little, or enough is on the way.
    async fn bring(self: &Arc<Self>, blocks: Range<u64>) -> Vec<Waiter> {
        let cache = &self.shared.cache;
        if !cache.is_on_disk() || blocks.end - blocks.start <= FEW as u64 {
            return Vec::new();
        }
        loop {
            let seen = self.flights.landed();
            let missing = cache.missing(&self.content, blocks.clone()).await;
            let is_kept = |block: &u64| missing.binary_search(block).is_err();
            let kept = self.flights.free(blocks.clone().filter(is_kept).collect());
            if kept.is_empty() {
                return Vec::new();
            }
            let Some(asked) = self.shared.rooms.ask_ahead(kept.len() as u64) else {
                return Vec::new();
            };
            if let Some(boarding) = self.board(seen, &kept, Origin::Cache) {
                return self.launched(boarding, Some(asked));
            }
        }
    }

    fn board(&self, seen: u64, blocks: &[u64], origin: Origin) -> Option<Boarding> {
        self.flights.board(seen, blocks, self.most(), origin)
    }

    /// The blocks as they travel: a whole goes as block 0.
    fn unit(&self, mut missing: Vec<u64>) -> Vec<u64> {
        if self.shared.reads != Reads::Ranges && !missing.is_empty() {
            missing = vec![0];
        }
        missing
    }

    fn most(&self) -> u64 {
        match self.shared.reads {
            Reads::Ranges => self.shared.most_per_request(),
            Reads::WholeOnly | Reads::WholeInOrder => 1,
        }
    }

    /// Starts the new flights, for somebody who waits or ahead of all.
    fn launched(self: &Arc<Self>, boarding: Boarding, mut asked: Option<Asked>) -> Vec<Waiter> {
        for (launch, pilot) in boarding.launches {
            let blocks = pilot.blocks();
            let part = asked.as_mut().and_then(|asked| asked.split(blocks.end - blocks.start));
            self.launch(launch, pilot, part.into());
        }
        boarding.waiters
    }

    fn launch(self: &Arc<Self>, launch: Launch, pilot: Pilot, purpose: Purpose) {
        let object = Arc::clone(self);
        let task = match (pilot.origin(), self.shared.reads) {
            (Origin::Cache, _) => tokio::spawn(download::kept(object, pilot, purpose)),
            (Origin::Provider, Reads::Ranges) => tokio::spawn(download::ranges(object, pilot, purpose)),
            (Origin::Provider, Reads::WholeOnly | Reads::WholeInOrder) => tokio::spawn(download::whole(object, pilot)),
        };
        launch.run_by(task.abort_handle());
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.shared.closed(&self.id);
    }
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.swap_remove(0),
        _ => {
            let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
            for piece in &pieces {
                all.extend_from_slice(piece);
            }
            all.freeze()
        }
    }
}
