//! From a kernel request to a task: every operation is spawned, has a deadline, and is answered once.
//!
//! A panic ends only its task; the reply that dies with it answers EIO.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fuser::Errno;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::errno::errno;
use crate::fs::{FileSystem, Ino};
use crate::model::{Error, ErrorKind, Progress, Result};

#[derive(Clone)]
pub struct Bridge {
    pub fs: Arc<FileSystem>,
    runtime: Handle,
    /// How long an operation may go without progress.
    deadline: Duration,
}

impl Bridge {
    pub fn new(fs: Arc<FileSystem>, runtime: Handle, deadline: Duration) -> Self {
        Self { fs, runtime, deadline }
    }

    /// Runs `work` on a node and answers with what came of it.
    pub fn answer<T, W>(
        &self,
        operation: &'static str,
        ino: Ino,
        work: W,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) where
        T: Send + 'static,
        W: Future<Output = Result<T>> + Send + 'static,
    {
        let (fs, deadline) = (Arc::clone(&self.fs), self.deadline);
        self.runtime.spawn(async move {
            let outcome = within(deadline, work).await;
            if let Err(error) = &outcome {
                log(operation, ino, error);
                fs.note(ino, error);
            }
            answer(outcome.map_err(|error| errno(&error)));
        });
    }

    /// Runs `work` that nobody waits for.
    pub fn detached(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }
}

/// Ends `work` with `TimedOut` when nothing moved for `deadline`.
async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let progress = Progress::default();
    tokio::select! {
        outcome = progress.scope(work) => outcome,
        () = standstill(&progress, deadline) => {
            Err(Error::new(ErrorKind::TimedOut, format!("nothing moved for {} s", deadline.as_secs_f32())))
        }
    }
}

async fn standstill(progress: &Progress, deadline: Duration) {
    let (mut seen, mut moved) = (progress.value(), Instant::now());
    loop {
        tokio::time::sleep_until(moved + deadline).await;
        let now = progress.value();
        if now == seen {
            return;
        }
        (seen, moved) = (now, Instant::now());
    }
}

fn log(operation: &'static str, ino: Ino, error: &Error) {
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::NoAttribute
        | ErrorKind::AlreadyExists
        | ErrorKind::NotEmpty
        | ErrorKind::AttributeBufferTooSmall => debug!(operation, ino = ino.0, %error),
        _ => warn!(operation, ino = ino.0, %error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_moves_may_take_long_and_work_that_stands_ends() {
        let deadline = Duration::from_secs(30);
        let moving = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                Progress::tick();
            }
            Ok(7)
        };
        assert_eq!(within(deadline, moving).await.unwrap(), 7);
        let standing = within(deadline, std::future::pending::<Result<()>>())
            .await
            .unwrap_err();
        assert_eq!(standing.kind(), ErrorKind::TimedOut);
    }
}
