//! Where everything is on disk: configuration, state, cache, sockets, logs.
//!
//! The only place that knows these paths. It makes private directories; what is in them belongs to other rooms.

use std::fs::{DirBuilder, Metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use etcetera::base_strategy::{BaseStrategy, Xdg};
use serde::{Deserialize, Serialize};

use crate::model::{Error, ErrorKind, Result};

const APPLICATION: &str = "keymount";
/// Names the configuration file in place of the one below `$XDG_CONFIG_HOME`.
pub const CONFIG_VARIABLE: &str = "KEYMOUNT_CONFIG";
/// Where per-user runtime directories are by systemd's convention (`pam_systemd(8)`).
const RUN_USER: &str = "/run/user";
/// Where the runtime directory is without `$XDG_RUNTIME_DIR`.
const FALLBACK_PARENT: &str = "/tmp";

/// The control groups of this process, and where all of them are (`cgroups(7)`).
pub const OWN_CGROUPS: &str = "/proc/self/cgroup";
pub const CGROUPS: &str = "/sys/fs/cgroup";

/// Whether a missing configuration file is a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigOrigin {
    /// The usual place: a missing file is an empty configuration.
    Default,
    /// Named by `--config` or `KEYMOUNT_CONFIG`: it must be there.
    Named,
}

/// The directories of one person, fixed once when a command starts and handed over to its daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    config_file: PathBuf,
    config_origin: ConfigOrigin,
    state: PathBuf,
    cache: PathBuf,
    runtime: PathBuf,
}

impl Paths {
    /// By the XDG base directory specification, with `--config` and `KEYMOUNT_CONFIG` before it.
    ///
    /// # Errors
    /// `NotFound` when there is no home directory.
    pub fn from_environment(config: Option<&Path>) -> Result<Self> {
        let xdg = Xdg::new().map_err(|_| {
            Error::new(
                ErrorKind::NotFound,
                "your home directory cannot be found; set HOME and try again",
            )
        })?;
        let named = config.map(Path::to_path_buf).or_else(|| {
            std::env::var_os(CONFIG_VARIABLE)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        });
        let (config_file, config_origin) = match named {
            Some(file) => (absolute(&file), ConfigOrigin::Named),
            None => (
                xdg.config_dir().join(APPLICATION).join("config.toml"),
                ConfigOrigin::Default,
            ),
        };
        let state = xdg.state_dir().unwrap_or_else(|| xdg.home_dir().join(".local/state"));
        let runtime = match xdg.runtime_dir().filter(|dir| dir.is_dir()) {
            Some(dir) => dir.join(APPLICATION),
            None => fallback_runtime(own_uid()),
        };
        Ok(Self {
            config_file,
            config_origin,
            state: state.join(APPLICATION),
            cache: xdg.cache_dir().join(APPLICATION),
            runtime,
        })
    }

    /// Everything below one folder.
    #[cfg(test)]
    pub fn for_tests(folder: &Path) -> Self {
        Self {
            config_file: folder.join("config.toml"),
            config_origin: ConfigOrigin::Default,
            state: folder.join("state"),
            cache: folder.join("cache"),
            runtime: folder.join("runtime"),
        }
    }

    /// The same person's paths with state and cache elsewhere: for what shall leave nothing behind.
    pub fn below(&self, directory: &Path) -> Self {
        Self {
            state: directory.join("state"),
            cache: directory.join("cache"),
            ..self.clone()
        }
    }

    pub fn with_cache(&self, directory: &Path) -> Self {
        Self {
            cache: absolute(directory),
            ..self.clone()
        }
    }

    pub fn config_file(&self) -> (&Path, ConfigOrigin) {
        (&self.config_file, self.config_origin)
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    pub fn cache(&self) -> &Path {
        &self.cache
    }

    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Where a daemon writes its log unless told otherwise.
    pub fn log_file(&self) -> PathBuf {
        self.state.join("keymount.log")
    }

    /// The control socket of the daemon with this process id.
    pub fn socket(&self, pid: u32) -> PathBuf {
        self.runtime.join(format!("daemon-{pid}.sock"))
    }

    /// What must survive a restart, of all mounts.
    pub fn state_database(&self) -> PathBuf {
        self.state.join("state.db")
    }

    /// When keys were seen for the first time that nobody else can date.
    pub fn first_seen(&self) -> PathBuf {
        self.state.join("first-seen.json")
    }

    /// Secrets that `login` keeps.
    pub fn secrets(&self) -> PathBuf {
        self.state.join("secrets")
    }

    /// Content of files while it is being changed.
    pub fn staging(&self) -> PathBuf {
        self.state.join("staging")
    }

    /// Cached content of all remotes.
    pub fn blocks(&self) -> PathBuf {
        self.cache.join("blocks")
    }

    /// Held while a remote's key is being replaced.
    pub fn rotation_lock(&self, remote: &str) -> PathBuf {
        self.state.join(format!("rotate-{}.lock", readable(remote)))
    }

    /// Held while a remote's token is being renewed, by one process of the host. Nobody removes it.
    pub fn renewal_lock(&self, remote: &str) -> PathBuf {
        self.state.join(format!("renew-{}.lock", readable(remote)))
    }

    /// Where files that the provider didn't take are exported to.
    pub fn unsent(&self, remote: &str) -> PathBuf {
        self.state.join("unsent").join(readable(remote))
    }

    /// The sockets of running and of dead daemons that this user may reach: one's own, and for root everybody's.
    pub fn sockets(&self) -> Vec<SocketFile> {
        let uid = own_uid();
        let mut folders = vec![
            self.runtime.clone(),
            Path::new(RUN_USER).join(uid.to_string()).join(APPLICATION),
            fallback_runtime(uid),
        ];
        if uid == 0 {
            folders.extend(children(Path::new(RUN_USER)).map(|user| user.join(APPLICATION)));
            folders.extend(children(Path::new(FALLBACK_PARENT)).filter(|path| is_fallback(path)));
        }
        folders.sort();
        folders.dedup();
        folders.iter().flat_map(|folder| sockets_in(folder, uid)).collect()
    }
}

/// A daemon's control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFile {
    pub path: PathBuf,
    pub owner: u32,
}

/// Where a remote's files are exported to below a folder.
pub fn exported(folder: &Path, remote: &str) -> PathBuf {
    folder.join(readable(remote))
}

/// The process's own user id.
pub fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// Makes a directory that only its owner can enter; one of ours that others could enter is closed to them.
///
/// # Errors
/// `Denied` when it belongs to somebody else, and as the local disk says.
pub fn private_directory(path: &Path) -> Result<()> {
    let metadata = make(path)?;
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(|error| named(path, error))?;
    }
    Ok(())
}

/// Makes the directory of the sockets, and trusts an existing one only if nobody else could have put something there.
///
/// # Errors
/// `Denied` when it belongs to somebody else, is a link, or is open to others.
pub fn runtime_directory(path: &Path) -> Result<()> {
    let metadata = make(path)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(Error::denied(format!(
            "{} is open to other users (mode {:04o}), so it cannot hold control sockets; run: chmod 700 {}",
            path.display(),
            metadata.mode() & 0o7777,
            path.display()
        )));
    }
    Ok(())
}

/// The path from the root, `.` and `..` left as they are: nothing on the way is touched.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn make(path: &Path) -> Result<Metadata> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| named(path, error))?;
    let metadata = std::fs::symlink_metadata(path).map_err(|error| named(path, error))?;
    if !metadata.is_dir() || metadata.uid() != own_uid() {
        return Err(Error::denied(format!(
            "{} is not a directory of yours; remove it and try again",
            path.display()
        )));
    }
    Ok(metadata)
}

fn named(path: &Path, error: std::io::Error) -> Error {
    Error::from(error).context(path.display())
}

fn fallback_runtime(uid: u32) -> PathBuf {
    Path::new(FALLBACK_PARENT).join(format!("{APPLICATION}-{uid}"))
}

fn is_fallback(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix("keymount-"))
        .is_some_and(|uid| uid.parse::<u32>().is_ok())
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

/// Only sockets that belong to the folder's owner: in another's folder anything else would be a trap.
fn sockets_in(folder: &Path, uid: u32) -> Vec<SocketFile> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(metadata) = std::fs::symlink_metadata(folder) else {
        return Vec::new();
    };
    let owner = metadata.uid();
    if !metadata.is_dir() || metadata.mode() & 0o077 != 0 || (owner != uid && uid != 0) {
        return Vec::new();
    }
    let mut found: Vec<_> = children(folder)
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .filter(|path| {
            std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket() && file.uid() == owner)
        })
        .map(|path| SocketFile { path, owner })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// A folder name that a person recognises.
fn readable(label: &str) -> String {
    let safe: String = label
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .take(48)
        .collect();
    if safe.is_empty() { "remote".to_owned() } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_runtime_directory_open_to_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runtime");
        runtime_directory(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
        let refused = runtime_directory(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
        assert!(refused.message().contains("chmod 700"), "{refused}");
    }

    #[test]
    fn a_link_in_place_of_a_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert_eq!(runtime_directory(&link).unwrap_err().kind(), ErrorKind::Denied);
    }

    #[test]
    fn ones_own_directories_are_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        private_directory(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        private_directory(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn only_sockets_in_a_closed_folder_are_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let _listener = UnixListener::bind(folder.path().join("daemon-1.sock")).unwrap();
        std::fs::write(folder.path().join("daemon-2.sock"), "").unwrap();
        let found = sockets_in(folder.path(), own_uid());
        assert_eq!(found.len(), 1);
        assert!(found[0].path.ends_with("daemon-1.sock"));
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(sockets_in(folder.path(), own_uid()).is_empty());
    }

    #[test]
    fn a_label_cannot_lead_out_of_its_folder() {
        let paths = Paths::for_tests(Path::new("/p"));
        assert_eq!(paths.unsent("../etc"), Path::new("/p/state/unsent/___etc"));
        assert_eq!(paths.unsent(""), Path::new("/p/state/unsent/remote"));
    }
}
