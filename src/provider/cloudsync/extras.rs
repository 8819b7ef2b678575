//! A file's former versions: listed as `user.keymount.versions`, and made current again by setting `user.keymount.restore`
//! to the number of one. The service hands over the bytes of the current version only.

use async_trait::async_trait;

use super::key::Key;
use super::wire::StoredVersion;
use super::{CloudSync, item_of};
use crate::model::{Entry, Error, ErrorKind, Kind, Result};
use crate::provider::Extras;

const VERSIONS: &str = "versions";
const RESTORE: &str = "restore";

#[async_trait]
impl Extras for CloudSync {
    fn has(&self, entry: &Entry, name: &str) -> bool {
        entry.kind == Kind::File && matches!(name, VERSIONS | RESTORE)
    }

    async fn get(&self, entry: &Entry, name: &str) -> Result<String> {
        if name != VERSIONS {
            let message = format!("{name} is set, not read: its value is the number of the version to restore");
            return Err(Error::new(ErrorKind::NoAttribute, message));
        }
        let (_, id) = item_of(entry)?;
        let versions = self.client.versions(&id).await?;
        Ok(versions.iter().map(StoredVersion::line).collect())
    }

    async fn set(&self, entry: &Entry, name: &str, value: Option<&str>) -> Result<()> {
        let (RESTORE, Some(value)) = (name, value) else {
            let message = "versions are listed only; to restore one, set user.keymount.restore to its number";
            return Err(Error::unsupported(message));
        };
        let Ok(number) = value.trim().parse::<u64>() else {
            let message = format!("restore a version: {value:?} is not the number of one");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        };
        match Key::parse(&entry.key)? {
            Key::Item { workspace, id } => self.client.restore(&workspace, &id, number).await,
            Key::Workspace(_) | Key::Account => Err(Error::new(ErrorKind::IsADirectory, "a workspace has no versions")),
        }
    }
}
