//! Listing, deleting and renaming, under the paths that a test has made up ([`Console`]).
//!
//! Responsible for what they do to an account's index. Not responsible for who may.

use std::collections::BTreeMap;

use axum::http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Console;
use super::accounts::{Owner, StoredFile};
use super::http::{Refusal, check_name, json_body};

/// What one of the console's requests wants.
pub(super) enum Wish {
    List,
    Delete(Which),
    Rename(Which, Result<String, Refusal>),
}

/// Which files are meant: those that fit everything said.
pub(super) struct Which {
    hash: Option<String>,
    path: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewName {
    name: String,
}

impl Which {
    fn of(blanks: &BTreeMap<String, String>) -> Self {
        Self {
            hash: blanks.get("hash").cloned(),
            path: blanks.get("path").cloned(),
        }
    }

    fn means(&self, file: &StoredFile) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        let says_something = self.hash.is_some() || self.path.is_some();
        says_something && fits(&self.hash, &file.hash) && fits(&self.path, &file.path)
    }
}

impl Wish {
    pub(super) fn read(console: &Console, head: &Parts, body: &[u8]) -> Option<Self> {
        let blanks = |endpoint: &super::Endpoint| endpoint.blanks(&head.method, &head.uri);
        if blanks(&console.list).is_some() {
            return Some(Self::List);
        }
        if let Some(blanks) = blanks(&console.delete) {
            return Some(Self::Delete(Which::of(&blanks)));
        }
        let blanks = blanks(&console.rename)?;
        let name = match blanks.get("name") {
            Some(name) => Ok(name.clone()),
            None => json_body::<NewName>(&head.headers, body).map(|new| new.name),
        };
        Some(Self::Rename(Which::of(&blanks), name))
    }

    pub(super) fn grant(self, owner: &mut Owner) -> Result<Value, Refusal> {
        match self {
            Self::List => Ok(owner.files.iter().map(item).collect()),
            Self::Delete(which) => {
                let gone = owner.files.extract_if(.., |file| which.means(file)).count();
                some(gone)
            }
            Self::Rename(which, name) => {
                let name = name?;
                check_name(&name)?;
                let mut renamed = 0;
                for file in owner.files.iter_mut().filter(|file| which.means(file)) {
                    file.path = file.renamed(&name);
                    renamed += 1;
                }
                some(renamed)
            }
        }
    }
}

fn some(count: usize) -> Result<Value, Refusal> {
    match count {
        0 => Err(Refusal::NotFound),
        _ => Ok(json!({"message": "ok"})),
    }
}

fn item(file: &StoredFile) -> Value {
    json!({
        "name": file.name(),
        "hash": file.hash,
        "size": file.size,
        "path": file.path,
        "created": format!("{:.3}", file.created),
    })
}
