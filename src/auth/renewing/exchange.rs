//! Asking a service for the next token.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::auth::{GivenSecrets, Scopes};
use crate::model::Error;

/// What a service gave.
#[derive(Clone, Debug)]
pub struct Granted {
    pub access: SecretString,
    /// How long the token lives from when the request was sent; `None` when the service doesn't tell.
    pub life: Option<Duration>,
    /// What the next token is asked for with; `None` when it is the same as before, or when none is needed.
    pub refresh: Option<SecretString>,
    /// What the token may do; `None` when the service doesn't tell, which then is what was asked for.
    pub scopes: Option<Scopes>,
}

/// Why there is no next token.
#[derive(Clone, Debug)]
pub enum ExchangeError {
    /// The service says that what it is asked with is over or was never good: a person must act.
    Dead(Error),
    /// It may work later.
    Passing {
        error: Error,
        /// The wait that the service asks for.
        retry_after: Option<Duration>,
    },
}

/// Asks a service for tokens. One request for each call: whether and when there is another is the caller's affair.
#[async_trait]
pub trait Exchange: Send + Sync + 'static {
    /// The configuration's word for the method: `oauth`.
    fn method(&self) -> &'static str;

    /// The environment that the tokens are for, where the service has several: `testnet`.
    fn environment(&self) -> Option<&'static str> {
        None
    }

    /// A name for what the tokens are got with, without showing it: a token that was got with something else is not used.
    /// The same inputs give the same name in every process.
    ///
    /// # Errors
    /// As reading a secret source fails.
    async fn basis(&self, given: &GivenSecrets) -> Result<String, Error>;

    /// Asks for a token. `refresh` is the refresh token that is kept, if one is.
    ///
    /// # Errors
    /// `Dead` only when the service itself refused what it was asked with.
    async fn exchange(&self, refresh: Option<&SecretString>, given: &GivenSecrets) -> Result<Granted, ExchangeError>;
}
