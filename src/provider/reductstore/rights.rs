//! What a token may do, from `GET /me`.

use serde::Deserialize;

use crate::model::Rights;

/// The grants of a token (measured on ReductStore 1.21.5).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Grants {
    #[serde(default)]
    pub(super) full_access: bool,
    #[serde(default)]
    pub(super) read: Vec<String>,
    #[serde(default)]
    pub(super) write: Vec<String>,
}

/// What is known of the token's grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// A server from before `/me`: everything is tried, and refusals are passed on.
    Untold,
    Told(Grants),
}

impl Access {
    /// The rights on a bucket and all in it. Writing includes deleting: ReductStore has no separate grant.
    pub(super) fn on_bucket(&self, bucket: &str) -> Rights {
        let Self::Told(grants) = self else {
            return Rights::ALL;
        };
        let write = grants.full_access || covers(&grants.write, bucket);
        Rights {
            read: grants.full_access || covers(&grants.read, bucket),
            write,
            delete: write,
        }
    }

    /// The rights on the directory of all buckets, which every token may list.
    pub(super) fn on_root(&self) -> Rights {
        match self {
            Self::Told(grants) if !grants.full_access => Rights::READ,
            Self::Told(_) | Self::Untold => Rights::ALL,
        }
    }

    /// Buckets that the token names without reading them: the server's list leaves them out.
    pub(super) fn write_only_buckets(&self) -> Vec<&str> {
        match self {
            Self::Told(grants) if !grants.full_access => grants
                .write
                .iter()
                .map(String::as_str)
                .filter(|bucket| !bucket.ends_with('*') && !bucket.starts_with('$'))
                .filter(|bucket| !covers(&grants.read, bucket))
                .collect(),
            Self::Told(_) | Self::Untold => Vec::new(),
        }
    }
}

/// The server's own rule (`auth/policy.rs` of ReductStore 1.21.5).
fn covers(patterns: &[String], bucket: &str) -> bool {
    patterns.iter().any(|pattern| {
        pattern == bucket
            || (!bucket.starts_with('$')
                && pattern
                    .strip_suffix('*')
                    .is_some_and(|prefix| bucket.starts_with(prefix)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(read: &[&str], write: &[&str]) -> Access {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Access::Told(Grants {
            full_access: false,
            read: owned(read),
            write: owned(write),
        })
    }

    #[test]
    fn grants_become_rights() {
        let access = told(&["logs", "pub*"], &["logs", "inbox"]);
        for (bucket, rights) in [
            ("logs", "rwd"),
            ("inbox", "wd"),
            ("public", "r"),
            ("pub", "r"),
            ("other", ""),
            ("$system", ""),
        ] {
            assert_eq!(access.on_bucket(bucket), rights.parse().unwrap(), "{bucket}");
        }
        assert_eq!(access.on_root(), Rights::READ);
        assert_eq!(access.write_only_buckets(), ["inbox"]);
    }

    #[test]
    fn a_wildcard_covers_no_system_bucket() {
        let access = told(&["*"], &["*"]);
        assert_eq!(access.on_bucket("any"), Rights::ALL);
        assert_eq!(access.on_bucket("$system"), Rights::NONE);
        assert_eq!(told(&["$system"], &[]).on_bucket("$system"), Rights::READ);
    }
}
