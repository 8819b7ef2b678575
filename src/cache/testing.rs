//! What the tests of the caches share: operations and the model they are compared with.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{ContentId, Run};

pub(super) fn content(number: u8) -> ContentId {
    ContentId([number; 32])
}

/// What was found where one block was asked for.
pub(super) fn one(mut found: Vec<Run>) -> Option<Bytes> {
    assert!(found.len() <= 1);
    found.pop().map(|run| run.bytes)
}

pub(super) fn run(first: u64, bytes: impl Into<Bytes>) -> Run {
    let bytes = bytes.into();
    Run { first, bytes }
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Put { content: u8, block: u64, bytes: usize },
    Get { content: u8, block: u64 },
    Forget { content: u8 },
    Clear,
    Reopen,
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let place = (0u8..5, 0u64..6);
    let op = prop_oneof![
        8 => (place.clone(), 1usize..9000).prop_map(|((content, block), bytes)| Op::Put { content, block, bytes }),
        8 => place.prop_map(|(content, block)| Op::Get { content, block }),
        1 => (0u8..5).prop_map(|content| Op::Forget { content }),
        1 => Just(Op::Clear),
        2 => Just(Op::Reopen),
    ];
    proptest::collection::vec(op, 1..60)
}

/// What may be in a cache: the bytes that were first put in a place, for equal versions have equal bytes.
#[derive(Default)]
pub(super) struct Model(HashMap<(u8, u64), Bytes>);

impl Model {
    /// The bytes of this place, made up now if it has none.
    pub(super) fn put(&mut self, content: u8, block: u64, len: usize) -> Bytes {
        let made = || -> Bytes {
            let seed = u64::from(content) << 32 | block << 16 | len as u64;
            (0..len).map(|i| (seed.wrapping_mul(31) as usize + i) as u8).collect()
        };
        self.0.entry((content, block)).or_insert_with(made).clone()
    }

    pub(super) fn allows(&self, content: u8, block: u64, found: Option<&Bytes>) -> bool {
        found.is_none_or(|bytes| self.0.get(&(content, block)) == Some(bytes))
    }

    pub(super) fn forget(&mut self, content: u8) {
        self.0.retain(|(of, _), _| *of != content);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
