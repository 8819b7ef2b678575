//! What a credential may do with an entry, and how that looks in `ls -l`.
//!
//! The only place where rights become mode bits or decide whether an action is allowed.

use std::fmt;
use std::str::FromStr;

use super::Kind;

/// The sticky bit: the sign that entries may be made but not removed.
const STICKY: u32 = 0o1000;

/// The grants on one entry, normalised from whatever the provider has.
///
/// `write` is changing content and creating, `delete` is removing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Rights {
    pub read: bool,
    pub write: bool,
    pub delete: bool,
}

/// What a caller wants to do, as far as rights decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// List a directory or read a file.
    Read,
    /// Change a file's content or attributes, or make something in a directory.
    Write,
    /// Remove the entry, or replace it by a rename.
    Delete,
}

impl Rights {
    pub const NONE: Self = Self {
        read: false,
        write: false,
        delete: false,
    };
    pub const READ: Self = Self {
        read: true,
        write: false,
        delete: false,
    };
    pub const ALL: Self = Self {
        read: true,
        write: true,
        delete: true,
    };

    pub fn allows(self, action: Action) -> bool {
        match action {
            Action::Read => self.read,
            Action::Write => self.write,
            Action::Delete => self.delete,
        }
    }

    /// What both sides allow.
    pub fn and(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            write: self.write && other.write,
            delete: self.delete && other.delete,
        }
    }

    /// These rights after the provider refused an action.
    pub fn without(self, action: Action) -> Self {
        match action {
            Action::Read => Self { read: false, ..self },
            Action::Write => Self { write: false, ..self },
            Action::Delete => Self { delete: false, ..self },
        }
    }

    /// The owner's permission bits and the sticky bit, as `0o1700` at most.
    pub fn owner_mode(self, kind: Kind) -> u32 {
        let Self { read, write, delete } = self;
        match kind {
            Kind::Directory => {
                let r = if read { 0o400 } else { 0 };
                let w = if write || delete { 0o200 } else { 0 };
                let x = if read || write || delete { 0o100 } else { 0 };
                let sticky = if read && write && !delete { STICKY } else { 0 };
                r | w | x | sticky
            }
            Kind::File => (if read { 0o400 } else { 0 }) | (if write { 0o200 } else { 0 }),
        }
    }

    /// The whole permission word: the owner's bits copied to group and others as the umask allows.
    pub fn mode(self, kind: Kind, umask: u32) -> u32 {
        let owner = self.owner_mode(kind);
        let bits = owner & 0o700;
        (owner & STICKY) | ((bits | bits >> 3 | bits >> 6) & !(umask & 0o777))
    }
}

impl fmt::Display for Rights {
    /// `rwd` with `-` for what is missing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (granted, letter) in [(self.read, 'r'), (self.write, 'w'), (self.delete, 'd')] {
            write!(f, "{}", if granted { letter } else { '-' })?;
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("rights are written with the letters r, w and d, not {0:?}")]
pub struct ParseRightsError(char);

impl FromStr for Rights {
    type Err = ParseRightsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rights = Self::NONE;
        for letter in text.chars() {
            match letter {
                'r' => rights.read = true,
                'w' => rights.write = true,
                'd' => rights.delete = true,
                '-' => {}
                other => return Err(ParseRightsError(other)),
            }
        }
        Ok(rights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the documentation, row by row.
    #[test]
    fn rights_become_the_documented_modes() {
        for (rights, directory, file) in [
            ("rwd", 0o700, 0o600),
            ("rw", 0o1700, 0o600),
            ("rd", 0o700, 0o400),
            ("r", 0o500, 0o400),
            ("w", 0o300, 0o200),
            ("wd", 0o300, 0o200),
            ("d", 0o300, 0o000),
            ("", 0o000, 0o000),
        ] {
            let parsed: Rights = rights.parse().unwrap();
            assert_eq!(parsed.owner_mode(Kind::Directory), directory, "directory of {rights:?}");
            assert_eq!(parsed.owner_mode(Kind::File), file, "file of {rights:?}");
        }
    }

    #[test]
    fn umask_takes_bits_from_the_copies_and_keeps_the_sign() {
        assert_eq!(Rights::ALL.mode(Kind::Directory, 0o022), 0o755);
        assert_eq!(Rights::ALL.mode(Kind::File, 0o077), 0o600);
        assert_eq!("rw".parse::<Rights>().unwrap().mode(Kind::Directory, 0o022), 0o1755);
    }

    #[test]
    fn text_form_round_trips() {
        for text in ["rwd", "r--", "-w-", "--d", "---"] {
            assert_eq!(text.parse::<Rights>().unwrap().to_string(), text);
        }
        assert!("rx".parse::<Rights>().is_err());
    }
}
