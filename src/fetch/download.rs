//! The tasks that bring a run of blocks, from the provider or from the disk, or a whole object.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use super::access;
use super::flight::Pilot;
use super::pattern::Pace;
use super::room::{Purpose, Room};
use super::source::Object;
use super::spill::Spill;
use crate::cache::BLOCK;
use crate::model::{Error, ErrorKind, Result};
use crate::provider::{ByteStream, Reads};

/// The bytes of a whole that are written to disk at once, in blocks: 256 KiB.
const FLUSH: u64 = (256 << 10) / BLOCK;

/// So long what came ahead stays at hand at most. Who reads more slowly needs no more than the disk; and the answers that
/// wait for room hold connections.
const REST: Duration = Duration::from_secs(5);

/// What was read from the disk stays at hand for so long even when room is short: to read it again would take more.
const GRACE: Duration = Duration::from_millis(250);

/// How often those who wait are told that bytes move, at most: each time wakes all of them.
const SIGN_OF_LIFE: Duration = Duration::from_millis(100);

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

/// Brings the pilot's blocks and serves them when somebody wants them, the last one when the answer ended well; then puts
/// them into the cache. What is ahead of a reader stays at hand until it is read.
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
    // With the end in one step: a reader that goes with the last block would else abort this before the cache has it.
    pilot.end_with(result);
    if good {
        let cache = &object.shared.cache;
        cache.put(&object.content, pilot.delivered()).await;
        if cache.missing(&object.content, blocks).await.is_empty() {
            if matches!(purpose, Purpose::Ahead { .. }) && pilot.rest() {
                let _ = timeout(REST, object.shared.rooms.somebody_waits()).await;
            }
            pilot.unload();
        }
    }
}

/// Brings the pilot's blocks from the cache and keeps them at hand until they are read. Those that turn out not to be
/// there are up to who wants them, and all of them when there is no room: nobody waits for a line to read from the disk.
pub(super) async fn kept(object: Arc<Object>, pilot: Pilot, purpose: Purpose) {
    let blocks = pilot.blocks();
    let rooms = &object.shared.rooms;
    let Some(_room) = rooms.take_at_once(blocks.end - blocks.start, &purpose) else {
        return pilot.unload();
    };
    for run in object.cached(blocks.clone()).await {
        if run.first == pilot.next() {
            pilot.deliver(run.bytes);
        }
    }
    if pilot.next() == blocks.end {
        pilot.end(Ok(()));
        if pilot.rest() {
            let room_is_short = async {
                sleep(GRACE).await;
                rooms.is_short().await;
            };
            let _ = timeout(REST, room_is_short).await;
        }
    }
    pilot.unload();
}

/// One request for what the pilot hasn't delivered yet. Its bytes are taken in when there is room. Gives those that are
/// still to be delivered when the answer has ended well.
async fn ask_for_blocks(
    object: &Object,
    pilot: &Pilot,
    purpose: &Purpose,
    room: &mut Option<Room>,
) -> Result<Bytes, Failure> {
    let size = object.id.size;
    let blocks = pilot.next()..pilot.blocks().end;
    let wanted = access::bytes(&blocks, size);
    let asked = Instant::now();
    let mut answer = ask(object, wanted.start..wanted.end).await?;
    let delay = asked.elapsed();
    pilot.moved();
    if room.is_none() {
        let taken = object.shared.rooms.take(blocks.end - blocks.start, purpose).await;
        *room = Some(taken.map_err(Failure::Final)?);
        pilot.moved();
    }
    let len = (wanted.end - wanted.start) as usize;
    let began = Instant::now();
    let mut told = began;
    // One piece of memory, so that whoever reads much at once gets it as it is.
    let mut bytes = BytesMut::with_capacity(len);
    let mut have = 0;
    loop {
        let chunk = tokio::select! {
            chunk = answer.next() => chunk,
            () = pilot.new_wish() => {
                deliver_wished(pilot, &mut bytes);
                continue;
            }
        };
        let Some(chunk) = chunk else { break };
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                deliver(pilot, &mut bytes);
                return Err(Failure::Answer(error));
            }
        };
        if told.elapsed() >= SIGN_OF_LIFE {
            pilot.moved();
            told = Instant::now();
        }
        have += chunk.len();
        if have > len {
            return Err(wrong_length(object, "more"));
        }
        bytes.extend_from_slice(&chunk);
        deliver_wished(pilot, &mut bytes);
    }
    if have < len {
        deliver(pilot, &mut bytes);
        return Err(wrong_length(object, "fewer"));
    }
    pilot.paced(Pace {
        delay,
        bytes: len as u64,
        took: began.elapsed(),
    });
    Ok(bytes.freeze())
}

/// Serves the blocks that are complete, if somebody waits for them.
fn deliver_wished(pilot: &Pilot, bytes: &mut BytesMut) {
    let first = pilot.next();
    if pilot.is_wished_for(&(first..first + complete(pilot, bytes))) {
        deliver(pilot, bytes);
    }
}

fn deliver(pilot: &Pilot, bytes: &mut BytesMut) {
    let blocks = complete(pilot, bytes);
    if blocks > 0 {
        pilot.deliver(bytes.split_to((blocks * BLOCK) as usize).freeze());
    }
}

/// How many of the next blocks are here. The last one isn't before the answer ended.
fn complete(pilot: &Pilot, bytes: &BytesMut) -> u64 {
    let last = pilot.blocks().end - 1;
    (bytes.len() as u64 / BLOCK).min(last - pilot.next())
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
            // Its end is served when it is kept: a reader that goes with it would else abort this.
            if object.shared.reads == Reads::WholeInOrder && written < size {
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
