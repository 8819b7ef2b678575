//! Which bytes of a staged file are not there yet because they are as the provider has them, and how that outlives the
//! process.
//!
//! A change of a large file begins as an empty file of the right length. Its map names the version that it is a change
//! of and the ranges that are still *missing*: to be read from exactly that version, never taken for zeros. The map only
//! shrinks: by a write, a truncation, a hole, or bytes that were fetched.
//!
//! It is a text file beside the staged one, one line for each step, appended when the bytes that it speaks of are in the
//! staged file and before whoever wrote them is answered:
//!
//! ```text
//! boot 0b3f…                                  the boot of this machine in which it was begun
//! base {"key":"k","version":"v","size":9}     what is missing is to be read from
//! missing 0 9                                 all that is missing, in pairs
//! synced                                      the staged file, as told so far, is on the disk
//! local 2 5                                   these are not missing any more
//! ```
//!
//! After `kill -9` every line counts: the kernel has the lines and the bytes alike. A power cut can have taken the bytes
//! and left a line, so in another boot only the lines up to the last `synced` count, which `close` brings about. A line
//! without an end is one whose writer was never answered.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rangemap::RangeSet;
use serde::{Deserialize, Serialize};

use super::journal::boot;
use crate::model::{Error, ObjectId, ObjectKey, Result, Version};

/// Gaps that are nearer to each other, in bytes, are read in one go: what lies between costs less than another request.
const NEAR: u64 = 128 * 1024;

/// What is missing, in memory and on disk.
#[derive(Debug)]
pub struct Map {
    base: ObjectId,
    missing: RangeSet<u64>,
    log: File,
    /// Where the next line goes; what a failure left behind it is written over.
    end: u64,
    /// A line could not be written: the next one tells everything.
    behind: bool,
    /// That nothing is missing is on the disk: there is no more to tell.
    told_all: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base {
    key: String,
    version: String,
    size: u64,
}

impl Map {
    /// Of a staged file that has none of its bytes yet.
    ///
    /// # Errors
    /// The local disk's.
    pub fn begin(path: &Path, base: ObjectId) -> Result<Self> {
        let mut missing = RangeSet::new();
        if base.size > 0 {
            missing.insert(0..base.size);
        }
        Self::write(path, base, &missing.clone(), missing)
    }

    /// What a process that ended left, for a staged file that has `len` bytes now.
    ///
    /// # Errors
    /// `BadData` when it is damaged, and the local disk's.
    pub fn reopen(path: &Path, len: u64) -> Result<Self> {
        let Found { base, synced, missing } = read(path, len)?;
        let next = path.with_extension("next");
        let map = Self::write(&next, base, &synced, missing)?;
        map.log.sync_data()?;
        fail_point!("map.adopted");
        std::fs::rename(&next, path)?;
        Ok(map)
    }

    fn write(path: &Path, base: ObjectId, synced: &RangeSet<u64>, missing: RangeSet<u64>) -> Result<Self> {
        let log = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let described = serde_json::to_string(&Base {
            key: base.key.as_str().to_owned(),
            version: base.version.as_str().to_owned(),
            size: base.size,
        });
        let described = described.map_err(|_| Error::internal("a file's version cannot be described"))?;
        let mut map = Self {
            base,
            missing,
            log,
            end: 0,
            behind: false,
            told_all: false,
        };
        let (synced, missing) = (snapshot(synced), snapshot(&map.missing));
        map.append(&format!("boot {}\nbase {described}\n{synced}synced\n{missing}", boot()))?;
        Ok(map)
    }

    pub fn base(&self) -> &ObjectId {
        &self.base
    }

    pub fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }

    /// What of a range is missing, in order.
    pub fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        if range.is_empty() {
            return Vec::new();
        }
        let clip = |gap: &Range<u64>| gap.start.max(range.start)..gap.end.min(range.end);
        self.missing.overlapping(range).map(clip).collect()
    }

    /// The first part of a range that is missing.
    pub fn first_gap(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let gap = (!range.is_empty()).then(|| self.missing.overlapping(range).next())??;
        Some(gap.start.max(range.start)..gap.end.min(range.end))
    }

    /// Something missing, with gaps near it, at most `most` bytes in all.
    pub fn next(&self, most: u64) -> Option<Range<u64>> {
        let mut gaps = self.missing.iter();
        let mut next = gaps.next()?.clone();
        let limit = next.start + most;
        for gap in gaps {
            if gap.start > next.end + NEAR || gap.start >= limit {
                break;
            }
            next.end = gap.end;
        }
        Some(next.start..next.end.min(limit))
    }

    /// These bytes of the staged file count from now on.
    ///
    /// # Errors
    /// The local disk's; then they don't.
    pub fn is_local(&mut self, range: Range<u64>) -> Result<()> {
        if range.is_empty() || !self.missing.overlaps(&range) {
            return Ok(());
        }
        let line = format!("local {} {}\n", range.start, range.end);
        if self.behind {
            let mut missing = self.missing.clone();
            missing.remove(range);
            let before = std::mem::replace(&mut self.missing, missing);
            let all = snapshot(&self.missing);
            return self.append(&all).inspect_err(|_| self.missing = before);
        }
        self.append(&line)?;
        fail_point!("map.told");
        self.missing.remove(range);
        Ok(())
    }

    /// The staged file has this length now, and had more.
    ///
    /// # Errors
    /// The local disk's; what it says holds all the same, as long as the process lives or another line follows.
    pub fn is_cut(&mut self, len: u64) -> Result<()> {
        let cut = len..u64::MAX;
        let recorded = self.is_local(cut.clone());
        self.missing.remove(cut);
        recorded
    }

    /// The staged file is on the disk as told so far.
    ///
    /// # Errors
    /// The local disk's.
    pub fn is_synced(&mut self) -> Result<()> {
        let all = if self.behind {
            snapshot(&self.missing)
        } else {
            String::new()
        };
        self.append(&format!("{all}synced\n"))?;
        self.log.sync_data()?;
        self.told_all = self.is_whole();
        Ok(())
    }

    pub fn has_told_all(&self) -> bool {
        self.told_all
    }

    fn append(&mut self, lines: &str) -> Result<()> {
        let written = self.log.write_all_at(lines.as_bytes(), self.end);
        self.behind = written.is_err();
        written?;
        self.end += lines.len() as u64;
        Ok(())
    }
}

/// How many bytes of a staged file are missing, by its map.
///
/// # Errors
/// As `Map::reopen`.
pub fn missing_bytes(path: &Path, len: u64) -> Result<u64> {
    let found = read(path, len)?;
    Ok(found.missing.iter().map(|gap| gap.end - gap.start).sum())
}

/// What a map says.
struct Found {
    base: ObjectId,
    /// What is missing of the bytes on the disk.
    synced: RangeSet<u64>,
    missing: RangeSet<u64>,
}

fn read(path: &Path, len: u64) -> Result<Found> {
    let damaged = || Error::bad_data(format!("{} is damaged", path.display()));
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged()),
        Err(error) => return Err(error.into()),
    };
    let mut boot_then = None;
    let mut base = None;
    // What holds as long as the machine runs, and what is on the disk.
    let (mut missing, mut synced) = (None, None);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok()) else {
            break;
        };
        match line.split_once(' ').unwrap_or((line, "")) {
            ("boot", id) => boot_then = Some(id.to_owned()),
            ("base", text) => base = serde_json::from_str::<Base>(text).ok(),
            ("missing", pairs) => match ranges(pairs) {
                Some(ranges) => missing = Some(ranges),
                None => break,
            },
            ("local", pair) => match (ranges(pair), &mut missing) {
                (Some(local), Some(missing)) => local.iter().for_each(|range| missing.remove(range.clone())),
                _ => break,
            },
            ("synced", "") => synced.clone_from(&missing),
            _ => break,
        }
    }
    let (Some(base), Some(synced), Some(mut missing)) = (base, synced, missing) else {
        return Err(damaged());
    };
    if boot_then.as_deref() != Some(boot()) {
        missing.clone_from(&synced);
    }
    // A truncation comes before its line.
    if len < u64::MAX {
        missing.remove(len..u64::MAX);
    }
    let base = ObjectId {
        key: ObjectKey::new(base.key),
        version: Version::new(base.version),
        size: base.size,
    };
    Ok(Found { base, synced, missing })
}

fn snapshot(missing: &RangeSet<u64>) -> String {
    use std::fmt::Write;
    let mut line = "missing".to_owned();
    for gap in missing.iter() {
        let _ = write!(line, " {} {}", gap.start, gap.end);
    }
    line.push('\n');
    line
}

fn ranges(pairs: &str) -> Option<RangeSet<u64>> {
    let numbers: Vec<u64> = pairs
        .split_whitespace()
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let mut ranges = RangeSet::new();
    let (pairs, rest) = numbers.as_chunks::<2>();
    for [start, end] in pairs {
        if start >= end {
            return None;
        }
        ranges.insert(*start..*end);
    }
    rest.is_empty().then_some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn object(size: u64) -> ObjectId {
        ObjectId {
            key: ObjectKey::new("k \"1\""),
            version: Version::new("v"),
            size,
        }
    }

    fn gaps(map: &Map) -> Vec<Range<u64>> {
        map.missing.iter().cloned().collect()
    }

    #[test]
    fn every_line_counts_in_the_same_boot_and_only_what_was_flushed_in_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1s.map");
        let mut map = Map::begin(&path, object(100)).unwrap();
        map.is_local(10..20).unwrap();
        map.is_synced().unwrap();
        map.is_local(30..40).unwrap();
        let again = Map::reopen(&path, 100).unwrap();
        assert_eq!(gaps(&again), [0..10, 20..30, 40..100]);
        assert_eq!(again.base(), &object(100));

        let mut map = Map::begin(&path, object(100)).unwrap();
        map.is_local(10..20).unwrap();
        map.is_synced().unwrap();
        map.is_local(30..40).unwrap();
        let text = std::fs::read_to_string(&path).unwrap().replace(boot(), "earlier");
        std::fs::write(&path, text).unwrap();
        assert_eq!(gaps(&Map::reopen(&path, 100).unwrap()), [0..10, 20..100]);
        assert_eq!(
            gaps(&Map::reopen(&path, 100).unwrap()),
            [0..10, 20..100],
            "as it is from now on"
        );
    }

    #[test]
    fn without_any_flush_a_power_cut_leaves_what_the_provider_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1s.map");
        Map::begin(&path, object(9)).unwrap().is_local(0..9).unwrap();
        let text = std::fs::read_to_string(&path).unwrap().replace(boot(), "earlier");
        std::fs::write(&path, text).unwrap();
        assert_eq!(gaps(&Map::reopen(&path, 9).unwrap()), [0..9]);
    }

    #[test]
    fn a_torn_line_is_none_and_a_lost_map_is_not_taken_for_nothing_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1s.map");
        let mut map = Map::begin(&path, object(100)).unwrap();
        map.is_local(0..50).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..=3 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(gaps(&Map::reopen(&path, 100).unwrap()), [0..100]);
        }
        let no_base = "boot x\nbase {}\nmissing 0 9\nsynced\n";
        for damaged in ["", "boot x\n", "missing 0 9\nsynced\n", no_base] {
            std::fs::write(&path, damaged).unwrap();
            assert!(Map::reopen(&path, 100).is_err(), "{damaged:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Map::reopen(&path, 100).is_err());
    }

    #[test]
    fn what_the_disk_refused_is_told_with_the_next_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1s.map");
        let mut map = Map::begin(&path, object(100)).unwrap();
        let good = std::mem::replace(&mut map.log, File::options().write(true).open("/dev/full").unwrap());
        assert!(map.is_local(0..10).is_err());
        assert_eq!(gaps(&map), [0..100]);
        assert!(map.is_cut(60).is_err());
        assert_eq!(gaps(&map), [0..60], "it was cut all the same");
        map.log = good;
        map.is_local(20..30).unwrap();
        assert_eq!(gaps(&Map::reopen(&path, 100).unwrap()), [0..20, 30..60]);
    }

    #[test]
    fn neighbouring_gaps_are_fetched_together() {
        let folder = tempfile::tempdir().unwrap();
        let mut map = Map::begin(&folder.path().join("1s.map"), object(10 * NEAR)).unwrap();
        map.is_local(10..20).unwrap();
        map.is_local(100..200 + NEAR).unwrap();
        assert_eq!(map.next(1000), Some(0..100));
        assert_eq!(map.next(15), Some(0..10));
        assert_eq!(map.next(50), Some(0..50));
        map.is_local(0..200 + NEAR).unwrap();
        assert_eq!(map.next(7), Some(200 + NEAR..207 + NEAR));
        map.is_cut(0).unwrap();
        assert_eq!(map.next(7), None);
        assert!(map.is_whole());
    }

    proptest! {
        #[test]
        fn the_map_on_disk_is_the_one_in_memory(
            size in 1u64..1000,
            steps in proptest::collection::vec((0u64..1000, 1u64..300, 0u8..8), 0..40),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("1s.map");
            let mut map = Map::begin(&path, object(size)).unwrap();
            let mut model: Vec<bool> = vec![true; size as usize];
            for (start, len, what) in steps {
                let range = if what == 0 { start..u64::MAX } else { start..start + len };
                if what == 0 { map.is_cut(start).unwrap() } else { map.is_local(range.clone()).unwrap() }
                for (at, missing) in model.iter_mut().enumerate() {
                    *missing &= !range.contains(&(at as u64));
                }
                for gap in map.gaps(&(start..start + len)) {
                    prop_assert!(gap.clone().all(|at| model[at as usize]));
                }
            }
            let again = Map::reopen(&path, u64::MAX).unwrap();
            prop_assert_eq!(gaps(&again), gaps(&map));
            let missing: Vec<bool> = (0..size).map(|at| again.missing.contains(&at)).collect();
            prop_assert_eq!(missing, model);
        }
    }
}
