//! The account's trash, on the mounted directory: `user.keymount.trash` lists it and empties it when it is set to `empty`,
//! `user.keymount.restore` takes back what is set by its id.

use async_trait::async_trait;

use super::Storra;
use super::wire::Trashed;
use crate::model::{Entry, Error, ErrorKind, Result};
use crate::provider::Extras;

const TRASH: &str = "trash";
const RESTORE: &str = "restore";
/// The value that empties the trash.
const EMPTY: &str = "empty";

#[async_trait]
impl Extras for Storra {
    fn has(&self, entry: &Entry, name: &str) -> bool {
        entry.is_directory() && entry.key.as_str() == self.root && matches!(name, TRASH | RESTORE)
    }

    async fn get(&self, _: &Entry, name: &str) -> Result<String> {
        if name != TRASH {
            let message = format!("{name} is set, not read: its value is an id that user.keymount.trash shows");
            return Err(Error::new(ErrorKind::NoAttribute, message));
        }
        let trash = self.client.trash().await?;
        Ok(trash.iter().map(Trashed::line).collect())
    }

    async fn set(&self, _: &Entry, name: &str, value: Option<&str>) -> Result<()> {
        let value = value.map(str::trim).filter(|value| !value.is_empty());
        let outcome = match (name, value) {
            (TRASH, Some(EMPTY)) => self.client.empty_trash().await,
            (RESTORE, Some(id)) => self.client.restore(id).await,
            _ => {
                let message = "set user.keymount.restore to an id that user.keymount.trash shows, or \
                               user.keymount.trash to \"empty\"";
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
        };
        self.snapshot.expire();
        outcome
    }
}
