//! Rolling-window limits per key (rate-limiting), on a clock that tests move.
//!
//! Responsible for which bucket holds how many requests and for whether one more fits. Not responsible for which
//! request belongs to which bucket.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A kind of request that is limited on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// `GET /users/me`.
    UserRead,
    /// `PATCH /users/me/preferences`.
    UserPrefs,
    /// `POST /files/upload`.
    Upload,
    /// Both listings.
    List,
    /// `GET` and `HEAD` of content.
    Download,
    /// Making folders and asking about them.
    Folder,
    /// Moving, copying, duplicating, deleting, privacy.
    FileOps,
    /// The trash.
    Trash,
    /// Grants.
    Permissions,
}

impl Bucket {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::UserRead,
        Self::UserPrefs,
        Self::Upload,
        Self::List,
        Self::Download,
        Self::Folder,
        Self::FileOps,
        Self::Trash,
        Self::Permissions,
    ];

    /// Requests in one window (rate-limiting).
    pub fn documented_limit(self) -> u32 {
        match self {
            Self::UserRead => 60,
            Self::UserPrefs => 30,
            Self::Upload | Self::Trash => 50,
            Self::List | Self::Folder | Self::FileOps | Self::Permissions => 100,
            Self::Download => 200,
        }
    }

    /// The length of the window: a minute or an hour (rate-limiting).
    pub fn window(self) -> Duration {
        match self {
            Self::UserRead | Self::UserPrefs => Duration::from_secs(60),
            _ => Duration::from_secs(3600),
        }
    }
}

/// The limits in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits(BTreeMap<Bucket, u32>);

impl Limits {
    pub(super) fn of(&self, bucket: Bucket) -> u32 {
        self.0.get(&bucket).copied().unwrap_or(bucket.documented_limit())
    }

    pub(super) fn set(&mut self, bucket: Bucket, limit: u32) {
        self.0.insert(bucket, limit);
    }
}

/// What a request that fitted learns about its bucket (`X-RateLimit-*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Unix seconds.
    pub(super) reset: i64,
}

/// One request too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    /// Seconds, at least one.
    pub(super) retry_after: i64,
}

/// The requests of one key that still count.
#[derive(Debug, Clone, Default)]
pub(super) struct Windows(BTreeMap<Bucket, VecDeque<Timestamp>>);

impl Windows {
    /// Counts a request if it fits.
    pub(super) fn admit(&mut self, bucket: Bucket, limit: u32, now: Timestamp) -> Result<Allowance, TooMany> {
        let times = self.current(bucket, now);
        let used = times.len();
        if used >= limit as usize {
            // The request fits once so many have left that one less than the limit stays.
            let last_to_leave = times.get(used - limit as usize).copied().unwrap_or(now);
            let wait = leaving(last_to_leave, bucket).duration_since(now);
            return Err(TooMany {
                retry_after: whole_seconds(wait).max(1),
            });
        }
        times.push_back(now);
        let remaining = limit - u32::try_from(times.len()).unwrap_or(limit);
        let oldest = times.front().copied().unwrap_or(now);
        let reset = leaving(oldest, bucket).duration_since(Timestamp::UNIX_EPOCH);
        Ok(Allowance {
            limit,
            remaining,
            reset: whole_seconds(reset),
        })
    }

    /// Requests in the window now.
    pub(super) fn used(&mut self, bucket: Bucket, now: Timestamp) -> u32 {
        u32::try_from(self.current(bucket, now).len()).unwrap_or(u32::MAX)
    }

    fn current(&mut self, bucket: Bucket, now: Timestamp) -> &mut VecDeque<Timestamp> {
        let times = self.0.entry(bucket).or_default();
        while times.front().is_some_and(|oldest| leaving(*oldest, bucket) <= now) {
            times.pop_front();
        }
        times
    }
}

/// When a request at this time stops counting.
fn leaving(time: Timestamp, bucket: Bucket) -> Timestamp {
    let window = SignedDuration::try_from(bucket.window()).unwrap_or(SignedDuration::MAX);
    time.checked_add(window).unwrap_or(Timestamp::MAX)
}

fn whole_seconds(duration: SignedDuration) -> i64 {
    duration.as_secs() + i64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_000_000_000_000 + milliseconds).unwrap()
    }

    #[test]
    fn a_window_rolls() {
        let mut windows = Windows::default();
        let mut ask = |milliseconds| windows.admit(Bucket::UserRead, 2, at(milliseconds));
        let first = Allowance {
            limit: 2,
            remaining: 1,
            reset: 1_000_000_060,
        };
        assert_eq!(ask(0), Ok(first));
        assert_eq!(ask(30_500).map(|allowance| allowance.remaining), Ok(0));
        assert_eq!(ask(30_501), Err(TooMany { retry_after: 30 }));
        assert_eq!(ask(59_999), Err(TooMany { retry_after: 1 }));
        // Only the first has left, not the second: a fixed window would give both back.
        let third = Allowance {
            limit: 2,
            remaining: 0,
            reset: 1_000_000_091,
        };
        assert_eq!(ask(60_000), Ok(third));
        assert_eq!(ask(60_001), Err(TooMany { retry_after: 31 }));
    }

    #[test]
    fn buckets_are_counted_apart_and_a_lower_limit_holds_at_once() {
        let mut windows = Windows::default();
        for _ in 0..3 {
            windows.admit(Bucket::Upload, 50, at(0)).unwrap();
        }
        assert_eq!(windows.used(Bucket::Upload, at(1)), 3);
        assert_eq!(windows.used(Bucket::List, at(1)), 0);
        assert_eq!(windows.used(Bucket::Upload, at(3_600_000)), 0);
        windows.admit(Bucket::Upload, 50, at(3_600_000)).unwrap();
        windows.admit(Bucket::Upload, 50, at(3_601_000)).unwrap();
        let refused = windows.admit(Bucket::Upload, 1, at(3_602_000));
        assert_eq!(refused, Err(TooMany { retry_after: 3599 }));
        assert_eq!(
            windows.admit(Bucket::Upload, 0, at(3_602_000)),
            Err(TooMany { retry_after: 3600 })
        );
    }
}
