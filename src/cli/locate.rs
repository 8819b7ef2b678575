//! Which mount a typed directory means, without touching what is mounted there: it may not answer.

use std::path::{Path, PathBuf};

use crate::control::{Daemon, Daemons, MountReport};

/// The forms under which a directory may be known: as typed, and with the links on the way followed.
pub fn spellings(directory: &Path) -> Vec<PathBuf> {
    let absolute = crate::paths::absolute(directory);
    // A trailing `/` or `/.` is no part of the name.
    let absolute: PathBuf = absolute.components().collect();
    let mut spellings = vec![absolute.clone()];
    if let (Some(Ok(parent)), Some(name)) = (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        spellings.push(parent.join(name));
    }
    // Only a link is followed at the end: a mount point is none, and asking what it is might wait for its daemon.
    if let Some(Ok(target)) = absolute.read_link().ok().map(|_| absolute.canonicalize()) {
        spellings.push(target);
    }
    spellings.dedup();
    spellings
}

/// The mount on this directory; without one, all mounts below it (`mount` puts several below one directory).
pub fn mounts_at<'a>(daemons: &'a Daemons, directory: &Path) -> Vec<(&'a Daemon, &'a MountReport)> {
    let spellings = spellings(directory);
    let exact: Vec<_> = daemons
        .mounts()
        .filter(|(_, mount)| spellings.contains(&mount.directory))
        .collect();
    if !exact.is_empty() {
        return exact;
    }
    daemons
        .mounts()
        .filter(|(_, mount)| spellings.iter().any(|parent| mount.directory.starts_with(parent)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_known_by_its_name_and_by_its_links() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        std::fs::create_dir(folder.join("real")).unwrap();
        std::os::unix::fs::symlink(folder.join("real"), folder.join("link")).unwrap();
        assert!(spellings(&folder.join("link")).contains(&folder.join("real")));
        assert!(spellings(&folder.join("real/")).contains(&folder.join("real")));
        assert_eq!(spellings(Path::new("/no/such/place")), [Path::new("/no/such/place")]);
    }
}
