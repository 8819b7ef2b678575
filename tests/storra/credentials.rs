//! Each way in which a key is refused has its own sentence with its repair.

use std::sync::Arc;

use keymount::api::{Api, PlainHttp};
use keymount::auth::{Anonymous, Authenticator, GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};
use keymount::emulator::storra::{Assumptions, Plan};
use keymount::model::ErrorKind;
use keymount::net::Transport;
use keymount::provider::Provider;
use keymount::provider::storra::Storra;

use super::support::{client, impatient, settings};
use super::{Bench, kind, root};

fn client_of(bench: &Bench, authenticator: Arc<dyn Authenticator>) -> Storra {
    let transport = Transport::new(impatient()).unwrap();
    let url = bench.running.url();
    let api = Api::new(
        url,
        PlainHttp::LoopbackOnly,
        transport,
        authenticator,
        Storra::dialect(),
    )
    .unwrap();
    Storra::new(Arc::new(api), settings(""))
}

#[tokio::test]
async fn a_key_that_nobody_has() {
    let bench = Bench::new(Assumptions::default()).await;
    let key = "sk_canary471108154711";
    let error = client(&bench.running.url(), key, settings(""))
        .await
        .probe()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsLogin);
    assert!(error.message().contains("wrong or was revoked"), "{error}");
    assert!(error.message().contains("keymount login"), "{error}");
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
}

#[tokio::test]
async fn a_key_that_was_revoked() {
    let bench = Bench::new(Assumptions::default()).await;
    bench.storra.probe().await.unwrap();
    assert!(bench.account.revoke_key(&bench.key));
    for error in [
        bench.storra.probe().await.unwrap_err(),
        bench.storra.list(&root()).await.unwrap_err(),
        bench.put("file", b"x").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NeedsLogin);
        assert!(error.message().contains("wrong or was revoked"), "{error}");
    }
}

#[tokio::test]
async fn no_key_at_all() {
    let bench = Bench::new(Assumptions::default()).await;
    let error = client_of(&bench, Arc::new(Anonymous)).probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsLogin);
    assert!(error.message().contains("X-API-Key"), "{error}");
}

#[tokio::test]
async fn an_account_without_cloud_pro() {
    let bench = Bench::new(Assumptions::default()).await;
    bench.account.set_plan(Plan::Free);
    let error = bench.storra.probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.message().contains("upgrade at /dashboard/settings"), "{error}");
    bench.account.set_plan(Plan::Pro);
    bench.storra.probe().await.unwrap();
}

/// Staged files must not end in another account.
#[tokio::test]
async fn a_key_of_another_account_is_not_taken_in_its_place() {
    let bench = Bench::new(Assumptions::default()).await;
    let other = bench.store.add_account("other@example.com").create_key("other");
    let given = |key: &str| {
        let mut given = GivenSecrets::default();
        given.insert("KEY", key.into());
        given
    };
    let header = TokenPlacement::Header(Storra::KEY_HEADER.parse().unwrap());
    let source = SecretSource::Env("KEY".into());
    let token = StaticToken::open(source, header, TokenKind::API_KEY, given(&bench.key))
        .await
        .unwrap();
    let token = Arc::new(token);
    let storra = client_of(&bench, Arc::clone(&token) as Arc<dyn Authenticator>);
    storra.probe().await.unwrap();
    let identity = storra.identity();
    token.refresh(&given(&other)).await.unwrap();
    let refused = storra.probe().await;
    assert_eq!(kind(&refused), Some(ErrorKind::Denied));
    assert_eq!(storra.identity(), identity);
    let second = client(&bench.running.url(), &other, settings("")).await;
    second.probe().await.unwrap();
    assert_ne!(second.identity(), identity, "two accounts share no cache");
}

#[tokio::test]
async fn the_key_in_use_is_told_by_what_the_dashboard_shows_of_it() {
    let bench = Bench::new(Assumptions::default()).await;
    let key = bench.storra.current_key().unwrap();
    assert_eq!(key.id, bench.account.keys()[0].prefix);
    assert_eq!(key.id, bench.key[..11]);
    assert!(!format!("{key:?} {}", bench.storra.identity()).contains(&bench.key));
}
