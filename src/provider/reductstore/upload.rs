//! Storing files: whole, verified, and never so that the only good copy is the one on its way.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::warn;

use super::careful::When;
use super::key::{EntryId, Key, RecordId, Timestamp};
use super::names;
use super::records::{NAME, Record, SHA256, is_reserved};
use super::tree::Found;
use super::wire::QuotaType;
use super::{NameMode, ReductStore, record_id};
use crate::model::{Entry, Error, ErrorKind, Name, Result, Rights, ToldAttributes};
use crate::provider::{Content, Target};

/// How many taken times are stepped over: others may store at the same microsecond.
const MAX_TIES: u32 = 100;
/// Files up to this size, in bytes, are stored without a look at the quota: no quota is that small.
const FITS_EVERY_QUOTA: u64 = 64 * 1024;
/// How often a record is read again before its bytes count as wrong.
const LOOKS: u32 = 2;
/// How often a record is written again after its predecessor had to be removed first.
const REWRITES: u32 = 5;
/// The pause before the first of them; each further one is twice as long.
const REWRITE_PAUSE: Duration = Duration::from_millis(200);

impl ReductStore {
    /// Whether a file could have this name in this directory.
    pub(super) fn check_file_name(&self, parent: &Key, name: &Name) -> Result<()> {
        files_of(parent)?;
        match self.settings.names {
            NameMode::Label => Ok(()),
            NameMode::Timestamp => timestamp_and_type(name).map(drop),
        }
    }

    /// Stores a file under a free name.
    pub(super) async fn store_new(&self, parent: &Key, target: &Target, content: &Content) -> Result<Entry> {
        let name = target.name();
        self.check_file_name(parent, name)?;
        let files = files_of(parent)?;
        let granted = self.granted(parent).await?;
        self.check_size(&files.bucket, content.len(), granted).await?;
        let sha256 = content.sha256().await?;
        // The same content is no excuse: of two who make a lock file, one must fail.
        if self.find(parent, name).await?.is_some() {
            return Err(taken(name));
        }
        let mut record = Record {
            at: Timestamp(0),
            size: content.len(),
            content_type: names::content_type_of(name),
            labels: BTreeMap::from([(SHA256.to_owned(), sha256)]),
        };
        record.set_posix(target.attributes(content, &ToldAttributes::None));
        let stored = match self.settings.names {
            NameMode::Label => {
                record.labels.insert(NAME.to_owned(), names::encode_file_name(name));
                self.write_after(&files, Timestamp(0), &record, content, granted)
                    .await?
            }
            NameMode::Timestamp => {
                let at;
                (at, record.content_type) = timestamp_and_type(name)?;
                self.write(&files, record, When::At(at), content, granted).await?
            }
        };
        Ok(stored.to_entry(&files, name.clone(), self.shown(granted)))
    }

    /// Stores the new content beside the old, with the same name, and removes the old one when the new one is proven.
    pub(super) async fn replace_by_name(
        &self,
        parent: &Key,
        entry: &Entry,
        target: &Target,
        content: &Content,
    ) -> Result<Entry> {
        let old = record_id(&entry.key)?;
        let granted = self.granted(parent).await?;
        self.check_size(&old.entry.bucket, content.len(), granted).await?;
        let sha256 = content.sha256().await?;
        let current = if granted.read || !granted.write {
            self.find(parent, &entry.name).await?
        } else {
            // Nothing can be seen; a change of no label says whether the old one is there.
            self.server
                .patch_labels(&old, &BTreeMap::new())
                .await
                .map_err(|error| if_missing(error, changed))?;
            Some(Found::File {
                entry: entry.clone(),
                record: remembered(&old, entry),
            })
        };
        match current {
            Some(Found::File { entry: now, record }) if now.key == entry.key && now.version == entry.version => {
                let posix = target.attributes(content, &record.posix());
                let mut labels = record.labels;
                labels.insert(NAME.to_owned(), names::encode_file_name(&entry.name));
                labels.insert(SHA256.to_owned(), sha256);
                let mut next = Record {
                    at: old.at,
                    size: content.len(),
                    content_type: record.content_type,
                    labels,
                };
                next.set_posix(posix);
                if old.at.0 == u64::MAX {
                    return Err(Error::unsupported(
                        "the file has the last of all timestamps; nothing can be stored after it",
                    ));
                }
                let stored = self.write_after(&old.entry, old.at, &next, content, granted).await?;
                self.settle(&old, &entry.name, &stored, granted).await?;
                Ok(stored.to_entry(&old.entry, entry.name.clone(), self.shown(granted)))
            }
            // What an earlier attempt stored before its answer, or the removal of the old one, got lost.
            Some(Found::File { record, .. }) if record.sha256() == Some(&sha256) => {
                if self.is_left_behind(&old, &record, entry).await? {
                    match self.remove_record(&old).await {
                        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                Ok(record.to_entry(&old.entry, entry.name.clone(), self.shown(granted)))
            }
            _ => Err(changed()),
        }
    }

    /// Removes the old record after the new one was stored. Of several who replace it at once, the server lets only one
    /// remove it: the others take back what they stored.
    ///
    /// # Errors
    /// `Changed` for those others.
    async fn settle(&self, old: &RecordId, name: &Name, stored: &Record, granted: Rights) -> Result<()> {
        // Sent again after a lost answer, it would say that somebody else was the one.
        match self.remove_record_once(old).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            outcome => return outcome,
        }
        if granted.write && !granted.read {
            return Ok(());
        }
        let rivals = self.records_of_name(&old.entry, name).await?;
        if !rivals.iter().any(|rival| rival.at > old.at && rival.at != stored.at) {
            // The old one was removed, not replaced: what was written since is not to be lost with it.
            return Ok(());
        }
        let own = RecordId {
            entry: old.entry.clone(),
            at: stored.at,
        };
        self.discard(&own).await;
        Err(changed())
    }

    /// Whether the old record is still what it was, although the new one has its name.
    async fn is_left_behind(&self, old: &RecordId, new: &Record, entry: &Entry) -> Result<bool> {
        if old.at == new.at {
            return Ok(false);
        }
        match self.server.head(old).await {
            Ok(record) => {
                let named = record.claimed_name().or_else(|| record.timestamp_name());
                Ok(record.version() == entry.version && named.as_ref() == Some(&entry.name))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the old record and stores the new one at the same time, which is its name. In between there is only the
    /// local copy, so this one tries harder; what is missing already is stored all the same.
    pub(super) async fn replace_in_place(&self, entry: &Entry, target: &Target, content: &Content) -> Result<Entry> {
        let id = record_id(&entry.key)?;
        let granted = self.granted(&Key::Record(id.clone())).await?;
        self.check_size(&id.entry.bucket, content.len(), granted).await?;
        let sha256 = content.sha256().await?;
        let old = if granted.read || !granted.write {
            match self.server.head(&id).await {
                Ok(record) if record.sha256() == Some(&sha256) => {
                    return Ok(record.to_entry(&id.entry, entry.name.clone(), self.shown(granted)));
                }
                Ok(record) if record.version() != entry.version => return Err(changed()),
                Err(error) if error.kind() == ErrorKind::NotFound => remembered(&id, entry),
                outcome => outcome?,
            }
        } else {
            remembered(&id, entry)
        };
        let posix = target.attributes(content, &old.posix());
        let mut labels = old.labels;
        labels.insert(SHA256.to_owned(), sha256);
        let mut next = Record {
            at: id.at,
            size: content.len(),
            content_type: timestamp_and_type(&entry.name).map_or(old.content_type, |(_, known)| known),
            labels,
        };
        next.set_posix(posix);
        match self.remove_record(&id).await {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut pause = REWRITE_PAUSE;
        for attempt in 1.. {
            let when = When::At(id.at);
            match self.write(&id.entry, next.clone(), when, content, granted).await {
                Err(error)
                    if attempt < REWRITES
                        && matches!(
                            error.kind(),
                            ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::Busy | ErrorKind::BadData
                        ) =>
                {
                    warn!(%error, attempt, "storing the replaced file again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                // Somebody else was faster, or an earlier attempt arrived after all.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let there = self.server.head(&id).await;
                    let stored = there
                        .ok()
                        .filter(|there| is_as_sent(there, &next))
                        .ok_or_else(changed)?;
                    return Ok(stored.to_entry(&id.entry, entry.name.clone(), self.shown(granted)));
                }
                Ok(stored) => return Ok(stored.to_entry(&id.entry, entry.name.clone(), self.shown(granted))),
                Err(error) => return Err(error),
            }
        }
        Err(Error::internal("the attempts to store a file ran out"))
    }

    /// Refuses what a bucket's quota doesn't let in. The server refuses it too, but with FIFO only after it removed every
    /// older record to make room (measured on ReductStore 1.21.5), and with HARD only when it was sent.
    async fn check_size(&self, bucket: &str, len: u64, granted: Rights) -> Result<()> {
        if len <= FITS_EVERY_QUOTA || !granted.read {
            return Ok(());
        }
        let told = self.server.bucket(bucket).await?;
        let (used, quota) = (told.info.size, told.settings.quota_size);
        match told.settings.quota_type {
            QuotaType::Fifo if len > quota => Err(Error::new(
                ErrorKind::TooLarge,
                format!("the file has {len} bytes, the whole bucket {bucket:?} may have {quota}"),
            )),
            // The server's own rule; it counts what it uses on disk.
            QuotaType::Hard if used.saturating_add(len) > quota => Err(Error::new(
                ErrorKind::Quota,
                format!("the bucket {bucket:?} may have {quota} bytes and has {used}: {len} more don't fit"),
            )),
            _ => Ok(()),
        }
    }

    async fn write_after(
        &self,
        files: &EntryId,
        mut after: Timestamp,
        record: &Record,
        content: &Content,
        granted: Rights,
    ) -> Result<Record> {
        for _ in 0..MAX_TIES {
            let when = When::After(after);
            match self.write(files, record.clone(), when, content, granted).await {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => after.0 = after.0.saturating_add(1),
                outcome => return outcome,
            }
        }
        Err(Error::new(
            ErrorKind::Busy,
            "store the file: every timestamp that was tried is taken",
        ))
    }

    /// Writes a record and proves that the server has it as it was sent; what is not proven is removed again.
    ///
    /// A token that may only write gets no proof.
    async fn write(
        &self,
        files: &EntryId,
        mut record: Record,
        when: When,
        content: &Content,
        granted: Rights,
    ) -> Result<Record> {
        let written = self.send(files, &mut record, when, content).await;
        let id = RecordId {
            entry: files.clone(),
            at: record.at,
        };
        let blind = granted.write && !granted.read;
        match written {
            Ok(()) if blind => return Ok(record),
            Ok(()) => {}
            // The answer is lost, perhaps not the record. One that others made at this time isn't ours to remove.
            Err(error) if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut) => {
                if !blind {
                    match self.server.head(&id).await {
                        Ok(stored) if is_as_sent(&stored, &record) => return Ok(stored),
                        Ok(_) => return Err(error),
                        Err(missing) if missing.kind() == ErrorKind::NotFound => return Err(error),
                        Err(_) => {}
                    }
                }
                self.discard(&id).await;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        let wrong = |why: &str| Err(Error::bad_data(format!("store the file: {why}")));
        match self.look_back(&id, content).await {
            Ok((stored, Bytes::AsSent)) if is_as_sent(&stored, &record) => Ok(stored),
            Ok((stored, _)) if stored.labels.get(SHA256) == record.labels.get(SHA256) => {
                self.discard(&id).await;
                wrong("what is stored isn't what was sent")
            }
            // Others removed it and took its time: theirs is not ours to remove.
            Ok(_) => Err(Error::new(
                ErrorKind::AlreadyExists,
                "store the file: another record has its time",
            )),
            Err(error) if error.kind() == ErrorKind::BadData => {
                self.discard(&id).await;
                wrong("the record is broken")
            }
            Err(error) if error.kind() == ErrorKind::NotFound => wrong("the record is gone"),
            Err(error) => Err(error),
        }
    }

    /// What the server has of a record that was just written. The server tells only the labels that it got, and no checksum
    /// of its own; so what is short is read again, which takes no more requests than a look.
    async fn look_back(&self, id: &RecordId, content: &Content) -> Result<(Record, Bytes)> {
        if !content.is_read_back() {
            return Ok((self.server.head(id).await?, Bytes::AsSent));
        }
        let mut looks = 0;
        loop {
            let guard = self.locks.reading(&id.entry).await;
            let (record, response) = self.server.get(id).await?;
            let bytes = response.stream("read the file again");
            let is_same = record.size == content.len() && content.is_same_as(bytes).await?;
            drop(guard);
            looks += 1;
            match is_same {
                true => return Ok((record, Bytes::AsSent)),
                // A removal by others shifts what is read meanwhile.
                false if looks == LOOKS => return Ok((record, Bytes::Others)),
                false => {}
            }
        }
    }

    /// Removes what a failed upload left behind: it is in no listing, but it takes room.
    async fn discard(&self, id: &RecordId) {
        match self.remove_record(id).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                warn!(%error, "the rest of a failed upload stays on the server");
            }
            _ => {}
        }
    }
}

/// What a record turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bytes {
    AsSent,
    Others,
}

fn is_as_sent(stored: &Record, sent: &Record) -> bool {
    stored.size == sent.size
        && stored.labels.get(SHA256) == sent.labels.get(SHA256)
        && stored.labels.get(NAME) == sent.labels.get(NAME)
}

/// A record as its entry tells it, where the server can't be asked.
fn remembered(id: &RecordId, entry: &Entry) -> Record {
    let labels = entry
        .labels
        .iter()
        .filter(|(label, _)| !is_reserved(label))
        .filter_map(|(label, value)| Some((label.clone(), names::encode_value(value)?)))
        .collect();
    Record {
        at: id.at,
        size: entry.size,
        content_type: names::content_type_of(&entry.name),
        labels,
    }
}

/// The entry that holds a directory's files.
fn files_of(parent: &Key) -> Result<EntryId> {
    parent.files().ok_or_else(|| {
        Error::unsupported("files live inside a bucket; make a directory here first, which becomes a bucket")
    })
}

/// What a name says in the mode of export names.
fn timestamp_and_type(name: &Name) -> Result<(Timestamp, String)> {
    names::parse_timestamp_name(name)
        .and_then(|(at, extension)| Some((at, names::content_type_with(extension)?)))
        .ok_or_else(|| invalid_timestamp_name(name))
}

pub(super) fn invalid_timestamp_name(name: &Name) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!(
            "{:?} is not <microseconds since 1970>.<extension> with a known extension, which names = \"timestamp\" asks for",
            name.as_str()
        ),
    )
}

pub(super) fn taken(name: &Name) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{:?} exists already", name.as_str()))
}

fn changed() -> Error {
    Error::new(ErrorKind::Changed, "another version is stored now")
}

fn if_missing(error: Error, other: fn() -> Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        other()
    } else {
        error
    }
}
