//! Changed files on their way to the provider.
//!
//! A change is staged in a local file and entered in the journal, so that it outlives the process; a queue sends it in
//! the background. It knows no inodes and no kernel: which file of the tree a staged one is, is the caller's affair.

pub mod base;
pub mod conflict;
mod queue;
mod saved;
mod spool;
mod staged;

pub use queue::{Attempt, Queue, Sender};
pub use saved::save_copy;
pub use spool::{Spool, SpoolFile, is_in_use, sweep};
pub use staged::{Sending, Staged};

use crate::model::{Entry, Result};
use crate::provider::{Provider, Target};

/// Sends what was staged since the last upload; `None` when there was nothing to send.
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
) -> Result<Option<(Entry, Sending<'a>)>> {
    let Some(sending) = staged.begin_upload().await else {
        return Ok(None);
    };
    let entry = provider.upload(&target, sending.content()).await?;
    Ok(Some((entry, sending)))
}
