//! Finds out what a service does when two change one key at the same moment.
//!
//! No document tells it for all services that speak like S3, and one that doesn't know a condition ignores it without a
//! word. So it is tried, once for each mount that changes something, with two small objects of keymount's own.

use tracing::{info, warn};

use super::lock::OWN;
use super::store::{Condition, Store};
use crate::model::{ErrorKind, Result, Version};

/// What keeps those apart who change the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apart {
    /// The service minds the condition of every change: to store, to copy and to delete.
    Conditions,
    /// It doesn't mind all of them, so keymount does: see `lock`.
    Locks,
    /// Nothing: there are no rights to find it out, or to have locks.
    Looks,
}

/// An entity tag that no object has.
const NEVER: &str = "\"00000000000000000000000000000000\"";

/// Tries each condition at two objects in `directory`, and takes them away again.
///
/// # Errors
/// The service's.
pub(super) async fn find_out(store: &Store, directory: &str) -> Result<Apart> {
    let own = format!("{directory}{OWN}probe.{:016x}", fastrand::u64(..));
    let other = format!("{own}.copy");
    match store.put_mark(&own).await {
        // Who may store nothing can have no locks.
        Err(error) if error.kind() == ErrorKind::Denied => return Ok(Apart::Looks),
        stored => stored?,
    }
    let minds = minds_all(store, &own, &other).await;
    let mut cleared = store.delete_mark(&own).await;
    if !matches!(minds, Ok(false)) {
        cleared = cleared.and(store.delete_mark(&other).await);
    }
    match (minds?, cleared) {
        (true, _) => Ok(Apart::Conditions),
        (false, Ok(())) => {
            info!("the service ignores conditions; locks keep the mounts of this bucket apart");
            Ok(Apart::Locks)
        }
        (false, Err(error)) if error.kind() == ErrorKind::Denied => {
            warn!("the service ignores conditions, and without the right to delete there are no locks either");
            Ok(Apart::Looks)
        }
        (false, Err(error)) => Err(error),
    }
}

/// Whether each change is refused whose condition doesn't hold. Ends with the first that isn't.
async fn minds_all(store: &Store, own: &str, other: &str) -> Result<bool> {
    let never = Version::new(NEVER);
    let (free, never) = (Condition::Free, Condition::Version(&never));
    for condition in [free, never] {
        if !refused(store.put_bytes(own, b"probe", condition).await)? {
            return Ok(false);
        }
    }
    if !refused(store.delete(own, never).await)? {
        return Ok(false);
    }
    store.put_mark(other).await?;
    for condition in [free, never] {
        if !refused(store.copy(own, other, condition).await)? {
            store.delete_mark(other).await?;
            return Ok(false);
        }
    }
    Ok(true)
}

fn refused<T>(outcome: Result<T>) -> Result<bool> {
    match outcome {
        Ok(_) => Ok(false),
        Err(error) => match error.kind() {
            ErrorKind::Changed | ErrorKind::AlreadyExists => Ok(true),
            // It knows the condition by its name, and refuses to mind it; or it took an ignored deletion at its word.
            ErrorKind::Unsupported | ErrorKind::InvalidInput | ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}
