//! What a token is got with may change.

use keymount::auth::Authenticator;
use keymount::model::ErrorKind;

use super::support::{House, HttpExchange};

#[tokio::test]
async fn a_token_that_was_got_with_something_else_is_not_used() {
    let house = House::new().await;
    house.ready().await;
    let other = HttpExchange::new(&house.server.base);
    *other.basis.lock() = "another application".into();
    let client = house.client_with(other).await;
    let error = client.read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsLogin);
    assert_eq!(house.server.counts().tokens, 1, "its refresh token is not used either");
}

#[tokio::test]
async fn a_damaged_grant_is_like_none_and_a_good_one_in_memory_takes_its_place() {
    let house = House::new().await;
    let client = house.ready().await;
    let none = keymount::auth::GivenSecrets::default();
    house.disk.stored.put(&"{\"form\":1,".into(), &none).await.unwrap();
    let other = house.client().await;
    assert_eq!(other.read().await.unwrap_err().kind(), ErrorKind::NeedsLogin);
    client.refresh().await.unwrap();
    client.read().await.unwrap();
    assert!(house.keeper().read(&none).await.unwrap().grant().is_some());
    assert_eq!(house.server.counts().reuses, 0);
}

#[tokio::test]
async fn without_a_store_it_is_kept_in_memory_only() {
    let house = House::new().await;
    house.server.stop_rotating();
    let clock = std::sync::Arc::new(house.clock.clone());
    let base = &house.server.base;
    let client = super::support::client(base, HttpExchange::new(base), None, clock)
        .await
        .unwrap();
    assert_eq!(
        client.read().await.unwrap_err().kind(),
        ErrorKind::NeedsLogin,
        "no grant"
    );
    assert_eq!(client.renewing.method(), "oauth");
}
