//! Keeps those apart who change one key at the same moment, where the service itself doesn't.
//!
//! A service that ignores conditions stores whatever comes last. So who wants to change a key first stores an empty object
//! beside it, the lock, and then lists who else has one. Who finds himself alone may change the key. Whoever doesn't takes
//! his lock away and tries again a little later. Of two, the one who lists last sees the other's lock, as long as what is
//! stored is listed from then on: Amazon S3 promises that, and so does Garage.
//!
//! A lock is renewed while it is held. One that wasn't for `Lease::over` is left from somebody who is gone, by the clock
//! of the service that says when each was stored. Programs that know nothing of locks aren't kept out.

use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::names::folder_of;
use super::store::Store;
use crate::auth::renewing::{Clock, SystemClock};
use crate::model::{Error, ErrorKind, Result};

/// What the names of keymount's own objects begin with. They are shown to nobody.
pub(super) const OWN: &str = ".keymount-";
/// How long somebody waits for others, in all; then the change is tried again later or refused.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether others are done: at first, and at most. Both are shortened at random by up to half.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long a lock is good for without being renewed.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// From here on others take it away. The services' clocks may differ by a good part of it.
    pub over: Duration,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            over: Duration::from_secs(60),
        }
    }
}

impl Lease {
    /// How often a lock is stored anew.
    fn renewal(self) -> Duration {
        self.over / 4
    }

    /// From when on its holder doesn't rely on it any more.
    fn unsafe_from(self) -> Duration {
        self.over * 3 / 4
    }
}

/// The right to change one key, until it is given back.
#[derive(Debug)]
pub(super) struct Lock {
    object: String,
    lease: Lease,
}

impl Lock {
    /// Waits until nobody else changes this key.
    ///
    /// # Errors
    /// `Busy` when others don't end, `Denied` without the rights to store, list and delete.
    pub(super) async fn take(store: &Store, key: &str, lease: Lease) -> Result<Self> {
        let family = family(key);
        let lock = Self {
            object: format!("{family}{:016x}", fastrand::u64(..)),
            lease,
        };
        let start = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            store.put_mark(&lock.object).await?;
            match lock.is_alone(store, &family).await {
                Ok(true) => return Ok(lock),
                Ok(false) => lock.give_back(store).await,
                Err(error) => {
                    lock.give_back(store).await;
                    return Err(error);
                }
            }
            if start.elapsed() > PATIENCE {
                let message = format!("{key:?} is being changed by another mount");
                return Err(Error::new(ErrorKind::Busy, message));
            }
            sleep(pause.mul_f64(1.0 - fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Whether no living lock but this one is there. Dead ones are taken away.
    async fn is_alone(&self, store: &Store, family: &str) -> Result<bool> {
        let there = store.marks(family).await?;
        let Some((_, now)) = there.iter().find(|(object, _)| *object == self.object) else {
            // Somebody took it for a dead one.
            return Ok(false);
        };
        let mut alone = true;
        for (object, stored) in there.iter().filter(|(object, _)| *object != self.object) {
            if is_left(*stored, *now, self.lease) {
                warn!(object, "a lock was left behind; it is taken away");
                store.delete_mark(object).await?;
            } else {
                alone = false;
            }
        }
        Ok(alone)
    }

    /// Does something while the lock is renewed.
    ///
    /// # Errors
    /// `Busy` when it could not be renewed, and the work's own. What the work has sent may then be carried out.
    pub(super) async fn keeping<T>(&self, store: &Store, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            lost = self.renew(store) => Err(lost),
            done = work => done,
        }
    }

    /// Ends only when the lock is lost.
    async fn renew(&self, store: &Store) -> Error {
        let mut renewed = SystemClock.now().boot;
        loop {
            sleep(self.lease.renewal()).await;
            let asked = SystemClock.now().boot;
            let outcome = store.put_mark(&self.object).await;
            // Measured from before the request, and with the time that the machine slept.
            if asked.saturating_sub(renewed) >= self.lease.unsafe_from() {
                return Error::new(ErrorKind::Busy, "the right to change it ended before it was changed");
            }
            match outcome {
                Ok(()) => renewed = asked,
                Err(error) => debug!(%error, "a lock is not renewed yet"),
            }
        }
    }

    pub(super) async fn give_back(&self, store: &Store) {
        if let Err(error) = store.delete_mark(&self.object).await {
            warn!(object = self.object, %error, "a lock stays until somebody finds it too old");
        }
    }
}

/// How the locks of a key begin: in its own directory, where its rights hold.
fn family(key: &str) -> String {
    let name = key.strip_suffix('/').unwrap_or(key);
    let sum = Sha256::digest(name.as_bytes());
    let short: String = sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}{OWN}lock.{short}.", folder_of(key))
}

/// Whether an object of keymount's own is one that nobody will take away.
pub(super) fn is_left(stored: SystemTime, now: SystemTime, lease: Lease) -> bool {
    now.duration_since(stored).is_ok_and(|age| age >= lease.over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locks_of_a_key_are_beside_it_and_its_own() {
        let of = |key| family(key);
        assert!(of("a/b").starts_with("a/.keymount-lock."));
        assert!(of("b").starts_with(".keymount-lock."));
        assert_ne!(of("a/b"), of("a/c"));
        // A file and a directory of one name keep each other out.
        assert_eq!(of("a/b"), of("a/b/"));
    }

    #[test]
    fn a_lock_is_left_when_its_lease_is_over() {
        let lease = Lease::default();
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!(!is_left(then, then, lease));
        assert!(!is_left(then, then + lease.over / 2, lease));
        assert!(is_left(then, then + lease.over, lease));
        // Clocks that differ make nothing old.
        assert!(!is_left(then + lease.over, then, lease));
        assert!(lease.renewal() * 2 < lease.unsafe_from() && lease.unsafe_from() < lease.over);
    }
}
