//! `keys list`: what the provider tells about its keys.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::HumanDuration;
use jiff::Timestamp;
use serde::Serialize;

use super::{Exit, Failure, Service, printable};
use crate::control::seconds;
use crate::provider::keys::{CurrentKey, KeyGrants, KeyInfo, KeyOrigin, KeyStanding};

/// The document of `--json`.
#[derive(Serialize)]
struct Keys<'a> {
    keys: Vec<Key<'a>>,
}

/// Times in seconds since 1970; `null` is what the provider doesn't tell or the key doesn't have.
#[derive(Serialize)]
struct Key<'a> {
    id: &'a str,
    name: &'a str,
    created: Option<u64>,
    expires: Option<u64>,
    expired: bool,
    /// In seconds.
    idle_limit: Option<u64>,
    last_used: Option<u64>,
    full_access: Option<bool>,
    read: Option<Vec<&'a str>>,
    write: Option<Vec<&'a str>>,
    permissions: Option<Vec<&'a str>>,
    addresses: &'a [String],
    /// Whether the API can revoke it.
    revocable: bool,
    /// Whether the remote is mounted with it.
    in_use: Option<bool>,
}

pub async fn run(service: &Service, json: bool) -> Result<Exit, Failure> {
    let keys = service.manager.list().await.map_err(|error| service.failed(error))?;
    let own = service.own_key_if_any().await?;
    if json {
        let document = Keys {
            keys: keys.iter().map(|key| describe(key, &own)).collect(),
        };
        let text = serde_json::to_string_pretty(&document)
            .map_err(|error| Failure::new(Exit::Other, format!("the keys cannot be written: {error}")))?;
        println!("{text}");
    } else if keys.is_empty() {
        println!("{} has no keys", service.remote.name);
    } else {
        println!("{}", table(&keys, &own, SystemTime::now()));
    }
    Ok(Exit::Done)
}

fn in_use(key: &KeyInfo, own: &CurrentKey) -> Option<bool> {
    match own {
        CurrentKey::Told(own) => Some(own.id == key.id),
        CurrentKey::Untold => None,
    }
}

fn describe<'a>(key: &'a KeyInfo, own: &CurrentKey) -> Key<'a> {
    fn words(set: &BTreeSet<String>) -> Option<Vec<&str>> {
        Some(set.iter().map(String::as_str).collect())
    }
    let (read, write, permissions) = match &key.grants {
        Some(KeyGrants::Buckets { read, write }) => (words(read), words(write), None),
        Some(KeyGrants::Permissions(permissions)) => (None, None, words(permissions)),
        Some(KeyGrants::Everything) | None => (None, None, None),
    };
    Key {
        id: &key.id,
        name: &key.name,
        created: key.created.map(seconds),
        expires: key.expires.map(seconds),
        expired: key.standing == KeyStanding::Expired,
        idle_limit: key.idle_limit.map(|limit| limit.as_secs()),
        last_used: key.last_used.map(seconds),
        full_access: key.grants.as_ref().map(|grants| *grants == KeyGrants::Everything),
        read,
        write,
        permissions,
        addresses: &key.addresses,
        revocable: key.origin == KeyOrigin::Api,
        in_use: in_use(key, own),
    }
}

fn table(keys: &[KeyInfo], own: &CurrentKey, now: SystemTime) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["KEY", "MAY", "CREATED", "LAST USED", "ENDS"]);
    for key in keys {
        let mut name = printable(&key.name);
        if key.id != key.name {
            name.push_str(&format!(" [{}]", printable(&key.id)));
        }
        if in_use(key, own) == Some(true) {
            name.push_str(" (in use here)");
        }
        if key.origin == KeyOrigin::Settings {
            name.push_str(" (from the server's settings)");
        }
        let mut may = key
            .grants
            .as_ref()
            .map_or_else(|| "?".to_owned(), |grants| printable(&grants.to_string()));
        if !key.addresses.is_empty() {
            may.push_str(&format!("; from {} only", printable(&key.addresses.join(", "))));
        }
        table.add_row([name, may, date(key.created), date(key.last_used), ends(key, now)]);
    }
    table
}

/// The day, in UTC.
fn date(time: Option<SystemTime>) -> String {
    time.and_then(|time| Timestamp::try_from(time).ok())
        .map_or_else(|| "-".to_owned(), |stamp| stamp.strftime("%Y-%m-%d").to_string())
}

fn ends(key: &KeyInfo, now: SystemTime) -> String {
    if key.standing == KeyStanding::Expired {
        return "ended".to_owned();
    }
    let at = key.expires.map(|at| {
        let left = at.duration_since(now).unwrap_or(Duration::ZERO);
        format!("{}, in {}", date(Some(at)), HumanDuration(left))
    });
    let idle = key
        .idle_limit
        .map(|limit| format!("after {} without use", HumanDuration(limit)));
    let parts: Vec<String> = at.into_iter().chain(idle).collect();
    if parts.is_empty() {
        "never".to_owned()
    } else {
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> KeyInfo {
        KeyInfo {
            id: name.into(),
            name: name.into(),
            created: Some(SystemTime::UNIX_EPOCH),
            expires: None,
            idle_limit: None,
            last_used: None,
            grants: Some(KeyGrants::buckets(["b".to_owned()], [])),
            addresses: Vec::new(),
            standing: KeyStanding::Usable,
            origin: KeyOrigin::Api,
        }
    }

    #[test]
    fn the_table_says_everything() {
        let day = Duration::from_secs(86_400);
        let now = SystemTime::UNIX_EPOCH + 10 * day;
        let limited = KeyInfo {
            expires: Some(now + 3 * day),
            idle_limit: Some(Duration::from_secs(3600)),
            addresses: vec!["10.0.0.0/8".into()],
            ..key("limited")
        };
        let root = KeyInfo {
            grants: None,
            origin: KeyOrigin::Settings,
            standing: KeyStanding::Expired,
            ..key("root")
        };
        let own = CurrentKey::Told(key("limited"));
        let text = table(&[limited, root], &own, now).to_string();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "limited (in use here)",
            "read b; from 10.0.0.0/8 only",
            "1970-01-01",
            "1970-01-14, in 3 days; after 60 minutes without use",
            "root (from the server's settings) ?",
            "ended",
        ] {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
    }

    #[test]
    fn keys_of_one_name_are_told_apart() {
        let twin = |id: &str| KeyInfo {
            id: id.into(),
            grants: Some(KeyGrants::Permissions(BTreeSet::from(["files:read".to_owned()]))),
            ..key("twin")
        };
        let own = CurrentKey::Told(twin("key_2"));
        let text = table(&[twin("key_1"), twin("key_2")], &own, SystemTime::UNIX_EPOCH).to_string();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            text.contains("twin [key_1] files:read") && text.contains("twin [key_2] (in use here) files:read"),
            "{text}"
        );
        let value = serde_json::to_value(describe(&twin("key_1"), &own)).unwrap();
        assert_eq!((&value["id"], &value["in_use"]), (&"key_1".into(), &false.into()));
        assert_eq!(value["permissions"], serde_json::json!(["files:read"]));
        assert!(value["read"].is_null());
    }

    #[test]
    fn what_is_not_told_is_null() {
        let untold = KeyInfo {
            grants: None,
            ..key("k")
        };
        let value = serde_json::to_value(describe(&untold, &CurrentKey::Untold)).unwrap();
        for name in ["full_access", "read", "in_use", "expires"] {
            assert!(value[name].is_null(), "{name}");
        }
        let value = serde_json::to_value(describe(&key("k"), &CurrentKey::Told(key("other")))).unwrap();
        assert_eq!(value["in_use"], false);
        assert_eq!(value["full_access"], false);
        assert_eq!(value["read"][0], "b");
    }
}
