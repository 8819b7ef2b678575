//! Credentials without a life of their own: a token that a person keeps somewhere, or none at all.

use async_trait::async_trait;
use parking_lot::Mutex;
use reqwest::header::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tracing::info;

use super::{AfterRejection, Authenticator, CredentialState, Generation, GivenSecrets, Presented, SecretSource};
use crate::model::{Error, ErrorKind, Result};
use crate::net::Credential;

/// Where a token goes in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlacement {
    /// `Authorization: Bearer <token>` (RFC 6750, 2.1).
    Bearer,
    Header(HeaderName),
    Query(&'static str),
}

impl TokenPlacement {
    fn credential(&self, token: &SecretString) -> Result<Credential> {
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
            Self::Query(name) => Ok(Credential::Query {
                name,
                value: token.clone(),
            }),
        }
    }
}

/// A token from a secret source, read again when the provider refuses it.
pub struct StaticToken {
    source: SecretSource,
    placement: TokenPlacement,
    current: Mutex<Current>,
}

struct Current {
    token: SecretString,
    generation: Generation,
    standing: Standing,
    given: GivenSecrets,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    Rejected,
}

impl StaticToken {
    /// # Errors
    /// As reading the source fails.
    pub async fn open(source: SecretSource, placement: TokenPlacement, given: GivenSecrets) -> Result<Self> {
        let token = source.read(&given).await?;
        placement.credential(&token)?;
        let current = Current {
            token,
            generation: Generation(1),
            standing: Standing::Good,
            given,
        };
        Ok(Self {
            source,
            placement,
            current: Mutex::new(current),
        })
    }

    /// Takes a token that was just read; says whether it is another one than before.
    fn adopt(&self, token: SecretString) -> bool {
        let mut current = self.current.lock();
        let changed = token.expose_secret() != current.token.expose_secret();
        if changed {
            current.token = token;
            current.generation = Generation(current.generation.0 + 1);
            current.standing = Standing::Good;
            info!(source = %self.source, "a new token was read");
        }
        changed
    }
}

#[async_trait]
impl Authenticator for StaticToken {
    fn method(&self) -> &'static str {
        "token"
    }

    async fn present(&self) -> Result<Presented> {
        let current = self.current.lock();
        Ok(Presented {
            credential: self.placement.credential(&current.token)?,
            generation: current.generation,
        })
    }

    async fn rejected(&self, generation: Generation) -> AfterRejection {
        let given = {
            let current = self.current.lock();
            if current.generation != generation {
                return AfterRejection::TryAgain;
            }
            current.given.clone()
        };
        if let Ok(token) = self.source.read(&given).await
            && self.adopt(token)
        {
            return AfterRejection::TryAgain;
        }
        let mut current = self.current.lock();
        if current.generation != generation {
            return AfterRejection::TryAgain;
        }
        if current.standing != Standing::Rejected {
            current.standing = Standing::Rejected;
            info!(source = %self.source, "the provider rejected the token; change it and run: keymount refresh");
        }
        AfterRejection::GiveUp
    }

    fn accepted(&self, generation: Generation) {
        let mut current = self.current.lock();
        if current.generation == generation {
            current.standing = Standing::Good;
        }
    }

    async fn refresh(&self, given: &GivenSecrets) -> Result<()> {
        let merged = {
            let mut current = self.current.lock();
            current.given.merge(given);
            current.given.clone()
        };
        let token = self.source.read(&merged).await?;
        self.placement.credential(&token)?;
        self.adopt(token);
        Ok(())
    }

    fn state(&self) -> CredentialState {
        match self.current.lock().standing {
            Standing::Good => CredentialState::Valid { until: None },
            Standing::Rejected => CredentialState::Rejected,
        }
    }
}

/// No credential: public storage.
pub struct Anonymous;

#[async_trait]
impl Authenticator for Anonymous {
    fn method(&self) -> &'static str {
        "none"
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
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn token(given: &GivenSecrets) -> StaticToken {
        StaticToken::open(SecretSource::Env("T".into()), TokenPlacement::Bearer, given.clone())
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
    async fn a_rejected_token_heals_when_the_source_has_another() {
        let token = token(&given("old")).await;
        let used = token.present().await.unwrap().generation;
        assert_eq!(token.rejected(used).await, AfterRejection::GiveUp);
        assert_eq!(token.state(), CredentialState::Rejected);
        token.refresh(&given("new")).await.unwrap();
        assert_eq!(token.state(), CredentialState::Valid { until: None });
    }

    #[tokio::test]
    async fn debug_shows_no_token() {
        let token = token(&given("canary-1234")).await;
        assert!(!format!("{:?}", token.present().await.unwrap()).contains("canary"));
    }
}
