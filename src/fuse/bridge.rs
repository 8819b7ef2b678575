//! From a kernel request to a task: every operation is spawned, has a deadline, and is answered once.
//!
//! A panic ends only the operation it happens in.

use std::ffi::OsString;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use fuser::Errno;
use futures_util::FutureExt;
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

    /// Runs `work` that changes nothing at the provider and answers with what came of it. At the deadline it is dropped.
    ///
    /// As far as it gets without waiting, the thread that read the request does it, and no other one has to be woken.
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
        let progress = Progress::default();
        let mut work = Box::pin(guarded(progress.clone(), work));
        match self.poll(&mut work) {
            Some(outcome) => {
                report(&self.fs, operation, ino, &outcome);
                answer(outcome.map_err(|error| errno(&error)));
            }
            None => self.spawn(operation, ino, progress, work, answer),
        }
    }

    fn spawn<T, W>(
        &self,
        operation: &'static str,
        ino: Ino,
        progress: Progress,
        work: W,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) where
        T: Send + 'static,
        W: Future<Output = Result<T>> + Send + 'static,
    {
        let (fs, deadline) = (Arc::clone(&self.fs), self.deadline);
        self.runtime.spawn(async move {
            let outcome = tokio::select! {
                outcome = work => outcome,
                error = standstill(&progress, deadline) => {
                    fs.no_answer();
                    Err(error)
                }
            };
            report(&fs, operation, ino, &outcome);
            answer(outcome.map_err(|error| errno(&error)));
        });
    }

    /// As `answer`, for work that may change something at the provider: it isn't broken off in the middle when the
    /// deadline is answered, because what is known here would then differ from what the provider has. It goes on as long
    /// as something moves, and for nearly another deadline if nothing does; what comes of it then is dropped.
    pub fn change<T, W>(
        &self,
        operation: &'static str,
        ino: Ino,
        work: W,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) where
        T: Send + 'static,
        W: Future<Output = Result<T>> + Send + 'static,
    {
        self.change_names(operation, ino, Vec::new(), work, answer);
    }

    /// As `change`, for work that makes these names or takes them away. The kernel, which acts on the answer alone, is to
    /// ask for them again when the outcome is another than the answer, or isn't known.
    pub fn change_names<T, W>(
        &self,
        operation: &'static str,
        ino: Ino,
        names: Vec<(Ino, OsString)>,
        work: W,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) where
        T: Send + 'static,
        W: Future<Output = Result<T>> + Send + 'static,
    {
        let (fs, deadline) = (Arc::clone(&self.fs), self.deadline);
        let progress = Progress::default();
        // As far as it gets without waiting, on this thread, as `answer` does.
        let mut work = Box::pin(guarded(progress.clone(), work));
        let at_once = self.poll(&mut work);
        let of = Arc::clone(&fs);
        let finish = move |outcome: Result<T>| {
            report(&fs, operation, ino, &outcome);
            let unknown = outcome.as_ref().err().is_some_and(|error| {
                let kind = error.kind();
                matches!(kind, ErrorKind::TimedOut | ErrorKind::Unreachable | ErrorKind::Internal)
            });
            answer(outcome.map_err(|error| errno(&error)));
            (fs, unknown)
        };
        if let Some(outcome) = at_once {
            let (fs, unknown) = finish(outcome);
            if unknown {
                let _within = self.runtime.enter();
                fs.forget_names(names);
            }
            return;
        }
        self.runtime.spawn(async move {
            let (outcome, over) = tokio::select! {
                outcome = work.as_mut() => (outcome, true),
                error = standstill(&progress, deadline) => (Err(error), false),
            };
            if !over {
                // As soon as it is answered: what comes of it is not known before the end.
                of.forget_names(names.clone());
            }
            let (fs, unknown) = finish(outcome);
            if !over {
                tokio::select! {
                    outcome = work => report(&fs, operation, ino, &outcome),
                    // Before those who began to wait for it at the answer give up.
                    _ = standstill(&progress, deadline * 3 / 4) => {}
                }
            }
            if unknown {
                fs.forget_names(names);
            }
        });
    }

    /// What comes of work that doesn't have to wait.
    fn poll<T>(&self, work: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        // It may start tasks.
        let _within = self.runtime.enter();
        work.now_or_never()
    }

    /// Runs `work` that nobody waits for.
    pub fn detached(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }
}

/// The work with its counter; a panic in it is a failure like others.
async fn guarded<T>(progress: Progress, work: impl Future<Output = Result<T>>) -> Result<T> {
    match AssertUnwindSafe(progress.scope(work)).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::internal(
            "keymount failed inside; this is a defect, please report it with the log",
        )),
    }
}

/// Ends with an error when nothing moved for `deadline`.
async fn standstill(progress: &Progress, deadline: Duration) -> Error {
    let (mut seen, mut moved) = (progress.value(), Instant::now());
    loop {
        tokio::time::sleep_until(moved + deadline).await;
        let now = progress.value();
        if now == seen {
            let message = format!("nothing moved for {} s", deadline.as_secs_f32());
            return Error::new(ErrorKind::TimedOut, message);
        }
        (seen, moved) = (now, Instant::now());
    }
}

fn report<T>(fs: &FileSystem, operation: &'static str, ino: Ino, outcome: &Result<T>) {
    if let Err(error) = outcome {
        log(operation, ino, error);
        fs.note(ino, error);
    }
}

fn log(operation: &'static str, ino: Ino, error: &Error) {
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::NoAttribute
        | ErrorKind::AlreadyExists
        | ErrorKind::NotEmpty
        | ErrorKind::NotPermitted
        | ErrorKind::AttributeBufferTooSmall => debug!(operation, ino = ino.0, %error),
        _ => warn!(operation, ino = ino.0, %error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_moves_may_take_long_and_work_that_stands_ends() {
        let (deadline, progress) = (Duration::from_secs(30), Progress::default());
        let moving = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                Progress::tick();
            }
            Ok(7)
        };
        let first = tokio::select! {
            outcome = guarded(progress.clone(), moving) => outcome,
            error = standstill(&progress, deadline) => Err(error),
        };
        assert_eq!(first.unwrap(), 7);
        let start = Instant::now();
        assert_eq!(standstill(&progress, deadline).await.kind(), ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), deadline);
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let work = async { panic!("a defect") };
        let outcome: Result<()> = guarded(Progress::default(), work).await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Internal);
    }
}
