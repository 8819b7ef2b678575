//! Directories below one directory, made for mounts. What was made is known, so that it can be removed again.

use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};

/// A directory with others below it.
#[derive(Debug)]
pub struct Below {
    root: PathBuf,
    made: Vec<PathBuf>,
}

impl Below {
    /// Takes a directory, or makes it with those above it.
    ///
    /// # Errors
    /// With what is in the way.
    pub fn make(root: &Path) -> Result<Self, Failure> {
        let there = root.is_dir();
        std::fs::create_dir_all(root).map_err(|error| refused(root, &error))?;
        let root = root.canonicalize().map_err(|error| refused(root, &error))?;
        let made = if there { Vec::new() } else { vec![root.clone()] };
        Ok(Self { root, made })
    }

    /// The directory of this name, made if it isn't there.
    ///
    /// # Errors
    /// As `make`.
    pub fn directory(&mut self, name: &str) -> Result<PathBuf, Failure> {
        let directory = self.root.join(name);
        match std::fs::create_dir(&directory) {
            Ok(()) => self.made.push(directory.clone()),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refused(&directory, &error)),
        }
        Ok(directory)
    }

    /// What was made for a directory, the innermost first.
    pub fn made_for(&self, directory: &Path) -> Vec<PathBuf> {
        let made = self.made.iter().filter(|made| directory.starts_with(made));
        made.rev().cloned().collect()
    }

    /// Removes what was made and is empty.
    pub fn remove(&self) {
        for directory in self.made.iter().rev() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

fn refused(directory: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::MountPoint,
        format!("{} cannot be made: {error}", directory.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_goes_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("all");
        let mut below = Below::make(&root).unwrap();
        let drive = below.directory("drive").unwrap();
        assert_eq!(below.made_for(&drive), [drive.clone(), root.clone()]);
        below.remove();
        assert!(!root.exists());

        std::fs::create_dir_all(&drive).unwrap();
        let mut below = Below::make(&root).unwrap();
        assert_eq!(below.directory("drive").unwrap(), drive);
        assert!(below.made_for(&drive).is_empty());
        let other = below.directory("other").unwrap();
        assert_eq!(below.made_for(&other), std::slice::from_ref(&other));
        below.remove();
        assert!(drive.exists() && !other.exists());
        std::fs::write(root.join("file"), "x").unwrap();
        assert_eq!(Below::make(&root.join("file")).unwrap_err().exit, Exit::MountPoint);
    }
}
