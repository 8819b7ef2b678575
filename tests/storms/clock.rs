//! Time that stands still until the test moves it, beside real connections.
//!
//! A paused clock of tokio's jumps whenever every task waits, also when it waits for a server on another thread. A
//! blocking task that lives as long as the clock keeps it from that.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use reqwest::Url;

/// In the addresses of requests that only find out whether the server is done.
pub const MARK: &str = "keeps-the-clock";

pub struct StoppedClock {
    client: reqwest::Client,
    mark: Url,
    /// Dropped, it ends the blocking task.
    _held: Sender<()>,
}

impl StoppedClock {
    /// Stops the time of this runtime, which has one thread. The server has one thread as well.
    pub fn stop(server: Url) -> Self {
        tokio::time::pause();
        let (held, released) = channel::<()>();
        tokio::task::spawn_blocking(move || released.recv());
        Self {
            client: reqwest::Client::new(),
            mark: server.join(MARK).unwrap(),
            _held: held,
        }
    }

    /// Waits until every task waits for time to pass: the server has written every answer that it had begun when it
    /// answers another one, and that has been read when the other one has.
    pub async fn settle(&self) {
        for _ in 0..4 {
            // What it answers is no matter.
            let _ = self.client.get(self.mark.clone()).send().await.unwrap().bytes().await;
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
    }

    pub async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }
}
