//! How buckets were when somebody first asked for them: from there on a feed tells what changed.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::wire::{Bucket, BucketInfo, Status};

/// How many buckets are remembered for a feed that doesn't know them yet.
const REMEMBERED: usize = 16;

#[derive(Default)]
pub(super) struct Seen(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    buckets: HashMap<String, (Instant, Bucket)>,
    names: Option<BTreeSet<String>>,
}

impl Seen {
    /// Remembers how a bucket was, unless an earlier answer is known.
    pub(super) fn bucket(&self, name: &str, asked: Instant, answer: &Bucket) {
        let mut inner = self.0.lock();
        if inner.buckets.len() < REMEMBERED && !inner.buckets.contains_key(name) {
            inner.buckets.insert(name.to_owned(), (asked, answer.clone()));
        }
    }

    /// The same of which buckets there are.
    pub(super) fn list(&self, buckets: &[BucketInfo]) {
        self.0.lock().names.get_or_insert_with(|| names(buckets));
    }

    /// The first answer about a bucket since the last call, with the time when it was asked for.
    pub(super) fn take_bucket(&self, name: &str) -> Option<(Instant, Bucket)> {
        self.0.lock().buckets.remove(name)
    }

    pub(super) fn take_names(&self) -> Option<BTreeSet<String>> {
        self.0.lock().names.take()
    }
}

/// The buckets that are not being removed.
pub(super) fn names(buckets: &[BucketInfo]) -> BTreeSet<String> {
    let ready = buckets.iter().filter(|bucket| bucket.status != Status::Deleting);
    ready.map(|bucket| bucket.name.clone()).collect()
}
