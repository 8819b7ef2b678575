//! Changes of several requests that must come to their end.

use crate::model::{Error, Progress, Result};

/// Runs a change of several requests to its end even if the caller stops waiting in the middle.
///
/// # Errors
/// Those of the change; `Internal` when it panicked.
pub async fn unbroken<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let progress = Progress::current();
    match tokio::spawn(async move { progress.scope(work).await }).await {
        Ok(result) => result,
        Err(_) => Err(Error::internal("a change at the provider was interrupted")),
    }
}
