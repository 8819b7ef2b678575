//! Credentials without a life of their own: a token that a person keeps somewhere, or none at all.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use reqwest::header::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tracing::info;

use super::{
    AfterRejection, Authenticator, CredentialState, Generation, GivenSecrets, Presented, RenewalCounts, Scopes,
    SecretSource, Vitals,
};
use crate::model::{Error, ErrorKind, Result};
use crate::net::Credential;

/// Where a token goes in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlacement {
    /// `Authorization: Bearer <token>` (RFC 6750, 2.1).
    Bearer,
    Header(HeaderName),
    Query(&'static str),
    /// A password: `Authorization: Basic <user and password>` (RFC 7617).
    Basic {
        username: String,
    },
}

impl TokenPlacement {
    pub(super) fn credential(&self, token: &SecretString) -> Result<Credential> {
        let header = |name: HeaderName, text: String| {
            let mut value = HeaderValue::try_from(text).map_err(|_| {
                Error::new(
                    ErrorKind::NeedsLogin,
                    "the token has characters that no header can hold",
                )
            })?;
            value.set_sensitive(true);
            Ok(Credential::Header { name, value })
        };
        match self {
            Self::Bearer => header(
                reqwest::header::AUTHORIZATION,
                format!("Bearer {}", token.expose_secret()),
            ),
            Self::Header(name) => header(name.clone(), token.expose_secret().to_owned()),
            Self::Basic { username } => {
                let both = SecretString::from(format!("{username}:{}", token.expose_secret()));
                let encoded = BASE64_STANDARD.encode(both.expose_secret());
                header(reqwest::header::AUTHORIZATION, format!("Basic {encoded}"))
            }
            Self::Query(name) => Ok(Credential::Query {
                name,
                value: token.clone(),
            }),
        }
    }
}

/// What a token is called and what its end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenKind {
    /// The configuration's word for the method.
    pub method: &'static str,
    /// What its beginning says of the environment that it is for.
    pub environments: &'static [(&'static str, &'static str)],
    pub rejection: Rejection,
    /// How many of its first characters the service itself shows in lists; 0 for none.
    pub public_chars: usize,
}

/// What it means when the service refuses a token that its source still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It may be a wrong one.
    Rejected,
    /// It lived for a time that is over.
    Ended,
}

impl TokenKind {
    pub const TOKEN: Self = Self {
        method: "token",
        environments: &[],
        rejection: Rejection::Rejected,
        public_chars: 0,
    };
    pub const API_KEY: Self = Self {
        method: "api-key",
        ..Self::TOKEN
    };
    pub const BEARER: Self = Self {
        method: "bearer",
        ..Self::TOKEN
    };
    pub const PASSWORD: Self = Self {
        method: "basic",
        ..Self::TOKEN
    };
    pub const ACCESS_TOKEN: Self = Self {
        method: "access-token",
        rejection: Rejection::Ended,
        ..Self::TOKEN
    };

    fn environment(&self, token: &SecretString) -> Option<&'static str> {
        let token = token.expose_secret();
        let of = self.environments.iter().find(|(prefix, _)| token.starts_with(prefix))?;
        Some(of.1)
    }

    /// Nothing of a token that has few other characters: that would be no secret any more.
    fn public_prefix(&self, token: &SecretString) -> Option<String> {
        let token = token.expose_secret();
        let shown = token.get(..self.public_chars).filter(|shown| !shown.is_empty())?;
        (token.len() >= 2 * shown.len()).then(|| shown.to_owned())
    }
}

/// So little of a hash that nothing of the secret can be found out.
pub fn marked(secret: &SecretString, salt: &[u8]) -> u16 {
    let hash = Sha256::new()
        .chain_update(salt)
        .chain_update(secret.expose_secret())
        .finalize();
    u16::from_be_bytes([hash[0], hash[1]])
}

/// A token from a secret source, read again when the provider refuses it.
pub struct StaticToken {
    source: SecretSource,
    placement: TokenPlacement,
    kind: TokenKind,
    current: Mutex<Current>,
    /// Held while the source is read: what is adopted is never older than what is there. Counts the readings begun.
    reading: tokio::sync::Mutex<()>,
    readings: AtomicU64,
    vitals: watch::Sender<Vitals>,
}

const USABLE: Vitals = Vitals {
    usable: true,
    scopes: None,
};

struct Current {
    /// `None` after it was forgotten.
    token: Option<SecretString>,
    generation: Generation,
    standing: Standing,
    given: GivenSecrets,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    Rejected,
    /// The source says that there is none any more.
    Gone,
}

impl StaticToken {
    /// # Errors
    /// As reading the source fails.
    pub async fn open(
        source: SecretSource,
        placement: TokenPlacement,
        kind: TokenKind,
        given: GivenSecrets,
    ) -> Result<Self> {
        let token = source.read(&given).await?;
        placement.credential(&token)?;
        Ok(Self::with(source, placement, kind, given, Some(token), Standing::Good))
    }

    /// The same without a token when there is none yet.
    pub async fn open_waiting(
        source: SecretSource,
        placement: TokenPlacement,
        kind: TokenKind,
        given: GivenSecrets,
    ) -> Self {
        let token = source.read(&given).await.and_then(|token| {
            placement.credential(&token)?;
            Ok(token)
        });
        let token = token.map_err(|error| info!(%error, "there is no token yet")).ok();
        let standing = match token {
            Some(_) => Standing::Good,
            None => Standing::Gone,
        };
        Self::with(source, placement, kind, given, token, standing)
    }

    fn with(
        source: SecretSource,
        placement: TokenPlacement,
        kind: TokenKind,
        given: GivenSecrets,
        token: Option<SecretString>,
        standing: Standing,
    ) -> Self {
        let current = Current {
            token,
            generation: Generation(1),
            standing,
            given,
        };
        Self {
            source,
            placement,
            kind,
            current: Mutex::new(current),
            reading: tokio::sync::Mutex::default(),
            readings: AtomicU64::new(0),
            vitals: watch::Sender::new(Vitals {
                usable: standing == Standing::Good,
                scopes: None,
            }),
        }
    }

    /// Reads the source and takes what it has; says whether that is another token than before.
    ///
    /// What our own store no longer has was forgotten on purpose, so it is forgotten here too. Other sources may be out
    /// of reach for a moment: then the token at hand stays.
    async fn read_again(&self, given: &GivenSecrets) -> Result<bool> {
        self.readings.fetch_add(1, Ordering::AcqRel);
        match self.source.read(given).await {
            Ok(token) => {
                self.placement.credential(&token)?;
                Ok(self.adopt(token))
            }
            Err(error) => {
                if self.source.stored().is_some() && error.kind() == ErrorKind::NeedsLogin {
                    self.forget();
                }
                Err(error)
            }
        }
    }

    fn forget(&self) {
        let mut current = self.current.lock();
        if current.token.take().is_some() {
            current.generation = Generation(current.generation.0 + 1);
            current.standing = Standing::Gone;
            self.tell(Standing::Gone);
            info!(repair = self.repair(), "the token was forgotten");
        }
    }

    fn tell(&self, standing: Standing) {
        let usable = standing == Standing::Good;
        self.vitals
            .send_if_modified(|vitals| std::mem::replace(&mut vitals.usable, usable) != usable);
    }

    fn repair(&self) -> String {
        match self.source.stored() {
            Some(stored) => format!("keymount login {}", stored.remote),
            None => "change the token at its source, then: keymount refresh".to_owned(),
        }
    }

    /// Takes a token that was just read; says whether it is another one than before.
    fn adopt(&self, token: SecretString) -> bool {
        let mut current = self.current.lock();
        let known = current.token.as_ref().map(ExposeSecret::expose_secret);
        let changed = known != Some(token.expose_secret());
        if changed {
            current.token = Some(token);
            current.generation = Generation(current.generation.0 + 1);
            current.standing = Standing::Good;
            self.tell(Standing::Good);
            info!(source = %self.source, "a new token was read");
        }
        changed
    }
}

#[async_trait]
impl Authenticator for StaticToken {
    fn method(&self) -> &'static str {
        self.kind.method
    }

    fn environment(&self) -> Option<&'static str> {
        let current = self.current.lock();
        self.kind.environment(current.token.as_ref()?)
    }

    fn public_prefix(&self) -> Option<String> {
        let current = self.current.lock();
        self.kind.public_prefix(current.token.as_ref()?)
    }

    fn mark(&self, salt: &[u8]) -> Option<u16> {
        self.current.lock().token.as_ref().map(|token| marked(token, salt))
    }

    fn scopes(&self) -> Option<Scopes> {
        None
    }

    fn counts(&self) -> RenewalCounts {
        RenewalCounts::default()
    }

    async fn present(&self) -> Result<Presented> {
        let current = self.current.lock();
        let Some(token) = &current.token else {
            let message = format!("there is no token any more; run: {}", self.repair());
            return Err(Error::new(ErrorKind::NeedsLogin, message));
        };
        Ok(Presented {
            credential: self.placement.credential(token)?,
            generation: current.generation,
        })
    }

    async fn rejected(&self, generation: Generation) -> AfterRejection {
        let begun_before = self.readings.load(Ordering::Acquire);
        let _one = self.reading.lock().await;
        let given = {
            let current = self.current.lock();
            if current.generation != generation {
                return match current.standing {
                    Standing::Gone => AfterRejection::GiveUp,
                    Standing::Good | Standing::Rejected => AfterRejection::TryAgain,
                };
            }
            current.given.clone()
        };
        // A reading that began after this rejection found nothing new: many rejections at once read only twice.
        let read_already = self.readings.load(Ordering::Acquire) > begun_before;
        if !read_already && matches!(self.read_again(&given).await, Ok(true)) {
            return AfterRejection::TryAgain;
        }
        let mut current = self.current.lock();
        if current.generation == generation && current.standing == Standing::Good {
            current.standing = Standing::Rejected;
            self.tell(Standing::Rejected);
            info!(source = %self.source, repair = self.repair(), "the provider rejected the token");
        }
        AfterRejection::GiveUp
    }

    fn accepted(&self, generation: Generation) {
        let mut current = self.current.lock();
        if current.generation == generation {
            current.standing = Standing::Good;
            self.tell(Standing::Good);
        }
    }

    async fn refresh(&self, given: &GivenSecrets) -> Result<()> {
        let _one = self.reading.lock().await;
        let merged = {
            let mut current = self.current.lock();
            current.given.merge(given);
            current.given.clone()
        };
        self.read_again(&merged).await.map(drop)
    }

    fn state(&self) -> CredentialState {
        match self.current.lock().standing {
            Standing::Good => CredentialState::Valid { until: None },
            Standing::Rejected => match self.kind.rejection {
                Rejection::Rejected => CredentialState::Rejected,
                Rejection::Ended => CredentialState::NeedsLogin,
            },
            Standing::Gone => CredentialState::NeedsLogin,
        }
    }

    fn vitals(&self) -> watch::Receiver<Vitals> {
        self.vitals.subscribe()
    }

    async fn close(&self) {}
}

/// No credential: public storage.
pub struct Anonymous;

#[async_trait]
impl Authenticator for Anonymous {
    fn method(&self) -> &'static str {
        "none"
    }

    fn environment(&self) -> Option<&'static str> {
        None
    }

    fn public_prefix(&self) -> Option<String> {
        None
    }

    fn scopes(&self) -> Option<Scopes> {
        None
    }

    fn counts(&self) -> RenewalCounts {
        RenewalCounts::default()
    }

    async fn present(&self) -> Result<Presented> {
        Ok(Presented {
            credential: Credential::None,
            generation: Generation(0),
        })
    }

    async fn rejected(&self, _: Generation) -> AfterRejection {
        AfterRejection::GiveUp
    }

    fn accepted(&self, _: Generation) {}

    async fn refresh(&self, _: &GivenSecrets) -> Result<()> {
        Ok(())
    }

    fn state(&self) -> CredentialState {
        CredentialState::Anonymous
    }

    fn vitals(&self) -> watch::Receiver<Vitals> {
        watch::Sender::new(USABLE).subscribe()
    }

    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{StoreSpec, StoredSecret};

    async fn token(given: &GivenSecrets) -> StaticToken {
        StaticToken::open(
            SecretSource::Env("T".into()),
            TokenPlacement::Bearer,
            TokenKind::TOKEN,
            given.clone(),
        )
        .await
        .unwrap()
    }

    fn given(value: &str) -> GivenSecrets {
        let mut given = GivenSecrets::default();
        given.insert("T", value.into());
        given
    }

    #[tokio::test]
    async fn a_late_rejection_does_not_throw_a_new_token_away() {
        let token = token(&given("old")).await;
        let old = token.present().await.unwrap().generation;
        token.refresh(&given("new")).await.unwrap();
        assert_eq!(token.rejected(old).await, AfterRejection::TryAgain);
        assert_eq!(token.state(), CredentialState::Valid { until: None });
    }

    #[tokio::test]
    async fn only_the_characters_that_the_service_shows_are_told() {
        let prefix = async |token: &str, public_chars: usize| {
            let kind = TokenKind {
                public_chars,
                ..TokenKind::API_KEY
            };
            let source = SecretSource::Env("T".into());
            StaticToken::open(source, TokenPlacement::Bearer, kind, given(token))
                .await
                .unwrap()
                .public_prefix()
        };
        assert_eq!(
            prefix("sk_live_abcdefghijklmnop", 12).await.as_deref(),
            Some("sk_live_abcd")
        );
        assert_eq!(prefix("sk_live_abcdefghijklmnop", 0).await, None);
        assert_eq!(prefix("sk_live_abcdefg", 12).await, None, "little else would be secret");
        assert_eq!(prefix("short", 12).await, None);
    }

    #[tokio::test]
    async fn a_rejected_token_heals_when_the_source_has_another() {
        let token = token(&given("old")).await;
        let used = token.present().await.unwrap().generation;
        assert_eq!(token.rejected(used).await, AfterRejection::GiveUp);
        assert_eq!(token.state(), CredentialState::Rejected);
        token.refresh(&given("new")).await.unwrap();
        assert_eq!(token.state(), CredentialState::Valid { until: None });
    }

    #[tokio::test]
    async fn a_stored_token_that_is_gone_is_forgotten_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let stored = StoredSecret {
            remote: "drive".into(),
            field: "token".into(),
            store: StoreSpec::Files {
                folder: folder.path().join("secrets"),
                passphrase: None,
            },
        };
        let none = GivenSecrets::default();
        stored.put(&"first".into(), &none).await.unwrap();
        let source = SecretSource::Stored(stored.clone());
        let token = StaticToken::open(source, TokenPlacement::Bearer, TokenKind::TOKEN, none.clone())
            .await
            .unwrap();
        let used = token.present().await.unwrap().generation;
        stored.remove().await.unwrap();
        assert_eq!(token.refresh(&none).await.unwrap_err().kind(), ErrorKind::NeedsLogin);
        assert_eq!(token.state(), CredentialState::NeedsLogin);
        let error = token.present().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NeedsLogin);
        assert!(error.message().contains("keymount login drive"), "{error}");
        assert_eq!(token.rejected(used).await, AfterRejection::GiveUp);
        stored.put(&"second".into(), &none).await.unwrap();
        token.refresh(&none).await.unwrap();
        assert_eq!(token.state(), CredentialState::Valid { until: None });
        assert!(token.present().await.unwrap().generation > used);
    }

    #[tokio::test]
    async fn a_source_out_of_reach_takes_no_good_token_away() {
        let folder = tempfile::tempdir().unwrap();
        let switch = folder.path().join("works");
        std::fs::write(&switch, "").unwrap();
        let script = format!("test -e {} && echo token", switch.display());
        let source = SecretSource::Command(["sh", "-c", &script].map(str::to_owned).to_vec());
        let none = GivenSecrets::default();
        let token = StaticToken::open(source, TokenPlacement::Bearer, TokenKind::TOKEN, none.clone())
            .await
            .unwrap();
        std::fs::remove_file(&switch).unwrap();
        assert!(token.refresh(&none).await.is_err());
        assert_eq!(token.state(), CredentialState::Valid { until: None });
        assert!(token.present().await.is_ok());
    }

    #[tokio::test]
    async fn many_rejections_at_once_read_the_source_only_twice() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = format!("echo read >> {} && echo token", log.display());
        let source = SecretSource::Command(["sh", "-c", &script].map(str::to_owned).to_vec());
        let token = StaticToken::open(
            source,
            TokenPlacement::Bearer,
            TokenKind::TOKEN,
            GivenSecrets::default(),
        )
        .await
        .unwrap();
        let used = token.present().await.unwrap().generation;
        let rejections = (0..20).map(|_| token.rejected(used));
        for after in futures_util::future::join_all(rejections).await {
            assert_eq!(after, AfterRejection::GiveUp);
        }
        assert_eq!(token.state(), CredentialState::Rejected);
        let readings = std::fs::read_to_string(&log).unwrap().lines().count();
        assert!(
            (2..=3).contains(&readings),
            "{readings} readings, the first of them by opening"
        );
    }

    #[test]
    fn a_password_travels_with_its_user() {
        let placement = TokenPlacement::Basic {
            username: "Aladdin".into(),
        };
        let Credential::Header { name, value } = placement.credential(&"open sesame".into()).unwrap() else {
            panic!("a password is a header")
        };
        // The example of RFC 7617, 2.
        assert_eq!(
            (name.as_str(), value.to_str().unwrap()),
            ("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        );
        assert!(value.is_sensitive());
    }

    #[tokio::test]
    async fn debug_shows_no_token() {
        let token = token(&given("canary-1234")).await;
        assert!(!format!("{:?}", token.present().await.unwrap()).contains("canary"));
    }
}
