//! A Storra client for a stand-in, as a mount would build it.

use std::sync::Arc;
use std::time::Duration;

use keymount::api::{Api, PlainHttp};
use keymount::auth::{GivenSecrets, SecretSource, StaticToken};
use keymount::emulator::storra::{Account, StorraStore};
use keymount::model::Name;
use keymount::net::{RetryPolicy, Transport, TransportSettings};
use keymount::provider::ChmodEffect;
use keymount::provider::registry::{Identity, ProviderSpec, StorraSpec};
use keymount::provider::storra::{Freshness, Settings, Storra};
use reqwest::Url;

/// The whole account, asked anew for every answer.
pub fn settings(path: &str) -> Settings {
    Settings {
        path: path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| Name::new(part).unwrap())
            .collect(),
        rights_override: None,
        chmod: ChmodEffect::KeptHere,
        freshness: Freshness::Always,
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

/// An account with Cloud Pro and a key to it.
pub fn account(store: &StorraStore) -> (Account, String) {
    let account = store.add_account("owner@example.com");
    let key = account.create_key("laptop");
    (account, key)
}

pub async fn client(server: &Url, key: &str, settings: Settings) -> Storra {
    client_with(server, key, settings, impatient()).await
}

pub async fn client_with(server: &Url, key: &str, settings: Settings, transport: TransportSettings) -> Storra {
    Storra::new(Arc::new(api(server, key, transport).await), settings)
}

pub async fn api(server: &Url, key: &str, transport: TransportSettings) -> Api {
    Api::new(
        server.clone(),
        PlainHttp::LoopbackOnly,
        Transport::new(transport).unwrap(),
        Arc::new(authenticator(key).await),
        Storra::dialect(),
    )
    .unwrap()
}

/// The one that the registry describes.
async fn authenticator(key: &str) -> StaticToken {
    let spec = ProviderSpec::Storra(StorraSpec {
        key: SecretSource::Env("KEY".into()),
        keys_auth: None,
        chmod_publishes: false,
    });
    let Identity::Token {
        source,
        placement,
        kind,
    } = spec.identity()
    else {
        panic!("a key is a token that a person gave")
    };
    let mut given = GivenSecrets::default();
    given.insert("KEY", key.into());
    StaticToken::open(source.clone(), placement, kind, given).await.unwrap()
}
