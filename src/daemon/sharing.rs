//! A tree that machines share: where its index is, and who opens that.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::stack::{Holder, plain_http};
use crate::api::Api;
use crate::auth::{Authenticator, GivenSecrets};
use crate::config::{ResolvedRemote, WithoutLogin};
use crate::model::{Error, Result};
use crate::net::{Transport, TransportSettings};
use crate::outbox::conflict;
use crate::paths::Paths;
use crate::provider::dstor::{Index, Sharing, SharingSettings};
use crate::provider::register::Register;
use crate::provider::registry::{ProviderSpec, RemotePath, SharedPlace};

/// A look at the shared index is good for the tenth part of the time for which attributes are believed, at most this.
const LONGEST_FRESHNESS: Duration = Duration::from_secs(1);

/// A tree's index at another remote.
pub struct SharedTree {
    register: Arc<dyn Register>,
    freshness: Duration,
    authenticator: Arc<dyn Authenticator>,
}

/// The same, being shared.
#[derive(Clone)]
pub struct SharedIndex {
    pub sharing: Arc<Sharing>,
    authenticator: Arc<dyn Authenticator>,
}

impl SharedTree {
    /// Reads the other remote's secret source; asks nobody yet.
    ///
    /// # Errors
    /// As the secret source fails, with the remote's name.
    pub async fn open(
        holder: &ResolvedRemote,
        place: &SharedPlace,
        paths: &Paths,
        patience: TransportSettings,
        given: &GivenSecrets,
        attr_ttl: Duration,
    ) -> Result<Self> {
        let named = |error: Error| error.context(format_args!("the remote {:?} of the shared index", holder.name));
        let identity = Holder::open(holder, paths, patience, WithoutLogin::Wait, given)
            .await
            .map_err(named)?;
        let authenticator = identity.authenticator();
        let register = register(holder, &place.path, patience, identity).map_err(named)?;
        Ok(Self {
            register,
            freshness: (attr_ttl / 10).min(LONGEST_FRESHNESS),
            authenticator,
        })
    }

    /// From now on what is changed in the index is sent.
    pub fn start(self, index: Arc<dyn Index>) -> SharedIndex {
        let settings = SharingSettings {
            host: conflict::host(),
            freshness: self.freshness,
        };
        SharedIndex {
            sharing: Sharing::start(self.register, index, settings),
            authenticator: self.authenticator,
        }
    }
}

impl SharedIndex {
    /// Sends what the others don't have, as long as that can succeed within this time.
    pub async fn settle(&self, patience: Duration) {
        if !self.sharing.has_pending() {
            return;
        }
        let settled = tokio::time::timeout(patience, self.sharing.settle(patience)).await;
        if !matches!(settled, Ok(Ok(()))) && self.sharing.has_pending() {
            warn!(
                place = self.sharing.place(),
                "changes of the tree are not in the shared index yet; the next mount sends them"
            );
        }
    }

    /// Reads the other remote's secret source anew.
    ///
    /// # Errors
    /// As that fails.
    pub async fn refresh(&self, given: &GivenSecrets) -> Result<()> {
        let refreshed = self.authenticator.refresh(given).await;
        refreshed.map_err(|error| error.context("the remote of the shared index"))
    }

    pub async fn close(&self) {
        self.authenticator.close().await;
    }
}

fn register(
    remote: &ResolvedRemote,
    path: &RemotePath,
    patience: TransportSettings,
    holder: Holder,
) -> Result<Arc<dyn Register>> {
    let api = Arc::new(Api::new(
        remote.endpoint.clone(),
        plain_http(remote),
        Transport::new(patience)?,
        holder.authenticator(),
        super::stack::dialect(&remote.provider),
    )?);
    match &remote.provider {
        ProviderSpec::S3(_) => Ok(super::stack::s3(remote, api, holder)?.register(path.names())),
        ProviderSpec::Webdav(_) => Ok(super::stack::webdav(remote, api)?.register(path.names())),
        other => Err(Error::unsupported(format!("{} holds no shared index", other.title()))),
    }
}
