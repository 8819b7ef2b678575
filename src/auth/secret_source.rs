//! Where a secret is kept: an environment variable, a file, a command's output, a systemd credential, our own store.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::store::{MAX_SECRET, StoreSpec, StoredSecret};
use crate::model::{Error, ErrorKind, Result};

/// How long a secret command may take: it may ask an agent on another host.
const COMMAND_TIME: Duration = Duration::from_secs(30);

/// Where to find a secret, never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SecretSource {
    /// An environment variable of the person who mounts or refreshes.
    Env(String),
    /// A file that only its owner can read.
    File(PathBuf),
    /// A program that prints it.
    Command(Vec<String>),
    /// A credential that systemd passed (`LoadCredential=`).
    Systemd(String),
    /// In a store of keymount's own, put there by `login`.
    Stored(StoredSecret),
}

/// Values of environment variables, handed over by the person's own process: the daemon's environment has none.
#[derive(Clone, Default)]
pub struct GivenSecrets(BTreeMap<String, SecretString>);

impl GivenSecrets {
    pub fn insert(&mut self, variable: impl Into<String>, value: SecretString) {
        self.0.insert(variable.into(), value);
    }

    pub fn get(&self, variable: &str) -> Option<&SecretString> {
        self.0.get(variable)
    }

    /// Takes over what `newer` has.
    pub fn merge(&mut self, newer: &Self) {
        self.0
            .extend(newer.0.iter().map(|(name, value)| (name.clone(), value.clone())));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl fmt::Debug for GivenSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, "***"))).finish()
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Command(argv) => write!(f, "the command {}", argv.first().map_or("", String::as_str)),
            Self::Systemd(name) => write!(f, "the systemd credential {name}"),
            Self::Stored(stored) => f.write_str(match stored.store {
                StoreSpec::Files { .. } => "keymount's store",
                StoreSpec::Keyring => "the OS keyring",
            }),
        }
    }
}

impl SecretSource {
    /// Where keymount keeps the secret itself, if it does.
    pub fn stored(&self) -> Option<&StoredSecret> {
        match self {
            Self::Stored(stored) => Some(stored),
            Self::Env(_) | Self::File(_) | Self::Command(_) | Self::Systemd(_) => None,
        }
    }

    /// The configuration's word for it: `env`, `stored`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Env(_) => "env",
            Self::File(_) => "file",
            Self::Command(_) => "command",
            Self::Systemd(_) => "systemd",
            Self::Stored(stored) => stored.word(),
        }
    }

    /// When it was last written, where the place tells.
    pub fn written(&self) -> Option<SystemTime> {
        match self {
            Self::File(path) => std::fs::metadata(path).and_then(|file| file.modified()).ok(),
            Self::Stored(stored) => stored.written(),
            Self::Env(_) | Self::Command(_) | Self::Systemd(_) => None,
        }
    }

    /// The environment variable whose value the person's process must hand over to read this source, if there is one.
    pub fn variable(&self) -> Option<&str> {
        match self {
            Self::Env(name) => Some(name),
            Self::Stored(stored) => stored.variable(),
            Self::File(_) | Self::Command(_) | Self::Systemd(_) => None,
        }
    }

    /// The secret as it is now, without the line end.
    ///
    /// # Errors
    /// `NeedsLogin` when there is nothing, `Denied` when others can read the file, `TimedOut` for a slow command, and
    /// for a stored one as the store says.
    pub async fn read(&self, given: &GivenSecrets) -> Result<SecretString> {
        let secret = match self {
            Self::Env(name) => given
                .get(name)
                .map(|value| value.expose_secret().to_owned())
                .unwrap_or_default(),
            Self::File(path) => read_private(path)?,
            Self::Systemd(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                Some(directory) => read_private(&Path::new(&directory).join(name))?,
                None => String::new(),
            },
            Self::Command(argv) => self.run(argv).await?,
            Self::Stored(stored) => return stored.get(given).await,
        };
        let secret = secret.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(Error::new(ErrorKind::NeedsLogin, format!("{self} holds no secret")));
        }
        Ok(secret.into())
    }

    async fn run(&self, argv: &[String]) -> Result<String> {
        let failed = |why: String| Error::new(ErrorKind::NeedsLogin, format!("{self} {why}"));
        let Some((program, arguments)) = argv.split_first() else {
            return Err(failed("is empty".into()));
        };
        let child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(COMMAND_TIME, child).await {
            Err(_) => return Err(Error::new(ErrorKind::TimedOut, format!("{self} did not finish"))),
            Ok(Err(error)) => return Err(failed(format!("cannot be started: {error}"))),
            Ok(Ok(output)) => output,
        };
        if !output.status.success() {
            return Err(failed(format!("failed ({})", output.status)));
        }
        if output.stdout.len() > MAX_SECRET {
            return Err(failed("printed more than a secret can be".into()));
        }
        String::from_utf8(output.stdout).map_err(|_| failed("printed what is not text".into()))
    }
}

pub(super) fn read_private(path: &Path) -> Result<String> {
    let named = |error: std::io::Error| Error::from(error).context(path.display());
    let metadata = std::fs::metadata(path).map_err(named)?;
    if metadata.mode() & 0o077 != 0 {
        let message = format!(
            "{} can be read by others (mode {:04o}); run: chmod 600 {}",
            path.display(),
            metadata.mode() & 0o7777,
            path.display()
        );
        return Err(Error::denied(message));
    }
    if metadata.len() > MAX_SECRET as u64 {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("{} is too long for a secret", path.display()),
        ));
    }
    std::fs::read_to_string(path).map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let source = SecretSource::File(path.clone());
        let refused = source.read(&GivenSecrets::default()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
        assert!(refused.message().contains("chmod 600"), "{refused}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(
            source.read(&GivenSecrets::default()).await.unwrap().expose_secret(),
            "s3cret"
        );
    }

    #[tokio::test]
    async fn a_command_prints_it_or_says_why_not() {
        let command = |argv: &[&str]| SecretSource::Command(argv.iter().map(|s| (*s).to_owned()).collect());
        let read = command(&["printf", "abc\n"])
            .read(&GivenSecrets::default())
            .await
            .unwrap();
        assert_eq!(read.expose_secret(), "abc");
        for argv in [&["false"][..], &["no-such-program-here"], &["true"], &[]] {
            let error = command(argv).read(&GivenSecrets::default()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NeedsLogin, "{argv:?}");
        }
    }

    #[tokio::test]
    async fn the_environment_is_the_givers() {
        let mut given = GivenSecrets::default();
        given.insert("KEYMOUNT_UNIT_TEST", "v".into());
        let source = SecretSource::Env("KEYMOUNT_UNIT_TEST".into());
        assert_eq!(source.read(&given).await.unwrap().expose_secret(), "v");
        assert!(source.read(&GivenSecrets::default()).await.is_err());
        assert!(!format!("{given:?}").contains("\"v\""));
    }
}
