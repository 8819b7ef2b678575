//! The dashboard's API for keys, asked with a session.

use std::sync::Arc;

use keymount::api::{Api, PlainHttp};
use keymount::auth::{GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};
use keymount::emulator::storra::{Assumptions, Plan};
use keymount::model::ErrorKind;
use keymount::net::Transport;
use keymount::provider::Provider;
use keymount::provider::keys::{CurrentKey, KeyGrants, KeyManager, KeyRequest};
use keymount::provider::storra::{DashboardKeys, KeyItself, Storra};
use secrecy::ExposeSecret;

use super::support::{api, client, impatient, settings};
use super::{Bench, kind};

async fn dashboard(bench: &Bench, cookie: &str) -> DashboardKeys {
    let mut given = GivenSecrets::default();
    given.insert("COOKIE", cookie.into());
    let header = TokenPlacement::Header("cookie".parse().unwrap());
    let source = SecretSource::Env("COOKIE".into());
    let session = StaticToken::open(source, header, TokenKind::TOKEN, given)
        .await
        .unwrap();
    let transport = Transport::new(impatient()).unwrap();
    let url = bench.running.url();
    let api = Api::new(
        url,
        PlainHttp::LoopbackOnly,
        transport,
        Arc::new(session),
        Storra::dialect(),
    );
    DashboardKeys::new(Arc::new(api.unwrap()))
}

fn request(name: &str) -> KeyRequest {
    KeyRequest {
        name: name.to_owned(),
        grants: KeyGrants::Everything,
        expires: None,
        idle_limit: None,
        addresses: Vec::new(),
    }
}

#[tokio::test]
async fn keys_are_made_listed_used_and_revoked() {
    let bench = Bench::new(Assumptions::default()).await;
    let keys = dashboard(&bench, &bench.account.open_session()).await;
    let made = keys.create(&request("desktop")).await.unwrap();
    let secret = made.secret.expose_secret().to_owned();
    assert_eq!(
        (made.info.name.as_str(), made.info.id.as_str()),
        ("desktop", &secret[..11])
    );
    assert!(!format!("{made:?}").contains(&secret));
    let names =
        |infos: Vec<keymount::provider::keys::KeyInfo>| infos.into_iter().map(|key| key.name).collect::<Vec<_>>();
    assert_eq!(names(keys.list().await.unwrap()), ["laptop", "desktop"]);
    let desktop = client(&bench.running.url(), &secret, settings("")).await;
    desktop.probe().await.unwrap();
    let own = KeyItself::new(Arc::new(api(&bench.running.url(), &secret, impatient()).await));
    let CurrentKey::Told(current) = own.current().await.unwrap() else {
        panic!("a key knows its first characters")
    };
    assert_eq!(current.id, made.info.id);
    assert_eq!(kind(&own.list().await), Some(ErrorKind::Unsupported));
    let shown = keys.show("desktop").await.unwrap();
    assert!(shown.last_used.is_some());
    keys.revoke(&shown.id).await.unwrap();
    assert_eq!(kind(&desktop.probe().await), Some(ErrorKind::NeedsLogin));
    assert_eq!(kind(&own.current().await), Some(ErrorKind::NeedsLogin));
    assert_eq!(kind(&keys.revoke(&shown.id).await), Some(ErrorKind::NotFound));
    assert_eq!(names(keys.list().await.unwrap()), ["laptop"]);
}

#[tokio::test]
async fn a_session_that_ended_says_where_to_log_in() {
    let bench = Bench::new(Assumptions::default()).await;
    let cookie = bench.account.open_session();
    let keys = dashboard(&bench, &cookie).await;
    assert_eq!(keys.current().await.unwrap(), CurrentKey::Untold);
    bench.account.end_session(&cookie);
    let revoked = keys.revoke("sk_00000000").await.map(|()| unreachable!());
    for error in [
        keys.list().await.unwrap_err(),
        keys.create(&request("x")).await.unwrap_err(),
        revoked.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NeedsLogin);
        let words = format!("{}dashboard/login", bench.running.url());
        assert!(error.message().contains(&words), "{error}");
        assert!(error.message().contains("keymount login REMOTE --keys"), "{error}");
        assert!(!format!("{error:?}").contains(&cookie), "{error:?}");
    }
}

#[tokio::test]
async fn the_dashboards_own_words_are_passed_on() {
    let bench = Bench::new(Assumptions::default()).await;
    let keys = dashboard(&bench, &bench.account.open_session()).await;
    let refused = keys.create(&request(&"x".repeat(500))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.message().contains("Label must have"), "{refused}");
    bench.account.set_plan(Plan::Free);
    let refused = keys.create(&request("x")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotPermitted);
    assert!(
        refused.message().contains("upgrade at /dashboard/settings"),
        "{refused}"
    );
}
