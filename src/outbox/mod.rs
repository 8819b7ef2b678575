//! Changed files on their way to the provider.
//!
//! A change is staged in a local file and entered in the journal, so that it outlives the process; a queue sends it in
//! the background. It knows no inodes and no kernel: which file of the tree a staged one is, is the caller's affair.

pub mod base;
pub mod conflict;
mod holes;
mod idle;
mod journal;
mod label;
mod map;
mod queue;
mod recovery;
mod room;
mod saved;
mod spool;
mod staged;
mod unanswered;

pub use holes::{Length, Seek};
pub use journal::{Begun, Journal, Step, boot};
pub use queue::{Attempt, Queue, Sender};
pub use recovery::{Recovered, recover};
pub use saved::save_copy;
pub use spool::{Spool, SpoolFile, is_in_use};
pub use staged::{Part, Sending, Staged};

use std::path::Path;

use crate::model::{Entry, Error, ErrorKind, PosixAttributes, Result};
use crate::provider::{Provider, Target};

/// Sends what was staged since the last upload; `None` when there was nothing to send. `beside` says what the file is to
/// have beside that state of its content; `remember` is awaited when no answer came and that is news, before anybody
/// writes on.
///
/// Writers wait until the `Sending` is dropped: what is sent is one state of the file, not a mixture. Without `done` it
/// counts as not sent.
///
/// # Errors
/// As `Provider::upload`; the content stays staged.
pub async fn upload<'a>(
    provider: &dyn Provider,
    staged: &'a Staged,
    target: Target,
    beside: impl FnOnce() -> Result<Option<PosixAttributes>>,
    remember: impl Future<Output = ()>,
) -> Result<Option<(Entry, Sending<'a>)>> {
    let Some(sending) = staged.begin_upload().await else {
        return Ok(None);
    };
    if !staged.is_whole() {
        return Err(Error::internal("a part of a changed file was to be sent as the whole"));
    }
    let content = match beside()? {
        Some(attributes) => sending.content().clone().with_attributes(attributes),
        None => sending.content().clone(),
    };
    fail_point!("upload.begun");
    sending.begins();
    let entry = match provider.upload(&target, &content).await {
        Err(error) if may_have_effect(error.kind()) => {
            // Without its checksum it is only not recognised.
            if let Ok(true) = sending.gets_no_answer().await {
                remember.await;
            }
            return Err(error);
        }
        outcome => {
            sending.is_answered();
            outcome?
        }
    };
    fail_point!("upload.stored");
    Ok(Some((entry, sending)))
}

/// How many bytes of a staged file are only at the provider.
///
/// # Errors
/// `BadData` when nobody can tell, and the local disk's.
pub fn missing_bytes(staged: &Path) -> Result<u64> {
    match spool::map_of(staged) {
        Some(map) => map::missing_bytes(&map, staged.symlink_metadata()?.len()),
        None => Ok(0),
    }
}

/// Whether the provider may have stored it although it failed.
pub fn may_have_effect(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unreachable
            | ErrorKind::TimedOut
            | ErrorKind::BadData
            | ErrorKind::Busy
            | ErrorKind::NotFound
            | ErrorKind::Internal
            | ErrorKind::RateLimited { .. }
    )
}
