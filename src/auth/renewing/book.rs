//! What is known of a credential at one moment, and what follows from it: may it be used, is it time to renew, what is
//! `status` to show. It does nothing itself.

use std::time::{Duration, SystemTime};

use super::clock::Now;
use super::{ExchangeError, Grant};
use crate::auth::store::Stamp;
use crate::auth::{CredentialState, Generation, GivenSecrets};
use crate::model::{Error, ErrorKind};
use crate::net::{Backoff, Credential};

/// How long a grant that the service called dead is left alone before it is tried again.
pub const PROBE_EVERY: Duration = Duration::from_secs(30 * 60);
/// How often the store is looked at for a grant that somebody else put there.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same while nobody asks for anything.
pub const IDLE_LOOK: Duration = Duration::from_secs(5);
/// The longest sleep: after a suspend or a change of the clock the plan is wrong for no longer than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// By how much of itself the lead is lengthened at random, so that many processes don't come at once.
const JITTER: f64 = 0.1;

/// How long before its end a token is renewed: a tenth of its life but a minute at least, and never more than a third.
pub fn lead(life: Duration) -> Duration {
    Duration::from_secs(60).max(life / 10).min(life / 3)
}

/// A token at hand.
#[derive(Clone, Debug)]
pub struct Held {
    pub grant: Grant,
    pub credential: Credential,
    pub origin: Origin,
    /// Whether a provider accepted it.
    pub proven: bool,
    /// Whether a provider refused it, so that another one is to be got.
    pub refused: bool,
    end: Option<End>,
}

/// Where a token is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This process got it from the service, when the machine had been up for so long.
    Exchanged(Duration),
    /// It was in the store.
    Stored,
}

/// When a token ends. It is over when either clock says so.
#[derive(Clone, Copy, Debug)]
struct End {
    boot: Duration,
    wall: SystemTime,
    /// How long before it another one is got.
    early: Duration,
}

impl Held {
    /// A token that was asked for at `asked`.
    pub fn exchanged(grant: Grant, credential: Credential, asked: Now) -> Self {
        let end = grant.until.zip(grant.life()).map(|(wall, life)| End {
            boot: asked.boot.saturating_add(life),
            wall,
            early: early(life),
        });
        Self {
            grant,
            credential,
            origin: Origin::Exchanged(asked.boot),
            proven: false,
            refused: false,
            end,
        }
    }

    /// A token of which only the calendar's time is known. It cannot live longer from now on than in all.
    pub fn stored(grant: Grant, credential: Credential, now: Now) -> Self {
        let end = grant.until.zip(grant.life()).map(|(wall, life)| {
            let left = wall.duration_since(now.wall).unwrap_or_default().min(life);
            End {
                boot: now.boot.saturating_add(left),
                wall,
                early: early(life),
            }
        });
        Self {
            grant,
            credential,
            origin: Origin::Stored,
            proven: false,
            refused: false,
            end,
        }
    }

    fn is_over(&self, now: Now) -> bool {
        self.end.is_some_and(|end| now.boot >= end.boot || now.wall >= end.wall)
    }

    pub fn is_usable(&self, now: Now) -> bool {
        !self.refused && !self.is_over(now)
    }

    /// How long until another one is to be got; `None` when this one has no end.
    fn renewed_in(&self, now: Now) -> Option<Duration> {
        let end = self.end?;
        let boot = end.boot.saturating_sub(now.boot);
        let wall = end.wall.duration_since(now.wall).unwrap_or_default();
        Some(boot.min(wall).saturating_sub(end.early))
    }

    fn until(&self) -> Option<SystemTime> {
        self.end.map(|end| end.wall)
    }
}

fn early(life: Duration) -> Duration {
    lead(life).mul_f64(1.0 + JITTER * fastrand::f64())
}

/// What the service or the provider thinks of us.
#[derive(Clone, Debug)]
pub enum Standing {
    Good,
    /// What tokens are got with is over. Tried again at `probe`, by the time since boot.
    Dead {
        error: Error,
        probe: Duration,
    },
    /// The provider refuses tokens that the service gives, since this time since boot.
    Rejected {
        since: Duration,
    },
}

/// Failures in a row that may pass.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub failures: u32,
    pub error: Error,
    /// When it is tried again, by the time since boot.
    pub next: Duration,
}

/// What the renewer is to do, the lesser first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Take over what another process has put into the store, if it has.
    Look,
    /// Take over, else ask the service.
    Renew,
}

/// What the renewer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    Idle,
    Doing(Task),
}

/// What the renewer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Do(Task),
    Sleep(Duration),
}

/// What an operation without a usable token does.
#[derive(Debug)]
pub enum Wait {
    /// For so long at most, then it looks again.
    For(Duration),
    Fail(Error),
}

pub struct Book {
    pub held: Option<Held>,
    pub generation: Generation,
    pub standing: Standing,
    pub trouble: Option<Trouble>,
    /// Somebody asked for it.
    pub wanted: Option<Task>,
    pub activity: Activity,
    /// Tasks begun and ended since the start.
    pub begun: u64,
    pub ended: u64,
    /// How the last task ended.
    pub outcome: Result<(), Error>,
    pub given: GivenSecrets,
    /// What the store looked like when it was last read.
    pub seen: Stamp,
    /// When the store was last looked at, by the time since boot.
    pub looked: Duration,
    /// Rejections in a row without an accepted request in between.
    pub rejections: u32,
}

impl Book {
    pub fn new(given: GivenSecrets, now: Now) -> Self {
        Self {
            held: None,
            generation: Generation(0),
            standing: Standing::Good,
            trouble: None,
            wanted: None,
            activity: Activity::Idle,
            begun: 0,
            ended: 0,
            outcome: Ok(()),
            given,
            seen: Stamp::Unknown,
            looked: now.boot,
            rejections: 0,
        }
    }

    pub fn usable(&self, now: Now) -> Option<&Held> {
        self.held.as_ref().filter(|held| held.is_usable(now))
    }

    /// Another token than before; what was known of the last one is over.
    pub fn publish(&mut self, held: Held) {
        self.generation = Generation(self.generation.0 + 1);
        self.held = Some(held);
        self.standing = Standing::Good;
        self.trouble = None;
    }

    /// The grant is no longer there.
    pub fn forget(&mut self) {
        self.held = None;
        self.generation = Generation(self.generation.0 + 1);
    }

    pub fn want(&mut self, task: Task) {
        self.wanted = self.wanted.max(Some(task));
    }

    pub fn failed(&mut self, error: ExchangeError, backoff: Backoff, now: Now) {
        match error {
            ExchangeError::Dead(error) => {
                self.trouble = None;
                let probe = now.boot + PROBE_EVERY.mul_f64(1.0 + JITTER * fastrand::f64());
                self.standing = Standing::Dead { error, probe };
            }
            ExchangeError::Passing { error, retry_after } => {
                // A dead grant stays dead when its probe fails.
                if let Standing::Dead { probe, .. } = &mut self.standing {
                    *probe = now.boot + PROBE_EVERY;
                    return;
                }
                let failures = self.trouble.as_ref().map_or(0, |trouble| trouble.failures) + 1;
                self.trouble = Some(Trouble {
                    failures,
                    error,
                    next: now.boot + backoff.pause(failures, retry_after),
                });
            }
        }
    }

    /// What the renewer does next. `changed` says whether the store may have something new; it is asked only when that
    /// matters.
    pub fn next(&mut self, now: Now, changed: impl FnOnce(&mut Self) -> bool) -> Next {
        if let Some(task) = self.wanted.take() {
            return Next::Do(task);
        }
        let sleep = |time: Duration| Next::Sleep(time.min(LONGEST_SLEEP));
        match &self.standing {
            Standing::Dead { probe, .. } if now.boot >= *probe => Next::Do(Task::Renew),
            Standing::Dead { probe, .. } => {
                let left = *probe - now.boot;
                if changed(self) {
                    return Next::Do(Task::Look);
                }
                sleep(left.min(IDLE_LOOK))
            }
            Standing::Good | Standing::Rejected { .. } => {
                let due = match &self.held {
                    Some(held) if held.refused => Some(Duration::ZERO),
                    Some(held) => held.renewed_in(now),
                    None => Some(Duration::ZERO),
                };
                let pause = self
                    .trouble
                    .as_ref()
                    .map(|trouble| trouble.next.saturating_sub(now.boot));
                match (due, pause) {
                    (None, _) => Next::Sleep(LONGEST_SLEEP),
                    (Some(due), pause) => match due.max(pause.unwrap_or_default()) {
                        Duration::ZERO => Next::Do(Task::Renew),
                        wait => sleep(wait),
                    },
                }
            }
        }
    }

    /// Whether the renewer should be awake although nobody waits.
    pub fn is_due(&self, now: Now) -> bool {
        let healthy = matches!(self.standing, Standing::Good | Standing::Rejected { .. }) && self.trouble.is_none();
        let due = self.held.as_ref().and_then(|held| held.renewed_in(now));
        healthy && self.activity == Activity::Idle && due == Some(Duration::ZERO)
    }

    /// What an operation does that has no token and waits until `end` (since boot) at most.
    pub fn wait(&mut self, now: Now, end: Duration, changed: impl FnOnce(&mut Self) -> bool) -> Wait {
        let left = end.saturating_sub(now.boot);
        let looking = self.activity == Activity::Doing(Task::Look) || self.wanted.is_some();
        match (&self.standing, &self.trouble) {
            (Standing::Dead { error, .. }, _) => {
                let error = error.clone();
                if looking {
                    Wait::For(left)
                } else if changed(self) {
                    self.want(Task::Look);
                    Wait::For(left)
                } else {
                    Wait::Fail(error)
                }
            }
            (_, Some(trouble)) if self.activity == Activity::Idle && self.wanted.is_none() => {
                let (error, next) = (trouble.error.clone(), trouble.next);
                if now.boot >= next {
                    return Wait::For(left);
                }
                if changed(self) {
                    self.want(Task::Look);
                    return Wait::For(left);
                }
                // A source without a secret stays so until somebody acts.
                if next > end || matches!(error.kind(), ErrorKind::NeedsLogin | ErrorKind::Denied) {
                    return Wait::Fail(error);
                }
                Wait::For(next - now.boot)
            }
            _ => Wait::For(left),
        }
    }

    pub fn state(&self, now: Now) -> CredentialState {
        let usable = self.usable(now);
        match (&self.standing, &self.trouble, usable) {
            (Standing::Dead { .. }, ..) => CredentialState::NeedsLogin,
            (Standing::Rejected { .. }, ..) => CredentialState::Rejected,
            (Standing::Good, Some(trouble), None) if trouble.error.kind() == ErrorKind::NeedsLogin => {
                CredentialState::NeedsLogin
            }
            (Standing::Good, Some(_), None) => CredentialState::Expired,
            (Standing::Good, None, None) => CredentialState::Renewing { until: None },
            (Standing::Good, _, Some(held)) => {
                let until = held.until();
                match self.activity {
                    Activity::Doing(Task::Renew) => CredentialState::Renewing { until },
                    Activity::Doing(Task::Look) | Activity::Idle => CredentialState::Valid { until },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::renewing::Granted;

    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> Now {
        Now {
            boot: Duration::from_secs(1000),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        }
    }

    fn after(time: Duration) -> Now {
        Now {
            boot: now().boot + time,
            wall: now().wall + time,
        }
    }

    fn grant(life: Option<Duration>) -> Grant {
        let granted = Granted {
            access: "token".into(),
            life,
            refresh: None,
            scopes: None,
        };
        Grant::new(&granted, "basis", now().wall, None)
    }

    fn held(life: Duration) -> Held {
        Held::exchanged(grant(Some(life)), Credential::None, now())
    }

    fn passing(kind: ErrorKind) -> ExchangeError {
        ExchangeError::Passing {
            error: Error::new(kind, "why"),
            retry_after: None,
        }
    }

    #[test]
    fn the_lead_is_a_tenth_but_a_minute_and_never_more_than_a_third() {
        let seconds = Duration::from_secs;
        for (life, expected) in [(2, 0), (90, 30), (180, 60), (600, 60), (3600, 360), (86_400, 8640)] {
            assert_eq!(lead(seconds(life)).as_secs(), expected, "{life}");
        }
        for _ in 0..100 {
            let wait = held(HOUR).renewed_in(now()).unwrap();
            assert!(wait <= HOUR * 9 / 10 && wait >= HOUR * 89 / 100, "{wait:?}");
        }
    }

    #[test]
    fn a_token_is_over_when_either_clock_says_so() {
        let held = held(HOUR);
        assert!(held.is_usable(after(HOUR - Duration::from_secs(1))));
        let (wall_only, boot_only) = (
            Now {
                boot: now().boot,
                ..after(HOUR)
            },
            Now {
                wall: now().wall,
                ..after(HOUR)
            },
        );
        assert!(!held.is_usable(wall_only) && !held.is_usable(boot_only));
    }

    #[test]
    fn a_stored_token_from_the_future_lives_no_longer_than_in_all() {
        let early = Now {
            wall: now().wall - 10 * HOUR,
            ..now()
        };
        let held = Held::stored(grant(Some(HOUR)), Credential::None, early);
        assert_eq!(held.end.unwrap().boot, now().boot + HOUR);
    }

    #[test]
    fn a_life_beyond_all_time_is_none() {
        let held = Held::exchanged(grant(Some(Duration::MAX)), Credential::None, now());
        assert!(held.is_usable(after(HOUR)) && held.until().is_none());
    }

    #[test]
    fn a_failure_shows_only_when_the_token_is_over() {
        let mut book = Book::new(GivenSecrets::default(), now());
        assert_eq!(book.next(now(), |_| false), Next::Do(Task::Renew));
        book.publish(held(HOUR));
        assert!(matches!(book.next(now(), |_| false), Next::Sleep(_)));
        book.failed(passing(ErrorKind::Unreachable), Backoff::TOKENS, now());
        assert!(matches!(book.state(now()), CredentialState::Valid { .. }));
        assert_eq!(book.state(after(HOUR)), CredentialState::Expired);
        let end = after(HOUR).boot + HOUR;
        assert!(matches!(book.wait(after(HOUR), end, |_| false), Wait::For(_)));
    }

    #[test]
    fn a_missing_secret_is_not_waited_for() {
        let mut book = Book::new(GivenSecrets::default(), now());
        book.failed(passing(ErrorKind::NeedsLogin), Backoff::TOKENS, now());
        assert_eq!(book.state(now()), CredentialState::NeedsLogin);
        assert!(matches!(book.wait(now(), now().boot + HOUR, |_| false), Wait::Fail(_)));
    }

    #[test]
    fn a_dead_grant_is_probed_twice_an_hour_at_most() {
        let mut book = Book::new(GivenSecrets::default(), now());
        let dead = Error::new(ErrorKind::NeedsLogin, "over");
        book.failed(ExchangeError::Dead(dead), Backoff::TOKENS, now());
        assert!(matches!(
            book.next(after(PROBE_EVERY - IDLE_LOOK), |_| false),
            Next::Sleep(_)
        ));
        let later = after(PROBE_EVERY * 2);
        assert_eq!(book.next(later, |_| false), Next::Do(Task::Renew));
        book.failed(passing(ErrorKind::Unreachable), Backoff::TOKENS, later);
        assert_eq!(book.state(later), CredentialState::NeedsLogin);
        assert!(matches!(book.next(later, |_| false), Next::Sleep(_)));
        assert_eq!(book.next(later, |_| true), Next::Do(Task::Look));
    }
}
