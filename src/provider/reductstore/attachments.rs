//! Attachments of entries, on their directories: `user.keymount.attachments` lists their keys, and
//! `user.keymount.attachment.KEY` is the content of one.
//!
//! They are attributes and not hidden files, because that is what they are to the server: small texts with a key, which go
//! with the entry when it is renamed or removed, and which no listing shows. A file would need a name, a time and a
//! record that others take for data.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::key::{EntryId, Key, RecordId};
use super::records::Record;
use super::server::Which;
use super::{ReductStore, reading};
use crate::model::{Entry, Error, ErrorKind, Result};
use crate::provider::Extras;
use futures_util::TryStreamExt;

const ALL: &str = "attachments";
const ONE: &str = "attachment.";
/// The label that holds an attachment's key.
pub(super) const KEY: &str = "key";
/// The attachment that makes a directory on servers that make none otherwise.
pub(super) const DIRECTORY: &str = "keymount-directory";
/// The longest attachment that is shown, in bytes: what an attribute can hold.
const LONGEST: u64 = 64 * 1024;

#[async_trait]
impl Extras for ReductStore {
    fn has(&self, entry: &Entry, name: &str) -> bool {
        entry.is_directory()
            && (name == ALL || name.starts_with(ONE))
            && Key::parse(&entry.key).is_ok_and(|key| key.files().is_some())
    }

    async fn get(&self, entry: &Entry, name: &str) -> Result<String> {
        let meta = meta_of(entry)?;
        let mut attached = self.attached(&meta).await?;
        let Some(key) = name.strip_prefix(ONE) else {
            return Ok(attached.into_keys().map(|key| key + "\n").collect());
        };
        let Some(record) = attached.remove(key) else {
            return Err(missing(key));
        };
        if record.size > LONGEST {
            let message = format!("the attachment {key:?} is larger than an attribute can be");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let id = RecordId {
            entry: meta.clone(),
            at: record.at,
        };
        let guard = self.locks.reading(&meta).await;
        let (record, response) = self.server.get(&id).await?;
        let stream = reading::verified(response.stream("read the attachment"), &record, guard);
        let chunks: Vec<bytes::Bytes> = stream.try_collect().await?;
        String::from_utf8(chunks.concat())
            .map_err(|_| Error::unsupported(format!("the attachment {key:?} is not text")))
    }

    async fn set(&self, entry: &Entry, name: &str, value: Option<&str>) -> Result<()> {
        let meta = meta_of(entry)?;
        let Some(key) = name.strip_prefix(ONE) else {
            let message = "attachments are listed only; to change one, set user.keymount.attachment.KEY";
            return Err(Error::unsupported(message));
        };
        check_key(key)?;
        match value {
            // A record of the same key takes the place of the former one.
            Some(text) => {
                let at = self.clock.later_than(0);
                self.server.attach(&meta, at, key, text).await
            }
            None => {
                let record = self.attached(&meta).await?.remove(key).ok_or_else(|| missing(key))?;
                let id = RecordId {
                    entry: meta,
                    at: record.at,
                };
                self.server.detach(&id).await
            }
        }
    }
}

impl ReductStore {
    /// The attachments of an entry by their keys, the newest of each.
    async fn attached(&self, meta: &EntryId) -> Result<BTreeMap<String, Record>> {
        let records = match self.server.records(meta, &Which::All).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            records => records?,
        };
        let mut attached: BTreeMap<String, Record> = BTreeMap::new();
        for record in records {
            if let Some(key) = record.labels.get(KEY).filter(|key| *key != DIRECTORY).cloned()
                && attached.get(&key).is_none_or(|known| known.at < record.at)
            {
                attached.insert(key, record);
            }
        }
        Ok(attached)
    }
}

/// Where the server keeps the attachments of the entry that holds a directory's files.
fn meta_of(entry: &Entry) -> Result<EntryId> {
    let files = Key::parse(&entry.key)?.files();
    let files = files.ok_or_else(|| Error::unsupported("only buckets and what is in them have attachments"))?;
    Ok(files.child("$meta"))
}

fn missing(key: &str) -> Error {
    Error::new(ErrorKind::NoAttribute, format!("there is no attachment {key:?}"))
}

/// A key travels in a header, and the server keeps those with `$` to itself (measured on ReductStore 1.21.5).
fn check_key(key: &str) -> Result<()> {
    let possible = !key.is_empty()
        && !key.starts_with('$')
        && key
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b'"' | b'='))
        && key != DIRECTORY;
    if possible {
        return Ok(());
    }
    let message =
        format!("{key:?} cannot be an attachment's key: letters, digits and signs of ASCII can, without $ first");
    Err(Error::new(ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_plain_words() {
        for key in ["schema", "a.b-c_1", "ros/topic"] {
            assert!(check_key(key).is_ok(), "{key}");
        }
        for key in ["", "$x", "a b", "ü", "a,b", "a=b", "keymount-directory"] {
            assert_eq!(check_key(key).unwrap_err().kind(), ErrorKind::InvalidInput, "{key}");
        }
    }
}
