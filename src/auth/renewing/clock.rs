//! Two clocks that a token's end is checked against, and how to sleep by them.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::watch;

/// One look at both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the machine was started, time asleep included (`CLOCK_BOOTTIME`). Nobody sets it.
    pub boot: Duration,
    /// The calendar's time, which may be wrong and may jump.
    pub wall: SystemTime,
}

/// Where time comes from. Tests bring their own.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Now;

    /// Sleeps by a timer that stands still while the machine does: after a suspend it may end late.
    async fn sleep(&self, time: Duration);
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Now {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Now {
            boot: Duration::new(
                u64::try_from(boot.tv_sec).unwrap_or_default(),
                u32::try_from(boot.tv_nsec).unwrap_or_default(),
            ),
            wall: SystemTime::now(),
        }
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// Clocks that move only when told to, for tests.
#[derive(Clone, Debug)]
pub struct ManualClock(watch::Sender<Hands>);

#[derive(Clone, Copy, Debug)]
struct Hands {
    now: Now,
    /// What timers count: it stands still during a suspend.
    awake: Duration,
}

impl ManualClock {
    /// Starts a day after boot, at this time of the calendar.
    pub fn at(wall: SystemTime) -> Self {
        let boot = Duration::from_secs(86_400);
        let hands = Hands {
            now: Now { boot, wall },
            awake: boot,
        };
        Self(watch::Sender::new(hands))
    }

    /// Time passes, and timers end.
    pub fn advance(&self, time: Duration) {
        self.0.send_modify(|hands| {
            hands.now.boot += time;
            hands.now.wall += time;
            hands.awake += time;
        });
    }

    /// The machine sleeps: time passes, and no timer ends.
    pub fn suspend(&self, time: Duration) {
        self.0.send_if_modified(|hands| {
            hands.now.boot += time;
            hands.now.wall += time;
            false
        });
    }

    /// Somebody sets the calendar's clock.
    pub fn set_wall(&self, wall: SystemTime) {
        self.0.send_modify(|hands| hands.now.wall = wall);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Now {
        self.0.borrow().now
    }

    async fn sleep(&self, time: Duration) {
        let mut hands = self.0.subscribe();
        let end = hands.borrow_and_update().awake + time;
        // The sender lives as long as this clock.
        let _ = hands.wait_for(|hands| hands.awake >= end).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn the_machines_clock_since_boot_never_goes_back() {
        let (first, second) = (SystemClock.now(), SystemClock.now());
        assert!(first.boot > Duration::ZERO && second.boot >= first.boot);
    }

    #[tokio::test]
    async fn timers_stand_still_while_the_machine_sleeps() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let before = clock.now();
        let mut sleep = clock.sleep(Duration::from_secs(10));
        assert!(sleep.as_mut().now_or_never().is_none());
        clock.suspend(Duration::from_secs(3600));
        assert!(sleep.as_mut().now_or_never().is_none());
        assert_eq!(clock.now().boot - before.boot, Duration::from_secs(3600));
        clock.advance(Duration::from_secs(10));
        assert!(sleep.now_or_never().is_some());
    }
}
