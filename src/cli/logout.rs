//! `logout`: forgets the token that keymount keeps for a remote, also in the daemons that use it.

use super::arguments::LogoutArguments;
use super::exit::{Exit, Failure};
use super::given_secrets;
use super::login::{mounts_of, stored_token};
use crate::control::Daemons;
use crate::model::ErrorKind;
use crate::paths::Paths;

pub async fn run(arguments: &LogoutArguments, paths: &Paths) -> Result<Exit, Failure> {
    let (remote, stored) = stored_token(&arguments.remote, paths)?;
    let name = &remote.name;
    let there_was_one = stored
        .remove()
        .await
        .map_err(|error| Failure::new(Exit::Credentials, error.message()).about(name))?;
    if there_was_one {
        println!(
            "{name}: forgotten here; the provider still accepts the token until you revoke it {}",
            remote.provider.revocation()
        );
    } else {
        println!("{name}: there was nothing to forget");
    }
    let daemons = Daemons::find(paths).await?;
    let mut failure = None;
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
