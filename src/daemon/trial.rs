//! Asking a remote without mounting it, for `doctor` and `remote test`.

use std::time::{Duration, SystemTime};

use super::Stage;
use super::StartError;
use super::stack::Remote;
use crate::auth::GivenSecrets;
use crate::config::ResolvedRemote;
use crate::model::{Result, Rights};
use crate::net::{TransportSettings, reach};

/// How long a trial may go without progress: shorter than a mount's, because a person waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a remote answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// On the directory that would be mounted.
    pub rights: Rights,
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
pub async fn try_remote(remote: &ResolvedRemote, given: &GivenSecrets) -> Result<Trial, StartError> {
    let opened = Remote::open(remote, TransportSettings::within(PATIENCE), given).await?;
    let root = opened.provider.probe().await.map_err(Stage::Probe.failed())?;
    Ok(Trial { rights: root.rights })
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
