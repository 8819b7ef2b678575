//! Which files of daemons that ended are not taken over yet, why, and when that is tried again.
//!
//! How one is taken over is in `resume`.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{info, warn};

use super::outgoing::passes;
use super::resume::{Directories, Outcome, Resumed};
use super::turn::Turn;
use super::{FileSystem, PendingFile, is_no_answer};
use crate::model::{Error, ErrorKind, Result};
use crate::outbox::Attempt;
use crate::state::{JournalRow, JournalStep};

/// What the queue calls all of them together; no node has this number, as the kernel begins with the mounted directory.
pub(super) const LEFT_OVER: u64 = 0;
/// Before the first time that it is tried again; then the queue's pauses hold.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct LeftOver {
    inner: Mutex<Inner>,
    /// Whose turn it is to take over: none is to be taken over twice.
    turn: Turn,
}

#[derive(Default)]
struct Inner {
    /// Where copies go of what cannot be shown; `None` until somebody said that it is to be taken over.
    unsent: Option<PathBuf>,
    waiting: BTreeMap<Place, Waiting>,
    /// Those that this daemon has dealt with; the journal may name them until they are sent.
    settled: HashSet<Place>,
}

/// The folder of a staged file, and its name there.
type Place = (String, String);

#[derive(Clone)]
struct Waiting {
    path: String,
    bytes: u64,
    error: Error,
    attempts: u32,
}

fn place(row: &JournalRow) -> Place {
    (row.spool.clone(), row.file.clone())
}

impl LeftOver {
    pub(super) fn count(&self) -> usize {
        self.inner.lock().waiting.len()
    }

    /// Whether something waits to be shown under this path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.inner.lock().waiting.values().any(|waiting| waiting.path == path)
    }

    pub(super) fn pending(&self) -> Vec<PendingFile> {
        let describe = |waiting: &Waiting| PendingFile {
            path: waiting.path.clone(),
            bytes: waiting.bytes,
            error: Some(waiting.error.message().to_owned()),
        };
        self.inner.lock().waiting.values().map(describe).collect()
    }

    fn is_settled(&self, row: &JournalRow) -> bool {
        self.inner.lock().settled.contains(&place(row))
    }

    fn settle(&self, row: &JournalRow) {
        let mut inner = self.inner.lock();
        inner.waiting.remove(&place(row));
        inner.settled.insert(place(row));
    }

    fn attempts(&self, row: &JournalRow) -> u32 {
        let inner = self.inner.lock();
        inner.waiting.get(&place(row)).map_or(0, |waiting| waiting.attempts)
    }

    /// What is tried again if the first of these errors is; `None` when nothing waits.
    fn next(&self) -> Option<Attempt> {
        let inner = self.inner.lock();
        let kinds = || inner.waiting.values().map(|waiting| waiting.error.kind());
        let asked = kinds().filter_map(|kind| match kind {
            ErrorKind::RateLimited { retry_after } => retry_after,
            _ => None,
        });
        match asked.max() {
            _ if inner.waiting.is_empty() => None,
            Some(asked) => Some(Attempt::After(asked)),
            None if kinds().any(passes) => Some(Attempt::Later),
            None => Some(Attempt::Rejected),
        }
    }

    fn first_error(&self) -> Result<()> {
        let inner = self.inner.lock();
        inner
            .waiting
            .values()
            .next()
            .map_or(Ok(()), |waiting| Err(waiting.error.clone()))
    }
}

impl FileSystem {
    /// Takes over what daemons of this remote left when they ended: closed files are shown and sent, others are saved
    /// below `unsent`. What cannot be taken over now counts as pending; it is tried again in the background, and by
    /// whoever calls this again.
    ///
    /// # Errors
    /// The state's.
    pub async fn resume(&self, unsent: &Path) -> Result<Resumed> {
        self.left_over.inner.lock().unsent = Some(unsent.to_owned());
        let resumed = self.take_over_all(unsent).await?;
        if self.left_over.count() > 0 {
            self.queue.add(LEFT_OVER, FIRST_PAUSE);
        }
        Ok(resumed)
    }

    /// How many files of daemons that ended are not taken over yet.
    pub fn left_over(&self) -> usize {
        self.left_over.count()
    }

    /// Tries again to take over what is left.
    ///
    /// # Errors
    /// Why something is still left.
    pub(super) async fn take_over_again(&self) -> Result<()> {
        let unsent = self.left_over.inner.lock().unsent.clone();
        if let (Some(unsent), true) = (unsent, self.left_over.count() > 0) {
            self.take_over_all(&unsent).await?;
        }
        self.left_over.first_error()
    }

    pub(super) async fn attempt_left_over(&self) -> Attempt {
        let outcome = self.take_over_again().await;
        match (self.left_over.next(), outcome) {
            (Some(next), _) => next,
            (None, Ok(())) => Attempt::Done,
            (None, Err(_)) => Attempt::Later,
        }
    }

    async fn take_over_all(&self, unsent: &Path) -> Result<Resumed> {
        let _turn = self.left_over.turn.take().await;
        let mut rows = self.state.journaled(Some(&self.namespace()))?;
        rows.retain(|row| row.spool != self.spool.own() && !self.left_over.is_settled(row));
        // One that fails again and again keeps none of the others back.
        rows.sort_by_key(|row| self.left_over.attempts(row));
        let (mut resumed, mut directories) = (Resumed::default(), Directories::new());
        let mut away = None;
        for row in rows {
            if let Some(error) = &away {
                // Whoever mounts is not to wait for one deadline after the other.
                if !matches!(self.spool.adopt(&row.spool), Ok(false)) {
                    self.is_left_over(&row, error, 0);
                }
                continue;
            }
            match self.take_over(&row, unsent, &mut directories).await {
                Ok(Outcome::Living) => continue,
                Ok(Outcome::Shown) => resumed.files += 1,
                Ok(Outcome::Saved) => resumed.saved += 1,
                Ok(Outcome::Gone) => resumed.gone += 1,
                Ok(Outcome::NothingLeft) => {}
                Err(error) => {
                    self.is_left_over(&row, &error, 1);
                    away = is_no_answer(&error).then_some(error);
                    continue;
                }
            }
            self.left_over.settle(&row);
        }
        if resumed != Resumed::default() {
            info!(
                files = resumed.files,
                saved = resumed.saved,
                gone = resumed.gone,
                "took over what was left"
            );
        }
        Ok(resumed)
    }

    fn is_left_over(&self, row: &JournalRow, error: &Error, attempts: u32) {
        let known = self.left_over.inner.lock().waiting.get(&place(row)).cloned();
        let is_told = row.postponed.as_deref() == Some(error.message());
        if known.is_none() || !is_told {
            warn!(path = row.path, %error, "a staged file is not taken over yet; that is tried again");
        }
        if !is_told {
            self.postpone(row, Some(error.message().to_owned()));
        }
        let waiting = Waiting {
            path: row.path.clone(),
            bytes: self.spool.len_of(&row.spool, &row.file),
            error: error.clone(),
            attempts: known.map_or(0, |known| known.attempts).saturating_add(attempts),
        };
        self.left_over.inner.lock().waiting.insert(place(row), waiting);
    }

    /// Says in the journal why a file isn't taken over yet, for those who look into it.
    pub(super) fn postpone(&self, row: &JournalRow, why: Option<String>) {
        let said = self.state.journal(&[JournalStep::Postpone {
            spool: row.spool.clone(),
            file: row.file.clone(),
            why,
        }]);
        if let Err(error) = said {
            warn!(path = row.path, %error, "the journal does not know why a file waits");
        }
    }
}
