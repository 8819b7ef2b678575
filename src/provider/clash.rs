//! What services without a word of their own for it say when a name isn't as it was taken for.

use super::Target;
use crate::model::{Error, ErrorKind, Name};

/// Somebody else was faster.
pub(super) fn clash(target: &Target) -> Error {
    match target {
        Target::New { name, .. } => exists(name),
        Target::Replace { entry, .. } => changed(&entry.name),
    }
}

pub(super) fn exists(name: &Name) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{:?} exists already", name.as_str()))
}

pub(super) fn changed(name: &Name) -> Error {
    let message = format!("{:?} was changed or removed by somebody else", name.as_str());
    Error::new(ErrorKind::Changed, message)
}

pub(super) fn not_empty(name: &Name) -> Error {
    Error::new(ErrorKind::NotEmpty, format!("{:?} is not empty", name.as_str()))
}
