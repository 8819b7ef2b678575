//! `keys create`: a new key, whose secret goes to exactly one place.

use std::io::Write;
use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};

use super::super::arguments::CreateArguments;
use super::{Exit, Failure, Service, printable};
use crate::auth::{Existing, SecretFile};
use crate::model::{Error, ErrorKind};
use crate::paths::{Paths, absolute};
use crate::provider::keys::{KeyCapabilities, KeyGrants, KeyRequest};

/// Where the secret goes.
enum Destination {
    File(Box<SecretFile>),
    StandardOutput,
}

pub async fn run(arguments: &CreateArguments, paths: &Paths) -> Result<Exit, Failure> {
    let request = request(arguments)?;
    let destination = destination(arguments)?;
    let service = Service::open(&arguments.source, paths).await?;
    within(&request, service.manager.capabilities())?;
    let key = match service.manager.create(&request).await {
        Ok(key) => key,
        Err(error) => return Err(not_made(&service, &request.name, error)),
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
        Err(error) => Err(match service.manager.revoke(&request.name).await {
            Ok(()) => Failure::from(error).with_repair("the key was revoked again"),
            Err(_) => Failure::from(error).with_repair(format!(
                "the key was made and nobody has its secret; remove it: {}",
                service.removal(&request.name)
            )),
        }),
    }
}

fn request(arguments: &CreateArguments) -> Result<KeyRequest, Failure> {
    let usage = |sentence: &str| Err(Failure::new(Exit::Usage, sentence));
    let name = &arguments.name;
    if name.is_empty() || name.starts_with('-') || name.chars().any(char::is_control) {
        return usage("a key's name doesn't begin with '-' and has no control characters");
    }
    let now = SystemTime::now();
    let expires = match arguments.expires.map(|ending| ending.from(now)) {
        None => None,
        Some(Some(at)) if at > now => Some(at),
        Some(_) => return usage("--expires is in the past, or beyond all calendars"),
    };
    Ok(KeyRequest {
        name: name.clone(),
        grants: if arguments.full_access {
            KeyGrants::Everything
        } else {
            KeyGrants::buckets(arguments.read.iter().cloned(), arguments.write.iter().cloned())
        },
        expires,
        idle_limit: arguments.ttl,
        addresses: arguments.allow_address.clone(),
    })
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

/// # Errors
/// For a limit that the provider's keys don't have.
fn within(request: &KeyRequest, can: KeyCapabilities) -> Result<(), Failure> {
    let asked = [
        (request.expires.is_some() && !can.expiry, "--expires"),
        (request.idle_limit.is_some() && !can.idle_limit, "--ttl"),
        (!request.addresses.is_empty() && !can.addresses, "--allow-address"),
    ];
    match asked.iter().find(|(missing, _)| *missing) {
        None => Ok(()),
        Some((_, option)) => Err(Failure::new(
            Exit::Usage,
            format!("this provider's keys have nothing like {option}; nothing was made"),
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
