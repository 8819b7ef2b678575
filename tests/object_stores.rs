//! What S3 and WebDAV have beyond the conformance cases, at real servers: rejected credentials, writers who race, and
//! what a broken upload leaves.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/garage.rs"]
mod garage;
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
use keymount::model::{Entry, ErrorKind, Kind, Name};
use keymount::provider::register::{self, Held, Register};
use keymount::provider::s3::Lease;
use keymount::provider::{Content, Place, Provider, Target};
use sha2::{Digest, Sha256};

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
    for software in webdav::Software::ALL {
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

/// Two clients who know nothing of each other add to one file: nothing that was stored is overwritten unseen.
async fn lose_no_update(clients: &[impl Provider]) {
    const EACH: usize = 12;
    let root = clients[0].probe().await.unwrap().key;
    let name = Name::new("shared").unwrap();
    let new = Target::New {
        parent: root.clone(),
        name: name.clone(),
    };
    clients[0]
        .upload(&new, &Content::from_bytes(b"").unwrap())
        .await
        .unwrap();
    let adding = clients.iter().enumerate().map(async |(number, client)| {
        let mut added = 0;
        while added < EACH {
            let entry = match client.lookup(&root, &name).await {
                // Some servers hide a file while it is being replaced.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entry => entry.unwrap(),
            };
            // Whoever replaces it in between makes this read fail.
            let Ok(mut text) = whole(client, &entry).await else {
                continue;
            };
            text += &format!("{number} {added}\n");
            let target = Target::Replace {
                parent: root.clone(),
                entry,
            };
            match client
                .upload(&target, &Content::from_bytes(text.as_bytes()).unwrap())
                .await
            {
                Ok(_) => added += 1,
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Changed | ErrorKind::Busy),
                    "{error:?}"
                ),
            }
        }
    });
    join_all(adding).await;
    let entry = clients[0].lookup(&root, &name).await.unwrap();
    let text = whole(&clients[0], &entry).await.unwrap();
    for number in 0..clients.len() {
        for added in 0..EACH {
            assert!(
                text.contains(&format!("{number} {added}\n")),
                "{number} {added}: {text}"
            );
        }
    }
}

async fn whole(client: &impl Provider, entry: &Entry) -> keymount::model::Result<String> {
    let bytes = client.read(&entry.object(), 0..entry.size).await?;
    let bytes = bytes.try_collect::<Vec<_>>().await?.concat();
    Ok(String::from_utf8(bytes).unwrap())
}

/// What somebody else has stored since is neither removed nor replaced by a rename.
async fn touch_no_other_version(clients: &[impl Provider]) {
    let root = clients[0].probe().await.unwrap().key;
    let put = async |text: &str, bytes: &[u8]| {
        let target = Target::New {
            parent: root.clone(),
            name: Name::new(text).unwrap(),
        };
        let stored = clients[0].upload(&target, &Content::from_bytes(bytes).unwrap()).await;
        stored.unwrap()
    };
    let known = put("file", b"known").await;
    let other = put("other", b"other").await;
    let target = Target::Replace {
        parent: root.clone(),
        entry: known.clone(),
    };
    let now = clients[1]
        .upload(&target, &Content::from_bytes(b"by another").unwrap())
        .await;
    let now = now.unwrap();
    let removed = clients[0].remove_file(&known).await.unwrap_err();
    assert_eq!(removed.kind(), ErrorKind::Changed, "{removed:?}");
    let place = |entry: &Entry| Place {
        parent: root.clone(),
        name: entry.name.clone(),
    };
    let renamed = clients[0]
        .rename(&other, &place(&other), &place(&known), Some(&known))
        .await;
    assert_eq!(renamed.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(whole(&clients[0], &now).await.unwrap(), "by another");
    assert_eq!(whole(&clients[0], &other).await.unwrap(), "other");
    let renamed = clients[0]
        .rename(&other, &place(&other), &place(&known), Some(&now))
        .await
        .unwrap();
    assert_eq!(whole(&clients[1], &renamed).await.unwrap(), "other");
    clients[1].remove_file(&renamed).await.unwrap();
    let gone = clients[0].lookup(&root, &known.name).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone:?}");
    // The one who removed it knows better than a listing of Garage's, which may lag behind.
    let listed = clients[1].list(&root).await.unwrap();
    assert!(listed.iter().all(|entry| entry.name != known.name), "{listed:?}");
}

async fn two_at_s3(server: &s3::S3Server, folder: &str) -> Vec<impl Provider> {
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(s3::client(server, folder, s3::key(s3::given(s3::SECRET_KEY)).await));
    }
    clients
}

#[tokio::test]
async fn two_clients_of_a_bucket_lose_nothing_at_moto() {
    for software in [s3::Software::Moto, s3::Software::MotoWithCopies] {
        let server = s3::S3Server::start(software);
        server.make_bucket().await;
        lose_no_update(&two_at_s3(&server, "one").await).await;
        touch_no_other_version(&two_at_s3(&server, "two").await).await;
        let left = own_objects(&server).await;
        assert!(left.is_empty(), "{left:?}");
    }
}

/// `rclone serve s3` ignores every condition.
#[tokio::test]
async fn two_clients_of_a_bucket_lose_nothing_at_rclone() {
    let server = s3::S3Server::start(s3::Software::Rclone);
    for folder in ["one", "two"] {
        std::fs::create_dir(server.data().join(folder)).unwrap();
    }
    lose_no_update(&two_at_s3(&server, "one").await).await;
    touch_no_other_version(&two_at_s3(&server, "two").await).await;
}

/// Each client at a node of its own, of a cluster that ignores every condition; and what a broken upload leaves there.
#[tokio::test]
async fn two_clients_of_a_bucket_lose_nothing_at_a_garage_cluster() {
    let garage = garage::Garage::start().await;
    let clients = async |folder: &str| {
        let mut clients = Vec::new();
        for node in 0..2 {
            let keys = s3::key_of(garage.key_id(), s3::given(garage.secret_key())).await;
            clients.push(s3::client_at(&garage.endpoint(node), garage::REGION, folder, keys));
        }
        clients
    };
    lose_no_update(&clients("one").await).await;
    touch_no_other_version(&clients("two").await).await;
    let broken = &clients("three").await[0];
    break_off(broken).await;
    // The count travels from node to node behind the answer.
    garage
        .until("nothing of the upload is left", async || {
            garage.unfinished_uploads(2).await == 0
        })
        .await;
}

#[tokio::test]
async fn two_clients_of_a_share_lose_nothing() {
    for software in webdav::Software::ALL {
        let server = webdav::DavServer::start(software);
        for folder in ["one", "two"] {
            server.make_folder(folder);
        }
        for folder in ["one", "two"] {
            let mut clients = Vec::new();
            for _ in 0..2 {
                let password = webdav::password(webdav::given(webdav::PASSWORD)).await;
                clients.push(webdav::client(&server, folder, password));
            }
            match folder {
                "one" => lose_no_update(&clients).await,
                _ => touch_no_other_version(&clients).await,
            }
        }
    }
}

/// Uploads a file in parts that turns out to be shorter than it should be.
async fn break_off(client: &impl Provider) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(20 << 20).unwrap();
    let content = Content::new(Arc::new(file), 24 << 20);
    let root = client.probe().await.unwrap().key;
    let name = Name::new("broken").unwrap();
    let target = Target::New {
        parent: root.clone(),
        name: name.clone(),
    };
    client.upload(&target, &content).await.unwrap_err();
    let there = client.lookup(&root, &name).await;
    assert_eq!(there.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_broken_upload_leaves_no_parts() {
    let server = s3::S3Server::start(s3::Software::Moto);
    server.make_bucket().await;
    let client = s3::client(&server, "folder", s3::key(s3::given(s3::SECRET_KEY)).await);
    break_off(&client).await;
    let log = server.log();
    let parts = log
        .lines()
        .filter(|line| line.contains("PUT") && line.contains("partNumber="));
    assert!(parts.count() > 0, "{log}");
    let unfinished = reqwest::get(format!("{}{}?uploads", server.endpoint(), s3::BUCKET))
        .await
        .unwrap();
    let unfinished = unfinished.text().await.unwrap();
    assert!(
        unfinished.contains("ListMultipartUploadsResult") && !unfinished.contains("<UploadId>"),
        "{unfinished}"
    );
}

/// The keys of keymount's own objects that are left in a bucket at moto, which checks no signatures.
async fn own_objects(server: &s3::S3Server) -> Vec<String> {
    let listed = reqwest::get(format!("{}{}?list-type=2", server.endpoint(), s3::BUCKET))
        .await
        .unwrap();
    let listed = listed.text().await.unwrap();
    assert!(listed.contains("ListBucketResult"), "{listed}");
    let keys = listed
        .split("<Key>")
        .skip(1)
        .filter_map(|rest| rest.split("</Key>").next());
    keys.filter(|key| key.contains(".keymount-"))
        .map(str::to_owned)
        .collect()
}

/// A mount that was killed while it changed a file left its lock. It is shown to nobody, and taken away when it is old.
#[tokio::test]
async fn a_lock_of_the_dead_ends() {
    let server = s3::S3Server::start(s3::Software::Moto);
    server.make_bucket().await;
    let sum = Sha256::digest(b"folder/file");
    let sum: String = sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let lock = format!(
        "{}{}/folder/.keymount-lock.{sum}.0000000000000000",
        server.endpoint(),
        s3::BUCKET
    );
    let made = reqwest::Client::new().put(lock).send().await.unwrap();
    assert!(made.status().is_success());
    let keys = s3::key(s3::given(s3::SECRET_KEY)).await;
    let lease = Lease {
        over: std::time::Duration::from_secs(1),
    };
    let client = s3::leasing(&server.endpoint(), s3::REGION, "folder", keys, lease);
    let root = client.probe().await.unwrap().key;
    assert!(client.list(&root).await.unwrap().is_empty());
    let own = Name::new(".keymount-lock.x").unwrap();
    let refused = client.check_name(&root, Kind::File, &own);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidName);
    let target = Target::New {
        parent: root,
        name: Name::new("file").unwrap(),
    };
    client
        .upload(&target, &Content::from_bytes(b"x").unwrap())
        .await
        .unwrap();
    let left = own_objects(&server).await;
    assert!(left.is_empty(), "{left:?}");
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
