//! CloudSync beyond the conformance suite: credentials, roles and rights, pages and rates, keys, and what goes wrong on
//! the way. Against the strict stand-in.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;
mod keys;
mod pages;
mod rights;
#[path = "../support/steps.rs"]
mod steps;
#[path = "../support/cloudsync.rs"]
mod support;

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use keymount::emulator::Running;
use keymount::emulator::cloudsync::{Assumptions, CloudSyncStore, Plan, Scope, Workspace};
use keymount::model::{Entry, ErrorKind, Name, ObjectKey, Result};
use keymount::provider::cloudsync::CloudSync;
use keymount::provider::{Content, Place, Provider, Target};
use reqwest::Method;

use support::{Credential, OWNER, client, settings};

/// A workspace, its server and a client with a key that may do everything.
struct Bench {
    store: CloudSyncStore,
    workspace: Workspace,
    running: Running,
    cloudsync: CloudSync,
}

impl Bench {
    async fn new() -> Self {
        Self::with(Assumptions::default(), Plan::unlimited()).await
    }

    async fn with(assumptions: Assumptions, plan: Plan) -> Self {
        let store = CloudSyncStore::new(assumptions);
        store.add_user(OWNER, plan);
        let workspace = store.add_workspace(OWNER, "project").unwrap();
        let key = store.create_key(OWNER, "everything", &Scope::of_keys()).unwrap();
        let running = store.serve_api().await.unwrap();
        let credential = Credential::ApiKey(key.secret().to_owned());
        let cloudsync = client(&running.url(), credential, settings(Some(workspace.id()), "")).await;
        Self {
            store,
            workspace,
            running,
            cloudsync,
        }
    }

    /// Another client of the workspace, with a key of the owner's for these permissions.
    async fn limited(&self, permissions: &[Scope]) -> CloudSync {
        let key = self.store.create_key(OWNER, "limited", permissions).unwrap();
        self.of(Credential::ApiKey(key.secret().to_owned()), Some("project"))
            .await
    }

    async fn of(&self, credential: Credential, workspace: Option<&str>) -> CloudSync {
        client(&self.running.url(), credential, settings(workspace, "")).await
    }

    fn root(&self) -> ObjectKey {
        ObjectKey::new(self.workspace.id())
    }

    async fn entry(&self, name: &str) -> Entry {
        self.cloudsync.lookup(&self.root(), &self::name(name)).await.unwrap()
    }

    fn new_file(&self, text: &str) -> Target {
        Target::New {
            parent: self.root(),
            name: name(text),
        }
    }

    fn over(&self, entry: &Entry) -> Target {
        Target::Replace {
            parent: self.root(),
            entry: entry.clone(),
        }
    }

    fn place(&self, text: &str) -> Place {
        Place {
            parent: self.root(),
            name: name(text),
        }
    }

    /// Every file of the workspace's root by name.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let names = self.workspace.list("/").unwrap();
        let content = |name: &String| self.workspace.read(&format!("/{name}")).map(|bytes| bytes.to_vec());
        names
            .into_iter()
            .filter_map(|name| content(&name).map(|bytes| (name, bytes)))
            .collect()
    }

    /// The requests since the log was forgotten, as method and target below `/v1`.
    fn requests(&self) -> Vec<(Method, String)> {
        let requests = self.running.requests().into_iter();
        requests
            .map(|request| (request.method, request.target.replacen("/v1", "", 1)))
            .collect()
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn kind<T>(result: &Result<T>) -> Option<ErrorKind> {
    result.as_ref().err().map(|error| error.kind())
}

fn content(bytes: &[u8]) -> Content {
    Content::from_bytes(bytes).unwrap()
}

async fn read(cloudsync: &CloudSync, entry: &Entry) -> Result<Vec<u8>> {
    let chunks: Vec<bytes::Bytes> = cloudsync
        .read(&entry.object(), 0..entry.size)
        .await?
        .try_collect()
        .await?;
    Ok(chunks.concat())
}
