//! dStor clients for a stand-in, as a mount would build them.

use std::sync::Arc;
use std::time::Duration;

use keymount::api::{Api, PlainHttp};
use keymount::auth::renewing::Exchange;
use keymount::auth::{Authenticator, GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};
use keymount::emulator::Running;
use keymount::model::Name;
use keymount::net::{RetryPolicy, Transport, TransportSettings};
use keymount::provider::dstor::{Dstor, Endpoints, Polling, Settings, TempTokens};
use keymount::provider::registry::{DstorAuth, Network, OnUnlink};
use keymount::state::{PathIndex, Shared, StateDb};
use secrecy::SecretString;

/// Patient enough to retry, without making a test wait: pauses are as good as none.
pub fn transport() -> Transport {
    Transport::new(TransportSettings {
        stall: Duration::from_secs(30),
        retry: RetryPolicy {
            budget: Duration::from_millis(20),
            first_pause: Duration::from_millis(1),
            max_pause: Duration::from_millis(4),
        },
    })
    .unwrap()
}

/// The variable that a test's secret is given in.
const VARIABLE: &str = "SECRET";

pub fn given(secret: &SecretString) -> GivenSecrets {
    let mut given = GivenSecrets::default();
    given.insert(VARIABLE, secret.clone());
    given
}

pub fn with_key(lifetime: Option<Duration>) -> DstorAuth {
    DstorAuth::TempToken {
        api_key: SecretSource::Env(VARIABLE.into()),
        lifetime,
    }
}

pub fn with_login(email: &str) -> DstorAuth {
    DstorAuth::Login {
        email: email.to_owned(),
        password: SecretSource::Env(VARIABLE.into()),
    }
}

pub fn temp_tokens(running: &Running, network: Network, auth: DstorAuth) -> TempTokens {
    let patience = Duration::from_secs(30);
    TempTokens::new(
        network,
        &running.url(),
        PlainHttp::LoopbackOnly,
        auth,
        transport(),
        patience,
    )
    .unwrap()
}

pub fn settings() -> Settings {
    Settings {
        tree: "test".to_owned(),
        path: Vec::new(),
        rights_override: None,
        on_unlink: OnUnlink::Forget,
        endpoints: Endpoints::default(),
        import: None,
        polling: Polling {
            first_pause: Duration::from_millis(1),
            growth: Duration::from_millis(1),
            max_pause: Duration::from_millis(5),
            patience: Duration::from_secs(30),
        },
    }
}

pub fn names(path: &str) -> Vec<Name> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(|part| Name::new(part).unwrap())
        .collect()
}

/// A tree in a database of its own.
pub fn index() -> Arc<PathIndex> {
    let state = Arc::new(StateDb::in_memory().unwrap());
    Arc::new(PathIndex::open(state, "test", Shared::No).unwrap())
}

/// A client with one token that was got with this key, and never another.
pub async fn client(running: &Running, key: &SecretString, index: Arc<PathIndex>, settings: Settings) -> Dstor {
    client_with(running, key, index, settings, transport()).await
}

pub async fn client_with(
    running: &Running,
    key: &SecretString,
    index: Arc<PathIndex>,
    settings: Settings,
    transport: Transport,
) -> Dstor {
    let exchange = temp_tokens(running, Network::Production, with_key(None));
    let granted = exchange.exchange(None, &given(key)).await.unwrap();
    let source = SecretSource::Env(VARIABLE.into());
    let token = StaticToken::open(source, TokenPlacement::Bearer, TokenKind::TOKEN, given(&granted.access));
    let authenticator: Arc<dyn Authenticator> = Arc::new(token.await.unwrap());
    let api = Api::new(
        running.url(),
        PlainHttp::LoopbackOnly,
        transport,
        authenticator,
        Dstor::dialect(),
    );
    Dstor::new(Arc::new(api.unwrap()), index, settings)
}
