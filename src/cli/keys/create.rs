//! `keys create`: a new key, whose secret goes to exactly one place.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};

use super::super::arguments::CreateArguments;
use super::time::expiry;
use super::{Exit, Failure, Service, printable};
use crate::auth::{Existing, SecretFile};
use crate::model::{Error, ErrorKind};
use crate::paths::{Paths, absolute};
use crate::provider::keys::{GrantForm, KeyCapabilities, KeyGrants, KeyRequest};

/// Where the secret goes.
enum Destination {
    File(Box<SecretFile>),
    StandardOutput,
}

pub async fn run(arguments: &CreateArguments, paths: &Paths) -> Result<Exit, Failure> {
    check_name(&arguments.name)?;
    let expires = expiry(arguments.expires)?;
    let destination = destination(arguments)?;
    let service = Service::open(&arguments.source, paths).await?;
    let done = create(&service, arguments, expires, destination).await;
    service.manager.close().await;
    done
}

async fn create(
    service: &Service,
    arguments: &CreateArguments,
    expires: Option<SystemTime>,
    destination: Destination,
) -> Result<Exit, Failure> {
    let request = request(arguments, expires, service.manager.capabilities())?;
    let key = match service.manager.create(&request).await {
        Ok(key) => key,
        Err(error) => return Err(not_made(service, &request.name, error)),
    };
    let name = printable(&key.info.name);
    let stored = match destination {
        Destination::File(file) => {
            let path = file.path().to_path_buf();
            write(*file, &key.secret).map(|()| format!("; its secret is in {}", path.display()))
        }
        Destination::StandardOutput => print(&key.secret).map(|()| String::new()),
    };
    match stored {
        Ok(place) => {
            let grants = printable(&request.grants.to_string());
            eprintln!(
                "{}: made the key {name}, which may: {grants}{place}",
                service.remote.name
            );
            Ok(Exit::Done)
        }
        Err(error) => Err(match service.manager.revoke(&key.info.id).await {
            Ok(()) => Failure::from(error).with_repair("the key was revoked again"),
            Err(_) => Failure::from(error).with_repair(format!(
                "the key was made and nobody has its secret; remove it: {}",
                service.removal(&key.info.id)
            )),
        }),
    }
}

/// # Errors
/// For a name that no key has.
fn check_name(name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.starts_with('-') || name.chars().any(char::is_control) {
        let sentence = "a key's name doesn't begin with '-' and has no control characters";
        return Err(Failure::new(Exit::Usage, sentence));
    }
    Ok(())
}

/// # Errors
/// For a limit that the provider's keys don't have, and without one that they need.
fn request(
    arguments: &CreateArguments,
    expires: Option<SystemTime>,
    can: KeyCapabilities,
) -> Result<KeyRequest, Failure> {
    let asked = [
        (expires.is_some() && !can.expiry, "--expires"),
        (arguments.ttl.is_some() && !can.idle_limit, "--ttl"),
        (!arguments.allow_address.is_empty() && !can.addresses, "--allow-address"),
    ];
    if let Some((_, option)) = asked.iter().find(|(missing, _)| *missing) {
        return Err(refused(&format!("this provider's keys have nothing like {option}")));
    }
    Ok(KeyRequest {
        name: arguments.name.clone(),
        grants: grants(arguments, can.grants)?,
        expires,
        idle_limit: arguments.ttl,
        addresses: arguments.allow_address.clone(),
    })
}

fn grants(arguments: &CreateArguments, form: GrantForm) -> Result<KeyGrants, Failure> {
    let buckets = !arguments.read.is_empty() || !arguments.write.is_empty();
    let words: BTreeSet<String> = arguments.permission.iter().cloned().collect();
    match form {
        GrantForm::Everything if buckets || !words.is_empty() => Err(refused(
            "this provider's keys may do everything that their owner may, and cannot be limited",
        )),
        GrantForm::Everything => Ok(KeyGrants::Everything),
        GrantForm::Buckets if !words.is_empty() => Err(refused(
            "this provider's keys have no --permission; say --read BUCKET, --write BUCKET or --full-access",
        )),
        GrantForm::Buckets if arguments.full_access => Ok(KeyGrants::Everything),
        GrantForm::Buckets if buckets => Ok(KeyGrants::buckets(
            arguments.read.iter().cloned(),
            arguments.write.iter().cloned(),
        )),
        GrantForm::Buckets => Err(refused(
            "say what it may do: --read BUCKET, --write BUCKET or --full-access",
        )),
        GrantForm::Permissions(known) => {
            let known_words = known.join(", ");
            if arguments.full_access && !buckets {
                return Ok(KeyGrants::Permissions(
                    known.iter().map(|word| (*word).to_owned()).collect(),
                ));
            }
            if buckets || words.is_empty() {
                return Err(refused(&format!(
                    "say what it may do with --permission, once for each of: {known_words}; or with --full-access"
                )));
            }
            match words.iter().find(|word| !known.contains(&word.as_str())) {
                Some(word) => Err(refused(&format!(
                    "{word:?} is no permission of this provider; there are {known_words}"
                ))),
                None => Ok(KeyGrants::Permissions(words)),
            }
        }
    }
}

fn refused(why: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{why}; nothing was made"))
}

fn destination(arguments: &CreateArguments) -> Result<Destination, Failure> {
    match (&arguments.write_to, arguments.print) {
        (Some(file), _) => Ok(Destination::File(Box::new(SecretFile::prepare(
            &absolute(file),
            Existing::Refuse,
        )?))),
        (None, true) => Ok(Destination::StandardOutput),
        (None, false) => Err(Failure::new(
            Exit::Usage,
            "the secret is told once: say where it goes, with --write-to FILE, or with --print to standard output; \
             nothing was made",
        )),
    }
}

/// Whoever made a key of this name before keeps it: what may be there is left to the person.
fn not_made(service: &Service, name: &str, error: Error) -> Failure {
    let unknown = matches!(
        error.kind(),
        ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::BadData
    );
    let failure = service.failed(error);
    if unknown {
        failure.with_repair(format!(
            "if it was made all the same, nobody has its secret; look with: keymount keys list {}; and remove it: {}",
            super::quoted(&service.remote.name),
            service.removal(name)
        ))
    } else {
        failure
    }
}

fn write(mut file: SecretFile, secret: &SecretString) -> Result<(), Error> {
    file.write(secret)?;
    file.install()
}

fn print(secret: &SecretString) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", secret.expose_secret())
        .and_then(|()| stdout.flush())
        .map_err(|error| Error::from(error).context("standard output"))
}
