//! Puts one remote's rooms together, from the credential up to the file system.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::index::{namespace, tree_name};
use super::memory::{Keeping, MemoryBudget};
use super::sharing::{SharedIndex, SharedTree};
use super::trial::is_candidate;
use super::viewer::viewer;
use super::{MountSpec, Stage, StartError};
use crate::api::{Api, PlainHttp};
use crate::auth::oauth::{OauthClient, OauthSpec};
use crate::auth::renewing::{Exchange, Keeper, Renewing, Settings, SystemClock};
use crate::auth::{Anonymous, Authenticator, GivenSecrets, StaticToken, StoredSecret, TokenPlacement};
use crate::cache::{BlockCache, ContentId, DiskCache, Layered, MemoryCache};
use crate::config::{DiskCacheUse, MountOptions, ResolvedRemote, WithoutLogin};
use crate::control::{CacheReport, Emptied};
use crate::fetch::{FetchSettings, Fetcher};
use crate::fs::{CloseMeans, FileSystem, FsSettings, Owners};
use crate::model::{Bandwidth, Entry, Error, ErrorKind, Result};
use crate::net::{Dialect, Transport, TransportSettings};
use crate::outbox::{Spool, recover};
use crate::paths::{Paths, private_directory};
use crate::provider::cloudsync::{self, CloudSync};
use crate::provider::cludz::{self, Cludz};
use crate::provider::dstor::{self, Dstor, TempTokens};
use crate::provider::reductstore::{self, ReductStore};
use crate::provider::registry::{DstorSpec, Identity, ProviderSpec, RecordNames, WebdavAuth};
use crate::provider::s3::{self, AccessKeys, S3};
use crate::provider::storra::{self, Storra};
use crate::provider::webdav::{self, Webdav};
use crate::provider::{Awaited, ChmodEffect, Provider};
use crate::state::{PathIndex, Shared, StateDb};

/// The largest object that is verified as a whole in a temporary file, in bytes; a full disk says so earlier.
pub(super) const LARGEST_WHOLE: u64 = 64 << 30;

/// What all mounts of a daemon share.
pub struct Common {
    state: Arc<StateDb>,
    memory: Arc<MemoryCache>,
    budget: MemoryBudget,
    /// How many mounts share it.
    mounts: usize,
    disks: Vec<Disk>,
    paths: Paths,
}

/// A cache on disk.
struct Disk {
    folder: PathBuf,
    cache: Arc<DiskCache>,
    /// In bytes.
    cap: u64,
}

impl Common {
    /// Opens the state and the caches; a disk cache's cap is the largest that a mount asks for in its folder.
    pub async fn open(paths: &Paths, mounts: &[MountSpec]) -> Result<Self> {
        let mut caps = BTreeMap::new();
        for mount in mounts {
            if let DiskCacheUse::Limited(cap) = mount.options.disk_cache {
                let paths = cache_paths(paths, &mount.options);
                let (_, largest) = caps.entry(paths.blocks()).or_insert((paths, cap));
                *largest = cap.max(*largest);
            }
        }
        let all_on_disk = mounts.iter().all(|mount| mount.options.disk_cache != DiskCacheUse::Off);
        let (owned, mounts) = (paths.clone(), mounts.len());
        let opening = tokio::task::spawn_blocking(move || -> Result<Self> {
            private_directory(owned.state())?;
            let (folders, mut disks) = (caps.len(), Vec::new());
            for (folder, (paths, cap)) in caps {
                private_directory(paths.cache())?;
                // Without it everything works, only less fast.
                match DiskCache::open(&folder, cap) {
                    Ok(cache) => disks.push(Disk {
                        folder,
                        cache: Arc::new(cache),
                        cap,
                    }),
                    Err(error) => warn!(%error, "there is no cache on disk; what was read is kept in memory only"),
                }
            }
            let state = StateDb::open(&owned.state_database())?;
            if let Err(error) = recover(&owned.staging(), &state, &owned.unsent("unknown")) {
                warn!(%error, "what ended daemons left is not looked through");
            }
            let budget = MemoryBudget::here(Keeping::on_disk(all_on_disk && disks.len() == folders));
            Ok(Self {
                state: Arc::new(state),
                memory: Arc::new(MemoryCache::new(budget.cache)),
                budget,
                mounts,
                disks,
                paths: owned,
            })
        });
        opening
            .await
            .unwrap_or_else(|_| Err(Error::internal("opening the state was interrupted")))
    }

    fn disk(&self, options: &MountOptions) -> Option<&Disk> {
        let DiskCacheUse::Limited(_) = options.disk_cache else {
            return None;
        };
        let folder = cache_paths(&self.paths, options).blocks();
        self.disks.iter().find(|disk| disk.folder == folder)
    }

    fn cache(&self, options: &MountOptions) -> Arc<dyn BlockCache> {
        let memory = Arc::clone(&self.memory);
        match self.disk(options) {
            Some(disk) => Arc::new(Layered::new(memory, Arc::clone(&disk.cache) as Arc<dyn BlockCache>)),
            None => memory,
        }
    }

    /// Of the caches that a mount with these options uses; others may use them, too.
    pub fn report(&self, options: &MountOptions) -> CacheReport {
        let disk = self.disk(options);
        CacheReport {
            memory: self.memory.usage().bytes,
            memory_limit: self.budget.cache,
            in_flight_limit: self.budget.in_flight,
            disk: disk.map_or(0, |disk| disk.cache.usage().bytes),
            disk_limit: disk.map(|disk| disk.cap),
            folder: disk.map(|disk| disk.folder.clone()),
        }
    }

    /// Drops what was read, but for these versions.
    pub async fn empty(&self, keep: &HashSet<ContentId>) -> Emptied {
        let before = self.held();
        self.memory.clear(keep).await;
        for disk in &self.disks {
            disk.cache.clear(keep).await;
        }
        let kept = self.held();
        Emptied {
            freed: before.saturating_sub(kept),
            kept,
        }
    }

    /// In bytes.
    fn held(&self) -> u64 {
        let disks = self.disks.iter().map(|disk| disk.cache.usage().bytes);
        self.memory.usage().bytes + disks.sum::<u64>()
    }
}

/// Where a mount's cache is.
fn cache_paths(paths: &Paths, options: &MountOptions) -> Paths {
    match &options.cache_dir {
        Some(folder) => paths.with_cache(folder),
        None => paths.clone(),
    }
}

/// Whether the mounted directory was known when it was mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootAtStart {
    Known,
    /// Nobody was logged in; the first refresh that works finds it.
    Awaited,
}

/// A remote that answered and accepted the credential, ready to be mounted.
pub struct Stack {
    pub fs: Arc<FileSystem>,
    pub authenticator: Arc<dyn Authenticator>,
    pub root: RootAtStart,
    /// Where others change the same tree.
    pub shared: Option<SharedIndex>,
    common: Arc<Common>,
}

/// Only root can let others in as who they are; `uid=` and `gid=` say whose everything is.
fn owners(options: &MountOptions) -> Owners {
    let is_roots = rustix::process::geteuid().is_root() && (options.uid, options.gid) == (0, 0);
    if options.allow_other && is_roots {
        Owners::Kept
    } else {
        Owners::Mounter
    }
}

impl Stack {
    /// Asks the provider before anything is mounted: a wrong token is told now and not by the first `ls`.
    pub async fn build(mount: &MountSpec, common: &Arc<Common>, given: &GivenSecrets) -> Result<Self, StartError> {
        let options = &mount.options;
        let patience = TransportSettings::within(options.op_timeout);
        let state = || Ok(Arc::clone(&common.state));
        let remote = Remote::open(
            &mount.remote,
            &common.paths,
            Reach {
                patience,
                bandwidth: options.bandwidth,
            },
            options.without_login,
            given,
            options.attr_ttl,
            state,
        )
        .await?;
        let (provider, root, at_start) = find_root(remote.provider, options.without_login).await?;
        let staging_folder = common.paths.staging();
        private_directory(&staging_folder).map_err(Stage::Local.failed())?;
        let spool = Spool::open(&staging_folder)
            .and_then(|spool| spool.limited_to(options.staging_size))
            .map_err(Stage::Local.failed())?;
        let fetching = FetchSettings {
            spill_directory: staging_folder,
            spill_limit: LARGEST_WHOLE,
            memory: common.budget.in_flight_of_each(common.mounts),
        };
        let cache = common.cache(options);
        let fetcher = Arc::new(Fetcher::new(Arc::clone(&provider), cache, fetching));
        let settings = FsSettings {
            read_only: options.read_only,
            uid: options.uid,
            gid: options.gid,
            umask: options.umask,
            attr_ttl: options.attr_ttl,
            close: if options.sync {
                CloseMeans::Sent
            } else {
                CloseMeans::Journaled
            },
            remote: mount.remote.label(),
        };
        let state = Arc::clone(&common.state);
        let viewer = viewer(Arc::clone(&remote.authenticator), mount.remote.label());
        let fs = FileSystem::new(provider, fetcher, spool, state, root, settings)
            .with_owners(owners(options))
            .with_kept_listings(viewer);
        let fs = Arc::new(fs);
        Ok(Self {
            fs,
            authenticator: remote.authenticator,
            root: at_start,
            shared: remote.shared,
            common: Arc::clone(common),
        })
    }

    pub fn cache_report(&self, options: &MountOptions) -> CacheReport {
        self.common.report(options)
    }
}

/// How patiently a provider is asked, and how fast content moves.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    pub patience: TransportSettings,
    pub bandwidth: Bandwidth,
}

/// A provider and who asks it.
pub struct Remote {
    pub provider: Arc<dyn Provider>,
    pub authenticator: Arc<dyn Authenticator>,
    pub shared: Option<SharedIndex>,
}

impl Remote {
    /// Reads the secret source; asks the provider nothing yet. `state` is opened for a provider whose tree is kept here,
    /// and others' changes of that tree are seen when attributes aren't believed any more.
    pub async fn open(
        remote: &ResolvedRemote,
        paths: &Paths,
        reach: Reach,
        without_login: WithoutLogin,
        given: &GivenSecrets,
        attr_ttl: Duration,
        state: impl FnOnce() -> Result<Arc<StateDb>>,
    ) -> Result<Self, StartError> {
        let Reach { patience, bandwidth } = reach;
        let holder = Holder::open(remote, paths, patience, without_login, given)
            .await
            .map_err(Stage::Credential.failed())?;
        let shared = match (&remote.provider, &remote.shared_index) {
            (
                ProviderSpec::Dstor(DstorSpec {
                    shared: Some(place), ..
                }),
                Some(at),
            ) => Some(
                SharedTree::open(at, place, paths, patience, given, attr_ttl)
                    .await
                    .map_err(Stage::Credential.failed())?,
            ),
            _ => None,
        };
        let authenticator = holder.authenticator();
        let opened = (|| {
            let api = Arc::new(Api::new(
                remote.endpoint.clone(),
                plain_http(remote),
                Transport::new(patience)?.limited(bandwidth),
                Arc::clone(&authenticator),
                dialect(&remote.provider),
            )?);
            provider(remote, api, holder, shared, state)
        })();
        let (provider, shared) = opened.map_err(Stage::Local.failed())?;
        Ok(Self {
            provider,
            authenticator,
            shared,
        })
    }
}

/// Who holds a remote's credential.
pub(super) enum Holder {
    /// It travels with requests.
    Travelling(Arc<dyn Authenticator>),
    /// It signs them.
    Signing(Arc<AccessKeys>),
}

impl Holder {
    pub(super) async fn open(
        remote: &ResolvedRemote,
        paths: &Paths,
        patience: TransportSettings,
        without_login: WithoutLogin,
        given: &GivenSecrets,
    ) -> Result<Self> {
        match remote.provider.identity() {
            Identity::AccessKey(auth) => AccessKeys::open(auth.clone(), given.clone(), Transport::new(patience)?)
                .await
                .map(|keys| Self::Signing(Arc::new(keys))),
            _ => authenticator(remote, paths, patience, without_login, given)
                .await
                .map(Self::Travelling),
        }
    }

    pub(super) fn authenticator(&self) -> Arc<dyn Authenticator> {
        match self {
            Self::Travelling(authenticator) => Arc::clone(authenticator),
            Self::Signing(keys) => Arc::clone(keys) as Arc<dyn Authenticator>,
        }
    }
}

/// Who asks for a remote's files.
///
/// # Errors
/// As reading the secret source or the store fails.
pub async fn authenticator(
    remote: &ResolvedRemote,
    paths: &Paths,
    patience: TransportSettings,
    without_login: WithoutLogin,
    given: &GivenSecrets,
) -> Result<Arc<dyn Authenticator>> {
    Ok(match remote.provider.identity() {
        Identity::Anonymous => Arc::new(Anonymous),
        Identity::Token {
            source,
            placement,
            kind,
        } => {
            let (source, given) = (source.clone(), given.clone());
            Arc::new(match without_login {
                WithoutLogin::Fail => StaticToken::open(source, placement, kind, given).await?,
                WithoutLogin::Wait => StaticToken::open_waiting(source, placement, kind, given).await,
            })
        }
        Identity::AccessKey(auth) => {
            Arc::new(AccessKeys::open(auth.clone(), given.clone(), Transport::new(patience)?).await?)
        }
        identity @ (Identity::Oauth(_) | Identity::TempToken(_)) => {
            let kept = match identity {
                Identity::Oauth(oauth) => Some(&oauth.kept),
                Identity::TempToken(dstor) => dstor.kept.as_ref(),
                Identity::Anonymous | Identity::Token { .. } | Identity::AccessKey(_) => None,
            };
            let settings = renewal(remote, paths, patience, kept);
            let (exchange, given) = (exchange(remote, patience)?, given.clone());
            Arc::new(match without_login {
                WithoutLogin::Fail => Renewing::open(exchange, settings, given).await?,
                WithoutLogin::Wait => Renewing::open_waiting(exchange, settings, given).await,
            })
        }
    })
}

/// Who asks a remote's authorization server for tokens.
///
/// # Errors
/// `InvalidInput` for a server that no secret may be sent to.
pub fn oauth_client(remote: &ResolvedRemote, oauth: &OauthSpec) -> Result<OauthClient> {
    OauthClient::new(oauth.clone(), plain_http(remote))
}

/// The mounted directory, or one that may do nothing until somebody has logged in.
async fn find_root(
    provider: Arc<dyn Provider>,
    without_login: WithoutLogin,
) -> Result<(Arc<dyn Provider>, Entry, RootAtStart), StartError> {
    match provider.probe().await {
        Ok(root) => Ok((provider, root, RootAtStart::Known)),
        Err(error) if error.kind() == ErrorKind::NeedsLogin && without_login == WithoutLogin::Wait => {
            warn!(%error, "mounted without a credential; the directory works as soon as there is one");
            let root = Awaited::root().map_err(Stage::Local.failed())?;
            Ok((Arc::new(Awaited::new(provider, error)), root, RootAtStart::Awaited))
        }
        Err(error) => Err(Stage::Probe.failed()(error)),
    }
}

/// How a remote's tokens are renewed.
fn renewal(
    remote: &ResolvedRemote,
    paths: &Paths,
    patience: TransportSettings,
    kept: Option<&StoredSecret>,
) -> Settings {
    Settings {
        placement: TokenPlacement::Bearer,
        keeper: kept.map(|kept| Keeper::new(kept.clone(), paths.renewal_lock(&kept.remote))),
        clock: Arc::new(SystemClock),
        patience: patience.stall,
        repair: match remote.provider.secret_source() {
            Some(source) if source.stored().is_none() && !is_candidate(source) => {
                format!("change it in {source}, then run: keymount refresh {}", remote.label())
            }
            _ => format!("run: keymount login {}", remote.name),
        },
    }
}

/// Who gives a remote's tokens.
fn exchange(remote: &ResolvedRemote, patience: TransportSettings) -> Result<Arc<dyn Exchange>> {
    match remote.provider.identity() {
        Identity::Oauth(oauth) => Ok(Arc::new(oauth_client(remote, oauth)?)),
        Identity::TempToken(dstor) => Ok(Arc::new(TempTokens::new(
            dstor.network,
            &remote.endpoint,
            plain_http(remote),
            dstor.auth.clone(),
            Transport::new(patience)?,
            patience.stall,
        )?)),
        Identity::Anonymous | Identity::Token { .. } | Identity::AccessKey(_) => {
            Err(Error::internal("such a credential is not renewed"))
        }
    }
}

/// Without a credential there is none to protect.
pub(super) fn plain_http(remote: &ResolvedRemote) -> PlainHttp {
    if remote.insecure || remote.provider.identity() == Identity::Anonymous {
        PlainHttp::Anywhere
    } else {
        PlainHttp::LoopbackOnly
    }
}

pub fn dialect(spec: &ProviderSpec) -> Arc<dyn Dialect> {
    match spec {
        ProviderSpec::Cludz(_) => Cludz::dialect(),
        ProviderSpec::CloudSync(_) => CloudSync::dialect(),
        ProviderSpec::Storra(_) => Storra::dialect(),
        ProviderSpec::Dstor(_) => Dstor::dialect(),
        ProviderSpec::Reductstore(_) => ReductStore::dialect(),
        ProviderSpec::S3(_) => S3::dialect(),
        ProviderSpec::Webdav(_) => Webdav::dialect(),
    }
}

fn provider(
    remote: &ResolvedRemote,
    api: Arc<Api>,
    holder: Holder,
    shared: Option<SharedTree>,
    state: impl FnOnce() -> Result<Arc<StateDb>>,
) -> Result<(Arc<dyn Provider>, Option<SharedIndex>)> {
    let path = remote.path.names().to_vec();
    let provider: Arc<dyn Provider> = match &remote.provider {
        ProviderSpec::CloudSync(cloudsync) => Arc::new(CloudSync::new(
            api,
            cloudsync::Settings {
                workspace: cloudsync.workspace.clone(),
                path,
                rights_override: remote.rights,
            },
        )),
        ProviderSpec::Dstor(dstor) => {
            let tree = tree_name(remote);
            let with_others = if shared.is_some() { Shared::Yes } else { Shared::No };
            let index = Arc::new(PathIndex::open(state()?, &namespace(remote), with_others)?);
            let dstor = Dstor::new(
                api,
                Arc::clone(&index) as Arc<dyn dstor::Index>,
                dstor::Settings {
                    tree,
                    path,
                    rights_override: remote.rights,
                    on_unlink: dstor.on_unlink,
                    endpoints: dstor.endpoints.clone(),
                    import: dstor.index.clone(),
                    polling: dstor::Polling::default(),
                },
            );
            match shared {
                Some(shared) => {
                    let shared = shared.start(index);
                    return Ok((Arc::new(dstor.shared(Arc::clone(&shared.sharing))), Some(shared)));
                }
                None => Arc::new(dstor),
            }
        }
        ProviderSpec::Cludz(cludz) => Arc::new(Cludz::new(
            api,
            cludz::Settings {
                storage: cludz.storage,
                path,
                rights_override: remote.rights,
            },
        )),
        ProviderSpec::Storra(storra) => Arc::new(Storra::new(
            api,
            storra::Settings {
                path,
                rights_override: remote.rights,
                chmod: if storra.chmod_publishes {
                    ChmodEffect::Publishes
                } else {
                    ChmodEffect::KeptHere
                },
                freshness: storra::Freshness::Budgeted,
            },
        )),
        ProviderSpec::Reductstore(reductstore) => Arc::new(ReductStore::new(
            api,
            reductstore::Settings {
                bucket: reductstore.bucket.clone(),
                path,
                names: match reductstore.names {
                    RecordNames::Label => reductstore::NameMode::Label,
                    RecordNames::Timestamp => reductstore::NameMode::Timestamp,
                },
                rights_override: remote.rights,
            },
        )),
        ProviderSpec::S3(_) => Arc::new(s3(remote, api, holder)?),
        ProviderSpec::Webdav(_) => Arc::new(webdav(remote, api)?),
    };
    Ok((provider, None))
}

/// # Errors
/// As the bucket's name cannot be a directory's.
pub(super) fn s3(remote: &ResolvedRemote, api: Arc<Api>, holder: Holder) -> Result<S3> {
    let ProviderSpec::S3(s3) = &remote.provider else {
        return Err(Error::internal("this remote is no bucket"));
    };
    let keys = match holder {
        Holder::Signing(keys) => Some(keys),
        Holder::Travelling(_) => None,
    };
    let settings = s3::Settings {
        bucket: s3.bucket.clone(),
        region: s3.region.clone(),
        path: s3.prefix.names().iter().chain(remote.path.names()).cloned().collect(),
        rights_override: remote.rights,
        lease: s3::Lease::default(),
    };
    S3::new(api, keys, settings)
}

/// # Errors
/// Never in practice.
pub(super) fn webdav(remote: &ResolvedRemote, api: Arc<Api>) -> Result<Webdav> {
    let ProviderSpec::Webdav(webdav) = &remote.provider else {
        return Err(Error::internal("this remote is no WebDAV server"));
    };
    let settings = webdav::Settings {
        user: match &webdav.auth {
            WebdavAuth::Basic { username, .. } => Some(username.clone()),
            WebdavAuth::Bearer { .. } | WebdavAuth::None => None,
        },
        path: webdav.root.names().iter().chain(remote.path.names()).cloned().collect(),
        rights_override: remote.rights,
    };
    Webdav::new(api, settings)
}
