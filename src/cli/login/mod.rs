//! `login`: gets what a remote's credential is made of from a person, keeps it, and heals the mounts that need it.

mod browser;
mod manager;
pub mod oauth;
mod token;

use super::arguments::LoginArguments;
use super::exit::{Exit, Failure};
use super::{environment, given_secrets, refresh};
use crate::auth::oauth::OauthSpec;
use crate::auth::{SecretSource, StoredSecret};
use crate::config::{Config, ResolvedRemote};
use crate::control::{Daemon, Daemons, MountReport};
use crate::paths::Paths;
use crate::provider::registry::Identity;

/// What `login` gets and `logout` forgets.
pub enum Keepable {
    /// A token that the person has.
    Token(StoredSecret),
    /// What an authorization server gives when the person agrees.
    Grant(Box<OauthSpec>),
}

pub async fn run(arguments: &LoginArguments, paths: &Paths) -> Result<Exit, Failure> {
    if arguments.keys {
        return manager::get(arguments, paths).await;
    }
    let (config, remote, keepable) = keepable(&arguments.remote, paths)?;
    let kept = match keepable {
        Keepable::Token(stored) => token::get(arguments, &remote, &stored, paths).await?,
        Keepable::Grant(oauth) => oauth::get(arguments, &config, &remote, &oauth, paths).await?,
    };
    println!("{}: {kept}", remote.name);
    heal(&remote.name, paths).await
}

/// Has every mount of the remote go on with what is kept now.
async fn heal(name: &str, paths: &Paths) -> Result<Exit, Failure> {
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

/// The remote and what keymount keeps for it, if that is for keymount to keep.
///
/// # Errors
/// Otherwise with where the token is kept and what to change.
pub fn keepable(typed: &str, paths: &Paths) -> Result<(Config, ResolvedRemote, Keepable), Failure> {
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
    if let Some(oauth) = oauth_of(&remote) {
        return Ok((config, remote, Keepable::Grant(oauth)));
    }
    let source = match remote.provider.secret_source() {
        None => return refuse(format!("{name} needs no token: its auth.method is none")),
        Some(SecretSource::Stored(stored)) => {
            let stored = stored.clone();
            return Ok((config, remote, Keepable::Token(stored)));
        }
        Some(source) => source,
    };
    refuse(format!(
        "the token of {name} is in {source}: change it there and run: keymount refresh {name} (or have keymount keep it: \
         write token = {{ stored = true }} or {{ keyring = true }} in {})",
        config.path().display()
    ))
}

/// How the remote's access is granted, if a person grants it at an authorization server.
pub fn oauth_of(remote: &ResolvedRemote) -> Option<Box<OauthSpec>> {
    match remote.provider.identity() {
        Identity::Oauth(oauth) => Some(Box::new(oauth.clone())),
        _ => None,
    }
}

/// The mounts of a remote, by one's own daemons: others have stores of their own.
pub fn mounts_of<'a>(daemons: &'a Daemons, remote: &str) -> Vec<(&'a Daemon, &'a MountReport)> {
    daemons
        .mounts()
        .filter(|(daemon, mount)| daemon.is_own() && mount.remote_name() == remote)
        .collect()
}
