//! Asking a remote without mounting it, for `doctor`, `login` and `remote test`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use secrecy::SecretString;

use super::Stage;
use super::StartError;
use super::stack::{Reach, Remote};
use crate::auth::{GivenSecrets, SecretSource};
use crate::config::{ResolvedRemote, WithoutLogin};
use crate::model::{Bandwidth, Result, Rights};
use crate::net::{TransportSettings, reach};
use crate::paths::{Paths, private_directory};
use crate::provider::keys::KeyInfo;
use crate::provider::registry::ProviderSpec;
use crate::state::StateDb;

/// How long a trial may go without progress: shorter than a mount's, because a person waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a token is that is kept nowhere yet; no variable has such a name.
const CANDIDATE: &str = "(given)";

/// What a remote answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// On the directory that would be mounted.
    pub rights: Rights,
    /// The environment that the credential is for, where it says so itself: `sandbox`.
    pub environment: Option<&'static str>,
    /// The key in use, where the provider tells it.
    pub key: Option<KeyInfo>,
}

/// The provider's clock beside this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The difference, whichever of them is ahead; the provider tells seconds only.
    Differs(Duration),
    NotTold,
}

/// Reads the secret source and asks the provider for the directory.
///
/// # Errors
/// With the step that failed, as a mount would.
pub async fn try_remote(remote: &ResolvedRemote, paths: &Paths, given: &GivenSecrets) -> Result<Trial, StartError> {
    let state = || {
        private_directory(paths.state())?;
        Ok(Arc::new(StateDb::open(&paths.state_database())?))
    };
    let opened = Remote::open(
        remote,
        paths,
        Reach {
            patience: TransportSettings::within(PATIENCE),
            bandwidth: Bandwidth::default(),
        },
        WithoutLogin::Fail,
        given,
        Duration::ZERO,
        state,
    )
    .await?;
    let root = opened.provider.probe().await;
    opened.authenticator.close().await;
    if let Some(shared) = &opened.shared {
        shared.close().await;
    }
    let root = root.map_err(Stage::Probe.failed())?;
    Ok(Trial {
        rights: root.rights,
        environment: opened.authenticator.environment(),
        key: opened.provider.current_key(),
    })
}

/// Like `try_remote`, with a token that is kept nowhere yet.
///
/// # Errors
/// With the step that failed.
pub async fn try_token(
    remote: &ResolvedRemote,
    paths: &Paths,
    token: &SecretString,
    given: &GivenSecrets,
) -> Result<Trial, StartError> {
    let (candidate, candidates_secret) = with_token(remote, token);
    let mut given = given.clone();
    given.merge(&candidates_secret);
    try_remote(&candidate, paths, &given).await
}

/// The same remote with a token that is kept nowhere, and what has to be given to read it.
pub(super) fn with_token(remote: &ResolvedRemote, token: &SecretString) -> (ResolvedRemote, GivenSecrets) {
    with_candidate(remote, token, ProviderSpec::with_token_from)
}

/// The same for the credential that manages keys.
pub(super) fn with_manager(remote: &ResolvedRemote, secret: &SecretString) -> (ResolvedRemote, GivenSecrets) {
    with_candidate(remote, secret, ProviderSpec::with_keys_from)
}

fn with_candidate(
    remote: &ResolvedRemote,
    secret: &SecretString,
    put: fn(ProviderSpec, SecretSource) -> ProviderSpec,
) -> (ResolvedRemote, GivenSecrets) {
    let mut given = GivenSecrets::default();
    given.insert(CANDIDATE, secret.clone());
    let candidate = ResolvedRemote {
        provider: put(remote.provider.clone(), SecretSource::Env(CANDIDATE.to_owned())),
        ..remote.clone()
    };
    (candidate, given)
}

/// Whether this is the place of a token that is kept nowhere yet.
pub(super) fn is_candidate(source: &SecretSource) -> bool {
    source.variable() == Some(CANDIDATE)
}

/// Asks the provider's host for the time, without any credential.
///
/// # Errors
/// `Unreachable` or `TimedOut`.
pub async fn clock_of(remote: &ResolvedRemote) -> Result<Clock> {
    let reached = reach(&remote.endpoint, PATIENCE).await?;
    let now = SystemTime::now();
    Ok(match reached.date {
        Some(date) => Clock::Differs(now.duration_since(date).unwrap_or_else(|ahead| ahead.duration())),
        None => Clock::NotTold,
    })
}
