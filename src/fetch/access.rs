//! Which blocks a read takes and which of them one request asks for: arithmetic alone. What will be read next is
//! `pattern`'s affair.

use std::ops::Range;

use crate::cache::BLOCK;

/// The blocks that a request brings at most: 8 MiB. It bounds the memory of one flight, and how much is asked for anew
/// when an answer breaks off.
pub(super) const MOST_PER_REQUEST: u64 = (8 << 20) / BLOCK;

/// What the first read at the beginning of an object brings at least, in bytes: many files have no more, and programs
/// read the head of others before they read on.
const HEAD: u64 = 256 * 1024;

/// The part of a read that lies in the object.
pub(super) fn clip(offset: u64, len: usize, size: u64) -> Range<u64> {
    let end = offset.saturating_add(len as u64).min(size);
    offset.min(end)..end
}

/// What is asked for when these bytes are wanted and none of the object was read before.
pub(super) fn opening(wanted: Range<u64>, size: u64) -> Range<u64> {
    if wanted.start == 0 && !wanted.is_empty() {
        0..wanted.end.max(HEAD).min(size)
    } else {
        wanted
    }
}

/// The blocks that hold these bytes.
pub(super) fn blocks(bytes: &Range<u64>) -> Range<u64> {
    if bytes.is_empty() {
        return 0..0;
    }
    bytes.start / BLOCK..bytes.end.div_ceil(BLOCK)
}

/// The bytes that these blocks hold of an object.
pub(super) fn bytes(blocks: &Range<u64>, size: u64) -> Range<u64> {
    blocks.start * BLOCK..(blocks.end * BLOCK).min(size)
}

/// The requests that bring the missing blocks, given in ascending order: one for each run of neighbours, none longer
/// than `most`.
pub(super) fn requests(missing: &[u64], most: u64) -> Vec<Range<u64>> {
    let mut requests: Vec<Range<u64>> = Vec::new();
    for &block in missing {
        match requests.last_mut() {
            Some(run) if run.end == block && run.end - run.start < most => run.end += 1,
            _ => requests.push(block..block + 1),
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_end_with_the_object() {
        assert_eq!(clip(5, 10, 8), 5..8);
        assert_eq!(clip(8, 10, 8), 8..8);
        assert_eq!(clip(u64::MAX, usize::MAX, 8), 8..8);
        assert_eq!(blocks(&(8..8)), 0..0);
        assert_eq!(blocks(&(BLOCK - 1..BLOCK + 1)), 0..2);
    }

    #[test]
    fn neighbours_share_a_request_up_to_a_limit() {
        assert_eq!(requests(&[1, 2, 4, 5, 6, 7], 3), [1..3, 4..7, 7..8]);
        assert!(requests(&[], 3).is_empty());
    }

    proptest! {
        #[test]
        fn blocks_hold_the_bytes_and_none_is_superfluous(offset in 0..5 * BLOCK, len in 1..3 * BLOCK as usize, size in 1..5 * BLOCK) {
            let wanted = clip(offset, len, size);
            let blocks = blocks(&wanted);
            if wanted.is_empty() {
                prop_assert!(blocks.is_empty());
                return Ok(());
            }
            let suffice = |blocks: &Range<u64>| {
                let held = bytes(blocks, size);
                held.start <= wanted.start && wanted.end <= held.end
            };
            prop_assert!(suffice(&blocks));
            prop_assert!(!suffice(&(blocks.start + 1..blocks.end)) && !suffice(&(blocks.start..blocks.end - 1)));
        }
    }
}
