//! A limit whose rest and end every answer tells: `X-RateLimit-Limit`, `-Remaining` and `-Reset` (Unix seconds).

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap};
use tokio::time::Instant;

use super::number;
use crate::net::status::retry_after;

/// When less than this part of a window's requests is left, they are spread over the rest of it.
const SCARCE: u32 = 10;
/// The longest pause for that: a command that asks a few times more is slower, but doesn't stop.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// No window is longer than this, whatever clocks say.
pub(super) const LONGEST_WINDOW: Duration = Duration::from_secs(3600);
/// Times are told in whole seconds: ends that are no further apart than this are the same one.
const SAME: Duration = Duration::from_secs(2);

/// What is known of the window of requests; nothing before the first answer.
#[derive(Debug, Default)]
pub(super) struct Told(Option<Window>);

#[derive(Clone, Copy, Debug)]
struct Window {
    limit: u32,
    left: u32,
    ends: Instant,
}

impl Told {
    /// As `RateBucket::take`.
    pub(super) fn take(&mut self, requests: u32, now: Instant) -> Result<Duration, Duration> {
        let Some(window) = self.0.as_mut().filter(|window| window.ends > now) else {
            return Ok(Duration::ZERO);
        };
        let rest = window.ends - now;
        if window.left < requests {
            return Err(rest);
        }
        window.left -= requests;
        if window.left < window.limit / SCARCE {
            return Ok((rest / (window.left + 1)).min(LONGEST_PAUSE));
        }
        Ok(Duration::ZERO)
    }

    /// As `RateBucket::learn`.
    pub(super) fn learn(&mut self, status: StatusCode, headers: &HeaderMap, now: Instant) {
        let Some(rest) = rest_of_window(headers) else { return };
        let ends = now + rest;
        let known = self.0.filter(|window| window.ends > now);
        let limit = number(headers, "x-ratelimit-limit").map(saturated);
        let limit = limit.or(known.map(|window| window.limit)).unwrap_or_default();
        let told = match number(headers, "x-ratelimit-remaining") {
            _ if status == StatusCode::TOO_MANY_REQUESTS => 0,
            Some(remaining) => saturated(remaining),
            None => return,
        };
        // Requests that are under way aren't counted in an answer to an earlier one.
        let left = match known {
            Some(window) if distance(window.ends, ends) <= SAME => window.left.min(told),
            _ => told,
        };
        self.0 = Some(Window { limit, left, ends });
    }
}

/// How long the window goes on, by the service's own clock if it tells the time.
fn rest_of_window(headers: &HeaderMap) -> Option<Duration> {
    let now = SystemTime::now();
    if let Some(wait) = retry_after(headers, now) {
        return Some(wait.min(LONGEST_WINDOW));
    }
    let reset = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(number(headers, "x-ratelimit-reset")?))?;
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let service_now = date.and_then(|date| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
    let rest = reset.duration_since(service_now.map_or(now, SystemTime::from));
    Some(rest.unwrap_or_default().min(LONGEST_WINDOW))
}

fn saturated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn distance(a: Instant, b: Instant) -> Duration {
    a.saturating_duration_since(b).max(b.saturating_duration_since(a))
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    /// An answer at noon of 6 November 1994, with a window that ends so many seconds later.
    fn answer(limit: u64, remaining: u64, seconds: u64) -> HeaderMap {
        let mut headers: HeaderMap = [
            ("x-ratelimit-limit", limit),
            ("x-ratelimit-remaining", remaining),
            ("x-ratelimit-reset", 784_111_777 + seconds),
        ]
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from(value)))
        .collect();
        headers.insert(DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        headers
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_held_up_before_anything_was_told() {
        let mut told = Told::default();
        assert_eq!(told.take(1000, Instant::now()), Ok(Duration::ZERO));
        told.learn(StatusCode::OK, &HeaderMap::new(), Instant::now());
        assert_eq!(told.take(1000, Instant::now()), Ok(Duration::ZERO));
    }

    #[test]
    fn the_rest_is_counted_down_and_the_window_waited_for() {
        let (mut told, now) = (Told::default(), Instant::now());
        told.learn(StatusCode::OK, &answer(3, 2, 30), now);
        assert_eq!(told.take(1, now), Ok(Duration::ZERO));
        assert_eq!(told.take(1, now + SECOND), Ok(Duration::ZERO));
        assert_eq!(told.take(1, now + SECOND), Err(29 * SECOND));
        // An answer to a request from before the other was sent.
        told.learn(StatusCode::OK, &answer(3, 1, 29), now + SECOND);
        assert_eq!(told.take(1, now + SECOND), Err(29 * SECOND));
        assert_eq!(told.take(1, now + 30 * SECOND), Ok(Duration::ZERO), "the next window");
        told.learn(StatusCode::OK, &answer(3, 2, 60), now + 30 * SECOND);
        assert_eq!(told.take(2, now + 30 * SECOND), Ok(Duration::ZERO));
    }

    #[test]
    fn the_last_tenth_is_spread_and_never_held_up_long() {
        let (mut told, now) = (Told::default(), Instant::now());
        told.learn(StatusCode::OK, &answer(100, 11, 2), now);
        assert_eq!(told.take(1, now), Ok(Duration::ZERO));
        assert_eq!(told.take(1, now), Ok(2 * SECOND / 10));
        assert_eq!(told.take(9, now), Ok(SECOND));
        assert_eq!(told.take(1, now), Err(2 * SECOND));
    }

    #[test]
    fn a_refusal_ends_the_window_early() {
        let (mut told, now) = (Told::default(), Instant::now());
        told.learn(StatusCode::OK, &answer(100, 90, 60), now);
        told.learn(StatusCode::TOO_MANY_REQUESTS, &answer(100, 0, 20), now);
        assert_eq!(told.take(1, now), Err(20 * SECOND));
    }
}
