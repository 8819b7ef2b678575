//! A provider that outlives whoever uses it: a folder on the local disk, each change of it atomic.

use std::fs;
use std::io::ErrorKind as Io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use keymount::model::{
    Entry, Error, ErrorKind, Kind, Name, ObjectId, ObjectKey, PosixAttributes, Result, Rights, Usage, Version,
};
use keymount::provider::keys::KeyInfo;
use keymount::provider::{
    AttributeSupport, ByteStream, Capabilities, ChangeFeed, Content, Extras, LabelChanges, LabelSupport, NamedBy,
    Place, Provider, Reads, Target,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};

/// What an upload is called until it is whole; nobody sees it.
const UNFINISHED: &str = ".unfinished-";

pub struct Shelf {
    folder: PathBuf,
    capabilities: Capabilities,
    /// Whether uploads fail, as when the network is gone.
    away: bool,
}

pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As long as it lives, nobody else replaces anything on the shelf, in this process or another one.
fn alone(folder: &Path) -> fs::File {
    let lock = fs::File::open(folder).unwrap();
    lock.lock().unwrap();
    lock
}

/// Somebody else stores a file, in one moment: `aside` has all of it before, and what it replaced afterwards.
pub fn store_by_another(shelf: &Path, path: &str, bytes: &[u8], aside: &Path) {
    let unfinished = aside.with_extension("unfinished");
    fs::write(&unfinished, bytes).unwrap();
    fs::rename(unfinished, aside).unwrap();
    let _alone = alone(shelf);
    let place = shelf.join(path);
    let how = if place.exists() {
        RenameFlags::EXCHANGE
    } else {
        RenameFlags::NOREPLACE
    };
    renameat_with(CWD, aside, CWD, place, how).unwrap();
}

impl Shelf {
    pub fn new(folder: &Path, away: bool) -> Self {
        fs::create_dir_all(folder).unwrap();
        Self {
            folder: folder.to_owned(),
            capabilities: Capabilities {
                bytes: NamedBy::Object,
                reads: Reads::Ranges,
                labels: LabelSupport::None,
                attributes: AttributeSupport::None,
                max_file_size: None,
                max_name_chars: Some(255),
                rename_directories: true,
                move_files: true,
                lists_ahead: 0,
            },
            away,
        }
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.folder.join(key.as_str())
    }

    fn entry(&self, key: String) -> Result<Entry> {
        let path = self.folder.join(&key);
        let name = key
            .rsplit('/')
            .next()
            .filter(|name| !name.is_empty())
            .unwrap_or("shelf");
        let metadata = fs::metadata(&path)?;
        let kind = if metadata.is_dir() { Kind::Directory } else { Kind::File };
        let content = match kind {
            Kind::File => fs::read(&path)?,
            Kind::Directory => Vec::new(),
        };
        Ok(Entry {
            name: Name::new(name)?,
            kind,
            size: content.len() as u64,
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            version: Version::new(hash(&content)),
            rights: Rights::ALL,
            labels: Default::default(),
            posix: Default::default(),
            key: ObjectKey::new(key),
        })
    }

    fn below(parent: &ObjectKey, name: &Name) -> String {
        if parent.as_str().is_empty() {
            name.to_string()
        } else {
            format!("{parent}/{name}")
        }
    }

    /// Whether this is still what is there.
    fn is_current(&self, entry: &Entry) -> Result<()> {
        match self.entry(entry.key.to_string()) {
            Ok(now) if now.version == entry.version => Ok(()),
            _ => Err(Error::new(ErrorKind::Changed, format!("{} changed", entry.name))),
        }
    }
}

#[async_trait]
impl Provider for Shelf {
    fn kind(&self) -> &'static str {
        "shelf"
    }

    fn identity(&self) -> String {
        "shelf".to_owned()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn current_key(&self) -> Option<KeyInfo> {
        None
    }

    fn changes(&self) -> Option<Box<dyn ChangeFeed>> {
        None
    }

    fn extras(&self) -> Option<&dyn Extras> {
        None
    }

    fn check_name(&self, _: &ObjectKey, _: Kind, _: &Name) -> Result<()> {
        Ok(())
    }

    async fn probe(&self) -> Result<Entry> {
        self.entry(String::new())
    }

    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        self.entry(Self::below(parent, name))
    }

    async fn stat(&self, entry: &Entry) -> Result<Entry> {
        self.entry(entry.key.to_string())
    }

    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for child in fs::read_dir(self.path(directory))?.flatten() {
            let name = child.file_name().into_string().unwrap();
            if !name.starts_with(UNFINISHED) {
                entries.push(self.entry(Self::below(directory, &Name::new(name)?))?);
            }
        }
        Ok(entries)
    }

    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream> {
        let bytes = fs::read(self.path(&object.key))?;
        if Version::new(hash(&bytes)) != object.version {
            return Err(Error::new(ErrorKind::Changed, "another version"));
        }
        let piece = Bytes::from(bytes).slice(range.start as usize..range.end as usize);
        Ok(stream::once(async move { Ok(piece) }).boxed())
    }

    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        let key = Self::below(parent, name);
        fs::create_dir(self.folder.join(&key))?;
        self.entry(key)
    }

    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        if self.away {
            return Err(Error::new(ErrorKind::Unreachable, "the shelf is away"));
        }
        let chunks: Vec<Bytes> = content.stream().try_collect().await?;
        let unfinished = self.folder.join(format!("{UNFINISHED}{}", uuid::Uuid::new_v4()));
        fs::write(&unfinished, chunks.concat())?;
        // Others get their turn, as while a real upload is on its way.
        tokio::task::yield_now().await;
        let key = Self::below(target.parent(), target.name());
        let alone = alone(&self.folder);
        let stored = match target {
            Target::New { .. } => match fs::hard_link(&unfinished, self.folder.join(&key)) {
                Err(error) if error.kind() == Io::AlreadyExists => {
                    Err(Error::new(ErrorKind::AlreadyExists, format!("{key} exists")))
                }
                outcome => outcome.map_err(Error::from),
            },
            Target::Replace { entry, .. } => self
                .is_current(entry)
                .and_then(|()| Ok(fs::rename(&unfinished, self.path(&entry.key))?)),
        };
        // As it was stored, whatever follows it.
        let stored = stored.and_then(|()| {
            self.entry(match target {
                Target::New { .. } => key,
                Target::Replace { entry, .. } => entry.key.to_string(),
            })
        });
        drop(alone);
        let _ = fs::remove_file(&unfinished);
        stored
    }

    async fn remove_file(&self, entry: &Entry) -> Result<()> {
        Ok(fs::remove_file(self.path(&entry.key))?)
    }

    async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        Ok(fs::remove_dir(self.path(&entry.key))?)
    }

    async fn rename(&self, entry: &Entry, _: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        let key = Self::below(&to.parent, &to.name);
        if replaced.is_none() && self.folder.join(&key).exists() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{key} exists")));
        }
        fs::rename(self.path(&entry.key), self.folder.join(&key))?;
        self.entry(key)
    }

    async fn set_labels(&self, _: &Entry, _: &LabelChanges) -> Result<Entry> {
        Err(Error::unsupported("labels"))
    }

    async fn set_attributes(&self, _: &Entry, _: &PosixAttributes) -> Result<Entry> {
        Err(Error::unsupported("the shelf keeps no attributes"))
    }

    async fn usage(&self) -> Result<Usage> {
        Err(Error::unsupported("usage"))
    }
}
