//! What other clients store, remove and make, as the server tells it.
//!
//! It has two ways to tell. A continuous query hands over each new record of an entry, but no removal, no new entry, and no
//! record that is older than the latest; a look at a bucket counts what every entry of it holds. So the few directories
//! that were used last are followed by queries, and everything is looked at now and then. New labels, by which others
//! rename a file, are told by neither.
//!
//! Costs (measured on ReductStore 1.21.5): a query is answered every two seconds, a look is one request. One query over many
//! entries would be less, but the server then looks a thousand times a second until the query is asked for after its
//! end, so entries are followed one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::debug;

use super::key::{EntryId, Key, Timestamp};
use super::names::BUCKET_FILES;
use super::own::Touched;
use super::seen;
use super::server::Server;
use super::wire::{Bucket, EntryInfo, QueryId};
use crate::model::{Error, ErrorKind, ObjectKey, Result};
use crate::provider::{Change, ChangeFeed};

/// How often the buckets are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After a longer time without a look it isn't known any more what was this process's doing.
const RECENT: Duration = LOOK_EVERY.saturating_mul(3);
/// How soon queries are polled again, whatever the server does.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How many entries are followed by a query each.
const MOST_FOLLOWED: usize = 4;
/// How many buckets are looked at.
const MOST_BUCKETS: usize = 8;

pub(super) struct Feed {
    server: Server,
    /// When the buckets were last looked at.
    looked: Option<Instant>,
    /// How each was then, and when it was asked for.
    buckets: HashMap<String, (Instant, Bucket)>,
    /// The buckets that the last look was for.
    asked: BTreeSet<String>,
    /// Those that the token may not read: a token that only writes has nothing to follow.
    denied: BTreeSet<String>,
    /// The names of all buckets, while their directory is watched.
    names: Option<BTreeSet<String>>,
    /// Directories in which something is otherwise by this process's doing, and perhaps by that of others.
    unsure: BTreeSet<Key>,
    followed: HashMap<EntryId, QueryId>,
    queries: Queries,
}

/// Whether the server knows queries that go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queries {
    Known,
    Unknown,
}

/// Whether it is known what this process changed meanwhile.
enum Own {
    Told,
    Unknown,
}

impl Feed {
    pub(super) fn new(server: Server) -> Self {
        Self {
            server,
            looked: None,
            buckets: HashMap::new(),
            asked: BTreeSet::new(),
            denied: BTreeSet::new(),
            names: None,
            unsure: BTreeSet::new(),
            followed: HashMap::new(),
            queries: Queries::Known,
        }
    }

    /// Whether it is time to look, or something is watched that the last look left out.
    fn is_due(&self, watched: &[Key]) -> bool {
        let is_new = |bucket: &String| !self.asked.contains(bucket);
        self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY)
            || (watched.contains(&Key::Root) && self.names.is_none())
            || self.buckets_of(watched).iter().any(is_new)
    }

    /// The buckets that were used last, but for those that may not be looked at.
    fn buckets_of(&self, watched: &[Key]) -> Vec<String> {
        let mut buckets: Vec<String> = Vec::new();
        for bucket in watched.iter().filter_map(bucket_of) {
            let known = self.denied.contains(bucket) || buckets.iter().any(|known| known == bucket);
            if !known && buckets.len() < MOST_BUCKETS {
                buckets.push(bucket.to_owned());
            }
        }
        buckets
    }

    /// Compares everything that is watched with how it was.
    async fn look(&mut self, watched: &[Key]) -> Result<BTreeSet<Key>> {
        let mut changed = BTreeSet::new();
        self.looked = Some(Instant::now());
        if watched.contains(&Key::Root) {
            let before = self.names.take().or_else(|| self.server.seen().take_names());
            let now = seen::names(&self.server.buckets().await?);
            if before.is_some_and(|before| before != now) {
                changed.insert(Key::Root);
            }
            self.names = Some(now);
        } else {
            self.names = None;
        }
        let buckets = self.buckets_of(watched);
        self.buckets.retain(|bucket, _| buckets.contains(bucket));
        self.asked = buckets.iter().cloned().collect();
        for bucket in buckets {
            self.look_at(bucket, &mut changed).await?;
        }
        Ok(changed)
    }

    async fn look_at(&mut self, bucket: String, changed: &mut BTreeSet<Key>) -> Result<()> {
        // Only of the time between two looks is it known what was this process's doing.
        let (before, own) = match self.buckets.remove(&bucket) {
            Some(before) if before.0.elapsed() < RECENT => (Some(before), Own::Told),
            before => (before.or_else(|| self.server.seen().take_bucket(&bucket)), Own::Unknown),
        };
        let asked = Instant::now();
        match self.server.bucket(&bucket).await {
            Ok(now) => {
                if let Some((then, before)) = &before {
                    let own = match own {
                        Own::Told => self.server.own().since(&bucket, *then),
                        Own::Unknown => Touched::default(),
                    };
                    let differences = differences(&bucket, before, &now, &own);
                    // What others did there at the same time is found out when this process is done.
                    let unsure = std::mem::take(&mut self.unsure);
                    let (still, settled) = unsure.into_iter().partition(|key| differences.own.contains(key));
                    self.unsure = still;
                    self.unsure.extend(differences.own);
                    changed.extend(settled.into_iter().chain(differences.others));
                }
                self.buckets.insert(bucket, (asked, now));
            }
            // It went, or the right to read it did: a request of somebody who wants it says so.
            Err(error) if is_passing(&error) => {
                if error.kind() == ErrorKind::Denied {
                    self.denied.insert(bucket.clone());
                }
                if before.is_some() {
                    changed.extend([Key::Root, Key::Bucket(bucket)]);
                }
            }
            Err(error) => {
                if let Some(before) = before {
                    self.buckets.insert(bucket, before);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Follows the entries that hold the files of the directories used last, and no others.
    async fn follow(&mut self, watched: &[Key]) -> Result<()> {
        let wanted: Vec<(EntryId, Timestamp)> = watched
            .iter()
            .filter_map(Key::files)
            .filter_map(|files| {
                let (_, bucket) = self.buckets.get(&files.bucket)?;
                let info = bucket.entry(&files.path)?;
                let latest = if info.record_count > 0 { info.latest_record } else { 0 };
                Some((files, Timestamp(latest)))
            })
            .take(MOST_FOLLOWED)
            .collect();
        // The server ends those that nobody polls.
        self.followed
            .retain(|entry, _| wanted.iter().any(|(files, _)| files == entry));
        for (entry, latest) in wanted {
            if self.queries == Queries::Unknown || self.followed.contains_key(&entry) {
                continue;
            }
            match self.server.follow(&entry, latest).await {
                Ok(query) => drop(self.followed.insert(entry, query)),
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    debug!(%error, "this server knows no queries that go on");
                    self.queries = Queries::Unknown;
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Asks every query for what is new. A lost answer had records that no other will have, so all are waited for.
    async fn poll(&mut self) -> Result<BTreeSet<Key>> {
        let server = &self.server;
        let polls = self
            .followed
            .iter()
            .map(|(entry, query)| async move { (entry.clone(), server.poll(entry, *query).await) });
        let answers = join_all(polls).await;
        let mut changed = BTreeSet::new();
        let mut outcome = Ok(());
        for (entry, answer) in answers {
            match answer {
                Ok(records) => {
                    if records.iter().any(|record| !server.own().has_stored(&entry, record.at)) {
                        changed.insert(directory_of(&entry));
                    }
                    continue;
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => outcome = Err(error),
            }
            // What it would have told is not known.
            changed.insert(directory_of(&entry));
            self.followed.remove(&entry);
        }
        match outcome {
            Err(error) if changed.is_empty() => Err(error),
            _ => Ok(changed),
        }
    }
}

#[async_trait]
impl ChangeFeed for Feed {
    async fn next(&mut self, watched: &[ObjectKey]) -> Result<Vec<Change>> {
        let soonest = Instant::now() + POLL_EVERY;
        let watched = watched.iter().map(Key::parse).collect::<Result<Vec<Key>>>()?;
        let mut changed = BTreeSet::new();
        if self.is_due(&watched) {
            changed = self.look(&watched).await?;
        }
        if changed.is_empty() {
            self.follow(&watched).await?;
            changed = self.poll().await?;
        }
        if changed.is_empty() && self.followed.is_empty() {
            let next_look = self.looked.map_or(soonest, |looked| looked + LOOK_EVERY);
            tokio::time::sleep_until(next_look.max(soonest)).await;
        } else {
            tokio::time::sleep_until(soonest).await;
        }
        Ok(changed
            .into_iter()
            .map(|key| Change::Within(key.to_object_key()))
            .collect())
    }
}

/// Something that is over when it is tried again, or was about something that is gone.
fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Busy | ErrorKind::Denied)
}

fn bucket_of(key: &Key) -> Option<&str> {
    match key {
        Key::Root => None,
        Key::Bucket(bucket) => Some(bucket),
        Key::Directory(entry) => Some(&entry.bucket),
        Key::Record(record) => Some(&record.entry.bucket),
    }
}

/// The directory that shows an entry's records.
fn directory_of(entry: &EntryId) -> Key {
    if entry.path == BUCKET_FILES {
        Key::Bucket(entry.bucket.clone())
    } else {
        Key::Directory(entry.clone())
    }
}

/// The directory that shows an entry.
fn parent_of(entry: &EntryId) -> Key {
    match entry.path.rsplit_once('/') {
        Some((parent, _)) => Key::Directory(EntryId {
            bucket: entry.bucket.clone(),
            path: parent.to_owned(),
        }),
        None => Key::Bucket(entry.bucket.clone()),
    }
}

/// Directories of a bucket in which something is otherwise than before.
#[derive(Debug, Default, PartialEq, Eq)]
struct Differences {
    others: BTreeSet<Key>,
    /// It may be this process's doing.
    own: BTreeSet<Key>,
}

fn differences(bucket: &str, before: &Bucket, now: &Bucket, own: &Touched) -> Differences {
    fn by_path(bucket: &Bucket) -> BTreeMap<&str, &EntryInfo> {
        let shown = bucket.ready().filter(|info| !info.name.starts_with('$'));
        shown.map(|info| (info.name.as_str(), info)).collect()
    }
    let held = |info: &EntryInfo| (info.record_count, info.size, info.oldest_record, info.latest_record);
    let (before, now) = (by_path(before), by_path(now));
    let paths: BTreeSet<&str> = before.keys().chain(now.keys()).copied().collect();
    let mut found = Differences::default();
    for path in paths {
        let entry = EntryId {
            bucket: bucket.to_owned(),
            path: path.to_owned(),
        };
        let (is_own, keys) = match (before.get(path), now.get(path)) {
            (Some(before), Some(now)) if held(before) == held(now) => continue,
            (Some(_), Some(_)) => (own.records(path), vec![directory_of(&entry)]),
            _ => (own.existence(path), vec![directory_of(&entry), parent_of(&entry)]),
        };
        if is_own {
            found.own.extend(keys);
        } else {
            found.others.extend(keys);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::own::{OwnChanges, Reach};
    use super::*;

    /// A bucket with so many records in each entry.
    fn bucket(entries: &[(&str, u64)]) -> Bucket {
        let entries: Vec<_> = entries
            .iter()
            .map(|(name, count)| json!({"name": name, "record_count": count, "size": count * 10}))
            .collect();
        serde_json::from_value(json!({"info": {"name": "b"}, "entries": entries})).unwrap()
    }

    fn entry(path: &str) -> EntryId {
        EntryId {
            bucket: "b".into(),
            path: path.into(),
        }
    }

    fn changed(before: &[(&str, u64)], now: &[(&str, u64)], own: &Touched) -> Vec<String> {
        let changed = differences("b", &bucket(before), &bucket(now), own);
        changed.others.iter().map(Key::to_string).collect()
    }

    #[test]
    fn records_and_entries_that_come_and_go_are_seen() {
        let nothing = Touched::default();
        let before = [("_-", 1), ("a", 1), ("a/b", 2), ("$x", 1)];
        assert_eq!(changed(&before, &before, &nothing), [""; 0]);
        assert_eq!(
            changed(&before, &[("_-", 2), ("a", 1), ("a/b", 1), ("$x", 9)], &nothing),
            ["/b", "/b/a/b"]
        );
        assert_eq!(
            changed(&before, &[("_-", 1), ("a", 1), ("a/c", 2)], &nothing),
            ["/b/a", "/b/a/b", "/b/a/c"]
        );
    }

    #[test]
    fn own_changes_are_no_news_yet() {
        let own = OwnChanges::default();
        let start = Instant::now();
        drop(own.begin(&entry("a/new/deep"), Reach::Records));
        drop(own.begin(&entry("old"), Reach::Tree));
        let own = own.since("b", start);
        let before = [("a", 1), ("old", 1), ("old/x", 1), ("z", 1)];
        let now = [("a", 1), ("a/new", 0), ("a/new/deep", 1), ("z", 2)];
        assert_eq!(changed(&before, &now, &own), ["/b/z"]);
        let now = [("a", 2), ("a/new", 1), ("a/new/deep", 1), ("z", 1)];
        assert_eq!(changed(&before, &now, &own), ["/b/a"]);
    }
}
