//! The store's changes as they are announced. It tells every edit that was made behind the mount's back, and no others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::broadcast::{Receiver, Sender};

use super::tree::{NodeId, Tree};
use super::{Change, ChangeFeed, Memory};
use crate::model::{Error, ErrorKind, ObjectKey, Result};

/// How many changes a listener may be behind.
const REMEMBERED: usize = 64;
/// How long a listener waits for the next one.
const WAIT: Duration = Duration::from_secs(30);

/// What is told to those who listen.
#[derive(Clone)]
pub(super) struct Announcements {
    edits: Sender<Result<Change, ErrorKind>>,
    /// How often somebody asked for the next change.
    asked: Arc<AtomicU64>,
}

impl Announcements {
    pub(super) fn new() -> Self {
        Self {
            edits: Sender::new(REMEMBERED),
            asked: Arc::default(),
        }
    }

    pub(super) fn tell(&self, news: Result<Change, ErrorKind>) {
        // Without listeners there is nobody to be told.
        let _ = self.edits.send(news);
    }

    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn listen(&self) -> Feed {
        Feed {
            edits: self.edits.subscribe(),
            asked: Arc::clone(&self.asked),
        }
    }
}

impl Memory {
    /// Tells those who listen that a directory is being changed.
    pub(super) fn announce(&self, tree: &Tree, directory: NodeId) {
        self.announcements.tell(Ok(Change::Within(self.key(tree, directory))));
    }

    /// Fails those who wait for changes now.
    pub fn fail_feeds(&self, kind: ErrorKind) {
        self.announcements.tell(Err(kind));
    }

    /// How often somebody has asked for changes.
    pub fn feed_requests(&self) -> u64 {
        self.announcements.asked()
    }
}

pub(super) struct Feed {
    edits: Receiver<Result<Change, ErrorKind>>,
    asked: Arc<AtomicU64>,
}

#[async_trait]
impl ChangeFeed for Feed {
    async fn next(&mut self, _: &[ObjectKey]) -> Result<Vec<Change>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let first = match tokio::time::timeout(WAIT, self.edits.recv()).await {
            Err(_) => return Ok(Vec::new()),
            Ok(Ok(Ok(change))) => change,
            Ok(Ok(Err(kind))) => return Err(Error::new(kind, "the store tells no changes just now")),
            Ok(Err(RecvError::Lagged(_))) => Change::Anywhere,
            Ok(Err(RecvError::Closed)) => return Err(Error::unsupported("the store is gone")),
        };
        let mut changes = vec![first];
        loop {
            match self.edits.try_recv() {
                Ok(Ok(change)) => changes.push(change),
                Ok(Err(_)) | Err(TryRecvError::Lagged(_)) => changes.push(Change::Anywhere),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(changes),
            }
        }
    }
}
