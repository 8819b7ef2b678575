//! Entries of a tree that keymount keeps itself, for a service that finds contents by their hash and knows no paths.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Error, Kind, Name};

/// Names an entry for ever: it survives renames and is given once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IndexId(pub i64);

/// Where the service has a content: its hash, or the hash of an immutable folder and the way below it.
/// Equal addresses have equal contents.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentAddress(Arc<str>);

/// One entry of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed {
    pub id: IndexId,
    /// `None` for the root.
    pub name: Option<Name>,
    pub content: IndexedContent,
    pub modified: SystemTime,
    /// Whether it lies in an immutable folder.
    pub sealed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexedContent {
    /// Known here only.
    Directory,
    /// A directory that the service has as one immutable object.
    Folder(ContentAddress),
    File(IndexedFile),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedFile {
    pub address: ContentAddress,
    /// In bytes.
    pub size: u64,
    /// In lower-case hexadecimal; `None` for what was never seen as a whole.
    pub sha256: Option<String>,
}

impl ContentAddress {
    /// `None` when the text begins with no hash, or what follows isn't a path below it.
    pub fn new(text: &str) -> Option<Self> {
        let (hash, below) = match text.split_once('/') {
            Some((hash, below)) => (hash, Some(below)),
            None => (text, None),
        };
        // 46 characters have version 0 of IPFS's hashes; all versions have letters and digits only.
        let is_hash = (46..=128).contains(&hash.len()) && hash.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_path = below.is_none_or(|below| below.split('/').all(|name| Name::new(name).is_ok()));
        (is_hash && is_path).then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it lies in the immutable folder that has this address.
    pub fn is_below(&self, folder: &Self) -> bool {
        self.0
            .strip_prefix(&*folder.0)
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

impl TryFrom<String> for ContentAddress {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::new(&text).ok_or_else(|| Error::bad_data(format!("{text:?} is no content's address")))
    }
}

impl From<ContentAddress> for String {
    fn from(address: ContentAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for ContentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl IndexedContent {
    pub fn is_directory(&self) -> bool {
        matches!(self, Self::Directory | Self::Folder(_))
    }

    /// Whether it is the same to whoever reads it.
    pub fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(own), Self::File(theirs)) => own.address == theirs.address,
            (own, theirs) => own == theirs,
        }
    }
}

impl Indexed {
    pub fn kind(&self) -> Kind {
        match self.content {
            IndexedContent::Directory | IndexedContent::Folder(_) => Kind::Directory,
            IndexedContent::File(_) => Kind::File,
        }
    }

    pub fn is_directory(&self) -> bool {
        self.kind() == Kind::Directory
    }

    pub fn file(&self) -> Option<&IndexedFile> {
        match &self.content {
            IndexedContent::File(file) => Some(file),
            IndexedContent::Directory | IndexedContent::Folder(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_hash_and_a_path_below_it() {
        let hash = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";
        for good in [
            hash.to_owned(),
            format!("{hash}/a"),
            format!("{hash}/a b/ü.txt"),
            "b".repeat(59),
        ] {
            assert_eq!(
                ContentAddress::new(&good).map(|address| address.to_string()),
                Some(good)
            );
        }
        for bad in [
            String::new(),
            "Qm".to_owned(),
            format!("{hash}/"),
            format!("{hash}//a"),
            format!("{hash}/../x"),
            format!("/{hash}"),
            "?".repeat(46),
            "a".repeat(129),
        ] {
            assert_eq!(ContentAddress::new(&bad), None, "{bad:?}");
        }
    }
}
