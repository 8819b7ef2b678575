//! What a staged file is a change of, as the journal keeps it: enough to replace exactly that version later.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::model::{Entry, Error, Kind, Name, ObjectKey, Result, ToldAttributes, Version};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base {
    key: String,
    name: String,
    size: u64,
    /// Nanoseconds since 1970; what is older counts as 1970.
    modified: u64,
    version: String,
    rights: String,
}

/// Writes an entry down for the journal. Labels are left out: they stay at the provider.
pub fn write(entry: &Entry) -> Result<String> {
    let since = entry.modified.duration_since(SystemTime::UNIX_EPOCH);
    let base = Base {
        key: entry.key.as_str().to_owned(),
        name: entry.name.as_str().to_owned(),
        size: entry.size,
        modified: since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)),
        version: entry.version.as_str().to_owned(),
        rights: entry.rights.to_string(),
    };
    serde_json::to_string(&base).map_err(|_| Error::internal("a file cannot be described in the journal"))
}

/// # Errors
/// `BadData` when it isn't what `write` writes.
pub fn read(text: &str) -> Result<Entry> {
    let damaged = || Error::bad_data("the journal's description of a file is damaged");
    let base: Base = serde_json::from_str(text).map_err(|_| damaged())?;
    Ok(Entry {
        key: ObjectKey::new(base.key),
        name: Name::new(base.name).map_err(|_| damaged())?,
        kind: Kind::File,
        size: base.size,
        modified: SystemTime::UNIX_EPOCH + Duration::from_nanos(base.modified),
        version: Version::new(base.version),
        rights: base.rights.parse().map_err(|_| damaged())?,
        labels: Default::default(),
        posix: ToldAttributes::Untold,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_comes_back_as_it_was() {
        let entry = Entry {
            key: ObjectKey::new("k/1"),
            name: Name::new("a \"b\".txt").unwrap(),
            kind: Kind::File,
            size: 7,
            modified: SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789),
            version: Version::new("v"),
            rights: "rw".parse().unwrap(),
            labels: Default::default(),
            posix: ToldAttributes::Untold,
        };
        assert_eq!(read(&write(&entry).unwrap()).unwrap(), entry);
        for text in ["", "{}", "null", r#"{"key":1}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
