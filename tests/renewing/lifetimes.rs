//! Nobody waits while a token is valid.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use keymount::auth::{Authenticator, CredentialState};

use super::server::Fault;
use super::support::{HOUR, House, SECOND, eventually};

const LIFETIMES: u64 = 30;
const READERS: usize = 8;
const WRITERS: usize = 2;

/// Two more operations of each: the last of them began after this did.
async fn everybody_gets_on(done: &[AtomicU64], how: &str) {
    let seen: Vec<u64> = done.iter().map(|done| done.load(Ordering::Relaxed)).collect();
    eventually(&format!("everybody gets on {how}"), || {
        let mut both = done.iter().zip(&seen);
        both.all(|(done, seen)| done.load(Ordering::Relaxed) > seen + 1)
    })
    .await;
}

/// Tokens that live two seconds, and each exchange is held until everybody got on with the old token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_lifetimes_of_two_seconds_without_a_failure_or_a_wait() {
    let house = House::with_life(Some(2 * SECOND)).await;
    let client = Arc::new(house.ready().await);
    let (waits, before) = (client.renewing.counts().waits, client.exchanges());
    let stop = Arc::new(AtomicBool::new(false));
    let done: Arc<Vec<AtomicU64>> = Arc::new((0..READERS + WRITERS).map(|_| AtomicU64::new(0)).collect());
    let workers: Vec<_> = (0..READERS + WRITERS)
        .map(|number| {
            let (client, stop, done) = (Arc::clone(&client), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let outcome = if number < READERS {
                        client.read().await
                    } else {
                        client.write().await
                    };
                    outcome.unwrap_or_else(|error| panic!("worker {number}: {error:?}"));
                    done[number].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for lifetime in 1..=LIFETIMES {
        house.server.fault(Fault::Held);
        // Two thirds of a life, and the jitter is towards earlier: it is time to renew, and there is time left.
        house.clock.advance(Duration::from_millis(1400));
        eventually("the exchange begins", || *house.server.shared.held.borrow() == 1).await;
        assert!(matches!(client.state(), CredentialState::Renewing { until: Some(_) }));
        everybody_gets_on(&done, "while the exchange is under way").await;
        house.server.release();
        eventually("the next token", || {
            client.exchanges() == before + lifetime && client.is_valid()
        })
        .await;
        // Nothing is on its way with the old token when the clock jumps over its end.
        everybody_gets_on(&done, "with the new token").await;
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    let counts = client.renewing.counts();
    assert_eq!(counts.waits, waits, "somebody waited for a token");
    assert_eq!(counts.failures, 0);
    assert_eq!(house.server.counts().tokens, before + LIFETIMES);
    assert_eq!(house.server.counts().refused_files, 0);
}

/// An idle mount renews too: what is used next doesn't wait.
#[tokio::test]
async fn it_renews_before_the_end_without_being_used() {
    let house = House::new().await;
    let client = house.ready().await;
    assert_eq!(client.exchanges(), 1);
    // A tenth of an hour is six minutes, and some more by chance.
    house.clock.advance(HOUR - 7 * 60 * SECOND);
    tokio::task::yield_now().await;
    assert_eq!(client.exchanges(), 1, "too early");
    house.clock.advance(61 * SECOND);
    eventually("the second token", || client.exchanges() == 2).await;
    let waits = client.renewing.counts().waits;
    client.read().await.unwrap();
    assert_eq!(client.renewing.counts().waits, waits);
}

#[tokio::test]
async fn the_task_ends_with_the_credential() {
    let house = House::new().await;
    let client = house.ready().await;
    let exchange = Arc::downgrade(&client.exchange);
    drop(client);
    eventually("nothing of it is left", || exchange.upgrade().is_none()).await;
}

/// What was begun is finished: a new refresh token is not lost because the mount ends.
#[tokio::test]
async fn the_end_waits_for_an_exchange_and_keeps_what_it_gave() {
    let house = House::new().await;
    let client = house.ready().await;
    house.server.fault(Fault::Held);
    house.clock.advance(HOUR - 60 * SECOND);
    eventually("the exchange begins", || *house.server.shared.held.borrow() == 1).await;
    let closing = tokio::spawn({
        let renewing = Arc::clone(&client.renewing);
        async move { renewing.close().await }
    });
    tokio::task::yield_now().await;
    house.server.release();
    closing.await.unwrap();
    drop(client);
    let next = house.client().await;
    next.read().await.unwrap();
    assert_eq!(next.exchanges(), 0, "what was kept is used");
    assert_eq!(house.server.counts().reuses, 0);
}
