//! `login --keys`: asks for the credential that manages a remote's keys, has the provider check it, and keeps it.

use super::super::arguments::LoginArguments;
use super::super::exit::{Exit, Failure};
use super::super::terminal::read_secret;
use super::super::{environment, given_secrets};
use crate::auth::{GivenSecrets, SecretSource, StoredSecret};
use crate::config::{Config, ResolvedRemote};
use crate::daemon::{KeyHolder, open_keys};
use crate::model::Error;
use crate::paths::Paths;

/// Keeps the credential that manages keys, after a look at the keys with it.
pub async fn get(arguments: &LoginArguments, paths: &Paths) -> Result<Exit, Failure> {
    let (remote, stored, word) = stored_manager(&arguments.remote, paths)?;
    let name = &remote.name;
    let secret = read_secret(&format!("The {word} that manages the keys of {name}"), word)?;
    let checked = if arguments.no_check {
        "not checked".to_owned()
    } else {
        let nothing = |error: &Error| {
            Failure::new(Failure::from(error.clone()).exit, error.message())
                .about(format!("{name}: nothing was stored"))
        };
        let manager = open_keys(&remote, paths, KeyHolder::NewManager(&secret), &GivenSecrets::default())
            .await
            .map_err(|error| nothing(&error.error))?;
        let listed = manager.list().await;
        manager.close().await;
        let keys = listed.map_err(|error| nothing(&error))?;
        format!("good, there are {} keys", keys.len())
    };
    stored
        .put(&secret, &given_secrets(remote.key_variables()))
        .await
        .map_err(|error| Failure::new(Exit::Credentials, error.message()).about(name))?;
    println!("{name}: the {word} is {checked}, and kept in {}", stored.place());
    Ok(Exit::Done)
}

/// The remote, the place of its credential for keys, and what a person calls that, if its place is a store of ours.
///
/// # Errors
/// Otherwise with where it is kept and what to change.
fn stored_manager(typed: &str, paths: &Paths) -> Result<(ResolvedRemote, StoredSecret, &'static str), Failure> {
    let config = Config::load(paths)?;
    let remote = config.resolve(typed, &environment)?;
    let name = &remote.name;
    let why = match remote.provider.keys_identity() {
        Some(keys) => match keys.source {
            SecretSource::Stored(stored) => {
                let (stored, word) = (stored.clone(), keys.word);
                return Ok((remote, stored, word));
            }
            source => format!(
                "the {} that manages the keys of {name} is in {source}: change it there",
                keys.word
            ),
        },
        None if remote.provider.has_keys_auth() => format!(
            "{name} names no credential for keys; put [remotes.{name}.keys_auth] with {{ stored = true }} into {}",
            config.path().display()
        ),
        None => format!("{} has no credential of its own for keys", remote.provider.kind()),
    };
    Err(Failure::new(Exit::Configuration, why))
}
