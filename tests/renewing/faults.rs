//! What a service that gives tokens may do wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keymount::auth::renewing::Clock;
use keymount::auth::{Authenticator, CredentialState};
use keymount::model::ErrorKind;

use super::server::Fault;
use super::support::{Client, HOUR, House, SECOND, eventually};

/// It is time to renew, and the token is valid for some minutes yet.
async fn due(house: &House, client: &Client) {
    let calls = house.server.counts().token_calls;
    house.clock.advance(HOUR - 5 * 60 * SECOND);
    eventually("the exchange begins", || house.server.counts().token_calls > calls).await;
    assert!(matches!(
        client.state(),
        CredentialState::Valid { .. } | CredentialState::Renewing { until: Some(_) }
    ));
}

async fn failures(client: &Client, wanted: u64) {
    eventually("the failure is counted", || {
        client.renewing.counts().failures == wanted && !matches!(client.state(), CredentialState::Renewing { .. })
    })
    .await;
}

#[tokio::test]
async fn an_answer_after_ten_seconds_bothers_nobody() {
    let house = House::new().await;
    let client = house.ready().await;
    let waits = client.renewing.counts().waits;
    house.server.fault(Fault::Held);
    due(&house, &client).await;
    house.clock.advance(10 * SECOND);
    for _ in 0..10 {
        client.read().await.unwrap();
    }
    house.server.release();
    eventually("the next token", || client.exchanges() == 2).await;
    assert_eq!(client.renewing.counts().waits, waits);
}

#[tokio::test]
async fn an_answer_after_ten_seconds_is_waited_for_when_the_token_is_over() {
    let house = House::new().await;
    let client = Arc::new(house.ready().await);
    house.server.fault(Fault::Held);
    house.clock.suspend(2 * HOUR);
    let reads: Vec<_> = (0..8)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.read().await })
        })
        .collect();
    eventually("the exchange begins", || *house.server.shared.held.borrow() == 1).await;
    house.clock.advance(10 * SECOND);
    house.server.release();
    for read in reads {
        read.await.unwrap().unwrap();
    }
    assert_eq!(client.exchanges(), 2);
}

#[tokio::test]
async fn an_answer_that_never_comes_ends_with_the_patience() {
    let house = House::new().await;
    let client = Arc::new(house.ready().await);
    house.server.fault(Fault::Held);
    house.clock.suspend(2 * HOUR);
    let read = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.read().await }
    });
    eventually("the exchange begins", || *house.server.shared.held.borrow() == 1).await;
    house.clock.advance(31 * SECOND);
    assert_eq!(read.await.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
}

/// Works, or says why not: while the token is valid nobody notices, and then it heals.
async fn passes(faults: &[Fault]) {
    let house = House::new().await;
    let client = house.ready().await;
    for fault in faults {
        house.server.fault(fault.clone());
    }
    due(&house, &client).await;
    for number in 1..=faults.len() as u64 {
        failures(&client, number).await;
        client.read().await.unwrap();
        // The longest pause of these attempts.
        house.clock.advance(32 * SECOND);
    }
    eventually("the next token", || client.exchanges() == 2).await;
    client.read().await.unwrap();
    assert_eq!(client.renewing.counts().failures, faults.len() as u64);
    assert_eq!(house.server.counts().refused_files, 0);
}

#[tokio::test]
async fn an_error_of_the_server_five_times_passes() {
    passes(&[500, 500, 502, 503, 500].map(Fault::Status)).await;
}

#[tokio::test]
async fn garbage_passes() {
    passes(&[Fault::Garbage]).await;
}

#[tokio::test]
async fn a_truncated_answer_passes() {
    passes(&[Fault::Truncated]).await;
}

#[tokio::test]
async fn a_panic_passes() {
    let house = House::new().await;
    let client = house.ready().await;
    client.exchange.panics.store(true, Ordering::Relaxed);
    house.clock.advance(HOUR - 5 * 60 * SECOND);
    failures(&client, 1).await;
    client.read().await.unwrap();
    house.clock.advance(2 * SECOND);
    eventually("the next token", || client.exchanges() == 2).await;
}

#[tokio::test]
async fn a_wait_that_the_service_asks_for_is_kept() {
    let house = House::new().await;
    let client = house.ready().await;
    house.server.fault(Fault::Busy(90));
    due(&house, &client).await;
    failures(&client, 1).await;
    let calls = house.server.counts().token_calls;
    for _ in 0..89 {
        house.clock.advance(SECOND);
        client.read().await.unwrap();
    }
    assert_eq!(house.server.counts().token_calls, calls, "asked too early");
    house.clock.advance(2 * SECOND);
    eventually("the next token", || client.exchanges() == 2).await;
}

/// Over, and the service is down: who has patience waits for the next attempt, who hasn't learns the reason at once.
#[tokio::test]
async fn without_a_token_the_reason_is_told() {
    let house = House::new().await;
    let client = Arc::new(house.ready().await);
    house.server.fault(Fault::Busy(3000));
    house.clock.suspend(2 * HOUR);
    let error = client.read().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::RateLimited { .. }), "{error:?}");
    assert_eq!(client.state(), CredentialState::Expired);
    let error = client.read().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::RateLimited { .. }), "{error:?}");
    house.clock.advance(2980 * SECOND);
    let read = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.read().await }
    });
    tokio::task::yield_now().await;
    house.clock.advance(21 * SECOND);
    read.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_token_without_a_life_is_used_until_it_is_rejected() {
    let house = House::new().await;
    house.server.fault(Fault::WithoutLife);
    let client = house.ready().await;
    assert_eq!(client.state(), CredentialState::Valid { until: None });
    house.clock.advance(1000 * HOUR);
    client.read().await.unwrap();
    assert_eq!(client.exchanges(), 1);
    house.server.expire();
    client.read().await.unwrap();
    assert_eq!(client.exchanges(), 2);
}

#[tokio::test]
async fn a_token_that_is_over_at_once_is_not_asked_for_without_end() {
    let house = House::with_life(Some(Duration::ZERO)).await;
    let client = house.client().await;
    let read = tokio::spawn(async move { client.read().await.map(|()| client) });
    eventually("the first attempt", || house.server.counts().token_calls == 1).await;
    for _ in 0..40 {
        house.clock.advance(SECOND);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(read.await.unwrap().is_err());
    let calls = house.server.counts().token_calls;
    assert!(calls <= 8, "{calls} calls in 40 s");
}

#[tokio::test]
async fn a_calendar_an_hour_ahead_renews_and_goes_on() {
    let house = House::new().await;
    let client = house.ready().await;
    house.clock.set_wall(house.clock.now().wall + HOUR);
    client.read().await.unwrap();
    eventually("another token", || client.exchanges() == 2).await;
    client.read().await.unwrap();
    assert!(client.is_valid());
    assert_eq!(client.exchanges(), 2);
    assert_eq!(house.server.counts().refused_files, 0);
}

#[tokio::test]
async fn a_calendar_an_hour_behind_makes_no_token_live_longer() {
    let house = House::new().await;
    let client = house.ready().await;
    house.clock.set_wall(house.clock.now().wall - HOUR);
    client.read().await.unwrap();
    assert_eq!(client.exchanges(), 1, "it is valid yet");
    house.clock.advance(HOUR);
    client.read().await.unwrap();
    assert_eq!(client.exchanges(), 2);
    assert_eq!(
        house.server.counts().refused_files,
        0,
        "nothing was sent with a token that is over"
    );
    // Another process finds a token from the future: it cannot live longer than in all.
    house.clock.set_wall(house.clock.now().wall - HOUR);
    let other = house.ready().await;
    assert_eq!(other.exchanges(), 0);
    house.clock.advance(HOUR);
    other.read().await.unwrap();
    assert_eq!(house.server.counts().refused_files, 0);
}

#[tokio::test]
async fn a_suspend_of_two_hours_is_noticed_at_the_first_use() {
    let house = House::new().await;
    let client = house.ready().await;
    house.clock.suspend(2 * HOUR);
    client.read().await.unwrap();
    assert_eq!(client.exchanges(), 2);
    assert_eq!(house.server.counts().refused_files, 0);
}

#[tokio::test]
async fn scopes_are_told_and_stay_when_they_are_not_repeated() {
    let house = House::new().await;
    house.server.scopes("files:read");
    let client = house.ready().await;
    assert_eq!(client.renewing.scopes().unwrap().to_string(), "files:read");
    let mut vitals = client.renewing.vitals();
    vitals.borrow_and_update();
    house.server.scopes("files:read files:write");
    client.refresh().await.unwrap();
    assert!(vitals.has_changed().unwrap());
    assert!(vitals.borrow().scopes.as_ref().unwrap().contains("files:write"));
}

/// Refresh tokens that never change: RFC 6749, 6, leaves it to the server.
#[tokio::test]
async fn a_service_without_rotation_works_too() {
    let house = House::new().await;
    house.server.stop_rotating();
    let client = house.ready().await;
    for round in 2..6 {
        house.server.expire();
        client.read().await.unwrap();
        assert_eq!(client.exchanges(), round);
    }
    assert_eq!(house.server.counts().reuses, 0);
}
