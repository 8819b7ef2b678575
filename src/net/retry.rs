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

    /// The pause before attempt `attempt` + 1, or `None` when the failure is final.
    ///
    /// `attempt` counts from 1, `elapsed` from the start of the first.
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
            ErrorKind::RateLimited {
                retry_after: Some(wait),
            } => wait.max(self.first_pause),
            ErrorKind::Unreachable | ErrorKind::RateLimited { retry_after: None } | ErrorKind::Busy => {
                let doubled = self
                    .first_pause
                    .saturating_mul(1 << (attempt - 1).min(16))
                    .min(self.max_pause);
                doubled.mul_f64(1.0 - fastrand::f64() / 2.0)
            }
            _ => return None,
        };
        (elapsed + pause <= self.budget).then_some(pause)
    }
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
    fn a_wait_beyond_the_budget_is_a_failure_now() {
        let wait = |seconds| ErrorKind::RateLimited {
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(
            pause(wait(5), Reach::Answered, Replay::Once),
            Some(Duration::from_secs(5))
        );
        assert_eq!(pause(wait(60), Reach::Answered, Replay::Once), None);
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
}
