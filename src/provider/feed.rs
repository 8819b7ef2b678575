//! What a service tells of changes as they happen, so that they are seen before what is known of them gets old.
//!
//! A feed only says where something changed; what it is now is asked for by whoever needs it. A service without one is
//! asked again when attributes and listings are too old, and so is one whose feed fails.

use async_trait::async_trait;

use crate::model::{ObjectKey, Result};

/// Where something changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    /// In this directory: a name came or went, or an entry has another content or other attributes.
    Within(ObjectKey),
    /// Nobody knows where; all that is known may be wrong.
    Anywhere,
}

/// One listener's place in the stream of changes.
///
/// The listener asks for the next ones as long as it relies on anything, and makes a pause after an error. A feed keeps
/// its requests few whatever the listener does: it says for itself how long it waits before it looks again.
#[async_trait]
pub trait ChangeFeed: Send {
    /// Waits for changes in the directories that are relied upon, `watched`, the latest used first. Gives those since the
    /// last call, none when it waited long enough. What is told of a directory for the first time begins where the
    /// provider was last asked for it, so that nothing is missed between a listing and the first call. Changes made
    /// through this provider itself needn't be told.
    ///
    /// # Errors
    /// As every request; the feed may be asked again and goes on, or tells `Anywhere` if it missed something.
    async fn next(&mut self, watched: &[ObjectKey]) -> Result<Vec<Change>>;
}
