//! The vocabulary that every other room shares: names, keys, entries, rights, errors.
//!
//! Validated types without I/O. It knows no provider, no kernel and no clock beyond `SystemTime`.

#[macro_use]
pub mod fail_point;

mod bandwidth;
mod conflict;
mod entry;
mod error;
mod indexed;
mod listing;
mod name;
mod posix;
mod progress;
mod rights;
mod special;

pub use bandwidth::Bandwidth;
pub use conflict::conflict_name;
pub use entry::{Entry, Kind, ObjectId, ObjectKey, Usage, Version};
pub use error::{Error, ErrorKind, Result};
pub use indexed::{ContentAddress, IndexId, Indexed, IndexedContent, IndexedFile};
pub use listing::{
    AdoptedTree, KeptTree, Listed, Listing, PendingChange, Taken, Taking, TreeChange, TreePath, instant,
};
pub use name::Name;
pub use posix::{PosixAttributes, PosixTimes, ToldAttributes, read_time, write_time};
pub use progress::{Holder, Progress};
pub use rights::{Action, ParseRightsError, Rights};
pub use special::{FileType, Special};
