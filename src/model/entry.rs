//! What a provider knows of one file or directory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Name, Rights, ToldAttributes};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    File,
    Directory,
}

/// How a provider finds an object again: a path, an id, a bucket with entry and timestamp.
/// Only the provider that made it reads it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(Arc<str>);

/// Tells two contents of one object apart. Equal versions have equal bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(Arc<str>);

macro_rules! text_newtype {
    ($type:ident) => {
        impl $type {
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(text.as_ref().into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_newtype!(ObjectKey);
text_newtype!(Version);

/// One content for ever: which object, which version of it, and how long that version is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectId {
    pub key: ObjectKey,
    pub version: Version,
    /// In bytes.
    pub size: u64,
}

/// One file or directory as the provider describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: ObjectKey,
    pub name: Name,
    pub kind: Kind,
    /// In bytes; 0 for directories.
    pub size: u64,
    pub modified: SystemTime,
    pub version: Version,
    pub rights: Rights,
    /// The provider's own labels or metadata, shown as `user.*` extended attributes.
    pub labels: BTreeMap<String, String>,
    /// What it has beside its content, as keymount keeps it there.
    pub posix: ToldAttributes,
}

impl Entry {
    pub fn object(&self) -> ObjectId {
        ObjectId {
            key: self.key.clone(),
            version: self.version.clone(),
            size: self.size,
        }
    }

    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// What `df` shows, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub used: u64,
    /// `None` when the provider sets or tells no limit.
    pub total: Option<u64>,
}
