//! The folder in which one mount of one daemon stages files, and those that it took over from daemons that ended.
//!
//! A lock says whose a folder is for as long as the process lives. Files in it that no journal names are leftovers.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::model::{Error, ErrorKind, Result};

/// The lock's file, beside the staged ones.
const LOCK: &str = ".lock";

/// Where staged files are.
pub struct Spool {
    base: PathBuf,
    own: Folder,
    adopted: Mutex<Vec<Folder>>,
    next: AtomicU64,
}

/// A folder that is ours while the lock is held.
struct Folder {
    name: String,
    path: PathBuf,
    lock: File,
}

/// A staged file with a name, which goes with its last user unless it was to stay.
#[derive(Debug)]
pub struct SpoolFile {
    pub spool: String,
    pub name: String,
    path: PathBuf,
    file: Arc<File>,
    stays: AtomicBool,
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
        Ok(Self {
            base: base.to_owned(),
            own,
            adopted: Mutex::default(),
            next: AtomicU64::new(1),
        })
    }

    /// An empty staged file.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn new_file(&self) -> Result<SpoolFile> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let path = self.own.path.join(&name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(SpoolFile {
            spool: self.own.name.clone(),
            name,
            path,
            file: Arc::new(file),
            stays: AtomicBool::new(false),
        })
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
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)?;
        Ok(SpoolFile {
            spool: spool.to_owned(),
            name: name.to_owned(),
            path,
            file: Arc::new(file),
            stays: AtomicBool::new(true),
        })
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

/// A name that leads nowhere else.
fn plain(name: &str) -> Result<&str> {
    let ours = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    ours.then_some(name)
        .ok_or_else(|| Error::new(ErrorKind::InvalidName, format!("{name:?} names no staged file")))
}

impl Folder {
    /// `None` while another process has it.
    fn lock(path: PathBuf, name: String) -> Result<Option<Self>> {
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

/// Takes away the folders of daemons that ended, unless `named` has something in them.
///
/// Files without a name in the journal were never whole or are at the provider.
pub fn sweep(base: &Path, named: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| plain(name).is_ok() && !named(name)) else {
            continue;
        };
        if !entry.path().join(LOCK).exists() {
            continue;
        }
        if let Ok(Some(folder)) = Folder::lock(entry.path(), name.to_owned()) {
            let _ = std::fs::remove_dir_all(&folder.path);
        }
    }
}

impl SpoolFile {
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The journal names it: it outlives the process.
    pub fn keep(&self) {
        self.stays.store(true, Ordering::Release);
    }

    /// The journal doesn't name it any more.
    pub fn release(&self) {
        self.stays.store(false, Ordering::Release);
    }

    pub fn is_kept(&self) -> bool {
        self.stays.load(Ordering::Acquire)
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if !self.is_kept() {
            // What cannot be removed now is swept later.
            let _ = std::fs::remove_file(&self.path);
        }
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
            kept.keep();
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
        again.release();
        drop((again, next));
        assert_eq!(base.path().read_dir().unwrap().count(), 0, "empty folders go");
    }

    #[test]
    fn leftovers_are_swept_and_what_is_named_or_in_use_is_not() {
        let base = tempfile::tempdir().unwrap();
        let living = Spool::open(base.path()).unwrap();
        let leave = |kept: bool| {
            let spool = Spool::open(base.path()).unwrap();
            let file = spool.new_file().unwrap();
            file.keep();
            assert!(kept || file.path().exists());
            file.spool.clone()
        };
        let (named, leftover) = (leave(true), leave(false));
        std::fs::write(base.path().join("somebody-elses"), "x").unwrap();
        sweep(base.path(), |name| name == named);
        let exists = |name: &str| base.path().join(name).exists();
        assert!(exists(&named) && !exists(&leftover) && exists(&living.names()[0]) && exists("somebody-elses"));
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
