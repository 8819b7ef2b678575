//! A rejection names the token that was used, and leads to one exchange at most.

use std::sync::Arc;

use keymount::auth::{AfterRejection, Authenticator, CredentialState};

use super::server::Fault;
use super::support::{House, SECOND, eventually};

#[tokio::test]
async fn many_rejections_at_once_cause_one_exchange() {
    let house = House::new().await;
    let client = Arc::new(house.ready().await);
    let used = client.renewing.present().await.unwrap().generation;
    house.server.expire();
    let all = (0..64).map(|_| client.renewing.rejected(used));
    for after in futures_util::future::join_all(all).await {
        assert_eq!(after, AfterRejection::TryAgain);
    }
    assert_eq!(client.exchanges(), 2);
    assert_eq!(client.renewing.rejected(used).await, AfterRejection::TryAgain, "late");
    assert_eq!(client.exchanges(), 2);
    client.read().await.unwrap();
}

#[tokio::test]
async fn a_request_with_a_revoked_token_is_made_again() {
    let house = House::new().await;
    let client = house.ready().await;
    for round in 1..4 {
        house.server.expire();
        client.read().await.unwrap();
        assert_eq!(client.exchanges(), 1 + round);
    }
}

#[tokio::test]
async fn a_token_rejected_right_after_its_exchange_is_not_exchanged_again() {
    let house = House::new().await;
    let client = house.ready().await;
    for _ in 0..5 {
        // Whatever the service gives, the provider refuses it.
        let used = client.renewing.present().await.unwrap().generation;
        client.renewing.rejected(used).await;
    }
    assert_eq!(client.state(), CredentialState::Rejected);
    assert_eq!(client.exchanges(), 2);
    let used = client.renewing.present().await.unwrap().generation;
    assert_eq!(client.renewing.rejected(used).await, AfterRejection::GiveUp);
    // The provider changes its mind.
    client.read().await.unwrap();
    assert!(client.is_valid());
}

#[tokio::test]
async fn rejected_processes_do_not_drive_each_other() {
    let house = House::new().await;
    let clients = [house.ready().await, house.ready().await];
    let before = house.server.counts().token_calls;
    for _ in 0..10 {
        for client in &clients {
            let used = client.renewing.present().await.unwrap().generation;
            client.renewing.rejected(used).await;
        }
        house.clock.advance(2 * SECOND);
    }
    assert_eq!(house.server.counts().token_calls, before + 1);
    assert!(clients.iter().all(|client| client.state() == CredentialState::Rejected));
}

#[tokio::test]
async fn another_process_has_renewed_already() {
    let house = House::new().await;
    let (one, other) = (house.ready().await, house.ready().await);
    house.server.expire();
    one.read().await.unwrap();
    other.read().await.unwrap();
    assert_eq!((one.exchanges(), other.exchanges()), (2, 0));
    assert_eq!(other.renewing.counts().adoptions, 1);
    assert_eq!(house.server.counts().reuses, 0);
}

/// When the service fails for now, the reason is told and not the rejection.
#[tokio::test]
async fn a_rejection_while_the_service_is_down_tells_the_reason() {
    let house = House::new().await;
    let client = house.ready().await;
    house.server.expire();
    house.server.fault(Fault::Busy(600));
    let error = client.read().await.unwrap_err();
    assert!(
        matches!(error.kind(), keymount::model::ErrorKind::RateLimited { .. }),
        "{error:?}"
    );
    assert_eq!(client.state(), CredentialState::Expired);
    house.clock.advance(600 * SECOND);
    eventually("it works again", || client.is_valid()).await;
    client.read().await.unwrap();
}
