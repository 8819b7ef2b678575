//! Opens a remote's API for keys, with one of the credentials that may ask.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::stack::{authenticator, dialect};
use super::trial::{with_manager, with_token};
use super::{Stage, StartError};
use crate::api::{Api, PlainHttp};
use crate::auth::{Authenticator, GivenSecrets, StaticToken, TokenKind};
use crate::config::{ResolvedRemote, WithoutLogin};
use crate::model::{Error, Result};
use crate::net::{Transport, TransportSettings};
use crate::paths::Paths;
use crate::provider::keys::KeyManager;
use crate::provider::registry::ProviderSpec;
use crate::provider::{cloudsync, reductstore, storra};

/// How long a call may go without progress: shorter than a mount's, because a person waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum KeyHolder<'a> {
    /// The credential that the remote is mounted with.
    Remote,
    /// The credential for keys, where the remote has one of its own, else the one that it is mounted with.
    Manager,
    /// A key that is kept nowhere yet.
    New(&'a SecretString),
    /// A credential for keys that is kept nowhere yet.
    NewManager(&'a SecretString),
}

/// A service's API for keys, and the credential that asks it.
pub struct OpenKeys {
    manager: Arc<dyn KeyManager>,
    authenticator: Arc<dyn Authenticator>,
}

impl OpenKeys {
    /// Finishes a renewal that began meanwhile: its refresh token would be lost if the process ended now.
    pub async fn close(&self) {
        self.authenticator.close().await;
    }
}

impl Deref for OpenKeys {
    type Target = dyn KeyManager;

    fn deref(&self) -> &Self::Target {
        &*self.manager
    }
}

/// Reads the secret source; asks the provider nothing yet. To be closed when all was asked.
///
/// # Errors
/// `Unsupported` where the provider has no API for keys, and as reading the source fails.
pub async fn open_keys(
    remote: &ResolvedRemote,
    paths: &Paths,
    holder: KeyHolder<'_>,
    given: &GivenSecrets,
) -> Result<OpenKeys, StartError> {
    let manager: fn(Arc<Api>) -> Arc<dyn KeyManager> = match &remote.provider {
        ProviderSpec::CloudSync(_) => |api| Arc::new(cloudsync::ApiKeys::new(api)),
        ProviderSpec::Reductstore(_) => |api| Arc::new(reductstore::Tokens::new(api)),
        ProviderSpec::Storra(_) => match (holder, remote.provider.keys_identity()) {
            (KeyHolder::Remote | KeyHolder::New(_), _) => |api| Arc::new(storra::KeyItself::new(api)),
            (KeyHolder::Manager | KeyHolder::NewManager(_), Some(_)) => |api| Arc::new(storra::DashboardKeys::new(api)),
            (KeyHolder::Manager | KeyHolder::NewManager(_), None) => {
                return Err(Stage::Local.failed()(no_session(remote)));
            }
        },
        ProviderSpec::Cludz(_) => {
            let why = "Cludz has no API for keys; make and revoke them in its dashboard";
            return Err(Stage::Local.failed()(Error::unsupported(why)));
        }
        spec => {
            let why = format!("{} has no API for keys that keymount knows", spec.kind());
            return Err(Stage::Local.failed()(Error::unsupported(why)));
        }
    };
    let (candidate, candidates_secret);
    let (remote, given) = match holder {
        KeyHolder::New(secret) => {
            (candidate, candidates_secret) = with_token(remote, secret);
            (&candidate, &candidates_secret)
        }
        KeyHolder::NewManager(secret) => {
            (candidate, candidates_secret) = with_manager(remote, secret);
            (&candidate, &candidates_secret)
        }
        KeyHolder::Remote | KeyHolder::Manager => (remote, given),
    };
    let patience = TransportSettings::within(PATIENCE);
    let held = match (holder, remote.provider.keys_identity()) {
        (KeyHolder::Manager | KeyHolder::NewManager(_), Some(keys)) => {
            StaticToken::open(keys.source.clone(), keys.placement, TokenKind::TOKEN, given.clone())
                .await
                .map(|token| Arc::new(token) as Arc<dyn Authenticator>)
        }
        _ => authenticator(remote, paths, patience, WithoutLogin::Fail, given).await,
    };
    let authenticator = held.map_err(Stage::Credential.failed())?;
    let plain_http = if remote.insecure {
        PlainHttp::Anywhere
    } else {
        PlainHttp::LoopbackOnly
    };
    let api = Transport::new(patience)
        .and_then(|transport| {
            let endpoint = remote.endpoint.clone();
            Api::new(
                endpoint,
                plain_http,
                transport,
                Arc::clone(&authenticator),
                dialect(&remote.provider),
            )
        })
        .map_err(Stage::Local.failed())?;
    Ok(OpenKeys {
        manager: manager(Arc::new(api)),
        authenticator,
    })
}

fn no_session(remote: &ResolvedRemote) -> Error {
    let name = match remote.name.contains("://") {
        true => "NAME",
        false => &remote.name,
    };
    Error::unsupported(format!(
        "Storra's keys are managed with a session of its dashboard, and this remote names none: put [remotes.{name}.keys_auth] \
         with method = \"session\" and cookie = {{ stored = true }} into the configuration, then: keymount login {name} --keys"
    ))
}
