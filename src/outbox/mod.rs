//! Changed files on their way to the provider.
//!
//! Today a file is uploaded while `flush` or `fsync` waits; what could not be sent stays staged as long as the daemon
//! lives. It knows no inodes and no kernel.

mod staged;

pub use staged::{Sending, Staged, StagingArea};

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
