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
