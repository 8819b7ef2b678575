//! `refresh`: hands the caller's environment secrets to the daemon and has it ask the provider anew.

use std::path::Path;

use super::arguments::RefreshArguments;
use super::exit::{Exit, Failure};
use super::{given_secrets, locate};
use crate::control::{Daemon, Daemons, MountReport};
use crate::model::Error;
use crate::paths::Paths;

pub async fn run(arguments: &RefreshArguments, paths: &Paths) -> Result<Exit, Failure> {
    let daemons = Daemons::find(paths).await?;
    let mounts = targets(&daemons, &arguments.target);
    if mounts.is_empty() {
        return Err(Failure::new(
            Exit::NotMounted,
            format!(
                "keymount has nothing mounted that is called {:?}; see: keymount status",
                arguments.target
            ),
        ));
    }
    let mut failure = None;
    let refreshing = mounts.iter().map(|(daemon, mount)| async move {
        let given = given_secrets(mount.credential.variables.iter().map(String::as_str));
        daemon.refresh(mount.id, &given).await
    });
    // At once: one that doesn't answer holds nobody up.
    let outcomes = futures_util::future::join_all(refreshing).await;
    for ((_, mount), outcome) in mounts.into_iter().zip(outcomes) {
        match outcome {
            Ok(now) => println!(
                "{}: rights {}, credential {}",
                now.directory.display(),
                now.rights,
                now.credential.state
            ),
            Err(error) => {
                let failed = failed(error, mount);
                match failure {
                    None => failure = Some(failed),
                    Some(_) => eprintln!("keymount: {failed}"),
                }
            }
        }
    }
    failure.map_or(Ok(Exit::Done), Err)
}

/// With what repairs a credential: a new one where this mount reads it.
pub fn failed(error: Error, mount: &MountReport) -> Failure {
    let shown = mount.directory.display();
    let failure = Failure::from(error);
    let failure = match (failure.exit, mount.credential.variables.first()) {
        (Exit::Credentials, _) if failure.has_repair() => failure,
        (Exit::Credentials, _) if mount.credential.is_kept() => {
            failure.with_repair(format!("run: keymount login {}", mount.remote_name()))
        }
        (Exit::Credentials, Some(variable)) => failure.with_repair(format!(
            "set {variable} to a valid token and run: keymount refresh {shown}"
        )),
        (Exit::Credentials, None) => failure.with_repair(format!(
            "put a valid token where the remote reads it and run: keymount refresh {shown}"
        )),
        _ => failure,
    };
    failure.about(shown)
}

/// A directory, else the mounts of a remote with or without its path.
pub fn targets<'a>(daemons: &'a Daemons, target: &str) -> Vec<(&'a Daemon, &'a MountReport)> {
    let by_directory = locate::mounts_at(daemons, Path::new(target));
    if !by_directory.is_empty() {
        return by_directory;
    }
    daemons
        .mounts()
        .filter(|(_, mount)| mount.remote == target || mount.remote_name() == target)
        .collect()
}
