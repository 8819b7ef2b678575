//! Uploading what is pending, as long as that gets on.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::info;

use crate::model::{ErrorKind, Progress, Result};

/// How often a running upload is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The first and the longest pause before trying again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Something with files that are not at the provider.
#[async_trait]
pub trait Drains: Send + Sync {
    /// How many files wait.
    fn waiting(&self) -> usize;

    /// Tries to send each of them once.
    async fn send_all(&self) -> Result<()>;
}

/// Sends until nothing waits, nothing moved for `stall`, or the provider's refusals are final. Bytes on their way count
/// as movement, so one large file may take its time.
pub async fn drain(what: &dyn Drains, stall: Duration) {
    let progress = Progress::default();
    let (mut seen, mut waiting, mut moved_at) = (progress.value(), what.waiting(), Instant::now());
    let mut pause = PAUSES.0;
    while what.waiting() > 0 && !stall.is_zero() {
        let outcome = {
            let mut sending = std::pin::pin!(progress.scope(what.send_all()));
            loop {
                match tokio::time::timeout(LOOK_EVERY, sending.as_mut()).await {
                    Ok(outcome) => break Some(outcome),
                    Err(_) if progress.value() != seen => {
                        (seen, moved_at) = (progress.value(), Instant::now());
                    }
                    Err(_) if moved_at.elapsed() >= stall => break None,
                    Err(_) => {}
                }
            }
        };
        let left = what.waiting();
        if left != waiting {
            (waiting, moved_at, pause) = (left, Instant::now(), PAUSES.0);
        }
        let Some(outcome) = outcome else { return };
        match outcome {
            Ok(()) if left == 0 => return,
            Err(error) if is_final(error.kind()) => {
                info!(%error, left, "what is left was refused");
                return;
            }
            _ if moved_at.elapsed() >= stall => return,
            _ => {}
        }
        tokio::time::sleep(pause.min(stall)).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Whether trying again without a person's help is pointless.
fn is_final(kind: ErrorKind) -> bool {
    !kind.is_passing() && kind != ErrorKind::Internal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Error;
    use parking_lot::Mutex;

    /// Answers with these outcomes in turn; a good one sends a file.
    struct Script {
        waiting: Mutex<usize>,
        outcomes: Mutex<Vec<Result<()>>>,
    }

    impl Script {
        fn new(waiting: usize, outcomes: Vec<Result<()>>) -> Self {
            Self {
                waiting: Mutex::new(waiting),
                outcomes: Mutex::new(outcomes),
            }
        }
    }

    #[async_trait]
    impl Drains for Script {
        fn waiting(&self) -> usize {
            *self.waiting.lock()
        }

        async fn send_all(&self) -> Result<()> {
            let outcome = {
                let mut outcomes = self.outcomes.lock();
                if outcomes.is_empty() {
                    None
                } else {
                    Some(outcomes.remove(0))
                }
            };
            match outcome {
                Some(Ok(())) => {
                    *self.waiting.lock() -= 1;
                    Ok(())
                }
                Some(Err(error)) => Err(error),
                None => std::future::pending().await,
            }
        }
    }

    const STALL: Duration = Duration::from_secs(30);

    fn error(kind: ErrorKind) -> Result<()> {
        Err(Error::new(kind, "failed"))
    }

    #[tokio::test(start_paused = true)]
    async fn it_tries_again_after_what_passes() {
        let script = Script::new(
            2,
            vec![
                error(ErrorKind::Unreachable),
                Ok(()),
                error(ErrorKind::TimedOut),
                Ok(()),
            ],
        );
        drain(&script, STALL).await;
        assert_eq!(script.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_at_once_on_a_refusal() {
        let script = Script::new(1, vec![error(ErrorKind::Denied), Ok(())]);
        let start = Instant::now();
        drain(&script, STALL).await;
        assert_eq!(script.waiting(), 1);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_when_nothing_moves() {
        let start = Instant::now();
        drain(&Script::new(1, Vec::new()), STALL).await;
        assert!(start.elapsed() >= STALL && start.elapsed() < 2 * STALL);
    }

    #[tokio::test(start_paused = true)]
    async fn without_patience_nothing_is_tried() {
        let script = Script::new(1, vec![Ok(())]);
        drain(&script, Duration::ZERO).await;
        assert_eq!(script.waiting(), 1);
    }

    /// One file whose bytes move now and then, for longer than the patience with standstill.
    struct Slow(Mutex<usize>);

    #[async_trait]
    impl Drains for Slow {
        fn waiting(&self) -> usize {
            *self.0.lock()
        }

        async fn send_all(&self) -> Result<()> {
            for _ in 0..10 {
                tokio::time::sleep(STALL / 2).await;
                Progress::tick();
            }
            *self.0.lock() = 0;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_upload_that_moves_is_waited_for() {
        let slow = Slow(Mutex::new(1));
        drain(&slow, STALL).await;
        assert_eq!(slow.waiting(), 0);
    }
}
