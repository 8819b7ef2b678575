//! Directories as mount points: what is there, and taking mounts away.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno as Os;
use rustix::mount::UnmountFlags;

use crate::model::{Error, ErrorKind, Result};

/// What every source of ours begins with. The type tells less: `fuse.keymount` through `fusermount3`, but plain `fuse`
/// when root mounts by system call.
pub const SOURCE_PREFIX: &str = "keymount:";

/// What a directory is, as far as mounting on it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountPointState {
    Missing,
    NotADirectory,
    Empty,
    NotEmpty,
    /// Ours, and somebody serves it.
    Keymount,
    /// Ours, and nobody serves it any more.
    DeadKeymount,
    OtherMount,
}

/// How to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detach {
    /// Not while a file is open in it or a process works there.
    IfUnused,
    /// At once; those who use it keep what they have until they let go.
    Lazy,
}

/// Looks at a directory without waiting for whoever serves it, unless it is alive and ours.
///
/// # Errors
/// When the mount table or the directory cannot be read.
pub fn mount_point_state(directory: &Path) -> std::io::Result<MountPointState> {
    let directory = resolved(directory)?;
    match mounts()?.into_iter().rev().find(|mount| mount.directory == directory) {
        Some(mount) if mount.is_ours() => {
            // Not `stat`: the kernel may answer that for a dead daemon out of its cache.
            let dead = matches!(rustix::fs::statvfs(&directory), Err(Os::NOTCONN | Os::CONNABORTED));
            return Ok(if dead {
                MountPointState::DeadKeymount
            } else {
                MountPointState::Keymount
            });
        }
        Some(_) => return Ok(MountPointState::OtherMount),
        None => {}
    }
    match std::fs::read_dir(&directory) {
        Ok(mut entries) => Ok(if entries.next().is_none() {
            MountPointState::Empty
        } else {
            MountPointState::NotEmpty
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(MountPointState::Missing),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Ok(MountPointState::NotADirectory),
        Err(error) => Err(error),
    }
}

/// The directories that keymount serves or served on this host, in the order of mounting.
///
/// # Errors
/// When the mount table cannot be read.
pub fn keymount_mounts() -> std::io::Result<Vec<PathBuf>> {
    let ours = mounts()?.into_iter().filter(Mount::is_ours);
    Ok(ours.map(|mount| mount.directory).collect())
}

/// Takes a mount that nobody serves any more out of the tree.
///
/// # Errors
/// As `detach`.
pub fn detach_dead(directory: &Path) -> Result<()> {
    detach(&resolved(directory)?, Detach::Lazy)
}

/// Unmounts, as root by system call and else through `fusermount3`.
///
/// # Errors
/// `Busy` when it is in use and `how` minds that, `NotPermitted` when it isn't ours to unmount.
pub fn detach(directory: &Path, how: Detach) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        let flags = match how {
            Detach::IfUnused => UnmountFlags::NOFOLLOW,
            Detach::Lazy => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
        };
        return match rustix::mount::unmount(directory, flags) {
            Ok(()) => Ok(()),
            Err(Os::BUSY) => Err(busy(directory)),
            Err(Os::INVAL | Os::NOENT) => Err(not_mounted(directory)),
            Err(error) => Err(Error::from(std::io::Error::from(error)).context("unmount")),
        };
    }
    let lazy: &[&str] = if how == Detach::Lazy { &["-z"] } else { &[] };
    let helper = Command::new("fusermount3")
        .arg("-u")
        .args(lazy)
        .arg("--")
        .arg(directory)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Error::new(
                ErrorKind::NotPermitted,
                format!("fusermount3 cannot be started: {error}"),
            )
        })?;
    if helper.status.success() {
        return Ok(());
    }
    // fusermount3 tells the cause in words only; LC_ALL above fixes them.
    let words = String::from_utf8_lossy(&helper.stderr);
    if words.contains("busy") {
        Err(busy(directory))
    } else if words.contains("not found") || words.contains("not mounted") {
        Err(not_mounted(directory))
    } else {
        Err(Error::new(
            ErrorKind::NotPermitted,
            format!("fusermount3 refused: {}", words.trim()),
        ))
    }
}

fn busy(directory: &Path) -> Error {
    Error::new(ErrorKind::Busy, format!("{} is in use", directory.display()))
}

fn not_mounted(directory: &Path) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("nothing is mounted on {}", directory.display()),
    )
}

/// The absolute path with links followed in all but a last component that doesn't answer.
fn resolved(directory: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(directory)?;
    if let Ok(path) = absolute.canonicalize() {
        return Ok(path);
    }
    match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
        _ => Ok(absolute),
    }
}

struct Mount {
    directory: PathBuf,
    fs_type: String,
    source: String,
}

impl Mount {
    fn is_ours(&self) -> bool {
        matches!(self.fs_type.as_str(), "fuse" | "fuse.keymount") && self.source.starts_with(SOURCE_PREFIX)
    }
}

fn mounts() -> std::io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Lines of `/proc/self/mountinfo` (proc(5)): field 5 is the directory; after `-` come the type and the source.
fn parse(table: &[u8]) -> Vec<Mount> {
    let line = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let directory = PathBuf::from(OsString::from_vec(unescape(fields.get(4)?)));
        let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
        let (fs_type, source) = (text(fields.get(dash + 1)?), text(fields.get(dash + 2)?));
        Some(Mount {
            directory,
            fs_type,
            source,
        })
    };
    table.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| *byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) => {
                plain.push(value);
                rest = &tail[3..];
            }
            None => {
                plain.push(*byte);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_with_its_escapes() {
        let table = b"36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 - fuse.keymount keymount:x rw\n\
                      37 35 98:0 / /root rw - fuse keymount:y rw,user_id=0\n\
                      38 35 98:0 / /photos rw - fuse.sshfs host: rw\n\
                      39 35 98:0 / /other rw - ext4 /dev/x rw\n";
        let mounts = parse(table);
        assert_eq!(mounts[0].directory, Path::new("/mnt/a b"));
        assert_eq!(
            mounts.iter().map(Mount::is_ours).collect::<Vec<_>>(),
            [true, true, false, false]
        );
    }

    #[test]
    fn directories_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(mount_point_state(path).unwrap(), MountPointState::Empty);
        std::fs::write(path.join("file"), "x").unwrap();
        assert_eq!(mount_point_state(path).unwrap(), MountPointState::NotEmpty);
        assert_eq!(
            mount_point_state(&path.join("file")).unwrap(),
            MountPointState::NotADirectory
        );
        assert_eq!(mount_point_state(&path.join("none")).unwrap(), MountPointState::Missing);
        assert_eq!(detach(path, Detach::IfUnused).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
