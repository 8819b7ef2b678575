//! When a failed attempt is made again, and after how long. The only place that says so.

use std::time::Duration;

use super::Replay;
use crate::model::ErrorKind;

/// How far a request got before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The server cannot have seen it.
    NotSent,
    /// It may have been carried out.
    Unknown,
    /// The server answered.
    Answered,
}

/// Limits of the attempts of one request.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// No new attempt starts later than this after the first began.
    pub budget: Duration,
    /// The first pause; each further one is twice as long, up to `max_pause`, and all are shortened at random by up to half.
    pub first_pause: Duration,
    pub max_pause: Duration,
}

impl RetryPolicy {
    /// For operations that must answer within `deadline`.
    pub fn within(deadline: Duration) -> Self {
        Self {
            budget: deadline * 3 / 4,
            first_pause: Duration::from_millis(100),
            max_pause: Duration::from_secs(2),
        }
    }

    /// How long after the first attempt began one may still wait for a service that said "not now": longer than for a
    /// failure, because the answer then comes soon. Nine tenths of the deadline.
    pub fn longest_wait(&self) -> Duration {
        self.budget * 6 / 5
    }

    /// The pause after so many refusals without a word about when to come again.
    pub fn growing_pause(&self, refusals: u32) -> Duration {
        doubled(self.first_pause, refusals, self.max_pause)
    }

    /// The pause before attempt `attempt` + 1, or `None` when the failure is final.
    ///
    /// `attempt` counts from 1, `elapsed` from the start of the first. After a refusal for too many requests there is
    /// none: the gate lets the next attempt through when it is time.
    pub fn pause(
        &self,
        kind: ErrorKind,
        reach: Reach,
        replay: Replay,
        attempt: u32,
        elapsed: Duration,
    ) -> Option<Duration> {
        let may_repeat = match reach {
            Reach::NotSent => true,
            Reach::Unknown => replay == Replay::Idempotent,
            // A refusal for now (429, 503 and their like) says that nothing was done.
            Reach::Answered => {
                replay == Replay::Idempotent || matches!(kind, ErrorKind::RateLimited { .. } | ErrorKind::Busy)
            }
        };
        let pause = match kind {
            _ if !may_repeat => return None,
            ErrorKind::RateLimited { .. } => Duration::ZERO,
            ErrorKind::Unreachable | ErrorKind::Busy => self.growing_pause(attempt),
            _ => return None,
        };
        let last = match kind {
            ErrorKind::RateLimited { .. } => self.longest_wait(),
            _ => self.budget,
        };
        (elapsed + pause <= last).then_some(pause)
    }
}

/// Pauses between the attempts of something that has no end of its own: it is tried until it works.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first pause; each further one is twice as long, up to `max_pause`, and all are shortened at random by up to half.
    pub first_pause: Duration,
    pub max_pause: Duration,
    /// The longest wait that a service may ask for.
    pub max_asked: Duration,
}

impl Backoff {
    /// For requests for tokens: from one second to five minutes.
    pub const TOKENS: Self = Self {
        first_pause: Duration::from_secs(2),
        max_pause: Duration::from_secs(300),
        max_asked: Duration::from_secs(3600),
    };
    /// For writing to the local disk what must not be lost.
    pub const SAVING: Self = Self {
        first_pause: Duration::from_secs(1),
        max_pause: Duration::from_secs(30),
        max_asked: Duration::ZERO,
    };

    /// The pause after so many failures in a row; never shorter than what the service asked for, up to a limit.
    pub fn pause(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let own = doubled(self.first_pause, failures, self.max_pause);
        own.max(asked.unwrap_or_default().min(self.max_asked))
    }
}

/// Twice as long with each attempt, shortened at random by up to half so that many don't come at once.
fn doubled(first: Duration, attempt: u32, max: Duration) -> Duration {
    let doubled = first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(max);
    doubled.mul_f64(1.0 - fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        budget: Duration::from_secs(10),
        first_pause: Duration::from_millis(100),
        max_pause: Duration::from_secs(2),
    };

    fn pause(kind: ErrorKind, reach: Reach, replay: Replay) -> Option<Duration> {
        POLICY.pause(kind, reach, replay, 1, Duration::ZERO)
    }

    #[test]
    fn a_change_with_unknown_outcome_is_not_repeated() {
        assert_eq!(pause(ErrorKind::Unreachable, Reach::Unknown, Replay::Once), None);
        assert!(pause(ErrorKind::Unreachable, Reach::Unknown, Replay::Idempotent).is_some());
        assert!(pause(ErrorKind::Unreachable, Reach::NotSent, Replay::Once).is_some());
    }

    #[test]
    fn only_passing_faults_are_tried_again() {
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::Denied,
            ErrorKind::NeedsLogin,
            ErrorKind::BadData,
        ] {
            assert_eq!(pause(kind, Reach::Answered, Replay::Idempotent), None, "{kind:?}");
        }
    }

    #[test]
    fn a_refusal_for_now_is_waited_out_elsewhere_and_longer() {
        let limited = ErrorKind::RateLimited { retry_after: None };
        assert_eq!(pause(limited, Reach::Answered, Replay::Once), Some(Duration::ZERO));
        let late = |kind, elapsed| POLICY.pause(kind, Reach::Answered, Replay::Idempotent, 1, elapsed);
        assert_eq!(late(ErrorKind::Unreachable, POLICY.budget), None);
        assert_eq!(late(limited, POLICY.budget), Some(Duration::ZERO));
        assert_eq!(late(limited, POLICY.longest_wait() * 2), None);
        let deadline = Duration::from_secs(30);
        assert!(RetryPolicy::within(deadline).longest_wait() < deadline);
    }

    #[test]
    fn pauses_grow_and_stay_below_the_cap() {
        let pauses: Vec<_> = (1..12)
            .map(|n| {
                POLICY
                    .pause(ErrorKind::Unreachable, Reach::NotSent, Replay::Once, n, Duration::ZERO)
                    .unwrap()
            })
            .collect();
        assert!(pauses.iter().all(|pause| *pause <= POLICY.max_pause));
        assert!(pauses[0] >= POLICY.first_pause / 2 && pauses[10] >= POLICY.max_pause / 2);
    }

    #[test]
    fn requests_for_tokens_are_repeated_after_a_second_up_to_five_minutes() {
        let pauses: Vec<_> = (1..20).map(|failures| Backoff::TOKENS.pause(failures, None)).collect();
        assert!(pauses.iter().all(|pause| *pause >= Duration::from_secs(1)));
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(300)));
        assert!(pauses[0] <= Duration::from_secs(2) && pauses[18] >= Duration::from_secs(150));
    }

    #[test]
    fn a_wait_that_is_asked_for_is_kept_up_to_a_limit() {
        let asked = |seconds| Backoff::TOKENS.pause(1, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(90), Duration::from_secs(90));
        assert_eq!(asked(1_000_000), Duration::from_secs(3600));
        assert!(asked(0) >= Duration::from_secs(1));
    }
}
