//! Identity: secrets, where they come from, and the credential of the moment.
//!
//! It knows no provider's endpoints; `api` joins it with `net`.

pub mod env_file;
pub mod oauth;
pub mod renewing;
mod scopes;
mod secret_file;
mod secret_source;
mod static_token;
pub mod store;

pub use scopes::Scopes;
pub use secret_file::{Existing, SecretFile};
pub use secret_source::{GivenSecrets, SecretSource};
pub use static_token::{Anonymous, Rejection, StaticToken, TokenKind, TokenPlacement, marked};
pub use store::{SecretStore, StoreSpec, StoredSecret};

use std::time::SystemTime;

use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::watch;

use crate::model::Result;
use crate::net::Credential;

/// Counts the credentials that an authenticator had, so that a rejection names the one it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// A credential and its number.
#[derive(Clone, Debug)]
pub struct Presented {
    pub credential: Credential,
    pub generation: Generation,
}

/// Where a credential is in its life; what `status` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum CredentialState {
    /// Good as far as is known; `until` when it says so itself.
    Valid { until: Option<SystemTime> },
    /// Another one is being got.
    Renewing { until: Option<SystemTime> },
    /// It ended, and getting another one failed for now.
    Expired,
    /// There is none and none is needed.
    Anonymous,
    /// The provider refused it. Reading the secret sources again may help.
    Rejected,
    /// A person must act.
    NeedsLogin,
}

impl CredentialState {
    /// The same state with an end that the provider tells, where the credential doesn't know its own.
    pub fn ending(self, at: Option<SystemTime>) -> Self {
        match self {
            Self::Valid { until: None } => Self::Valid { until: at },
            other => other,
        }
    }
}

/// What keeping a credential usable took since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RenewalCounts {
    /// Tokens that this process got from the service.
    pub exchanges: u64,
    /// Tokens that another process got and this one took over.
    pub adoptions: u64,
    /// Requests for a token that failed.
    pub failures: u64,
    /// Operations that waited because there was no token that could be used.
    pub waits: u64,
}

/// What others must know of a credential to see that what it may do is to be found out anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Whether requests can be made with it now or as soon as it is renewed; not so when a person must act.
    pub usable: bool,
    pub scopes: Option<Scopes>,
}

/// What to do after a 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRejection {
    /// There is another credential now: try once more.
    TryAgain,
    GiveUp,
}

/// Keeps one credential usable.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The configuration's word for the method: `token`.
    fn method(&self) -> &'static str;

    /// The environment that the credential is for, where it says so itself: `sandbox`.
    fn environment(&self) -> Option<&'static str>;

    /// The credential's first characters, where its service shows them in lists to tell credentials apart.
    fn public_prefix(&self) -> Option<String>;

    /// Two bytes of a hash of a key that lives until somebody replaces it, to see that it is another one than before.
    fn mark(&self, _salt: &[u8]) -> Option<u16> {
        None
    }

    /// What the credential may do, where the service that issued it said so.
    fn scopes(&self) -> Option<Scopes>;

    /// What renewing took so far.
    fn counts(&self) -> RenewalCounts;

    /// The credential to use now.
    ///
    /// # Errors
    /// `NeedsLogin` when there is none.
    async fn present(&self) -> Result<Presented>;

    /// The provider refused the credential of this generation with 401.
    async fn rejected(&self, generation: Generation) -> AfterRejection;

    /// The provider accepted the credential of this generation.
    fn accepted(&self, generation: Generation);

    /// Reads the secret sources anew; `given` holds the caller's values of environment variables.
    ///
    /// # Errors
    /// `NeedsLogin` when a source has nothing, and as reading the source fails.
    async fn refresh(&self, given: &GivenSecrets) -> Result<()>;

    fn state(&self) -> CredentialState;

    /// Changes when the credential begins or ceases to be usable, and when it may do something else than before.
    fn vitals(&self) -> watch::Receiver<Vitals>;

    /// Finishes what would be lost if the process ended now. To be called before it does.
    async fn close(&self);
}
