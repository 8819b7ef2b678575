//! Changed files on their way to the provider.
//!
//! Today a file is uploaded while `flush` or `fsync` waits; what could not be sent stays staged as long as the daemon
//! lives. It knows no inodes and no kernel.

mod staged;

pub use staged::{Staged, StagingArea};

use crate::model::{Entry, Result};
use crate::provider::{Provider, Target};

/// Sends what was staged since the last upload. `None` when there was nothing to send.
///
/// Writers wait meanwhile: what is sent is one state of the file, not a mixture.
///
/// # Errors
/// As `Provider::upload`; the content stays staged.
pub async fn upload(provider: &dyn Provider, staged: &Staged, target: Target) -> Result<Option<Entry>> {
    let Some(sending) = staged.begin_upload().await else {
        return Ok(None);
    };
    let entry = provider.upload(&target, sending.content()).await?;
    sending.done();
    Ok(Some(entry))
}
