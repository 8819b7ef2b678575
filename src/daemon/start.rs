//! Gets a daemon's mounts up, each on its own: neither a provider that doesn't answer nor a defect in one holds up another.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tracing::warn;

use super::hosted::{HostedMount, remove_made};
use super::stack::{Common, Stack};
use super::{DaemonSpec, MountSpec, NotMounted, OnFailure, Stage, StartError, end_all};
use crate::auth::GivenSecrets;
use crate::model::Error;

/// What came of it.
pub struct Started {
    pub mounts: Vec<Arc<HostedMount>>,
    /// Only where the others go on without them.
    pub failed: Vec<NotMounted>,
    pub common: Arc<Common>,
}

/// Builds and probes all of them, at once, before the first is mounted.
pub async fn start(spec: &DaemonSpec, given: &GivenSecrets) -> Result<Started, StartError> {
    let common = Common::open(&spec.paths, &spec.mounts)
        .await
        .map_err(Stage::Local.failed())?;
    let common = Arc::new(common);
    let mut failed = Vec::new();
    let building = spec.mounts.iter().map(|mount| {
        let (mount, common, given) = (mount.clone(), Arc::clone(&common), given.clone());
        alone(async move { Stack::build(&mount, &common, &given).await })
    });
    let mut stacks = Vec::new();
    for (mount, built) in spec.mounts.iter().zip(join_all(building).await) {
        match built {
            Ok(stack) => stacks.push((mount, stack)),
            Err(error) => failed.push(given_up(spec, mount, error)?),
        }
    }
    let mut mounts = Vec::new();
    for (mount, stack) in stacks {
        let (owned, paths) = (mount.clone(), spec.paths.clone());
        let started = alone(async move { HostedMount::start(owned, &paths, stack).await }).await;
        match started.map_err(|error| given_up(spec, mount, error)) {
            Ok(hosted) => mounts.push(hosted),
            Err(Ok(told)) => failed.push(told),
            Err(Err(error)) => {
                end_all(&mounts, Duration::ZERO).await;
                return Err(error);
            }
        }
    }
    Ok(Started { mounts, failed, common })
}

/// In a task of its own: a panic ends this work and nothing else.
async fn alone<T: Send + 'static>(
    work: impl Future<Output = Result<T, StartError>> + Send + 'static,
) -> Result<T, StartError> {
    tokio::spawn(work).await.unwrap_or_else(|_| {
        let defect = Error::internal("a defect of keymount ended it; the log says where");
        Err(Stage::Local.failed()(defect))
    })
}

/// The failure as it is told, or as the end of all.
fn given_up(spec: &DaemonSpec, mount: &MountSpec, error: StartError) -> Result<NotMounted, StartError> {
    match spec.on_failure {
        OnFailure::NothingIsMounted => Err(error),
        OnFailure::OthersGoOn => {
            let remote = mount.remote.label();
            warn!(remote, %error, "not mounted");
            remove_made(mount);
            Ok(NotMounted { remote, error })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_of_one() {
        assert!(matches!(alone(async { Ok(1) }).await, Ok(1)));
        let failed = alone::<()>(async { panic!("a defect") }).await.unwrap_err();
        assert_eq!(failed.stage, Stage::Local);
        assert!(failed.error.message().contains("a defect of keymount"));
    }
}
