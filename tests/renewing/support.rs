//! What the tests share: an exchange over HTTP, a client with a credential that is renewed, a store that can be full.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use keymount::api::{Api, PlainHttp};
use keymount::auth::renewing::{
    Clock, Exchange, ExchangeError, Granted, Keeper, ManualClock, Renewing, Settings, Shelf,
};
use keymount::auth::store::{Stamp, StoreSpec};
use keymount::auth::{Authenticator, CredentialState, GivenSecrets, StoredSecret, TokenPlacement};
use keymount::model::{Error, ErrorKind, Result};
use keymount::net::{PlainDialect, Request, RetryPolicy, Transport, TransportSettings};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use super::server::Server;

/// How long a token lives unless a test says otherwise: its lead is 6 minutes.
pub const HOUR: Duration = Duration::from_secs(3600);
pub const SECOND: Duration = Duration::from_secs(1);
/// How long an operation waits, by the test's clock.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until it holds; without end it fails.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub fn transport() -> Transport {
    let settings = TransportSettings {
        stall: Duration::from_secs(60),
        retry: RetryPolicy {
            budget: Duration::ZERO,
            first_pause: SECOND,
            max_pause: SECOND,
        },
    };
    Transport::new(settings).unwrap()
}

/// Asks `Server` for tokens.
pub struct HttpExchange {
    base: Url,
    pub basis: parking_lot::Mutex<String>,
    pub calls: AtomicU64,
    /// Panics instead of asking.
    pub panics: AtomicBool,
    /// Ends the process between the answer and whatever comes next.
    pub dies: bool,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
    scope: Option<String>,
}

impl HttpExchange {
    pub fn new(base: &Url) -> Self {
        Self {
            base: base.clone(),
            basis: parking_lot::Mutex::new("basis".into()),
            calls: AtomicU64::new(0),
            panics: AtomicBool::new(false),
            dies: false,
        }
    }
}

#[async_trait]
impl Exchange for HttpExchange {
    fn method(&self) -> &'static str {
        "oauth"
    }

    async fn basis(&self, _: &GivenSecrets) -> Result<String, Error> {
        Ok(self.basis.lock().clone())
    }

    async fn exchange(&self, refresh: Option<&SecretString>, _: &GivenSecrets) -> Result<Granted, ExchangeError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics.swap(false, Ordering::Relaxed), "as the test wants it");
        let Some(refresh) = refresh else {
            let why = "there is no grant";
            return Err(ExchangeError::Dead(Error::new(ErrorKind::NeedsLogin, why)));
        };
        let request = Request::new(Method::POST, self.base.join("token").unwrap(), "renew the token")
            .json(&json!({"refresh_token": refresh.expose_secret()}));
        // A transport that is used once remembers no refusal: the waits are to be the life cycle's, by its own clock.
        let sent = transport()
            .send(&request, &keymount::net::Credential::None, &PlainDialect)
            .await;
        let answer: Result<Answer> = match sent {
            Ok(response) => response.json("renew the token").await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => {
                if self.dies {
                    std::process::abort();
                }
                Ok(Granted {
                    access: answer.access_token.into(),
                    life: answer.expires_in.map(Duration::from_secs),
                    refresh: answer.refresh_token.map(Into::into),
                    scopes: answer.scope.map(|scope| scope.parse().unwrap()),
                })
            }
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidInput | ErrorKind::NeedsLogin => {
                    let why = "the authorization server no longer accepts the grant";
                    ExchangeError::Dead(Error::new(ErrorKind::NeedsLogin, why))
                }
                ErrorKind::RateLimited { retry_after } => ExchangeError::Passing { error, retry_after },
                _ => ExchangeError::Passing {
                    error,
                    retry_after: None,
                },
            }),
        }
    }
}

/// A store that can be full.
#[derive(Clone)]
pub struct Disk {
    pub stored: StoredSecret,
    pub full: Arc<AtomicBool>,
    /// How many writes still work when it is going to be full.
    pub room: Arc<AtomicU64>,
    pub writes: Arc<AtomicU64>,
}

#[async_trait]
impl Shelf for Disk {
    async fn read(&self, given: &GivenSecrets) -> Result<Option<SecretString>> {
        Shelf::read(&self.stored, given).await
    }

    async fn write(&self, document: &SecretString, given: &GivenSecrets) -> Result<()> {
        let room = |left: u64| left.checked_sub(1);
        if self.full.load(Ordering::SeqCst)
            && self
                .room
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, room)
                .is_err()
        {
            return Err(Error::new(ErrorKind::NoSpace, "the disk is full"));
        }
        Shelf::write(&self.stored, document, given).await?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn remove(&self) -> Result<bool> {
        Shelf::remove(&self.stored).await
    }

    fn stamp(&self) -> Stamp {
        Shelf::stamp(&self.stored)
    }
}

/// A service, a clock, and a place for the grant.
pub struct House {
    pub server: Server,
    pub clock: ManualClock,
    pub disk: Disk,
    pub folder: TempDir,
}

/// One process's credential, as far as it matters here.
pub struct Client {
    pub renewing: Arc<Renewing>,
    pub exchange: Arc<HttpExchange>,
    pub api: Arc<Api>,
}

pub fn stored_in(folder: &Path) -> StoredSecret {
    StoredSecret {
        remote: "drive".into(),
        field: "grant".into(),
        store: StoreSpec::Files {
            folder: folder.join("secrets"),
            passphrase: None,
        },
    }
}

pub fn lock_in(folder: &Path) -> PathBuf {
    folder.join("renew.lock")
}

/// A client of this service with this place for the grant.
pub async fn client(
    base: &Url,
    exchange: HttpExchange,
    keeper: Option<Keeper>,
    clock: Arc<dyn Clock>,
) -> Result<Client> {
    let exchange = Arc::new(exchange);
    let settings = Settings {
        placement: TokenPlacement::Bearer,
        keeper,
        clock,
        patience: PATIENCE,
        repair: "run: keymount login drive".into(),
    };
    let renewing = Renewing::open(
        Arc::clone(&exchange) as Arc<dyn Exchange>,
        settings,
        GivenSecrets::default(),
    )
    .await?;
    let renewing = Arc::new(renewing);
    let api = Api::new(
        base.clone(),
        PlainHttp::LoopbackOnly,
        transport(),
        Arc::clone(&renewing) as Arc<dyn Authenticator>,
        Arc::new(PlainDialect),
    )?;
    Ok(Client {
        renewing,
        exchange,
        api: Arc::new(api),
    })
}

impl House {
    pub async fn with_life(life: Option<Duration>) -> Self {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let server = Server::start(Arc::new(clock.clone()), life).await;
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk {
            stored: stored_in(folder.path()),
            full: Arc::default(),
            room: Arc::default(),
            writes: Arc::default(),
        };
        let house = Self {
            server,
            clock,
            disk,
            folder,
        };
        house.login().await;
        house
    }

    pub async fn new() -> Self {
        Self::with_life(Some(HOUR)).await
    }

    pub fn keeper(&self) -> Keeper {
        Keeper::new(self.disk.clone(), lock_in(self.folder.path()))
    }

    /// What `keymount login` does: a grant whose token is over already, so that the first use asks for one.
    pub async fn login(&self) {
        let granted = Granted {
            access: "access-of-login".into(),
            life: Some(Duration::ZERO),
            refresh: Some(self.server.refresh().into()),
            scopes: None,
        };
        self.keeper()
            .install(
                &granted,
                "basis",
                self.clock.now().wall,
                &GivenSecrets::default(),
                SECOND,
            )
            .await
            .unwrap();
    }

    pub async fn client(&self) -> Client {
        self.client_with(HttpExchange::new(&self.server.base)).await
    }

    pub async fn client_with(&self, exchange: HttpExchange) -> Client {
        client(
            &self.server.base,
            exchange,
            Some(self.keeper()),
            Arc::new(self.clock.clone()),
        )
        .await
        .unwrap()
    }

    /// A client that has a token.
    pub async fn ready(&self) -> Client {
        let client = self.client().await;
        client.read().await.unwrap();
        client
    }
}

impl Client {
    /// One operation at the provider.
    pub async fn read(&self) -> Result<()> {
        let request = Request::get(self.api.url(["file"]), "read the file");
        self.api.call(&request).await.map(drop)
    }

    pub async fn write(&self) -> Result<()> {
        let request = Request::new(Method::PUT, self.api.url(["file"]), "write the file");
        self.api.call(&request).await.map(drop)
    }

    pub fn exchanges(&self) -> u64 {
        self.renewing.counts().exchanges
    }

    pub fn state(&self) -> CredentialState {
        self.renewing.state()
    }

    pub async fn refresh(&self) -> Result<()> {
        self.renewing.refresh(&GivenSecrets::default()).await
    }

    pub fn is_valid(&self) -> bool {
        matches!(self.state(), CredentialState::Valid { .. })
    }

    pub async fn becomes(&self, state: CredentialState) {
        eventually(&format!("{state:?}"), || self.state() == state).await;
    }
}
