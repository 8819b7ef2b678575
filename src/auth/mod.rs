//! Identity: secrets, where they come from, and the credential of the moment.
//!
//! It knows no provider's endpoints; `api` joins it with `net`.

mod secret_file;
mod secret_source;
mod static_token;
pub mod store;

pub use secret_file::{Existing, SecretFile};
pub use secret_source::{GivenSecrets, SecretSource};
pub use static_token::{Anonymous, StaticToken, TokenPlacement};
pub use store::{SecretStore, StoreSpec, StoredSecret};

use std::time::SystemTime;

use async_trait::async_trait;
use serde::Serialize;

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
}
