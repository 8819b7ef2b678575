//! Files that are not at their provider, as the journal knows them: also those of remotes that nobody has mounted.

use std::fs::File;
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
                _ if outbox::is_in_use(&staging, &row.spool) => Waiting::Sending,
                Phase::Closed => Waiting::ForNextMount,
                Phase::Writing => Waiting::HalfWritten,
            },
            error: row.error,
            staged,
        });
    }
    files.sort_by(|a, b| (&a.remote, &a.path).cmp(&(&b.remote, &b.path)));
    Ok(files)
}

impl KeptFile {
    /// Copies it below a folder, in one of the remote's name; what is there stays. Gives the copy.
    ///
    /// # Errors
    /// `Busy` for a changed part of a file whose rest is only at the provider, and the local disk's.
    pub fn export(&self, folder: &Path) -> Result<PathBuf> {
        let missing = outbox::missing_bytes(&self.staged).map_err(|error| error.context(&self.path))?;
        if missing > 0 {
            let message = format!(
                "{} is a change of a part, and {missing} bytes of the rest are only at the provider; mount {} and copy \
                 it from there",
                self.path, self.remote
            );
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let file = File::open(&self.staged).map_err(|error| Error::from(error).context(&self.path))?;
        let target = crate::paths::exported(folder, &self.remote).join(&self.path);
        outbox::save_copy(&file, file.metadata()?.len(), &target)
    }
}
