//! Copies of staged files for people to find, beside whatever is there already.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::model::{Error, Name, Result};

/// Copies a staged file to a path, or to one with a number where something is in the way.
pub fn save_copy(file: &File, len: u64, path: &Path) -> Result<PathBuf> {
    let target = free_name(path.to_owned());
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    copy(file, len, &target).map_err(|error| Error::from(error).context(target.display()))?;
    Ok(target)
}

/// The path, or one with a number where something is in the way.
fn free_name(path: PathBuf) -> PathBuf {
    let mut candidate = path.clone();
    let mut number = 1;
    while candidate.symlink_metadata().is_ok() {
        number += 1;
        let name = path
            .file_name()
            .map_or_else(Default::default, |name| name.to_string_lossy().into_owned());
        candidate = match Name::new(format!("{name}.{number}")) {
            Ok(name) => path.with_file_name(name.as_str()),
            Err(_) => path.with_file_name(number.to_string()),
        };
    }
    candidate
}

fn copy(from: &File, len: u64, to: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let target = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    let mut buffer = vec![0; 1 << 20];
    let mut fill = || {
        let mut offset = 0;
        while offset < len {
            let want = buffer.len().min((len - offset) as usize);
            from.read_exact_at(&mut buffer[..want], offset)?;
            target.write_all_at(&buffer[..want], offset)?;
            offset += want as u64;
        }
        target.sync_all()
    };
    // Half a copy would be taken for a whole one.
    fill().inspect_err(|_| _ = std::fs::remove_file(to))
}
