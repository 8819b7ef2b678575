//! What was sent of a file without an answer: the provider may have it, and if so it is this mount's doing.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::state::SentContent;

/// How many contents are remembered.
const MOST: usize = 16;

pub(super) struct Unanswered {
    known: Mutex<Known>,
    /// The content as it is now may be at the provider, and perhaps isn't among `known`.
    is_now: AtomicBool,
}

struct Known {
    contents: Vec<SentContent>,
    /// The latest state of the staged file that is among them.
    changes: u64,
}

impl Unanswered {
    pub fn new(contents: Vec<SentContent>) -> Self {
        Self {
            known: Mutex::new(Known { contents, changes: 0 }),
            is_now: AtomicBool::new(false),
        }
    }

    /// What is here is sent from now on, or was perhaps by a daemon that ended.
    pub fn begin(&self) {
        self.is_now.store(true, Ordering::Release);
    }

    /// An answer came.
    pub fn end(&self) {
        self.is_now.store(false, Ordering::Release);
    }

    pub fn is_now(&self) -> bool {
        self.is_now.load(Ordering::Acquire)
    }

    pub fn is_any(&self) -> bool {
        self.is_now() || !self.known.lock().contents.is_empty()
    }

    /// Whether this state of the staged file is among the contents.
    pub fn has_state(&self, changes: u64) -> bool {
        self.known.lock().changes == changes
    }

    pub fn add(&self, changes: u64, content: SentContent) {
        let mut known = self.known.lock();
        known.changes = changes;
        known.contents.retain(|other| *other != content);
        if known.contents.len() == MOST {
            known.contents.remove(0);
        }
        known.contents.push(content);
    }

    pub fn contents(&self) -> Vec<SentContent> {
        self.known.lock().contents.clone()
    }

    pub fn any(&self, is_meant: impl FnMut(&SentContent) -> bool) -> bool {
        self.known.lock().contents.iter().any(is_meant)
    }
}
