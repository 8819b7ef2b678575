//! Getting access tokens with an API key, and with an e-mail address and a password.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keymount::auth::GivenSecrets;
use keymount::auth::renewing::{Exchange, ExchangeError, Granted};
use keymount::emulator::dstor::{Account, Assumptions, DstorStore, Excess, Network as Served};
use keymount::emulator::{Fault, Rule, Running};
use keymount::model::{Error, ErrorKind};
use keymount::net::PlainHttp;
use keymount::provider::dstor::TempTokens;
use keymount::provider::registry::{DstorAuth, Network};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};

use crate::support::{given, temp_tokens, transport, with_key, with_login};

const EMAIL: &str = "me@example.org";
const PASSWORD: &str = "correct horse";
const TEMP_TOKEN: &str = "/v1/dev/temp-token";
const YEAR: Duration = Duration::from_secs(365 * 86_400);

struct Service {
    store: DstorStore,
    account: Account,
    key: SecretString,
    running: Running,
}

impl Service {
    async fn new(network: Served, assumptions: Assumptions) -> Self {
        let store = DstorStore::new(network, assumptions);
        let account = store.add_account(EMAIL, PASSWORD);
        Self {
            key: account.add_key("laptop"),
            account,
            running: store.serve().await.unwrap(),
            store,
        }
    }

    async fn production() -> Self {
        Self::new(Served::Production, Assumptions::default()).await
    }

    async fn ask(&self, auth: DstorAuth, secret: &SecretString) -> Result<Granted, ExchangeError> {
        let exchange = temp_tokens(&self.running, Network::Production, auth);
        exchange.exchange(None, &given(secret)).await
    }

    fn count(&self) -> usize {
        self.running.requests().len()
    }
}

fn dead(outcome: Result<Granted, ExchangeError>) -> Error {
    match outcome {
        Err(ExchangeError::Dead(error)) => error,
        other => panic!("{other:?} isn't final"),
    }
}

fn passing(outcome: Result<Granted, ExchangeError>) -> (Error, Option<Duration>) {
    match outcome {
        Err(ExchangeError::Passing { error, retry_after }) => (error, retry_after),
        other => panic!("{other:?} doesn't pass"),
    }
}

#[tokio::test]
async fn both_networks_give_tokens_that_say_how_long_they_live() {
    for (served, network) in [
        (Served::Production, Network::Production),
        (Served::Testnet, Network::Testnet),
    ] {
        let it = Service::new(served, Assumptions::default()).await;
        let exchange = temp_tokens(&it.running, network, with_key(None));
        assert_eq!(
            (exchange.method(), exchange.environment()),
            ("temp-token", Some(network.word()))
        );
        let granted = exchange.exchange(None, &given(&it.key)).await.unwrap();
        assert_eq!(granted.life, Some(YEAR));
        assert!(granted.refresh.is_none() && granted.scopes.is_none());
        assert_eq!(granted.access.expose_secret().split('.').count(), 3);
        let exchange = temp_tokens(&it.running, network, with_login(EMAIL));
        assert_eq!(exchange.method(), "login");
        let granted = exchange.exchange(None, &given(&PASSWORD.into())).await.unwrap();
        assert_eq!(granted.life, Some(Duration::from_secs(3600)));
        assert_eq!(it.store.exchanges(), 2);
        let shown = format!("{granted:?}{:?}", it.running.requests());
        assert!(!shown.contains(it.key.expose_secret()) && !shown.contains(granted.access.expose_secret()));
    }
}

#[tokio::test]
async fn a_key_of_one_network_is_refused_at_the_other() {
    let production = Service::production().await;
    let testnet = Service::new(Served::Testnet, Assumptions::default()).await;
    let exchange = temp_tokens(&testnet.running, Network::Testnet, with_key(None));
    let error = dead(exchange.exchange(None, &given(&production.key)).await);
    assert_eq!(error.kind(), ErrorKind::NeedsLogin);
    for words in ["testnet", "different keys"] {
        assert!(error.message().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_key_or_password_is_final_and_never_shown() {
    let it = Service::production().await;
    let wrong: SecretString = "w".repeat(64).into();
    let error = dead(it.ask(with_key(None), &wrong).await);
    assert!(!format!("{error:?}").contains(wrong.expose_secret()));
    assert!(error.message().contains("API key"), "{error}");
    let error = dead(it.ask(with_login(EMAIL), &"canary-password".into()).await);
    assert!(error.message().contains("e-mail address or the password"), "{error}");
    assert!(!format!("{error:?}").contains("canary"));
    assert!(it.account.revoke_key("laptop"));
    dead(it.ask(with_key(None), &it.key).await);
}

#[tokio::test]
async fn what_cannot_be_a_key_is_sent_nowhere() {
    let it = Service::production().await;
    for odd in [
        "short-canary".to_owned(),
        "c".repeat(65),
        "ü".repeat(64),
        " ".repeat(64),
    ] {
        let (error, _) = passing(it.ask(with_key(None), &odd.clone().into()).await);
        assert_eq!(error.kind(), ErrorKind::NeedsLogin);
        assert!(!error.message().contains(&odd), "{error}");
        let exchange = temp_tokens(&it.running, Network::Production, with_key(None));
        assert!(exchange.basis(&given(&odd.into())).await.is_err());
    }
    passing(it.ask(with_key(None), &"".into()).await);
    assert_eq!(it.count(), 0);
}

#[tokio::test]
async fn the_lifetime_is_asked_for() {
    let it = Service::production().await;
    let hour = Duration::from_secs(3600);
    let granted = it.ask(with_key(Some(hour)), &it.key).await.unwrap();
    let off = granted.life.unwrap().abs_diff(hour);
    assert!(off <= Duration::from_secs(30), "{:?}", granted.life);
    let sent = &it.running.requests()[0];
    assert_eq!((sent.method.as_str(), sent.target.as_str()), ("GET", TEMP_TOKEN));
    let strict = Assumptions {
        excess: Excess::Refuse,
        ..Assumptions::default()
    };
    let strict = Service::new(Served::Production, strict).await;
    let error = dead(strict.ask(with_key(Some(YEAR * 2)), &strict.key).await);
    assert!(error.message().contains("lifetime"), "{error}");
}

/// The life is the token's own, from issue to end, whatever clock this machine has; and the end that is asked for is
/// told by the service's clock from the second request on.
#[tokio::test]
async fn a_clock_an_hour_off_does_no_harm() {
    for ahead in [SignedDuration::from_hours(1), SignedDuration::from_hours(-1)] {
        let it = Service::production().await;
        it.store.shift_clock(ahead);
        let granted = it.ask(with_key(None), &it.key).await.unwrap();
        assert_eq!(granted.life, Some(YEAR), "{ahead:?}");
        let granted = it.ask(with_login(EMAIL), &PASSWORD.into()).await.unwrap();
        assert_eq!(granted.life, Some(Duration::from_secs(3600)), "{ahead:?}");
        let ten_minutes = Duration::from_secs(600);
        let exchange = temp_tokens(&it.running, Network::Production, with_key(Some(ten_minutes)));
        match exchange.exchange(None, &given(&it.key)).await {
            // An end ten minutes from now is in the service's past.
            Err(ExchangeError::Passing { error, retry_after }) => {
                assert!(ahead.is_positive());
                assert_eq!(retry_after, Some(Duration::ZERO));
                assert!(error.message().contains("clock"), "{error}");
            }
            // It is an hour and ten minutes ahead of the service.
            outcome => assert!(outcome.unwrap().life.unwrap() > ten_minutes * 2),
        }
        let granted = exchange.exchange(None, &given(&it.key)).await.unwrap();
        let off = granted.life.unwrap().abs_diff(ten_minutes);
        assert!(off <= Duration::from_secs(60), "{ahead:?}: {:?}", granted.life);
    }
}

#[tokio::test]
async fn a_stopped_clock_gives_exact_lives() {
    let it = Service::production().await;
    it.store.stop_clock_at(Timestamp::from_second(1_700_000_000).unwrap());
    let granted = it.ask(with_login(EMAIL), &PASSWORD.into()).await.unwrap();
    assert_eq!(granted.life, Some(Duration::from_secs(3600)));
}

#[tokio::test]
async fn what_may_pass_is_not_final() {
    let it = Service::production().await;
    let faults = it.running.faults();
    for (status, kind) in [(500, ErrorKind::Unreachable), (404, ErrorKind::NotFound)] {
        faults.inject(Rule::once(Method::GET, TEMP_TOKEN, Fault::status(status)));
        let (error, _) = passing(it.ask(with_key(None), &it.key).await);
        assert_eq!(error.kind(), kind);
    }
    let before = it.count();
    faults.inject(Rule::once(Method::GET, TEMP_TOKEN, Fault::DropConnection));
    let (error, _) = passing(it.ask(with_key(None), &it.key).await);
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert_eq!(it.count(), before + 1, "one request for each call");
    let url = it.running.url();
    it.running.stop().await;
    let gone = TempTokens::new(
        Network::Production,
        &url,
        PlainHttp::LoopbackOnly,
        with_key(None),
        transport(),
        Duration::from_secs(5),
    );
    let (error, _) = passing(gone.unwrap().exchange(None, &given(&it.key)).await);
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_key_is_sent_in_the_clear_only_to_this_machine() {
    let make = |plain_http| {
        TempTokens::new(
            Network::Production,
            &"http://dstor.example".parse().unwrap(),
            plain_http,
            with_key(None),
            transport(),
            Duration::from_secs(5),
        )
    };
    assert!(make(PlainHttp::LoopbackOnly).is_err());
    assert!(make(PlainHttp::Anywhere).is_ok());
}

#[tokio::test]
async fn the_basis_tells_accounts_apart_and_shows_nothing() {
    let it = Service::production().await;
    let basis = async |network, auth: DstorAuth, secret: &SecretString| {
        let exchange = temp_tokens(&it.running, network, auth);
        exchange.basis(&given(secret)).await.unwrap()
    };
    let other: SecretString = "x".repeat(64).into();
    let here = basis(Network::Production, with_key(None), &it.key).await;
    assert_eq!(here, basis(Network::Production, with_key(Some(YEAR)), &it.key).await);
    let password: SecretString = PASSWORD.into();
    let all = [
        here.clone(),
        basis(Network::Production, with_key(None), &other).await,
        basis(Network::Testnet, with_key(None), &it.key).await,
        basis(Network::Production, with_login(EMAIL), &password).await,
        basis(Network::Production, with_login("you@example.org"), &password).await,
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(all[at + 1..].iter().all(|other| other != one));
        assert!(!one.contains(it.key.expose_secret()) && one.len() == 64);
    }
    // Another password is the same account.
    assert_eq!(all[3], basis(Network::Production, with_login(EMAIL), &other).await);
    assert!(
        temp_tokens(&it.running, Network::Production, with_key(None))
            .basis(&GivenSecrets::default())
            .await
            .is_err()
    );
    assert_eq!(it.count(), 0);
}
