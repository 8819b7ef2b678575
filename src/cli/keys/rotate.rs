//! `keys rotate`: another key in place of the one that a remote is mounted with, while it stays mounted.
//!
//! The order is what makes it safe: the new key is made, proved, written down and taken by every mount before the old one
//! goes. Whatever fails or is killed, the key that the remote reads is one that works.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};

use super::super::arguments::RotateArguments;
use super::super::mount::resolve;
use super::time::expiry;
use super::{Exit, Failure, Service, given_secrets, printable, quoted, uses};
use crate::auth::{Existing, GivenSecrets, SecretFile, SecretSource, StoredSecret};
use crate::config::ResolvedRemote;
use crate::control::{Daemons, MountReport, seconds};
use crate::daemon::{KeyHolder, OpenKeys, open_keys};
use crate::model::{Error, ErrorKind};
use crate::paths::{Paths, absolute, private_directory};
use crate::provider::keys::{CurrentKey, KeyInfo, KeyOrigin, KeyRequest, KeyStanding, NewKey};

/// The fewest digits of a time in seconds behind a key's name: those of every second since 2001.
const TIME_DIGITS: usize = 10;
/// How many names are tried: one is taken only when another rotation was in the same second.
const MAX_NAMES: u32 = 10;

pub async fn run(arguments: &RotateArguments, paths: &Paths) -> Result<Exit, Failure> {
    let expires = expiry(arguments.expires)?;
    let (_, remote) = resolve(&arguments.source, paths)?;
    let (source, destination) = destination(&remote, arguments.write_to.as_deref())?;
    let _held = lock(&remote, paths)?;
    let place = destination.name();
    let destination = destination
        .prepare()
        .map_err(|error| Failure::from(error).about(&remote.name).with_repair("nothing was made"))?;
    let service = Service::of(remote, paths).await?;
    let plan = Plan {
        source,
        place,
        destination,
        expires,
    };
    let done = rotate(&service, plan, arguments.key.as_deref(), paths).await;
    service.manager.close().await;
    done
}

/// What is settled before the provider is asked.
struct Plan {
    source: SecretSource,
    /// The destination's name.
    place: String,
    destination: Prepared,
    /// The new key's end, if it isn't to be like the old one's.
    expires: Option<SystemTime>,
}

async fn rotate(service: &Service, plan: Plan, named: Option<&str>, paths: &Paths) -> Result<Exit, Failure> {
    let old = key_in_use(service, named).await?;
    let mut request = successor(&old, SystemTime::now()).map_err(|why| service.refused(why))?;
    if let Some(at) = plan.expires {
        if !service.manager.capabilities().expiry {
            return Err(service.refused("this provider's keys have no end".to_owned()));
        }
        request.expires = Some(at);
    }
    find_free_name(service, &mut request).await?;
    let rotation = Rotation {
        service,
        source: plan.source,
        place: plan.place,
        old,
        request,
    };
    let new = rotation.make().await?;
    let done = rotation.install(plan.destination, &new, paths).await;
    new.manager.close().await;
    done.map(|()| Exit::Done)
}

/// Where the new secret goes.
enum Destination {
    File(PathBuf),
    Store(StoredSecret),
}

/// The same, tried out.
enum Prepared {
    File(Box<SecretFile>),
    Store(StoredSecret),
}

impl Destination {
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Store(stored) => SecretSource::Stored(stored.clone()).to_string(),
        }
    }

    fn prepare(self) -> Result<Prepared, Error> {
        Ok(match self {
            Self::File(path) => Prepared::File(Box::new(SecretFile::prepare(&path, Existing::Replace)?)),
            // The old secret is read there before a new one is made, which takes the same folder and passphrase.
            Self::Store(stored) => Prepared::Store(stored),
        })
    }
}

/// Where the remote reads its secret, and where the new one is written to.
fn destination(remote: &ResolvedRemote, write_to: Option<&Path>) -> Result<(SecretSource, Destination), Failure> {
    let name = &remote.name;
    let refuse = |why: String| Err(Failure::new(Exit::Usage, format!("{name}: {why}; nothing was made")));
    let Some(source) = remote.provider.secret_source() else {
        return refuse("it is used without a key".to_owned());
    };
    let destination = match (source, write_to.map(absolute)) {
        (SecretSource::File(own), None) => Destination::File(own.clone()),
        (SecretSource::File(own), Some(file)) if is_same(own, &file) => Destination::File(file),
        (SecretSource::Stored(stored), None) => Destination::Store(stored.clone()),
        (SecretSource::File(_) | SecretSource::Stored(_), Some(file)) => {
            return refuse(format!(
                "it reads its key from {source}, not from {}; leave --write-to away",
                file.display()
            ));
        }
        (_, Some(file)) => Destination::File(file),
        (other, None) => {
            return refuse(format!(
                "keymount cannot write to {other}; name a file for the new secret with --write-to FILE, or let the remote \
                 read one: token = {{ file = \"…\" }}"
            ));
        }
    };
    Ok((source.clone(), destination))
}

fn is_same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Held until dropped: two rotations of a remote would each leave a key behind.
fn lock(remote: &ResolvedRemote, paths: &Paths) -> Result<File, Failure> {
    private_directory(paths.state())?;
    let path = paths.rotation_lock(&remote.name);
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            Exit::Busy,
            format!("the key of {} is being replaced already", remote.name),
        )),
        Err(TryLockError::Error(error)) => Err(Failure::from(error).about(path.display())),
    }
}

/// The key that is to be replaced, as the managing credential sees it: whoever may not manage keys is told so here.
async fn key_in_use(service: &Service, named: Option<&str>) -> Result<KeyInfo, Failure> {
    let id = match (service.own_key().await?, named) {
        (CurrentKey::Told(own), Some(named)) if own.name != named && own.id != named => {
            return Err(service.refused(format!(
                "it is mounted with the key {}, not with {}",
                printable(&own.name),
                printable(named)
            )));
        }
        (CurrentKey::Told(own), _) => own.id,
        (CurrentKey::Untold, Some(named)) => named.to_owned(),
        (CurrentKey::Untold, None) => {
            return Err(service.refused(format!(
                "the server does not tell which key is in use; name it with --key NAME (see: keymount keys list {})",
                quoted(&service.remote.name)
            )));
        }
    };
    service.manager.show(&id).await.map_err(|error| service.failed(error))
}

/// A key like the old one under a new name. Its life is as long as the old one's was meant to be.
fn successor(old: &KeyInfo, now: SystemTime) -> Result<KeyRequest, String> {
    let name = printable(&old.name);
    if old.origin == KeyOrigin::Settings {
        return Err(format!(
            "the key {name} comes from the server's settings and can be replaced only there; make one for this remote \
             with: keymount keys create"
        ));
    }
    let Some(grants) = old.grants.clone() else {
        return Err(format!("the server does not tell what the key {name} may do"));
    };
    let expires = match (old.expires, old.life()) {
        (None, _) => None,
        (Some(_), Some(life)) => now.checked_add(life),
        (Some(at), None) => Some(at),
    };
    Ok(KeyRequest {
        name: next_name(&old.name, seconds(now)),
        grants,
        expires,
        idle_limit: old.idle_limit,
        addresses: old.addresses.clone(),
    })
}

/// `laptop` and `laptop-1700000000` become `laptop-<now>`, later than the time that is there.
fn next_name(old: &str, now: u64) -> String {
    let timed = old.rsplit_once('-').and_then(|(base, digits)| {
        let is_time =
            digits.len() >= TIME_DIGITS && !base.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let time: u64 = digits.parse().ok().filter(|_| is_time)?;
        Some((base, time))
    });
    match timed {
        Some((base, time)) => format!("{base}-{}", now.max(time.saturating_add(1))),
        None => format!("{old}-{now}"),
    }
}

/// Later times until nobody has the name: what an interrupted rotation left is not ours to take.
async fn find_free_name(service: &Service, request: &mut KeyRequest) -> Result<(), Failure> {
    for _ in 0..MAX_NAMES {
        match service.manager.show(&request.name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(service.failed(error)),
            Ok(_) | Err(_) => request.name = next_name(&request.name, 0),
        }
    }
    Err(service.refused(format!("there is a key {} already", printable(&request.name))))
}

/// The new key in hand, proved.
struct Proved {
    id: String,
    secret: SecretString,
    manager: OpenKeys,
}

struct Rotation<'a> {
    service: &'a Service,
    source: SecretSource,
    /// The destination's name.
    place: String,
    old: KeyInfo,
    request: KeyRequest,
}

impl Rotation<'_> {
    async fn make(&self) -> Result<Proved, Failure> {
        let (service, new) = (self.service, &self.request.name);
        self.say(&format!(
            "making the key {}; should this be interrupted, remove it with: {}",
            printable(new),
            service.removal(new)
        ));
        let key = match service.manager.create(&self.request).await {
            Ok(key) => key,
            // It may be there, and under this name nobody else made one a moment ago.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::BadData
                ) =>
            {
                return Err(self.undo(new, error).await);
            }
            Err(error) => return Err(service.failed(error)),
        };
        match self.prove(&key).await {
            Ok(manager) => Ok(Proved {
                id: key.info.id,
                secret: key.secret,
                manager,
            }),
            Err(error) => {
                let error = error.context("the new key does not work");
                Err(self.undo(&key.info.id, error).await)
            }
        }
    }

    /// Uses the new key: it is accepted, is the one that was made, and may do the same as the old one.
    async fn prove(&self, new: &NewKey) -> Result<OpenKeys, Error> {
        let service = self.service;
        let holder = KeyHolder::New(&new.secret);
        let manager = open_keys(&service.remote, &service.paths, holder, &GivenSecrets::default())
            .await
            .map_err(|error| error.error)?;
        let proved = match manager.current().await {
            // Making it included a look at its rights.
            Ok(CurrentKey::Untold) => Ok(()),
            Ok(CurrentKey::Told(key))
                if key.id == new.info.id
                    && key.grants.as_ref() == Some(&self.request.grants)
                    && key.standing == KeyStanding::Usable =>
            {
                Ok(())
            }
            Ok(CurrentKey::Told(_)) => Err(Error::bad_data("the server takes it for another one")),
            Err(error) => Err(error),
        };
        match proved {
            Ok(()) => Ok(manager),
            Err(error) => {
                manager.close().await;
                Err(error)
            }
        }
    }

    /// Takes the new key back, which has this id or, where that was lost, this name; the old one was not touched.
    async fn undo(&self, new: &str, error: Error) -> Failure {
        let failure = self.service.failed(error);
        let revoked = match self.service.manager.show(new).await {
            Ok(key) => self.service.manager.revoke(&key.id).await,
            Err(error) => Err(error),
        };
        match revoked {
            Ok(()) => failure.with_repair("the new key was removed again, the old one works as before"),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                failure.with_repair("no key was made, the old one works as before")
            }
            Err(_) => failure.with_repair(format!(
                "the old key works as before; remove the new one when the provider answers: {}",
                self.service.removal(new)
            )),
        }
    }

    async fn install(&self, destination: Prepared, new: &Proved, paths: &Paths) -> Result<(), Failure> {
        self.put(destination, new).await?;
        self.switch(&new.secret, paths).await?;
        self.finish(new).await
    }

    async fn put(&self, destination: Prepared, new: &Proved) -> Result<(), Failure> {
        let written = match destination {
            Prepared::File(mut file) => {
                if let Err(error) = file.write(&new.secret) {
                    return Err(self.undo(&new.id, error).await);
                }
                file.install()
            }
            Prepared::Store(stored) => stored.put(&new.secret, &self.service.given).await,
        };
        if let Err(error) = written {
            // It may have come as far as the new secret's being there.
            return Err(match self.reads(&new.secret).await {
                Ok(false) => self.undo(&new.id, error).await,
                Ok(true) | Err(_) => self.both_stay(&new.id, error.into()),
            });
        }
        self.say(&format!("the new key works and is in {}", self.place));
        Ok(())
    }

    /// Whether the remote's own source has the new secret.
    async fn reads(&self, secret: &SecretString) -> Result<bool, Error> {
        let read = self.source.read(&self.service.given).await?;
        Ok(read.expose_secret() == secret.expose_secret())
    }

    /// Makes sure that nobody here needs the old key any more.
    async fn switch(&self, secret: &SecretString, paths: &Paths) -> Result<(), Failure> {
        let daemons = Daemons::find(paths).await?;
        if let Some(socket) = daemons.silent.first() {
            return Err(self.old_stays(Failure::new(
                Exit::Other,
                format!(
                    "the daemon behind {} does not answer and may use the old one",
                    socket.path.display()
                ),
            )));
        }
        for (daemon, mount) in self.service.mounts(&daemons, &self.old) {
            let shown = mount.directory.display();
            let now = daemon
                .refresh(mount.id, &self.given_to(mount, secret))
                .await
                .map_err(|error| self.old_stays(Failure::from(error).about(&shown)))?;
            if uses(&now, &self.old) {
                return Err(self.old_stays(Failure::new(
                    Exit::Other,
                    format!("{shown} is mounted with the old one and reads it elsewhere"),
                )));
            }
            self.say(&format!("{shown} uses the new key"));
        }
        self.source_has(secret).await
    }

    /// What a mount's daemon is given: the new secret in the variable that holds the old one.
    fn given_to(&self, mount: &MountReport, secret: &SecretString) -> GivenSecrets {
        let mut given = given_secrets(mount.credential.variables.iter().map(String::as_str));
        if let SecretSource::Env(variable) = &self.source
            && mount.credential.variables.contains(variable)
        {
            given.insert(variable, secret.clone());
        }
        given
    }

    /// The next mount must find the new secret; a variable is the person's own to set.
    async fn source_has(&self, secret: &SecretString) -> Result<(), Failure> {
        if let SecretSource::Env(_) = self.source {
            return Ok(());
        }
        match self.reads(secret).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.old_stays(Failure::new(
                Exit::Other,
                format!("the remote still reads the old one from {}", self.source),
            ))),
            Err(error) => Err(self.old_stays(error.into())),
        }
    }

    async fn finish(&self, new: &Proved) -> Result<(), Failure> {
        let has_own_manager = self.service.remote.provider.keys_identity().is_some();
        let manager = if has_own_manager {
            &self.service.manager
        } else {
            // The old key may be the one that is asked with, and it must be able to answer for its own end.
            &new.manager
        };
        match manager.revoke(&self.old.id).await {
            Ok(()) => {}
            // Gone is what was wanted; an answer may have been lost on its way.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(self.old_stays(error.into())),
        }
        println!(
            "{}: the key is {} now, in {}; {} is revoked",
            self.service.remote.name,
            printable(&self.request.name),
            self.place,
            printable(&self.old.name)
        );
        if let SecretSource::Env(variable) = &self.source {
            println!(
                "{variable} holds the old one in every shell that has it; run there: export {variable}=\"$(cat {})\"",
                quoted(&self.place)
            );
        }
        Ok(())
    }

    /// The rotation ends before its last step: both keys work.
    fn old_stays(&self, why: Failure) -> Failure {
        let name = quoted(&self.service.remote.name);
        Failure::new(
            why.exit,
            format!(
                "{}: the new key is in {}, but the old one was not revoked: {why}; repair that, run keymount refresh {name} \
                 if it is mounted, then: {}",
                self.service.remote.name,
                self.place,
                self.service.removal(&self.old.id)
            ),
        )
    }

    /// Nobody knows which of the two the remote reads.
    fn both_stay(&self, new: &str, why: Failure) -> Failure {
        why.about(&self.service.remote.name).with_repair(format!(
            "the old key and the new one both work; see which is in {}, and remove the other: {} or {}",
            self.place,
            self.service.removal(&self.old.id),
            self.service.removal(new)
        ))
    }

    fn say(&self, what: &str) {
        eprintln!("{}: {what}", self.service.remote.name);
    }
}

impl Service {
    fn refused(&self, why: String) -> Failure {
        Failure::new(Exit::Usage, format!("{}: {why}; nothing was made", self.remote.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::keys::KeyGrants;
    use std::time::Duration;

    fn old() -> KeyInfo {
        KeyInfo {
            id: "laptop".into(),
            name: "laptop".into(),
            created: Some(SystemTime::UNIX_EPOCH),
            expires: None,
            idle_limit: Some(Duration::from_secs(60)),
            last_used: None,
            grants: Some(KeyGrants::buckets(["b".to_owned()], [])),
            addresses: vec!["::1".into()],
            standing: KeyStanding::Usable,
            origin: KeyOrigin::Api,
        }
    }

    #[test]
    fn names_carry_one_time() {
        assert_eq!(next_name("laptop", 1_700_000_000), "laptop-1700000000");
        assert_eq!(next_name("laptop-1600000000", 1_700_000_000), "laptop-1700000000");
        assert_eq!(next_name("laptop-1700000000", 1_700_000_000), "laptop-1700000001");
        assert_eq!(next_name("room-12", 1_700_000_000), "room-12-1700000000");
        assert_eq!(next_name("-1700000000", 1_700_000_001), "-1700000000-1700000001");
        assert_eq!(next_name("a-99999999999999999999", 5), "a-99999999999999999999-5");
    }

    #[test]
    fn a_successor_has_the_same_rights_limits_and_length_of_life() {
        let day = Duration::from_secs(86_400);
        let now = SystemTime::UNIX_EPOCH + 1000 * day;
        let same = successor(&old(), now).unwrap();
        assert_eq!((same.expires, same.idle_limit), (None, old().idle_limit));
        assert_eq!((Some(same.grants), same.addresses), (old().grants, old().addresses));
        let ending = KeyInfo {
            expires: Some(SystemTime::UNIX_EPOCH + 90 * day),
            ..old()
        };
        assert_eq!(successor(&ending, now).unwrap().expires, Some(now + 90 * day));
        let unborn = KeyInfo {
            created: None,
            ..ending.clone()
        };
        assert_eq!(successor(&unborn, now).unwrap().expires, ending.expires);
    }

    #[test]
    fn what_cannot_be_replaced_is_refused() {
        let settings = KeyInfo {
            origin: KeyOrigin::Settings,
            ..old()
        };
        assert!(
            successor(&settings, SystemTime::now())
                .unwrap_err()
                .contains("settings")
        );
        let untold = KeyInfo { grants: None, ..old() };
        assert!(successor(&untold, SystemTime::now()).is_err());
    }
}
