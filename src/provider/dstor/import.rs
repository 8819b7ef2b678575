//! Brings contents that were stored elsewhere into the tree: a list in a file, of paths and hashes.
//!
//! A list is imported once; a changed list once more. What has a name in the tree already stays as it is.

use std::path::Path;
use std::time::SystemTime;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tracing::info;

use super::client::Client;
use super::index::Index;
use crate::model::{ContentAddress, Error, ErrorKind, IndexId, IndexedContent, IndexedFile, Name, Result};
use crate::provider::content::hex;

/// The longest list, in bytes: some hundred thousand files.
const MAX_LIST: u64 = 64 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    /// From the tree's root, divided by slashes.
    path: String,
    /// Or a hash with the way below it.
    hash: String,
    #[serde(default)]
    kind: ItemKind,
    /// In bytes; asked for without it.
    size: Option<u64>,
    /// RFC 3339.
    modified: Option<String>,
    sha256: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ItemKind {
    #[default]
    File,
    /// A hashed folder: what is in it is further items below its path.
    Folder,
}

/// # Errors
/// `InvalidInput` when the file isn't such a list or cannot be read, and as asking for a size fails.
pub(super) async fn import(client: &Client, index: &dyn Index, file: &Path) -> Result<()> {
    let refuse = |why: String| Error::new(ErrorKind::InvalidInput, format!("the index {}: {why}", file.display()));
    let list = read(file).await.map_err(|error| refuse(error.to_string()))?;
    let digest = hex(&Sha256::digest(&list));
    if index.imported()?.as_deref() == Some(&digest) {
        return Ok(());
    }
    let mut items: Vec<Item> = serde_json::from_slice(&list).map_err(|error| refuse(error.to_string()))?;
    // A folder comes before what is in it.
    items.sort_by(|one, other| one.path.trim_matches('/').cmp(other.path.trim_matches('/')));
    let mut added = 0;
    for item in &items {
        let place = place(item).map_err(|error| refuse(format!("{:?}: {error}", item.path)))?;
        added += usize::from(add(client, index, item, place).await?);
    }
    index.note_import(&digest)?;
    info!(file = %file.display(), added, known = items.len() - added, "the index was imported");
    Ok(())
}

async fn read(file: &Path) -> Result<Vec<u8>> {
    let length = tokio::fs::metadata(file).await?.len();
    if length > MAX_LIST {
        return Err(Error::new(ErrorKind::TooLarge, format!("{length} bytes are too many")));
    }
    Ok(tokio::fs::read(file).await?)
}

/// Where an item belongs and what it is, as far as the list says.
struct Placed {
    directories: Vec<Name>,
    name: Name,
    address: ContentAddress,
    modified: SystemTime,
}

fn place(item: &Item) -> Result<Placed> {
    let invalid = |why: &str| Error::new(ErrorKind::InvalidInput, why);
    let mut directories = item
        .path
        .trim_matches('/')
        .split('/')
        .map(Name::new)
        .collect::<Result<Vec<_>>>()?;
    let name = directories.pop().ok_or_else(|| invalid("there is no name"))?;
    let address = ContentAddress::new(&item.hash).ok_or_else(|| invalid("hash is not one"))?;
    let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !item.sha256.iter().all(is_digest) {
        return Err(invalid("sha256 is not one"));
    }
    let modified = match &item.modified {
        None => SystemTime::UNIX_EPOCH,
        Some(text) => text
            .parse::<jiff::Timestamp>()
            .map_err(|_| invalid("modified is not a time such as 2024-01-31T12:00:00Z"))?
            .into(),
    };
    Ok(Placed {
        directories,
        name,
        address,
        modified,
    })
}

/// Says whether the item's name was free.
async fn add(client: &Client, index: &dyn Index, item: &Item, placed: Placed) -> Result<bool> {
    let mut parent = index.root();
    for name in &placed.directories {
        parent = match index.child(parent, name) {
            Ok(there) => there.id,
            Err(error) if error.kind() == ErrorKind::NotFound => directory(index, parent, name)?,
            Err(error) => return Err(error),
        };
    }
    if index.child(parent, &placed.name).is_ok() {
        return Ok(false);
    }
    let content = match item.kind {
        ItemKind::Folder => IndexedContent::Folder(placed.address),
        ItemKind::File => IndexedContent::File(IndexedFile {
            size: match item.size {
                Some(size) => size,
                None => client.length(&placed.address).await?,
            },
            address: placed.address,
            sha256: item.sha256.clone(),
        }),
    };
    match index.insert(parent, &placed.name, &content, placed.modified) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A directory on the way; within a hashed folder it is one too.
fn directory(index: &dyn Index, parent: IndexId, name: &Name) -> Result<IndexId> {
    let content = match index.entry(parent)?.content {
        IndexedContent::Folder(above) => match ContentAddress::new(&format!("{above}/{name}")) {
            Some(address) => IndexedContent::Folder(address),
            None => IndexedContent::Directory,
        },
        IndexedContent::Directory | IndexedContent::File(_) => IndexedContent::Directory,
    };
    Ok(index.insert(parent, name, &content, SystemTime::UNIX_EPOCH)?.id)
}
