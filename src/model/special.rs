//! What a file system holds beside files and directories.

use std::sync::Arc;

/// A node that is neither a file nor a directory. No provider here has a place for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Special {
    /// With what it points to, as it was given: any bytes but NUL.
    Symlink(Arc<[u8]>),
    Fifo,
    Socket,
    /// With its device number, as Linux encodes it in 32 bits.
    BlockDevice(u32),
    CharacterDevice(u32),
}

/// What `stat` says that a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    BlockDevice,
    CharacterDevice,
}

impl Special {
    pub fn file_type(&self) -> FileType {
        match self {
            Self::Symlink(_) => FileType::Symlink,
            Self::Fifo => FileType::Fifo,
            Self::Socket => FileType::Socket,
            Self::BlockDevice(_) => FileType::BlockDevice,
            Self::CharacterDevice(_) => FileType::CharacterDevice,
        }
    }

    /// In bytes: a symbolic link is as long as what it says.
    pub fn size(&self) -> u64 {
        match self {
            Self::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }

    /// The device number; 0 for what is no device.
    pub fn device(&self) -> u32 {
        match self {
            Self::BlockDevice(device) | Self::CharacterDevice(device) => *device,
            _ => 0,
        }
    }
}
