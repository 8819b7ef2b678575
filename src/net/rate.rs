//! A service's limit on how often it may be asked, counted on this side so that the service needn't refuse.
//!
//! It only counts and says how long one more request has to wait; whether that wait is worth it is `retry`'s. What the
//! service refuses all the same closes the bucket's gate. Limits that are told with each answer are in `told`.

mod told;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::time::Instant;

use self::told::Told;
use super::gate::Gate;

/// How often something may be asked for.
#[derive(Debug)]
pub struct RateBucket {
    /// What is counted, for messages: `uploads`.
    what: &'static str,
    law: Law,
    /// Closed by refusals of such requests.
    pub(super) gate: Gate,
}

#[derive(Debug)]
enum Law {
    /// At most so many requests in any stretch of time of one length (a rolling window), as documented.
    Rolling { window: Duration, state: Mutex<State> },
    /// As the latest answer says.
    Told(Mutex<Told>),
}

#[derive(Debug)]
struct State {
    limit: u32,
    /// When this process sent those that still count, the oldest first.
    sent: VecDeque<Instant>,
    /// Further ones that the service counted, and until when they count.
    elsewhere: Option<(u32, Instant)>,
}

impl RateBucket {
    /// `limit` is the documented one; it gives way to what the service's answers say.
    pub fn new(what: &'static str, limit: u32, window: Duration) -> Self {
        Self {
            what,
            law: Law::Rolling {
                window,
                state: Mutex::new(State {
                    limit,
                    sent: VecDeque::new(),
                    elsewhere: None,
                }),
            },
            gate: Gate::default(),
        }
    }

    /// Nothing is known before the first answer.
    pub fn told(what: &'static str) -> Self {
        Self {
            what,
            law: Law::Told(Mutex::default()),
            gate: Gate::default(),
        }
    }

    /// The wait that a refusal asks for, as far as it can be meant: after a whole window nothing counts any more.
    pub(super) fn believed(&self, asked: Option<Duration>) -> Option<Duration> {
        let longest = match &self.law {
            Law::Rolling { window, .. } => *window,
            Law::Told(_) => told::LONGEST_WINDOW,
        };
        asked.map(|asked| asked.min(longest))
    }

    /// What is counted, as a word.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Counts so many requests at once and gives the pause to make before the first, or says how long until they fit.
    pub(super) fn take(&self, requests: u32) -> Result<Duration, Duration> {
        let now = Instant::now();
        match &self.law {
            Law::Told(told) => told.lock().take(requests, now),
            Law::Rolling { window, state } => {
                let mut state = state.lock();
                state.forget_before(now, *window);
                let wait = state.wait(requests, now, *window);
                if wait > Duration::ZERO {
                    return Err(wait);
                }
                state.sent.extend((0..requests).map(|_| now));
                Ok(Duration::ZERO)
            }
        }
    }

    /// Takes over what an answer tells: `X-RateLimit-Limit`, `-Remaining` and `-Reset` (Unix seconds).
    pub(super) fn learn(&self, status: StatusCode, headers: &HeaderMap) {
        let now = Instant::now();
        let (window, state) = match &self.law {
            Law::Told(told) => return told.lock().learn(status, headers, now),
            Law::Rolling { window, state } => (*window, state),
        };
        if status == StatusCode::TOO_MANY_REQUESTS {
            // The gate's affair.
            return;
        }
        let mut state = state.lock();
        let number = |name: &str| number(headers, name);
        if let Some(limit) = number("x-ratelimit-limit") {
            state.limit = u32::try_from(limit).unwrap_or(u32::MAX);
        }
        let Some(remaining) = number("x-ratelimit-remaining") else {
            return;
        };
        state.forget_before(now, window);
        let used = u64::from(state.limit).saturating_sub(remaining);
        let foreign = u32::try_from(used.saturating_sub(state.sent.len() as u64)).unwrap_or(u32::MAX);
        let until = number("x-ratelimit-reset")
            .and_then(|reset| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(reset)))
            .and_then(|reset| reset.duration_since(SystemTime::now()).ok())
            .map_or(window, |wait| wait.min(window));
        state.elsewhere = (foreign > 0).then_some((foreign, now + until));
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

impl State {
    fn forget_before(&mut self, now: Instant, window: Duration) {
        while self.sent.front().is_some_and(|sent| *sent + window <= now) {
            self.sent.pop_front();
        }
        self.elsewhere = self.elsewhere.filter(|(_, until)| *until > now);
    }

    /// How long until so many more fit.
    fn wait(&self, requests: u32, now: Instant, window: Duration) -> Duration {
        let foreign = self.elsewhere.map_or(0, |(count, _)| count);
        let used = self.sent.len() as u64 + u64::from(foreign);
        let surplus = (used + u64::from(requests)).saturating_sub(u64::from(self.limit));
        if surplus == 0 {
            return Duration::ZERO;
        }
        // When each of those that count leaves, the first of them first.
        let own = self.sent.iter().map(|sent| *sent + window);
        let others = self
            .elsewhere
            .into_iter()
            .flat_map(|(count, until)| std::iter::repeat_n(until, count as usize));
        let mut leaving: Vec<Instant> = own.chain(others).collect();
        leaving.sort_unstable();
        let index = usize::try_from(surplus - 1).unwrap_or(usize::MAX);
        // More than ever fit: the whole window, after which it is the service's turn to say so.
        leaving
            .get(index)
            .map_or(window, |at| at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};

    const MINUTE: Duration = Duration::from_secs(60);

    fn bucket(limit: u32) -> RateBucket {
        RateBucket::new("requests", limit, MINUTE)
    }

    fn told(pairs: &[(&'static str, u64)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, u64)| (HeaderName::from_static(name), HeaderValue::from(*value));
        pairs.iter().map(header).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_rolls() {
        let bucket = bucket(2);
        assert_eq!(bucket.take(1), Ok(Duration::ZERO));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(bucket.take(1), Ok(Duration::ZERO));
        assert_eq!(bucket.take(1), Err(Duration::from_secs(40)));
        assert_eq!(bucket.take(2), Err(MINUTE), "both must have left");
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(bucket.take(1), Ok(Duration::ZERO));
        assert_eq!(bucket.take(1), Err(Duration::from_secs(20)));
        assert_eq!(bucket.take(3), Err(MINUTE), "more than ever fit");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_correct_the_count_and_the_limit() {
        let bucket = bucket(100);
        assert_eq!(bucket.take(1), Ok(Duration::ZERO));
        let in_seconds = |seconds| {
            let reset = SystemTime::now() + Duration::from_secs(seconds);
            reset.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
        };
        let headers = told(&[
            ("x-ratelimit-limit", 5),
            ("x-ratelimit-remaining", 1),
            ("x-ratelimit-reset", in_seconds(30)),
        ]);
        bucket.learn(StatusCode::OK, &headers);
        assert_eq!(bucket.take(1), Ok(Duration::ZERO));
        let wait = bucket.take(1).unwrap_err();
        assert!(
            wait > Duration::from_secs(25) && wait <= Duration::from_secs(30),
            "{wait:?}"
        );
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(
            bucket.take(3),
            Ok(Duration::ZERO),
            "those of others left, the own two are still there"
        );
        assert!(bucket.take(1).is_err());
    }
}
