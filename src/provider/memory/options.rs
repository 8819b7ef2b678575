//! How a store in memory behaves, so that it can stand for services of several kinds.

use crate::provider::{AttributeSupport, Capabilities, LISTS_AHEAD, LabelSupport, NamedBy, Reads};

/// What an `ObjectKey` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// The path: an object put in another's place has the same key (Cludz, WebDAV).
    Paths,
    /// An id: a key survives renames and is never used again (CloudSync).
    Ids,
}

/// Who may see that an entry exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// Everybody.
    Open,
    /// Only who may read the folder.
    NeedsRead,
}

/// How the store behaves; fixed while it lives.
#[derive(Clone, Debug)]
pub struct Options {
    pub capabilities: Capabilities,
    pub addressing: Addressing,
    pub metadata: Metadata,
    /// Characters that the store's names cannot have.
    pub forbidden: &'static [char],
}

impl Default for Options {
    /// Everything possible: ranges, labels, renames and moves, names of 255 characters.
    fn default() -> Self {
        Self {
            capabilities: Capabilities {
                bytes: NamedBy::Object,
                reads: Reads::Ranges,
                labels: LabelSupport::Stored,
                attributes: AttributeSupport::None,
                max_file_size: None,
                max_name_chars: Some(255),
                rename_directories: true,
                move_files: true,
                lists_ahead: LISTS_AHEAD,
            },
            addressing: Addressing::Paths,
            metadata: Metadata::Open,
            forbidden: &[],
        }
    }
}
