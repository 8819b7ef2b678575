//! A sign of life from work in flight, by which deadlines count time *without progress*.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// How often those who wait look whether the one they wait for gets on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

tokio::task_local! {
    static CURRENT: Progress;
}

/// A counter that moves whenever bytes move. The one of the running operation travels with its task.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Runs `work` with this counter as the one that `tick` moves.
    pub async fn scope<F: Future>(&self, work: F) -> F::Output {
        CURRENT.scope(self.clone(), work).await
    }

    /// The running operation's counter, to take along into a task of its own. Without an operation a new one.
    pub fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }

    /// Says that the running operation got further. Without an operation it says nothing to nobody.
    pub fn tick() {
        let _ = CURRENT.try_with(|progress| progress.0.fetch_add(1, Ordering::Relaxed));
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Who has something that others wait for: as long as that operation gets on, so do they.
#[derive(Debug, Default)]
pub struct Holder(Mutex<Progress>);

impl Holder {
    /// The running operation has it now.
    pub fn is_current(&self) {
        *self.0.lock() = Progress::current();
        Progress::tick();
    }

    /// Waits until it is free.
    pub async fn wait<T>(&self, free: impl Future<Output = T>) -> T {
        let mut free = std::pin::pin!(free);
        let mut seen = self.0.lock().value();
        loop {
            if let Ok(got) = tokio::time::timeout(LOOK_EVERY, free.as_mut()).await {
                return got;
            }
            let now = self.0.lock().value();
            if now != seen {
                seen = now;
                Progress::tick();
            }
        }
    }
}
