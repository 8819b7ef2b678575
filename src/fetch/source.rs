//! A version of an object that somebody has open.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use super::flight::{Boarding, Flights};
use super::spill::{self, Spill};
use super::{Shared, access, download};
use crate::cache::{BLOCK, ContentId};
use crate::model::{ObjectId, Progress, Result};
use crate::provider::Reads;

/// All bytes of one version, wherever they are. Clones and whoever opens the same version share what is on the way.
#[derive(Clone)]
pub struct Source(pub(super) Arc<Object>);

pub(super) struct Object {
    pub(super) id: ObjectId,
    pub(super) content: ContentId,
    pub(super) shared: Arc<Shared>,
    flights: Arc<Flights>,
    /// The verified whole, once there was need of it.
    spill: OnceLock<Spill>,
}

impl Source {
    pub(super) fn new(object: Arc<Object>) -> Self {
        Self(object)
    }

    pub fn object(&self) -> &ObjectId {
        &self.0.id
    }

    /// Bytes of exactly this version; fewer than asked for only at its end.
    ///
    /// # Errors
    /// `Changed` or `NotFound` when the provider has the version no more, `BadData` when it sends something else twice,
    /// `TooLarge` and `NoSpace` when the whole is needed and has no room here, and what the provider refuses with.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        let pieces = self.0.pieces(access::clip(offset, len, self.0.id.size)).await?;
        Ok(joined(pieces))
    }

    /// Writes the whole object into a file, which gets its length.
    ///
    /// # Errors
    /// As `read`, and `NoSpace`.
    pub async fn copy_to(&self, file: &Arc<File>) -> Result<()> {
        let size = self.0.id.size;
        let target = Arc::clone(file);
        spill::blocking(move || target.set_len(size)).await?;
        let window = BLOCK * self.0.shared.most_per_request();
        let mut offset = 0;
        while offset < size {
            let end = (offset + window).min(size);
            for piece in self.0.pieces(offset..end).await? {
                let len = piece.len() as u64;
                spill::write(file, offset, piece).await?;
                offset += len;
                Progress::tick();
            }
        }
        Ok(())
    }

    /// Fills the cache from a local file that holds this very version: it was just uploaded. A file of another length
    /// is none, and nothing that goes wrong matters.
    pub async fn prime(&self, file: &Arc<File>) {
        let matches = file.metadata().is_ok_and(|metadata| metadata.len() == self.0.id.size);
        if matches {
            self.0.fill_cache(|range| spill::read(file, range)).await;
        }
    }
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
        for block in access::blocks(&(0..size)) {
            let Ok(bytes) = read(access::bytes(&(block..block + 1), size)).await else {
                return;
            };
            self.shared.cache.put(&self.content, block, bytes).await;
            Progress::tick();
        }
    }

    /// The bytes of a range that lies in the object, in pieces.
    async fn pieces(self: &Arc<Self>, range: Range<u64>) -> Result<Vec<Bytes>> {
        let wanted = access::blocks(&range);
        let mut have = BTreeMap::new();
        while (have.len() as u64) < wanted.end - wanted.start {
            if let Some(whole) = self.spill.get() {
                return Ok(vec![whole.read(range).await?]);
            }
            let seen = self.flights.landed();
            for block in wanted.clone() {
                if !have.contains_key(&block)
                    && let Some(bytes) = self.cached(block).await
                {
                    have.insert(block, bytes);
                }
            }
            let missing: Vec<u64> = wanted.clone().filter(|block| !have.contains_key(block)).collect();
            let Some(boarding) = self.board(seen, &missing) else {
                continue;
            };
            for mut waiter in boarding.waiters {
                match self.shared.reads {
                    Reads::WholeOnly => waiter.end().await?,
                    Reads::Ranges => {
                        for &block in &missing {
                            if waiter.brings(block) {
                                have.insert(block, waiter.block(block).await?);
                            }
                        }
                    }
                }
            }
        }
        let cut = |(block, bytes): (u64, Bytes)| {
            let first = block * BLOCK;
            let from = range.start.saturating_sub(first) as usize;
            let to = ((range.end - first) as usize).min(bytes.len());
            bytes.slice(from..to)
        };
        Ok(have.into_iter().map(cut).collect())
    }

    async fn cached(&self, block: u64) -> Option<Bytes> {
        let bytes = self.shared.cache.get(&self.content, block).await?;
        (bytes.len() == access::block_len(block, self.id.size)).then_some(bytes)
    }

    /// Joins what is on the way and sends for what isn't. `None` when something arrived meanwhile.
    fn board(self: &Arc<Self>, seen: u64, missing: &[u64]) -> Option<Boarding> {
        let (missing, most) = match self.shared.reads {
            Reads::Ranges => (missing, self.shared.most_per_request()),
            // The whole travels as block 0.
            Reads::WholeOnly => (missing.first().map_or(&[][..], |_| &[0][..]), 1),
        };
        let mut boarding = self.flights.board(seen, missing, most)?;
        for (launch, pilot) in boarding.launches.drain(..) {
            let object = Arc::clone(self);
            let task = match self.shared.reads {
                Reads::Ranges => tokio::spawn(download::ranges(object, pilot)),
                Reads::WholeOnly => tokio::spawn(download::whole(object, pilot)),
            };
            launch.run_by(task.abort_handle());
        }
        Some(boarding)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.shared.closed(&self.content);
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
