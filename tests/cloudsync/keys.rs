//! The API for keys.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keymount::emulator::cloudsync::{Assumptions, KeyManagement, Plan, Scope};
use keymount::emulator::{Fault, Rule};
use keymount::model::ErrorKind;
use keymount::provider::Provider;
use keymount::provider::cloudsync::ApiKeys;
use keymount::provider::keys::{CurrentKey, KeyGrants, KeyManager, KeyRequest, KeyStanding};
use reqwest::Method;
use secrecy::ExposeSecret;

use super::support::{Credential, OWNER, api, impatient};
use super::{Bench, kind};

fn request(name: &str, permissions: &[&str]) -> KeyRequest {
    KeyRequest {
        name: name.into(),
        grants: KeyGrants::Permissions(permissions.iter().map(|word| (*word).to_owned()).collect()),
        expires: None,
        idle_limit: None,
        addresses: Vec::new(),
    }
}

async fn manager(bench: &Bench, secret: &str) -> ApiKeys {
    let credential = Credential::ApiKey(secret.to_owned());
    ApiKeys::new(Arc::new(api(&bench.running.url(), credential, impatient()).await))
}

fn ids(bench: &Bench) -> BTreeSet<String> {
    bench.store.keys(OWNER).into_iter().map(|(id, _)| id).collect()
}

#[tokio::test]
async fn a_key_is_made_used_shown_and_revoked() {
    let bench = Bench::new().await;
    let all = bench.store.create_key(OWNER, "all", &Scope::of_keys()).unwrap();
    let keys = manager(&bench, all.secret()).await;
    let CurrentKey::Told(own) = keys.current().await.unwrap() else {
        panic!("its prefix is in the list")
    };
    assert_eq!((own.id.as_str(), own.name.as_str()), (all.id(), "all"));
    let end = SystemTime::now() + Duration::from_secs(90 * 86_400);
    let wanted = KeyRequest {
        expires: Some(end),
        ..request("laptop", &["files:read", "workspaces:read"])
    };
    let made = keys.create(&wanted).await.unwrap();
    assert_eq!(made.info.grants.as_ref(), Some(&wanted.grants));
    assert_eq!(made.info.expires, Some(end));
    assert!(!format!("{made:?}").contains(made.secret.expose_secret()));
    let new = manager(&bench, made.secret.expose_secret()).await;
    let CurrentKey::Told(own) = new.current().await.unwrap() else {
        panic!("its prefix is in the list")
    };
    assert_eq!(own.id, made.info.id);
    // Names are no ids.
    let twin = keys.create(&request("laptop", &["files:read"])).await.unwrap();
    assert_eq!(kind(&keys.show("laptop").await), Some(ErrorKind::AlreadyExists));
    assert_eq!(keys.show(&twin.info.id).await.unwrap().name, "laptop");
    keys.revoke(&made.info.id).await.unwrap();
    assert_eq!(kind(&new.current().await), Some(ErrorKind::NeedsLogin));
    assert_eq!(keys.show("laptop").await.unwrap().id, twin.info.id);
    assert_eq!(kind(&keys.revoke(&made.info.id).await), Some(ErrorKind::NotFound));
    let listed = keys.list().await.unwrap();
    assert_eq!(listed.len(), ids(&bench).len());
    assert!(listed.iter().all(|key| key.standing == KeyStanding::Usable));
    let grants = listed
        .iter()
        .find(|key| key.id == twin.info.id)
        .unwrap()
        .grants
        .as_ref();
    assert_eq!(grants.unwrap().to_string(), "files:read");
}

#[tokio::test]
async fn what_cannot_be_made_is_refused() {
    let bench = Bench::new().await;
    let all = bench.store.create_key(OWNER, "all", &Scope::of_keys()).unwrap();
    let keys = manager(&bench, all.secret()).await;
    let before = ids(&bench);
    let past = KeyRequest {
        expires: Some(SystemTime::UNIX_EPOCH),
        ..request("past", &["files:read"])
    };
    let buckets = KeyRequest {
        grants: KeyGrants::buckets(["b".to_owned()], []),
        ..request("buckets", &[])
    };
    for wrong in [
        past,
        buckets,
        request("nothing", &[]),
        request("odd", &["files:delete"]),
    ] {
        assert_eq!(
            kind(&keys.create(&wrong).await),
            Some(ErrorKind::InvalidInput),
            "{wrong:?}"
        );
    }
    // More than the key itself may.
    let small = bench.store.create_key(OWNER, "small", &[Scope::FilesRead]).unwrap();
    let small = manager(&bench, small.secret()).await;
    let refused = small.create(&request("more", &["files:write"])).await;
    assert_eq!(kind(&refused), Some(ErrorKind::Denied));
    assert_eq!(ids(&bench).len(), before.len() + 1);
}

/// Other rights than were asked for: the key is worth nothing to whoever asked, and goes again.
#[tokio::test]
async fn a_key_with_other_permissions_is_revoked_again() {
    let bench = Bench::new().await;
    let all = bench.store.create_key(OWNER, "all", &Scope::of_keys()).unwrap();
    let keys = manager(&bench, all.secret()).await;
    let unwanted = bench.store.create_key(OWNER, "unwanted", &Scope::of_keys()).unwrap();
    let answer = Fault::Status {
        status: 201,
        headers: vec![("content-type".into(), "application/json".into())],
        body: format!(
            r#"{{"data":{{"id":"{}","name":"n","key":"sk_live_secret","permissions":["files:read","files:write"],
                "createdAt":"2026-01-06T16:45:00Z"}}}}"#,
            unwanted.id()
        ),
    };
    bench
        .running
        .faults()
        .inject(Rule::once(Method::POST, "api-keys", answer));
    let error = keys.create(&request("n", &["files:read"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadData);
    assert!(
        error.message().contains("revoked again") && !error.message().contains("secret"),
        "{error}"
    );
    assert!(!ids(&bench).contains(unwanted.id()));
}

#[tokio::test]
async fn where_keys_are_for_the_dashboard_only_they_are_not_told() {
    for (key_management, tells) in [(KeyManagement::ListOnly, true), (KeyManagement::Forbidden, false)] {
        let assumptions = Assumptions {
            key_management,
            ..Assumptions::default()
        };
        let bench = Bench::with(assumptions, Plan::unlimited()).await;
        let all = bench.store.create_key(OWNER, "all", &Scope::of_keys()).unwrap();
        let keys = manager(&bench, all.secret()).await;
        let current = keys.current().await.unwrap();
        assert_eq!(matches!(current, CurrentKey::Told(_)), tells);
        let refused = keys.create(&request("n", &["files:read"])).await;
        assert_eq!(kind(&refused), Some(ErrorKind::Denied));
        assert_eq!(kind(&keys.revoke(all.id()).await), Some(ErrorKind::Denied));
    }
}

/// After another key was read, what was told about the former one is out of date until the next probe.
#[tokio::test]
async fn the_key_in_use_is_told_by_the_last_probe() {
    let bench = Bench::new().await;
    assert!(bench.cloudsync.current_key().is_none());
    bench.cloudsync.probe().await.unwrap();
    assert_eq!(bench.cloudsync.current_key().unwrap().name, "everything");
}
