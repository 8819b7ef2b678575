//! A mount in the kernel, from mounting to its end.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, INodeNo, MountOption, Notifier, SessionACL};
use tokio::sync::watch;
use tracing::debug;

use super::adapter::Adapter;
use super::bridge::Bridge;
use super::mount_point::{self, Detach, SOURCE_PREFIX};
use crate::fs::{FileSystem, Ino, KernelCaches};
use crate::model::{Error, ErrorKind, Result};

/// Threads that read requests. Operations run as tasks, so a few suffice; one alone would let a panic in the reading
/// thread end the mount.
const READERS: usize = 4;

/// What the kernel reads ahead, in KiB: the most that one request brings (FUSE_MAX_MAX_PAGES, 256 pages). Left alone it
/// is 128 KiB, and eight times as many requests for the same bytes. Only root may change it.
const READAHEAD_KIB: u32 = 1024;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountSettings {
    pub directory: PathBuf,
    /// What `/proc/mounts` shows after `keymount:`.
    pub remote: String,
    pub read_only: bool,
    /// Whether other users may look in.
    pub allow_other: bool,
    /// How long an operation may go without progress.
    pub op_timeout: Duration,
}

/// A mount that the kernel has.
pub struct Session {
    directory: PathBuf,
    ended: watch::Receiver<bool>,
}

/// Mounts; the directory answers when this returns.
///
/// # Errors
/// `NotPermitted` when the kernel or `fusermount3` refuses, with the sentence that repairs it.
pub async fn mount(fs: Arc<FileSystem>, settings: MountSettings) -> Result<Session> {
    let runtime = tokio::runtime::Handle::current();
    let adapter = Adapter::new(Bridge::new(Arc::clone(&fs), runtime, settings.op_timeout));
    let directory = std::path::absolute(&settings.directory)?;
    let mounting = {
        let directory = directory.clone();
        tokio::task::spawn_blocking(move || fuser::Session::new(adapter, &directory, &config(&settings)))
    };
    let session = match mounting.await {
        Ok(outcome) => outcome.map_err(|error| refused(&error))?,
        Err(_) => return Err(Error::internal("mounting was interrupted")),
    };
    fs.connect_kernel(Arc::new(Notices(session.notifier())));
    // `df` answers from memory; asked now, the first one has something to tell.
    let _ = fs.statistics();
    let (report, ended) = watch::channel(false);
    std::thread::Builder::new().name("fuse".to_owned()).spawn(move || {
        if let Err(error) = session.run() {
            debug!(%error, "the kernel's requests ended");
        }
        let _ = report.send(true);
    })?;
    let session = Session { directory, ended };
    session.wait_for_answer().await?;
    Ok(session)
}

impl Session {
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Waits until the mount is gone, whoever unmounted it.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // A dropped sender means that the thread is gone, and the mount with it.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Takes the mount out of the tree.
    ///
    /// # Errors
    /// `Busy` when something uses it and `how` minds that.
    pub async fn detach(&self, how: Detach) -> Result<()> {
        let directory = self.directory.clone();
        match tokio::task::spawn_blocking(move || mount_point::detach(&directory, how)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::internal("unmounting was interrupted")),
        }
    }

    async fn wait_for_answer(&self) -> Result<()> {
        let directory = self.directory.clone();
        match tokio::task::spawn_blocking(move || std::fs::metadata(directory)).await {
            Ok(outcome) => {
                let metadata = outcome.map_err(|error| refused(&error))?;
                read_farther_ahead(metadata.dev());
                Ok(())
            }
            Err(_) => Err(Error::internal("mounting was interrupted")),
        }
    }
}

/// Whoever may not do that reads as before.
fn read_farther_ahead(device: u64) {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let knob = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = std::fs::write(&knob, READAHEAD_KIB.to_string()) {
        debug!(knob, %error, "the kernel's own readahead stays");
    }
}

fn config(settings: &MountSettings) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(format!("{SOURCE_PREFIX}{}", plain(&settings.remote))),
        MountOption::Subtype("keymount".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        if settings.read_only {
            MountOption::RO
        } else {
            MountOption::RW
        },
    ];
    config.acl = if settings.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    config.n_threads = Some(READERS);
    config.clone_fd = true;
    config
}

/// Mount options are separated by commas and have no way to write one.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == ',' || c == '\\' || c.is_control() || c.is_whitespace() {
                '_'
            } else {
                c
            }
        })
        .collect()
}

fn refused(error: &std::io::Error) -> Error {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => " (is fuse3 installed? as root: apt-get install fuse3)",
        std::io::ErrorKind::PermissionDenied => " (run: keymount doctor)",
        _ => "",
    };
    Error::new(
        ErrorKind::NotPermitted,
        format!("the kernel did not mount it: {error}{hint}"),
    )
}

struct Notices(Notifier);

impl KernelCaches for Notices {
    fn forget_attributes(&self, ino: Ino) {
        // A negative offset leaves the pages (FUSE_NOTIFY_INVAL_INODE). What the kernel doesn't have it need not forget.
        let _ = self.0.inval_inode(INodeNo(ino.0), -1, 0);
    }

    fn forget_name(&self, parent: Ino, name: &OsStr) {
        let _ = self.0.inval_entry(INodeNo(parent.0), name);
    }

    fn forget_content(&self, ino: Ino) {
        let _ = self.0.inval_inode(INodeNo(ino.0), 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_cannot_smuggle_options() {
        assert_eq!(plain("drive,allow_other x"), "drive_allow_other_x");
    }
}
