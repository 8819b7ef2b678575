//! Brings contents that were stored elsewhere into the tree: a list in a file, of paths and hashes.
//!
//! A list is imported once; a changed list once more. What has a name in the tree already stays as it is.

use std::path::Path;

use sha2::{Digest, Sha256};
use tracing::info;

use super::client::Client;
use super::index::Index;
use super::index_file::{WrittenContent, listing, read_list};
use crate::model::{Error, ErrorKind, Result, Taking};
use crate::provider::content::hex;

/// The longest list, in bytes: some hundred thousand files.
pub const MAX_LIST: u64 = 64 << 20;

/// # Errors
/// `InvalidInput` when the file isn't such a list or cannot be read, and as asking for a size fails.
pub(super) async fn import(client: &Client, index: &dyn Index, file: &Path) -> Result<()> {
    let refuse = |error: Error| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("the index {}: {}", file.display(), error.message()),
        )
    };
    let list = read(file).await.map_err(refuse)?;
    let digest = hex(&Sha256::digest(&list));
    if index.imported()?.as_deref() == Some(&digest) {
        return Ok(());
    }
    let mut entries = read_list(&list).map_err(refuse)?;
    for entry in &mut entries {
        if let WrittenContent::Unmeasured { address, .. } = &entry.content {
            let size = client.length(address).await?;
            entry.measure(size);
        }
    }
    let taken = index.take(&listing(&entries).map_err(refuse)?, Taking::Merge)?;
    index.note_import(&digest)?;
    info!(file = %file.display(), added = taken.added, kept = taken.kept, "the index was imported");
    Ok(())
}

async fn read(file: &Path) -> Result<String> {
    let length = tokio::fs::metadata(file).await?.len();
    if length > MAX_LIST {
        return Err(Error::new(ErrorKind::TooLarge, format!("{length} bytes are too many")));
    }
    Ok(tokio::fs::read_to_string(file).await?)
}
