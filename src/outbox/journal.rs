//! The one writer of a mount's journal: in order, everything that waits at the moment in one commit.
//!
//! A commit makes a change outlive this process and waits for no disk. A little later the content that was closed since
//! then is brought to the disk, all of it together, and then the journal says so: what is sent by then costs nothing. A
//! row that says that the disk has the content is therefore never older than the content on the disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::label;
use super::spool::{Spool, SpoolFile};
use crate::model::{Error, Result};
use crate::state::{Durability, JournalRow, JournalStep, Phase, StateDb};

/// How long closed content may be in memory only.
const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// How long a change that nobody waits for may wait for company. Most small files are closed sooner after they were made
/// (measured: half a millisecond), and then both is one change.
const COMPANY: Duration = Duration::from_millis(20);
/// Up to so many files are brought to the disk one by one; for more, the whole file system is.
const FEW: usize = 8;

/// One change of the journal.
pub enum Step {
    /// Enters a file, or replaces what is known of it. `changes` says which state of its content the row is about.
    Enter {
        file: Arc<SpoolFile>,
        row: Box<JournalRow>,
        changes: u64,
    },
    /// The provider has it, or nobody wants it any more.
    Strike(Arc<SpoolFile>),
    /// A directory or file may get another path, and everything below it with it. Before the provider is asked.
    Intend { from: String, to: String },
    /// A directory or file got another path, and so did everything below it.
    Move { from: String, to: String },
}

/// Where changes of the journal are handed in.
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    state: Arc<StateDb>,
    spool: Arc<Spool>,
    waiting: Mutex<Waiting>,
    /// Held by whoever writes.
    writing: Mutex<Unflushed>,
    flush_planned: AtomicBool,
    commits: AtomicU64,
    syncs: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Request>,
    writer: Writer,
}

/// Who will take what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Writer {
    /// Nobody: nothing waits.
    #[default]
    None,
    /// Somebody, after a little.
    Soon,
    /// Somebody who is on the way.
    Started,
}

struct Request {
    steps: Vec<Step>,
    done: Option<oneshot::Sender<Result<()>>>,
}

/// What was closed and isn't on the disk, by spool and file.
type Unflushed = HashMap<(String, String), (Arc<SpoolFile>, u64)>;

/// Tells this start of the machine from others (random(4)).
pub fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map(|id| id.trim().to_owned()).unwrap_or_default()
    })
}

impl Journal {
    pub fn new(state: Arc<StateDb>, spool: Arc<Spool>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state,
                spool,
                waiting: Mutex::default(),
                writing: Mutex::default(),
                flush_planned: AtomicBool::new(false),
                commits: AtomicU64::new(0),
                syncs: AtomicU64::new(0),
            }),
        }
    }

    /// Makes a change that outlives this process when this returns: all steps or none.
    ///
    /// # Errors
    /// The disk's.
    pub async fn commit(&self, steps: Vec<Step>) -> Result<()> {
        self.begin(steps).made().await
    }

    /// As `commit`, in two parts: what is begun later is made later.
    pub fn begin(&self, steps: Vec<Step>) -> Begun {
        if steps.is_empty() {
            return Begun(None);
        }
        let (done, outcome) = oneshot::channel();
        self.hand_in(steps, Some(done), Writer::Started);
        Begun(Some(outcome))
    }

    /// As `commit`, for what nobody has to wait for; what is handed in later is made later.
    pub fn post(&self, steps: Vec<Step>) {
        if !steps.is_empty() {
            self.hand_in(steps, None, Writer::Started);
        }
    }

    /// As `post`, for what will probably be followed by something else about the same file in a moment.
    pub fn post_soon(&self, steps: Vec<Step>) {
        if !steps.is_empty() {
            self.hand_in(steps, None, Writer::Soon);
        }
    }

    /// Everything that was handed in is made, or has failed, when this returns.
    pub async fn caught_up(&self) {
        let (done, outcome) = oneshot::channel();
        self.hand_in(Vec::new(), Some(done), Writer::Started);
        // Whoever ends now has nobody to tell.
        let _ = outcome.await;
    }

    /// As `caught_up`, for those who may block.
    pub fn finish(&self) {
        self.shared.write_waiting();
    }

    /// How many commits were made, and how many times this journal waited for the disk.
    pub fn costs(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.shared.commits), count(&self.shared.syncs))
    }

    /// What waits in the state database for a commit gets one a second later at the latest.
    pub fn write_soon(&self) {
        self.shared.plan_flush();
    }

    /// Brings what was closed to the disk now. For those who may block.
    pub fn flush(&self) {
        self.finish();
        self.shared.flush_or_warn();
    }

    /// What was closed, and every change of names that was made before, outlives a power cut when this returns.
    ///
    /// # Errors
    /// The disk's.
    pub async fn sync(&self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let synced = tokio::task::spawn_blocking(move || {
            shared.write_waiting();
            shared.flush()?;
            shared.syncs.fetch_add(1, Ordering::Relaxed);
            shared.commits.fetch_add(1, Ordering::Relaxed);
            shared.state.sync()
        });
        let interrupted = |_| {
            Err(Error::internal(
                "names were not brought to the disk: keymount is ending",
            ))
        };
        synced.await.unwrap_or_else(interrupted)
    }

    fn hand_in(&self, steps: Vec<Step>, done: Option<oneshot::Sender<Result<()>>>, writer: Writer) {
        for step in &steps {
            match step {
                Step::Enter { file, .. } => file.posted(),
                Step::Strike(file) => file.forget_posted(),
                Step::Intend { .. } | Step::Move { .. } => {}
            }
        }
        let before = {
            let mut waiting = self.shared.waiting.lock();
            waiting.requests.push(Request { steps, done });
            let before = waiting.writer;
            if before != Writer::Started {
                waiting.writer = writer;
            }
            before
        };
        // Whoever is on the way takes all that wait.
        let shared = Arc::clone(&self.shared);
        match (before, writer, Handle::try_current()) {
            (Writer::Started, ..) | (Writer::Soon, Writer::Soon, _) => {}
            (_, Writer::Started, Ok(runtime)) => drop(runtime.spawn_blocking(move || shared.write_waiting())),
            (_, _, Ok(runtime)) => {
                let shared = Arc::downgrade(&shared);
                runtime.spawn(async move {
                    tokio::time::sleep(COMPANY).await;
                    // One that is gone has made everything.
                    if let Some(shared) = shared.upgrade() {
                        tokio::task::spawn_blocking(move || shared.write_waiting());
                    }
                });
            }
            (_, _, Err(_)) => shared.write_waiting(),
        }
    }
}

/// A change that was handed in.
#[must_use]
pub struct Begun(Option<oneshot::Receiver<Result<()>>>);

impl Begun {
    /// The change outlives this process when this returns.
    ///
    /// # Errors
    /// The disk's.
    pub async fn made(self) -> Result<()> {
        let interrupted = |_| Err(Error::internal("the journal was not written: keymount is ending"));
        match self.0 {
            Some(outcome) => outcome.await.unwrap_or_else(interrupted),
            None => Ok(()),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    fn write_waiting(self: &Arc<Self>) {
        let mut unflushed = self.writing.lock();
        let Waiting { requests, .. } = std::mem::take(&mut *self.waiting.lock());
        if requests.is_empty() {
            return;
        }
        fail_point!("journal.begun");
        let steps = || requests.iter().flat_map(|request| &request.steps);
        let outcome = self.write(steps());
        match &outcome {
            Ok(()) => steps().for_each(|step| self.made(step, &mut unflushed)),
            Err(_) => steps().for_each(|step| {
                if let Step::Enter { file, .. } = step {
                    file.forget_posted();
                }
            }),
        }
        let flush = !unflushed.is_empty();
        drop(unflushed);
        fail_point!("journal.committed");
        for request in requests {
            // Removes the files of those that were struck.
            drop(request.steps);
            match request.done {
                // Who asked may be gone.
                Some(done) => drop(done.send(outcome.clone())),
                None => {
                    if let Err(error) = &outcome {
                        warn!(%error, "the journal has an older state");
                    }
                }
            }
        }
        fail_point!("journal.answered");
        if flush {
            self.plan_flush();
        }
    }

    fn write<'a>(&self, steps: impl Iterator<Item = &'a Step>) -> Result<()> {
        let steps: Vec<&Step> = steps.collect();
        let mut made = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            if is_entered_again(step, &steps[number + 1..]) {
                continue;
            }
            made.push(match step {
                Step::Enter { file, row, .. } => {
                    if let Err(error) = label::write(file.file(), row) {
                        debug!(path = row.path, %error, "a staged file cannot say what it is");
                    }
                    JournalStep::Enter(JournalRow::clone(row))
                }
                Step::Strike(file) => {
                    // While the journal names it, it needs no label; afterwards none may bring it back.
                    if let Err(error) = label::remove(file.file()) {
                        debug!(path = %file.path().display(), %error, "a staged file says what it is no more");
                    }
                    JournalStep::Strike {
                        spool: file.spool.clone(),
                        file: file.name.clone(),
                    }
                }
                Step::Intend { from, to } => JournalStep::Intend {
                    spools: self.spool.names(),
                    from: from.clone(),
                    to: to.clone(),
                },
                Step::Move { from, to } => JournalStep::Move {
                    spools: self.spool.names(),
                    from: from.clone(),
                    to: to.clone(),
                },
            });
        }
        if made.is_empty() {
            return Ok(());
        }
        fail_point!("journal.labelled");
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.state.journal(&made)
    }

    fn made(&self, step: &Step, unflushed: &mut Unflushed) {
        let key = |file: &SpoolFile| (file.spool.clone(), file.name.clone());
        match step {
            Step::Enter { file, row, changes } => {
                file.entered();
                if row.phase == Phase::Closed && row.durability != Durability::Flushed {
                    unflushed.insert(key(file), (Arc::clone(file), *changes));
                }
            }
            Step::Strike(file) => {
                file.struck();
                unflushed.remove(&key(file));
            }
            Step::Intend { from, .. } => self.label_below(from),
            Step::Move { to, .. } => self.label_below(to),
        }
    }

    /// The files below a path say what the journal says of them.
    fn label_below(&self, path: &str) {
        let rows = match self.state.journaled_below(&self.spool.names(), path) {
            Ok(rows) => rows,
            Err(error) => return warn!(path, %error, "staged files say older paths"),
        };
        for row in rows {
            if let Ok(file) = self.spool.look_at(&row.spool, &row.file) {
                let _ = label::write(&file, &row);
            }
        }
    }

    fn plan_flush(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        if self.flush_planned.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::downgrade(self);
        runtime.spawn(async move {
            tokio::time::sleep(FLUSH_AFTER).await;
            if let Some(shared) = shared.upgrade() {
                tokio::task::spawn_blocking(move || shared.flush_or_warn());
            }
        });
    }

    fn flush_or_warn(&self) {
        if let Err(error) = self.flush() {
            warn!(%error, "what was closed is not on the disk yet");
        }
    }

    fn flush(&self) -> Result<()> {
        self.flush_planned.store(false, Ordering::Release);
        if let Err(error) = self.state.keep_attributes() {
            warn!(%error, "modes and times of files are not kept yet");
        }
        if let Err(error) = self.state.tidy() {
            debug!(%error, "the state database grows");
        }
        let waiting = self.writing.lock().clone();
        if waiting.is_empty() {
            return Ok(());
        }
        if waiting.len() > FEW {
            self.syncs.fetch_add(1, Ordering::Relaxed);
            self.spool.sync_all()?;
        } else {
            self.syncs.fetch_add(waiting.len() as u64 + 1, Ordering::Relaxed);
            waiting.values().try_for_each(|(file, _)| file.file().sync_all())?;
            self.spool.sync_folders()?;
        }
        fail_point!("flush.synced");
        let mut unflushed = self.writing.lock();
        // What was closed anew meanwhile waits for the next time.
        let same = |key: &(String, String), changes: u64| unflushed.get(key).is_some_and(|(_, now)| *now == changes);
        let flushed: Vec<_> = waiting
            .into_iter()
            .filter(|(key, (_, changes))| same(key, *changes))
            .collect();
        let keys: Vec<(String, String)> = flushed.iter().map(|(key, _)| key.clone()).collect();
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.state.journal_flushed(&keys)?;
        for (key, (file, changes)) in flushed {
            file.flushed(changes);
            let _ = label::flushed(file.file());
            unflushed.remove(&key);
        }
        Ok(())
    }
}

/// Whether what a step enters is entered anew right afterwards, with nothing in between that could tell the difference.
fn is_entered_again(step: &Step, later: &[&Step]) -> bool {
    let Step::Enter { file, .. } = step else { return false };
    later
        .iter()
        .take_while(|later| !matches!(later, Step::Intend { .. } | Step::Move { .. }))
        .find_map(|later| match later {
            Step::Enter { file: again, .. } => Arc::ptr_eq(file, again).then_some(true),
            Step::Strike(struck) => Arc::ptr_eq(file, struck).then_some(false),
            Step::Intend { .. } | Step::Move { .. } => None,
        })
        .unwrap_or(false)
}
