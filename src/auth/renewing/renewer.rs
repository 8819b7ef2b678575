//! Gets the next token: one task for each credential, which looks at the store, asks the service, and keeps what it gave.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::book::{Activity, Book, Held, IDLE_LOOK, LOOK_EVERY, Next, Task, Wait};
use super::clock::{Clock, Now};
use super::keeper::{HostLock, Keeper, Kept};
use super::{Exchange, ExchangeError, Grant, Granted, Settings};
use crate::auth::store::Stamp;
use crate::auth::{CredentialState, GivenSecrets, Presented, RenewalCounts, TokenPlacement, Vitals};
use crate::model::{Error, ErrorKind, Result};
use crate::net::Backoff;

/// How long a service may take to answer. What it gave to a request that was given up is lost, so this is long.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(super) struct Counters {
    pub exchanges: AtomicU64,
    pub adoptions: AtomicU64,
    pub failures: AtomicU64,
    pub waits: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub fn now(&self) -> RenewalCounts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RenewalCounts {
            exchanges: value(&self.exchanges),
            adoptions: value(&self.adoptions),
            failures: value(&self.failures),
            waits: value(&self.waits),
        }
    }
}

/// What the renewer and those who wait for it share.
pub(super) struct Core {
    pub exchange: Arc<dyn Exchange>,
    pub placement: TokenPlacement,
    pub keeper: Option<Keeper>,
    pub clock: Arc<dyn Clock>,
    pub patience: Duration,
    /// The end of a sentence: `run: keymount login drive`.
    pub repair: String,
    pub book: Mutex<Book>,
    pub counters: Counters,
    pub wake: Notify,
    /// Moves with everything that those who wait could wait for.
    pub moved: watch::Sender<u64>,
    pub vitals: watch::Sender<Vitals>,
    /// The last state that the log was told.
    pub told: Mutex<Phase>,
}

/// A state as far as a change of it is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Working,
    Expired,
    NeedsLogin,
    Rejected,
}

/// A grant that is in memory only. Until it is saved nobody else may use what is stored: it may be used up.
struct Unsaved {
    turn: HostLock,
    failures: u32,
    /// When saving is tried again, by the time since boot.
    next: Duration,
}

/// What a look at the store found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// A token to use; it is published.
    Adopted,
    /// Nothing to use; what the store has, if it has something, has this number.
    Nothing { serial: u64 },
}

/// Renews until told to stop. What was begun is finished, so that no grant is lost.
pub(super) async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut unsaved: Option<Unsaved> = None;
    while !stop.is_cancelled() {
        let now = core.clock.now();
        if unsaved.as_ref().is_some_and(|unsaved| now.boot >= unsaved.next) {
            core.save_again(&mut unsaved).await;
            continue;
        }
        let mut time = match core.next(now) {
            Next::Do(task) => {
                core.act(task, &mut unsaved).await;
                continue;
            }
            Next::Sleep(time) => time,
        };
        if let Some(unsaved) = &unsaved {
            time = time.min(unsaved.next - now.boot);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = core.wake.notified() => {}
            () = core.clock.sleep(time) => {}
        }
    }
    core.save_again(&mut unsaved).await;
}

impl Core {
    pub fn new(exchange: Arc<dyn Exchange>, settings: Settings, given: GivenSecrets) -> Self {
        let now = settings.clock.now();
        Self {
            exchange,
            placement: settings.placement,
            keeper: settings.keeper,
            clock: settings.clock,
            patience: settings.patience,
            repair: settings.repair,
            book: Mutex::new(Book::new(given, now)),
            counters: Counters::default(),
            wake: Notify::new(),
            moved: watch::Sender::new(0),
            vitals: watch::Sender::new(Vitals::default()),
            told: Mutex::new(Phase::Working),
        }
    }

    fn next(&self, now: Now) -> Next {
        self.book.lock().next(now, |book| self.changed(book, now, IDLE_LOOK))
    }

    /// Whether the store may have something that wasn't read yet; looked at no more often than this.
    pub fn changed(&self, book: &mut Book, now: Now, every: Duration) -> bool {
        let Some(keeper) = &self.keeper else { return false };
        if now.boot.saturating_sub(book.looked) < every {
            return false;
        }
        book.looked = now.boot;
        let stamp = keeper.stamp();
        stamp == Stamp::Unknown || stamp != book.seen
    }

    pub fn presented(book: &Book, held: &Held) -> Presented {
        Presented {
            credential: held.credential.clone(),
            generation: book.generation,
        }
    }

    /// Waits for a token within the patience.
    pub async fn wait_for_token(&self) -> Result<Presented> {
        count(&self.counters.waits);
        self.tell();
        let end = self.clock.now().boot.saturating_add(self.patience);
        let mut moved = self.moved.subscribe();
        loop {
            moved.borrow_and_update();
            let time = {
                let now = self.clock.now();
                let mut book = self.book.lock();
                if let Some(held) = book.usable(now) {
                    return Ok(Self::presented(&book, held));
                }
                if now.boot >= end {
                    return Err(self.too_long(&book));
                }
                match book.wait(now, end, |book| self.changed(book, now, LOOK_EVERY)) {
                    Wait::For(time) => time,
                    Wait::Fail(error) => return Err(error),
                }
            };
            self.wake.notify_one();
            tokio::select! {
                _ = moved.changed() => {}
                () = self.clock.sleep(time) => {}
            }
        }
    }

    fn too_long(&self, book: &Book) -> Error {
        match &book.trouble {
            Some(trouble) => trouble.error.clone(),
            None => Error::new(
                ErrorKind::TimedOut,
                "the token is over, and the service has not given another one in time",
            ),
        }
    }

    /// Takes what is kept, before anything else happens.
    pub async fn begin(&self) -> Result<()> {
        let given = self.book.lock().given.clone();
        let basis = self.exchange.basis(&given).await?;
        if let Some(keeper) = &self.keeper {
            self.look(keeper, &basis, &given).await?;
        }
        self.tell();
        Ok(())
    }

    async fn act(&self, task: Task, unsaved: &mut Option<Unsaved>) {
        let given = {
            let mut book = self.book.lock();
            book.activity = Activity::Doing(task);
            book.begun += 1;
            book.given.clone()
        };
        self.tell();
        let outcome = AssertUnwindSafe(self.perform(task, &given, unsaved))
            .catch_unwind()
            .await;
        let outcome = outcome.unwrap_or_else(|_| Err(passing(Error::internal("renewing the token was interrupted"))));
        {
            let now = self.clock.now();
            let mut book = self.book.lock();
            book.activity = Activity::Idle;
            book.ended += 1;
            book.outcome = match outcome {
                Ok(()) => Ok(()),
                Err(error) => {
                    let error = self.named(error);
                    let told = match &error {
                        ExchangeError::Dead(error) | ExchangeError::Passing { error, .. } => error.clone(),
                    };
                    book.failed(error, Backoff::TOKENS, now);
                    if let Some(trouble) = &book.trouble {
                        let next = (trouble.next - now.boot).as_secs();
                        let failures = trouble.failures;
                        info!(error = %told, failures, next, "the token could not be renewed; it is tried again");
                    }
                    Err(told)
                }
            };
        }
        self.tell();
    }

    /// What a person must do belongs into the sentence.
    pub fn with_repair(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::NeedsLogin || error.message().contains("run: ") {
            return error;
        }
        Error::new(ErrorKind::NeedsLogin, format!("{}; {}", error.message(), self.repair))
    }

    fn named(&self, error: ExchangeError) -> ExchangeError {
        match error {
            ExchangeError::Dead(error) => {
                let error = Error::new(ErrorKind::NeedsLogin, error.message());
                ExchangeError::Dead(self.with_repair(error))
            }
            ExchangeError::Passing { error, retry_after } => ExchangeError::Passing {
                error: self.with_repair(error),
                retry_after,
            },
        }
    }

    async fn perform(
        &self,
        task: Task,
        given: &GivenSecrets,
        unsaved: &mut Option<Unsaved>,
    ) -> Result<(), ExchangeError> {
        let basis = match self.exchange.basis(given).await {
            Ok(basis) => basis,
            Err(error) => {
                // Without a basis nothing kept is taken over, but what was removed on purpose is forgotten.
                if let Some(keeper) = &self.keeper {
                    let _ = self.look(keeper, "", given).await;
                }
                return Err(passing(error));
            }
        };
        self.save_again(unsaved).await;
        let (mut turn, mut serial) = (None, 0);
        if let (Some(keeper), None) = (&self.keeper, &unsaved) {
            // First without the lock: whoever only takes over waits for nobody.
            match self.look(keeper, &basis, given).await.map_err(passing)? {
                Look::Nothing { .. } if task == Task::Renew => {}
                Look::Adopted | Look::Nothing { .. } => return Ok(()),
            }
            turn = Some(keeper.lock(self.patience).await.map_err(passing)?);
            match self.look(keeper, &basis, given).await.map_err(passing)? {
                Look::Nothing { serial: stored } => serial = stored,
                Look::Adopted => return Ok(()),
            }
        } else if task == Task::Look {
            return Ok(());
        }
        let before = self.before(&basis);
        if let (Some(keeper), Some(before), true) = (&self.keeper, &before, turn.is_some()) {
            self.rehearse(keeper, before, given).await?;
        }
        let asked = self.clock.now();
        let granted = self.ask(before.as_ref(), given).await?;
        let grant = Grant::new(&granted, &basis, asked.wall, before.as_ref());
        let grant = Grant {
            serial: grant.serial.max(serial.saturating_add(1)),
            ..grant
        };
        // Saved before it is used: whoever uses a new token without having kept it may lose it.
        if let Some(keeper) = &self.keeper {
            match keeper.write(&grant, given).await {
                Ok(()) => {
                    *unsaved = None;
                    self.book.lock().seen = keeper.stamp();
                }
                Err(error) => {
                    warn!(%error, "the new grant is in memory only until it can be saved; no other process may renew so long");
                    let held = unsaved.take().map(|unsaved| unsaved.turn);
                    *unsaved = turn.take().or(held).map(|turn| self.unsaved(turn, 1));
                }
            }
        }
        drop(turn);
        let credential = self.placement.credential(&grant.access).map_err(|_| {
            passing(Error::bad_data(
                "the service gave a token with characters that no header can hold",
            ))
        })?;
        let held = Held::exchanged(grant, credential, asked);
        let usable = held.is_usable(self.clock.now());
        {
            let mut book = self.book.lock();
            let trouble = book.trouble.take();
            book.publish(held);
            if !usable {
                // It goes on: the pauses must grow.
                book.trouble = trouble;
            }
        }
        if usable {
            Ok(())
        } else {
            Err(passing(Error::bad_data(
                "the service gave a token that is over already",
            )))
        }
    }

    /// What the next token is asked for with, as far as it was got with the same. A token that was got with something else is
    /// not used any more.
    fn before(&self, basis: &str) -> Option<Grant> {
        let mut book = self.book.lock();
        let held = book.held.as_mut()?;
        if held.grant.basis == basis {
            return Some(held.grant.clone());
        }
        held.refused = true;
        None
    }

    /// Reads the store and takes over what this process doesn't have.
    async fn look(&self, keeper: &Keeper, basis: &str, given: &GivenSecrets) -> Result<Look> {
        let stamp = keeper.stamp();
        let kept = keeper.read(given).await?;
        let now = self.clock.now();
        let mut book = self.book.lock();
        book.seen = stamp;
        book.looked = now.boot;
        let ours = book.held.as_ref().map(|held| held.grant.serial);
        let grant = match kept {
            // Forgotten on purpose, so here too.
            Kept::Nothing => {
                if ours.is_some() {
                    info!("the stored grant was removed; it is forgotten");
                    book.forget();
                }
                return Ok(Look::Nothing { serial: 0 });
            }
            Kept::Damaged => return Ok(Look::Nothing { serial: 0 }),
            Kept::Grant(grant) if grant.basis != basis || ours == Some(grant.serial) => {
                return Ok(Look::Nothing { serial: grant.serial });
            }
            Kept::Grant(grant) => grant,
        };
        let serial = grant.serial;
        let Ok(credential) = self.placement.credential(&grant.access) else {
            return Ok(Look::Nothing { serial });
        };
        let held = Held::stored(grant, credential, now);
        let usable = held.is_usable(now);
        book.publish(held);
        if !usable {
            return Ok(Look::Nothing { serial });
        }
        // What was there at the start is nobody else's.
        if book.begun > 0 {
            count(&self.counters.adoptions);
        }
        Ok(Look::Adopted)
    }

    /// Writes again what is there: a full disk is noticed while the old refresh token is still good. Without a refresh token
    /// nothing can be lost, and when the token is over there is nothing to wait for.
    async fn rehearse(&self, keeper: &Keeper, before: &Grant, given: &GivenSecrets) -> Result<(), ExchangeError> {
        if before.refresh.is_none() {
            return Ok(());
        }
        let written = keeper.write(before, given).await;
        let now = self.clock.now();
        let mut book = self.book.lock();
        match written {
            Ok(()) => {
                book.seen = keeper.stamp();
                Ok(())
            }
            Err(_) if book.usable(now).is_none() => Ok(()),
            Err(error) => Err(passing(
                error.context("the token is not renewed because it could not be saved"),
            )),
        }
    }

    async fn ask(&self, before: Option<&Grant>, given: &GivenSecrets) -> Result<Granted, ExchangeError> {
        let refresh = before.and_then(|before| before.refresh.as_ref());
        let asking = AssertUnwindSafe(self.exchange.exchange(refresh, given)).catch_unwind();
        let answer = tokio::select! {
            answer = asking => answer.unwrap_or_else(|_| Err(passing(Error::internal("asking for a token was interrupted")))),
            () = self.clock.sleep(EXCHANGE_LIMIT) => {
                let why = "the service that gives tokens does not answer";
                Err(passing(Error::new(ErrorKind::TimedOut, why)))
            }
        };
        count(match &answer {
            Ok(_) => &self.counters.exchanges,
            Err(_) => &self.counters.failures,
        });
        answer
    }

    fn unsaved(&self, turn: HostLock, failures: u32) -> Unsaved {
        Unsaved {
            turn,
            failures,
            next: self.clock.now().boot + Backoff::SAVING.pause(failures, None),
        }
    }

    /// Tries to save what is in memory only.
    async fn save_again(&self, unsaved: &mut Option<Unsaved>) {
        let Some(Unsaved { turn, failures, .. }) = unsaved.take() else {
            return;
        };
        let Some(keeper) = &self.keeper else { return };
        let (grant, given) = {
            let book = self.book.lock();
            (book.held.as_ref().map(|held| held.grant.clone()), book.given.clone())
        };
        let Some(grant) = grant else { return };
        match keeper.write(&grant, &given).await {
            Ok(()) => {
                self.book.lock().seen = keeper.stamp();
                info!("the new grant is saved");
            }
            Err(_) => *unsaved = Some(self.unsaved(turn, failures + 1)),
        }
    }

    /// Tells everybody who wants to know how things are now.
    pub fn tell(&self) {
        let (state, vitals, error) = {
            let now = self.clock.now();
            let book = self.book.lock();
            let state = book.state(now);
            let vitals = Vitals {
                usable: !matches!(state, CredentialState::NeedsLogin | CredentialState::Rejected),
                scopes: book.held.as_ref().and_then(|held| held.grant.scopes.clone()),
            };
            (state, vitals, book.outcome.clone().err())
        };
        self.moved.send_modify(|moved| *moved += 1);
        self.vitals.send_if_modified(|known| {
            let changed = *known != vitals;
            *known = vitals;
            changed
        });
        let phase = match state {
            CredentialState::Valid { .. } | CredentialState::Anonymous => Phase::Working,
            CredentialState::Renewing { until: Some(_) } => Phase::Working,
            CredentialState::Renewing { until: None } => return,
            CredentialState::Expired => Phase::Expired,
            CredentialState::NeedsLogin => Phase::NeedsLogin,
            CredentialState::Rejected => Phase::Rejected,
        };
        let before = std::mem::replace(&mut *self.told.lock(), phase);
        if before == phase {
            return;
        }
        let why = error.as_ref().map_or("", Error::message);
        match phase {
            Phase::Working => info!("the credential works"),
            Phase::Expired => warn!(why, "the token is over and could not be renewed yet"),
            Phase::NeedsLogin => warn!(why, "a person must log in"),
            Phase::Rejected => warn!(
                repair = self.repair,
                "the provider rejects the tokens that the service gives"
            ),
        }
    }
}

fn passing(error: Error) -> ExchangeError {
    ExchangeError::Passing {
        error,
        retry_after: None,
    }
}
