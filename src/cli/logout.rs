//! `logout`: forgets what `login` got for a remote, also in the daemons that use it, and revokes it where that is possible.

use super::arguments::LogoutArguments;
use super::exit::{Exit, Failure};
use super::login::{Keepable, keepable, mounts_of, oauth};
use super::{given_secrets, secrets_of};
use crate::auth::StoredSecret;
use crate::auth::oauth::{OauthSpec, Revoked};
use crate::config::ResolvedRemote;
use crate::control::Daemons;
use crate::daemon::oauth_client;
use crate::model::{ErrorKind, Result};
use crate::paths::Paths;

pub async fn run(arguments: &LogoutArguments, paths: &Paths) -> Result<Exit, Failure> {
    let (_, remote, keepable) = keepable(&arguments.remote, paths)?;
    let name = &remote.name;
    let mut failure = None;
    let forgotten = match forget(&remote, keepable, paths).await? {
        Ok(forgotten) => forgotten,
        Err(untold) => {
            failure = Some(untold);
            "forgotten here".to_owned()
        }
    };
    println!("{name}: {forgotten}");
    if let Some(manager) = remote.provider.keys_identity()
        && let Some(stored) = manager.source.stored()
        && stored
            .remove()
            .await
            .map_err(|error| Failure::new(Exit::Credentials, error.message()).about(name))?
    {
        println!("{name}: the {} that manages its keys is forgotten, too", manager.word);
    }
    let daemons = Daemons::find(paths).await?;
    for (daemon, mount) in mounts_of(&daemons, name) {
        let shown = mount.directory.display();
        if !mount.credential.is_kept() {
            println!("{shown}: was mounted with the token from elsewhere, and goes on with it");
            continue;
        }
        let given = given_secrets(mount.credential.variables.iter().map(String::as_str));
        match daemon.refresh(mount.id, &given).await {
            Err(error) if error.kind() == ErrorKind::NeedsLogin => {
                println!("{shown}: needs a login now; to unmount it run: keymount umount {shown}");
            }
            Err(error) => failure = Some(Failure::from(error).about(shown)),
            Ok(now) => println!("{shown}: credential {}", now.credential.state),
        }
    }
    failure.map_or(Ok(Exit::Done), Err)
}

/// Forgets what `login` kept. The inner failure: it is forgotten, and the authorization server could not be told.
pub async fn forget(
    remote: &ResolvedRemote,
    keepable: Keepable,
    paths: &Paths,
) -> Result<Result<String, Failure>, Failure> {
    match keepable {
        Keepable::Token(stored) => forget_token(remote, &stored).await.map(Ok),
        Keepable::Grant(oauth) => forget_grant(remote, &oauth, paths).await,
    }
}

async fn forget_token(remote: &ResolvedRemote, stored: &StoredSecret) -> Result<String, Failure> {
    let there_was_one = stored
        .remove()
        .await
        .map_err(|error| Failure::new(Exit::Credentials, error.message()).about(&remote.name))?;
    if let Some(kept) = remote.provider.kept_token() {
        kept.remove()
            .await
            .map_err(|error| Failure::new(Exit::Credentials, error.message()).about(&remote.name))?;
    }
    Ok(if there_was_one {
        format!(
            "forgotten here; the provider still accepts the token until you revoke it {}",
            remote.provider.revocation()
        )
    } else {
        "there was nothing to forget".to_owned()
    })
}

/// First here, so that nobody renews it any more, then at the authorization server. The inner failure: the server could
/// not be told.
async fn forget_grant(
    remote: &ResolvedRemote,
    oauth: &OauthSpec,
    paths: &Paths,
) -> Result<Result<String, Failure>, Failure> {
    let given = secrets_of(remote);
    let taken = oauth::keeper(oauth, paths).take(&given, oauth::TURN).await;
    let taken = taken.map_err(|error| Failure::new(Exit::Credentials, error.message()).about(&remote.name))?;
    let Some(grant) = taken else {
        return Ok(Ok("there was nothing to forget".to_owned()));
    };
    let revoked = match oauth_client(remote, oauth) {
        Ok(client) => client.revoke(grant.refresh.as_ref(), &grant.access, &given).await,
        Err(error) => Err(error),
    };
    let place = remote.provider.revocation();
    Ok(match revoked {
        Ok(Revoked::Told) => Ok(format!("revoked at {}, and forgotten here", remote.provider.title())),
        Ok(Revoked::NotOffered) => Ok(format!(
            "forgotten here; {} takes no revocation from programs, so end the access {place}",
            remote.provider.title()
        )),
        Err(error) => Err(Failure::new(
            Failure::from(error.clone()).exit,
            format!("the authorization server could not be told ({error}); end the access {place}"),
        )
        .about(&remote.name)),
    })
}
