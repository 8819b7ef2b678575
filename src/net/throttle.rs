//! Lets bytes through no faster than they may move: one bucket of tokens for each direction, shared by all transfers.
//!
//! It counts what is in bodies. Requests' and answers' heads, and small bodies that are sent in one piece, go by freely.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::{Bandwidth, Progress, Result};

/// How much may go at once after a pause, as the time in which it would go.
const BURST: Duration = Duration::from_millis(250);
/// How long somebody waits at most before a sign of life. Also what a piece of an upload takes.
const SLICE: Duration = Duration::from_millis(100);

/// The limits of one transport.
#[derive(Debug)]
pub(super) struct Throttle {
    up: Option<Bucket>,
    down: Option<Bucket>,
}

/// First come, first served.
#[derive(Debug)]
struct Bucket {
    /// Bytes a second.
    rate: NonZeroU64,
    /// When everything that was let through so far has had its time.
    paid_until: Mutex<Instant>,
}

impl Throttle {
    /// `None` without a limit.
    pub(super) fn new(bandwidth: Bandwidth) -> Option<Self> {
        let bucket = |rate: NonZeroU64| Bucket {
            rate,
            paid_until: Mutex::new(Instant::now()),
        };
        let limited = bandwidth.up.is_some() || bandwidth.down.is_some();
        limited.then(|| Self {
            up: bandwidth.up.map(bucket),
            down: bandwidth.down.map(bucket),
        })
    }

    /// Bytes on their way to the provider, in small pieces, so that the way there moves all the time.
    pub(super) fn upload(
        self: std::sync::Arc<Self>,
        body: BoxStream<'static, Result<Bytes>>,
    ) -> BoxStream<'static, Result<Bytes>> {
        let Some(most) = self.up.as_ref().map(Bucket::piece) else {
            return body;
        };
        body.flat_map(move |chunk| match chunk {
            Ok(bytes) => stream::iter(pieces(bytes, most)).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        })
        .then(move |piece| {
            let throttle = std::sync::Arc::clone(&self);
            async move {
                if let (Ok(bytes), Some(bucket)) = (&piece, &throttle.up) {
                    bucket.pass(bytes.len()).await;
                }
                piece
            }
        })
        .boxed()
    }

    pub(super) fn limits_uploads(&self) -> bool {
        self.up.is_some()
    }

    /// Waits until so many bytes that came from the provider may go on. Whoever sends is slowed by that.
    pub(super) async fn downloaded(&self, bytes: usize) {
        if let Some(bucket) = &self.down {
            bucket.pass(bytes).await;
        }
    }
}

fn pieces(bytes: Bytes, most: usize) -> Vec<Result<Bytes>> {
    let mut left = bytes;
    let mut pieces = Vec::with_capacity(left.len() / most + 1);
    while left.len() > most {
        pieces.push(Ok(left.split_to(most)));
    }
    pieces.push(Ok(left));
    pieces
}

impl Bucket {
    /// The most bytes that go in one piece.
    fn piece(&self) -> usize {
        let bytes = self.rate.get().saturating_mul(SLICE.as_millis() as u64) / 1000;
        usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
    }

    /// Waits for the turn of so many bytes, with signs of life: waiting here is no standstill.
    async fn pass(&self, bytes: usize) {
        let nanoseconds = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.rate.get());
        let time = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let until = {
            let mut paid_until = self.paid_until.lock();
            *paid_until = (*paid_until).max(Instant::now()) + time;
            *paid_until
        };
        loop {
            let wait = until.saturating_duration_since(Instant::now()).saturating_sub(BURST);
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait.min(SLICE)).await;
            Progress::tick();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const RATE: u64 = 10_000;

    fn throttle(up: Option<u64>, down: Option<u64>) -> Arc<Throttle> {
        let rate = |bytes: u64| NonZeroU64::new(bytes).unwrap();
        let bandwidth = Bandwidth {
            up: up.map(rate),
            down: down.map(rate),
        };
        Arc::new(Throttle::new(bandwidth).unwrap())
    }

    /// What is over the time that so many bytes take, the first burst taken off.
    fn beyond(start: Instant, bytes: u64) -> Duration {
        let due = Duration::from_nanos(bytes * 1_000_000_000 / RATE) - BURST;
        (start.elapsed()).checked_sub(due).expect("bytes went too fast")
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time_however_many_transfers_there_are() {
        let throttle = throttle(None, Some(RATE));
        let start = Instant::now();
        let transfers = (0..8).map(|number| {
            let throttle = Arc::clone(&throttle);
            tokio::spawn(async move {
                for _ in 0..25 {
                    throttle.downloaded(100 + number).await;
                }
            })
        });
        for transfer in transfers.collect::<Vec<_>>() {
            transfer.await.unwrap();
        }
        let bytes = (0..8).map(|number| 25 * (100 + number)).sum();
        assert!(beyond(start, bytes) < SLICE, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_earns_no_more_than_a_burst() {
        let throttle = throttle(None, Some(RATE));
        throttle.downloaded(1000).await;
        tokio::time::advance(Duration::from_secs(3600)).await;
        let start = Instant::now();
        throttle.downloaded(20_000).await;
        assert!(beyond(start, 20_000) < SLICE, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_moves_in_small_pieces_and_arrives_whole() {
        let throttle = throttle(Some(RATE), None);
        let sent: Vec<u8> = (0..30_001u32).map(|number| number as u8).collect();
        let chunks = [
            Ok(Bytes::from(sent[..10].to_vec())),
            Ok(Bytes::from(sent[10..].to_vec())),
        ];
        let start = Instant::now();
        let mut body = Arc::clone(&throttle).upload(stream::iter(chunks).boxed());
        let mut arrived = Vec::new();
        while let Some(piece) = body.next().await {
            let piece = piece.unwrap();
            assert!(piece.len() as u64 <= RATE / 10, "{} bytes at once", piece.len());
            arrived.extend_from_slice(&piece);
        }
        assert_eq!(arrived, sent);
        assert!(beyond(start, sent.len() as u64) < SLICE, "{:?}", start.elapsed());
        let start = Instant::now();
        throttle.downloaded(1 << 30).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "the other direction is free");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_turn_shows_signs_of_life() {
        let throttle = throttle(None, Some(1));
        let progress = Progress::default();
        progress.scope(throttle.downloaded(60)).await;
        assert!(progress.value() >= 500, "{}", progress.value());
    }

    #[test]
    fn without_a_limit_there_is_no_bucket() {
        assert!(Throttle::new(Bandwidth::default()).is_none());
    }
}
