//! The blocks of one read, as they are found here and there: arithmetic alone.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::access;
use crate::cache::{BLOCK, Run};

pub(super) struct Gathered {
    wanted: Range<u64>,
    /// By their first blocks; they don't overlap.
    runs: BTreeMap<u64, Run>,
    missing: u64,
}

impl Gathered {
    pub(super) fn new(wanted: Range<u64>) -> Self {
        Self {
            missing: wanted.end - wanted.start,
            wanted,
            runs: BTreeMap::new(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Takes in blocks that are wanted and were absent.
    pub(super) fn add(&mut self, run: Run) {
        let blocks = run.blocks();
        self.missing = self.missing.saturating_sub(blocks.end - blocks.start);
        self.runs.insert(run.first, run);
    }

    /// Those of the wanted blocks that aren't here and for which this holds, as runs.
    pub(super) fn absent(&self, which: impl Fn(u64) -> bool) -> Vec<Range<u64>> {
        let has = |block| {
            let before = self.runs.range(..=block).next_back();
            before.is_some_and(|(_, run)| run.blocks().contains(&block))
        };
        let absent: Vec<u64> = self
            .wanted
            .clone()
            .filter(|&block| !has(block) && which(block))
            .collect();
        access::requests(&absent, u64::MAX)
    }

    /// Exactly these bytes of the object.
    pub(super) fn cut(self, range: &Range<u64>) -> Vec<Bytes> {
        let cut = |run: Run| {
            let first = run.first * BLOCK;
            let from = range.start.saturating_sub(first) as usize;
            let to = ((range.end - first) as usize).min(run.bytes.len());
            run.bytes.slice(from..to)
        };
        self.runs.into_values().map(cut).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_in_any_order_is_cut_to_what_was_asked_for() {
        let size = 5 * BLOCK + 10;
        let object: Bytes = (0..size).map(|i| (i % 251) as u8).collect();
        let run = |blocks: Range<u64>| {
            let bytes = access::bytes(&blocks, size);
            Run {
                first: blocks.start,
                bytes: object.slice(bytes.start as usize..bytes.end as usize),
            }
        };
        let range = BLOCK + 7..size - 3;
        let mut gathered = Gathered::new(access::blocks(&range));
        assert_eq!(gathered.absent(|_| true), [1..6]);
        gathered.add(run(5..6));
        gathered.add(run(2..4));
        assert_eq!(gathered.absent(|_| true), [1..2, 4..5]);
        assert_eq!(gathered.absent(|block| block > 1), [4..5]);
        gathered.add(run(4..5));
        assert!(!gathered.is_complete());
        gathered.add(run(1..2));
        assert!(gathered.is_complete());
        let cut = gathered.cut(&range).concat();
        assert!(cut == object[range.start as usize..range.end as usize]);
    }
}
