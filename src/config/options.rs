//! Mount options: one table for the command line, `-o` and `options.*` of the configuration.
//!
//! Layers are laid over each other, and the last word is the command line's.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::source::expand_home;
use super::{ConfigError, suggestion};
use crate::model::Bandwidth;
use crate::provider::registry::ProviderSpec;

/// How long one operation may go without progress unless told otherwise.
const DEFAULT_OP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long attributes are believed unless told otherwise.
const DEFAULT_ATTR_TTL: Duration = Duration::from_secs(10);
/// The same for Storra, which answers a hundred listings an hour.
const STORRA_ATTR_TTL: Duration = Duration::from_secs(600);
const DEFAULT_UMASK: u32 = 0o022;
/// The disk cache's size unless told otherwise, in bytes.
const DEFAULT_CACHE_SIZE: u64 = 10 << 30;

/// Words of `mount(8)` and fstab that say nothing to a daemon in user space: it always mounts `nosuid,nodev`, and
/// who may mount, when and in what order is decided by whoever reads the table.
const WORDS_OF_MOUNT: [&str; 29] = [
    "defaults",
    "rw",
    "_netdev",
    "user",
    "users",
    "nouser",
    "owner",
    "group",
    "auto",
    "noauto",
    "nofail",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "async",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "default_permissions",
];

/// One option as it is written in `-o` and in `options.*`.
pub struct OptionSpec {
    pub name: &'static str,
    set: fn(&mut OptionLayer, Option<&str>) -> Result<(), String>,
}

/// All options, by the names used in `-o` and in the configuration; the command line writes them with hyphens.
pub const OPTIONS: [OptionSpec; 15] = [
    OptionSpec {
        name: "read_only",
        set: |layer, value| truth(value).map(|value| layer.read_only = Some(value)),
    },
    OptionSpec {
        name: "allow_other",
        set: |layer, value| truth(value).map(|value| layer.allow_other = Some(value)),
    },
    OptionSpec {
        name: "uid",
        set: |layer, value| number(value).map(|value| layer.uid = Some(value)),
    },
    OptionSpec {
        name: "gid",
        set: |layer, value| number(value).map(|value| layer.gid = Some(value)),
    },
    OptionSpec {
        name: "umask",
        set: |layer, value| parse_umask(needed(value)?).map(|value| layer.umask = Some(value)),
    },
    OptionSpec {
        name: "cache_dir",
        set: |layer, value| parse_path(needed(value)?).map(|value| layer.cache_dir = Some(value)),
    },
    OptionSpec {
        name: "cache_size",
        set: |layer, value| parse_size(needed(value)?).map(|value| layer.cache_size = Some(value)),
    },
    OptionSpec {
        name: "no_disk_cache",
        set: |layer, value| truth(value).map(|value| layer.no_disk_cache = Some(value)),
    },
    OptionSpec {
        name: "attr_ttl",
        set: |layer, value| parse_duration(needed(value)?).map(|value| layer.attr_ttl = Some(value)),
    },
    OptionSpec {
        name: "op_timeout",
        set: |layer, value| parse_timeout(needed(value)?).map(|value| layer.op_timeout = Some(value)),
    },
    OptionSpec {
        name: "bandwidth",
        set: |layer, value| parse_bandwidth(needed(value)?).map(|value| layer.bandwidth = Some(value)),
    },
    OptionSpec {
        name: "sync",
        set: |layer, value| truth(value).map(|value| layer.sync = Some(value)),
    },
    OptionSpec {
        name: "staging_size",
        set: |layer, value| parse_size(needed(value)?).map(|value| layer.staging_size = Some(value)),
    },
    OptionSpec {
        name: "wait_for_login",
        set: |layer, value| truth(value).map(|value| layer.wait_for_login = Some(value)),
    },
    OptionSpec {
        name: "log_file",
        set: |layer, value| parse_path(needed(value)?).map(|value| layer.log_file = Some(value)),
    },
];

/// What one place says; `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionLayer {
    pub read_only: Option<bool>,
    pub allow_other: Option<bool>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub umask: Option<u32>,
    pub cache_dir: Option<PathBuf>,
    /// In bytes.
    pub cache_size: Option<u64>,
    pub no_disk_cache: Option<bool>,
    pub attr_ttl: Option<Duration>,
    pub op_timeout: Option<Duration>,
    #[serde(default)]
    pub bandwidth: Option<Bandwidth>,
    pub sync: Option<bool>,
    /// In bytes.
    pub staging_size: Option<u64>,
    pub wait_for_login: Option<bool>,
    pub log_file: Option<PathBuf>,
}

/// How one directory is mounted, every question answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOptions {
    pub read_only: bool,
    pub allow_other: bool,
    /// Who owns the files; the mounting user and group by default.
    pub uid: u32,
    pub gid: u32,
    pub umask: u32,
    pub cache_dir: Option<PathBuf>,
    pub disk_cache: DiskCacheUse,
    pub attr_ttl: Duration,
    /// How long an operation may go without progress.
    pub op_timeout: Duration,
    /// How fast content may move, of this mount alone.
    #[serde(default)]
    pub bandwidth: Bandwidth,
    /// Whether `close` waits until the provider has the file.
    pub sync: bool,
    /// How much may wait to be uploaded at any moment, in bytes; `None` leaves it to the disk.
    pub staging_size: Option<u64>,
    pub without_login: WithoutLogin,
    pub log_file: Option<PathBuf>,
}

/// What happens when there is no credential that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WithoutLogin {
    /// Nothing is mounted.
    Fail,
    /// Mounted all the same: the directory works as soon as somebody has logged in.
    Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskCacheUse {
    /// At most so many bytes.
    Limited(u64),
    Off,
}

impl OptionLayer {
    /// Sets one option by its name.
    ///
    /// # Errors
    /// When the name is unknown (with the nearest known one) or the value is malformed.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), ConfigError> {
        let plain = match name {
            "ro" => "read_only".to_owned(),
            other => other.replace('-', "_"),
        };
        let Some(option) = OPTIONS.iter().find(|option| option.name == plain) else {
            let known = OPTIONS.iter().map(|option| option.name).chain(["ro", "rw"]);
            return Err(ConfigError::new(format!(
                "unknown option {name:?}{}",
                suggestion(&plain, known)
            )));
        };
        (option.set)(self, value).map_err(|why| ConfigError::new(format!("option {name}: {why}")))
    }

    /// Reads `a,b=c` as in fstab. What only concerns `mount(8)` is accepted and means nothing here.
    ///
    /// # Errors
    /// As `set`.
    pub fn set_list(&mut self, list: &str) -> Result<(), ConfigError> {
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            if name == "rw" {
                self.read_only = None;
            }
            let for_mount = WORDS_OF_MOUNT.contains(&name) && value.is_none();
            let for_systemd = name.starts_with("x-") || name.starts_with("X-") || name == "comment";
            if !for_mount && !for_systemd {
                self.set(name, value)?;
            }
        }
        Ok(())
    }

    /// What a provider's mounts do unless told otherwise.
    pub fn of_provider(provider: &ProviderSpec) -> Self {
        match provider {
            // It takes few questions, and what it holds is private unless published.
            ProviderSpec::Storra(_) => Self {
                attr_ttl: Some(STORRA_ATTR_TTL),
                umask: Some(0o077),
                ..Self::default()
            },
            ProviderSpec::Cludz(_)
            | ProviderSpec::CloudSync(_)
            | ProviderSpec::Dstor(_)
            | ProviderSpec::Reductstore(_)
            | ProviderSpec::S3(_)
            | ProviderSpec::Webdav(_) => Self::default(),
        }
    }

    /// This layer under another one, whose words win.
    pub fn under(self, over: Self) -> Self {
        Self {
            read_only: over.read_only.or(self.read_only),
            allow_other: over.allow_other.or(self.allow_other),
            uid: over.uid.or(self.uid),
            gid: over.gid.or(self.gid),
            umask: over.umask.or(self.umask),
            cache_dir: over.cache_dir.or(self.cache_dir),
            cache_size: over.cache_size.or(self.cache_size),
            no_disk_cache: over.no_disk_cache.or(self.no_disk_cache),
            attr_ttl: over.attr_ttl.or(self.attr_ttl),
            op_timeout: over.op_timeout.or(self.op_timeout),
            bandwidth: over.bandwidth.or(self.bandwidth),
            sync: over.sync.or(self.sync),
            staging_size: over.staging_size.or(self.staging_size),
            wait_for_login: over.wait_for_login.or(self.wait_for_login),
            log_file: over.log_file.or(self.log_file),
        }
    }

    /// All questions answered, for files that belong to this user and group.
    pub fn resolve(self, uid: u32, gid: u32) -> MountOptions {
        MountOptions {
            read_only: self.read_only.unwrap_or(false),
            allow_other: self.allow_other.unwrap_or(false),
            uid: self.uid.unwrap_or(uid),
            gid: self.gid.unwrap_or(gid),
            umask: self.umask.unwrap_or(DEFAULT_UMASK),
            cache_dir: self.cache_dir,
            disk_cache: if self.no_disk_cache.unwrap_or(false) {
                DiskCacheUse::Off
            } else {
                DiskCacheUse::Limited(self.cache_size.unwrap_or(DEFAULT_CACHE_SIZE))
            },
            attr_ttl: self.attr_ttl.unwrap_or(DEFAULT_ATTR_TTL),
            op_timeout: self.op_timeout.unwrap_or(DEFAULT_OP_TIMEOUT),
            bandwidth: self.bandwidth.unwrap_or_default(),
            sync: self.sync.unwrap_or(false),
            staging_size: self.staging_size,
            without_login: if self.wait_for_login.unwrap_or(false) {
                WithoutLogin::Wait
            } else {
                WithoutLogin::Fail
            },
            log_file: self.log_file,
        }
    }
}

fn needed(value: Option<&str>) -> Result<&str, String> {
    value
        .filter(|value| !value.is_empty())
        .ok_or_else(|| "a value is missing".to_owned())
}

/// A word alone means yes.
fn truth(value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "yes" | "1") => Ok(true),
        Some("false" | "no" | "0") => Ok(false),
        Some(other) => Err(format!("{other:?} is neither true nor false")),
    }
}

fn number(value: Option<&str>) -> Result<u32, String> {
    let text = needed(value)?;
    text.parse()
        .map_err(|_| format!("{text:?} is not a number of a user or group"))
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    Ok(crate::paths::absolute(&expand_home(text)))
}

/// Permission bits in octal: `022`.
pub fn parse_umask(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mask) if mask <= 0o777 => Ok(mask),
        _ => Err(format!("{text:?} is not a mask in octal, such as 022")),
    }
}

/// Bytes, or with a unit: `K`, `M`, `G`, `T` and `KiB`… are powers of 1024, `kB`, `MB`… of 1000.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let malformed = || format!("{text:?} is not a size, such as 500M or 20G");
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (count, unit) = (&text[..digits], text[digits..].trim());
    let power = |letter: &str| ["", "k", "m", "g", "t"].iter().position(|known| *known == letter);
    let unit = unit.to_ascii_lowercase();
    let (base, letter) = match unit.strip_suffix("ib") {
        Some(letter) => (1024_u64, letter),
        None => match unit.strip_suffix('b') {
            Some("") => (1024, ""),
            Some(letter) => (1000, letter),
            None => (1024, unit.as_str()),
        },
    };
    let factor = base.pow(u32::try_from(power(letter).ok_or_else(malformed)?).map_err(|_| malformed())?);
    if let Ok(whole) = count.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(malformed);
    }
    let count: f64 = count.parse().map_err(|_| malformed())?;
    let bytes = count * factor as f64;
    if bytes.is_finite() && bytes < u64::MAX as f64 {
        Ok(bytes as u64)
    } else {
        Err(malformed())
    }
}

/// Bytes a second in both directions, or `uploads:downloads`; `off` is no limit.
pub fn parse_bandwidth(text: &str) -> Result<Bandwidth, String> {
    let rate = |text: &str| match text {
        "off" => Ok(None),
        text => match parse_size(text).map(NonZeroU64::new) {
            Ok(Some(rate)) => Ok(Some(rate)),
            Ok(None) => Err("nothing moves at no bytes a second; off is no limit".to_owned()),
            Err(_) => Err(format!("{text:?} is no rate, such as 500K or 2M, or off")),
        },
    };
    Ok(match text.split_once(':') {
        Some((up, down)) => Bandwidth {
            up: rate(up)?,
            down: rate(down)?,
        },
        None => Bandwidth {
            up: rate(text)?,
            down: rate(text)?,
        },
    })
}

/// Seconds, or with a unit: `500ms`, `10s`, `5m`, `2h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    /// The longest time that makes sense to wait or to believe something, in milliseconds: a year.
    const LONGEST: u64 = 366 * 24 * 3600 * 1000;
    let malformed = || format!("{text:?} is not a time, such as 10s or 5m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count: u64 = text[..digits].parse().map_err(|_| malformed())?;
    let unit = match text[digits..].trim() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(malformed()),
    };
    match count.checked_mul(unit) {
        Some(milliseconds) if milliseconds <= LONGEST => Ok(Duration::from_millis(milliseconds)),
        _ => Err(malformed()),
    }
}

/// A time to wait, which cannot be nothing.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    if timeout.is_zero() {
        return Err("nothing can be done in no time".to_owned());
    }
    Ok(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<OptionLayer, String> {
        let mut layer = OptionLayer::default();
        layer.set_list(text).map(|()| layer).map_err(|error| error.to_string())
    }

    #[test]
    fn an_fstab_line_is_understood() {
        let layer =
            list("_netdev,user,noauto,ro,nosuid,nodev,x-systemd.automount,allow_other,uid=1000,gid=100,umask=077")
                .unwrap();
        assert_eq!(layer.read_only, Some(true));
        assert_eq!(layer.allow_other, Some(true));
        assert_eq!(
            (layer.uid, layer.gid, layer.umask),
            (Some(1000), Some(100), Some(0o077))
        );
        let layer = list("cache-size=2G,attr_ttl=0,op-timeout=90,cache_dir=/var/cache/k,no_disk_cache=false").unwrap();
        assert_eq!(layer.cache_size, Some(2 << 30));
        assert_eq!(layer.attr_ttl, Some(Duration::ZERO));
        assert_eq!(layer.op_timeout, Some(Duration::from_secs(90)));
        assert_eq!(layer.no_disk_cache, Some(false));
    }

    #[test]
    fn rw_takes_back_an_earlier_ro_of_the_same_list_only() {
        assert_eq!(list("ro,rw").unwrap().read_only, None);
        let configured = OptionLayer {
            read_only: Some(true),
            ..OptionLayer::default()
        };
        assert_eq!(configured.under(list("rw").unwrap()).read_only, Some(true));
    }

    #[test]
    fn unknown_and_malformed_options_are_refused_in_words() {
        for (text, part) in [
            (
                "alow_other",
                r#"unknown option "alow_other"; did you mean "allow_other"?"#,
            ),
            ("umask=9", "not a mask in octal"),
            ("uid", "a value is missing"),
            ("uid=root", "not a number"),
            ("cache_size=ten", "not a size"),
            ("attr_ttl=5d", "not a time"),
            ("op_timeout=0", "no time"),
            ("read_only=maybe", "neither true nor false"),
            ("rw=1", "unknown option"),
        ] {
            let error = list(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_upper_layer_wins_and_the_rest_has_defaults() {
        let lower = list("umask=027,attr_ttl=1m").unwrap();
        let options = lower.under(list("umask=077").unwrap()).resolve(7, 8);
        assert_eq!(options.umask, 0o077);
        assert_eq!(options.attr_ttl, Duration::from_secs(60));
        assert_eq!((options.uid, options.gid), (7, 8));
        assert_eq!(options.disk_cache, DiskCacheUse::Limited(DEFAULT_CACHE_SIZE));
        assert_eq!(
            list("no_disk_cache").unwrap().resolve(0, 0).disk_cache,
            DiskCacheUse::Off
        );
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("4K", 4096),
            ("1.5G", 3 << 29),
            ("2GiB", 2 << 30),
            ("2GB", 2_000_000_000),
            ("500 MB", 500_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1", "1X", "1.2.3", "99999999T"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bandwidths_are_for_both_directions_or_for_each() {
        let read = |text| parse_bandwidth(text).map(|rates| (rates.up.map(u64::from), rates.down.map(u64::from)));
        assert_eq!(read("2M"), Ok((Some(2 << 20), Some(2 << 20))));
        assert_eq!(read("500K:1MB"), Ok((Some(500 << 10), Some(1_000_000))));
        assert_eq!(read("off:1K"), Ok((None, Some(1024))));
        assert_eq!(read("off"), Ok((None, None)));
        for text in ["0", "1K:0", "fast", "", "1K:", "1K:2K:3K"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_option_takes_just_anything() {
        for option in &OPTIONS {
            let odd = (option.set)(&mut OptionLayer::default(), Some("/?"));
            let alone = (option.set)(&mut OptionLayer::default(), None);
            assert!(odd.is_err() || alone.is_err(), "{} takes anything", option.name);
        }
    }
}
