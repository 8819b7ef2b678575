//! What a service keeps beside files and labels: former versions, a trash, attachments. It is reached as extended
//! attributes, `user.keymount.NAME`. Each takes requests, so it is asked for by its name only and never listed.

use async_trait::async_trait;

use crate::model::{Entry, Result};

/// A provider's attributes of that kind.
#[async_trait]
pub trait Extras: Send + Sync {
    /// Whether an entry can have such an attribute, without asking the service. `name` has no `user.keymount.`.
    fn has(&self, entry: &Entry, name: &str) -> bool;

    /// # Errors
    /// `NoAttribute` for one that isn't set or can only be set; `TooLarge` for more than an attribute can hold.
    async fn get(&self, entry: &Entry, name: &str) -> Result<String>;

    /// Does what setting it means; `None` removes it. What the entry, and all that is in it, is afterwards has to be asked
    /// for anew.
    ///
    /// # Errors
    /// `Unsupported` for one that can only be read, `InvalidInput` for a value that means nothing.
    async fn set(&self, entry: &Entry, name: &str, value: Option<&str>) -> Result<()>;
}
