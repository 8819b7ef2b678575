//! A disk that is full between the exchange and the save.

use std::sync::atomic::Ordering;

use keymount::auth::{Authenticator, CredentialState, GivenSecrets};
use secrecy::ExposeSecret;

use super::support::{HOUR, House, SECOND, eventually};

/// It is noticed before the old refresh token is used up.
#[tokio::test]
async fn a_full_disk_is_noticed_before_the_exchange() {
    let house = House::new().await;
    let client = house.ready().await;
    house.disk.full.store(true, Ordering::SeqCst);
    let error = client.refresh().await.unwrap_err();
    assert!(error.message().contains("could not be saved"), "{error}");
    assert_eq!(house.server.counts().token_calls, 1);
    client.read().await.unwrap();
    house.disk.full.store(false, Ordering::SeqCst);
    client.refresh().await.unwrap();
    assert_eq!(client.exchanges(), 2);
}

/// Full just then: this process goes on with what it has, nobody else can burn the old refresh token, and it is saved as
/// soon as that works.
#[tokio::test]
async fn a_grant_that_cannot_be_saved_is_not_lost() {
    let house = House::new().await;
    let client = house.ready().await;
    let kept = async || {
        let kept = house.keeper().read(&GivenSecrets::default()).await.unwrap();
        let refresh = kept.grant().unwrap().refresh.unwrap();
        refresh.expose_secret().to_owned()
    };
    let old = kept().await;
    house.disk.full.store(true, Ordering::SeqCst);
    house.disk.room.store(1, Ordering::SeqCst);
    client.refresh().await.unwrap();
    assert_eq!(client.exchanges(), 2);
    client.read().await.unwrap();
    assert_eq!(kept().await, old, "the old one, whole");
    // The turn is not given away.
    let turn = house.keeper().lock(std::time::Duration::ZERO).await;
    assert!(turn.is_err(), "another process could burn the old refresh token");
    // Renewing goes on, too.
    house.clock.advance(HOUR - 60 * SECOND);
    eventually("the third token", || client.exchanges() == 3).await;
    client.read().await.unwrap();
    house.disk.full.store(false, Ordering::SeqCst);
    let writes = house.disk.writes.load(Ordering::SeqCst);
    house.clock.advance(31 * SECOND);
    eventually("it is saved", || house.disk.writes.load(Ordering::SeqCst) > writes).await;
    assert_eq!(kept().await, house.server.refresh());
    let other = house.client().await;
    other.read().await.unwrap();
    assert_eq!(other.exchanges(), 0);
    other.refresh().await.unwrap();
    assert!(matches!(client.state(), CredentialState::Valid { .. }));
    assert_eq!(client.renewing.counts().failures, 0);
    assert_eq!(house.server.counts().reuses, 0);
}
