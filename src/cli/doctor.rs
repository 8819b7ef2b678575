//! `doctor`: looks at everything a mount needs and says the repair for what is missing.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::exit::{Exit, Failure};
use super::mount::{FUSE_CONFIGURATION, FUSE_DEVICE, fuse_available, fuse_helper, user_allow_other};
use super::{given_secrets, secrets_of, status};
use crate::auth::SecretSource;
use crate::config::{Config, ResolvedRemote};
use crate::control::Daemons;
use crate::daemon::{Clock, KeyHolder, clock_of, open_keys, try_remote};
use crate::paths::{ConfigOrigin, Paths, own_uid, private_directory, runtime_directory};
use crate::provider::registry::{Identity, RemotePath};

/// Tokens with a time of their own are refused beyond a few minutes; a clock that far off is wrong anyway.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// What came of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Works, but something is missing or odd.
    Warning,
    /// A mount would fail.
    Bad,
}

/// One line of the result: what was found, and what repairs it.
#[derive(Debug)]
struct Finding {
    verdict: Verdict,
    sentence: String,
}

fn good(sentence: impl Into<String>) -> Finding {
    Finding {
        verdict: Verdict::Good,
        sentence: sentence.into(),
    }
}

fn warning(sentence: impl Into<String>) -> Finding {
    Finding {
        verdict: Verdict::Warning,
        sentence: sentence.into(),
    }
}

fn bad(sentence: impl Into<String>) -> Finding {
    Finding {
        verdict: Verdict::Bad,
        sentence: sentence.into(),
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = match self.verdict {
            Verdict::Good => "ok  ",
            Verdict::Warning => "warn",
            Verdict::Bad => "FAIL",
        };
        write!(f, "{word}  {}", self.sentence)
    }
}

pub async fn run(paths: &Paths) -> Result<Exit, Failure> {
    let mut worst = Verdict::Good;
    let mut tell = |findings: Vec<Finding>| {
        for finding in findings {
            if finding.verdict == Verdict::Bad {
                worst = Verdict::Bad;
            }
            println!("{finding}");
        }
    };
    tell(fuse());
    tell(directories(paths));
    tell(dead_mounts(paths).await?);
    match Config::load(paths) {
        Err(error) => tell(vec![bad(error.to_string())]),
        Ok(config) => {
            tell(vec![configuration(&config, paths)]);
            for (name, remote) in config.remotes() {
                let remote = remote.resolve(name, RemotePath::default());
                tell(self::remote(&remote, paths).await);
            }
        }
    }
    Ok(if worst == Verdict::Bad { Exit::Other } else { Exit::Done })
}

fn fuse() -> Vec<Finding> {
    let mut findings = Vec::new();
    match fuse_available(false) {
        Err(failure) => findings.push(bad(failure.message())),
        Ok(()) => match std::fs::File::options().read(true).write(true).open(FUSE_DEVICE) {
            Ok(_) => findings.push(good(format!("{FUSE_DEVICE} can be opened"))),
            Err(error) => findings.push(bad(format!(
                "{FUSE_DEVICE} cannot be opened ({error}); as root run: chmod 666 {FUSE_DEVICE}"
            ))),
        },
    }
    match fuse_helper() {
        Some(file) if own_uid() != 0 => findings.push(helper(&file)),
        Some(file) => findings.push(good(format!("{} is there for ordinary users", file.display()))),
        None if own_uid() == 0 => findings.push(warning(
            "fusermount3 is missing: root can mount, other users cannot; run: apt-get install fuse3",
        )),
        None => {}
    }
    if own_uid() != 0 && !user_allow_other() {
        findings.push(warning(format!(
            "--allow-other is for root only here; to allow it to all, put the line user_allow_other into {FUSE_CONFIGURATION}"
        )));
    }
    findings
}

/// It works for ordinary users only with root's rights.
fn helper(file: &Path) -> Finding {
    /// The set-user-id bit.
    const SETUID: u32 = 0o4000;
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.mode() & SETUID != 0 && metadata.uid() == 0 => {
            good(format!("{} may mount for you", file.display()))
        }
        _ => bad(format!(
            "{} has not the rights to mount; as root run: chown root {0} && chmod u+s {0}",
            file.display()
        )),
    }
}

fn directories(paths: &Paths) -> Vec<Finding> {
    let check = |what: &str, path: &Path, made: crate::model::Result<()>| match made
        .and_then(|()| tempfile::tempfile_in(path).map(drop).map_err(Into::into))
    {
        Ok(()) => good(format!("{what} can be written to {}", path.display())),
        Err(error) => bad(format!("{what} cannot be kept: {error}")),
    };
    vec![
        check("state", paths.state(), private_directory(paths.state())),
        check("cached content", paths.cache(), private_directory(paths.cache())),
        check(
            "the control socket",
            paths.runtime(),
            runtime_directory(paths.runtime()),
        ),
    ]
}

async fn dead_mounts(paths: &Paths) -> Result<Vec<Finding>, Failure> {
    let daemons = Daemons::find(paths).await?;
    let mut findings = Vec::new();
    for directory in status::dead_mounts(&daemons).await {
        let shown = directory.display();
        findings.push(warning(format!(
            "{shown} has a dead mount; run: keymount umount {shown}"
        )));
    }
    for socket in &daemons.silent {
        findings.push(warning(format!(
            "the daemon behind {} does not answer",
            socket.path.display()
        )));
    }
    Ok(findings)
}

fn configuration(config: &Config, paths: &Paths) -> Finding {
    let count = config.remotes().count();
    let (path, origin) = paths.config_file();
    if count == 0 && origin == ConfigOrigin::Default && !path.exists() {
        return good(format!(
            "there is no configuration yet; its place is {}",
            path.display()
        ));
    }
    let remotes = if count == 1 { "remote" } else { "remotes" };
    good(format!("{} is in order and has {count} {remotes}", path.display()))
}

async fn remote(remote: &ResolvedRemote, paths: &Paths) -> Vec<Finding> {
    let name = &remote.name;
    let mut findings = Vec::new();
    let kept = match remote.provider.identity() {
        Identity::Oauth(oauth) => Some(("grant", &oauth.kept)),
        _ => remote
            .provider
            .secret_source()
            .and_then(SecretSource::stored)
            .map(|stored| ("token", stored)),
    };
    if let Some((what, stored)) = kept {
        match stored.get(&secrets_of(remote)).await {
            Ok(_) => findings.push(good(format!("{name}: a {what} is kept in {}", stored.place()))),
            Err(error) => return vec![bad(format!("{name}: {error}"))],
        }
    }
    match clock_of(remote).await {
        Err(error) => {
            findings.push(bad(format!(
                "{name}: {error}; check the network and the remote's endpoint"
            )));
            return findings;
        }
        Ok(Clock::Differs(difference)) if difference > CLOCK_TOLERANCE => findings.push(warning(format!(
            "{name}: this machine's clock and the provider's differ by {} s; as root run: timedatectl set-ntp true",
            difference.as_secs()
        ))),
        Ok(_) => {}
    }
    match try_remote(remote, paths, &secrets_of(remote)).await {
        Ok(trial) => findings.push(good(format!("{name}: the provider answers, rights {}", trial.rights))),
        Err(error) => findings.push(bad(format!("{name}: {}", Failure::from(error)))),
    }
    findings.extend(keys(remote, paths).await);
    findings
}

/// Whether keys can be managed, where a remote has a credential for that. A mount works without.
async fn keys(remote: &ResolvedRemote, paths: &Paths) -> Option<Finding> {
    let name = &remote.name;
    let word = remote.provider.keys_identity()?.word;
    let given = given_secrets(remote.key_variables());
    let listed = match open_keys(remote, paths, KeyHolder::Manager, &given).await {
        Ok(manager) => {
            let listed = manager.list().await;
            manager.close().await;
            listed
        }
        Err(error) => Err(error.error),
    };
    Some(match listed {
        Ok(keys) => good(format!("{name}: the {word} for keys is good, there are {}", keys.len())),
        Err(error) => warning(format!("{name}: keys cannot be managed: {error}")),
    })
}
