//! `remote`: which remotes are configured, whether one would work, and another one.

mod add;
mod answers;
pub mod arguments;
mod remove;
mod show;

use comfy_table::{Table, presets};

use super::exit::{Exit, Failure};
use super::mount::resolve;
use super::secrets_of;
use crate::auth::SecretSource;
use crate::config::{Config, listed};
use crate::daemon::{Trial, try_remote};
use crate::paths::Paths;
use crate::provider::registry::Identity;
use arguments::{RemoteArguments, RemoteCommand};

pub async fn run(arguments: &RemoteArguments, paths: &Paths) -> Result<Exit, Failure> {
    match &arguments.command {
        RemoteCommand::Add(arguments) => add::run(arguments, paths).await,
        RemoteCommand::List => list(paths),
        RemoteCommand::Show { remote, json } => show::run(remote, *json, paths).await,
        RemoteCommand::Remove { remote, yes } => remove::run(remote, *yes, paths).await,
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
        println!(
            "no remotes are configured in {}; run: keymount remote add",
            config.path().display()
        );
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
    println!("{label}: {}", told(&trial));
    Ok(Exit::Done)
}

/// What a provider answered, as the end of a sentence.
fn told(trial: &Trial) -> String {
    let rights = trial.rights;
    let may: Vec<&str> = [
        (rights.read, "read"),
        (rights.write, "write"),
        (rights.delete, "delete"),
    ]
    .into_iter()
    .filter_map(|(may, word)| may.then_some(word))
    .collect();
    let may = match may.is_empty() {
        true => "see that it is there".to_owned(),
        false => listed(&may),
    };
    let mut text = format!("the provider answers, rights {rights}: it may {may}");
    if let Some(environment) = trial.environment {
        text.push_str(&format!("; it is for {environment}"));
    }
    if let Some(key) = &trial.key {
        text.push_str(&format!("; the key is called {}", super::printable(&key.name)));
    }
    text
}
