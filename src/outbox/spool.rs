//! The folder in which one mount of one daemon stages files, and those that it took over from daemons that ended.
//!
//! A lock says whose a folder is for as long as the process lives. Files in it that no journal names are leftovers.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use super::idle::{Idle, IdleFiles};
use super::room::Room;
use crate::model::{Error, ErrorKind, Result};

/// The lock's file, beside the staged ones.
pub(super) const LOCK: &str = ".lock";
/// The end of the name of a staged file that is not whole without its map, and what the map's name has beside it.
const PARTIAL: char = 's';
const MAP: &str = ".map";

/// Where staged files are.
pub struct Spool {
    base: PathBuf,
    idle: Idle,
    own: Folder,
    adopted: Mutex<Vec<Folder>>,
    room: Arc<Room>,
}

/// A folder that is ours while the lock is held.
pub(super) struct Folder {
    name: String,
    pub(super) path: PathBuf,
    lock: File,
}

/// A staged file with a name, which goes with its last user unless the journal names it.
#[derive(Debug)]
pub struct SpoolFile {
    pub spool: String,
    pub name: String,
    path: PathBuf,
    file: Arc<File>,
    /// The journal was asked to name it.
    posted: AtomicBool,
    /// The journal names it.
    entered: AtomicBool,
    /// The latest state of its content that the disk has, as its writer counts.
    flushed: AtomicU64,
    room: Arc<Room>,
    /// What it takes of the room, in bytes.
    taken: Mutex<u64>,
    /// Where it goes when nobody needs it any more; `None` for those that are removed then.
    idle: Option<Arc<IdleFiles>>,
}

impl Spool {
    /// Makes a folder of one's own below `base`.
    ///
    /// # Errors
    /// When the local disk refuses.
    pub fn open(base: &Path) -> Result<Self> {
        let named = |error: std::io::Error| Error::from(error).context(base.display());
        std::fs::create_dir_all(base).map_err(named)?;
        let name = Uuid::new_v4().simple().to_string();
        let path = base.join(&name);
        std::fs::DirBuilder::new().create(&path).map_err(named)?;
        let own = Folder::lock(path, name)?
            .ok_or_else(|| Error::internal("a new folder for staged files is somebody else's already"))?;
        let room = Arc::new(Room::new(File::open(&own.path)?, None));
        Ok(Self {
            base: base.to_owned(),
            idle: Idle::new(own.path.clone()),
            own,
            adopted: Mutex::default(),
            room,
        })
    }

    /// With at most so many bytes staged at any moment; `None` leaves it to the disk. To be said before it is used.
    pub fn limited_to(self, limit: Option<u64>) -> Result<Self> {
        let room = Arc::new(Room::new(File::open(&self.own.path)?, limit));
        Ok(Self { room, ..self })
    }

    /// What is staged now, in bytes.
    pub fn used(&self) -> u64 {
        self.room.used()
    }

    /// An empty staged file.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn new_file(&self) -> Result<SpoolFile> {
        let files = self.idle.files();
        let (name, file) = match files.take() {
            Some(idle) => idle,
            None => {
                let name = files.next_name();
                let file = create(&self.own.path.join(&name))?;
                (name, file)
            }
        };
        fail_point!("spool.created");
        Ok(self.staged(name, file, Some(Arc::clone(files))))
    }

    /// An empty staged file that is not whole without the map beside it, which the caller makes before anything else.
    ///
    /// # Errors
    /// As `new_file`.
    pub fn new_partial_file(&self) -> Result<SpoolFile> {
        let name = format!("{}{PARTIAL}", self.idle.files().next_name());
        let file = create(&self.own.path.join(&name))?;
        fail_point!("spool.created");
        Ok(self.staged(name, file, None))
    }

    fn staged(&self, name: String, file: File, idle: Option<Arc<IdleFiles>>) -> SpoolFile {
        SpoolFile {
            spool: self.own.name.clone(),
            path: self.own.path.join(&name),
            name,
            file: Arc::new(file),
            posted: AtomicBool::new(false),
            entered: AtomicBool::new(false),
            flushed: AtomicU64::new(0),
            room: Arc::clone(&self.room),
            taken: Mutex::new(0),
            idle,
        }
    }

    /// Takes a folder over whose daemon is gone; `false` while it lives.
    ///
    /// # Errors
    /// When the local disk refuses; `NotFound` when there is no such folder.
    pub fn adopt(&self, name: &str) -> Result<bool> {
        if name == self.own.name || self.adopted.lock().iter().any(|folder| folder.name == name) {
            return Ok(true);
        }
        match Folder::lock(self.path_of(name)?, name.to_owned())? {
            Some(folder) => {
                self.adopted.lock().push(folder);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// A file of a folder that was taken over; it stays.
    ///
    /// # Errors
    /// When the local disk refuses; `NotFound` when there is no such file.
    pub fn reopen(&self, spool: &str, name: &str) -> Result<SpoolFile> {
        let path = self.path_of(spool)?.join(plain(name)?);
        let file = self.look_at(spool, name)?;
        // It is there, whatever the limit is today.
        let len = file.metadata()?.len();
        self.room.insist(len);
        Ok(SpoolFile {
            spool: spool.to_owned(),
            name: name.to_owned(),
            path,
            file: Arc::new(file),
            posted: AtomicBool::new(true),
            entered: AtomicBool::new(true),
            flushed: AtomicU64::new(0),
            room: Arc::clone(&self.room),
            taken: Mutex::new(len),
            idle: None,
        })
    }

    /// A staged file as it is, without taking it over.
    ///
    /// # Errors
    /// As `reopen`.
    pub(super) fn look_at(&self, spool: &str, name: &str) -> Result<File> {
        open(&self.path_of(spool)?.join(plain(name)?))
    }

    /// How long a staged file is, in bytes; 0 for one that cannot be looked at.
    pub fn len_of(&self, spool: &str, name: &str) -> u64 {
        let metadata = self.look_at(spool, name).ok().and_then(|file| file.metadata().ok());
        metadata.map_or(0, |metadata| metadata.len())
    }

    /// Everything on the disk that holds this folder is written to it. One wait, however many files there are.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&File::open(&self.own.path)?)?)
    }

    /// The names of staged files are on the disk.
    pub(super) fn sync_folders(&self) -> io::Result<()> {
        File::open(&self.own.path)?.sync_all()
    }

    /// The folder that this one made.
    pub fn own(&self) -> &str {
        &self.own.name
    }

    /// The folders that are ours, by name.
    pub fn names(&self) -> Vec<String> {
        let adopted = self.adopted.lock();
        std::iter::once(&self.own)
            .chain(adopted.iter())
            .map(|folder| folder.name.clone())
            .collect()
    }

    fn path_of(&self, name: &str) -> Result<PathBuf> {
        Ok(self.base.join(plain(name)?))
    }
}

fn create(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file)
}

pub(super) fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    Ok(file)
}

/// A name that leads nowhere else.
pub(super) fn plain(name: &str) -> Result<&str> {
    let ours = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    ours.then_some(name)
        .ok_or_else(|| Error::new(ErrorKind::InvalidName, format!("{name:?} names no staged file")))
}

impl Folder {
    /// `None` while another process has it.
    pub(super) fn lock(path: PathBuf, name: String) -> Result<Option<Self>> {
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(|error| Error::from(error).context(path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { name, path, lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::from(error).context(path.display())),
        }
    }
}

impl Drop for Folder {
    /// An empty folder has nothing for anybody.
    fn drop(&mut self) {
        // Closing is not enough: a process that is being started at this moment may have the descriptor, too.
        let _ = self.lock.unlock();
        let left = std::fs::read_dir(&self.path).map(|entries| entries.flatten().count());
        if left.is_ok_and(|left| left <= 1) {
            let _ = std::fs::remove_file(self.path.join(LOCK));
            let _ = std::fs::remove_dir(&self.path);
        }
        // Closing is not enough: a process that is being started at this moment may have the descriptor, too.
        let _ = self.lock.unlock();
    }
}

/// Whether a living process has this folder.
pub fn is_in_use(base: &Path, name: &str) -> bool {
    let lock = base.join(name).join(LOCK);
    match File::open(lock) {
        Ok(lock) => matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

/// Where the map of a staged file is; `None` for one that is whole by itself.
pub fn map_of(staged: &Path) -> Option<PathBuf> {
    let name = staged.file_name()?.to_str()?;
    name.ends_with(PARTIAL)
        .then(|| staged.with_file_name(format!("{name}{MAP}")))
}

impl SpoolFile {
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The same with another file's content.
    #[cfg(test)]
    pub(super) fn over(mut self, file: File) -> Self {
        self.file = Arc::new(file);
        self
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes room for so many bytes in all, before they are written.
    ///
    /// # Errors
    /// `NoSpace` beyond what may be staged, or when the disk is nearly full.
    pub fn reserve(&self, len: u64) -> Result<()> {
        let mut taken = self.taken.lock();
        if len > *taken {
            self.room.take(len - *taken)?;
            *taken = len;
        }
        Ok(())
    }

    /// It has no more than so many bytes now.
    pub fn give_back_beyond(&self, len: u64) {
        let mut taken = self.taken.lock();
        if len < *taken {
            self.room.give_back(*taken - len);
            *taken = len;
        }
    }

    /// Whether the journal names it or will: then it outlives the process.
    pub fn is_kept(&self) -> bool {
        self.posted.load(Ordering::Acquire) || self.entered.load(Ordering::Acquire)
    }

    /// It stays, though the journal could not be told.
    pub fn keep(&self) {
        self.posted();
    }

    /// Whether the disk has this state of its content.
    pub fn is_flushed(&self, changes: u64) -> bool {
        self.flushed.load(Ordering::Acquire) == changes
    }

    pub(super) fn posted(&self) {
        self.posted.store(true, Ordering::Release);
    }

    pub(super) fn forget_posted(&self) {
        self.posted.store(false, Ordering::Release);
    }

    pub(super) fn entered(&self) {
        self.entered.store(true, Ordering::Release);
    }

    pub(super) fn struck(&self) {
        self.entered.store(false, Ordering::Release);
    }

    pub(super) fn flushed(&self, changes: u64) {
        self.flushed.store(changes, Ordering::Release);
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if !self.is_kept() {
            let idle = self.idle.take();
            // Nobody else has it open, else they would see what it is next.
            let alone = Arc::get_mut(&mut self.file).and_then(|file| file.try_clone().ok());
            let kept = idle.zip(alone).is_some_and(|(idle, file)| idle.give(&self.path, file));
            if !kept {
                // What cannot be removed now is swept later.
                let _ = std::fs::remove_file(&self.path);
            }
            if let Some(map) = map_of(&self.path) {
                let _ = std::fs::remove_file(map);
            }
        }
        self.room.give_back(*self.taken.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn only_what_is_kept_outlives_the_process_and_can_be_taken_over() {
        let base = tempfile::tempdir().unwrap();
        let (kept, dropped) = {
            let spool = Spool::open(base.path()).unwrap();
            let kept = spool.new_file().unwrap();
            kept.file().write_all_at(b"kept", 0).unwrap();
            kept.entered();
            let dropped = spool.new_file().unwrap();
            let other = Spool::open(base.path()).unwrap();
            assert!(!other.adopt(&kept.spool).unwrap(), "its daemon lives");
            ((kept.spool.clone(), kept.name.clone()), dropped.path().to_owned())
        };
        assert!(!dropped.exists());
        let next = Spool::open(base.path()).unwrap();
        assert!(next.adopt(&kept.0).unwrap());
        let again = next.reopen(&kept.0, &kept.1).unwrap();
        let mut bytes = [0; 4];
        again.file().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"kept");
        again.struck();
        again.forget_posted();
        drop((again, next));
        assert_eq!(base.path().read_dir().unwrap().count(), 0, "empty folders go");
    }

    #[test]
    fn a_file_that_nobody_needs_becomes_the_next_one_under_a_name_that_none_had() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path()).unwrap();
        let files = || spool.own.path.read_dir().unwrap().count() - 1;
        let first = spool.new_file().unwrap();
        first.file().write_all_at(b"first", 0).unwrap();
        let (name, path) = (first.name.clone(), first.path().to_owned());
        // Whoever still reads it must not see what comes next.
        let reading = Arc::clone(first.file());
        drop(first);
        assert_eq!(files(), 0);
        let mut bytes = [0; 5];
        reading.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"first");

        let second = spool.new_file().unwrap();
        second.file().write_all_at(b"second", 0).unwrap();
        let inode = |file: &SpoolFile| std::os::unix::fs::MetadataExt::ino(&file.file().metadata().unwrap());
        let number = inode(&second);
        drop(second);
        assert_eq!(files(), 1);
        let third = spool.new_file().unwrap();
        assert_eq!((inode(&third), third.file().metadata().unwrap().len()), (number, 0));
        assert!(third.path().exists() && !path.exists() && third.name != name);
        // What the journal names stays as it is.
        third.entered();
        drop(third);
        assert_eq!(files(), 1);
        assert_ne!(inode(&spool.new_file().unwrap()), number);
        let many: Vec<_> = (0..100).map(|_| spool.new_file().unwrap()).collect();
        drop(many);
        assert!(files() < 100, "they are not hoarded");
        drop(spool);
        let left: Vec<_> = base.path().read_dir().unwrap().flatten().collect();
        assert_eq!(left[0].path().read_dir().unwrap().count(), 2, "one file, and the lock");
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path()).unwrap();
        for name in ["..", "a/b", "", "."] {
            assert!(spool.adopt(name).is_err(), "{name}");
            assert!(spool.reopen("a", name).is_err(), "{name}");
        }
    }
}
