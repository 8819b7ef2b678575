//! Where an object is on the server, and how that is written into an `ObjectKey`.

use std::fmt;

use crate::model::{Error, ObjectKey, Result};

use super::names::BUCKET_FILES;

/// The time by which a record is found, in microseconds since 1970. Every `u64` is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Timestamp(pub(super) u64);

/// An entry as the server names it: a bucket and segments joined by `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EntryId {
    pub(super) bucket: String,
    pub(super) path: String,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RecordId {
    pub(super) entry: EntryId,
    pub(super) at: Timestamp,
}

/// Everything that has a place in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// The directory of all buckets.
    Root,
    Bucket(String),
    Directory(EntryId),
    Record(RecordId),
}

impl EntryId {
    pub(super) fn child(&self, segment: &str) -> Self {
        Self {
            bucket: self.bucket.clone(),
            path: format!("{}/{segment}", self.path),
        }
    }
}

impl Key {
    /// The directory that a segment below this one stands for; `None` below a record.
    pub(super) fn child(&self, segment: &str) -> Option<Self> {
        match self {
            Self::Root => Some(Self::Bucket(segment.to_owned())),
            Self::Bucket(bucket) => Some(Self::Directory(EntryId {
                bucket: bucket.clone(),
                path: segment.to_owned(),
            })),
            Self::Directory(entry) => Some(Self::Directory(entry.child(segment))),
            Self::Record(_) => None,
        }
    }

    /// The entry that holds this directory's files; `None` where no file can be.
    pub(super) fn files(&self) -> Option<EntryId> {
        match self {
            Self::Bucket(bucket) => Some(EntryId {
                bucket: bucket.clone(),
                path: BUCKET_FILES.to_owned(),
            }),
            Self::Directory(entry) => Some(entry.clone()),
            Self::Root | Self::Record(_) => None,
        }
    }

    pub(super) fn to_object_key(&self) -> ObjectKey {
        ObjectKey::new(self.to_string())
    }

    /// # Errors
    /// `Internal` for a key that another provider made.
    pub(super) fn parse(key: &ObjectKey) -> Result<Self> {
        let broken = || Error::internal(format!("{key} is no key of ReductStore"));
        let text = key.as_str().strip_prefix('/').ok_or_else(broken)?;
        let (place, at) = match text.split_once('@') {
            Some((place, at)) => (place, Some(Timestamp(at.parse().map_err(|_| broken())?))),
            None => (text, None),
        };
        match (place.split_once('/'), at) {
            (None, None) if place.is_empty() => Ok(Self::Root),
            (None, None) => Ok(Self::Bucket(place.to_owned())),
            (Some((bucket, path)), at) => {
                let entry = EntryId {
                    bucket: bucket.to_owned(),
                    path: path.to_owned(),
                };
                Ok(match at {
                    None => Self::Directory(entry),
                    Some(at) => Self::Record(RecordId { entry, at }),
                })
            }
            (None, Some(_)) => Err(broken()),
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket, self.path)
    }
}

impl fmt::Display for Key {
    /// `/`, `/bucket`, `/bucket/entry/path`, `/bucket/entry/path@timestamp`: `@` is in no bucket and no entry name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("/"),
            Self::Bucket(bucket) => write!(f, "/{bucket}"),
            Self::Directory(entry) => write!(f, "/{entry}"),
            Self::Record(record) => write!(f, "/{}@{}", record.entry, record.at.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        let entry = EntryId {
            bucket: "b".into(),
            path: "x/_-2Egit".into(),
        };
        for key in [
            Key::Root,
            Key::Bucket("b".into()),
            Key::Directory(entry.clone()),
            Key::Record(RecordId {
                entry,
                at: Timestamp(u64::MAX),
            }),
        ] {
            assert_eq!(Key::parse(&key.to_object_key()).unwrap(), key);
        }
        for text in ["", "b", "/b@1", "/b/e@x"] {
            assert!(Key::parse(&ObjectKey::new(text)).is_err(), "{text}");
        }
    }
}
