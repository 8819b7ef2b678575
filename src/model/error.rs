//! What can go wrong, in the words of a file system.
//!
//! A kind says what happened; the message says it to a person. The errno is chosen in `fuse`, the exit code in `cli`,
//! and whether a request is tried again in `net`.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What happened. One errno belongs to each (`fuse::errno`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotFound,
    AlreadyExists,
    NotEmpty,
    NotADirectory,
    IsADirectory,
    InvalidName,
    NameTooLong,
    InvalidInput,
    /// The credential is good but not for this.
    Denied,
    /// The credential is missing, expired or revoked: a person must act.
    NeedsLogin,
    /// The operation is not possible on this object whoever asks (`EPERM`).
    NotPermitted,
    ReadOnly,
    /// The object was replaced since it was opened.
    Changed,
    Unsupported,
    /// The provider cannot move this; tools then copy.
    CrossDevice,
    Quota,
    NoSpace,
    TooLarge,
    RateLimited {
        retry_after: Option<Duration>,
    },
    TimedOut,
    Unreachable,
    /// What the provider sent is not what it promised: wrong length, checksum, range or shape.
    BadData,
    /// In use or still being written or removed by somebody.
    Busy,
    BadHandle,
    NoAttribute,
    AttributeBufferTooSmall,
    /// A defect of keymount itself.
    Internal,
}

/// A failure with its sentence, cheap to clone so that all waiters of one request get it.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Arc<str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl ErrorKind {
    /// Whether it says something of this moment only: the same may go well later, and nobody need do anything.
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            Self::Unreachable | Self::TimedOut | Self::RateLimited { .. } | Self::BadData | Self::Busy
        )
    }
}

impl Error {
    /// The message must be free of secrets: it reaches logs, `status` and `user.keymount.last_error`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into().into(),
            source: None,
        }
    }

    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The same failure with words before it that say what was being done.
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self {
            message: format!("{what}: {}", self.message).into(),
            ..self
        }
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, format!("{what} does not exist"))
    }

    pub fn denied(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Denied, what.to_string())
    }

    pub fn bad_data(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::BadData, what.to_string())
    }

    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Unsupported, what.to_string())
    }

    pub fn internal(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Internal, what.to_string())
    }
}

impl From<std::io::Error> for Error {
    /// Local files: the staging area, the cache, the state.
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::AlreadyExists => ErrorKind::AlreadyExists,
            Io::PermissionDenied => ErrorKind::Denied,
            Io::StorageFull => ErrorKind::NoSpace,
            Io::QuotaExceeded => ErrorKind::Quota,
            Io::FileTooLarge => ErrorKind::TooLarge,
            Io::TimedOut => ErrorKind::TimedOut,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, format!("local disk: {error}")).with_source(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)?;
        if let Some(source) = &self.source {
            write!(f, " (from: {source})")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
