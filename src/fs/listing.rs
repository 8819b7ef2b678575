//! What a directory held when the provider last listed it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Ino;
use super::inode::{Answer, Told};
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
        !self.expired && self.answer.told == Told::Now && self.answer.came.elapsed() < ttl
    }

    /// Whether it is a former mount's, and nobody was asked since.
    pub fn is_remembered(&self) -> bool {
        !self.expired && self.answer.told == Told::Before
    }

    pub fn is_expired(&self) -> bool {
        self.expired
    }

    /// How many directories are in it.
    pub fn subdirectories(&self) -> u32 {
        let directories = self.children.values().filter(|(_, entry)| entry.is_directory());
        u32::try_from(directories.count()).unwrap_or(u32::MAX)
    }

    /// To be asked for again, and shown only while nobody answers.
    pub fn expire(&mut self) {
        self.expired = true;
    }
}
