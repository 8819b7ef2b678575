//! One object that several machines write in turn: whoever writes must have read what it replaces.
//!
//! This is what an index is shared through. A service qualifies if it refuses a write whose condition doesn't hold
//! (RFC 9110, 13.1: `If-Match`, `If-None-Match`); looking before is not enough here.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use tracing::debug;
use uuid::Uuid;

use super::ByteStream;
use crate::model::{Error, ErrorKind, Result, Version};

/// How often a version is read that is replaced while it is.
pub(super) const READS: u32 = 5;

/// What a register holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    Nothing,
    /// What the asker knows already.
    Same,
    Bytes(Bytes, Version),
}

/// A place for one object. Every method may fail as those of a provider.
#[async_trait]
pub trait Register: Send + Sync + 'static {
    /// Where it is, for people.
    fn place(&self) -> String;

    /// # Errors
    /// `TooLarge` beyond `limit` bytes.
    async fn read(&self, known: Option<&Version>, limit: u64) -> Result<Held>;

    /// Writes over exactly this version, or where nothing is; gives the new one.
    ///
    /// # Errors
    /// `Changed` when something else is there, and nothing was written. After `Unreachable` and `TimedOut` it may have
    /// been written all the same.
    async fn write(&self, bytes: Bytes, over: Option<&Version>) -> Result<Version>;

    /// Another one in the same directory, with this after its name.
    fn beside(&self, suffix: &str) -> Arc<dyn Register>;

    /// Empties it, whatever it holds.
    async fn remove(&self) -> Result<()>;
}

/// Tries with a register beside this one whether the service refuses what it should.
///
/// # Errors
/// `Unsupported` when it doesn't.
pub async fn check(register: &dyn Register) -> Result<()> {
    let trial = register.beside(&format!(".check-{}", Uuid::new_v4()));
    let outcome = refuses_stale_writes(&*trial).await;
    if let Err(error) = trial.remove().await {
        debug!(%error, place = trial.place(), "what was tried with stays there");
    }
    outcome
}

async fn refuses_stale_writes(trial: &dyn Register) -> Result<()> {
    let ignores = || {
        let message = format!(
            "the service of {} ignores conditions of writes, so machines that share an index there would overwrite each \
             other's changes; name a remote at another service",
            trial.place()
        );
        Err(Error::unsupported(message))
    };
    let refused = |outcome: Result<Version>| match outcome {
        Err(error) if error.kind() == ErrorKind::Changed => Ok(true),
        Err(error) => Err(error),
        Ok(_) => Ok(false),
    };
    // Every text has another length: versions may be made of that and of a time in seconds.
    let first = trial.write(Bytes::from_static(b"1"), None).await?;
    if !refused(trial.write(Bytes::from_static(b"22"), None).await)? {
        return ignores();
    }
    let third = Bytes::from_static(b"333");
    let second = trial.write(third.clone(), Some(&first)).await?;
    if second == first || !refused(trial.write(Bytes::from_static(b"4444"), Some(&first)).await)? {
        return ignores();
    }
    match trial.read(None, 16).await? {
        Held::Bytes(bytes, version) if bytes == third && version == second => Ok(()),
        _ => ignores(),
    }
}

/// The version that a service didn't tell of what was just written, if that is still there.
///
/// # Errors
/// `Changed` when something else is there by now.
pub(super) async fn version_of(register: &dyn Register, written: &Bytes) -> Result<Version> {
    match register.read(None, written.len() as u64).await {
        Ok(Held::Bytes(bytes, version)) if bytes == *written => Ok(version),
        Ok(_) => Err(replaced(&register.place())),
        Err(error) if error.kind() == ErrorKind::TooLarge => Err(replaced(&register.place())),
        Err(error) => Err(error),
    }
}

pub(super) fn replaced(place: &str) -> Error {
    Error::new(ErrorKind::Changed, format!("{place} was written by another machine"))
}

/// All bytes of a stream.
///
/// # Errors
/// `TooLarge` beyond `limit` bytes, and the stream's.
pub(super) async fn gathered(mut stream: ByteStream, limit: u64) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.try_next().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            let message = format!("it is longer than {limit} bytes");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
    }
    Ok(bytes.freeze())
}
