//! What POSIX has of a file beside its content, and the text that carries it to a provider and back.
//!
//! One text for all providers, of characters that headers, labels and XML pass on as they are: fields between semicolons,
//! after the number of the format. The format is keymount's own:
//!
//! ```text
//! 1;m=755;t=1700000000.000000007;a=1700000001.000000000;x=<name>:<value>
//! ```
//!
//! `m` is the mode in octal, up to 7777. `t` and `a` are the modification and access times in seconds since 1970, rounded
//! down and so perhaps negative, with nine digits of nanoseconds; `a` is left out where it is `t`. Each `x` is a `user.*`
//! attribute without that prefix; its name and value are base64 (RFC 4648, section 5, without padding). Fields that are
//! unknown or malformed count as missing, and so does a text of another format: somebody else may have written it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The longest text, in bytes. S3 has room for 2 KB of metadata, names and values together (Amazon S3 user guide, "Working
/// with object metadata"), of which others may use a part.
pub const LONGEST: usize = 1600;
/// Digits after the point of a time.
const NANOS: usize = 9;
const FORMAT: &str = "1";
const MODE_BITS: u32 = 0o7777;

/// The attributes of one file; what is `None` is the provider's or the mount's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PosixAttributes {
    /// Permission bits with set-user-ID, set-group-ID and the sticky bit.
    pub mode: Option<u32>,
    pub times: Option<PosixTimes>,
    /// Without `user.` before their names.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PosixTimes {
    pub modified: SystemTime,
    pub accessed: SystemTime,
}

/// What an answer says of a file's attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToldAttributes {
    /// There are none, or there is no place for them.
    #[default]
    None,
    /// Nothing: this answer has no place for them, as S3's listings.
    Untold,
    Told(Arc<PosixAttributes>),
}

impl ToldAttributes {
    pub fn told(&self) -> Option<&PosixAttributes> {
        match self {
            Self::Told(attributes) => Some(attributes),
            Self::None | Self::Untold => None,
        }
    }

    /// From what a provider holds, if it is ours.
    pub fn read(text: Option<&str>) -> Self {
        let attributes = text.and_then(PosixAttributes::read);
        attributes.map_or(Self::None, Self::from)
    }
}

impl From<PosixAttributes> for ToldAttributes {
    fn from(attributes: PosixAttributes) -> Self {
        if attributes == PosixAttributes::default() {
            Self::None
        } else {
            Self::Told(Arc::new(attributes))
        }
    }
}

impl PosixAttributes {
    /// As a text of `LONGEST` bytes at most. Extended attributes that have no room in it are left out, in the order of
    /// their names; `fitting` says what is left.
    pub fn write(&self) -> String {
        let mut text = FORMAT.to_owned();
        if let Some(mode) = self.mode {
            let _ = write!(text, ";m={:o}", mode & MODE_BITS);
        }
        if let Some(times) = self.times {
            let _ = write!(text, ";t={}", write_time(times.modified));
            if times.accessed != times.modified {
                let _ = write!(text, ";a={}", write_time(times.accessed));
            }
        }
        for (name, value) in &self.xattrs {
            let [name, value] = [name.as_bytes(), value].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
            if text.len() + ";x=:".len() + name.len() + value.len() <= LONGEST {
                let _ = write!(text, ";x={name}:{value}");
            }
        }
        text
    }

    /// What of this `write` has room for.
    pub fn fitting(&self) -> Self {
        Self::read(&self.write()).unwrap_or_default()
    }

    /// `None` when the text is of another format.
    pub fn read(text: &str) -> Option<Self> {
        let mut fields = text.split(';');
        if fields.next() != Some(FORMAT) || text.len() > LONGEST {
            return None;
        }
        let mut read = Self::default();
        let (mut modified, mut accessed) = (None, None);
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            match key {
                "m" => read.mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= MODE_BITS),
                "t" => modified = read_time(value),
                "a" => accessed = read_time(value),
                "x" => read.xattrs.extend(read_xattr(value)),
                _ => {}
            }
        }
        read.times = modified.map(|modified| PosixTimes {
            modified,
            accessed: accessed.unwrap_or(modified),
        });
        Some(read)
    }

    /// These, and what they leave open as the others have it.
    pub fn over(mut self, others: &Self) -> Self {
        self.mode = self.mode.or(others.mode);
        self.times = self.times.or(others.times);
        for (name, value) in &others.xattrs {
            self.xattrs.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self
    }
}

/// Seconds since 1970, rounded down, with nine digits of nanoseconds.
pub fn write_time(time: SystemTime) -> String {
    let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i128::from(after.as_secs()), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            match before.subsec_nanos() {
                0 => (-i128::from(before.as_secs()), 0),
                nanos => (-i128::from(before.as_secs()) - 1, 1_000_000_000 - nanos),
            }
        }
    };
    format!("{seconds}.{nanos:09}")
}

/// The time that `write_time` wrote, also with fewer digits or none behind the point.
pub fn read_time(text: &str) -> Option<SystemTime> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = seconds.strip_prefix('-').unwrap_or(seconds);
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if digits.is_empty() || !is_number(digits) || !is_number(fraction) || fraction.len() > NANOS {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: u32 = format!("{fraction:0<NANOS$}").parse().ok()?;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    base?.checked_add(Duration::from_nanos(nanos.into()))
}

fn read_xattr(text: &str) -> Option<(String, Vec<u8>)> {
    let (name, value) = text.split_once(':')?;
    let name = String::from_utf8(URL_SAFE_NO_PAD.decode(name).ok()?).ok()?;
    let value = URL_SAFE_NO_PAD.decode(value).ok()?;
    (!name.is_empty() && !name.contains('\0')).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn time() -> impl Strategy<Value = SystemTime> {
        (-(1i64 << 36)..1 << 36, 0..1_000_000_000u32).prop_map(|(seconds, nanos)| {
            let whole = Duration::from_secs(seconds.unsigned_abs());
            let base = if seconds < 0 {
                UNIX_EPOCH - whole
            } else {
                UNIX_EPOCH + whole
            };
            base + Duration::from_nanos(nanos.into())
        })
    }

    fn attributes() -> impl Strategy<Value = PosixAttributes> {
        let times = (time(), time()).prop_map(|(modified, accessed)| PosixTimes { modified, accessed });
        let xattrs = btree_map("[^\0]{1,20}", vec(any::<u8>(), 0..300), 0..12);
        (proptest::option::of(0..=MODE_BITS), proptest::option::of(times), xattrs)
            .prop_map(|(mode, times, xattrs)| PosixAttributes { mode, times, xattrs })
    }

    proptest! {
        #[test]
        fn what_fits_comes_back_as_it_was(attributes in attributes()) {
            let text = attributes.write();
            prop_assert!(text.len() <= LONGEST);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !b",\"<>&%".contains(&byte)), "{text}");
            let read = PosixAttributes::read(&text).unwrap();
            prop_assert_eq!((read.mode, read.times), (attributes.mode, attributes.times));
            for (name, value) in &read.xattrs {
                prop_assert_eq!(attributes.xattrs.get(name), Some(value));
            }
            let left_out: usize = attributes.xattrs.iter()
                .filter(|(name, _)| !read.xattrs.contains_key(*name))
                .map(|(name, value)| (name.len() + value.len()) * 4 / 3 + 8)
                .sum();
            prop_assert!(left_out == 0 || text.len() + left_out > LONGEST);
            prop_assert_eq!(attributes.fitting(), read.clone());
            prop_assert_eq!(read.fitting(), read);
        }

        #[test]
        fn whatever_somebody_else_wrote_is_read_without_an_error(text in "\\PC{0,40}|1(;[mtax]=[-0-9a-zA-Z.:_]{0,12}){0,4}") {
            let _ = PosixAttributes::read(&text);
            let _ = ToldAttributes::read(Some(&text));
        }
    }

    #[test]
    fn the_text_is_as_it_is_described() {
        let modified = UNIX_EPOCH + Duration::new(1_700_000_000, 7);
        let attributes = PosixAttributes {
            mode: Some(0o755),
            times: Some(PosixTimes {
                modified,
                accessed: modified + Duration::from_nanos(999_999_993),
            }),
            xattrs: BTreeMap::from([("a".to_owned(), b"b\0".to_vec())]),
        };
        let text = "1;m=755;t=1700000000.000000007;a=1700000001.000000000;x=YQ:YgA";
        assert_eq!(attributes.write(), text);
        assert_eq!(PosixAttributes::read(text), Some(attributes));
        assert_eq!(write_time(UNIX_EPOCH - Duration::from_millis(1500)), "-2.500000000");
    }

    #[test]
    fn malformed_fields_count_as_missing() {
        for text in [
            "1",
            "1;",
            "1;m=",
            "1;m=8",
            "1;m=10000",
            "1;t=",
            "1;t=x",
            "1;t=1.0000000001",
            "1;t=1.-1",
            "1;t=--1",
            "1;t=99999999999999999999",
            "1;a=5",
            "1;x=",
            "1;x=YQ",
            "1;x=:YQ",
            "1;x=!:YQ",
            "1;x=AA:YQ",
            "1;new=field",
        ] {
            assert_eq!(PosixAttributes::read(text), Some(PosixAttributes::default()), "{text}");
            assert_eq!(ToldAttributes::read(Some(text)), ToldAttributes::None, "{text}");
        }
        for text in ["", "2;m=755", "m=755", "1.m=755", " 1;m=755"] {
            assert_eq!(PosixAttributes::read(text), None, "{text}");
        }
        let long = format!("1;m=755;x={}:YQ", "a".repeat(LONGEST));
        assert_eq!(PosixAttributes::read(&long), None);
    }
}
