//! One tree on several machines: the index is an object in a bucket or on a WebDAV server, and all of them write it.
//!
//! **Scheme.** The object holds the whole tree in its written form (`index_file`). It is a register that is only written
//! over the very state that was read (`Register`), so its states follow each other in one order that all agree on. A
//! machine never sends its tree: it keeps a list of its own changes (in one transaction with each change of its tree),
//! makes them on the state that it reads (`merge`), and writes the result. A refused write begins anew on the newer state.
//!
//! *Nothing is made twice or forgotten.* Each state names, for each machine, the number and the random mark of its last
//! change in it. A machine drops its changes up to that one when it sees them there, whatever became of the answer to
//! its write, and keeps the others.
//!
//! *All end with the same tree.* The tree here is always a state of the register with the pending changes made on it.
//! When nothing is pending anywhere, each is the newest state itself.
//!
//! *What was removed stays removed.* An old tree is never merged into a newer state, only changes are, and each of them
//! once. So there are no tombstones. The exceptions are told in the log: a machine that never shared this index, and an
//! index that went back to an older state (put back from a backup, or lost by a server that lets two writes through at
//! one moment), put together all that is here and all that is there; then what was removed may come back, and nothing
//! that anybody has is lost.
//!
//! What changes of two machines mean together is said in `merge`. Without the shared index everything goes on with the
//! tree that is here.

mod merge;
mod plan;

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

pub use self::merge::Signature;

use self::plan::{Finding, Plan, SharedIndex, plan};
use super::import::MAX_LIST;
use super::index::Index;
use crate::model::{Error, ErrorKind, Result, Version};
use crate::provider::register::{Held, Register, check, replaced};

/// How often a refused write is begun anew before others may have their turn.
const ATTEMPTS: u32 = 8;
/// How long a look may take before what is here is shown as it is.
const LOOK: Duration = Duration::from_secs(5);
/// The first and the longest pause after a look that failed.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Changes that come so soon after each other are written together, at least and at most; in between, as long as the
/// last look took.
const GATHERING: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How a tree is shared.
#[derive(Clone, Debug)]
pub struct SharingSettings {
    pub host: String,
    /// For how long a look is good enough for whoever reads.
    pub freshness: Duration,
}

/// A tree that is kept here and shared with others.
pub struct Sharing {
    register: Arc<dyn Register>,
    index: Arc<dyn Index>,
    settings: SharingSettings,
    /// Held while a look reads; when the last one that went well began.
    looking: tokio::sync::Mutex<Option<Instant>>,
    /// Held while changes are sent.
    sending: tokio::sync::Mutex<()>,
    trust: Mutex<Trust>,
    newest: Mutex<Newest>,
    health: Mutex<Health>,
    changed: Arc<Notify>,
    sender: Mutex<Option<AbortHandle>>,
}

/// Whether the service was seen to refuse what it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trust {
    #[default]
    Untried,
    Refuses,
}

/// The newest state of the register that was seen.
#[derive(Default)]
struct Newest {
    state: Option<(Version, Arc<SharedIndex>)>,
    /// The version that the tree here follows from.
    adopted: Option<Version>,
}

#[derive(Default)]
struct Health {
    problem: Option<(SystemTime, Error)>,
    pause: Duration,
    not_before: Option<Instant>,
    last_exchange: Duration,
}

/// Whether a look may end with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Now,
    Later,
}

impl Sharing {
    /// What is pending is sent in the background from now on, as long as this lives.
    pub fn start(register: Arc<dyn Register>, index: Arc<dyn Index>, settings: SharingSettings) -> Arc<Self> {
        let sharing = Arc::new(Self {
            register,
            index,
            settings,
            looking: tokio::sync::Mutex::default(),
            sending: tokio::sync::Mutex::default(),
            trust: Mutex::default(),
            newest: Mutex::default(),
            health: Mutex::default(),
            changed: Arc::new(Notify::new()),
            sender: Mutex::default(),
        });
        let sending = tokio::spawn(send_all(Arc::downgrade(&sharing), Arc::clone(&sharing.changed)));
        *sharing.sender.lock() = Some(sending.abort_handle());
        sharing
    }

    pub fn place(&self) -> String {
        self.register.place()
    }

    /// Since when the shared index cannot be used, and why; `None` when it can.
    pub fn problem(&self) -> Option<(SystemTime, Error)> {
        self.health.lock().problem.clone()
    }

    /// Whether there are changes that the others don't have. A database that cannot be asked has none to send.
    pub fn has_pending(&self) -> bool {
        self.index.has_pending().unwrap_or(false)
    }

    /// Says that the tree was changed here.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// Takes over what others did, unless that was just done, or the shared index doesn't answer soon.
    pub async fn freshen(&self) {
        let asked = Instant::now();
        let look = async {
            if self.is_pausing(asked) {
                return;
            }
            let mut looked = self.looking.lock().await;
            if looked.is_some_and(|looked| looked + self.settings.freshness >= asked) || self.is_pausing(asked) {
                return;
            }
            let began = Instant::now();
            // Why it isn't more is in the log.
            if self.exchange_in(Sending::Later).await.is_ok() {
                *looked = Some(began);
            }
        };
        if tokio::time::timeout(LOOK, look).await.is_err() {
            let message = format!("{} didn't answer for {} s", self.register.place(), LOOK.as_secs());
            // Whoever waits is told what is known here; in the background it may take its time.
            let _ = self.noting(Err(Error::new(ErrorKind::TimedOut, message)));
            self.changed.notify_one();
        }
    }

    /// Takes over what others did and sends what is pending, now.
    ///
    /// # Errors
    /// As the service refuses, and `Unsupported` when machines would overwrite each other's changes there.
    pub async fn exchange(&self) -> Result<()> {
        let _one = self.sending.lock().await;
        self.exchange_in(Sending::Now).await
    }

    /// Finds out whether this place can hold a shared index, and takes over what is in it.
    ///
    /// # Errors
    /// As the service refuses, and `Unsupported` when machines would overwrite each other's changes there.
    pub async fn open(&self) -> Result<()> {
        let _one = self.sending.lock().await;
        let tried = self.try_service().await;
        self.noting(tried)?;
        self.exchange_in(Sending::Now).await
    }

    /// Sends what is pending, again and again until that is done or `patience` is over.
    ///
    /// # Errors
    /// As the last attempt failed.
    pub async fn settle(&self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        let mut pause = GATHERING.0;
        while self.has_pending() {
            let Err(error) = self.exchange().await else { continue };
            if !may_pass(error.kind()) || Instant::now() + pause > end {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.0);
        }
        Ok(())
    }

    async fn try_service(&self) -> Result<()> {
        if *self.trust.lock() == Trust::Untried {
            check(&*self.register).await?;
            *self.trust.lock() = Trust::Refuses;
        }
        Ok(())
    }

    fn is_pausing(&self, now: Instant) -> bool {
        self.health.lock().not_before.is_some_and(|not_before| not_before > now)
    }

    async fn exchange_in(&self, sending: Sending) -> Result<()> {
        let began = Instant::now();
        let outcome = self.try_exchange(sending).await;
        if sending == Sending::Now {
            self.health.lock().last_exchange = began.elapsed();
        }
        self.noting(outcome)
    }

    /// Remembers how it went, and says so when it goes otherwise than before.
    fn noting(&self, outcome: Result<()>) -> Result<()> {
        let mut health = self.health.lock();
        match &outcome {
            Ok(()) => {
                if health.problem.take().is_some() {
                    info!(place = self.register.place(), "the shared index is there again");
                }
                (health.pause, health.not_before) = (Duration::ZERO, None);
            }
            Err(error) => {
                let since = health
                    .problem
                    .as_ref()
                    .filter(|(_, before)| before.kind() == error.kind());
                let since = since.map(|(since, _)| *since);
                if since.is_none() {
                    warn!(
                        %error,
                        place = self.register.place(),
                        "the shared index cannot be used now; changes are kept here and sent later"
                    );
                }
                health.problem = Some((since.unwrap_or_else(SystemTime::now), error.clone()));
                health.pause = (health.pause * 2).clamp(PAUSES.0, PAUSES.1);
                health.not_before = Some(Instant::now() + health.pause);
            }
        }
        outcome
    }

    async fn try_exchange(&self, sending: Sending) -> Result<()> {
        let mut suspected = None;
        for attempt in 1..=ATTEMPTS {
            let Some((version, shared)) = self.read().await? else {
                return Ok(());
            };
            let planned = self.plan(&shared).await?;
            if planned.finding != Finding::Follows {
                // Another process of this machine may know a newer state than the one that was read before.
                if planned.finding == Finding::WentBack && suspected != Some(Finding::WentBack) {
                    suspected = Some(planned.finding);
                    *self.newest.lock() = Newest::default();
                    continue;
                }
                if self.adopt(version, &shared, planned.finding).await? {
                    self.say(planned.finding, &shared);
                    if !self.has_pending() {
                        return Ok(());
                    }
                }
                // What was only here has become changes to send.
                continue;
            }
            let next = match (planned.write, sending) {
                (Some(next), Sending::Now) => next,
                _ => {
                    if self.adopt(version, &shared, Finding::Follows).await? {
                        return Ok(());
                    }
                    continue;
                }
            };
            let bytes = Bytes::from(next.write()?);
            if bytes.len() as u64 > MAX_LIST {
                let message = format!("the shared index would be longer than {MAX_LIST} bytes");
                return Err(Error::new(ErrorKind::TooLarge, message));
            }
            self.try_service().await?;
            match self.register.write(bytes, version.as_ref()).await {
                Ok(version) => {
                    let next = Arc::new(next);
                    self.newest.lock().state = Some((version.clone(), Arc::clone(&next)));
                    debug!(entries = next.len(), "the shared index was written");
                    if self.adopt(Some(version), &next, Finding::Follows).await? {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Changed => {
                    *self.newest.lock() = Newest::default();
                    // Two that begin at once don't meet again.
                    let longest = GATHERING.0.as_millis() as u64 * u64::from(attempt);
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=longest))).await;
                }
                Err(error) => {
                    // It may have been written all the same.
                    *self.newest.lock() = Newest::default();
                    self.adopt(version, &shared, Finding::Follows).await?;
                    return Err(error);
                }
            }
        }
        let message = format!("other machines write {} again and again", self.register.place());
        Err(Error::new(ErrorKind::Busy, message))
    }

    /// The state of the register; `None` when the tree here follows from it and has nothing to add.
    async fn read(&self) -> Result<Option<(Option<Version>, Arc<SharedIndex>)>> {
        let known = self.newest.lock().state.clone();
        let version = known.as_ref().map(|(version, _)| version);
        Ok(match (self.register.read(version, MAX_LIST).await?, known) {
            (Held::Bytes(bytes, version), _) => {
                let read = blocking(move || SharedIndex::read(&bytes)).await;
                let shared = Arc::new(read.map_err(|error| self.explain(error))?);
                self.newest.lock().state = Some((version.clone(), Arc::clone(&shared)));
                Some((Some(version), shared))
            }
            (Held::Same, Some((version, shared))) => {
                let is_adopted = self.newest.lock().adopted.as_ref() == Some(&version);
                if is_adopted && !self.index.has_pending()? {
                    None
                } else {
                    Some((Some(version), shared))
                }
            }
            (Held::Same | Held::Nothing, _) => {
                *self.newest.lock() = Newest::default();
                Some((None, Arc::default()))
            }
        })
    }

    fn explain(&self, error: Error) -> Error {
        let place = self.register.place();
        match error.kind() {
            ErrorKind::BadData => {
                let repair =
                    "; if it stays so, put a good one there, or remove it: then every machine adds what it has";
                Error::bad_data(format!("{place}: {}{repair}", error.message()))
            }
            _ => error.context(place),
        }
    }

    async fn plan(&self, shared: &Arc<SharedIndex>) -> Result<Plan> {
        let (index, shared) = (Arc::clone(&self.index), Arc::clone(shared));
        let (place, signature) = (self.register.place(), self.signature());
        blocking(move || plan(index.kept()?, &shared, &place, &signature)).await
    }

    /// Makes the tree here what follows from a state of the register. `false`, and nothing is changed, when that state
    /// and what is kept here fit together otherwise than was seen before: another process of this machine was here.
    async fn adopt(&self, version: Option<Version>, shared: &Arc<SharedIndex>, expected: Finding) -> Result<bool> {
        let (index, shared) = (Arc::clone(&self.index), Arc::clone(shared));
        let (place, signature) = (self.register.place(), self.signature());
        let adopted = blocking(move || {
            index.adopt(&mut |kept| {
                let planned = plan(kept, &shared, &place, &signature)?;
                if planned.finding != expected {
                    return Err(replaced(&place));
                }
                Ok(planned.into_adopted())
            })
        });
        match adopted.await {
            Ok(()) => {
                self.newest.lock().adopted = version;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Changed => {
                *self.newest.lock() = Newest::default();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// How long to wait before the next exchange.
    fn pause(&self) -> Duration {
        let health = self.health.lock();
        let left = health
            .not_before
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        left.max(health.last_exchange.clamp(GATHERING.0, GATHERING.1))
    }

    fn signature(&self) -> Signature {
        let now = jiff::Timestamp::now().to_string();
        Signature {
            host: self.settings.host.clone(),
            date: now.get(..10).unwrap_or(&now).to_owned(),
        }
    }

    fn say(&self, finding: Finding, shared: &SharedIndex) {
        let place = self.register.place();
        match finding {
            Finding::Follows => {}
            Finding::First => info!(place, entries = shared.len(), "the tree is shared"),
            Finding::WentBack => warn!(
                place,
                entries = shared.len(),
                "the shared index is older than it was, or another one; what is here is added to it"
            ),
            Finding::Doubled => warn!(
                place,
                "another machine has this one's state; this one goes on under an id of its own"
            ),
        }
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        if let Some(sending) = self.sender.lock().take() {
            sending.abort();
        }
    }
}

/// Exchanges whenever something was changed, together what comes together, until nothing is pending.
async fn send_all(sharing: Weak<Sharing>, changed: Arc<Notify>) {
    loop {
        changed.notified().await;
        loop {
            let Some(pause) = sharing.upgrade().map(|sharing| sharing.pause()) else {
                return;
            };
            tokio::time::sleep(pause).await;
            let Some(sharing) = sharing.upgrade() else { return };
            // A failure has its pause and its line in the log.
            let outcome = sharing.exchange().await;
            if outcome.is_ok() && !sharing.has_pending() {
                break;
            }
        }
    }
}

/// Runs what takes its time on the disk, or with a long text.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::internal("work on the index was interrupted")),
    }
}

/// Whether trying again can help without anybody's help.
fn may_pass(kind: ErrorKind) -> bool {
    kind.is_passing() || kind == ErrorKind::Changed
}
