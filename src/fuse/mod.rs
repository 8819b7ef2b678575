//! The kernel side: the only room that names `fuser`.
//!
//! It copies arguments, spawns the operation with a deadline, and answers. It decides nothing about files.

mod adapter;
mod bridge;
mod errno;
mod mount_point;
mod session;
mod translate;

pub use mount_point::{Detach, MountPointState, detach, detach_dead, keymount_mounts, mount_point_state};
pub use session::{MountSettings, Session, mount};
