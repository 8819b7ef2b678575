//! `keys`: the provider's keys, listed, made, replaced and revoked. No secret is printed but by `create --print`.

mod create;
mod list;
mod revoke;
mod rotate;
mod time;

use super::arguments::{KeysArguments, KeysCommand};
use super::exit::{Exit, Failure};
use super::mount::resolve;
use super::{given_secrets, printable};
use crate::auth::GivenSecrets;
use crate::config::ResolvedRemote;
use crate::control::{Daemon, Daemons, MountReport};
use crate::daemon::{KeyHolder, OpenKeys, open_keys};
use crate::model::{Error, ErrorKind};
use crate::paths::Paths;
use crate::provider::keys::{CurrentKey, KeyInfo};
pub use time::{Ending, parse_life};

pub async fn run(arguments: &KeysArguments, paths: &Paths) -> Result<Exit, Failure> {
    match &arguments.command {
        KeysCommand::List { source, json } => {
            let service = Service::open(source, paths).await?;
            let done = list::run(&service, *json).await;
            service.manager.close().await;
            done
        }
        KeysCommand::Create(arguments) => create::run(arguments, paths).await,
        KeysCommand::Rotate(arguments) => rotate::run(arguments, paths).await,
        KeysCommand::Revoke(arguments) => revoke::run(arguments, paths).await,
    }
}

/// A remote's API for keys, asked with the credential that may manage them.
struct Service {
    remote: ResolvedRemote,
    paths: Paths,
    given: GivenSecrets,
    manager: OpenKeys,
}

impl Service {
    async fn open(source: &str, paths: &Paths) -> Result<Self, Failure> {
        let (_, remote) = resolve(source, paths)?;
        Self::of(remote, paths).await
    }

    async fn of(remote: ResolvedRemote, paths: &Paths) -> Result<Self, Failure> {
        let given = given_secrets(remote.key_variables());
        let manager = open_keys(&remote, paths, KeyHolder::Manager, &given)
            .await
            .map_err(|error| Failure::from(error).about(&remote.name))?;
        Ok(Self {
            remote,
            paths: paths.clone(),
            given,
            manager,
        })
    }

    /// The key that the remote is mounted with.
    async fn own_key(&self) -> Result<CurrentKey, Failure> {
        let own = open_keys(&self.remote, &self.paths, KeyHolder::Remote, &self.given)
            .await
            .map_err(|error| Failure::from(error).about(&self.remote.name))?;
        let current = own.current().await;
        own.close().await;
        current.map_err(|error| self.failed(error))
    }

    /// As `own_key`; a credential that isn't there or isn't accepted is no key in use.
    async fn own_key_if_any(&self) -> Result<CurrentKey, Failure> {
        if self.remote.provider.secret_source().is_none() {
            return Ok(CurrentKey::Untold);
        }
        match self.own_key().await {
            Err(failure) if failure.exit == Exit::Credentials => Ok(CurrentKey::Untold),
            outcome => outcome,
        }
    }

    /// With what repairs it: a key that may manage keys.
    fn failed(&self, error: Error) -> Failure {
        let denied = error.kind() == ErrorKind::Denied;
        let failure = Failure::from(error);
        let name = &self.remote.name;
        let repaired = match (denied, self.remote.provider.keys_identity().map(|keys| keys.source)) {
            (false, _) => failure,
            (true, Some(source)) => failure.with_repair(format!(
                "keys are managed with a key that has full access; put one where [remotes.{name}.keys_auth] reads it: {source}"
            )),
            (true, None) if !self.remote.provider.has_keys_auth() => failure.with_repair(format!(
                "the key that {name} uses may not do that; keys are managed in the provider's dashboard, too"
            )),
            (true, None) if name.contains("://") => failure.with_repair(
                "keys are managed with a key that has full access; configure this remote with a name and a [keys_auth]",
            ),
            (true, None) => failure.with_repair(format!(
                "keys are managed with a key that has full access; name one in the configuration: \
                 [remotes.{name}.keys_auth] with method = \"token\" and token = {{ file = \"…\" }}"
            )),
        };
        repaired.about(name)
    }

    /// The command that removes a key, for messages.
    fn removal(&self, key: &str) -> String {
        format!("keymount keys revoke {} {}", quoted(&self.remote.name), quoted(key))
    }

    /// This user's mounts of this service: those of the remote, and all that use the key.
    fn mounts<'a>(&self, daemons: &'a Daemons, key: &KeyInfo) -> Vec<(&'a Daemon, &'a MountReport)> {
        let endpoint = self.remote.endpoint.as_str();
        daemons
            .mounts()
            .filter(|(_, mount)| {
                mount.endpoint == endpoint && (mount.remote_name() == self.remote.name || uses(mount, key))
            })
            .collect()
    }
}

fn uses(mount: &MountReport, key: &KeyInfo) -> bool {
    let used = mount.credential.key.as_ref();
    used.is_some_and(|used| used.id == key.id || (used.id.is_empty() && used.name == key.name))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '@' | '%' | '+');
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_messages_can_be_pasted() {
        assert_eq!(quoted("laptop-17"), "laptop-17");
        assert_eq!(quoted("my key"), "'my key'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
