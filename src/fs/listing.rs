//! What a directory held when the provider last listed it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Ino;
use super::inode::Answer;
use crate::model::{Entry, Name};

/// A directory's children with the numbers that `readdir` shows for them.
#[derive(Clone)]
pub struct Listing {
    pub children: BTreeMap<Name, (Ino, Entry)>,
    pub answer: Answer,
    expired: bool,
}

impl Listing {
    pub fn new(children: BTreeMap<Name, (Ino, Entry)>, answer: Answer) -> Self {
        Self {
            children,
            answer,
            expired: false,
        }
    }

    pub fn is_within(&self, ttl: Duration) -> bool {
        !self.expired && self.answer.came.elapsed() < ttl
    }

    /// To be asked for again, and shown only while nobody answers.
    pub fn expire(&mut self) {
        self.expired = true;
    }
}
