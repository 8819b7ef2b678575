//! Puts one remote's rooms together, from the credential up to the file system.

use std::sync::Arc;

use super::{MountSpec, Stage, StartError};
use crate::api::{Api, PlainHttp};
use crate::auth::{Anonymous, Authenticator, GivenSecrets, StaticToken};
use crate::config::ResolvedRemote;
use crate::control::CacheReport;
use crate::fetch::Fetcher;
use crate::fs::{FileSystem, FsSettings};
use crate::model::{Error, Result};
use crate::net::{Dialect, Transport, TransportSettings};
use crate::outbox::StagingArea;
use crate::paths::Paths;
use crate::provider::Provider;
use crate::provider::registry::ProviderSpec;
use crate::state::StateDb;

/// A remote that answered and accepted the credential, ready to be mounted.
pub struct Stack {
    pub fs: Arc<FileSystem>,
    pub authenticator: Arc<dyn Authenticator>,
}

impl Stack {
    /// Asks the provider before anything is mounted: a wrong token is told now and not by the first `ls`.
    pub async fn build(mount: &MountSpec, paths: &Paths, given: &GivenSecrets) -> Result<Self, StartError> {
        let options = &mount.options;
        let remote = Remote::open(&mount.remote, TransportSettings::within(options.op_timeout), given).await?;
        let root = remote.provider.probe().await.map_err(Stage::Probe.failed())?;
        let local = Stage::Local.failed();
        let state = Arc::new(StateDb);
        let fetcher = Arc::new(Fetcher::shim(Arc::clone(&remote.provider)));
        let staging = StagingArea::open(&paths.staging()).map_err(&local)?;
        let settings = FsSettings {
            read_only: options.read_only,
            uid: options.uid,
            gid: options.gid,
            umask: options.umask,
            attr_ttl: options.attr_ttl,
        };
        Ok(Self {
            fs: Arc::new(FileSystem::new(
                remote.provider,
                fetcher,
                staging,
                state,
                root,
                settings,
            )),
            authenticator: remote.authenticator,
        })
    }

    pub fn cache_report(&self) -> CacheReport {
        CacheReport::default()
    }
}

/// A provider and who asks it.
pub struct Remote {
    pub provider: Arc<dyn Provider>,
    pub authenticator: Arc<dyn Authenticator>,
}

impl Remote {
    /// Reads the secret source; asks the provider nothing yet.
    pub async fn open(
        remote: &ResolvedRemote,
        patience: TransportSettings,
        given: &GivenSecrets,
    ) -> Result<Self, StartError> {
        let authenticator = authenticator(&remote.provider, given)
            .await
            .map_err(Stage::Credential.failed())?;
        let opened = (|| {
            let api = Arc::new(Api::new(
                remote.endpoint.clone(),
                plain_http(remote),
                Transport::new(patience)?,
                Arc::clone(&authenticator),
                dialect(&remote.provider)?,
            )?);
            provider(remote, api)
        })();
        Ok(Self {
            provider: opened.map_err(Stage::Local.failed())?,
            authenticator,
        })
    }
}

async fn authenticator(spec: &ProviderSpec, given: &GivenSecrets) -> Result<Arc<dyn Authenticator>> {
    Ok(match spec.token() {
        Some((source, placement)) => Arc::new(StaticToken::open(source.clone(), placement, given.clone()).await?),
        None => Arc::new(Anonymous),
    })
}

/// Without a credential there is none to protect.
fn plain_http(remote: &ResolvedRemote) -> PlainHttp {
    if remote.insecure || remote.provider.secret_source().is_none() {
        PlainHttp::Anywhere
    } else {
        PlainHttp::LoopbackOnly
    }
}

fn dialect(spec: &ProviderSpec) -> Result<Arc<dyn Dialect>> {
    Err(Error::unsupported(format!("{} has not landed", spec.kind())))
}

fn provider(remote: &ResolvedRemote, _api: Arc<Api>) -> Result<Arc<dyn Provider>> {
    Err(Error::unsupported(format!("{} has not landed", remote.provider.kind())))
}
