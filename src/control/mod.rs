//! The daemon's Unix socket: status, refresh, unmount.
