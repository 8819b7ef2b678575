//! Which processes keep a mount busy, from what the kernel shows of them (proc(5)).

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// How many are named before the rest is counted.
const NAMED: usize = 5;

/// A process that uses something in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    pub pid: u32,
    pub name: String,
    /// One thing it uses.
    pub uses: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {}: {})", self.name, self.pid, self.uses)
    }
}

/// Those that this user may see; of other users' processes only root sees what they use.
pub fn holders(directory: &Path) -> Vec<Holder> {
    let mut found = BTreeSet::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(uses) = use_of(&process.path(), directory) {
            let name = std::fs::read_to_string(process.path().join("comm"))
                .map_or_else(|_| "a process".to_owned(), |name| name.trim().to_owned());
            found.insert(Holder { pid, name, uses });
        }
    }
    found.into_iter().collect()
}

/// What one process uses in the directory, first its working directory, because that is what people forget.
fn use_of(process: &Path, directory: &Path) -> Option<String> {
    let inside = |link: PathBuf| {
        let target = std::fs::read_link(link).ok()?;
        target.starts_with(directory).then_some(target)
    };
    for (link, what) in [("cwd", "works in"), ("root", "has its root in"), ("exe", "runs")] {
        if let Some(target) = inside(process.join(link)) {
            return Some(format!("{what} {}", target.display()));
        }
    }
    let open = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    if let Some(target) = open.filter_map(|file| inside(file.path())).next() {
        return Some(format!("has {} open", target.display()));
    }
    let maps = std::fs::read_to_string(process.join("maps")).ok()?;
    // The sixth field is the file, which may have spaces.
    let mapped = maps
        .lines()
        .filter_map(|line| line.find('/').map(|start| &line[start..]));
    mapped
        .map(Path::new)
        .find(|file| file.starts_with(directory))
        .map(|file| format!("has {} mapped", file.display()))
}

/// The holders as the end of a sentence.
pub fn sentence(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "by a process that you may not see; run the command as root to have it named".to_owned();
    }
    let named: Vec<String> = holders.iter().take(NAMED).map(ToString::to_string).collect();
    match holders.len().saturating_sub(NAMED) {
        0 => format!("by {}", named.join(", ")),
        more => format!("by {} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_open_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let own = std::process::id();
        assert!(!holders(&folder).iter().any(|holder| holder.pid == own));
        let _file = std::fs::File::create(folder.join("a file")).unwrap();
        let holders = holders(&folder);
        let found = holders.iter().find(|holder| holder.pid == own).unwrap();
        assert!(found.uses.contains("a file open"), "{found}");
    }

    #[test]
    fn a_folder_with_a_longer_name_is_another_folder() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        std::fs::create_dir(folder.join("ab")).unwrap();
        let _file = std::fs::File::create(folder.join("ab/file")).unwrap();
        let own = std::process::id();
        assert!(!holders(&folder.join("a")).iter().any(|holder| holder.pid == own));
    }

    #[test]
    fn many_holders_are_counted() {
        let holder = |pid| Holder {
            pid,
            name: "vim".into(),
            uses: "works in /mnt".into(),
        };
        let many: Vec<_> = (0..7).map(holder).collect();
        assert!(sentence(&many).ends_with("and 2 more"));
        assert_eq!(sentence(&many[..1]), "by vim (process 0: works in /mnt)");
    }
}
