//! A token that the person has: asks for it, has the provider check it, keeps it.

use crate::auth::StoredSecret;
use crate::cli::arguments::LoginArguments;
use crate::cli::exit::{Exit, Failure};
use crate::cli::secrets_of;
use crate::cli::terminal::{capitalised, read_secret};
use crate::config::ResolvedRemote;
use crate::daemon::try_token;
use crate::paths::Paths;

/// Says what was kept, and where.
pub async fn get(
    arguments: &LoginArguments,
    remote: &ResolvedRemote,
    stored: &StoredSecret,
    paths: &Paths,
) -> Result<String, Failure> {
    let (name, word) = (&remote.name, remote.provider.secret_word());
    if arguments.no_browser || arguments.device {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "{name} has a secret of its own, the {word}; --no-browser and --device are for auth.method = \"oauth\""
            ),
        ));
    }
    let token = read_secret(&format!("{} for {name}", capitalised(word)), word)?;
    let checked = if arguments.no_check {
        "not checked".to_owned()
    } else {
        let trial = try_token(remote, paths, &token, &secrets_of(remote))
            .await
            .map_err(|error| {
                Failure::new(Failure::from(error.clone()).exit, error.error.message())
                    .about(format!("{name}: nothing was stored"))
            })?;
        format!("good, rights {}", trial.rights)
    };
    stored
        .put(&token, &secrets_of(remote))
        .await
        .map_err(|error| Failure::new(Exit::Credentials, error.message()).about(name))?;
    Ok(format!("the {word} is {checked}, and kept in {}", stored.place()))
}
