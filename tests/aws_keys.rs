//! The places where AWS programs look for a key, each against a real server that checks signatures: the environment, the
//! files, a program, a container's endpoint whose keys end.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/program.rs"]
mod program;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/script.rs"]
mod script;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use keymount::auth::renewing::ManualClock;
use keymount::auth::{Authenticator, CredentialState, GivenSecrets};
use keymount::model::{ErrorKind, Result};
use keymount::provider::Provider;
use keymount::provider::registry::S3Auth;
use keymount::provider::s3::{AccessKeys, S3};

use s3::{KEY_ID, S3Server, SECRET_KEY, Software};
use script::write_script;

struct Bucket {
    server: S3Server,
    home: tempfile::TempDir,
    clock: ManualClock,
}

impl Bucket {
    fn new() -> Self {
        let server = S3Server::start(Software::Rclone);
        std::fs::create_dir(server.data().join("folder")).unwrap();
        Self {
            server,
            home: tempfile::tempdir().unwrap(),
            clock: ManualClock::at(SystemTime::now()),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A client whose environment is this and has no files and no machine's own role but those.
    async fn client(&self, profile: Option<&str>, environment: &[(&str, &str)]) -> (S3, Arc<AccessKeys>) {
        let mut given = GivenSecrets::default();
        let nowhere = self.home.path().join("missing");
        for name in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
            given.insert(name, nowhere.to_str().unwrap().into());
        }
        given.insert("AWS_EC2_METADATA_DISABLED", "true".into());
        for (name, value) in environment {
            given.insert(*name, (*value).into());
        }
        let auth = S3Auth::Chain {
            profile: profile.map(str::to_owned),
        };
        let keys = AccessKeys::with_clock(auth, given, program::transport(), Arc::new(self.clock.clone())).await;
        let keys = Arc::new(keys.unwrap());
        (s3::client(&self.server, "folder", Arc::clone(&keys)), keys)
    }
}

async fn works(client: &S3) -> Result<()> {
    client.probe().await.map(drop)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn the_environment() {
    let bucket = Bucket::new();
    let environment = [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    let (client, keys) = bucket.client(None, &environment).await;
    works(&client).await.unwrap();
    assert_eq!(keys.state(), CredentialState::Valid { until: None });
    let (client, keys) = bucket
        .client(None, &[environment[0], ("AWS_SECRET_ACCESS_KEY", "wrong-canary")])
        .await;
    let refused = works(&client).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NeedsLogin);
    assert!(!refused.message().contains("canary"), "{refused}");
    assert_eq!(keys.state(), CredentialState::Rejected);
    // `refresh` hands another one over.
    let mut given = GivenSecrets::default();
    given.insert("AWS_SECRET_ACCESS_KEY", SECRET_KEY.into());
    keys.refresh(&given).await.unwrap();
    works(&client).await.unwrap();
}

#[tokio::test]
async fn a_profile_in_the_credentials_file() {
    let bucket = Bucket::new();
    let file = bucket.file(
        "credentials",
        &format!(
            "[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = wrong\n\
             [work]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET_KEY}\n"
        ),
    );
    let environment = [("AWS_SHARED_CREDENTIALS_FILE", text(&file))];
    works(&bucket.client(Some("work"), &environment).await.0).await.unwrap();
    let named = [environment[0], ("AWS_PROFILE", "work")];
    works(&bucket.client(None, &named).await.0).await.unwrap();
    let (client, _) = bucket.client(None, &environment).await;
    assert_eq!(works(&client).await.unwrap_err().kind(), ErrorKind::NeedsLogin);
}

#[tokio::test]
async fn a_program_named_by_a_profile() {
    let bucket = Bucket::new();
    let program = bucket.home.path().join("program");
    write_script(
        &program,
        &format!(
            "#!/bin/sh\necho secret-canary >&2\ntest \"$1\" = good || exit 3\n\
             echo '{{\"Version\": 1, \"AccessKeyId\": \"{KEY_ID}\", \"SecretAccessKey\": \"{SECRET_KEY}\"}}'\n"
        ),
        0o700,
    );
    let config = bucket.file(
        "config",
        &format!(
            "[profile tool]\ncredential_process = {0} good\n[profile broken]\ncredential_process = {0} bad\n",
            text(&program)
        ),
    );
    let environment = [("AWS_CONFIG_FILE", text(&config))];
    works(&bucket.client(Some("tool"), &environment).await.0).await.unwrap();
    let (client, keys) = bucket.client(Some("broken"), &environment).await;
    let error = works(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsLogin);
    assert!(error.message().contains("credential_process"), "{error}");
    assert!(!error.message().contains("canary"), "{error}");
    assert_eq!(keys.state(), CredentialState::NeedsLogin);
}

/// A stand-in of a container's credential endpoint, whose keys live an hour by the test's clock.
struct Endpoint {
    url: String,
    asked: Arc<AtomicU64>,
    is_down: Arc<AtomicBool>,
}

impl Endpoint {
    async fn start(clock: ManualClock) -> Self {
        let (asked, is_down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, down) = (Arc::clone(&asked), Arc::clone(&is_down));
        let answer = move |headers: HeaderMap| async move {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            if down.load(Ordering::SeqCst) {
                return (StatusCode::SERVICE_UNAVAILABLE, String::new());
            }
            if headers
                .get("authorization")
                .is_none_or(|value| value != "canary-authorization")
            {
                return (StatusCode::UNAUTHORIZED, String::new());
            }
            let end = keymount::auth::renewing::Clock::now(&clock).wall + Duration::from_secs(3600);
            let end = jiff::Timestamp::try_from(end).unwrap();
            let key = serde_json::json!({
                "AccessKeyId": KEY_ID,
                "SecretAccessKey": SECRET_KEY,
                "Token": format!("canary-session-{number}"),
                "Expiration": end.to_string(),
            });
            (StatusCode::OK, key.to_string())
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/role", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/role", get(answer))).await });
        Self { url, asked, is_down }
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

fn end(keys: &AccessKeys) -> Option<SystemTime> {
    match keys.state() {
        CredentialState::Valid { until } | CredentialState::Renewing { until } => until,
        other => panic!("{other:?}"),
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let patient = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), patient)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"));
}

#[tokio::test]
async fn the_keys_of_a_container_are_renewed_before_they_end() {
    let bucket = Bucket::new();
    let endpoint = Endpoint::start(bucket.clock.clone()).await;
    let environment = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "canary-authorization"),
    ];
    let (client, keys) = bucket.client(None, &environment).await;
    works(&client).await.unwrap();
    works(&client).await.unwrap();
    assert_eq!(endpoint.asked(), 1);
    let first = end(&keys).expect("the endpoint says when it ends");

    // A tenth of its life is left: the next one is got beside the work.
    bucket.clock.advance(Duration::from_secs(3300));
    works(&client).await.unwrap();
    until("the renewal", || end(&keys).is_some_and(|now| now > first)).await;
    works(&client).await.unwrap();
    assert_eq!(endpoint.asked(), 2);

    // The endpoint is away: the old key is used as long as it is good, and nobody is asked all the time.
    endpoint.is_down.store(true, Ordering::SeqCst);
    bucket.clock.advance(Duration::from_secs(3300));
    works(&client).await.unwrap();
    until("the failed renewal", || {
        endpoint.asked() == 3 && matches!(keys.state(), CredentialState::Valid { .. })
    })
    .await;
    for _ in 0..5 {
        works(&client).await.unwrap();
    }
    assert_eq!(endpoint.asked(), 3);

    // After its end nothing is signed with it.
    bucket.clock.advance(Duration::from_secs(600));
    let error = works(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsLogin);
    assert!(!error.message().contains("canary"), "{error}");
    assert!(error.message().contains("503"), "{error}");
    assert_eq!(endpoint.asked(), 4);
    assert_eq!(keys.state(), CredentialState::NeedsLogin);
    works(&client).await.unwrap_err();
    assert_eq!(endpoint.asked(), 4);

    // Somebody says that it is back.
    endpoint.is_down.store(false, Ordering::SeqCst);
    keys.refresh(&GivenSecrets::default()).await.unwrap();
    works(&client).await.unwrap();
    assert_eq!(endpoint.asked(), 5);
}

/// A machine that slept past the end: the first request waits for the next key.
#[tokio::test]
async fn a_key_that_ended_in_sleep_is_replaced_first() {
    let bucket = Bucket::new();
    let endpoint = Endpoint::start(bucket.clock.clone()).await;
    let environment = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "canary-authorization"),
    ];
    let (client, keys) = bucket.client(None, &environment).await;
    works(&client).await.unwrap();
    bucket.clock.suspend(Duration::from_secs(8000));
    assert_eq!(keys.state(), CredentialState::Expired);
    works(&client).await.unwrap();
    assert_eq!(endpoint.asked(), 2);
}
