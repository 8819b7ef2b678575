//! `remote add`: asks, tries, keeps the secret, writes the configuration, and leads into the login where there is one.

use secrecy::SecretString;

use super::answers::{Answers, Asking};
use super::arguments::AddArguments;
use crate::auth::{GivenSecrets, StoreSpec, StoredSecret};
use crate::cli::arguments::LoginArguments;
use crate::cli::exit::{Exit, Failure};
use crate::cli::terminal::{self, capitalised, read_secret};
use crate::cli::{environment, login, secrets_of};
use crate::config::{Config, NewRemote, Place, ResolvedRemote};
use crate::daemon::{StartError, Trial, try_remote, try_token};
use crate::paths::Paths;
use crate::provider::registry::{Identity, Need, Secret};

/// A secret that was given and is kept nowhere yet.
struct Given {
    secret: &'static Secret,
    value: SecretString,
}

pub async fn run(arguments: &AddArguments, paths: &Paths) -> Result<Exit, Failure> {
    let asking = Asking::with(arguments);
    // A malformed file is told before anybody types anything.
    let config = current(paths)?;
    let taken = |name: &str| config.iter().flat_map(Config::remotes).any(|(known, _)| known == name);
    if let Some(name) = arguments.name.as_deref().filter(|name| taken(name)) {
        return Err(Failure::new(
            Exit::Configuration,
            format!("there is a remote {name} already; choose another name, or run: keymount remote remove {name}"),
        ));
    }
    let mut answers = Answers::get(arguments, asking)?;
    let (new, remote) = loop {
        answers.complete(asking, &taken)?;
        let with_places = with_stores(&answers, arguments);
        let new = with_places.remote();
        match Config::with(paths, &new).and_then(|config| config.resolve(&new.name, &environment)) {
            Ok(remote) => break (new, remote),
            Err(error) if asking == Asking::All => {
                eprintln!("{error}. Please answer again; Enter keeps an answer.");
                if taken(&new.name) || !is_name(&new.name) {
                    answers.name = None;
                }
            }
            Err(error) => return Err(error.into()),
        }
    };
    let consent = matches!(remote.provider.identity(), Identity::Oauth(_));
    let mut given = read_optional(&answers, asking)?;
    let main = answers
        .method
        .main_secret()
        .filter(|main| !answers.places.contains_key(main.key));
    if let Some(main) = main {
        given.insert(0, checked(main, &remote, arguments, asking, paths).await?);
    } else if !arguments.no_check && !consent {
        let trial = try_remote(&remote, paths, &secrets_of(&remote)).await;
        settle(&remote, trial, asking)?;
    }
    let stores = if given.is_empty() {
        Vec::new()
    } else {
        stores(arguments, asking, &new.name).await?
    };
    save(answers, arguments, given, stores, paths).await?;
    let name = &new.name;
    println!("{name}: written to {}", paths.config_file().0.display());
    if consent {
        return lead_into_login(name, arguments, asking, paths).await;
    }
    println!("to mount it run: keymount mount {name} DIR");
    Ok(Exit::Done)
}

/// The configuration as it is; one that was named and isn't there will be made.
fn current(paths: &Paths) -> Result<Option<Config>, Failure> {
    match paths.config_file().0.try_exists() {
        Ok(true) => Ok(Some(Config::load(paths)?)),
        _ => Ok(None),
    }
}

fn is_name(name: &str) -> bool {
    !name.contains([':', '/', ' ']) && !name.trim_matches('.').is_empty()
}

/// The places of secrets that keymount itself will keep, as far as known: which store it is doesn't change the rest.
fn with_stores(answers: &Answers, arguments: &AddArguments) -> Answers {
    let place = if arguments.keyring {
        Place::Keyring
    } else {
        Place::Stored
    };
    let mut answers = answers.clone();
    if let Some(main) = answers.method.main_secret() {
        answers.places.entry(main.key).or_insert(place);
    }
    answers
}

/// Secrets that a method may do without.
fn read_optional(answers: &Answers, asking: Asking) -> Result<Vec<Given>, Failure> {
    let mut given = Vec::new();
    for secret in answers.method.secrets {
        let Need::Optional(meaning) = secret.need else { continue };
        if answers.places.contains_key(secret.key) || asking != Asking::All {
            continue;
        }
        let prompt = format!("{} [{meaning}]", capitalised(secret.word));
        if let Some(value) = terminal::read_optional_secret(&prompt)? {
            given.push(Given { secret, value });
        }
    }
    Ok(given)
}

/// The person's own secret, tried at the provider.
async fn checked(
    secret: &'static Secret,
    remote: &ResolvedRemote,
    arguments: &AddArguments,
    asking: Asking,
    paths: &Paths,
) -> Result<Given, Failure> {
    loop {
        let value = read_secret(
            &format!("{} for {}", capitalised(secret.word), remote.name),
            secret.word,
        )?;
        if arguments.no_check {
            return Ok(Given { secret, value });
        }
        let trial = try_token(remote, paths, &value, &secrets_of(remote)).await;
        let is_refused = trial
            .as_ref()
            .is_err_and(|error| Failure::from(error.clone()).exit == Exit::Credentials);
        if let (true, Err(error), true) = (is_refused, &trial, asking != Asking::Nobody) {
            eprintln!("{}", error.error.message());
            if terminal::confirm(&format!("Type the {} again", secret.word))? {
                continue;
            }
        }
        settle(remote, trial, asking)?;
        return Ok(Given { secret, value });
    }
}

/// Says what the credential may do; a person may save a remote that doesn't work yet.
fn settle(remote: &ResolvedRemote, trial: Result<Trial, StartError>, asking: Asking) -> Result<(), Failure> {
    match trial {
        Ok(trial) => {
            println!("{}: {}", remote.name, super::told(&trial));
            Ok(())
        }
        Err(error) => {
            let failure = Failure::new(Failure::from(error.clone()).exit, error.error.message());
            if asking != Asking::Nobody {
                eprintln!("it doesn't work yet: {}", failure.message());
                if terminal::confirm("Save it all the same")? {
                    return Ok(());
                }
            }
            Err(failure.about(format!("{}: nothing was written", remote.name)))
        }
    }
}

/// Where what was given may be kept, the best place first.
async fn stores(arguments: &AddArguments, asking: Asking, name: &str) -> Result<Vec<Place>, Failure> {
    if arguments.keyring {
        return Ok(vec![Place::Keyring]);
    }
    if asking == Asking::Nobody {
        return Ok(vec![Place::Stored]);
    }
    // A keyring that answers is one.
    let keyring = StoreSpec::Keyring.open(&GivenSecrets::default());
    if keyring.get(name, "token").await.is_err() {
        return Ok(vec![Place::Stored]);
    }
    let choices = [
        ("keyring", "the OS keyring, for as long as your session lasts"),
        (
            "stored",
            "a file of keymount's own, closed to others; also for mounts at boot",
        ),
    ];
    Ok(
        match terminal::choose("Where shall keymount keep it", &choices, Some(0))? {
            0 => vec![Place::Keyring],
            _ => vec![Place::Stored],
        },
    )
}

/// Keeps the secrets, then writes the remote; what was kept for nothing is forgotten again.
async fn save(
    mut answers: Answers,
    arguments: &AddArguments,
    given: Vec<Given>,
    stores: Vec<Place>,
    paths: &Paths,
) -> Result<(), Failure> {
    let place = stores.into_iter().next().unwrap_or(Place::Stored);
    for Given { secret, .. } in &given {
        answers.places.insert(secret.key, place.clone());
    }
    let new: NewRemote = with_stores(&answers, arguments).remote();
    let config = Config::with(paths, &new)?;
    let remote = config.resolve(&new.name, &environment)?;
    let passphrase = secrets_of(&remote);
    let mut kept: Vec<StoredSecret> = Vec::new();
    for Given { secret, value } in &given {
        let Some(store) = place.store(config.files()) else {
            continue;
        };
        let stored = StoredSecret {
            remote: new.name.clone(),
            field: secret.key.to_owned(),
            store,
        };
        if let Err(error) = stored.put(value, &passphrase).await {
            forget(&kept).await;
            return Err(
                Failure::new(Exit::Credentials, error.message()).about(format!("{}: nothing was written", new.name))
            );
        }
        println!("{}: the {} is kept in {}", new.name, secret.word, stored.place());
        kept.push(stored);
    }
    if let Err(error) = Config::add(paths, &new) {
        forget(&kept).await;
        return Err(error.into());
    }
    Ok(())
}

async fn forget(kept: &[StoredSecret]) {
    for stored in kept {
        if let Err(error) = stored.remove().await {
            eprintln!("keymount: a secret stays in {}: {error}", stored.place());
        }
    }
}

async fn lead_into_login(name: &str, arguments: &AddArguments, asking: Asking, paths: &Paths) -> Result<Exit, Failure> {
    if asking == Asking::Nobody || arguments.no_check {
        println!("to grant access run: keymount login {name}");
        return Ok(Exit::Done);
    }
    let login = LoginArguments::of(name);
    login::run(&login, paths)
        .await
        .map_err(|failure| failure.with_repair(format!("it is configured; to try again run: keymount login {name}")))?;
    let config = Config::load(paths)?;
    let remote = config.resolve(name, &environment)?;
    let trial = try_remote(&remote, paths, &secrets_of(&remote))
        .await
        .map_err(|error| Failure::from(error).about(name))?;
    println!("{name}: {}", super::told(&trial));
    println!("to mount it run: keymount mount {name} DIR");
    Ok(Exit::Done)
}
