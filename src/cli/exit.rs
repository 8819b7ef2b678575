//! Exit codes, one for each cause, and the one place where a failure becomes one.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::daemon::{Stage, StartError};
use crate::model::{Error, ErrorKind};

/// How a command ended. The numbers are part of the interface: scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Other = 1,
    Usage = 2,
    Configuration = 3,
    Credentials = 4,
    Unreachable = 5,
    MountPoint = 6,
    PendingLeft = 7,
    Busy = 8,
    NotMounted = 9,
    FuseUnavailable = 10,
    NotFound = 11,
    Denied = 12,
    PartlyMounted = 13,
}

impl Exit {
    pub const ALL: [(Exit, &str); 14] = [
        (Exit::Done, "done"),
        (Exit::Other, "another failure, or something that doctor found"),
        (Exit::Usage, "the command line is wrong"),
        (Exit::Configuration, "the configuration is wrong"),
        (
            Exit::Credentials,
            "the credential is missing, expired or was rejected: a person must act",
        ),
        (Exit::Unreachable, "the provider cannot be reached"),
        (Exit::MountPoint, "the directory cannot be mounted on"),
        (Exit::PendingLeft, "unmounted, but some files are not at the provider"),
        (Exit::Busy, "still in use"),
        (Exit::NotMounted, "keymount has nothing mounted there"),
        (Exit::FuseUnavailable, "FUSE is not available here"),
        (Exit::NotFound, "the provider has no such storage or directory"),
        (Exit::Denied, "the credential is good but not for this"),
        (Exit::PartlyMounted, "some remotes are mounted, others could not be"),
    ];

    /// The table at the end of `--help`.
    pub fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for (exit, meaning) in Self::ALL {
            text.push_str(&format!("  {:>2}  {meaning}\n", exit as u8));
        }
        text
    }

    pub fn from_number(number: u8) -> Self {
        Self::ALL
            .iter()
            .find(|(exit, _)| *exit as u8 == number)
            .map_or(Self::Other, |(exit, _)| *exit)
    }

    fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NeedsLogin => Self::Credentials,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::NotFound,
            ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::RateLimited { .. } => Self::Unreachable,
            ErrorKind::Busy => Self::Busy,
            ErrorKind::InvalidInput => Self::Configuration,
            _ => Self::Other,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A command's failure: the cause for scripts, the sentence for people.
#[derive(Clone, Debug)]
pub struct Failure {
    pub exit: Exit,
    message: String,
}

impl Failure {
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self {
            exit,
            message: sentence.into(),
        }
    }

    /// The same failure with words before it that say what it is about.
    pub fn about(self, what: impl fmt::Display) -> Self {
        Self {
            message: format!("{what}: {}", self.message),
            ..self
        }
    }

    /// The same failure with words after it that say what to do.
    pub fn with_repair(self, repair: impl fmt::Display) -> Self {
        Self {
            message: format!("{}; {repair}", self.message),
            ..self
        }
    }

    /// Whether the sentence says already what to do.
    pub fn has_repair(&self) -> bool {
        self.message.contains(" run: ")
    }

    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Configuration, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Other, error.to_string())
    }
}

/// What a daemon or a provider said.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(Exit::of(error.kind()), error.message())
    }
}

/// The same error has another cause at another step: a missing file is a credential's when a secret was to be read.
impl From<StartError> for Failure {
    fn from(StartError { stage, error }: StartError) -> Self {
        let exit = match (stage, error.kind()) {
            (Stage::Credential, _) => Exit::Credentials,
            (Stage::Probe, kind) => Exit::of(kind),
            (Stage::Local, ErrorKind::InvalidInput) => Exit::Configuration,
            (Stage::Local, _) => Exit::Other,
            (Stage::Mount, ErrorKind::NotPermitted) => Exit::FuseUnavailable,
            (Stage::Mount, _) => Exit::MountPoint,
        };
        let failure = Self::new(exit, error.message());
        match (stage, exit) {
            (Stage::Credential, _) if failure.has_repair() => failure,
            (Stage::Credential, _) => failure.with_repair("put the token there and run the command again"),
            (_, Exit::Credentials) if failure.has_repair() => failure,
            (_, Exit::Credentials) => failure
                .with_repair("get a valid token from the provider, put it where this remote reads it, and try again"),
            (_, Exit::Unreachable) => failure.with_repair("run: keymount doctor"),
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_consecutive_and_each_is_explained_once() {
        for (index, (exit, meaning)) in Exit::ALL.iter().enumerate() {
            assert_eq!(*exit as usize, index);
            assert_eq!(Exit::from_number(*exit as u8), *exit);
            assert!(Exit::table().contains(meaning));
        }
        assert_eq!(Exit::from_number(77), Exit::Other);
    }

    #[test]
    fn causes_have_their_codes() {
        let start = |stage, kind| {
            Failure::from(StartError {
                stage,
                error: Error::new(kind, "why"),
            })
            .exit
        };
        for (stage, kind, exit) in [
            (Stage::Credential, ErrorKind::NotFound, Exit::Credentials),
            (Stage::Credential, ErrorKind::Denied, Exit::Credentials),
            (Stage::Probe, ErrorKind::NeedsLogin, Exit::Credentials),
            (Stage::Probe, ErrorKind::Unreachable, Exit::Unreachable),
            (Stage::Probe, ErrorKind::TimedOut, Exit::Unreachable),
            (Stage::Probe, ErrorKind::NotFound, Exit::NotFound),
            (Stage::Probe, ErrorKind::NotADirectory, Exit::NotFound),
            (Stage::Probe, ErrorKind::Denied, Exit::Denied),
            (Stage::Probe, ErrorKind::BadData, Exit::Other),
            (Stage::Local, ErrorKind::InvalidInput, Exit::Configuration),
            (Stage::Local, ErrorKind::NotFound, Exit::Other),
            (Stage::Mount, ErrorKind::NotPermitted, Exit::FuseUnavailable),
            (Stage::Mount, ErrorKind::Internal, Exit::MountPoint),
        ] {
            assert_eq!(start(stage, kind), exit, "{stage:?} {kind:?}");
        }
        assert_eq!(Failure::from(Error::new(ErrorKind::Busy, "b")).exit, Exit::Busy);
        assert_eq!(Failure::from(ConfigError::new("c")).exit, Exit::Configuration);
    }
}
