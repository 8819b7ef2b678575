//! A client of each provider that has a stand-in, as patient as a mount's.

use std::sync::Arc;
use std::time::Duration;

use keymount::api::{Api, PlainHttp};
use keymount::auth::{GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};
use keymount::emulator::cloudsync::{CloudSyncStore, Plan, Scope};
use keymount::emulator::cludz::CludzStore;
use keymount::emulator::dstor::{Assumptions, DstorStore, Network, Processing};
use keymount::emulator::storra::StorraStore;
use keymount::emulator::{self, Running};
use keymount::model::ObjectKey;
use keymount::net::{Transport, TransportSettings};
use keymount::provider::Provider;
use keymount::provider::cludz::{self, Cludz};
use keymount::provider::reductstore::{NameMode, ReductStore, Settings};

use crate::cloudsync_support as cloudsync;
use crate::cludz_support as cludz_client;
use crate::dstor_support as dstor;
use crate::storra_support as storra;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Cludz,
    CloudSync,
    Storra,
    Dstor,
    ReductStore,
}

pub struct Client {
    pub kind: Kind,
    pub provider: Arc<dyn Provider>,
    pub root: ObjectKey,
    pub running: Running,
}

impl Kind {
    /// How many limits of their own the requests of these tests have: where 429 is about one kind of request, every kind
    /// has to hear it.
    pub fn budgets(self, status: u16) -> usize {
        match (self, status) {
            // Downloads, listings, uploads.
            (Self::Storra, 429) => 3,
            _ => 1,
        }
    }

    /// An empty storage, and its client with this deadline for operations.
    pub async fn client(self, deadline: Duration) -> Client {
        let patience = TransportSettings {
            // Nothing stands still here but the clock.
            stall: Duration::from_secs(1_000_000),
            ..TransportSettings::within(deadline)
        };
        let (provider, running) = match self {
            Self::Cludz => cludz(patience).await,
            Self::CloudSync => cloudsync(patience).await,
            Self::Storra => storra(patience).await,
            Self::Dstor => dstor(patience).await,
            Self::ReductStore => reductstore(patience).await,
        };
        let root = provider.probe().await.unwrap().key;
        Client {
            kind: self,
            provider,
            root,
            running,
        }
    }
}

async fn cludz(patience: TransportSettings) -> (Arc<dyn Provider>, Running) {
    let store = CludzStore::new(Default::default());
    let drive = store.add_drive();
    let running = store.serve().await.unwrap();
    let token = cludz_client::Token::Header(drive.owner_token());
    let api = cludz_client::api(running.url(), token, patience).await;
    let settings = cludz::Settings {
        storage: drive.id(),
        path: Vec::new(),
        rights_override: None,
    };
    (Arc::new(Cludz::new(Arc::new(api), settings)), running)
}

async fn cloudsync(patience: TransportSettings) -> (Arc<dyn Provider>, Running) {
    let store = CloudSyncStore::new(Default::default());
    store.add_user(cloudsync::OWNER, Plan::unlimited());
    store.add_workspace(cloudsync::OWNER, "project").unwrap();
    let key = store
        .create_key(cloudsync::OWNER, "everything", &Scope::of_keys())
        .unwrap();
    let running = store.serve_api().await.unwrap();
    let credential = cloudsync::Credential::ApiKey(key.secret().to_owned());
    let settings = cloudsync::settings(Some("project"), "");
    let client = cloudsync::client_with(&running.url(), credential, settings, patience).await;
    (Arc::new(client), running)
}

async fn storra(patience: TransportSettings) -> (Arc<dyn Provider>, Running) {
    let store = StorraStore::default();
    let (_, key) = storra::account(&store);
    let running = store.serve().await.unwrap();
    let client = storra::client_with(&running.url(), &key, storra::settings(""), patience).await;
    (Arc::new(client), running)
}

async fn dstor(patience: TransportSettings) -> (Arc<dyn Provider>, Running) {
    let assumptions = Assumptions {
        processing: Processing { adding: 0, saving: 0 },
        ..Assumptions::default()
    };
    let store = DstorStore::new(Network::Production, assumptions);
    let key = store.add_account("me@example.org", "correct horse").add_key("test");
    let running = store.serve().await.unwrap();
    let transport = Transport::new(patience).unwrap();
    let client = dstor::client_with(&running, &key, dstor::index(), dstor::settings(), transport).await;
    (Arc::new(client), running)
}

async fn reductstore(patience: TransportSettings) -> (Arc<dyn Provider>, Running) {
    const TOKEN: &str = "full-access-for-tests";
    let store = emulator::reductstore::ReductStore::new(emulator::reductstore::Options {
        auth: emulator::reductstore::Auth::Token(TOKEN.to_owned()),
        ..Default::default()
    });
    assert!(store.create_bucket("data"));
    let running = store.serve().await.unwrap();
    let mut given = GivenSecrets::default();
    given.insert("TOKEN", TOKEN.into());
    let source = SecretSource::Env("TOKEN".into());
    let token = StaticToken::open(source, TokenPlacement::Bearer, TokenKind::TOKEN, given).await;
    let api = Api::new(
        running.url(),
        PlainHttp::LoopbackOnly,
        Transport::new(patience).unwrap(),
        Arc::new(token.unwrap()),
        ReductStore::dialect(),
    );
    let settings = Settings {
        bucket: Some("data".to_owned()),
        path: Vec::new(),
        names: NameMode::Label,
        rights_override: None,
    };
    (Arc::new(ReductStore::new(Arc::new(api.unwrap()), settings)), running)
}
