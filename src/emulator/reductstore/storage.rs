//! Buckets, entries and records.
//!
//! Responsible for what is stored and for the rules that come with it: names, parents that are made by themselves,
//! removal that takes its time, quotas, records that are being written or were left broken. Not responsible for HTTP
//! nor for rights.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::{Value, json};

use super::Removal;
use super::failure::Failure;
use super::names::{check_bucket_name, check_entry_name};
use super::settings::{QuotaType, Settings, SettingsUpdate};
use super::tokens::Origin;

/// What a record takes on disk besides its content, roughly as measured.
const OVERHEAD: u64 = 42;

/// Labels by name, names in lower case.
pub(super) type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) content_type: String,
    pub(super) labels: Labels,
    pub(super) body: RecordBody,
    block: u64,
}

#[derive(Debug, Clone)]
pub(super) enum RecordBody {
    /// Its upload, known by a number, is under way.
    Writing {
        length: u64,
        upload: u64,
    },
    /// Its upload ended before or after the declared length.
    Broken {
        length: u64,
    },
    Complete(Bytes),
}

impl RecordBody {
    fn length(&self) -> u64 {
        match self {
            Self::Writing { length, .. } | Self::Broken { length } => *length,
            Self::Complete(bytes) => bytes.len() as u64,
        }
    }
}

/// What a writer announces before it sends the content.
#[derive(Debug, Clone)]
pub(super) struct NewRecord {
    pub(super) length: u64,
    pub(super) content_type: String,
    pub(super) labels: Labels,
}

/// There, or on its way out: whoever looks at it so many times more is told that it is being removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ready,
    Deleting { sightings: u32 },
}

impl Status {
    fn is_over(self) -> bool {
        self == Self::Deleting { sightings: 0 }
    }

    /// Counts a look at it; whether it is being removed.
    fn sight(&mut self) -> bool {
        match self {
            Self::Ready => false,
            Self::Deleting { sightings } => {
                *sightings = sightings.saturating_sub(1);
                true
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Deleting { .. } => "DELETING",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) records: BTreeMap<u64, Record>,
    status: Status,
}

impl Entry {
    fn new() -> Self {
        Self {
            records: BTreeMap::new(),
            status: Status::Ready,
        }
    }

    fn size(&self) -> u64 {
        self.records
            .values()
            .map(|record| record.body.length() + OVERHEAD)
            .sum()
    }

    pub(super) fn first(&self) -> u64 {
        self.records.keys().next().copied().unwrap_or(0)
    }

    pub(super) fn last(&self) -> u64 {
        self.records.keys().next_back().copied().unwrap_or(0)
    }

    /// The block that a new record goes to: the last one until it is full.
    fn open_block(&self, settings: &Settings) -> u64 {
        let Some(block) = self.records.values().map(|record| record.block).max() else {
            return 1;
        };
        let members = || self.records.values().filter(|record| record.block == block);
        let size: u64 = members().map(|record| record.body.length()).sum();
        let full = members().count() as u64 >= settings.max_block_records || size >= settings.max_block_size;
        if full { block + 1 } else { block }
    }

    fn describe(&self, name: &str) -> Value {
        let blocks: std::collections::BTreeSet<u64> = self.records.values().map(|record| record.block).collect();
        json!({
            "name": name, "size": self.size(), "record_count": self.records.len(), "block_count": blocks.len(),
            "oldest_record": self.first(), "latest_record": self.last(), "status": self.status.name(),
        })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Bucket {
    entries: BTreeMap<String, Entry>,
    settings: Settings,
    origin: Origin,
    status: Status,
}

impl Bucket {
    fn new(settings: Settings, origin: Origin) -> Self {
        Self {
            entries: BTreeMap::new(),
            settings,
            origin,
            status: Status::Ready,
        }
    }

    fn size(&self) -> u64 {
        self.entries.values().map(Entry::size).sum()
    }

    fn filled(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(|entry| !entry.records.is_empty())
    }

    fn first(&self) -> u64 {
        self.filled().map(Entry::first).min().unwrap_or(0)
    }

    fn last(&self) -> u64 {
        self.filled().map(Entry::last).max().unwrap_or(0)
    }

    pub(super) fn describe(&self, name: &str) -> Value {
        json!({
            "name": name, "entry_count": self.entries.len(), "size": self.size(),
            "oldest_record": self.first(), "latest_record": self.last(),
            "is_provisioned": self.origin == Origin::Provisioned, "status": self.status.name(),
        })
    }

    /// `GET /b/{bucket}`. Looking at it counts for entries on their way out.
    pub(super) fn describe_fully(&mut self, name: &str) -> Value {
        self.entries.retain(|_, entry| !entry.status.is_over());
        let entries: Vec<Value> = self.entries.iter().map(|(name, entry)| entry.describe(name)).collect();
        let info = self.describe(name);
        for entry in self.entries.values_mut() {
            entry.status.sight();
        }
        json!({"info": info, "settings": self.settings, "entries": entries})
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// The entry, whatever its state, without counting as a look at it.
    pub(super) fn peek(&mut self, name: &str) -> Option<&mut Entry> {
        self.entries.get_mut(name)
    }

    /// The entry, unless it is missing or being removed.
    pub(super) fn entry(&mut self, bucket: &str, name: &str) -> Result<&mut Entry, Failure> {
        self.entries
            .retain(|known, entry| known != name || !entry.status.is_over());
        let entry = self
            .entries
            .get_mut(name)
            .ok_or_else(|| Failure::not_found(format!("Entry '{name}' not found in bucket '{bucket}'")))?;
        if entry.status.sight() {
            return Err(Failure::conflict(format!(
                "Entry '{name}' in bucket '{bucket}' is being deleted"
            )));
        }
        Ok(entry)
    }

    /// The entry, made together with its parents if it is missing.
    pub(super) fn entry_or_new(&mut self, bucket: &str, name: &str) -> Result<&mut Entry, Failure> {
        check_entry_name(name)?;
        let parents: Vec<&str> = name
            .match_indices('/')
            .map(|(at, _)| &name[..at])
            .chain([name])
            .collect();
        for parent in parents {
            match self.entry(bucket, parent) {
                Err(Failure::Service {
                    status: StatusCode::NOT_FOUND,
                    ..
                }) => {
                    self.entries.insert(parent.to_owned(), Entry::new());
                }
                known => {
                    known?;
                }
            }
        }
        self.entry(bucket, name)
    }

    /// Removes an entry and all beneath it.
    pub(super) fn remove_entry(&mut self, bucket: &str, name: &str, removal: Removal) -> Result<(), Failure> {
        self.entry(bucket, name)?;
        for (known, entry) in &mut self.entries {
            if is_within(known, name) {
                entry.records.clear();
                entry.status = removal.status();
            }
        }
        self.entries.retain(|_, entry| !entry.status.is_over());
        Ok(())
    }

    /// Renames an entry with all beneath it and makes the parents of the new name.
    pub(super) fn rename_entry(&mut self, bucket: &str, from: &str, to: &str) -> Result<(), Failure> {
        check_entry_name(to)?;
        self.entry(bucket, from)?;
        if self.entries.contains_key(to) || is_within(to, from) {
            return Err(Failure::conflict(format!(
                "Entry '{to}' already exists in bucket '{bucket}'"
            )));
        }
        if let Some((parent, _)) = to.rsplit_once('/') {
            self.entry_or_new(bucket, parent)?;
        }
        let moved: Vec<String> = self
            .entries
            .keys()
            .filter(|name| is_within(name, from))
            .cloned()
            .collect();
        for name in moved {
            if let Some(entry) = self.entries.remove(&name) {
                self.entries.insert(format!("{to}{}", &name[from.len()..]), entry);
            }
        }
        Ok(())
    }

    /// Takes a place for a record that is about to be uploaded.
    pub(super) fn begin_write(
        &mut self,
        bucket: &str,
        entry: &str,
        ts: u64,
        record: NewRecord,
        upload: u64,
    ) -> Result<(), Failure> {
        let settings = self.settings;
        let taken = match self
            .entry_or_new(bucket, entry)?
            .records
            .get(&ts)
            .map(|record| &record.body)
        {
            None => false,
            // The place of a broken record is free for one of the same size.
            Some(RecordBody::Broken { length }) => *length != record.length,
            Some(_) => true,
        };
        if taken {
            return Err(Failure::conflict(format!(
                "A record with timestamp {ts} already exists"
            )));
        }
        self.keep_quota(bucket, record.length)?;
        let entry = self.entry(bucket, entry)?;
        let block = entry.open_block(&settings);
        let NewRecord {
            length,
            content_type,
            labels,
        } = record;
        entry.records.insert(
            ts,
            Record {
                content_type,
                labels,
                body: RecordBody::Writing { length, upload },
                block,
            },
        );
        Ok(())
    }

    /// Ends an upload; what came of it is forgotten if the record was removed meanwhile.
    pub(super) fn end_write(&mut self, entry: &str, ts: u64, upload: u64, content: Option<Bytes>) {
        let Some(record) = self.entries.get_mut(entry).and_then(|entry| entry.records.get_mut(&ts)) else {
            return;
        };
        if let RecordBody::Writing {
            length,
            upload: running,
        } = record.body
            && running == upload
        {
            record.body = match content {
                Some(content) if content.len() as u64 == length => RecordBody::Complete(content),
                _ => RecordBody::Broken { length },
            };
        }
    }

    fn keep_quota(&mut self, bucket: &str, more: u64) -> Result<(), Failure> {
        let quota = self.settings.quota_size;
        match self.settings.quota_type {
            QuotaType::None => Ok(()),
            QuotaType::Hard if self.size() + more > quota => Err(Failure::new(
                StatusCode::BAD_REQUEST,
                format!("Quota of '{bucket}' exceeded"),
            )),
            QuotaType::Hard => Ok(()),
            QuotaType::Fifo => {
                while self.size() + more > quota {
                    if !self.drop_oldest_block() {
                        let detail = format!("Failed to keep quota of '{bucket}'");
                        return Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, detail));
                    }
                }
                Ok(())
            }
        }
    }

    fn drop_oldest_block(&mut self) -> bool {
        let oldest = self
            .entries
            .values_mut()
            .filter(|entry| !entry.records.is_empty())
            .min_by_key(|entry| entry.first());
        let Some(entry) = oldest else { return false };
        let block = entry.records.values().next().map(|record| record.block);
        entry.records.retain(|_, record| Some(record.block) != block);
        true
    }

    /// The record if it can be read.
    pub(super) fn readable(&mut self, bucket: &str, name: &str, ts: u64) -> Result<(&Record, Bytes), Failure> {
        let entry = self.entry(bucket, name)?;
        let record = entry.records.get(&ts).ok_or_else(|| no_record(bucket, name, ts))?;
        let problem = match &record.body {
            RecordBody::Complete(content) => return Ok((record, content.clone())),
            RecordBody::Writing { .. } => (StatusCode::TOO_EARLY, "still being written"),
            RecordBody::Broken { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "broken"),
        };
        Err(Failure::new(
            problem.0,
            format!("Record with timestamp {ts} in {bucket}/{name} is {}", problem.1),
        ))
    }

    pub(super) fn remove_record(&mut self, bucket: &str, name: &str, ts: u64) -> Result<(), Failure> {
        let entry = self.entry(bucket, name)?;
        entry
            .records
            .remove(&ts)
            .map(drop)
            .ok_or_else(|| no_record(bucket, name, ts))
    }

    /// Sets labels, and removes those whose value is empty.
    pub(super) fn relabel(&mut self, bucket: &str, name: &str, ts: u64, labels: Labels) -> Result<(), Failure> {
        let entry = self.entry(bucket, name)?;
        let record = entry.records.get_mut(&ts).ok_or_else(|| no_record(bucket, name, ts))?;
        for (label, value) in labels {
            if value.is_empty() {
                record.labels.remove(&label);
            } else {
                record.labels.insert(label, value);
            }
        }
        Ok(())
    }

    /// Leaves a record as an upload that was cut off leaves it; whether there is such a record.
    pub(super) fn break_record(&mut self, name: &str, ts: u64) -> bool {
        let record = self.entries.get_mut(name).and_then(|entry| entry.records.get_mut(&ts));
        record
            .map(|record| {
                record.body = RecordBody::Broken {
                    length: record.body.length(),
                }
            })
            .is_some()
    }
}

/// Every bucket.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    buckets: BTreeMap<String, Bucket>,
    removal: Removal,
}

impl Storage {
    pub(super) fn new(removal: Removal) -> Self {
        Self {
            buckets: BTreeMap::new(),
            removal,
        }
    }

    pub(super) fn removal(&self) -> Removal {
        self.removal
    }

    /// Buckets for a listing, which counts as a look at each.
    pub(super) fn list(&mut self, visible: impl Fn(&str) -> bool) -> Vec<Value> {
        self.buckets.retain(|_, bucket| !bucket.status.is_over());
        let seen = self.buckets.iter_mut().filter(|(name, _)| visible(name));
        seen.map(|(name, bucket)| {
            let description = bucket.describe(name);
            bucket.status.sight();
            description
        })
        .collect()
    }

    /// The part of `GET /info` that depends on content.
    pub(super) fn totals(&self) -> Value {
        let oldest = self.buckets.values().map(Bucket::first).min().unwrap_or(u64::MAX);
        json!({
            "bucket_count": self.buckets.len(),
            "usage": self.buckets.values().map(Bucket::size).sum::<u64>(),
            "oldest_record": oldest,
            "latest_record": self.buckets.values().map(Bucket::last).max().unwrap_or(0),
            "defaults": {"bucket": Settings::default()},
        })
    }

    /// The bucket, unless it is missing or being removed.
    pub(super) fn bucket(&mut self, name: &str) -> Result<&mut Bucket, Failure> {
        self.buckets
            .retain(|known, bucket| known != name || !bucket.status.is_over());
        let missing = || Failure::not_found(format!("Bucket '{name}' is not found"));
        let bucket = self.buckets.get_mut(name).ok_or_else(missing)?;
        if bucket.status.sight() {
            return Err(Failure::conflict(format!("Bucket '{name}' is being deleted")));
        }
        Ok(bucket)
    }

    /// The bucket, whatever its state, without counting as a look at it.
    pub(super) fn peek(&mut self, name: &str) -> Option<&mut Bucket> {
        self.buckets.get_mut(name)
    }

    pub(super) fn create(&mut self, name: &str, update: &SettingsUpdate, origin: Origin) -> Result<(), Failure> {
        check_bucket_name(name)?;
        self.check_free(name)?;
        let mut settings = Settings::default();
        settings.apply(update);
        self.buckets.insert(name.to_owned(), Bucket::new(settings, origin));
        Ok(())
    }

    pub(super) fn update(&mut self, name: &str, update: &SettingsUpdate) -> Result<(), Failure> {
        self.changeable(name, "change settings of")?.settings.apply(update);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<(), Failure> {
        check_bucket_name(to)?;
        self.check_free(to)?;
        self.changeable(from, "rename")?;
        if let Some(bucket) = self.buckets.remove(from) {
            self.buckets.insert(to.to_owned(), bucket);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<(), Failure> {
        let removal = self.removal;
        let bucket = self.changeable(name, "remove")?;
        bucket.entries.retain(|_, entry| !entry.status.is_over());
        let going = bucket
            .entries
            .iter()
            .find(|(_, entry)| entry.status != Status::Ready)
            .map(|(name, _)| name.clone());
        if let Some(entry) = going {
            // An entry on its way out is in the way of its bucket (measured).
            bucket.entry(name, &entry)?;
        }
        bucket.entries.clear();
        bucket.status = removal.status();
        self.buckets.retain(|_, bucket| !bucket.status.is_over());
        Ok(())
    }

    fn check_free(&mut self, name: &str) -> Result<(), Failure> {
        self.buckets
            .retain(|known, bucket| known != name || !bucket.status.is_over());
        match self.buckets.get_mut(name) {
            None => Ok(()),
            Some(bucket) => {
                bucket.status.sight();
                Err(Failure::conflict(format!("Bucket '{name}' already exists")))
            }
        }
    }

    fn changeable(&mut self, name: &str, action: &str) -> Result<&mut Bucket, Failure> {
        let bucket = self.bucket(name)?;
        match bucket.origin {
            Origin::Provisioned => Err(Failure::conflict(format!("Can't {action} provisioned bucket '{name}'"))),
            Origin::Api => Ok(bucket),
        }
    }
}

impl Removal {
    fn status(self) -> Status {
        match self {
            Self::AtOnce => Status::Deleting { sightings: 0 },
            Self::AfterSightings(sightings) => Status::Deleting { sightings },
        }
    }
}

pub(super) fn no_record(bucket: &str, entry: &str, ts: u64) -> Failure {
    Failure::not_found(format!("Record {ts} not found in entry {bucket}/{entry}"))
}

fn is_within(name: &str, parent: &str) -> bool {
    name.strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
