//! Making, renaming and removing directories, renaming files, and labels.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::warn;

use super::key::{EntryId, Key, RecordId, Timestamp};
use super::names;
use super::records::{MTIME, NAME, POSIX, is_reserved};
use super::server::Which;
use super::tree::Found;
use super::upload::{invalid_timestamp_name, taken};
use super::wire::{Bucket, EntryInfo};
use super::{NameMode, ReductStore};
use crate::model::{Entry, Error, ErrorKind, Name, PosixAttributes, Result};
use crate::provider::{LabelChanges, Place};

/// How many broken records are cleared away with the directory that holds nothing else.
const MAX_BROKEN: u32 = 64;
/// The first pause while the server removes; each further one is twice as long, up to `MAX_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// How long a removal is waited for: 90 MB took about 1 s (measured on ReductStore 1.21.5).
const REMOVAL_TIME: Duration = Duration::from_secs(20);

impl ReductStore {
    pub(super) async fn make_directory(&self, parent: &Key, name: &Name) -> Result<Entry> {
        let segment = names::encode_segment(name)?;
        let child = parent
            .child(&segment)
            .ok_or_else(|| Error::new(ErrorKind::NotADirectory, "a file has no children"))?;
        if self.find(parent, name).await?.is_some() {
            return Err(taken(name));
        }
        match &child {
            Key::Bucket(bucket) => self.server.create_bucket(bucket).await?,
            Key::Directory(entry) => {
                self.server.create_entry(entry).await?;
                // A token that may only write cannot look whether it worked.
                if self.granted(parent).await?.read && !self.server.bucket(&entry.bucket).await?.has(entry) {
                    let at = self.clock.later_than(0);
                    self.server.create_entry_with_attachment(entry, at.0).await?;
                    if !self.server.bucket(&entry.bucket).await?.has(entry) {
                        return Err(Error::unsupported("this server makes no empty directories"));
                    }
                }
            }
            Key::Root | Key::Record(_) => return Err(Error::internal("a child is a bucket or an entry")),
        }
        let granted = self.granted(&child).await?;
        Ok(self.directory(&child, name.clone(), granted, None))
    }

    /// Removes a directory that holds nothing.
    pub(super) async fn remove_empty(&self, key: &Key) -> Result<()> {
        let files = match key {
            Key::Root => {
                return Err(Error::new(
                    ErrorKind::NotPermitted,
                    "the mounted directory cannot be removed",
                ));
            }
            Key::Record(_) => return Err(Error::new(ErrorKind::NotADirectory, "this is a file")),
            Key::Bucket(_) | Key::Directory(_) => key.files(),
        };
        let Some(files) = files else {
            return Err(Error::internal("a directory without files"));
        };
        self.prove_empty(key, &files).await?;
        match key {
            Key::Bucket(bucket) => self.server.remove_bucket_with_all_in_it(bucket).await?,
            _ => self.server.remove_entry_with_all_in_it(&files).await?,
        }
        self.wait_until_gone(key).await
    }

    /// # Errors
    /// `NotFound`, `NotEmpty`.
    async fn prove_empty(&self, key: &Key, files: &EntryId) -> Result<()> {
        let not_empty = |why: &str| Error::new(ErrorKind::NotEmpty, format!("remove the directory: {why}"));
        for _ in 0..MAX_BROKEN {
            let bucket: Bucket = self.server.bucket(&files.bucket).await?;
            if !self.directories(key, &bucket)?.is_empty() {
                return Err(not_empty("it holds directories"));
            }
            let Some(info) = bucket.entry(&files.path).filter(|info| info.record_count > 0) else {
                return Ok(());
            };
            let mut visible = self.server.records(files, &Which::All).await?;
            if visible.pop().is_some() {
                return Err(not_empty("it holds files"));
            }
            if !self.clear_broken(files, info).await? {
                return Err(not_empty("something in it is still being written"));
            }
        }
        Err(not_empty("it holds many broken records"))
    }

    /// Removes a broken record at the entry's bounds: nobody can read or list it, but it counts. Says whether there was one.
    async fn clear_broken(&self, files: &EntryId, info: &EntryInfo) -> Result<bool> {
        let mut cleared = false;
        for at in [info.latest_record, info.oldest_record] {
            let id = RecordId {
                entry: files.clone(),
                at: Timestamp(at),
            };
            if let Err(error) = self.server.head(&id).await
                && error.kind() == ErrorKind::BadData
            {
                self.remove_broken(&id).await?;
                cleared = true;
            }
        }
        Ok(cleared)
    }

    /// The server answers a removal at once and carries it out afterwards.
    async fn wait_until_gone(&self, key: &Key) -> Result<()> {
        let start = tokio::time::Instant::now();
        let mut pause = FIRST_PAUSE;
        while self.is_listed(key).await? {
            if start.elapsed() > REMOVAL_TIME {
                return Err(Error::new(
                    ErrorKind::Busy,
                    "remove the directory: the server is still removing it",
                ));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        Ok(())
    }

    /// Whether a directory is there, be it as one that is being removed.
    async fn is_listed(&self, key: &Key) -> Result<bool> {
        let outcome = match key {
            Key::Bucket(bucket) => self.server.has_bucket(bucket).await,
            Key::Directory(entry) => self.server.bucket(&entry.bucket).await.map(|all| all.mentions(entry)),
            Key::Root | Key::Record(_) => Ok(true),
        };
        match outcome {
            Err(error) if error.kind() == ErrorKind::Busy => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            outcome => outcome,
        }
    }

    /// Changes the name label; a record cannot leave its entry.
    pub(super) async fn rename_file(
        &self,
        entry: &Entry,
        id: &RecordId,
        to: &Place,
        replaced: Option<&Entry>,
    ) -> Result<Entry> {
        let parent = Key::parse(&to.parent)?;
        if parent.files().as_ref() != Some(&id.entry) {
            return Err(cross_device("a file stays in its directory"));
        }
        if to.name == entry.name {
            return self.look_again(entry).await;
        }
        if self.settings.names == NameMode::Timestamp {
            return Err(invalid_timestamp_name(&to.name));
        }
        let replaced_id = match replaced.map(|entry| Key::parse(&entry.key)).transpose()? {
            None => None,
            Some(Key::Record(id)) => Some(id),
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::IsADirectory,
                    "a file cannot take the place of a directory",
                ));
            }
        };
        if let Some(found) = self.find(&parent, &to.name).await? {
            let key = &found.entry().key;
            if *key != entry.key && replaced.is_none_or(|replaced| *key != replaced.key) {
                return Err(taken(&to.name));
            }
        }
        let granted = self.granted(&parent).await?;
        let before = if granted.read {
            self.server.head(id).await?.labels.remove(NAME)
        } else {
            Some(names::encode_file_name(&entry.name))
        };
        self.label(id, names::encode_file_name(&to.name)).await?;
        if let Some(replaced) = replaced_id
            && let Err(error) = self.remove_record(&replaced).await
            && error.kind() != ErrorKind::NotFound
        {
            // The other file still has the name if it is the newer one.
            if let Err(error) = self.label(id, before.unwrap_or_default()).await {
                warn!(%error, "a rename could not be taken back");
            }
            return Err(error);
        }
        let moved = Entry {
            name: to.name.clone(),
            ..entry.clone()
        };
        self.look_again(&moved).await
    }

    async fn label(&self, id: &RecordId, name: String) -> Result<()> {
        let changes = BTreeMap::from([(NAME.to_owned(), name)]);
        self.server.patch_labels(id, &changes).await
    }

    /// Renames an entry within its bucket, or a bucket.
    pub(super) async fn rename_directory(
        &self,
        entry: &Entry,
        key: &Key,
        to: &Place,
        replaced: Option<&Entry>,
    ) -> Result<Entry> {
        let parent = Key::parse(&to.parent)?;
        let renamed = parent
            .child(&names::encode_segment(&to.name)?)
            .ok_or_else(|| Error::new(ErrorKind::NotADirectory, "a file has no children"))?;
        let possible = match (key, &renamed) {
            (Key::Bucket(_), Key::Bucket(_)) => true,
            (Key::Directory(old), Key::Directory(new)) => old.bucket == new.bucket,
            _ => false,
        };
        if !possible {
            return Err(cross_device("a directory stays in its bucket"));
        }
        if renamed == *key {
            return self.look_again(entry).await;
        }
        match self.find(&parent, &to.name).await? {
            Some(found) if replaced.is_none_or(|replaced| replaced.key != found.entry().key) => {
                return Err(taken(&to.name));
            }
            Some(Found::File { .. }) => {
                return Err(Error::new(
                    ErrorKind::NotADirectory,
                    "a directory cannot take the place of a file",
                ));
            }
            Some(Found::Directory(target)) => self.remove_empty(&Key::parse(&target.key)?).await?,
            None => {}
        }
        match (key, &renamed) {
            (Key::Bucket(old), Key::Bucket(new)) => self.server.rename_bucket(old, new).await?,
            (Key::Directory(old), Key::Directory(new)) => self.server.rename_entry(old, &new.path).await?,
            _ => return Err(Error::internal("two kinds of directories")),
        }
        Ok(Entry {
            key: renamed.to_object_key(),
            name: to.name.clone(),
            rights: self.shown(self.granted(&renamed).await?),
            ..entry.clone()
        })
    }

    /// Labels belong to records.
    pub(super) async fn change_labels(&self, entry: &Entry, changes: &LabelChanges) -> Result<Entry> {
        let Key::Record(id) = Key::parse(&entry.key)? else {
            return Err(Error::unsupported("ReductStore keeps labels with files only"));
        };
        let mut wire = BTreeMap::new();
        for (label, value) in changes {
            check_label(label)?;
            let value = match value {
                None => String::new(),
                Some(value) => names::encode_value(value)
                    .ok_or_else(|| invalid_label(label, "ReductStore keeps no empty values"))?,
            };
            wire.insert(label.clone(), value);
        }
        self.server.patch_labels(&id, &wire).await?;
        let mut changed = entry.clone();
        for (label, value) in changes {
            match value {
                Some(value) => changed.labels.insert(label.clone(), value.clone()),
                None => changed.labels.remove(label),
            };
        }
        self.look_again(&changed).await
    }
}

impl ReductStore {
    /// They are a label.
    pub(super) async fn change_attributes(&self, entry: &Entry, attributes: &PosixAttributes) -> Result<Entry> {
        let Key::Record(id) = Key::parse(&entry.key)? else {
            return Err(Error::unsupported("ReductStore keeps attributes with files only"));
        };
        let wanted = attributes.fitting();
        let changes = BTreeMap::from([
            (POSIX.to_owned(), wanted.write()),
            // Removed: another one's time is older.
            (MTIME.to_owned(), String::new()),
        ]);
        self.server.patch_labels(&id, &changes).await?;
        let changed = Entry {
            posix: wanted.into(),
            ..entry.clone()
        };
        self.look_again(&changed).await
    }
}

fn check_label(label: &str) -> Result<()> {
    let possible = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if label.is_empty() || !label.bytes().all(possible) {
        return Err(invalid_label(label, "a label has the characters a-z, 0-9, _ and -"));
    }
    if is_reserved(label) {
        return Err(invalid_label(label, "keymount itself uses this label"));
    }
    Ok(())
}

fn invalid_label(label: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("the label {label:?}: {why}"))
}

fn cross_device(why: &str) -> Error {
    Error::new(
        ErrorKind::CrossDevice,
        format!("ReductStore cannot move it there: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_lower_case_and_not_our_own() {
        for label in ["a", "a-b_1", "0"] {
            assert!(check_label(label).is_ok(), "{label}");
        }
        for label in ["", "A", "a.b", "ä", "a b", "name", "sha256", "mtime"] {
            assert_eq!(
                check_label(label).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{label}"
            );
        }
    }
}
