//! What a staged file says about itself, should the journal be lost: an extended attribute with what its row says.

use std::fs::File;
use std::io;

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::state::{Durability, JournalRow, Phase, SentContent};

const ATTRIBUTE: &str = "user.keymount.staged";
/// The kernel takes no larger attribute (xattr(7)), in bytes.
const LARGEST: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Label {
    namespace: String,
    remote: String,
    path: String,
    perhaps: Option<String>,
    closed: bool,
    boot: Option<String>,
    base: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unanswered: Vec<SentContent>,
}

/// # Errors
/// The disk's, and those of file systems that keep no such attributes.
pub fn write(file: &File, row: &JournalRow) -> io::Result<()> {
    let label = Label {
        namespace: row.namespace.clone(),
        remote: row.remote.clone(),
        path: row.path.clone(),
        perhaps: row.perhaps.clone(),
        closed: row.phase == Phase::Closed,
        boot: match &row.durability {
            Durability::Flushed => None,
            Durability::SinceBoot(boot) => Some(boot.clone()),
        },
        base: row.base.clone(),
        unanswered: row.unanswered.clone(),
    };
    let text = serde_json::to_vec(&label)?;
    Ok(fsetxattr(file, ATTRIBUTE, &text, XattrFlags::empty())?)
}

/// The row that it would have; `None` without a label that can be read.
pub fn read(file: &File, spool: &str, name: &str) -> Option<JournalRow> {
    let mut text = vec![0; LARGEST];
    let length = fgetxattr(file, ATTRIBUTE, &mut text[..]).ok()?;
    let label: Label = serde_json::from_slice(text.get(..length)?).ok()?;
    Some(JournalRow {
        spool: spool.to_owned(),
        file: name.to_owned(),
        namespace: label.namespace,
        remote: label.remote,
        path: label.path,
        perhaps: label.perhaps,
        phase: if label.closed { Phase::Closed } else { Phase::Writing },
        durability: label.boot.map_or(Durability::Flushed, Durability::SinceBoot),
        base: label.base,
        error: None,
        postponed: None,
        unanswered: label.unanswered,
    })
}

/// Whether a file can have a label; on a disk that keeps none it cannot.
pub fn can_be(file: &File) -> bool {
    !matches!(fgetxattr(file, ATTRIBUTE, &mut [0u8; 0][..]), Err(Errno::OPNOTSUPP))
}

/// The disk has what is in it.
///
/// # Errors
/// As `write`.
pub fn flushed(file: &File) -> io::Result<()> {
    match read(file, "", "") {
        Some(row) => write(
            file,
            &JournalRow {
                durability: Durability::Flushed,
                ..row
            },
        ),
        None => Ok(()),
    }
}

/// It is nobody's any more.
///
/// # Errors
/// The disk's.
pub fn remove(file: &File) -> io::Result<()> {
    match fremovexattr(file, ATTRIBUTE) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
