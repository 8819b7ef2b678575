//! What S3 and WebDAV have beyond the conformance cases, at real servers: rejected credentials, and writers who race.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/program.rs"]
mod program;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/webdav.rs"]
mod webdav;

use std::sync::Arc;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use keymount::auth::{Authenticator, CredentialState};
use keymount::model::{ErrorKind, Name};
use keymount::provider::register::{self, Held, Register};
use keymount::provider::{Content, Provider, Target};

const VALID: CredentialState = CredentialState::Valid { until: None };

/// A wrong secret is told as one, the state says so, and another secret heals the same client.
async fn heals(provider: impl Provider, authenticator: Arc<dyn Authenticator>, right: keymount::auth::GivenSecrets) {
    let root = keymount::model::ObjectKey::new("");
    for refused in [
        provider.probe().await.map(drop),
        provider.list(&root).await.map(drop),
        provider.lookup(&root, &Name::new("any").unwrap()).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NeedsLogin, "{error:?}");
        assert!(!error.message().contains("wrong-canary"), "{error}");
    }
    assert_eq!(authenticator.state(), CredentialState::Rejected);
    authenticator.refresh(&right).await.unwrap();
    provider.probe().await.unwrap();
    assert_eq!(authenticator.state(), VALID);
}

#[tokio::test]
async fn a_rejected_password_heals() {
    for software in [webdav::Software::WsgiDav, webdav::Software::Rclone] {
        let server = webdav::DavServer::start(software);
        let password = webdav::password(webdav::given("wrong-canary")).await;
        let client = webdav::client(&server, "", Arc::clone(&password));
        heals(client, password, webdav::given(webdav::PASSWORD)).await;
    }
}

/// HEAD's refusals have no words, so the client has to ask why.
#[tokio::test]
async fn a_rejected_access_key_heals() {
    let server = s3::S3Server::start(s3::Software::Rclone);
    std::fs::create_dir(server.data().join("folder")).unwrap();
    let keys = s3::key(s3::given("wrong-canary")).await;
    let client = s3::client(&server, "folder", Arc::clone(&keys));
    heals(client, keys, s3::given(s3::SECRET_KEY)).await;
}

/// Two clients who know nothing of each other count in one object: no count is lost.
#[tokio::test]
async fn no_update_is_lost_where_the_service_knows_conditions() {
    const EACH: u64 = 12;
    let server = s3::S3Server::start(s3::Software::Moto);
    server.make_bucket().await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(s3::client(&server, "shared", s3::key(s3::given(s3::SECRET_KEY)).await));
    }
    let root = clients[0].probe().await.unwrap().key;
    let name = Name::new("count").unwrap();
    let new = Target::New {
        parent: root.clone(),
        name: name.clone(),
    };
    clients[0]
        .upload(&new, &Content::from_bytes(b"0").unwrap())
        .await
        .unwrap();
    let counting = clients.iter().map(async |client| {
        let mut counted = 0;
        while counted < EACH {
            let entry = client.lookup(&root, &name).await.unwrap();
            let read = async {
                client
                    .read(&entry.object(), 0..entry.size)
                    .await?
                    .try_collect::<Vec<_>>()
                    .await
            };
            let Ok(bytes) = read.await else { continue };
            let count: u64 = String::from_utf8(bytes.concat()).unwrap().parse().unwrap();
            let next = Content::from_bytes((count + 1).to_string().as_bytes()).unwrap();
            let target = Target::Replace {
                parent: root.clone(),
                entry,
            };
            match client.upload(&target, &next).await {
                Ok(_) => counted += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}"),
            }
        }
    });
    join_all(counting).await;
    let entry = clients[0].lookup(&root, &name).await.unwrap();
    let bytes = clients[0].read(&entry.object(), 0..entry.size).await.unwrap();
    let text = bytes.try_collect::<Vec<_>>().await.unwrap().concat();
    assert_eq!(String::from_utf8(text).unwrap(), (2 * EACH).to_string());
}

/// Whether machines can share an index there: a server must refuse writes over what the writer didn't read.
#[tokio::test]
async fn only_services_that_honour_conditions_hold_a_register() {
    let path = [Name::new("kéy mount").unwrap(), Name::new("index.jsonl").unwrap()];
    let moto = s3::S3Server::start(s3::Software::Moto);
    moto.make_bucket().await;
    let key = s3::key(s3::given(s3::SECRET_KEY)).await;
    let bucket = s3::client(&moto, "shared", key).register(&path);
    holds_a_register(&*bucket).await;
    let gone = bucket.read(None, 1000).await.unwrap();
    let Held::Bytes(_, version) = gone else {
        panic!("{gone:?}")
    };
    bucket.remove().await.unwrap();
    let refused = bucket.write("six".into(), Some(&version)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Changed, "{refused}");
    let dav = webdav::DavServer::start(webdav::Software::WsgiDav);
    let password = webdav::password(webdav::given(webdav::PASSWORD)).await;
    holds_a_register(&*webdav::client(&dav, "", password).register(&path)).await;
    let left: Vec<_> = std::fs::read_dir(dav.data().join("kéy mount"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(left.len(), 1, "what was tried with is gone: {left:?}");

    let rclone = s3::S3Server::start(s3::Software::Rclone);
    let key = s3::key(s3::given(s3::SECRET_KEY)).await;
    is_refused(s3::client(&rclone, "shared", key).register(&path)).await;
    let rclone = webdav::DavServer::start(webdav::Software::Rclone);
    let password = webdav::password(webdav::given(webdav::PASSWORD)).await;
    is_refused(webdav::client(&rclone, "", password).register(&path)).await;
}

/// It is written in turn, and by nobody who didn't read what is there.
async fn holds_a_register(register: &dyn Register) {
    const LIMIT: u64 = 1000;
    register::check(register).await.unwrap();
    assert_eq!(register.read(None, LIMIT).await.unwrap(), Held::Nothing);
    let first = register.write("one".into(), None).await.unwrap();
    assert_eq!(register.read(Some(&first), LIMIT).await.unwrap(), Held::Same);
    let second = register.write("second".into(), Some(&first)).await.unwrap();
    assert_eq!(
        register.read(Some(&first), LIMIT).await.unwrap(),
        Held::Bytes("second".into(), second.clone())
    );
    for over in [None, Some(&first)] {
        let refused = register.write("third one".into(), over).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Changed, "{refused}");
    }
    assert_eq!(register.read(None, 3).await.unwrap_err().kind(), ErrorKind::TooLarge);
    register.remove().await.unwrap();
    assert_eq!(register.read(Some(&second), LIMIT).await.unwrap(), Held::Nothing);
    register.write("five!".into(), None).await.unwrap();
}

async fn is_refused(register: Arc<dyn Register>) {
    let refused = register::check(&*register).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert!(
        refused.message().contains("name a remote at another service"),
        "{refused}"
    );
    assert_eq!(register.read(None, 1000).await.unwrap(), Held::Nothing);
}
