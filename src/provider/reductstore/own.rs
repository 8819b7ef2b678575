//! What this process itself changes, so that it isn't taken for the work of others.

use std::collections::{HashMap, HashSet, VecDeque};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::key::{EntryId, Timestamp};

/// How many records that were stored here are remembered; a feed hears of each within seconds.
const REMEMBERED: usize = 4096;

/// What of an entry is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// Its records; the entry and those above it may be made by that.
    Records,
    /// It is made, renamed or removed with all below it.
    Tree,
}

/// The changes under way and those that ended, by entry: there are no more than directories.
#[derive(Default)]
pub(super) struct OwnChanges(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    changes: HashMap<(EntryId, Reach), Known>,
    stored: HashSet<(EntryId, Timestamp)>,
    /// The same, the oldest first.
    order: VecDeque<(EntryId, Timestamp)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    under_way: u32,
    ended: Option<Instant>,
}

/// A change under way.
pub(super) struct UnderWay<'a> {
    changes: &'a OwnChanges,
    what: (EntryId, Reach),
}

impl OwnChanges {
    /// To be called before the server is asked for the change, and kept until it answered.
    pub(super) fn begin(&self, entry: &EntryId, reach: Reach) -> UnderWay<'_> {
        let what = (entry.clone(), reach);
        self.0.lock().changes.entry(what.clone()).or_default().under_way += 1;
        UnderWay { changes: self, what }
    }

    /// A record of this time is about to be stored.
    pub(super) fn stored(&self, entry: &EntryId, at: Timestamp) {
        let mut inner = self.0.lock();
        let record = (entry.clone(), at);
        if inner.stored.insert(record.clone()) {
            inner.order.push_back(record);
        }
        if inner.order.len() > REMEMBERED
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.stored.remove(&oldest);
        }
    }

    /// Whether this process stored the record.
    pub(super) fn has_stored(&self, entry: &EntryId, at: Timestamp) -> bool {
        self.0.lock().stored.contains(&(entry.clone(), at))
    }

    /// What was changed in a bucket since a moment; earlier changes are forgotten.
    pub(super) fn since(&self, bucket: &str, moment: Instant) -> Touched {
        let mut inner = self.0.lock();
        let counts = |known: &Known| known.under_way > 0 || known.ended.is_some_and(|ended| ended >= moment);
        inner
            .changes
            .retain(|(entry, _), known| entry.bucket != bucket || counts(known));
        let here = inner.changes.keys().filter(|(entry, _)| entry.bucket == bucket);
        Touched(here.map(|(entry, reach)| (entry.path.clone(), *reach)).collect())
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(known) = self.changes.0.lock().changes.get_mut(&self.what) {
            known.under_way = known.under_way.saturating_sub(1);
            known.ended = Some(Instant::now());
        }
    }
}

/// Paths of entries in one bucket that this process changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched(Vec<(String, Reach)>);

impl Touched {
    /// Whether other records in an entry may be this process's doing.
    pub(super) fn records(&self, path: &str) -> bool {
        self.0.iter().any(|(touched, reach)| match reach {
            Reach::Records => touched == path,
            Reach::Tree => is_at_or_below(path, touched),
        })
    }

    /// Whether it may be this process's doing that an entry came or went.
    pub(super) fn existence(&self, path: &str) -> bool {
        self.records(path) || self.0.iter().any(|(touched, _)| is_at_or_below(touched, path))
    }
}

fn is_at_or_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top)
        .is_some_and(|tail| tail.is_empty() || tail.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(path: &str) -> EntryId {
        EntryId {
            bucket: "b".into(),
            path: path.into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_counts_from_its_begin_until_after_its_end() {
        let own = OwnChanges::default();
        let under_way = own.begin(&entry("a"), Reach::Records);
        tokio::time::advance(Duration::from_secs(60)).await;
        let late = Instant::now();
        assert!(own.since("b", late).records("a"), "the answer isn't there yet");
        drop(under_way);
        assert!(own.since("b", late).records("a"));
        assert!(!own.since("other", late).records("a"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!own.since("b", Instant::now()).records("a"));
        assert!(own.0.lock().changes.is_empty(), "what is over is forgotten");
    }

    #[test]
    fn a_tree_is_more_than_its_records() {
        let touched = Touched(vec![("a/b".into(), Reach::Records), ("t".into(), Reach::Tree)]);
        assert!(touched.records("a/b") && !touched.records("a") && !touched.records("a/b/c"));
        assert!(touched.existence("a") && touched.existence("a/b") && !touched.existence("a/bc"));
        assert!(touched.records("t/x") && touched.existence("t") && !touched.records("tx"));
    }

    #[test]
    fn only_so_many_records_are_remembered() {
        let own = OwnChanges::default();
        for at in 0..=REMEMBERED as u64 {
            own.stored(&entry("a"), Timestamp(at));
        }
        assert!(!own.has_stored(&entry("a"), Timestamp(0)));
        assert!(own.has_stored(&entry("a"), Timestamp(REMEMBERED as u64)));
        assert!(!own.has_stored(&entry("c"), Timestamp(1)));
    }
}
