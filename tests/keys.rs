//! Keys at ReductStore, in the words of the contract: against the real server, and against a stand-in for the servers of
//! the first versions.

#![allow(clippy::unwrap_used, reason = "a helper that fails ends the test")]

#[path = "support/program.rs"]
mod program;
#[path = "support/reductstore.rs"]
mod server;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keymount::api::{Api, PlainHttp};
use keymount::auth::{GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};
use keymount::emulator::reductstore::{Auth, Options, Permissions, ROOT_TOKEN, ReductStore as StandIn, TokenApi};
use keymount::emulator::{Fault, Rule};
use keymount::model::{ErrorKind, Result};
use keymount::net::{Transport, TransportSettings};
use keymount::provider::Provider;
use keymount::provider::keys::{CurrentKey, KeyGrants, KeyInfo, KeyManager, KeyOrigin, KeyRequest, KeyStanding};
use keymount::provider::reductstore::{ReductStore, Settings, Tokens};
use reqwest::Method;
use secrecy::ExposeSecret;
use server::{ReductServer, TOKEN};

async fn api(endpoint: &str, token: &str) -> Arc<Api> {
    let mut given = GivenSecrets::default();
    given.insert("T", token.into());
    let token = StaticToken::open(
        SecretSource::Env("T".into()),
        TokenPlacement::Bearer,
        TokenKind::TOKEN,
        given,
    )
    .await
    .unwrap();
    let transport = Transport::new(TransportSettings::within(Duration::from_secs(10))).unwrap();
    let endpoint = endpoint.parse().unwrap();
    let dialect = ReductStore::dialect();
    Arc::new(Api::new(endpoint, PlainHttp::LoopbackOnly, transport, Arc::new(token), dialect).unwrap())
}

async fn keys(endpoint: &str, token: &str) -> Tokens {
    Tokens::new(api(endpoint, token).await)
}

fn buckets(read: &[&str], write: &[&str]) -> KeyGrants {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    KeyGrants::buckets(owned(read), owned(write))
}

fn request(name: &str, grants: KeyGrants) -> KeyRequest {
    KeyRequest {
        name: name.into(),
        grants,
        expires: None,
        idle_limit: None,
        addresses: Vec::new(),
    }
}

fn kind<T>(outcome: Result<T>) -> ErrorKind {
    outcome.map(drop).unwrap_err().kind()
}

fn told(current: CurrentKey) -> KeyInfo {
    match current {
        CurrentKey::Told(key) => key,
        CurrentKey::Untold => panic!("the server tells it"),
    }
}

#[tokio::test]
async fn the_whole_life_of_a_key() {
    let server = ReductServer::start(&[]);
    let root = keys(&server.endpoint(), TOKEN).await;
    let listed = root.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].name.as_str(), listed[0].origin),
        (ROOT_TOKEN, KeyOrigin::Settings)
    );
    assert_eq!(kind(root.revoke(ROOT_TOKEN).await), ErrorKind::NotPermitted);

    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    for name in ["laptop", "two words", "a/b", "e?#%\\'"] {
        let wanted = KeyRequest {
            expires: Some(until),
            idle_limit: Some(Duration::from_secs(3600)),
            addresses: vec!["127.0.0.1".into(), "10.0.0.0/8".into()],
            ..request(name, buckets(&["b", "logs-*"], &["b"]))
        };
        let made = root.create(&wanted).await.unwrap();
        let key = keys(&server.endpoint(), made.secret.expose_secret()).await;
        let own = told(key.current().await.unwrap());
        assert_eq!(own, root.show(name).await.unwrap());
        assert_eq!((own.name.as_str(), own.grants.as_ref()), (name, Some(&wanted.grants)));
        assert_eq!((own.expires, own.idle_limit), (wanted.expires, wanted.idle_limit));
        assert_eq!(own.addresses, wanted.addresses);
        assert_eq!((own.standing, own.origin), (KeyStanding::Usable, KeyOrigin::Api));
        assert!(own.life().is_some());

        assert_eq!(kind(root.create(&wanted).await), ErrorKind::AlreadyExists);
        assert_eq!(kind(key.list().await), ErrorKind::Denied);
        assert_eq!(
            kind(key.create(&request("more", KeyGrants::Everything)).await),
            ErrorKind::Denied
        );
        assert_eq!(kind(key.revoke(name).await), ErrorKind::Denied);
        root.revoke(name).await.unwrap();
        assert_eq!(kind(key.current().await), ErrorKind::NeedsLogin);
        assert_eq!(kind(root.revoke(name).await), ErrorKind::NotFound);
        assert_eq!(kind(root.show(name).await), ErrorKind::NotFound);
    }
    let full = root.create(&request("full", KeyGrants::Everything)).await.unwrap();
    let full = keys(&server.endpoint(), full.secret.expose_secret()).await;
    assert_eq!(full.list().await.unwrap().len(), 2);
    full.revoke("full").await.unwrap();
}

#[tokio::test]
async fn what_the_server_refuses_is_passed_on_and_nothing_is_left() {
    let server = ReductServer::start(&[]);
    let root = keys(&server.endpoint(), TOKEN).await;
    let past = KeyRequest {
        expires: Some(SystemTime::UNIX_EPOCH),
        ..request("past", KeyGrants::Everything)
    };
    let error = root.create(&past).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.message().contains("must not be in the past"), "{error}");
    for name in ["", ".", "..", "\u{e9}", "a\n"] {
        assert_eq!(
            kind(root.create(&request(name, KeyGrants::Everything)).await),
            ErrorKind::InvalidInput
        );
    }
    assert_eq!(root.list().await.unwrap().len(), 1);
    let elsewhere = KeyRequest {
        addresses: vec!["10.1.1.1".into()],
        ..request("elsewhere", KeyGrants::Everything)
    };
    let key = root.create(&elsewhere).await.unwrap();
    let key = keys(&server.endpoint(), key.secret.expose_secret()).await;
    assert_eq!(kind(key.current().await), ErrorKind::NeedsLogin);
}

#[tokio::test]
async fn a_server_without_authentication_has_no_keys() {
    let server = ReductServer::start(&[("RS_DISABLE_AUTH", "true"), ("RS_API_TOKEN", "")]);
    let anybody = keys(&server.endpoint(), "anything").await;
    assert_eq!(kind(anybody.current().await), ErrorKind::Unsupported);
    assert!(anybody.list().await.unwrap().is_empty());
    let error = anybody.create(&request("k", KeyGrants::Everything)).await.unwrap_err();
    assert!(error.message().contains("Authentication is disabled"), "{error}");
}

/// The provider tells the key of the last probe, until another one is in use.
#[tokio::test]
async fn the_provider_tells_the_key_in_use() {
    let server = ReductServer::start(&[]);
    let root = keys(&server.endpoint(), TOKEN).await;
    let limited = KeyRequest {
        idle_limit: Some(Duration::from_secs(60)),
        ..request("limited", buckets(&["*"], &[]))
    };
    let made = root.create(&limited).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let put = |secret: &str| {
        let mut file = keymount::auth::SecretFile::prepare(&path, keymount::auth::Existing::Replace).unwrap();
        file.write(&secret.into()).unwrap();
        file.install().unwrap();
    };
    put(made.secret.expose_secret());
    let token = StaticToken::open(
        SecretSource::File(path.clone()),
        TokenPlacement::Bearer,
        TokenKind::TOKEN,
        GivenSecrets::default(),
    );
    let api = Api::new(
        server.endpoint().parse().unwrap(),
        PlainHttp::LoopbackOnly,
        Transport::new(TransportSettings::within(Duration::from_secs(10))).unwrap(),
        Arc::new(token.await.unwrap()),
        ReductStore::dialect(),
    );
    let provider = ReductStore::new(Arc::new(api.unwrap()), Settings::default());
    assert_eq!(provider.current_key(), None);
    provider.probe().await.unwrap();
    let key = provider.current_key().unwrap();
    assert_eq!((key.name.as_str(), key.idle_limit), ("limited", limited.idle_limit));

    put(TOKEN);
    root.revoke("limited").await.unwrap();
    provider.usage().await.unwrap();
    assert_eq!(provider.current_key(), None, "what was told is about another key");
    provider.probe().await.unwrap();
    assert_eq!(provider.current_key().unwrap().name, ROOT_TOKEN);
}

const ROOT: &str = "root-of-the-stand-in";

fn stand_in(token_api: TokenApi) -> StandIn {
    StandIn::new(Options {
        auth: Auth::Token(ROOT.into()),
        token_api,
        ..Options::default()
    })
}

#[tokio::test]
async fn the_first_servers_form_is_spoken_too() {
    let store = stand_in(TokenApi::First);
    let server = store.serve().await.unwrap();
    let root = keys(server.url().as_str(), ROOT).await;
    assert_eq!(root.current().await.unwrap(), CurrentKey::Untold);
    let grants = buckets(&["b"], &["b", "c"]);
    let made = root.create(&request("two words", grants.clone())).await.unwrap();
    assert_eq!(made.info.grants, Some(grants.clone()));
    let listed = root.list().await.unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|key| (key.name.as_str(), key.grants.as_ref()))
        .collect();
    assert_eq!(
        names,
        [(ROOT_TOKEN, Some(&KeyGrants::Everything)), ("two words", Some(&grants))]
    );
    assert!(listed.iter().all(|key| key.created.is_some() && key.expires.is_none()));

    let key = keys(server.url().as_str(), made.secret.expose_secret()).await;
    assert_eq!(key.current().await.unwrap(), CurrentKey::Untold);
    assert_eq!(kind(key.list().await), ErrorKind::Denied);
    assert_eq!(
        kind(root.create(&request("two words", grants.clone())).await),
        ErrorKind::AlreadyExists
    );
    let ending = KeyRequest {
        idle_limit: Some(Duration::from_secs(60)),
        ..request("ending", grants)
    };
    assert_eq!(kind(root.create(&ending).await), ErrorKind::InvalidInput);
    root.revoke("two words").await.unwrap();
    assert_eq!(
        store.token_names(),
        [ROOT_TOKEN],
        "no key without the limit that was asked for"
    );
}

/// A server that takes today's form and understands nothing of it would make a key that may do nothing.
#[tokio::test]
async fn a_key_with_other_rights_does_not_stay() {
    let store = stand_in(TokenApi::Current);
    let server = store.serve().await.unwrap();
    let root = keys(server.url().as_str(), ROOT).await;
    let other = r#"{"name":"k","permissions":{"full_access":true,"read":[],"write":[]}}"#;
    let lie = || Fault::Status {
        status: 200,
        headers: Vec::new(),
        body: other.into(),
    };
    server.faults().inject(Rule::times(1, Method::GET, "/tokens/k", lie()));
    let made = root.create(&request("k", buckets(&["b"], &[]))).await.unwrap();
    assert_eq!(made.info.grants, Some(buckets(&["b"], &[])), "the flat form was right");
    root.revoke("k").await.unwrap();

    server.faults().inject(Rule::times(2, Method::GET, "/tokens/k", lie()));
    let error = root.create(&request("k", buckets(&["b"], &[]))).await.unwrap_err();
    assert!(error.message().contains("removed again"), "{error}");
    assert_eq!(store.token_names(), [ROOT_TOKEN]);
}

/// A name that somebody else made is never taken away by a failing creation.
#[tokio::test]
async fn a_key_of_somebody_else_survives_every_failure() {
    let store = stand_in(TokenApi::Current);
    store.create_token("k", Permissions::buckets(&["x"], &[])).unwrap();
    let server = store.serve().await.unwrap();
    let root = keys(server.url().as_str(), ROOT).await;
    for fault in [
        Fault::Garbage,
        Fault::DropConnection,
        Fault::DropAfterEffect,
        Fault::status(422),
    ] {
        server.faults().inject(Rule::once(Method::POST, "/tokens/k", fault));
        assert!(root.create(&request("k", KeyGrants::Everything)).await.is_err());
        server.faults().clear();
        assert_eq!(root.show("k").await.unwrap().grants, Some(buckets(&["x"], &[])));
    }
}
