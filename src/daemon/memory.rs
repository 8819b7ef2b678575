//! How much memory a daemon's reads may take: one budget for the blocks that are kept and for the downloads in flight.
//!
//! Where the process has a limit (a control group of systemd, of a container), it takes a quarter of that at most: going
//! beyond the limit, it would be killed with what is not uploaded yet.

use std::path::Path;

use crate::paths::{CGROUPS, OWN_CGROUPS};

/// In bytes, unless the control group has less: some hundred pieces of what is being read just now, and what a reader on
/// a fast line has on its way.
const USUAL: u64 = 128 << 20;
/// In bytes. With less, reads get slower than the memory is worth.
const LEAST: u64 = 8 << 20;
/// Of the budget, this many eighths are for the blocks that are kept and for what is in flight. A reader keeps half of the
/// cache ahead at most. Where a disk keeps the blocks, the kernel keeps the disk's pages, and those in memory are only
/// what is read in small pieces.
const IN_MEMORY: (u64, u64) = (5, 3);
const ON_DISK: (u64, u64) = (1, 3);
/// From here on a limit of the first version of control groups means that there is none: it is the largest multiple of a
/// page that fits into 63 bits (`page_counter.h`).
const NO_LIMIT: u64 = 1 << 60;

/// In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    /// Blocks that were read.
    pub cache: u64,
    /// Downloads that are not in the cache yet, of all mounts together.
    pub in_flight: u64,
}

/// Where the blocks are kept that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    InMemory,
    OnDisk,
}

impl Keeping {
    pub fn on_disk(all: bool) -> Self {
        if all { Self::OnDisk } else { Self::InMemory }
    }
}

impl MemoryBudget {
    /// Of this process.
    pub fn here(keeping: Keeping) -> Self {
        let groups = std::fs::read_to_string(OWN_CGROUPS).unwrap_or_default();
        Self::within(limit(Path::new(CGROUPS), &groups), keeping)
    }

    /// Of a process that may have so many bytes, if there is a limit.
    pub fn within(limit: Option<u64>, keeping: Keeping) -> Self {
        let total = limit.map_or(USUAL, |limit| USUAL.min(limit / 4)).max(LEAST);
        let (cache, in_flight) = match keeping {
            Keeping::InMemory => IN_MEMORY,
            Keeping::OnDisk => ON_DISK,
        };
        Self {
            cache: total / 8 * cache,
            in_flight: total / 8 * in_flight,
        }
    }

    /// What each of so many mounts may have in flight.
    pub fn in_flight_of_each(&self, mounts: usize) -> u64 {
        self.in_flight / (mounts.max(1) as u64)
    }
}

/// The smallest memory limit of a process's control groups and of those above them; `groups` is its `/proc/self/cgroup`
/// (`cgroups(7)`). In a container the groups may be those of the host, whose files aren't there: then the root's count.
fn limit(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            v1 if v1.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let group = root.join(path.trim_start_matches('/'));
        let groups = group.ancestors().take_while(|group| group.starts_with(&root));
        let read = |group: &Path| {
            std::fs::read_to_string(group.join(file))
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        };
        groups.filter_map(read).filter(|limit| *limit < NO_LIMIT).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_budget_is_a_quarter_of_a_limit_and_never_more_than_usual() {
        let total = |limit| {
            let budget = MemoryBudget::within(limit, Keeping::InMemory);
            budget.cache + budget.in_flight
        };
        assert_eq!(total(None), 128 * MIB);
        assert_eq!(total(Some(64 << 30)), 128 * MIB);
        assert_eq!(total(Some(256 * MIB)), 64 * MIB);
        assert_eq!(total(Some(4 * MIB)), 8 * MIB, "less would be of no use");
        let budget = MemoryBudget::within(None, Keeping::OnDisk);
        assert_eq!((budget.cache, budget.in_flight), (16 * MIB, 48 * MIB));
        let budget = MemoryBudget::within(None, Keeping::InMemory);
        assert_eq!((budget.cache, budget.in_flight), (80 * MIB, 48 * MIB));
        assert_eq!(budget.in_flight_of_each(6), 8 * MIB);
        assert_eq!(budget.in_flight_of_each(0), 48 * MIB);
    }

    #[test]
    fn the_limit_is_the_smallest_of_the_groups_and_those_above() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let set = |group: &str, file: &str, text: &str| {
            std::fs::create_dir_all(root.join(group)).unwrap();
            std::fs::write(root.join(group).join(file), text).unwrap();
        };
        assert_eq!(limit(root, ""), None);
        set("user.slice/app", "memory.max", "max\n");
        assert_eq!(limit(root, "0::/user.slice/app\n"), None);
        set("user.slice", "memory.max", "1000\n");
        assert_eq!(limit(root, "0::/user.slice/app\n"), Some(1000));
        assert_eq!(limit(root, "0::/elsewhere\n"), None);
        set("memory/docker/1", "memory.limit_in_bytes", "9223372036854771712\n");
        let both = "4:cpu,memory:/docker/1\n1:cpu:/\n0::/user.slice\n";
        assert_eq!(limit(root, both), Some(1000));
        set("memory/docker/1", "memory.limit_in_bytes", "500\n");
        assert_eq!(limit(root, both), Some(500));
        set("memory", "memory.limit_in_bytes", "400\n");
        assert_eq!(
            limit(root, "4:memory:/not/to/be/seen/here\n"),
            Some(400),
            "a container's root"
        );
        assert_eq!(limit(root, "garbage\n4:memory:/\n"), Some(400));
    }
}
