//! Where a disk cache has its files, and that no other daemon uses them at the same time.
//!
//! ```text
//! <folder>/lock                  held as long as `blocks` is in use
//! <folder>/blocks/<hash>.data    the bytes of one version, sparse
//! <folder>/blocks/<hash>.map     which of them are there
//! <folder>/private-<uuid>.lock   held as long as the folder of the same name is in use
//! <folder>/private-<uuid>/       the same for a second daemon; removed when it ends, or by whoever comes next
//! ```
//!
//! What else is in the folder is left alone: it may be somebody's home.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::ContentId;
use crate::model::{Error, Result};

const DATA: &str = "data";
const MAP: &str = "map";

/// Bytes that a file system allots at a time: what a file costs is a multiple of it (ext4, xfs, btrfs, tmpfs).
pub(super) const PAGE: u64 = 4096;

/// A folder of blocks that is this cache's alone.
pub(super) struct Folder {
    blocks: PathBuf,
    /// Held until the end, and let go of by the kernel if the daemon is killed.
    _lock: File,
    /// Removed at the end: the lock file of a private folder.
    private: Option<PathBuf>,
}

/// A version that was kept by an earlier run.
pub(super) struct Found {
    pub(super) content: ContentId,
    /// What both files take on disk.
    pub(super) bytes: u64,
    /// The part of them that is the map's.
    pub(super) map_bytes: u64,
    pub(super) used: SystemTime,
}

impl Folder {
    /// The folder's blocks, or a private set of them when another daemon has those.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        Self::try_open(folder).map_err(|error| {
            let message = format!("the cache folder {} cannot be used: {error}", folder.display());
            Error::new(Error::from(error).kind(), message)
        })
    }

    fn try_open(folder: &Path) -> io::Result<Self> {
        make_directory(folder)?;
        sweep(folder)?;
        let lock = file_options().open(folder.join("lock"))?;
        if locked(&lock)? {
            let blocks = folder.join("blocks");
            make_private(&blocks)?;
            return Ok(Self {
                blocks,
                _lock: lock,
                private: None,
            });
        }
        loop {
            let name = format!("private-{}", uuid::Uuid::new_v4());
            let path = folder.join(format!("{name}.lock"));
            let lock = file_options().open(&path)?;
            // A sweeper may have met the file before it was locked.
            if locked(&lock)? && is_at(&lock, &path) {
                let blocks = folder.join(name);
                make_private(&blocks)?;
                return Ok(Self {
                    blocks,
                    _lock: lock,
                    private: Some(path),
                });
            }
        }
    }

    /// Whether another daemon has the folder's blocks.
    pub(super) fn is_private(&self) -> bool {
        self.private.is_some()
    }

    pub(super) fn data(&self, content: &ContentId) -> PathBuf {
        self.file(content, DATA)
    }

    pub(super) fn map(&self, content: &ContentId) -> PathBuf {
        self.file(content, MAP)
    }

    fn file(&self, content: &ContentId, kind: &str) -> PathBuf {
        self.blocks.join(format!("{}.{kind}", content.hex()))
    }

    /// Removes both files of a version. The map goes first: bytes without a map are nothing.
    pub(super) fn remove(&self, content: &ContentId) -> io::Result<()> {
        for path in [self.map(content), self.data(content)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// What an earlier run left of one version.
    pub(super) fn find(&self, content: &ContentId) -> io::Result<Option<Found>> {
        let (data, map) = match (fs::metadata(self.data(content)), fs::metadata(self.map(content))) {
            (Ok(data), Ok(map)) => (data, map),
            (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let map_bytes = pages(map.len());
        Ok(Some(Found {
            content: *content,
            bytes: pages(data.blocks() * 512) + map_bytes,
            map_bytes,
            used: map.modified()?,
        }))
    }

    /// What earlier runs left, least recently used first. Half a version is removed. Nothing is opened: the cost is
    /// that of `ls -l`.
    pub(super) fn scan(&self) -> io::Result<Vec<Found>> {
        let mut contents = HashSet::new();
        for entry in fs::read_dir(&self.blocks)? {
            let path = PathBuf::from(entry?.file_name());
            let name = path.file_stem().and_then(OsStr::to_str);
            let kind = path.extension().and_then(OsStr::to_str);
            if let Some(content) = name.and_then(ContentId::from_hex)
                && matches!(kind, Some(DATA | MAP))
            {
                contents.insert(content);
            }
        }
        let mut found = Vec::with_capacity(contents.len());
        for content in contents {
            match self.find(&content)? {
                Some(version) => found.push(version),
                None => self.remove(&content)?,
            }
        }
        found.sort_by_key(|found| found.used);
        Ok(found)
    }
}

/// What a cache holds, daemons' private sets included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// What it takes on disk.
    pub bytes: u64,
    /// Versions of objects of which at least a part is there.
    pub versions: u64,
}

/// Looks at a cache's folder, whoever uses it; one that isn't there is empty.
///
/// # Errors
/// When it cannot be read.
pub fn survey(folder: &Path) -> Result<Survey> {
    let named = |error: io::Error| Error::from(error).context(folder.display());
    let mut survey = Survey::default();
    for entry in children(folder).map_err(named)? {
        let name = entry.file_name();
        let is_set = name
            .to_str()
            .is_some_and(|name| name == "blocks" || name.starts_with("private-"));
        if !is_set || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        for file in children(&entry.path()).map_err(named)? {
            // One that was evicted in this moment takes nothing.
            let Ok(metadata) = file.metadata() else { continue };
            survey.bytes += metadata.blocks() * 512;
            survey.versions += u64::from(file.path().extension() == Some(OsStr::new(MAP)));
        }
    }
    Ok(survey)
}

/// None for what isn't there.
fn children(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(lock) = &self.private {
            let _ = fs::remove_dir_all(&self.blocks);
            let _ = fs::remove_file(lock);
        }
    }
}

/// How both files of a version are opened for writing.
pub(super) fn file_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

/// Rounded up to what the disk allots.
pub(super) fn pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE)
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn make_private(path: &Path) -> io::Result<()> {
    make_directory(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Whether the file is locked by us now; not when another daemon has it.
fn locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Whether this is still the file that the path names.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Removes the private folders of daemons that were killed.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(OsStr::to_str);
        let uuid = name.and_then(|name| name.strip_prefix("private-"));
        let ours = uuid.is_some_and(|uuid| uuid::Uuid::parse_str(uuid).is_ok());
        if !ours || path.extension() != Some(OsStr::new("lock")) {
            continue;
        }
        let Ok(lock) = OpenOptions::new().read(true).write(true).open(&path) else {
            continue;
        };
        if locked(&lock)? && is_at(&lock, &path) {
            let _ = fs::remove_dir_all(path.with_extension(""));
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_second_daemon_gets_a_folder_of_its_own_that_goes_with_it() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("cache");
        let first = Folder::open(&folder).unwrap();
        assert_eq!((mode(&folder), mode(&first.blocks)), (0o700, 0o700));
        let second = Folder::open(&folder).unwrap();
        assert_ne!(first.blocks, second.blocks);
        assert_eq!(mode(&second.blocks), 0o700);
        let third = Folder::open(&folder).unwrap();
        assert!(second.blocks.exists() && third.blocks.exists() && second.blocks != third.blocks);
        drop((second, third));
        assert_eq!(names(&folder), ["blocks", "lock"]);
        drop(first);
        assert_eq!(Folder::open(&folder).unwrap().blocks, folder.join("blocks"));
    }

    #[test]
    fn leftovers_of_killed_daemons_are_swept_and_strangers_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let dead = format!("private-{}", uuid::Uuid::new_v4());
        fs::create_dir(folder.path().join(&dead)).unwrap();
        fs::write(folder.path().join(format!("{dead}.lock")), "").unwrap();
        for stranger in ["private-letters.lock", "thesis.tex"] {
            fs::write(folder.path().join(stranger), "mine").unwrap();
        }
        let open = Folder::open(folder.path()).unwrap();
        assert_eq!(
            names(folder.path()),
            ["blocks", "lock", "private-letters.lock", "thesis.tex"]
        );
        fs::write(open.blocks.join("notes.data"), "mine").unwrap();
        assert!(open.scan().unwrap().is_empty());
        assert_eq!(names(&open.blocks), ["notes.data"]);
    }

    #[test]
    fn a_folder_that_is_a_file_is_refused_in_words() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Folder::open(file.path()).err().unwrap();
        assert!(error.message().contains("cannot be used"), "{error}");
    }
}
