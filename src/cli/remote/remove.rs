//! `remote remove`: out of the configuration, and its secrets out of the stores. What is mounted stays.

use crate::cli::exit::{Exit, Failure};
use crate::cli::login::{Keepable, oauth_of};
use crate::cli::{environment, logout, terminal};
use crate::config::Config;
use crate::control::Daemons;
use crate::daemon::kept_files;
use crate::paths::Paths;

pub async fn run(name: &str, yes: bool, paths: &Paths) -> Result<Exit, Failure> {
    let config = Config::load(paths)?;
    let remote = config.resolve(name, &environment)?;
    if remote.name != name {
        return Err(Failure::new(
            Exit::Usage,
            format!("a remote is removed as a whole: {}", remote.name),
        ));
    }
    let daemons = Daemons::find(paths).await?;
    let mounted = daemons
        .mounts()
        .find(|(daemon, mount)| daemon.is_own() && mount.remote_name() == name);
    if let Some((_, mount)) = mounted {
        let directory = mount.directory.display();
        return Err(Failure::new(
            Exit::Busy,
            format!("{name} is mounted on {directory}; run: keymount umount {directory}"),
        ));
    }
    if !yes {
        terminal::person_for("removed")?;
    }
    let is_of = |remote: &str| remote.split(':').next() == Some(name);
    let waiting = kept_files(paths)?.iter().filter(|file| is_of(&file.remote)).count();
    if waiting > 0 {
        eprintln!(
            "{waiting} files of {name} are not at the provider; they stay in: keymount pending list (to copy them out: \
             keymount pending export FOLDER)"
        );
    }
    if remote.provider.secret_source().is_some() {
        eprintln!(
            "{} goes on accepting the {} of {name} until you revoke it {}",
            remote.provider.title(),
            remote.provider.secret_word(),
            remote.provider.revocation().replace("REMOTE", name)
        );
    }
    if !yes && !terminal::confirm(&format!("Remove {name} and the secrets that are kept for it"))? {
        eprintln!("nothing was removed");
        return Ok(Exit::Other);
    }
    // First the grant, while it is still known how to revoke it.
    if let Some(oauth) = oauth_of(&remote) {
        match logout::forget(&remote, Keepable::Grant(oauth), paths).await? {
            Ok(forgotten) => println!("{name}: {forgotten}"),
            Err(untold) => eprintln!("keymount: {untold}"),
        }
    }
    for stored in remote.provider.stored_secrets() {
        let removed = stored.remove().await.map_err(|error| {
            Failure::new(Exit::Credentials, error.message()).about(format!("{name}: nothing was removed"))
        })?;
        if removed {
            println!("{name}: {} is forgotten in {}", stored.field, stored.place());
        }
    }
    Config::remove(paths, name)?;
    println!("{name}: removed from {}", config.path().display());
    Ok(Exit::Done)
}
