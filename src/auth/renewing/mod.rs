//! Credentials that end and are renewed before they do, once for the whole host.
//!
//! It says when to renew, who does it, and what is kept where. How a token is asked for is an [`Exchange`]'s affair.

mod book;
mod clock;
mod exchange;
mod grant;
mod keeper;
mod renewer;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::info;

use super::{
    AfterRejection, Authenticator, CredentialState, Generation, GivenSecrets, Presented, RenewalCounts, Scopes,
    TokenPlacement, Vitals,
};
use crate::model::{Error, Progress, Result};
use book::{Activity, Book, LOOK_EVERY, Origin, PROBE_EVERY, Standing, Task};
use renewer::Core;

pub use clock::{Clock, ManualClock, Now, SystemClock};
pub use exchange::{Exchange, ExchangeError, Granted};
pub use grant::Grant;
pub use keeper::{HostLock, Keeper, Kept, Shelf};

/// How long the end of a credential may take: an exchange under way is finished and saved.
const CLOSING: Duration = Duration::from_secs(20);

/// How a credential is renewed, beside who gives it.
pub struct Settings {
    pub placement: TokenPlacement,
    /// Where the grant is kept for all processes; in this one's memory only without it.
    pub keeper: Option<Keeper>,
    pub clock: Arc<dyn Clock>,
    /// How long an operation waits for a token when there is none.
    pub patience: Duration,
    /// What a person does when no more tokens are given, as the end of a sentence: `run: keymount login drive`.
    pub repair: String,
}

/// A credential that is renewed in the background. Its task ends with it.
pub struct Renewing {
    core: Arc<Core>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
    _guard: DropGuard,
}

impl Renewing {
    /// Starts with what is kept; without a usable token one is asked for in the background.
    ///
    /// # Errors
    /// As reading the store and the secret sources fails.
    pub async fn open(exchange: Arc<dyn Exchange>, settings: Settings, given: GivenSecrets) -> Result<Self> {
        let core = Arc::new(Core::new(exchange, settings, given));
        core.begin().await.map_err(|error| core.with_repair(error))?;
        Ok(Self::run(core))
    }

    /// The same without errors: what fails is tried again.
    pub async fn open_waiting(exchange: Arc<dyn Exchange>, settings: Settings, given: GivenSecrets) -> Self {
        let core = Arc::new(Core::new(exchange, settings, given));
        if let Err(error) = core.begin().await {
            info!(%error, "there is no token yet");
        }
        Self::run(core)
    }

    fn run(core: Arc<Core>) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(renewer::run(Arc::clone(&core), stop.clone()));
        Self {
            core,
            task: Mutex::new(Some(task)),
            _guard: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Waits until something moved; `false` when the patience ended first.
    async fn next_move(&self, moved: &mut watch::Receiver<u64>, end: Duration) -> bool {
        let left = end.saturating_sub(self.core.clock.now().boot);
        tokio::select! {
            _ = moved.changed() => true,
            () = self.core.clock.sleep(left) => false,
            () = self.stop.cancelled() => false,
        }
    }
}

#[async_trait]
impl Authenticator for Renewing {
    fn method(&self) -> &'static str {
        self.core.exchange.method()
    }

    fn environment(&self) -> Option<&'static str> {
        self.core.exchange.environment()
    }

    fn public_prefix(&self) -> Option<String> {
        None
    }

    fn scopes(&self) -> Option<Scopes> {
        let book = self.core.book.lock();
        book.held.as_ref()?.grant.scopes.clone()
    }

    fn counts(&self) -> RenewalCounts {
        self.core.counters.now()
    }

    async fn present(&self) -> Result<Presented> {
        {
            let now = self.core.clock.now();
            let book = self.core.book.lock();
            if let Some(held) = book.usable(now) {
                if book.is_due(now) {
                    self.core.wake.notify_one();
                }
                return Ok(Core::presented(&book, held));
            }
        }
        let presented = self.core.wait_for_token().await;
        Progress::tick();
        presented
    }

    async fn rejected(&self, generation: Generation) -> AfterRejection {
        let end = self.core.clock.now().boot.saturating_add(self.core.patience);
        let mut moved = self.core.moved.subscribe();
        let mut reported = false;
        loop {
            moved.borrow_and_update();
            let verdict = {
                let now = self.core.clock.now();
                let mut book = self.core.book.lock();
                if reported {
                    after(&book, generation)
                } else {
                    reported = true;
                    self.report(&mut book, generation, now)
                }
            };
            if let Some(verdict) = verdict {
                self.core.tell();
                return verdict;
            }
            self.core.wake.notify_one();
            if !self.next_move(&mut moved, end).await {
                return AfterRejection::GiveUp;
            }
        }
    }

    fn accepted(&self, generation: Generation) {
        let healed = {
            let mut book = self.core.book.lock();
            if book.generation != generation {
                return;
            }
            book.rejections = 0;
            if let Some(held) = &mut book.held {
                held.proven = true;
            }
            let rejected = matches!(book.standing, Standing::Rejected { .. });
            if rejected {
                book.standing = Standing::Good;
            }
            rejected
        };
        if healed {
            self.core.tell();
        }
    }

    async fn refresh(&self, given: &GivenSecrets) -> Result<()> {
        let mut moved = self.core.moved.subscribe();
        let ticket = {
            let mut book = self.core.book.lock();
            book.given.merge(given);
            book.want(Task::Renew);
            book.begun + 1
        };
        self.core.wake.notify_one();
        let ending = || Error::internal("the mount is ending");
        tokio::select! {
            done = moved.wait_for(|_| self.core.book.lock().ended >= ticket) => done.map(drop).map_err(|_| ending())?,
            () = self.stop.cancelled() => return Err(ending()),
        }
        self.core.book.lock().outcome.clone()
    }

    fn state(&self) -> CredentialState {
        self.core.book.lock().state(self.core.clock.now())
    }

    fn vitals(&self) -> watch::Receiver<Vitals> {
        self.core.vitals.subscribe()
    }

    async fn close(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = tokio::time::timeout(CLOSING, task).await;
        }
    }
}

impl Renewing {
    /// Takes a rejection down; gives what to do where that is known at once.
    fn report(&self, book: &mut Book, generation: Generation, now: Now) -> Option<AfterRejection> {
        if book.generation != generation {
            return after(book, generation);
        }
        let rejections = book.rejections;
        let Some(held) = &mut book.held else {
            return Some(AfterRejection::TryAgain);
        };
        if held.refused {
            return after(book, generation);
        }
        // A service whose new tokens are refused will not give better ones a moment later.
        let from_service_just_now = match held.origin {
            Origin::Exchanged(at) => !held.proven && now.boot.saturating_sub(at) < PROBE_EVERY,
            Origin::Stored => false,
        };
        let hopeless = match book.standing {
            Standing::Rejected { since } => now.boot.saturating_sub(since) < PROBE_EVERY,
            Standing::Good | Standing::Dead { .. } => from_service_just_now || rejections > 0,
        };
        if !hopeless {
            held.refused = true;
            book.rejections += 1;
            return after(book, generation);
        }
        if !matches!(book.standing, Standing::Rejected { .. }) {
            book.standing = Standing::Rejected { since: now.boot };
        }
        if self.core.changed(book, now, LOOK_EVERY) {
            book.want(Task::Look);
        }
        after(book, generation)
    }
}

/// What to do with a request whose credential was rejected; `None` while that isn't known yet.
fn after(book: &Book, generation: Generation) -> Option<AfterRejection> {
    let looking = book.activity == Activity::Doing(Task::Look) || book.wanted.is_some();
    let renewing = book.activity == Activity::Doing(Task::Renew);
    match &book.standing {
        Standing::Rejected { .. } if looking && book.generation == generation => None,
        Standing::Rejected { .. } if book.held.as_ref().is_some_and(|held| held.refused) && book.trouble.is_none() => {
            None
        }
        Standing::Rejected { .. } => Some(AfterRejection::GiveUp),
        // `present` says why there is none.
        Standing::Dead { .. } => Some(AfterRejection::TryAgain),
        Standing::Good if book.generation != generation => Some(AfterRejection::TryAgain),
        Standing::Good if book.trouble.is_some() && !renewing => Some(AfterRejection::TryAgain),
        Standing::Good => None,
    }
}
