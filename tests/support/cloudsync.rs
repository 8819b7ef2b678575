//! A CloudSync client for a stand-in, as a mount would build it.

use std::sync::Arc;
use std::time::Duration;

use keymount::api::{Api, PlainHttp};
use keymount::auth::{GivenSecrets, SecretSource, StaticToken, TokenKind};
use keymount::model::Name;
use keymount::net::{RetryPolicy, Transport, TransportSettings};
use keymount::provider::cloudsync::{CloudSync, Settings};
use keymount::provider::registry::{CloudSyncAuth, CloudSyncSpec, Identity, ProviderSpec};
use reqwest::Url;

/// The user that all workspaces and keys of these tests belong to.
pub const OWNER: &str = "owner@example.com";

/// How a client proves who it is.
#[derive(Clone, Debug)]
pub enum Credential {
    ApiKey(String),
    /// A token that somebody else got.
    AccessToken(String),
}

/// A workspace with a folder, or with neither everything.
pub fn settings(workspace: Option<&str>, path: &str) -> Settings {
    Settings {
        workspace: workspace.map(str::to_owned),
        path: path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| Name::new(part).unwrap())
            .collect(),
        rights_override: None,
    }
}

/// Patient enough to retry, without making a test wait: pauses are as good as none.
pub fn impatient() -> TransportSettings {
    TransportSettings {
        stall: Duration::from_secs(30),
        retry: RetryPolicy {
            budget: Duration::from_millis(20),
            first_pause: Duration::from_millis(1),
            max_pause: Duration::from_millis(4),
        },
    }
}

/// `server` is the stand-in's own address; the API is below `/v1`.
pub async fn client(server: &Url, credential: Credential, settings: Settings) -> CloudSync {
    client_with(server, credential, settings, impatient()).await
}

pub async fn client_with(
    server: &Url,
    credential: Credential,
    settings: Settings,
    transport: TransportSettings,
) -> CloudSync {
    CloudSync::new(Arc::new(api(server, credential, transport).await), settings)
}

pub async fn api(server: &Url, credential: Credential, transport: TransportSettings) -> Api {
    Api::new(
        server.join("v1").unwrap(),
        PlainHttp::LoopbackOnly,
        Transport::new(transport).unwrap(),
        Arc::new(authenticator(credential).await),
        CloudSync::dialect(),
    )
    .unwrap()
}

/// The one that the registry describes for the method.
async fn authenticator(credential: Credential) -> StaticToken {
    let source = SecretSource::Env("TOKEN".into());
    let (text, auth) = match credential {
        Credential::ApiKey(text) => (text, CloudSyncAuth::ApiKey { key: source }),
        Credential::AccessToken(token) => (token, CloudSyncAuth::AccessToken { token: source }),
    };
    let mut given = GivenSecrets::default();
    given.insert("TOKEN", text.into());
    let spec = ProviderSpec::CloudSync(CloudSyncSpec { workspace: None, auth });
    let Identity::Token {
        source,
        placement,
        kind,
    } = spec.identity()
    else {
        panic!("both are tokens that a person gave")
    };
    let kind: TokenKind = kind;
    StaticToken::open(source.clone(), placement, kind, given).await.unwrap()
}
