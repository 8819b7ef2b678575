//! A dead grant does not kill the mount and costs next to nothing.

use std::time::Duration;

use keymount::auth::{Authenticator, CredentialState, GivenSecrets};
use keymount::model::ErrorKind;

use super::support::{HOUR, House, HttpExchange, SECOND, client, eventually, lock_in, stored_in};

#[tokio::test]
async fn a_dead_grant_costs_at_most_four_calls_an_hour() {
    let house = House::new().await;
    let client = house.ready().await;
    house.server.revoke();
    let before = house.server.counts().token_calls;
    let error = client.read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsLogin);
    assert_eq!(client.state(), CredentialState::NeedsLogin);
    for second in 0..3600 {
        house.clock.advance(SECOND);
        let error = client.read().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NeedsLogin);
        assert!(error.message().ends_with("run: keymount login drive"), "{error}");
        if second == 60 * 35 {
            eventually("one probe after half an hour", || {
                house.server.counts().token_calls == before + 2
            })
            .await;
        }
    }
    let calls = house.server.counts().token_calls - before;
    assert!((2..=4).contains(&calls), "{calls} calls");
    // Nothing but the first request reached the provider.
    assert_eq!(house.server.counts().refused_files, 1);
}

#[tokio::test]
async fn a_login_elsewhere_heals_without_being_told() {
    let house = House::new().await;
    let client = house.ready().await;
    house.server.revoke();
    client.read().await.unwrap_err();
    house.server.grant();
    house.login().await;
    // Looked at no more than once a second.
    house.clock.advance(SECOND);
    client.read().await.unwrap();
    assert!(client.is_valid());
}

#[tokio::test]
async fn a_login_elsewhere_heals_an_idle_mount() {
    let house = House::new().await;
    let client = house.ready().await;
    let mut vitals = client.renewing.vitals();
    house.server.revoke();
    client.read().await.unwrap_err();
    assert!(!vitals.borrow_and_update().usable);
    house.server.grant();
    house.login().await;
    house.clock.advance(5 * SECOND);
    vitals.wait_for(|vitals| vitals.usable).await.unwrap();
}

#[tokio::test]
async fn a_token_that_still_works_is_used_although_its_grant_is_dead() {
    let house = House::new().await;
    let client = house.ready().await;
    house.server.fault(super::server::Fault::InvalidGrant);
    house.clock.advance(HOUR - 60 * SECOND);
    client.becomes(CredentialState::NeedsLogin).await;
    client.read().await.unwrap();
    house.clock.advance(60 * SECOND);
    assert_eq!(client.read().await.unwrap_err().kind(), ErrorKind::NeedsLogin);
}

#[tokio::test]
async fn a_logout_elsewhere_is_noticed_at_the_refresh() {
    let house = House::new().await;
    let client = house.ready().await;
    let taken = house.keeper().take(&GivenSecrets::default(), SECOND).await.unwrap();
    assert!(taken.unwrap().refresh.is_some(), "it can be given back");
    let error = client.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsLogin);
    assert_eq!(client.state(), CredentialState::NeedsLogin);
    let error = client.read().await.unwrap_err();
    assert!(error.message().contains("keymount login drive"), "{error}");
    house.login().await;
    client.refresh().await.unwrap();
    client.read().await.unwrap();
}

#[tokio::test]
async fn without_a_grant_nobody_is_asked() {
    let house = House::new().await;
    let empty = tempfile::tempdir().unwrap();
    let keeper = keymount::auth::renewing::Keeper::new(stored_in(empty.path()), lock_in(empty.path()));
    let clock = std::sync::Arc::new(house.clock.clone());
    let base = &house.server.base;
    let client = client(base, HttpExchange::new(base), Some(keeper), clock)
        .await
        .unwrap();
    let error = client.read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsLogin);
    assert!(error.message().contains("keymount login drive"), "{error}");
    assert_eq!(house.server.counts().token_calls, 0);
}

#[tokio::test]
async fn a_refresh_renews_now() {
    let house = House::new().await;
    let client = house.ready().await;
    client.refresh().await.unwrap();
    assert_eq!(client.exchanges(), 2);
    house.clock.advance(Duration::from_secs(1));
    client.refresh().await.unwrap();
    assert_eq!(client.exchanges(), 3);
    client.read().await.unwrap();
}
