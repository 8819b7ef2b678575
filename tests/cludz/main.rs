//! Cludz beyond the conformance suite: tokens and rights, the service's limits and oddities, and what goes wrong on
//! the way. Against the strict stand-in.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;
mod reads;
mod rights;
#[path = "../support/steps.rs"]
mod steps;
#[path = "../support/cludz.rs"]
mod support;
mod uploads;

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use keymount::emulator::Running;
use keymount::emulator::cludz::{Assumptions, CludzStore, Drive};
use keymount::model::{Entry, ErrorKind, Name, ObjectKey, Result};
use keymount::provider::cludz::Cludz;
use keymount::provider::{Content, Place, Provider, Target};
use reqwest::Method;

use support::{Token, client};

/// A drive, its server and a client with the owner's token.
struct Bench {
    drive: Drive,
    running: Running,
    cludz: Cludz,
}

impl Bench {
    async fn new() -> Self {
        Self::with(Assumptions::default()).await
    }

    async fn with(assumptions: Assumptions) -> Self {
        let drive = CludzStore::new(assumptions);
        let store = drive.clone();
        let drive = drive.add_drive();
        let running = store.serve().await.unwrap();
        let cludz = client(running.url(), drive.id(), Token::Header(drive.owner_token())).await;
        Self { drive, running, cludz }
    }

    /// Another client, with a shared token that has no grant yet.
    async fn shared(&self, name: &str) -> Cludz {
        let token = Token::Header(self.drive.share(name));
        client(self.running.url(), self.drive.id(), token).await
    }

    async fn entry(&self, name: &str) -> Entry {
        self.cludz.lookup(&root(), &self::name(name)).await.unwrap()
    }

    /// Every file of the drive's root by name.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let names = self.drive.list("/").unwrap();
        let content = |name: &String| self.drive.read(&format!("/{name}")).map(|bytes| bytes.to_vec());
        names
            .into_iter()
            .filter_map(|name| content(&name).map(|bytes| (name, bytes)))
            .collect()
    }

    /// The changes that arrived so far, as method and path below the drive.
    fn changes(&self) -> Vec<(Method, String)> {
        let prefix = format!("/storage/{}", self.drive.id());
        self.running
            .requests()
            .into_iter()
            .filter(|request| request.method != Method::GET)
            .map(|request| (request.method, request.target.strip_prefix(&prefix).unwrap().to_owned()))
            .collect()
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

fn new(text: &str) -> Target {
    Target::New {
        parent: root(),
        name: name(text),
    }
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

async fn read(cludz: &Cludz, entry: &Entry, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
    let chunks: Vec<bytes::Bytes> = cludz.read(&entry.object(), range).await?.try_collect().await?;
    Ok(chunks.concat())
}
