//! `remote`: which remotes are configured, and whether one would work.

use comfy_table::{Table, presets};

use super::arguments::{RemoteArguments, RemoteCommand};
use super::exit::{Exit, Failure};
use super::mount::resolve;
use super::secrets_of;
use crate::auth::SecretSource;
use crate::config::Config;
use crate::daemon::try_remote;
use crate::paths::Paths;
use crate::provider::registry::Identity;

pub async fn run(arguments: &RemoteArguments, paths: &Paths) -> Result<Exit, Failure> {
    match &arguments.command {
        RemoteCommand::List => list(paths),
        RemoteCommand::Test { source } => test(source, paths).await,
    }
}

fn list(paths: &Paths) -> Result<Exit, Failure> {
    let config = Config::load(paths)?;
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["REMOTE", "PROVIDER", "ENDPOINT", "TOKEN"]);
    let mut count = 0;
    for (name, remote) in config.remotes() {
        let token = match (remote.provider.identity(), remote.provider.secret_source()) {
            (Identity::Oauth(oauth), _) => SecretSource::Stored(oauth.kept.clone()).to_string(),
            (_, Some(source)) => source.to_string(),
            (_, None) => "none".to_owned(),
        };
        table.add_row([name, remote.provider.kind(), remote.endpoint.as_str(), &token]);
        count += 1;
    }
    if count == 0 {
        println!("no remotes are configured in {}", config.path().display());
    } else {
        println!("{table}");
    }
    Ok(Exit::Done)
}

async fn test(source: &str, paths: &Paths) -> Result<Exit, Failure> {
    let (_, remote) = resolve(source, paths)?;
    let label = remote.label();
    let trial = try_remote(&remote, paths, &secrets_of(&remote))
        .await
        .map_err(|error| Failure::from(error).about(&label))?;
    println!("{label}: the provider answers, rights {}", trial.rights);
    Ok(Exit::Done)
}
