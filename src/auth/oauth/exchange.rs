//! Renewing: the next access token for a refresh token (RFC 6749, 6).

use async_trait::async_trait;
use oauth2::RefreshToken;
use secrecy::{ExposeSecret, SecretString};

use super::OauthClient;
use super::answer::{Failure, failure, granted, is_final};
use crate::auth::GivenSecrets;
use crate::auth::renewing::{Exchange, ExchangeError, Granted};
use crate::model::{Error, ErrorKind, Result};

const PURPOSE: &str = "renew the token";

#[async_trait]
impl Exchange for OauthClient {
    fn method(&self) -> &'static str {
        "oauth"
    }

    async fn basis(&self, _: &GivenSecrets) -> Result<String, Error> {
        Ok(self.fingerprint())
    }

    async fn exchange(&self, refresh: Option<&SecretString>, given: &GivenSecrets) -> Result<Granted, ExchangeError> {
        let Some(refresh) = refresh else {
            return Err(ExchangeError::Dead(
                self.needs_login("there is nothing to renew the token with"),
            ));
        };
        let token = RefreshToken::new(refresh.expose_secret().to_owned());
        let core = self.core().await.map_err(passing)?;
        let client = self.token_client(&core, given).await.map_err(passing)?;
        let http = self
            .endpoint(core.token.clone(), core.bodies, PURPOSE)
            .map_err(passing)?
            .client();
        let answer = client.exchange_refresh_token(&token).request_async(&http).await;
        match answer.map_err(|error| failure(error, PURPOSE)) {
            Ok(response) => granted(&response, PURPOSE).map_err(passing),
            Err(failed) => Err(self.not_renewed(failed)),
        }
    }
}

impl OauthClient {
    fn needs_login(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::NeedsLogin,
            format!("{why}; run: keymount login {}", self.remote()),
        )
    }

    fn not_renewed(&self, failed: Failure) -> ExchangeError {
        let reason = failed.reason();
        match failed {
            Failure::NoAnswer(none) => ExchangeError::Passing {
                error: none.error,
                retry_after: none.retry_after,
            },
            Failure::Refused { code, .. } if is_final(&code) => {
                let why = match code.as_str() {
                    "invalid_grant" => "the login is over: it ended, or was revoked",
                    "invalid_client" => "the authorization server does not accept client_id and client_secret",
                    _ => "the authorization server does not let this client_id renew tokens",
                };
                ExchangeError::Dead(self.needs_login(&format!("{why} ({reason})")))
            }
            Failure::Refused { .. } => passing(Error::bad_data(format!(
                "{PURPOSE}: the authorization server refused ({reason})"
            ))),
        }
    }
}

fn passing(error: Error) -> ExchangeError {
    ExchangeError::Passing {
        error,
        retry_after: None,
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
