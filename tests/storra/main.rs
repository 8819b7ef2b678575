//! Storra beyond the conformance suite: how seldom it is asked, keys and their refusals, safe replacement, and that
//! nothing is published. Against the strict stand-in.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod credentials;
mod faults;
mod keys;
mod overwrite;
mod rates;
#[path = "../support/steps.rs"]
mod steps;
#[path = "../support/storra.rs"]
mod support;
mod visibility;

use futures_util::TryStreamExt;
use keymount::emulator::Running;
use keymount::emulator::storra::{Account, Assumptions, StorraStore};
use keymount::model::{Entry, ErrorKind, Name, ObjectKey, Result};
use keymount::provider::storra::{Freshness, Settings, Storra};
use keymount::provider::{Content, Place, Provider, Target};

use support::{account, client, settings};

/// An account, its server and a client with its key.
struct Bench {
    store: StorraStore,
    account: Account,
    key: String,
    running: Running,
    storra: Storra,
}

impl Bench {
    /// Without limits, and asked anew for every answer.
    async fn new(assumptions: Assumptions) -> Self {
        let bench = Self::with(assumptions, settings("")).await;
        bench.store.lift_limits();
        bench
    }

    /// As a mount asks, with the documented limits.
    async fn limited() -> Self {
        let budgeted = Settings {
            freshness: Freshness::Budgeted,
            ..settings("")
        };
        Self::with(Assumptions::default(), budgeted).await
    }

    async fn with(assumptions: Assumptions, settings: Settings) -> Self {
        let store = StorraStore::new(assumptions);
        let (account, key) = account(&store);
        let running = store.serve().await.unwrap();
        let storra = client(&running.url(), &key, settings).await;
        Self {
            store,
            account,
            key,
            running,
            storra,
        }
    }

    async fn entry(&self, name: &str) -> Entry {
        self.storra.lookup(&root(), &self::name(name)).await.unwrap()
    }

    async fn put(&self, name: &str, bytes: &[u8]) -> Result<Entry> {
        let target = Target::New {
            parent: root(),
            name: self::name(name),
        };
        self.storra.upload(&target, &content(bytes)).await
    }

    async fn replace(&self, old: &Entry, bytes: &[u8]) -> Result<Entry> {
        self.storra.upload(&over(old), &content(bytes)).await
    }

    async fn rename_over(&self, from: &Entry, to: &Entry) -> Result<Entry> {
        let (source, target) = (place(from.name.as_str()), place(to.name.as_str()));
        self.storra.rename(from, &source, &target, Some(to)).await
    }
}

fn root() -> ObjectKey {
    ObjectKey::new("")
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn kind<T>(result: &Result<T>) -> Option<ErrorKind> {
    result.as_ref().err().map(|error| error.kind())
}

fn over(entry: &Entry) -> Target {
    Target::Replace {
        parent: root(),
        entry: entry.clone(),
    }
}

fn place(text: &str) -> Place {
    Place {
        parent: root(),
        name: name(text),
    }
}

fn content(bytes: &[u8]) -> Content {
    Content::from_bytes(bytes).unwrap()
}

async fn read(storra: &Storra, entry: &Entry) -> Result<Vec<u8>> {
    let chunks: Vec<bytes::Bytes> = storra.read(&entry.object(), 0..entry.size).await?.try_collect().await?;
    Ok(chunks.concat())
}
