//! `keys revoke`: takes a key away, unless somebody here would miss it.

use super::super::arguments::RevokeArguments;
use super::super::terminal::ask_whether;
use super::{Exit, Failure, Service, printable, uses};
use crate::control::Daemons;
use crate::model::ErrorKind;
use crate::paths::Paths;
use crate::provider::keys::{CurrentKey, KeyInfo};

pub async fn run(arguments: &RevokeArguments, paths: &Paths) -> Result<Exit, Failure> {
    let service = Service::open(&arguments.source, paths).await?;
    let done = revoke(&service, arguments, paths).await;
    service.manager.close().await;
    done
}

async fn revoke(service: &Service, arguments: &RevokeArguments, paths: &Paths) -> Result<Exit, Failure> {
    let key = service
        .manager
        .show(&arguments.key)
        .await
        .map_err(|error| service.failed(error))?;
    if !arguments.yes {
        if let Some(user) = user_of(service, &key, paths).await? {
            return Err(Failure::new(
                Exit::Busy,
                format!(
                    "{user}, so nothing was revoked; replace it with: keymount keys rotate {}, or revoke it all the same \
                     with --yes",
                    super::quoted(&service.remote.name)
                ),
            ));
        }
        let grants = key
            .grants
            .as_ref()
            .map_or_else(|| "?".to_owned(), |grants| printable(&grants.to_string()));
        if !ask_whether(
            &format!("Revoke the key {} ({grants})", printable(&key.name)),
            "revoked",
        )? {
            eprintln!("nothing was revoked");
            return Ok(Exit::Other);
        }
    }
    service
        .manager
        .revoke(&key.id)
        .await
        .map_err(|error| service.failed(error))?;
    println!("{}: revoked the key {}", service.remote.name, printable(&key.name));
    Ok(Exit::Done)
}

/// Who would be without a key, as a sentence.
async fn user_of(service: &Service, wanted: &KeyInfo, paths: &Paths) -> Result<Option<String>, Failure> {
    let (remote, key) = (&service.remote.name, printable(&wanted.name));
    let daemons = Daemons::find(paths).await?;
    let mounts = service.mounts(&daemons, wanted);
    if let Some((_, mount)) = mounts.into_iter().find(|(_, mount)| uses(mount, wanted)) {
        return Ok(Some(format!(
            "{} is mounted with the key {key}",
            mount.directory.display()
        )));
    }
    let told = |key: &CurrentKey| matches!(key, CurrentKey::Told(own) if own.id == wanted.id);
    let has_own = service.remote.provider.secret_source().is_some();
    let own = service.own_key_if_any().await?;
    if told(&own) {
        return Ok(Some(format!("{key} is the key that the remote {remote} uses")));
    }
    let managing = match service.manager.current().await {
        Ok(managing) => managing,
        Err(error) if error.kind() == ErrorKind::Unsupported => CurrentKey::Untold,
        Err(error) => return Err(service.failed(error)),
    };
    if told(&managing) {
        return Ok(Some(format!("{key} is the key that manages the keys of {remote}")));
    }
    Ok((has_own && own == CurrentKey::Untold)
        .then(|| format!("it cannot be told whether {key} is the key that the remote {remote} uses")))
}
