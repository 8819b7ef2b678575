//! Where log lines go. Only keymount's own are shown in detail: the HTTP library's details may hold credentials.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::model::{Error, Result};
use crate::paths;

/// A log file larger than this is begun anew when a daemon starts, in bytes.
const MAX_LOG: u64 = 10 * 1024 * 1024;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verbosity {
    Normal,
    /// Each request and what came of it.
    Debug,
    /// Each operation of the kernel.
    Trace,
}

impl Verbosity {
    /// From the number of `-v`.
    pub fn from_count(count: u8) -> Self {
        match count {
            0 => Self::Normal,
            1 => Self::Debug,
            _ => Self::Trace,
        }
    }

    /// The session of fuser warns at every end that somebody else brought about, and its replies call an interrupted
    /// request an error (measured on fuser 0.18.0).
    fn filter(self) -> &'static str {
        match self {
            Self::Normal => "warn,fuser::session=error,fuser::reply=off,keymount=info",
            Self::Debug => "warn,fuser::session=error,fuser::reply=off,keymount=debug",
            Self::Trace => "warn,fuser::session=error,fuser::reply=off,keymount=trace",
        }
    }
}

/// Where log lines go.
#[derive(Debug)]
pub enum LogTarget {
    Stderr,
    File(File),
}

impl LogTarget {
    /// Opens a log file for appending, mode 0600; a very long one is emptied first.
    ///
    /// # Errors
    /// The local disk's.
    pub fn file(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent()
            && !folder.exists()
        {
            paths::private_directory(folder)?;
        }
        let named = |error: std::io::Error| Error::from(error).context(path.display());
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(named)?;
        if file.metadata().map_err(named)?.len() > MAX_LOG {
            file.set_len(0).map_err(named)?;
        }
        Ok(Self::File(file))
    }
}

/// Sends log lines there, panics included. Only the first call of a process counts.
pub fn start(target: LogTarget, verbosity: Verbosity) {
    let (writer, colours) = match target {
        LogTarget::Stderr => (
            BoxMakeWriter::new(std::io::stderr),
            std::io::IsTerminal::is_terminal(&std::io::stderr()),
        ),
        LogTarget::File(file) => (BoxMakeWriter::new(Arc::new(file)), false),
    };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(verbosity.filter()))
        .with_ansi(colours)
        .with_writer(writer)
        .try_init();
    std::panic::set_hook(Box::new(|panic| {
        // The payload may hold data of a request; the place is enough to find the defect.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a defect of keymount ended one task");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_log_file_is_private_appended_to_and_not_endless() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/k.log");
        LogTarget::file(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::write(&path, "a line").unwrap();
        LogTarget::file(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 6);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(MAX_LOG + 1)
            .unwrap();
        LogTarget::file(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }
}
