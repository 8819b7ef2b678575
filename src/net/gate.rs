//! "Not now", heard by one request, holds for all: how long nothing is sent, and who asks first afterwards.
//!
//! When a service refuses for now, the gate closes for as long as the service asked for, or for a pause that doubles with
//! each refusal. Then one request tries; the others wait for what comes of it. So a hundred readers cost a service that is
//! closed no more requests than one. How long a request may wait here is `retry`'s.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::RetryPolicy;

/// How long the others wait for the one that tries: it may be a large upload, whose answer takes its time.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// `None` while it is open.
    closed: Option<Closed>,
    /// How often it was closed: what was sent before that says nothing about the time after.
    closings: u64,
}

#[derive(Clone, Copy, Debug)]
struct Closed {
    /// Nothing is sent before.
    until: Instant,
    /// Refusals in a row, each after a wait.
    refusals: u32,
    /// Since when one is on its way to find out.
    trying: Option<Instant>,
}

/// Leave to send one request. Its answer is to be told by `refused` or `answered`; without one the next in turn tries.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    closings: u64,
    tries: bool,
    /// Whether it took a wait to get it.
    pub(super) waited: bool,
}

impl Gate {
    /// Waits until something may be sent.
    ///
    /// # Errors
    /// How long it will be, when that is after `limit`; at `limit`, zero.
    pub(super) async fn pass(&self, limit: Instant) -> Result<Pass<'_>, Duration> {
        let mut waited = false;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the look, so that a change in between isn't missed.
            changed.as_mut().enable();
            let until = {
                let now = Instant::now();
                let mut state = self.state.lock();
                let closings = state.closings;
                let pass = |tries| Pass {
                    gate: self,
                    closings,
                    tries,
                    waited,
                };
                match &mut state.closed {
                    None => return Ok(pass(false)),
                    Some(closed) if closed.until > limit => return Err(closed.until - now),
                    Some(closed) if closed.until > now => closed.until,
                    Some(closed) => match closed.trying.map(|since| since + PATIENCE) {
                        Some(enough) if enough > now && limit <= now => return Err(Duration::ZERO),
                        Some(enough) if enough > now => enough.min(limit),
                        _ => {
                            closed.trying = Some(now);
                            return Ok(pass(true));
                        }
                    },
                }
            };
            waited = true;
            let _ = tokio::time::timeout_at(until, changed).await;
        }
    }
}

impl Pass<'_> {
    /// The service said "not now": closes the gate for `asked`, or else for the policy's pause.
    pub(super) fn refused(mut self, asked: Option<Duration>, policy: &RetryPolicy) {
        let mut state = self.gate.state.lock();
        let is_news = self.closings == state.closings;
        let before = state.closed;
        let refusals = before.map_or(0, |closed| closed.refusals) + u32::from(is_news);
        let wait = match asked {
            Some(asked) => asked.max(policy.first_pause),
            None if is_news => policy.growing_pause(refusals),
            // It was sent before the gate closed and says nothing new.
            None => Duration::ZERO,
        };
        let until = before.map(|closed| closed.until).max(Some(Instant::now() + wait));
        state.closed = until.map(|until| Closed {
            until,
            refusals,
            trying: before.and_then(|closed| closed.trying).filter(|_| !self.tries),
        });
        if is_news {
            state.closings += 1;
        }
        drop(state);
        self.tries = false;
        self.gate.changed.notify_waiters();
    }

    /// The service took it, or refused it for another reason: it opens, if this was sent after it closed.
    pub(super) fn answered(mut self) {
        let mut state = self.gate.state.lock();
        let opens = self.closings == state.closings && state.closed.is_some();
        if opens {
            state.closed = None;
            self.tries = false;
        }
        drop(state);
        if opens {
            self.gate.changed.notify_waiters();
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.tries {
            if let Some(closed) = &mut self.gate.state.lock().closed {
                closed.trying = None;
            }
            self.gate.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const POLICY: RetryPolicy = RetryPolicy {
        budget: Duration::from_secs(20),
        first_pause: Duration::from_millis(100),
        max_pause: Duration::from_secs(2),
    };

    fn in_seconds(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_heard_holds_for_all() {
        let gate = Gate::default();
        let (first, second) = (
            gate.pass(in_seconds(0)).await.unwrap(),
            gate.pass(in_seconds(0)).await.unwrap(),
        );
        let start = Instant::now();
        first.refused(Some(Duration::from_secs(7)), &POLICY);
        assert_eq!(gate.pass(in_seconds(6)).await.unwrap_err(), Duration::from_secs(7));
        assert_eq!(
            start.elapsed(),
            Duration::ZERO,
            "a wait that is too long is refused at once"
        );
        // It was sent before; that it went well says nothing.
        second.answered();
        let third = gate.pass(in_seconds(7)).await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(7));
        assert!(third.waited);
        third.answered();
        assert!(!gate.pass(in_seconds(0)).await.unwrap().waited);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_wait_one_tries_and_the_others_wait_for_it() {
        let gate = Arc::new(Gate::default());
        gate.pass(in_seconds(0)).await.unwrap().refused(None, &POLICY);
        let sent = Arc::new(Mutex::new(Vec::new()));
        let start = Instant::now();
        let readers: Vec<_> = (0..16)
            .map(|_| {
                let (gate, sent) = (Arc::clone(&gate), Arc::clone(&sent));
                tokio::spawn(async move {
                    let limit = in_seconds(60);
                    loop {
                        let pass = gate.pass(limit).await.unwrap();
                        sent.lock().push(start.elapsed());
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        if start.elapsed() > Duration::from_secs(10) {
                            pass.answered();
                            return;
                        }
                        pass.refused(None, &POLICY);
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap();
        }
        let sent = sent.lock().clone();
        let while_closed = sent.iter().filter(|at| **at <= Duration::from_secs(10)).count();
        assert!((5..=14).contains(&while_closed), "{sent:?}");
        assert_eq!(sent.len() - while_closed, 16, "then each its own: {sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn sixteen_refusals_at_once_are_one() {
        let gate = Gate::default();
        let mut passes = Vec::new();
        for _ in 0..16 {
            passes.push(gate.pass(in_seconds(0)).await.unwrap());
        }
        for pass in passes {
            pass.refused(None, &POLICY);
        }
        let start = Instant::now();
        gate.pass(in_seconds(9)).await.unwrap().answered();
        assert!(start.elapsed() <= POLICY.first_pause, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_broken_off_lets_the_next_try() {
        let gate = Arc::new(Gate::default());
        gate.pass(in_seconds(0)).await.unwrap().refused(None, &POLICY);
        let first = gate.pass(in_seconds(9)).await.unwrap();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.pass(in_seconds(9)).await.map(Pass::answered) }
        });
        tokio::task::yield_now().await;
        drop(first);
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_another_waits_no_longer_than_it_may() {
        let gate = Gate::default();
        gate.pass(in_seconds(0)).await.unwrap().refused(None, &POLICY);
        let trying = gate.pass(in_seconds(9)).await.unwrap();
        assert_eq!(gate.pass(in_seconds(1)).await.unwrap_err(), Duration::ZERO);
        // A large upload needs longer than anybody waits for it.
        let start = Instant::now();
        gate.pass(in_seconds(9)).await.unwrap().answered();
        assert!(start.elapsed() < PATIENCE);
        drop(trying);
        assert!(!gate.pass(in_seconds(0)).await.unwrap().waited);
    }
}
