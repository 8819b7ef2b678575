//! Files that are not at their provider, as the journal knows them: also those of remotes that nobody has mounted.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::model::{Error, ErrorKind, Result};
use crate::outbox;
use crate::paths::Paths;
use crate::state::{Origin, Phase, StateDb};

/// Why a file is still here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waiting {
    /// A daemon has it and sends it.
    Sending,
    /// A daemon found it, could not show it in the mount yet, and tries that again.
    NotShown,
    /// Its remote isn't mounted.
    ForNextMount,
    /// It was being written when its daemon ended; the next mount saves it.
    HalfWritten,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptFile {
    /// As it is typed.
    pub remote: String,
    /// Below the remote's mounted directory.
    pub path: String,
    pub bytes: u64,
    pub waiting: Waiting,
    pub error: Option<String>,
    #[serde(skip)]
    staged: PathBuf,
}

/// All of this user's, by remote and path.
///
/// # Errors
/// The local disk's.
pub fn kept_files(paths: &Paths) -> Result<Vec<KeptFile>> {
    let database = paths.state_database();
    if !database.exists() {
        return Ok(Vec::new());
    }
    let staging = paths.staging();
    let mut files = Vec::new();
    let state = StateDb::open(&database)?;
    if state.origin() == Origin::New {
        outbox::recover(&staging, &state, &paths.unsent("unknown"))?;
    }
    for row in state.journaled(None)? {
        let staged = staging.join(&row.spool).join(&row.file);
        // Sent a moment ago.
        let Ok(metadata) = staged.symlink_metadata() else {
            continue;
        };
        files.push(KeptFile {
            remote: row.remote,
            path: row.path,
            bytes: metadata.len(),
            waiting: match row.phase {
                _ if outbox::is_in_use(&staging, &row.spool) => match row.postponed {
                    Some(_) => Waiting::NotShown,
                    None => Waiting::Sending,
                },
                Phase::Closed => Waiting::ForNextMount,
                Phase::Writing => Waiting::HalfWritten,
            },
            error: row.postponed.or(row.error),
            staged,
        });
    }
    files.sort_by(|a, b| (&a.remote, &a.path).cmp(&(&b.remote, &b.path)));
    Ok(files)
}

impl KeptFile {
    /// Copies it below a folder, in one of the remote's name; what is there stays. Gives the copy; `None` when it was sent
    /// meanwhile.
    ///
    /// # Errors
    /// `Busy` for a changed part of a file whose rest is only at the provider, and the local disk's.
    pub fn export(&self, folder: &Path) -> Result<Option<PathBuf>> {
        let file = match File::open(&self.staged) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::from(error).context(&self.path)),
        };
        let missing = outbox::missing_bytes(&self.staged).map_err(|error| error.context(&self.path))?;
        if missing > 0 {
            let message = format!(
                "{} is a change of a part, and {missing} bytes of the rest are only at the provider; mount {} and copy \
                 it from there",
                self.path, self.remote
            );
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let target = crate::paths::exported(folder, &self.remote).join(&self.path);
        let copied = outbox::save_copy(&file, file.metadata()?.len(), &target);
        // A staged file that was sent may have another one's content by now, and has another name then.
        let is_still_it = |there: Metadata| file.metadata().is_ok_and(|it| it.ino() == there.ino());
        if self.staged.symlink_metadata().is_ok_and(is_still_it) {
            return copied.map(Some);
        }
        if let Ok(copy) = copied {
            std::fs::remove_file(copy)?;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_copied_and_what_was_sent_meanwhile_is_not_missed() {
        let folder = tempfile::tempdir().unwrap();
        let (staged, copies) = (folder.path().join("7"), folder.path().join("copies"));
        std::fs::write(&staged, "content").unwrap();
        let kept = KeptFile {
            remote: "drive".to_owned(),
            path: "d/name".to_owned(),
            bytes: 7,
            waiting: Waiting::Sending,
            error: None,
            staged: staged.clone(),
        };
        let copy = kept.export(&copies).unwrap().unwrap();
        assert!(copy.ends_with("d/name"), "{}", copy.display());
        assert_eq!(std::fs::read(&copy).unwrap(), b"content");
        let second = kept.export(&copies).unwrap().unwrap();
        assert_ne!(copy, second, "what is there stays");
        std::fs::remove_file(staged).unwrap();
        assert_eq!(kept.export(&copies).unwrap(), None);
    }
}
