//! Putting a secret into a file of one's own, so that at every moment the file holds the old one or the new one whole.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use tempfile::NamedTempFile;

use crate::model::{Error, ErrorKind, Result};

/// What to do with a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Replace,
    Refuse,
}

/// A place for a secret that was tried out before there is a secret: its neighbour could be made.
#[derive(Debug)]
pub struct SecretFile {
    target: PathBuf,
    /// Beside the target, readable by its owner only; removed unless it takes the target's place.
    temporary: NamedTempFile,
    existing: Existing,
}

/// Bits of a directory's mode: everybody may write; but only owners may remove.
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

impl SecretFile {
    /// Follows a link to the file that it names, so that the link stays.
    ///
    /// # Errors
    /// `AlreadyExists` as `existing` says, `Denied` when the file or the folder isn't in one's own hands, and as the local
    /// disk says.
    pub fn prepare(path: &Path, existing: Existing) -> Result<Self> {
        let named = |error: std::io::Error| Error::from(error).context(path.display());
        let denied = |why: &str| Err(Error::denied(format!("{} {why}", path.display())));
        let target = match std::fs::symlink_metadata(path) {
            Ok(_) if existing == Existing::Refuse => {
                let why = format!("{} exists; choose another file or remove it", path.display());
                return Err(Error::new(ErrorKind::AlreadyExists, why));
            }
            Ok(_) => path.canonicalize().map_err(named)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => path.to_path_buf(),
            Err(error) => return Err(named(error)),
        };
        let folder = match target.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
            None => return denied("is no place for a secret"),
        };
        let mode = std::fs::metadata(folder).map_err(named)?.mode();
        if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
            return denied("is in a folder where everybody may replace it");
        }
        let temporary = tempfile::Builder::new()
            .prefix(".keymount-")
            .tempfile_in(folder)
            .map_err(named)?;
        // The new file is one's own by definition: its owner is what the system takes this process for.
        let own = temporary.as_file().metadata().map_err(named)?.uid();
        match std::fs::metadata(&target) {
            Ok(metadata) if !metadata.is_file() => return denied("is not a plain file"),
            Ok(metadata) if metadata.uid() != own => return denied("belongs to somebody else"),
            _ => {}
        }
        Ok(Self {
            target,
            temporary,
            existing,
        })
    }

    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Puts the secret on the disk, beside the target.
    ///
    /// # Errors
    /// As the local disk says; the target is as it was.
    pub fn write(&mut self, secret: &SecretString) -> Result<()> {
        let file = self.temporary.as_file_mut();
        file.write_all(secret.expose_secret().as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.sync_all())
            .map_err(|error| Error::from(error).context(self.target.display()))
    }

    /// Gives what was written the target's name, and makes sure that it keeps it.
    ///
    /// # Errors
    /// As the local disk says; whether the target is the old file or the new one is then not known.
    pub fn install(self) -> Result<()> {
        let target = self.target;
        let named = |error: std::io::Error| Error::from(error).context(target.display());
        let installed = match self.existing {
            Existing::Replace => self.temporary.persist(&target),
            Existing::Refuse => self.temporary.persist_noclobber(&target),
        };
        installed.map_err(|error| named(error.error))?;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        std::fs::File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .map_err(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn put(path: &Path, existing: Existing, secret: &str) -> Result<()> {
        let mut file = SecretFile::prepare(path, existing)?;
        file.write(&secret.into())?;
        file.install()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_is_replaced_whole_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "a much longer old secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        put(&path, Existing::Replace, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(names(folder.path()), ["token"]);
    }

    #[test]
    fn what_is_not_installed_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let mut file = SecretFile::prepare(&path, Existing::Refuse).unwrap();
        file.write(&"new".into()).unwrap();
        drop(file);
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        put(&link, Existing::Replace, "new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new\n");
    }

    #[test]
    fn places_that_are_not_ones_own_are_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "kept").unwrap();
        let refused = |path: &Path, existing| SecretFile::prepare(path, existing).unwrap_err().kind();
        assert_eq!(refused(&path, Existing::Refuse), ErrorKind::AlreadyExists);
        assert_eq!(refused(folder.path(), Existing::Replace), ErrorKind::Denied);
        assert_eq!(
            refused(&folder.path().join("no/where"), Existing::Replace),
            ErrorKind::NotFound
        );
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(refused(&path, Existing::Replace), ErrorKind::Denied);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
    }
}
