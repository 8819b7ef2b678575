//! Who may see a folder, as `user.keymount.visibility`: `public`, `shared` or `private`. Only the listing of the folder above
//! tells it, and no request changes it.

use async_trait::async_trait;

use super::Cludz;
use super::client::split;
use crate::model::{Entry, Error, Result};
use crate::provider::Extras;

const VISIBILITY: &str = "visibility";

#[async_trait]
impl Extras for Cludz {
    fn has(&self, entry: &Entry, name: &str) -> bool {
        name == VISIBILITY && entry.is_directory() && !entry.key.as_str().is_empty()
    }

    async fn get(&self, entry: &Entry, _: &str) -> Result<String> {
        let (parent, name) = split(entry.key.as_str());
        let listed = self.client.list(parent).await?;
        let folder = listed.into_iter().find(|item| item.is_directory && item.name == name);
        let folder = folder.ok_or_else(|| Error::not_found(format_args!("{name:?}")))?;
        Ok(folder.sharing_status.unwrap_or_else(|| "private".to_owned()))
    }

    async fn set(&self, _: &Entry, _: &str, _: Option<&str>) -> Result<()> {
        Err(Error::unsupported(
            "who may see a folder is set in the Cludz dashboard only",
        ))
    }
}
