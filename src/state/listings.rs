//! What directories held when their provider last listed them, so that the next mount has something to show at once.
//!
//! One row for each directory. Rows are taken for what they are, a memory: nobody is told that something isn't there, and
//! no content is served, by a row alone. Beyond a number of bytes the oldest rows go.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{StateDb, failed, from_epoch, since_epoch};
use crate::model::{Entry, Kind, Name, ObjectKey, Result, Rights, ToldAttributes, Version};

/// What all rows hold together at most, in bytes: some 400,000 entries of 160 bytes.
pub const MOST_BYTES: u64 = 64 << 20;

/// What is to be kept of a directory.
pub struct KeptListing<'a> {
    pub directory: ObjectKey,
    pub entries: Vec<&'a Entry>,
}

/// An entry as it is written. Short names: there are many.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(rename = "k")]
    key: String,
    #[serde(rename = "n")]
    name: String,
    #[serde(rename = "d", default, skip_serializing_if = "std::ops::Not::not")]
    is_directory: bool,
    #[serde(rename = "s", default)]
    size: u64,
    /// Seconds and nanoseconds since 1970.
    #[serde(rename = "m")]
    modified: (i64, u32),
    #[serde(rename = "v")]
    version: String,
    #[serde(rename = "r")]
    rights: String,
    #[serde(rename = "l", default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(rename = "p", default, skip_serializing_if = "Beside::is_untold")]
    beside: Beside,
}

/// What an answer said of the attributes beside the content.
#[derive(Default, Serialize, Deserialize)]
enum Beside {
    #[default]
    #[serde(rename = "u")]
    Untold,
    #[serde(rename = "n")]
    None,
    /// As providers have them.
    #[serde(rename = "t")]
    Told(String),
}

impl Beside {
    fn is_untold(&self) -> bool {
        matches!(self, Self::Untold)
    }
}

impl From<&ToldAttributes> for Beside {
    fn from(told: &ToldAttributes) -> Self {
        match told {
            ToldAttributes::None => Self::None,
            ToldAttributes::Untold => Self::Untold,
            ToldAttributes::Told(attributes) => Self::Told(attributes.write()),
        }
    }
}

impl From<Beside> for ToldAttributes {
    fn from(beside: Beside) -> Self {
        match beside {
            Beside::None => Self::None,
            Beside::Untold => Self::Untold,
            Beside::Told(text) => Self::read(Some(&text)),
        }
    }
}

impl From<&Entry> for Written {
    fn from(entry: &Entry) -> Self {
        Self {
            key: entry.key.to_string(),
            name: entry.name.to_string(),
            is_directory: entry.is_directory(),
            size: entry.size,
            modified: since_epoch(entry.modified),
            version: entry.version.to_string(),
            rights: entry.rights.to_string(),
            labels: entry.labels.clone(),
            beside: Beside::from(&entry.posix),
        }
    }
}

impl Written {
    fn entry(self) -> Option<Entry> {
        Some(Entry {
            key: ObjectKey::new(self.key),
            name: Name::new(self.name).ok()?,
            kind: if self.is_directory { Kind::Directory } else { Kind::File },
            size: self.size,
            modified: from_epoch(self.modified.0, self.modified.1),
            version: Version::new(self.version),
            rights: self.rights.parse::<Rights>().ok()?,
            labels: self.labels,
            posix: self.beside.into(),
        })
    }
}

impl StateDb {
    /// What a directory held; `None` when that isn't known, or can't be read any more.
    ///
    /// # Errors
    /// The disk's.
    pub fn listing(&self, namespace: &str, directory: &ObjectKey) -> Result<Option<Vec<Entry>>> {
        let found = {
            let connection = self.connection.lock();
            let row = connection
                .prepare_cached("SELECT entries FROM listings WHERE namespace = ?1 AND directory = ?2")
                .and_then(|mut select| {
                    let row = select.query_row(params![namespace, directory.as_str()], |row| row.get::<_, Vec<u8>>(0));
                    row.optional()
                });
            row.map_err(failed("read a listing"))?
        };
        let entries = |text: Vec<u8>| {
            let written: Vec<Written> = serde_json::from_slice(&text).ok()?;
            written.into_iter().map(Written::entry).collect::<Option<Vec<_>>>()
        };
        Ok(found.and_then(entries))
    }

    /// Keeps what directories hold, all of it or nothing, and lets the oldest go beyond `most` bytes in all namespaces.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep_listings(&self, namespace: &str, listings: &[KeptListing<'_>], most: u64) -> Result<()> {
        // Made before the lock is taken, which everybody else needs.
        let rows: Vec<(&str, Vec<u8>)> = listings
            .iter()
            .filter_map(|listing| {
                let written: Vec<Written> = listing.entries.iter().map(|entry| Written::from(*entry)).collect();
                Some((listing.directory.as_str(), serde_json::to_vec(&written).ok()?))
            })
            .collect();
        let mut connection = self.connection.lock();
        let kept = (|| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let newest: i64 =
                transaction.query_row("SELECT coalesce(max(number), 0) FROM listings", [], |row| row.get(0))?;
            {
                let mut insert = transaction.prepare_cached(
                    "INSERT OR REPLACE INTO listings (namespace, directory, entries, bytes, number)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?;
                for (number, (directory, entries)) in (newest + 1..).zip(&rows) {
                    let bytes = entries.len() + directory.len() + namespace.len();
                    insert.execute(params![namespace, directory, entries, bytes as i64, number])?;
                }
            }
            let gone = transaction.execute(
                "DELETE FROM listings WHERE number <= (SELECT number FROM (
                     SELECT number, sum(bytes) OVER (ORDER BY number DESC) AS above FROM listings
                 ) WHERE above > ?1 ORDER BY number DESC LIMIT 1)",
                params![most.cast_signed()],
            )?;
            transaction.commit()?;
            Ok(gone)
        })();
        let gone = kept.map_err(failed("keep listings"))?;
        if gone > 0 {
            debug!(directories = gone, "the oldest listings are forgotten");
        }
        Ok(())
    }

    /// What these directories held isn't true any more.
    ///
    /// # Errors
    /// The disk's.
    pub fn forget_listings<'a>(
        &self,
        namespace: &str,
        directories: impl IntoIterator<Item = &'a ObjectKey>,
    ) -> Result<()> {
        let connection = self.connection.lock();
        let gone = connection
            .prepare_cached("DELETE FROM listings WHERE namespace = ?1 AND directory = ?2")
            .and_then(|mut delete| {
                let mut directories = directories.into_iter();
                directories.try_for_each(|key| delete.execute(params![namespace, key.as_str()]).map(drop))
            });
        gone.map_err(failed("forget listings"))
    }

    /// What all directories held isn't true any more.
    ///
    /// # Errors
    /// The disk's.
    pub fn forget_all_listings(&self, namespace: &str) -> Result<()> {
        let connection = self.connection.lock();
        let gone = connection.execute("DELETE FROM listings WHERE namespace = ?1", params![namespace]);
        gone.map(drop).map_err(failed("forget listings"))
    }
}
