//! Finding and listing: from server answers to entries.

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use super::key::{EntryId, Key, RecordId, Timestamp};
use super::names;
use super::records::{Record, time_of, with_names};
use super::server::Which;
use super::wire::{Bucket, Status};
use super::{NameMode, ReductStore};
use crate::model::{Entry, Error, ErrorKind, Kind, Name, Result, Rights, Version};

/// What is at a name.
pub(super) enum Found {
    Directory(Entry),
    File { entry: Entry, record: Record },
}

impl Found {
    pub(super) fn into_entry(self) -> Entry {
        match self {
            Self::Directory(entry) | Self::File { entry, .. } => entry,
        }
    }

    pub(super) fn entry(&self) -> &Entry {
        match self {
            Self::Directory(entry) | Self::File { entry, .. } => entry,
        }
    }
}

impl ReductStore {
    /// The mounted directory.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub(super) async fn find_root(&self) -> Result<Entry> {
        let access = self.access().await?;
        let (mut key, mut entry) = match &self.settings.bucket {
            None => (
                Key::Root,
                self.directory(&Key::Root, Name::new("reductstore")?, access.on_root(), None),
            ),
            Some(bucket) => {
                let key = Key::Bucket(bucket.clone());
                let rights = access.on_bucket(bucket);
                let modified = if rights.read {
                    self.server.bucket(bucket).await.map(|bucket| bucket.info.latest_record)
                } else {
                    self.server
                        .has_bucket(bucket)
                        .await
                        .and_then(|there| if there { Ok(0) } else { Err(Error::not_found("it")) })
                };
                let modified = modified.map_err(|error| match error.kind() {
                    ErrorKind::NotFound => Error::not_found(format!("the bucket {bucket:?}")),
                    _ => error,
                })?;
                let name = names::decode_segment(bucket)
                    .ok_or_else(|| Error::new(ErrorKind::InvalidName, format!("{bucket:?} is no bucket name")))?;
                let entry = self.directory(&key, name, rights, Some(modified));
                (key, entry)
            }
        };
        for name in &self.settings.path {
            (key, entry) = match self.find(&key, name).await? {
                Some(Found::Directory(entry)) => (Key::parse(&entry.key)?, entry),
                Some(Found::File { .. }) => {
                    return Err(Error::new(
                        ErrorKind::NotADirectory,
                        format!("{:?} is a file; a directory can be mounted", name.as_str()),
                    ));
                }
                None => self.unseen_directory(&key, name).await?,
            };
        }
        Ok(entry)
    }

    /// A token that may only write cannot see directories: they are taken as they are asked for.
    async fn unseen_directory(&self, parent: &Key, name: &Name) -> Result<(Key, Entry)> {
        let missing = || Error::not_found(format!("the directory {:?}", name.as_str()));
        let rights = self.granted(parent).await?;
        if *parent == Key::Root || rights.read || !rights.write {
            return Err(missing());
        }
        let key = parent.child(&names::encode_segment(name)?).ok_or_else(missing)?;
        let entry = self.directory(&key, name.clone(), rights, None);
        Ok((key, entry))
    }

    /// What a directory has at a name.
    ///
    /// # Errors
    /// `NotFound` when the directory itself is gone.
    pub(super) async fn find(&self, parent: &Key, name: &Name) -> Result<Option<Found>> {
        let Some(files) = parent.files() else {
            if *parent != Key::Root {
                return Err(not_a_directory());
            }
            let buckets = self.bucket_entries().await?;
            return Ok(buckets
                .into_iter()
                .find(|entry| entry.name == *name)
                .map(Found::Directory));
        };
        let granted = self.granted(parent).await?;
        if granted.write && !granted.read {
            // Nothing can be seen; what is stored under a taken name becomes the newest of that name.
            return Ok(None);
        }
        let (bucket, newest) =
            futures_util::try_join!(self.server.bucket(&files.bucket), self.newest_of_name(&files, name))?;
        let directories = self.directories(parent, &bucket)?;
        if let Some(key) = directories.get(name) {
            return Ok(Some(Found::Directory(self.directory_in(
                &bucket,
                key,
                name.clone(),
                granted,
            ))));
        }
        let record = match newest {
            Some(record) => Some(record),
            None => self.by_timestamp(&files, name, &directories).await?,
        };
        Ok(record.map(|record| Found::File {
            entry: record.to_entry(&files, name.clone(), self.shown(granted)),
            record,
        }))
    }

    /// The newest record whose label asks for the name.
    async fn newest_of_name(&self, files: &EntryId, name: &Name) -> Result<Option<Record>> {
        if self.settings.names == NameMode::Timestamp {
            return Ok(None);
        }
        let records = self.records_of_name(files, name).await?;
        Ok(records.into_iter().max_by_key(|record| record.at))
    }

    /// All records whose label asks for the name.
    pub(super) async fn records_of_name(&self, files: &EntryId, name: &Name) -> Result<Vec<Record>> {
        let which = names::name_condition(name).map_or(Which::All, Which::When);
        let mut records = or_none(self.server.records(files, &which).await)?;
        records.retain(|record| record.claimed_name().as_ref() == Some(name));
        Ok(records)
    }

    /// The record that is shown by its time under this name.
    async fn by_timestamp(
        &self,
        files: &EntryId,
        name: &Name,
        directories: &BTreeMap<Name, Key>,
    ) -> Result<Option<Record>> {
        let Some((at, _)) = names::parse_timestamp_name(name) else {
            return Ok(None);
        };
        let records = or_none(self.server.records(files, &Which::At(at)).await)?;
        let Some(record) = records.into_iter().find(|record| record.at == at) else {
            return Ok(None);
        };
        if record.timestamp_name().as_ref() != Some(name) {
            return Ok(None);
        }
        if self.settings.names == NameMode::Label
            && let Some(own) = record.claimed_name()
            && !directories.contains_key(&own)
        {
            let newest = self.newest_of_name(files, &own).await?;
            if newest.is_none_or(|newest| newest.at == at) {
                return Ok(None);
            }
        }
        Ok(Some(record))
    }

    /// All children of a directory.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub(super) async fn children(&self, parent: &Key) -> Result<Vec<Entry>> {
        let Some(files) = parent.files() else {
            if *parent != Key::Root {
                return Err(not_a_directory());
            }
            return self.bucket_entries().await;
        };
        let granted = self.granted(parent).await?;
        let bucket = self.server.bucket(&files.bucket).await?;
        let directories = self.directories(parent, &bucket)?;
        let mut entries: Vec<Entry> = directories
            .iter()
            .map(|(name, key)| self.directory_in(&bucket, key, name.clone(), granted))
            .collect();
        if bucket.entry(&files.path).is_some_and(|info| info.record_count > 0) {
            let records = self.server.records(&files, &Which::All).await?;
            let taken: HashSet<Name> = directories.into_keys().collect();
            entries.extend(
                with_names(records, &taken, self.settings.names)
                    .into_iter()
                    .map(|(name, record)| record.to_entry(&files, name, self.shown(granted))),
            );
        }
        Ok(entries)
    }

    /// The entry as it is now.
    pub(super) async fn look_again(&self, entry: &Entry) -> Result<Entry> {
        let key = Key::parse(&entry.key)?;
        let granted = self.granted(&key).await?;
        let blind = granted.write && !granted.read;
        let again = |modified| self.directory(&key, entry.name.clone(), granted, modified);
        match &key {
            Key::Root => Ok(again(None)),
            Key::Record(id) if blind => {
                // A change of no label says whether the record is there.
                self.server.patch_labels(id, &BTreeMap::new()).await?;
                Ok(Entry {
                    rights: self.shown(granted),
                    ..entry.clone()
                })
            }
            Key::Record(id) => {
                let record = self.server.head(id).await?;
                Ok(self.entry_of(id, record, &entry.name, granted))
            }
            Key::Bucket(bucket) if blind => match self.server.has_bucket(bucket).await? {
                true => Ok(again(None)),
                false => Err(Error::not_found(format!("the bucket {bucket:?}"))),
            },
            Key::Directory(_) if blind => Ok(again(None)),
            Key::Bucket(bucket) => {
                let bucket = self.server.bucket(bucket).await?;
                Ok(again(Some(bucket.info.latest_record)))
            }
            Key::Directory(id) => {
                let bucket = self.server.bucket(&id.bucket).await?;
                if !bucket.has(id) {
                    return Err(Error::not_found(format!("{:?}", entry.name.as_str())));
                }
                Ok(self.directory_in(&bucket, &key, entry.name.clone(), granted))
            }
        }
    }

    /// A record under the name it was known by, or under the one it has now.
    pub(super) fn entry_of(&self, id: &RecordId, record: Record, known_as: &Name, granted: Rights) -> Entry {
        let by_time = record.timestamp_name();
        let by_label = match self.settings.names {
            NameMode::Label => record.claimed_name(),
            NameMode::Timestamp => None,
        };
        let known = [&by_label, &by_time].iter().any(|name| name.as_ref() == Some(known_as));
        let now = if known { None } else { by_label.or(by_time) };
        record.to_entry(&id.entry, now.unwrap_or_else(|| known_as.clone()), self.shown(granted))
    }

    /// The buckets that the token has any right on.
    async fn bucket_entries(&self) -> Result<Vec<Entry>> {
        let access = self.access().await?;
        let mut buckets: BTreeMap<String, u64> = self
            .server
            .buckets()
            .await?
            .into_iter()
            .filter(|bucket| bucket.status != Status::Deleting && !bucket.name.starts_with('$'))
            .map(|bucket| (bucket.name, bucket.latest_record))
            .collect();
        for bucket in access.write_only_buckets() {
            if !buckets.contains_key(bucket) && self.server.has_bucket(bucket).await? {
                buckets.insert(bucket.to_owned(), 0);
            }
        }
        let named = by_name(buckets.keys().map(String::as_str));
        Ok(named
            .into_iter()
            .map(|(name, bucket)| {
                let latest = buckets.get(bucket).copied();
                let key = Key::Bucket(bucket.to_owned());
                self.directory(&key, name, access.on_bucket(bucket), latest)
            })
            .collect())
    }

    /// The child directories of a bucket or of an entry.
    ///
    /// # Errors
    /// `NotFound` when the entry itself is gone.
    pub(super) fn directories(&self, parent: &Key, bucket: &Bucket) -> Result<BTreeMap<Name, Key>> {
        let below = match parent {
            Key::Directory(entry) if !bucket.has(entry) => return Err(Error::not_found("the directory")),
            Key::Directory(entry) => Some(entry),
            _ => None,
        };
        let named = by_name(bucket.segments(below));
        Ok(named
            .into_iter()
            .filter_map(|(name, segment)| Some((name, parent.child(segment)?)))
            .collect())
    }

    fn directory_in(&self, bucket: &Bucket, key: &Key, name: Name, granted: Rights) -> Entry {
        let latest = match key {
            Key::Directory(entry) => bucket
                .entry(&entry.path)
                .filter(|info| info.record_count > 0)
                .map(|info| info.latest_record),
            _ => Some(bucket.info.latest_record),
        };
        self.directory(key, name, granted, latest)
    }

    /// `latest` is the time of the newest record in microseconds since 1970, 0 when there is none.
    pub(super) fn directory(&self, key: &Key, name: Name, granted: Rights, latest: Option<u64>) -> Entry {
        let modified = match latest {
            Some(latest) if latest > 0 => time_of(Timestamp(latest)),
            _ => self.since,
        };
        Entry {
            key: key.to_object_key(),
            name,
            kind: Kind::Directory,
            size: 0,
            modified: modified.max(SystemTime::UNIX_EPOCH),
            version: Version::new("directory"),
            rights: self.shown(granted),
            labels: BTreeMap::new(),
            posix: Default::default(),
        }
    }
}

/// Segments by the names they are shown as; of two that look alike, the one that keymount would make.
fn by_name<'a>(segments: impl IntoIterator<Item = &'a str>) -> BTreeMap<Name, &'a str> {
    let mut named = BTreeMap::new();
    for segment in segments {
        let Some(name) = names::decode_segment(segment) else {
            continue;
        };
        let canonical = names::encode_segment(&name).is_ok_and(|own| own == segment);
        if canonical || !named.contains_key(&name) {
            named.insert(name, segment);
        }
    }
    named
}

/// An entry without records needn't exist: the one for a bucket's files is made by the first of them.
fn or_none(records: Result<Vec<Record>>) -> Result<Vec<Record>> {
    match records {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        outcome => outcome,
    }
}

fn not_a_directory() -> Error {
    Error::new(ErrorKind::NotADirectory, "a file has no children")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_segments_that_look_alike_the_own_one_is_shown() {
        let name = Name::new("a_-zz").unwrap();
        for segments in [["a_-5F-zz", "a_-zz"], ["a_-zz", "a_-5F-zz"]] {
            assert_eq!(by_name(segments), BTreeMap::from([(name.clone(), "a_-5F-zz")]));
        }
    }
}
