//! What the person's process hands over to the daemon, by a file in memory that only the two of them have open.
//!
//! It is the one document with secrets in it; it is never on disk, in an argument or in the environment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};

use rustix::fs::MemfdFlags;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::{DaemonSpec, Verbosity};
use crate::auth::GivenSecrets;
use crate::model::{Error, Result};

/// The daemon's task and the values of the environment variables that it needs.
#[derive(Clone, Debug)]
pub struct Handoff {
    pub spec: DaemonSpec,
    pub verbosity: Verbosity,
    pub given: GivenSecrets,
}

#[derive(Serialize)]
struct Written<'a> {
    spec: &'a DaemonSpec,
    verbosity: Verbosity,
    given: BTreeMap<&'a str, &'a str>,
}

#[derive(Deserialize)]
struct ReadBack {
    spec: DaemonSpec,
    verbosity: Verbosity,
    given: BTreeMap<String, String>,
}

impl Handoff {
    /// A file in memory with all of it, ready to be read from the start.
    ///
    /// # Errors
    /// When the kernel has no such file to give.
    pub fn to_file(&self) -> Result<File> {
        let mut file = File::from(
            rustix::fs::memfd_create("keymount", MemfdFlags::CLOEXEC)
                .map_err(|error| Error::from(std::io::Error::from(error)))?,
        );
        let written = Written {
            spec: &self.spec,
            verbosity: self.verbosity,
            given: self
                .given
                .iter()
                .map(|(name, value)| (name, value.expose_secret()))
                .collect(),
        };
        serde_json::to_writer(&mut file, &written).map_err(|_| Error::internal("the mount cannot be described"))?;
        file.flush()?;
        file.rewind()?;
        Ok(file)
    }

    /// # Errors
    /// `Internal` when it isn't what `to_file` writes.
    pub fn read(from: impl Read) -> Result<Self> {
        let ReadBack { spec, verbosity, given } = serde_json::from_reader(from)
            .map_err(|_| Error::internal("this command is for keymount itself; use: keymount mount"))?;
        let mut secrets = GivenSecrets::default();
        for (name, value) in given {
            secrets.insert(name, value.into());
        }
        Ok(Self {
            spec,
            verbosity,
            given: secrets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{OptionLayer, ResolvedRemote};
    use crate::daemon::{MountSpec, OnFailure};
    use crate::paths::Paths;
    use crate::provider::registry::{CludzAuth, CludzSpec, ProviderSpec, RemotePath, TokenSending};

    fn handoff() -> Handoff {
        let remote = ResolvedRemote {
            name: "drive".into(),
            provider: ProviderSpec::Cludz(CludzSpec {
                storage: uuid::Uuid::nil(),
                auth: CludzAuth::Token {
                    token: crate::auth::SecretSource::Env("TOKEN".into()),
                    send: TokenSending::Header,
                },
            }),
            endpoint: "https://storage.example/".parse().unwrap(),
            path: RemotePath::default(),
            rights: None,
            insecure: false,
            options: OptionLayer::default(),
            shared_index: None,
        };
        let mut given = GivenSecrets::default();
        given.insert("TOKEN", "canary-secret".into());
        Handoff {
            spec: DaemonSpec {
                paths: Paths::for_tests(std::path::Path::new("/nowhere")),
                mounts: vec![MountSpec {
                    remote,
                    directory: "/mnt".into(),
                    options: OptionLayer::default().resolve(1, 2),
                    made: vec!["/mnt".into()],
                }],
                on_failure: OnFailure::OthersGoOn,
                log_file: None,
            },
            verbosity: Verbosity::Normal,
            given,
        }
    }

    #[test]
    fn the_daemon_gets_what_was_handed_over() {
        let handoff = handoff();
        let read = Handoff::read(handoff.to_file().unwrap()).unwrap();
        assert_eq!(read.spec, handoff.spec);
        assert_eq!(read.given.get("TOKEN").unwrap().expose_secret(), "canary-secret");
    }

    #[test]
    fn nothing_but_the_file_in_memory_shows_the_secret() {
        let handoff = handoff();
        assert!(!format!("{handoff:?}").contains("canary"));
        assert!(!serde_json::to_string(&handoff.spec).unwrap().contains("canary"));
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        let error = Handoff::read(&b"{}"[..]).unwrap_err();
        assert!(error.message().contains("keymount mount"), "{error}");
    }
}
