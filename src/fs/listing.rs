//! What a directory held when the provider last listed it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Ino;
use crate::model::{Entry, Name};

/// A directory's children with the numbers that `readdir` shows for them.
#[derive(Clone)]
pub struct Listing {
    pub children: BTreeMap<Name, (Ino, Entry)>,
    /// `None` when it was told to be asked for again.
    taken: Option<Instant>,
}

impl Listing {
    pub fn new(children: BTreeMap<Name, (Ino, Entry)>) -> Self {
        Self {
            children,
            taken: Some(Instant::now()),
        }
    }

    pub fn is_within(&self, ttl: Duration) -> bool {
        self.taken.is_some_and(|taken| taken.elapsed() < ttl)
    }

    /// To be asked for again, and shown only while nobody answers.
    pub fn expire(&mut self) {
        self.taken = None;
    }
}
