//! The daemon's Unix socket: HTTP and JSON for `status`, `refresh` and `umount`, and metrics as text.
//!
//! It knows how to ask a mount, not what a mount is made of: `daemon` implements [`Mounted`].

mod client;
mod ending;
mod listener;
mod metrics;
mod report;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Daemon, Daemons};
pub use ending::Ending;
pub use listener::{GuardedListener, bind};
pub use report::{
    CacheReport, CredentialReport, DaemonReport, Emptied, ErrorReport, KeyReport, Known, MountReport, MountState,
    PendingReport, RenewalReport, SinceReport, Unmounted, seconds,
};
pub use server::{Caches, Facts, Mounted, UnmountError, serve};

use serde::{Deserialize, Serialize};

/// How a mount shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnmountMode {
    /// Only when nobody uses it.
    IfUnused,
    /// The same, without waiting for uploads.
    NoWait,
    /// Out of sight at once, gone when the last user is.
    Lazy,
}

/// What `unmount` is asked to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct UnmountRequest {
    pub mode: UnmountMode,
}
