//! Sends in the background: several at once, each again until it is done or a person must act.
//!
//! It knows numbers and outcomes; what a number stands for is the sender's affair.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many files are sent at the same time. Small ones wait for answers most of the time, and a service that can be asked
/// for several together is asked once for all of them.
const AT_ONCE: usize = 8;
/// The pauses between attempts at one file: each twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest wait that a provider may ask for: the longest window in which one counts requests is an hour.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// How long something that only a person, or room at the provider, can help waits before it is tried once more.
const REJECTED_PAUSE: Duration = Duration::from_secs(300);

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The provider has it, or nobody wants it any more.
    Done,
    /// It was changed again meanwhile.
    Again,
    /// It may go well later.
    Later,
    /// As `Later`, and the provider said that it is no use before.
    After(Duration),
    /// The provider refuses it.
    Rejected,
}

/// Makes one attempt to send what a number stands for.
#[async_trait]
pub trait Sender: Send + Sync + 'static {
    async fn attempt(&self, number: u64) -> Attempt;
}

/// What is to be sent, and when.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    due: HashMap<u64, Due>,
    /// The same by time.
    order: BTreeSet<(Instant, u64)>,
    /// With what was asked for meanwhile.
    under_way: HashMap<u64, Option<Due>>,
    closed: bool,
}

#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    failures: u32,
}

impl Queue {
    /// To be sent after `delay`, or earlier if somebody said so.
    pub fn add(&self, number: u64, delay: Duration) {
        let at = Instant::now() + delay;
        self.waiting.lock().ask(number, Due { at, failures: 0 });
        self.changed.notify_one();
    }

    /// Whatever waits is tried now.
    pub fn hurry(&self) {
        let now = Due {
            at: Instant::now(),
            failures: 0,
        };
        let mut waiting = self.waiting.lock();
        waiting.due.values_mut().for_each(|due| *due = now);
        waiting.order = waiting.due.keys().map(|number| (now.at, *number)).collect();
        drop(waiting);
        self.changed.notify_one();
    }

    /// No attempt begins any more.
    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.changed.notify_one();
    }

    /// Makes attempts until the queue is closed or the sender is gone.
    pub async fn run(self: Arc<Self>, sender: Weak<impl Sender>) {
        loop {
            let next = self.waiting.lock().next();
            match next {
                Next::End => return,
                Next::Attempt(number, failures) => {
                    let Some(sender) = sender.upgrade() else { return };
                    let queue = Arc::clone(&self);
                    tokio::spawn(async move {
                        let attempting = tokio::spawn(async move { sender.attempt(number).await });
                        // A panic costs one attempt.
                        let outcome = attempting.await.unwrap_or(Attempt::Later);
                        queue.finish(number, failures, outcome);
                    });
                }
                Next::Wait(None) => self.changed.notified().await,
                Next::Wait(Some(until)) => {
                    let _ = tokio::time::timeout_at(until, self.changed.notified()).await;
                }
            }
        }
    }

    fn finish(&self, number: u64, failures: u32, outcome: Attempt) {
        let pause = match outcome {
            Attempt::Done => None,
            Attempt::Again => Some((Duration::ZERO, 0)),
            Attempt::Later => Some((pause_after(failures), failures + 1)),
            Attempt::After(asked) => Some((pause_after(failures).max(asked.min(LONGEST_ASKED)), failures + 1)),
            Attempt::Rejected => Some((REJECTED_PAUSE, failures)),
        };
        let mut waiting = self.waiting.lock();
        // Somebody may have asked for it meanwhile.
        let asked = waiting.under_way.remove(&number).flatten();
        let next = asked.or_else(|| {
            pause.map(|(pause, failures)| Due {
                at: Instant::now() + pause,
                failures,
            })
        });
        if let Some(due) = next {
            waiting.ask(number, due);
        }
        drop(waiting);
        self.changed.notify_one();
    }
}

fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE)
}

enum Next {
    Attempt(u64, u32),
    Wait(Option<Instant>),
    End,
}

impl Waiting {
    /// The earlier of what is asked now and before.
    fn ask(&mut self, number: u64, due: Due) {
        if let Some(asked) = self.under_way.get_mut(&number) {
            let earlier = asked.filter(|asked| asked.at <= due.at);
            *asked = Some(earlier.unwrap_or(due));
            return;
        }
        match self.due.get_mut(&number) {
            Some(known) if known.at <= due.at => {}
            Some(known) => {
                self.order.remove(&(known.at, number));
                known.at = due.at;
                self.order.insert((due.at, number));
            }
            None => {
                self.due.insert(number, due);
                self.order.insert((due.at, number));
            }
        }
    }

    fn next(&mut self) -> Next {
        if self.closed {
            return Next::End;
        }
        if self.under_way.len() >= AT_ONCE {
            return Next::Wait(None);
        }
        let Some(&(at, number)) = self.order.first() else {
            return Next::Wait(None);
        };
        if at > Instant::now() {
            return Next::Wait(Some(at));
        }
        self.order.pop_first();
        let failures = self.due.remove(&number).map_or(0, |due| due.failures);
        self.under_way.insert(number, None);
        Next::Attempt(number, failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tokio::sync::Semaphore;

    /// Answers each number with its outcomes in turn, then with `Done`.
    #[derive(Default)]
    struct Script {
        outcomes: Mutex<HashMap<u64, Vec<Attempt>>>,
        attempts: Mutex<Vec<(u64, Instant)>>,
        made: Notify,
        gate: Option<Semaphore>,
    }

    #[async_trait]
    impl Sender for Script {
        async fn attempt(&self, number: u64) -> Attempt {
            self.attempts.lock().push((number, Instant::now()));
            self.made.notify_one();
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            let mut outcomes = self.outcomes.lock();
            match outcomes.get_mut(&number) {
                Some(left) if !left.is_empty() => left.remove(0),
                _ => Attempt::Done,
            }
        }
    }

    impl Script {
        async fn wait_for(&self, count: usize) {
            while self.attempts.lock().len() < count {
                self.made.notified().await;
            }
        }

        fn at(&self, number: u64) -> Vec<Instant> {
            let attempts = self.attempts.lock();
            attempts
                .iter()
                .filter(|(n, _)| *n == number)
                .map(|(_, at)| *at)
                .collect()
        }
    }

    fn start(script: Script) -> (Arc<Queue>, Arc<Script>) {
        let (queue, script) = (Arc::new(Queue::default()), Arc::new(script));
        tokio::spawn(Arc::clone(&queue).run(Arc::downgrade(&script)));
        (queue, script)
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_tried_again_with_growing_pauses() {
        let script = Script::default();
        script.outcomes.lock().insert(1, vec![Attempt::Later; 8]);
        let (queue, script) = start(script);
        queue.add(1, Duration::ZERO);
        script.wait_for(9).await;
        let at = script.at(1);
        let pauses: Vec<u64> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_is_left_alone_for_as_long_as_it_asked() {
        let script = Script::default();
        let asked = [1800, 1, 1_000_000].map(|seconds| Attempt::After(Duration::from_secs(seconds)));
        script.outcomes.lock().insert(1, asked.to_vec());
        let (queue, script) = start(script);
        queue.add(1, Duration::ZERO);
        script.wait_for(4).await;
        let at = script.at(1);
        let pauses: Vec<u64> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        assert_eq!(pauses, [1800, 2, 3600]);
    }

    #[tokio::test(start_paused = true)]
    async fn hurry_ends_the_pauses() {
        let script = Script::default();
        script.outcomes.lock().insert(1, vec![Attempt::Rejected]);
        let (queue, script) = start(script);
        queue.add(1, Duration::ZERO);
        script.wait_for(1).await;
        tokio::task::yield_now().await;
        queue.hurry();
        script.wait_for(2).await;
        let at = script.at(1);
        assert_eq!(at[1] - at[0], Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_eight_are_under_way_and_none_twice() {
        let (queue, script) = start(Script {
            gate: Some(Semaphore::new(0)),
            ..Script::default()
        });
        for number in 0..10 {
            queue.add(number, Duration::ZERO);
        }
        script.wait_for(AT_ONCE).await;
        for number in 0..10 {
            queue.add(number, Duration::ZERO);
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(script.attempts.lock().len(), AT_ONCE);
        script.gate.as_ref().unwrap().add_permits(100);
        script.wait_for(18).await;
        let of = |number| script.at(number).len();
        assert_eq!((0..10).map(of).collect::<Vec<_>>(), [2, 2, 2, 2, 2, 2, 2, 2, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_queue_begins_nothing() {
        let (queue, script) = start(Script::default());
        queue.close();
        queue.add(1, Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert!(script.attempts.lock().is_empty());
    }
}
