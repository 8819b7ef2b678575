//! ReductStore: buckets, entries and records as directories and files.
//!
//! Buckets and entry segments are directories, records are files; the files directly in a bucket are the records of a
//! hidden entry. This module holds the provider and its order of steps: `tree` finds and lists, `upload` stores,
//! `change` makes, moves and removes, `careful` keeps uploads and removals out of each other's way, `reading` checks what
//! is read, `feed` sees what others change. The requests are in `server`, the names in `names`.
//!
//! Servers from before `GET /me` tell no rights: everything is tried there, and what they refuse is passed on.
//!
//! Removing a directory is safe only against what is known when it is asked for: the server removes an entry with all
//! in it, so a file that another client stores there in the same moment is lost.

mod attachments;
mod careful;
mod change;
mod feed;
mod key;
mod names;
mod own;
mod reading;
mod records;
mod rights;
mod seen;
mod server;
mod tokens;
mod tree;
mod upload;
mod wire;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::careful::Tidy;
use self::feed::Feed;
use self::key::{Key, RecordId, Timestamp};
use self::reading::EntryLocks;
use self::rights::Access;
use self::server::Server;
pub use self::tokens::Tokens;
use self::wire::{QuotaType, ReductDialect};
use super::keys::KeyInfo;
use super::{
    AttributeSupport, ByteStream, Capabilities, ChangeFeed, Content, Extras, LISTS_AHEAD, LabelChanges, LabelSupport,
    NamedBy, Place, Provider, Reads, Target,
};
use crate::api::Api;
use crate::auth::Generation;
use crate::model::{Entry, Error, ErrorKind, Kind, Name, ObjectId, ObjectKey, PosixAttributes, Result, Rights, Usage};
use crate::net::Dialect;

/// How long a token's grants are relied on: somebody may change them at the server.
const ACCESS_AGE: Duration = Duration::from_secs(300);
/// The same after a request was refused.
const REFUSED_AGE: Duration = Duration::from_secs(2);

/// How records are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameMode {
    /// Ordinary names, kept in the label `name`; records without it have the vendor's export name.
    #[default]
    Label,
    /// The vendor's export names, `<microseconds since 1970>.<extension>`, and no others.
    Timestamp,
}

/// What is mounted and how.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The bucket that is the root, as the server names it; without one all buckets are below the root.
    pub bucket: Option<String>,
    /// The directory below the bucket, or below the root of all buckets, that is mounted.
    pub path: Vec<Name>,
    pub names: NameMode,
    /// Shown instead of the rights that the server tells.
    pub rights_override: Option<Rights>,
}

/// A ReductStore server.
pub struct ReductStore {
    server: Server,
    settings: Settings,
    capabilities: Capabilities,
    /// What the token may do, and when that was asked for.
    access: Mutex<Option<(Instant, Arc<Access>)>>,
    /// The token of the last `probe`, and which of the remote's credentials it was.
    key: Mutex<Option<(Generation, KeyInfo)>>,
    locks: EntryLocks,
    tidy: Tidy,
    clock: Clock,
    /// The time of directories that hold no record.
    since: SystemTime,
}

/// Gives every record of this process a time of its own.
#[derive(Default)]
struct Clock(AtomicU64);

impl Clock {
    /// Now in microseconds since 1970, but later than `after` and than every time given before.
    fn later_than(&self, after: u64) -> Timestamp {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        let mut given = now.max(after.saturating_add(1));
        // A record at the end of all times is not a reason to number every later one behind it.
        if after < now {
            let last = self.0.fetch_max(given, Ordering::Relaxed);
            if last >= given {
                given = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            }
        }
        Timestamp(given)
    }
}

impl ReductStore {
    /// `api` has the server's root as its base, with the base path if the server has one.
    pub fn new(api: Arc<Api>, settings: Settings) -> Self {
        Self {
            server: Server::new(api),
            settings,
            capabilities: Capabilities {
                bytes: NamedBy::Object,
                reads: Reads::WholeOnly,
                labels: LabelSupport::Stored,
                attributes: AttributeSupport::Stored,
                max_file_size: None,
                max_name_chars: None,
                rename_directories: true,
                move_files: false,
                lists_ahead: LISTS_AHEAD,
            },
            access: Mutex::new(None),
            key: Mutex::new(None),
            locks: EntryLocks::default(),
            tidy: Tidy::default(),
            clock: Clock::default(),
            since: SystemTime::now(),
        }
    }

    /// How to read the server's refusals.
    pub fn dialect() -> Arc<dyn Dialect> {
        Arc::new(ReductDialect)
    }

    /// The token's grants, asked for again now and then, and soon after a refusal.
    async fn access(&self) -> Result<Arc<Access>> {
        let known = self.access.lock().clone();
        let Some((asked, access)) = known else {
            return self.ask_access().await;
        };
        let age = asked.elapsed();
        if age < REFUSED_AGE || (age < ACCESS_AGE && !self.server.take_refusal()) {
            return Ok(access);
        }
        match self.ask_access().await {
            // What was known is better than nothing.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::RateLimited { .. }
                ) =>
            {
                Ok(access)
            }
            now => now,
        }
    }

    async fn ask_access(&self) -> Result<Arc<Access>> {
        let me = self.server.me().await?;
        let key = me.as_ref().and_then(tokens::Token::key);
        *self.key.lock() = self.server.api().accepted_generation().zip(key);
        let access = me
            .and_then(|token| token.permissions)
            .map_or(Access::Untold, Access::Told);
        let access = Arc::new(access);
        *self.access.lock() = Some((Instant::now(), Arc::clone(&access)));
        Ok(access)
    }

    /// What the server grants on what a key stands for.
    async fn granted(&self, key: &Key) -> Result<Rights> {
        let access = self.access().await?;
        Ok(match key {
            Key::Root => access.on_root(),
            Key::Bucket(bucket) => access.on_bucket(bucket),
            Key::Directory(entry) | Key::Record(RecordId { entry, .. }) => access.on_bucket(&entry.bucket),
        })
    }

    /// The rights that are shown for what is granted.
    fn shown(&self, granted: Rights) -> Rights {
        self.settings.rights_override.unwrap_or(granted)
    }
}

#[async_trait]
impl Provider for ReductStore {
    fn kind(&self) -> &'static str {
        "reductstore"
    }

    fn identity(&self) -> String {
        let bucket = self.settings.bucket.iter().map(String::as_str);
        let path = self.settings.path.iter().map(Name::as_str);
        let place: Vec<&str> = bucket.chain(path).collect();
        let names = match self.settings.names {
            NameMode::Label => "label",
            NameMode::Timestamp => "timestamp",
        };
        format!("reductstore {} {} names={names}", self.server.base(), place.join("/"))
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn current_key(&self) -> Option<KeyInfo> {
        let in_use = self.server.api().accepted_generation()?;
        let key = self.key.lock();
        key.as_ref()
            .filter(|(generation, _)| *generation == in_use)
            .map(|(_, key)| key.clone())
    }

    fn changes(&self) -> Option<Box<dyn ChangeFeed>> {
        Some(Box::new(Feed::new(self.server.clone())))
    }

    fn extras(&self) -> Option<&dyn Extras> {
        Some(self)
    }

    fn check_name(&self, parent: &ObjectKey, kind: Kind, name: &Name) -> Result<()> {
        match kind {
            Kind::Directory => names::encode_segment(name).map(drop),
            Kind::File => self.check_file_name(&Key::parse(parent)?, name),
        }
    }

    async fn probe(&self) -> Result<Entry> {
        self.ask_access().await?;
        self.find_root().await
    }

    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        match self.find(&Key::parse(parent)?, name).await? {
            Some(found) => Ok(found.into_entry()),
            None => Err(Error::not_found(format!("{:?}", name.as_str()))),
        }
    }

    async fn stat(&self, entry: &Entry) -> Result<Entry> {
        self.look_again(entry).await
    }

    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>> {
        self.children(&Key::parse(directory)?).await
    }

    async fn read(&self, object: &ObjectId, _range: Range<u64>) -> Result<ByteStream> {
        let id = record_id(&object.key)?;
        let guard = self.locks.reading(&id.entry).await;
        let (record, response) = self.server.get(&id).await?;
        if record.version() != object.version || record.size != object.size {
            return Err(Error::new(
                ErrorKind::Changed,
                "read the file: it was replaced since it was opened",
            ));
        }
        Ok(reading::verified(response.stream("read the file"), &record, guard))
    }

    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        self.make_directory(&Key::parse(parent)?, name).await
    }

    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        match target {
            Target::New { parent, .. } => self.store_new(&Key::parse(parent)?, target, content).await,
            Target::Replace { parent, entry } => match self.settings.names {
                NameMode::Label => self.replace_by_name(&Key::parse(parent)?, entry, target, content).await,
                NameMode::Timestamp => self.replace_in_place(entry, target, content).await,
            },
        }
    }

    async fn remove_file(&self, entry: &Entry) -> Result<()> {
        self.remove_record(&record_id(&entry.key)?).await
    }

    async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        self.remove_empty(&Key::parse(&entry.key)?).await
    }

    async fn rename(&self, entry: &Entry, _from: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        match Key::parse(&entry.key)? {
            Key::Record(id) => self.rename_file(entry, &id, to, replaced).await,
            key => self.rename_directory(entry, &key, to, replaced).await,
        }
    }

    async fn set_labels(&self, entry: &Entry, changes: &LabelChanges) -> Result<Entry> {
        self.change_labels(entry, changes).await
    }

    async fn set_attributes(&self, entry: &Entry, attributes: &PosixAttributes) -> Result<Entry> {
        self.change_attributes(entry, attributes).await
    }

    async fn usage(&self) -> Result<Usage> {
        let root = self.find_root().await?;
        let bucket = match Key::parse(&root.key)? {
            Key::Root => {
                return Ok(Usage {
                    used: self.server.info().await?.usage,
                    total: None,
                });
            }
            Key::Bucket(bucket) => bucket,
            Key::Directory(entry) | Key::Record(RecordId { entry, .. }) => entry.bucket,
        };
        if !self.access().await?.on_bucket(&bucket).read {
            return Err(Error::unsupported(
                "how full a bucket is, is told only to tokens that may read it",
            ));
        }
        let bucket = self.server.bucket(&bucket).await?;
        let total = (bucket.settings.quota_type != QuotaType::None).then_some(bucket.settings.quota_size);
        Ok(Usage {
            used: bucket.info.size,
            total,
        })
    }
}

/// # Errors
/// `IsADirectory` when the key isn't that of a file.
fn record_id(key: &ObjectKey) -> Result<RecordId> {
    match Key::parse(key)? {
        Key::Record(id) => Ok(id),
        _ => Err(Error::new(
            ErrorKind::IsADirectory,
            "a directory can't be used as a file",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_given_twice_and_each_is_later_than_asked() {
        let clock = Clock::default();
        let times: Vec<Timestamp> = (0..1000).map(|_| clock.later_than(0)).collect();
        assert!(times.is_sorted_by(|earlier, later| earlier < later));
        let far = u64::MAX - 5;
        assert_eq!(clock.later_than(far), Timestamp(far + 1));
        assert_eq!(clock.later_than(u64::MAX), Timestamp(u64::MAX));
        assert!(
            clock.later_than(0).0 < far,
            "one record of the far future moves no other"
        );
    }
}
