//! The tasks that ask the provider: for a run of blocks, or a whole object.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::access;
use super::flight::Pilot;
use super::room::{Purpose, Room};
use super::source::Object;
use super::spill::Spill;
use crate::cache::BLOCK;
use crate::model::{Error, ErrorKind, Result};
use crate::provider::{ByteStream, Reads};

/// The bytes of a whole that are written to disk at once, in blocks: 256 KiB.
const FLUSH: u64 = (256 << 10) / BLOCK;

/// Why an attempt ended before its time.
enum Failure {
    /// The provider refused, or the local disk did.
    Final(Error),
    /// An answer began and then broke off or was wrong.
    Answer(Error),
}

impl Failure {
    /// How often the same is asked for before the failure is believed. A refusal was retried by `net` already, as far
    /// as that helps; an answer that breaks off is seen by nobody before us.
    fn attempts(&self) -> u32 {
        match self {
            Self::Answer(error) if error.kind() == ErrorKind::Unreachable => 3,
            Self::Answer(error) | Self::Final(error) if error.kind() == ErrorKind::BadData => 2,
            Self::Answer(_) | Self::Final(_) => 1,
        }
    }

    fn into_error(self) -> Error {
        match self {
            Self::Final(error) | Self::Answer(error) => error,
        }
    }
}

/// Brings the pilot's blocks and serves each when it is complete, the last one when the answer ended well; then puts
/// them into the cache.
pub(super) async fn ranges(object: Arc<Object>, pilot: Pilot, purpose: Purpose) {
    let blocks = pilot.blocks();
    let mut room = None;
    let mut attempt = 1;
    let result = loop {
        match ask_for_blocks(&object, &pilot, &purpose, &mut room).await {
            Err(failure) if attempt < failure.attempts() => attempt += 1,
            result => break result.map_err(Failure::into_error),
        }
    };
    let good = result.is_ok();
    pilot.end(result);
    if good {
        let cache = &object.shared.cache;
        cache.put(&object.content, blocks.start, pilot.delivered()).await;
        if cache.missing(&object.content, blocks).await.is_empty() {
            pilot.unload();
        }
    }
}

/// One request for what the pilot hasn't delivered yet. Its bytes are taken in when there is room.
async fn ask_for_blocks(
    object: &Object,
    pilot: &Pilot,
    purpose: &Purpose,
    room: &mut Option<Room>,
) -> Result<(), Failure> {
    let size = object.id.size;
    let blocks = pilot.next()..pilot.blocks().end;
    let wanted = access::bytes(&blocks, size);
    let mut answer = ask(object, wanted.start..wanted.end).await?;
    pilot.moved();
    if room.is_none() {
        let taken = object.shared.rooms.take(blocks.end - blocks.start, purpose).await;
        *room = Some(taken.map_err(Failure::Final)?);
        pilot.moved();
    }
    let last = blocks.end - 1;
    let mut at = blocks.start;
    let mut block = BytesMut::with_capacity(access::block_len(at, size));
    while let Some(chunk) = answer.next().await {
        let mut chunk = chunk.map_err(Failure::Answer)?;
        pilot.moved();
        while !chunk.is_empty() {
            let missing = access::block_len(at, size) - block.len();
            if missing == 0 {
                return Err(wrong_length(object, "more"));
            }
            block.extend_from_slice(&chunk.split_to(missing.min(chunk.len())));
            if at < last && block.len() == access::block_len(at, size) {
                at += 1;
                let next = BytesMut::with_capacity(access::block_len(at, size));
                pilot.deliver(std::mem::replace(&mut block, next).freeze());
            }
        }
    }
    if at < last || block.len() < access::block_len(at, size) {
        return Err(wrong_length(object, "fewer"));
    }
    pilot.deliver(block.freeze());
    Ok(())
}

/// Brings the object as a whole; nothing is served before its stream ended well, unless the provider says that it may.
/// Then puts it into the cache.
pub(super) async fn whole(object: Arc<Object>, pilot: Pilot) {
    let Ok(_room) = object.shared.rooms.take(FLUSH, &Purpose::Wanted).await else {
        return;
    };
    let result = bring_whole(&object, &pilot).await;
    let good = result.is_ok();
    pilot.end(result);
    if good {
        object.fill_cache_from_spill().await;
    }
}

async fn bring_whole(object: &Object, pilot: &Pilot) -> Result<()> {
    let settings = &object.shared.settings;
    if object.id.size > settings.spill_limit {
        let message = format!(
            "the provider gives this file only as a whole, and its {} bytes are more than the {} that may be held locally",
            object.id.size, settings.spill_limit
        );
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    let spill = Spill::create(&settings.spill_directory)
        .await
        .map_err(|error| no_room(object, error))?;
    let mut attempt = 1;
    loop {
        match ask_for_whole(object, pilot, &spill).await {
            Ok(()) => {
                object.keep(spill);
                return Ok(());
            }
            Err(failure) if attempt < failure.attempts() => attempt += 1,
            Err(failure) => return Err(failure.into_error()),
        }
    }
}

async fn ask_for_whole(object: &Object, pilot: &Pilot, spill: &Spill) -> Result<(), Failure> {
    let size = object.id.size;
    let mut answer = ask(object, 0..size).await?;
    pilot.moved();
    let mut written = 0;
    let mut waiting = BytesMut::new();
    while let Some(chunk) = answer.next().await {
        let chunk = chunk.map_err(Failure::Answer)?;
        pilot.moved();
        if chunk.len() as u64 > size - written - waiting.len() as u64 {
            return Err(wrong_length(object, "more"));
        }
        waiting.extend_from_slice(&chunk);
        if waiting.len() as u64 >= FLUSH * BLOCK {
            flush(object, spill, &mut written, &mut waiting).await?;
            if object.shared.reads == Reads::WholeInOrder {
                pilot.deliver_part(spill, written);
            }
        }
    }
    flush(object, spill, &mut written, &mut waiting).await?;
    if written < size {
        return Err(wrong_length(object, "fewer"));
    }
    Ok(())
}

async fn flush(object: &Object, spill: &Spill, written: &mut u64, waiting: &mut BytesMut) -> Result<(), Failure> {
    let bytes: Bytes = waiting.split().freeze();
    let len = bytes.len() as u64;
    spill
        .write(*written, bytes)
        .await
        .map_err(|error| Failure::Final(no_room(object, error)))?;
    *written += len;
    Ok(())
}

async fn ask(object: &Object, range: std::ops::Range<u64>) -> Result<ByteStream, Failure> {
    let provider = &object.shared.provider;
    provider.read(&object.id, range).await.map_err(Failure::Final)
}

fn no_room(object: &Object, error: Error) -> Error {
    error.context(format_args!("{} cannot be held locally", object.id.key))
}

fn wrong_length(object: &Object, more_or_fewer: &str) -> Failure {
    Failure::Answer(Error::bad_data(format!(
        "the provider sent {more_or_fewer} bytes of {} than it promised",
        object.id.key
    )))
}
