//! What an account has, by an endpoint that only dStor's customers know: contents without a name here get one.
//!
//! The form of the answer isn't documented. Read are an array of objects, or an object with such an array in `data`,
//! `files` or `items`; of each object the hash (`hash`, `Hash`, `file_hash`), the name (`name`, `Name`, `file_name`) or the
//! `path`, and the `size`: the spellings of the service's other answers, of 2019 and of today.

use std::time::SystemTime;

use serde::Deserialize;
use tracing::{debug, info};

use super::client::Client;
use super::index::Index;
use super::templates::Endpoint;
use crate::model::{ContentAddress, IndexedContent, IndexedFile, Listed, Listing, Result, Taking, TreePath, instant};

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Answer {
    Plain(Vec<Item>),
    Within {
        #[serde(alias = "files", alias = "items")]
        data: Vec<Item>,
    },
}

#[derive(Deserialize)]
pub(super) struct Item {
    #[serde(alias = "Hash", alias = "file_hash")]
    hash: String,
    #[serde(default, alias = "Name", alias = "file_name")]
    name: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    created: Option<String>,
}

/// Takes in what no tree of this machine has or had: what was removed here stays removed.
///
/// # Errors
/// As the endpoint refuses, `BadData` for an answer of another form.
pub(super) async fn take_listed(client: &Client, index: &dyn Index, endpoint: &Endpoint) -> Result<()> {
    let items = match client.list(endpoint).await? {
        Answer::Plain(items) | Answer::Within { data: items } => items,
    };
    let mut listing = Listing::default();
    for item in &items {
        let Some((path, address)) = named(item) else {
            debug!(hash = item.hash, "what the account has cannot be shown");
            continue;
        };
        if index.knows(&address)? {
            continue;
        }
        let size = match item.size {
            Some(size) => size,
            None => client.length(&address).await?,
        };
        let listed = Listed {
            content: IndexedContent::File(IndexedFile {
                address,
                size,
                sha256: None,
            }),
            modified: item
                .created
                .as_deref()
                .and_then(instant::parse)
                .unwrap_or(SystemTime::UNIX_EPOCH),
        };
        listing.insert(path, listed);
    }
    let taken = index.take(&listing, Taking::Merge)?;
    if taken.added > 0 || taken.kept > 0 {
        info!(
            added = taken.added,
            kept = taken.kept,
            "the account has contents that had no name here"
        );
    }
    Ok(())
}

/// `None` for what has no path here: a hashed folder, whose entries nobody tells, or an odd name.
fn named(item: &Item) -> Option<(TreePath, ContentAddress)> {
    let text = item.path.as_ref().or(item.name.as_ref())?;
    if text.ends_with('/') {
        return None;
    }
    let path = text.trim_start_matches('/').parse().ok()?;
    Some((path, ContentAddress::new(&item.hash)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_spellings_are_read() {
        let hash = "Q".repeat(46);
        for text in [
            format!(r#"[{{"hash":"{hash}","path":"/a/b","size":3,"id":7}}]"#),
            format!(r#"{{"data":[{{"Name":"b","Hash":"{hash}"}}]}}"#),
            format!(r#"{{"message":"ok","files":[{{"file_name":"b","file_hash":"{hash}"}}]}}"#),
        ] {
            let items = match serde_json::from_str(&text).unwrap() {
                Answer::Plain(items) | Answer::Within { data: items } => items,
            };
            let (path, address) = named(&items[0]).unwrap();
            assert_eq!((path.name().as_str(), address.as_str()), ("b", hash.as_str()));
        }
        assert!(serde_json::from_str::<Answer>(r#"{"message":"ok"}"#).is_err());
        let folder = Item {
            hash,
            name: None,
            path: Some("/site/".to_owned()),
            size: None,
            created: None,
        };
        assert!(named(&folder).is_none());
    }
}
