//! `login`: asks for a remote's token, has the provider check it, keeps it, and heals the mounts that need it.

use super::arguments::LoginArguments;
use super::exit::{Exit, Failure};
use super::terminal::read_secret;
use super::{environment, given_secrets, refresh, secrets_of};
use crate::auth::{SecretSource, StoredSecret};
use crate::config::{Config, ResolvedRemote};
use crate::control::{Daemon, Daemons, MountReport};
use crate::daemon::try_token;
use crate::paths::Paths;

pub async fn run(arguments: &LoginArguments, paths: &Paths) -> Result<Exit, Failure> {
    let (remote, stored) = stored_token(&arguments.remote, paths)?;
    let name = &remote.name;
    let token = read_secret(&format!("Token for {name}"))?;
    let checked = if arguments.no_check {
        "not checked".to_owned()
    } else {
        let trial = try_token(&remote, paths, &token).await.map_err(|error| {
            Failure::new(Failure::from(error.clone()).exit, error.error.message())
                .about(format!("{name}: nothing was stored"))
        })?;
        format!("good, rights {}", trial.rights)
    };
    stored
        .put(&token, &secrets_of(&remote))
        .await
        .map_err(|error| Failure::new(Exit::Credentials, error.message()).about(name))?;
    println!("{name}: the token is {checked}, and kept in {}", stored.place());
    let daemons = Daemons::find(paths).await?;
    let mut failure = None;
    for (daemon, mount) in mounts_of(&daemons, name) {
        let shown = mount.directory.display();
        let given = given_secrets(mount.credential.variables.iter().map(String::as_str));
        match daemon.refresh(mount.id, &given).await {
            Ok(now) if now.credential.is_kept() => {
                println!("{shown}: rights {}, credential {}", now.rights, now.credential.state);
            }
            Ok(_) => println!(
                "{shown}: was mounted with the token from elsewhere, and stays so; to change that, unmount and mount it again"
            ),
            Err(error) => {
                let failed = refresh::failed(error, mount);
                match failure {
                    None => failure = Some(failed),
                    Some(_) => eprintln!("keymount: {failed}"),
                }
            }
        }
    }
    failure.map_or(Ok(Exit::Done), Err)
}

/// The remote and the place of its token, if that is a store of ours.
///
/// # Errors
/// Otherwise with where the token is kept and what to change.
pub fn stored_token(typed: &str, paths: &Paths) -> Result<(ResolvedRemote, StoredSecret), Failure> {
    let refuse = |sentence: String| Err(Failure::new(Exit::Configuration, sentence));
    if typed.contains("://") {
        return refuse(format!(
            "keymount keeps tokens of configured remotes, and {typed} is an address; give it a name in {}",
            paths.config_file().0.display()
        ));
    }
    let config = Config::load(paths)?;
    let remote = config.resolve(typed, &environment)?;
    let name = remote.name.clone();
    let source = match remote.provider.secret_source() {
        None => return refuse(format!("{name} needs no token: its auth.method is none")),
        Some(SecretSource::Stored(stored)) => {
            let stored = stored.clone();
            return Ok((remote, stored));
        }
        Some(source) => source,
    };
    refuse(format!(
        "the token of {name} is in {source}: change it there and run: keymount refresh {name} (or have keymount keep it: \
         write token = {{ stored = true }} or {{ keyring = true }} in {})",
        config.path().display()
    ))
}

/// The mounts of a remote, by one's own daemons: others have stores of their own.
pub fn mounts_of<'a>(daemons: &'a Daemons, remote: &str) -> Vec<(&'a Daemon, &'a MountReport)> {
    daemons
        .mounts()
        .filter(|(daemon, mount)| daemon.is_own() && mount.remote_name() == remote)
        .collect()
}
