//! The ReductStore provider against the real server.

#![allow(clippy::unwrap_used, reason = "a helper that fails ends the test")]

#[path = "support/program.rs"]
mod program;
#[path = "support/reductstore.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use keymount::api::{Api, PlainHttp};
use keymount::auth::{GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};
use keymount::model::{Entry, ErrorKind, Kind, Name, ObjectKey, Rights};
use keymount::net::{RetryPolicy, Transport, TransportSettings};
use keymount::provider::reductstore::{NameMode, ReductStore, Settings};
use keymount::provider::{Change, ChangeFeed, Content, LabelChanges, Place, Provider, Target};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use server::{ReductServer, TOKEN};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

async fn provider_at(endpoint: &str, token: &str, settings: Settings) -> ReductStore {
    let patience = TransportSettings::within(Duration::from_secs(10));
    provider_with(endpoint, token, settings, patience).await
}

async fn provider_with(endpoint: &str, token: &str, settings: Settings, patience: TransportSettings) -> ReductStore {
    let mut given = GivenSecrets::default();
    given.insert("T", token.into());
    let token = StaticToken::open(
        SecretSource::Env("T".into()),
        TokenPlacement::Bearer,
        TokenKind::TOKEN,
        given,
    )
    .await
    .unwrap();
    let transport = Transport::new(patience).unwrap();
    let api = Api::new(
        endpoint.parse().unwrap(),
        PlainHttp::LoopbackOnly,
        transport,
        Arc::new(token),
        ReductStore::dialect(),
    )
    .unwrap();
    ReductStore::new(Arc::new(api), settings)
}

fn bucket_settings(bucket: &str) -> Settings {
    Settings {
        bucket: Some(bucket.into()),
        ..Settings::default()
    }
}

/// A server with the bucket `b`, a provider for it, and its root.
struct Mounted {
    server: ReductServer,
    provider: ReductStore,
    root: Entry,
}

impl Mounted {
    async fn new() -> Self {
        Self::with(&[], bucket_settings("b")).await
    }

    async fn with(variables: &[(&str, &str)], settings: Settings) -> Self {
        let server = ReductServer::start(variables);
        raw(&server, Method::POST, "b/b", &[], "{}").await;
        let provider = provider_at(&server.endpoint(), TOKEN, settings).await;
        let root = provider.probe().await.unwrap();
        Self { server, provider, root }
    }

    async fn create(&self, parent: &ObjectKey, file: &str, bytes: &[u8]) -> Entry {
        self.try_create(parent, file, bytes)
            .await
            .unwrap_or_else(|error| panic!("{file}: {error:?}"))
    }

    async fn try_create(&self, parent: &ObjectKey, file: &str, bytes: &[u8]) -> keymount::model::Result<Entry> {
        create(&self.provider, parent, file, bytes).await
    }

    async fn replace(&self, parent: &ObjectKey, entry: &Entry, bytes: &[u8]) -> keymount::model::Result<Entry> {
        let target = Target::Replace {
            parent: parent.clone(),
            entry: entry.clone(),
        };
        self.provider
            .upload(&target, &Content::from_bytes(bytes).unwrap())
            .await
    }

    async fn mkdir(&self, parent: &ObjectKey, directory: &str) -> Entry {
        self.provider
            .create_directory(parent, &name(directory))
            .await
            .unwrap_or_else(|error| panic!("{directory}: {error:?}"))
    }

    async fn listed(&self, directory: &ObjectKey) -> BTreeMap<String, Entry> {
        let entries = self.provider.list(directory).await.unwrap();
        let count = entries.len();
        let named: BTreeMap<_, _> = entries
            .into_iter()
            .map(|entry| (entry.name.to_string(), entry))
            .collect();
        assert_eq!(named.len(), count, "each name once");
        named
    }

    async fn names(&self, directory: &ObjectKey) -> Vec<String> {
        self.listed(directory).await.into_keys().collect()
    }

    async fn kind_of_lookup(&self, parent: &ObjectKey, child: &str) -> Result<Kind, ErrorKind> {
        let found = self.provider.lookup(parent, &name(child)).await;
        found.map(|entry| entry.kind).map_err(|error| error.kind())
    }

    async fn put(&self, path: &str, at: u64, headers: &[(&str, &str)], body: &str) {
        raw(&self.server, Method::POST, &format!("b/{path}?ts={at}"), headers, body).await;
    }
}

async fn create(
    provider: &ReductStore,
    parent: &ObjectKey,
    file: &str,
    bytes: &[u8],
) -> keymount::model::Result<Entry> {
    let target = Target::New {
        parent: parent.clone(),
        name: name(file),
    };
    provider.upload(&target, &Content::from_bytes(bytes).unwrap()).await
}

async fn read(provider: &ReductStore, entry: &Entry) -> Result<Vec<u8>, ErrorKind> {
    let mut stream = provider
        .read(&entry.object(), 0..entry.size)
        .await
        .map_err(|error| error.kind())?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| error.kind())?);
    }
    Ok(bytes)
}

/// A call past the provider, as another client makes it, that must succeed.
async fn raw(server: &ReductServer, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Value {
    let mut request = reqwest::Client::new()
        .request(method.clone(), server.url(path))
        .bearer_auth(TOKEN)
        .header("content-type", "application/json")
        .header("content-length", body.len());
    for (name, value) in headers {
        let name: reqwest::header::HeaderName = name.parse().unwrap();
        let mut further = reqwest::header::HeaderMap::new();
        further.insert(name, value.parse().unwrap());
        request = request.headers(further);
    }
    let answer = request.body(body.to_owned()).send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{method} {path}: {text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

async fn token(server: &ReductServer, token: &str, permissions: Value) -> String {
    let body = json!({ "permissions": permissions }).to_string();
    let made = raw(server, Method::POST, &format!("tokens/{token}"), &[], &body).await;
    made["value"].as_str().unwrap().to_owned()
}

const NAMES: [&str; 30] = [
    "plain.txt",
    ".git",
    ".hidden",
    "no extension",
    "a b  c",
    " lead and trail ",
    "ü日本.txt",
    "e\u{301}",
    "100%.txt",
    "%41",
    "a%20b",
    "a,b",
    "a=b",
    "\"quoted\"",
    "a'b",
    "name=\"x,y\"",
    "back\\slash",
    "new\nline",
    "tab\t",
    "123",
    "-1",
    "1e5",
    "true",
    "NaN",
    "5s",
    "d2",
    "&name",
    "$x",
    "q",
    "a_-b_",
];

#[tokio::test]
async fn files_of_every_name_are_listed_found_and_read() {
    let at = Mounted::new().await;
    let directory = at.mkdir(&at.root.key, "files").await;
    let longest = "x".repeat(255);
    let wide = "é".repeat(127);
    let all: BTreeSet<&str> = NAMES.into_iter().chain([longest.as_str(), wide.as_str()]).collect();
    for parent in [&at.root.key, &directory.key] {
        for file in &all {
            at.create(parent, file, file.as_bytes()).await;
        }
        let listed = at.listed(parent).await;
        for file in &all {
            let entry = listed
                .get(*file)
                .unwrap_or_else(|| panic!("{file:?} in {:?}", listed.keys()));
            assert_eq!(entry.size, file.len() as u64);
            assert_eq!(at.provider.lookup(parent, &name(file)).await.unwrap(), *entry);
            assert_eq!(at.provider.stat(entry).await.unwrap(), *entry);
            assert_eq!(read(&at.provider, entry).await.unwrap(), file.as_bytes());
            assert_eq!(
                at.try_create(parent, file, b"other")
                    .await
                    .map_err(|error| error.kind()),
                Err(ErrorKind::AlreadyExists)
            );
        }
        let directories = usize::from(*parent == at.root.key);
        assert_eq!(listed.len(), all.len() + directories);
    }
}

#[tokio::test]
async fn directories_of_every_name_hold_directories_and_files() {
    let at = Mounted::new().await;
    for directory in NAMES
        .into_iter()
        .chain(["batch", "rename", "_-", "_", "-", "_-41", "e_-zz"])
    {
        let made = at.mkdir(&at.root.key, directory).await;
        assert_eq!(made.kind, Kind::Directory);
        let nested = at.mkdir(&made.key, directory).await;
        at.create(&nested.key, directory, b"deep").await;
        assert_eq!(at.names(&made.key).await, [directory]);
        assert_eq!(at.names(&nested.key).await, [directory]);
        assert_eq!(
            at.provider.lookup(&at.root.key, &name(directory)).await.unwrap().key,
            made.key
        );
        let again = at.provider.create_directory(&at.root.key, &name(directory)).await;
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            at.try_create(&at.root.key, directory, b"").await.unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
    }
    let too_long = name(&".".repeat(100));
    let error = at.provider.create_directory(&at.root.key, &too_long).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NameTooLong);
}

#[tokio::test]
async fn empty_directories_survive_a_restart_and_go_only_when_empty() {
    let mut at = Mounted::new().await;
    let outer = at.mkdir(&at.root.key, "outer").await;
    let inner = at.mkdir(&outer.key, "inner dir").await;
    at.server.stop();
    at.server.restart();
    assert_eq!(at.names(&outer.key).await, ["inner dir"]);

    let remove = async |entry: &Entry| at.provider.remove_directory(entry).await.map_err(|error| error.kind());
    assert_eq!(remove(&outer).await, Err(ErrorKind::NotEmpty));
    let file = at.create(&inner.key, "f", b"").await;
    assert_eq!(remove(&inner).await, Err(ErrorKind::NotEmpty));
    at.provider.remove_file(&file).await.unwrap();
    assert_eq!(remove(&inner).await, Ok(()));
    assert_eq!(remove(&inner).await, Err(ErrorKind::NotFound));
    assert_eq!(
        at.provider.list(&inner.key).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        at.try_create(&inner.key, "f", b"").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(remove(&outer).await, Ok(()));
    assert!(at.names(&at.root.key).await.is_empty());
    // The name is free at once.
    at.mkdir(&at.root.key, "outer").await;
}

#[tokio::test]
async fn long_listings_and_empty_files_are_whole() {
    let at = Mounted::new().await;
    for number in 0..200 {
        at.create(&at.root.key, &format!("file {number}, of \"200\""), b"")
            .await;
    }
    let listed = at.listed(&at.root.key).await;
    assert_eq!(listed.len(), 200);
    let entry = &listed["file 123, of \"200\""];
    assert_eq!(entry.size, 0);
    assert_eq!(read(&at.provider, entry).await.unwrap(), b"");
}

#[tokio::test]
async fn records_of_others_are_files_too() {
    let at = Mounted::new().await;
    at.put("b/sensors/temp", 1_000_000, &[("content-type", "text/csv")], "1,2")
        .await;
    at.put(
        "b/sensors/temp",
        2_000_000,
        &[("content-type", "text/plain; charset=utf-8")],
        "x",
    )
    .await;
    at.put("b/sensors/temp", 3_000_000, &[("x-reduct-label-name", "42")], "{}")
        .await;
    at.put(
        "b/sensors/temp",
        4_000_000,
        &[("x-reduct-label-name", "a/b"), ("content-type", "image/png")],
        "",
    )
    .await;
    let sensors = at.provider.lookup(&at.root.key, &name("sensors")).await.unwrap();
    let temp = at.provider.lookup(&sensors.key, &name("temp")).await.unwrap();
    assert_eq!(
        at.names(&temp.key).await,
        ["1000000.csv", "2000000.bin", "4000000.png", "42"]
    );
    for (file, seconds, bytes) in [
        ("1000000.csv", 1, "1,2"),
        ("2000000.bin", 2, "x"),
        ("42", 3, "{}"),
        ("4000000.png", 4, ""),
    ] {
        let entry = at.provider.lookup(&temp.key, &name(file)).await.unwrap();
        assert_eq!(entry.modified, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(read(&at.provider, &entry).await.unwrap(), bytes.as_bytes());
    }
    for absent in ["1000000.txt", "3000000.json", "01000000.csv", "5000000.bin"] {
        assert_eq!(
            at.kind_of_lookup(&temp.key, absent).await,
            Err(ErrorKind::NotFound),
            "{absent}"
        );
    }
}

#[tokio::test]
async fn of_equal_names_the_newest_record_has_it() {
    let at = Mounted::new().await;
    at.mkdir(&at.root.key, "dir").await;
    let label = |text| [("x-reduct-label-name", text), ("content-type", "text/plain")];
    at.put("b/_-", 1, &label("f"), "old").await;
    at.put("b/_-", 2, &label("f"), "new").await;
    at.put("b/_-", 3, &label("dir"), "hidden by a directory").await;
    at.put("b/_-", 4, &label("5.txt"), "takes a name").await;
    at.put("b/_-", 5, &[("content-type", "text/plain")], "loses its name")
        .await;
    let listed = at.listed(&at.root.key).await;
    let names: Vec<&str> = listed.keys().map(String::as_str).collect();
    assert_eq!(names, ["1.txt", "3.txt", "5.txt", "dir", "f"]);
    for (file, entry) in &listed {
        assert_eq!(
            at.provider.lookup(&at.root.key, &name(file)).await.unwrap(),
            *entry,
            "{file}"
        );
    }
    assert_eq!(at.kind_of_lookup(&at.root.key, "2.txt").await, Err(ErrorKind::NotFound));
    assert_eq!(read(&at.provider, &listed["f"]).await.unwrap(), b"new");
    assert_eq!(read(&at.provider, &listed["5.txt"]).await.unwrap(), b"takes a name");
    assert_eq!(listed["dir"].kind, Kind::Directory);

    // A file shown by its time can be replaced under that name.
    let replaced = at.replace(&at.root.key, &listed["1.txt"], b"newest").await.unwrap();
    assert_eq!(replaced.name, name("1.txt"));
    assert_eq!(at.names(&at.root.key).await, ["1.txt", "3.txt", "5.txt", "dir", "f"]);
}

#[tokio::test]
async fn a_replacement_keeps_the_name_and_labels_and_only_one_record() {
    let at = Mounted::new().await;
    let entry = at.create(&at.root.key, "f.csv", b"one").await;
    let changes = LabelChanges::from([("origin".into(), Some("a, \"b\"".into()))]);
    let entry = at.provider.set_labels(&entry, &changes).await.unwrap();
    let next = at.replace(&at.root.key, &entry, b"two!").await.unwrap();
    assert_eq!((next.size, &next.labels), (4, &entry.labels));
    assert_ne!(next.version, entry.version);
    assert_eq!(read(&at.provider, &next).await.unwrap(), b"two!");
    assert_eq!(read(&at.provider, &entry).await, Err(ErrorKind::NotFound));
    assert_eq!(at.provider.stat(&entry).await.unwrap_err().kind(), ErrorKind::NotFound);
    let info = raw(&at.server, Method::GET, "b/b", &[], "").await;
    assert_eq!(info["entries"][0]["record_count"], 1);

    // The loser of a race changes nothing.
    let late = at.replace(&at.root.key, &entry, b"three").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Changed);
    assert_eq!(read(&at.provider, &next).await.unwrap(), b"two!");
    // The same bytes again are what an upload stored whose answer got lost.
    assert_eq!(at.replace(&at.root.key, &entry, b"two!").await.unwrap(), next);
    at.provider.remove_file(&next).await.unwrap();
    let gone = at.replace(&at.root.key, &next, b"four").await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Changed);
    assert!(at.names(&at.root.key).await.is_empty());
}

#[tokio::test]
async fn an_interrupted_replacement_is_finished_without_harm_to_others() {
    let at = Mounted::new().await;
    let root = &at.root.key;
    let entry = at.create(root, "f", b"one").await;
    let next = at.replace(root, &entry, b"two").await.unwrap();
    let (_, old_time) = entry.key.as_str().rsplit_once('@').unwrap();
    let digest = entry.version.as_str().rsplit_once('-').unwrap().1;
    let put_old_back = async |label: &str| {
        let headers = [
            ("x-reduct-label-name", label),
            ("x-reduct-label-sha256", digest),
            ("content-type", "application/octet-stream"),
        ];
        at.put("b/_-", old_time.parse().unwrap(), &headers, "one").await;
    };
    put_old_back("f").await;
    assert_eq!(at.names(root).await.len(), 2);
    assert_eq!(at.replace(root, &entry, b"two").await.unwrap(), next);
    assert_eq!(at.names(root).await, ["f"]);
    // Somebody gave the old record another name: it is theirs.
    put_old_back("kept").await;
    assert_eq!(at.replace(root, &entry, b"two").await.unwrap(), next);
    assert_eq!(at.names(root).await, ["f", "kept"]);
}

#[tokio::test]
async fn removing_one_record_leaves_all_others() {
    let at = Mounted::new().await;
    let directory = at.mkdir(&at.root.key, "d").await;
    at.mkdir(&directory.key, "child").await;
    for file in ["a", "b", "c"] {
        at.create(&directory.key, file, file.as_bytes()).await;
    }
    let listed = at.listed(&directory.key).await;
    at.provider.remove_file(&listed["b"]).await.unwrap();
    assert_eq!(at.names(&directory.key).await, ["a", "c", "child"]);
    assert_eq!(
        at.provider.remove_file(&listed["b"]).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(at.names(&directory.key).await, ["a", "c", "child"]);
    assert_eq!(
        at.provider.remove_file(&listed["child"]).await.unwrap_err().kind(),
        ErrorKind::IsADirectory
    );
    assert_eq!(
        at.provider.remove_directory(&listed["a"]).await.unwrap_err().kind(),
        ErrorKind::NotADirectory
    );
    assert_eq!(at.names(&directory.key).await, ["a", "c", "child"]);
    assert_eq!(read(&at.provider, &listed["c"]).await.unwrap(), b"c");
}

#[tokio::test]
async fn files_are_renamed_within_their_directory() {
    let at = Mounted::new().await;
    let root = &at.root.key;
    let directory = at.mkdir(root, "d").await;
    let place = |parent: &ObjectKey, text: &str| Place {
        parent: parent.clone(),
        name: name(text),
    };
    let entry = at.create(root, "temp~1", b"new").await;
    let target = at.create(root, "doc.txt", b"old").await;
    let rename = async |entry: &Entry, to: Place, replaced: Option<&Entry>| {
        let from = place(root, entry.name.as_str());
        at.provider.rename(entry, &from, &to, replaced).await
    };
    let kind = |outcome: keymount::model::Result<Entry>| outcome.map_err(|error| error.kind());

    assert_eq!(
        kind(rename(&entry, place(root, "doc.txt"), None).await),
        Err(ErrorKind::AlreadyExists)
    );
    assert_eq!(
        kind(rename(&entry, place(root, "d"), None).await),
        Err(ErrorKind::AlreadyExists)
    );
    assert_eq!(
        kind(rename(&entry, place(&directory.key, "x"), None).await),
        Err(ErrorKind::CrossDevice)
    );
    let moved = rename(&entry, place(root, "doc.txt"), Some(&target)).await.unwrap();
    assert_eq!(moved.key, entry.key);
    assert_eq!(moved.version, entry.version);
    assert_eq!(at.names(root).await, ["d", "doc.txt"]);
    assert_eq!(at.provider.lookup(root, &name("doc.txt")).await.unwrap(), moved);
    assert_eq!(read(&at.provider, &moved).await.unwrap(), b"new");
    let moved = rename(&moved, place(root, "ü 5s"), None).await.unwrap();
    assert_eq!(at.provider.stat(&entry).await.unwrap().name, moved.name);
    assert_eq!(at.kind_of_lookup(root, "doc.txt").await, Err(ErrorKind::NotFound));
    let same = rename(&moved, place(root, "ü 5s"), None).await.unwrap();
    assert_eq!(same, moved);
    at.provider.remove_file(&moved).await.unwrap();
    assert_eq!(
        kind(rename(&moved, place(root, "z"), None).await),
        Err(ErrorKind::NotFound)
    );
}

#[tokio::test]
async fn directories_are_renamed_with_all_in_them() {
    let at = Mounted::new().await;
    let root = &at.root.key;
    let source = at.mkdir(root, "source dir").await;
    let child = at.mkdir(&source.key, "child").await;
    at.create(&child.key, "f", b"deep").await;
    at.create(&source.key, "g", b"flat").await;
    let empty = at.mkdir(root, "empty").await;
    let full = at.mkdir(root, "full").await;
    at.create(&full.key, "x", b"").await;
    let file = at.create(root, "file", b"").await;
    let rename = async |to: &ObjectKey, text: &str, replaced: Option<&Entry>| {
        let from = Place {
            parent: root.clone(),
            name: source.name.clone(),
        };
        let to = Place {
            parent: to.clone(),
            name: name(text),
        };
        let outcome = at.provider.rename(&source, &from, &to, replaced).await;
        outcome.map_err(|error| error.kind())
    };
    assert_eq!(rename(root, "full", Some(&full)).await, Err(ErrorKind::NotEmpty));
    assert_eq!(rename(root, "full", None).await, Err(ErrorKind::AlreadyExists));
    assert_eq!(rename(root, "file", None).await, Err(ErrorKind::AlreadyExists));
    assert_eq!(rename(root, "file", Some(&file)).await, Err(ErrorKind::NotADirectory));
    assert_eq!(at.names(&source.key).await, ["child", "g"]);

    let moved = rename(root, "empty", Some(&empty)).await.unwrap();
    assert_eq!(at.names(root).await, ["empty", "file", "full"]);
    assert_eq!(at.names(&moved.key).await, ["child", "g"]);
    let from = Place {
        parent: root.clone(),
        name: name("empty"),
    };
    let to = Place {
        parent: full.key.clone(),
        name: name(".moved"),
    };
    let moved = at.provider.rename(&moved, &from, &to, None).await.unwrap();
    assert_eq!(at.names(&full.key).await, [".moved", "x"]);
    let child = at.provider.lookup(&moved.key, &name("child")).await.unwrap();
    let entry = at.provider.lookup(&child.key, &name("f")).await.unwrap();
    assert_eq!(read(&at.provider, &entry).await.unwrap(), b"deep");
}

#[tokio::test]
async fn labels_come_back_as_they_were_set() {
    let at = Mounted::new().await;
    let entry = at.create(&at.root.key, "f", b"x").await;
    let values = [
        "plain",
        "with space",
        " edges ",
        "ünï",
        "100%",
        "%41",
        "a,b",
        "\"q\"",
        "a,\"b",
        "k=v",
        "\n",
    ];
    let changes: LabelChanges = values
        .iter()
        .enumerate()
        .map(|(number, value)| (format!("label-{number}_"), Some((*value).to_owned())))
        .collect();
    let labelled = at.provider.set_labels(&entry, &changes).await.unwrap();
    for (label, value) in &changes {
        assert_eq!(labelled.labels.get(label), value.as_ref());
    }
    assert_eq!(labelled.labels.len(), values.len());
    assert_eq!(labelled.version, entry.version);
    assert_eq!(at.listed(&at.root.key).await["f"], labelled);
    assert_eq!(at.provider.lookup(&at.root.key, &name("f")).await.unwrap(), labelled);

    let removal = LabelChanges::from([("label-0_".into(), None), ("absent".into(), None)]);
    let labelled = at.provider.set_labels(&labelled, &removal).await.unwrap();
    assert_eq!(labelled.labels.len(), values.len() - 1);
    for (label, value) in [("name", "x"), ("sha256", "x"), ("Upper", "x"), ("a.b", "x"), ("ok", "")] {
        let changes = LabelChanges::from([(label.into(), Some(value.into()))]);
        let error = at.provider.set_labels(&entry, &changes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{label}");
    }
    let directory = at.mkdir(&at.root.key, "d").await;
    let error = at
        .provider
        .set_labels(&directory, &LabelChanges::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn modification_times_can_be_told_by_a_label() {
    let at = Mounted::new().await;
    at.put(
        "b/_-",
        7,
        &[("x-reduct-label-name", "f"), ("x-reduct-label-mtime", "12.5")],
        "x",
    )
    .await;
    let entry = at.provider.lookup(&at.root.key, &name("f")).await.unwrap();
    assert_eq!(entry.modified, SystemTime::UNIX_EPOCH + Duration::from_millis(12_500));
    assert!(entry.labels.is_empty());
}

/// Begins an upload as another client and leaves it hanging.
async fn hanging_upload(server: &ReductServer, path: &str, at: u64) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let head = format!(
        "POST /api/v1/b/{path}?ts={at} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: 1000\r\nx-reduct-label-name: partial\r\n\r\nabc"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

/// Waits until the server has got to a state that another client's request brings about.
async fn until<T>(mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(value) = condition().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the server did not get there");
}

#[tokio::test]
async fn partial_records_are_invisible_and_do_not_keep_a_directory() {
    let at = Mounted::new().await;
    let directory = at.mkdir(&at.root.key, "d").await;
    let status = async || head_status(&at.server, "b/b/d?ts=5").await;
    let stream = hanging_upload(&at.server, "b/d", 5).await;
    until(async || (status().await == 425).then_some(())).await;
    assert!(at.names(&directory.key).await.is_empty());
    assert_eq!(
        at.kind_of_lookup(&directory.key, "partial").await,
        Err(ErrorKind::NotFound)
    );
    assert_eq!(
        at.kind_of_lookup(&directory.key, "5.bin").await,
        Err(ErrorKind::NotFound)
    );

    drop(stream);
    until(async || (status().await == 500).then_some(())).await;
    assert!(at.names(&directory.key).await.is_empty());
    assert_eq!(
        at.kind_of_lookup(&directory.key, "partial").await,
        Err(ErrorKind::NotFound)
    );
    at.provider.remove_directory(&directory).await.unwrap();
    assert!(at.names(&at.root.key).await.is_empty());
}

/// From the second removal on, ReductStore 1.21.5 gives up a whole block for one unfinished record in it.
#[tokio::test]
async fn removals_beside_unfinished_uploads_of_others_harm_nothing() {
    let at = Mounted::new().await;
    let parent = &at.mkdir(&at.root.key, "d").await.key;
    for file in ["kept", "a", "b", "c", "d", "e"] {
        at.create(parent, file, file.as_bytes()).await;
    }
    let listed = at.listed(parent).await;
    at.provider.remove_file(&listed["a"]).await.unwrap();
    let mut last = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_micros() as u64;
    let mut unfinished = async || {
        last += 1;
        let stream = hanging_upload(&at.server, "b/d", last).await;
        let latest = format!("b/b/d?ts={last}");
        until(async || (head_status(&at.server, &latest).await == 425).then_some(())).await;
        (stream, latest)
    };

    let (stream, latest) = unfinished().await;
    let hasty = hasty_provider(&at.server.endpoint()).await;
    let refused = hasty.remove_file(&listed["b"]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy);
    drop(stream);
    until(async || (head_status(&at.server, &latest).await == 500).then_some(())).await;
    at.provider.remove_file(&listed["b"]).await.unwrap();

    // A process that knows nothing of it stores before it removes.
    let (stream, latest) = unfinished().await;
    drop(stream);
    until(async || (head_status(&at.server, &latest).await == 500).then_some(())).await;
    let other = provider_at(&at.server.endpoint(), TOKEN, bucket_settings("b")).await;
    create(&other, parent, "new", b"new").await.unwrap();
    other.remove_file(&listed["c"]).await.unwrap();
    other.remove_file(&listed["d"]).await.unwrap();

    assert_eq!(at.names(parent).await, ["e", "kept", "new"]);
    for (file, entry) in at.listed(parent).await {
        assert_eq!(read(&at.provider, &entry).await.unwrap(), file.as_bytes());
    }
}

/// A client of the bucket `b` that waits for nobody.
async fn hasty_provider(endpoint: &str) -> ReductStore {
    let settings = TransportSettings {
        retry: RetryPolicy {
            budget: Duration::ZERO,
            ..RetryPolicy::within(Duration::from_secs(1))
        },
        ..TransportSettings::within(Duration::from_secs(10))
    };
    provider_with(endpoint, TOKEN, bucket_settings("b"), settings).await
}

async fn head_status(server: &ReductServer, path: &str) -> u16 {
    let request = reqwest::Client::new().head(server.url(path)).bearer_auth(TOKEN);
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn what_was_replaced_is_never_read_as_the_old() {
    let at = Mounted::new().await;
    let label = [("x-reduct-label-name", "f")];
    at.put("b/_-", 1, &label, "first").await;
    let entry = at.provider.lookup(&at.root.key, &name("f")).await.unwrap();
    raw(&at.server, Method::DELETE, "b/b/_-?ts=1", &[], "").await;
    assert_eq!(read(&at.provider, &entry).await, Err(ErrorKind::NotFound));
    at.put("b/_-", 1, &label, "second").await;
    assert_eq!(read(&at.provider, &entry).await, Err(ErrorKind::Changed));
    let changed = at.replace(&at.root.key, &entry, b"third").await.unwrap_err();
    assert_eq!(changed.kind(), ErrorKind::Changed);

    let digest = [
        ("x-reduct-label-name", "g"),
        ("x-reduct-label-sha256", &*"0".repeat(64)),
    ];
    at.put("b/_-", 2, &digest, "not what the label says").await;
    let entry = at.provider.lookup(&at.root.key, &name("g")).await.unwrap();
    assert_eq!(read(&at.provider, &entry).await, Err(ErrorKind::BadData));
}

/// 16 MiB in which every block of 4 KiB differs, so that shifted bytes are wrong bytes.
fn large() -> Vec<u8> {
    (0..16 * 1024 * 1024u32).map(|i| ((i >> 12) ^ i) as u8).collect()
}

#[tokio::test]
async fn bytes_that_shift_under_a_read_are_found() {
    let at = Mounted::new().await;
    let content = large();
    let first = at.create(&at.root.key, "first", &vec![1; 1024 * 1024]).await;
    let entry = at.create(&at.root.key, "second", &content).await;
    // With enough bytes behind it, the second stays as long as it was.
    at.create(&at.root.key, "third", &vec![3; 2 * 1024 * 1024]).await;
    let mut stream = at.provider.read(&entry.object(), 0..entry.size).await.unwrap();
    let mut bytes = stream.next().await.unwrap().unwrap().to_vec();
    let (_, at_time) = first.key.as_str().rsplit_once('@').unwrap();
    raw(&at.server, Method::DELETE, &format!("b/b/_-?ts={at_time}"), &[], "").await;
    let mut outcome = Ok(());
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => outcome = Err(error.kind()),
        }
    }
    match outcome {
        Ok(()) => assert!(bytes == content, "wrong bytes passed for right ones"),
        Err(kind) => assert!(matches!(kind, ErrorKind::BadData | ErrorKind::Unreachable), "{kind:?}"),
    }
    drop(stream);
    assert!(read(&at.provider, &entry).await == Ok(content));
}

#[tokio::test]
async fn own_removals_wait_for_own_readers() {
    let at = Arc::new(Mounted::new().await);
    let content = large();
    let first = at.create(&at.root.key, "first", &vec![1; 1024 * 1024]).await;
    let entry = at.create(&at.root.key, "second", &content).await;
    let mut stream = at.provider.read(&entry.object(), 0..entry.size).await.unwrap();
    let mut bytes = stream.next().await.unwrap().unwrap().to_vec();
    let removal = tokio::spawn({
        let at = Arc::clone(&at);
        async move { at.provider.remove_file(&first).await }
    });
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    assert!(bytes == content);
    drop(stream);
    removal.await.unwrap().unwrap();
    assert_eq!(at.names(&at.root.key).await, ["second"]);
}

#[tokio::test]
async fn export_names_are_kept_in_timestamp_mode() {
    let settings = Settings {
        names: NameMode::Timestamp,
        ..bucket_settings("b")
    };
    let at = Mounted::with(&[], settings).await;
    let directory = at.mkdir(&at.root.key, "e").await;
    let parent = &directory.key;
    at.put(
        "b/e",
        1,
        &[("x-reduct-label-name", "f"), ("content-type", "text/html")],
        "<p>",
    )
    .await;
    let made = at.create(parent, "1234567890.csv", b"a,b").await;
    assert_eq!(at.names(parent).await, ["1.html", "1234567890.csv"]);
    assert_eq!(at.provider.lookup(parent, &name("1234567890.csv")).await.unwrap(), made);
    for bad in ["f", "x.csv", "5.nonsense", "05.csv", "1.csv"] {
        let error = at.try_create(parent, bad, b"").await.unwrap_err();
        let expected = if bad == "1.csv" {
            ErrorKind::AlreadyExists
        } else {
            ErrorKind::InvalidInput
        };
        assert_eq!(error.kind(), expected, "{bad}");
        if bad != "1.csv" {
            let checked = at.provider.check_name(parent, Kind::File, &name(bad));
            assert_eq!(checked.unwrap_err().kind(), expected, "{bad}");
        }
    }
    let labels = LabelChanges::from([("k".into(), Some("v".into()))]);
    let made = at.provider.set_labels(&made, &labels).await.unwrap();
    let next = at.replace(parent, &made, b"a,b,c").await.unwrap();
    assert_eq!((&next.key, &next.labels), (&made.key, &made.labels));
    assert_eq!(read(&at.provider, &next).await.unwrap(), b"a,b,c");
    assert_eq!(read(&at.provider, &made).await, Err(ErrorKind::Changed));
    let late = at.replace(parent, &made, b"late").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Changed);
    // After a failure between removing and storing, the next attempt finds nothing and stores all the same.
    at.provider.remove_file(&next).await.unwrap();
    let again = at.replace(parent, &next, b"again").await.unwrap();
    assert_eq!(again.name, next.name);

    let place = |text: &str| Place {
        parent: parent.clone(),
        name: name(text),
    };
    let renamed = at
        .provider
        .rename(&again, &place("1234567890.csv"), &place("5.csv"), None)
        .await;
    assert_eq!(renamed.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn all_buckets_below_one_root() {
    let at = Mounted::with(&[("RS_BUCKET_P_NAME", "provisioned")], Settings::default()).await;
    let root = &at.root.key;
    assert_eq!(at.root.rights, Rights::ALL);
    assert_eq!(at.names(root).await, ["b", "provisioned"]);
    let made = at.mkdir(root, "my files").await;
    at.create(&made.key, "f", b"x").await;
    assert_eq!(at.names(root).await, ["b", "my files", "provisioned"]);
    assert_eq!(
        at.try_create(root, "f", b"").await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    let remove = async |entry: &Entry| at.provider.remove_directory(entry).await.map_err(|error| error.kind());
    assert_eq!(remove(&made).await, Err(ErrorKind::NotEmpty));
    let place = |parent: &ObjectKey, text: &str| Place {
        parent: parent.clone(),
        name: name(text),
    };
    let rename = async |entry: &Entry, to: Place| {
        let from = place(root, entry.name.as_str());
        let outcome = at.provider.rename(entry, &from, &to, None).await;
        outcome.map_err(|error| error.kind())
    };
    assert_eq!(rename(&made, place(root, "b")).await, Err(ErrorKind::AlreadyExists));
    let b = at.provider.lookup(root, &name("b")).await.unwrap();
    assert_eq!(rename(&made, place(&b.key, "x")).await, Err(ErrorKind::CrossDevice));
    let moved = rename(&made, place(root, "renamed")).await.unwrap();
    assert_eq!(at.names(&moved.key).await, ["f"]);
    let file = at.provider.lookup(&moved.key, &name("f")).await.unwrap();
    at.provider.remove_file(&file).await.unwrap();
    assert_eq!(remove(&moved).await, Ok(()));
    let provisioned = at.provider.lookup(root, &name("provisioned")).await.unwrap();
    assert_eq!(remove(&provisioned).await, Err(ErrorKind::NotPermitted));
    assert_eq!(
        rename(&provisioned, place(root, "x")).await,
        Err(ErrorKind::NotPermitted)
    );
    assert_eq!(at.names(root).await, ["b", "provisioned"]);
    let usage = at.provider.usage().await.unwrap();
    assert_eq!(usage.total, None);
}

#[tokio::test]
async fn a_subfolder_is_the_root_and_must_be_a_directory() {
    let at = Mounted::new().await;
    let outer = at.mkdir(&at.root.key, "outer dir").await;
    let inner = at.mkdir(&outer.key, "q").await;
    at.create(&inner.key, "f", b"x").await;
    for (bucket, path) in [(Some("b"), vec!["outer dir", "q"]), (None, vec!["b", "outer dir", "q"])] {
        let settings = Settings {
            bucket: bucket.map(str::to_owned),
            path: path.into_iter().map(name).collect(),
            ..Settings::default()
        };
        let provider = provider_at(&at.server.endpoint(), TOKEN, settings).await;
        let root = provider.probe().await.unwrap();
        assert_eq!(root.key, inner.key);
        assert_eq!(provider.list(&root.key).await.unwrap().len(), 1);
    }
    for (bucket, path, kind) in [
        ("b", vec!["absent"], ErrorKind::NotFound),
        ("absent", vec![], ErrorKind::NotFound),
        ("b", vec!["outer dir", "q", "f"], ErrorKind::NotADirectory),
    ] {
        let settings = Settings {
            path: path.into_iter().map(name).collect(),
            ..bucket_settings(bucket)
        };
        let provider = provider_at(&at.server.endpoint(), TOKEN, settings).await;
        assert_eq!(provider.probe().await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn rights_are_those_of_the_token() {
    let at = Mounted::new().await;
    for bucket in ["both", "reading", "writing", "other"] {
        raw(&at.server, Method::POST, &format!("b/{bucket}"), &[], "{}").await;
        at.put(&format!("{bucket}/_-"), 1, &[("x-reduct-label-name", "f")], "x")
            .await;
    }
    let secret = token(
        &at.server,
        "some",
        json!({"read": ["both", "read*"], "write": ["both", "writing", "gone"]}),
    )
    .await;
    let all = provider_at(&at.server.endpoint(), &secret, Settings::default()).await;
    let root = all.probe().await.unwrap();
    assert_eq!(root.rights, Rights::READ);
    let mut rights: Vec<_> = all
        .list(&root.key)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name.to_string(), entry.rights.to_string()))
        .collect();
    rights.sort();
    let expected = [("both", "rwd"), ("reading", "r--"), ("writing", "-wd")];
    assert_eq!(
        rights,
        expected.map(|(bucket, rights)| (bucket.to_owned(), rights.to_owned()))
    );
    let refused = all.create_directory(&root.key, &name("new")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);

    let reading = provider_at(&at.server.endpoint(), &secret, bucket_settings("reading")).await;
    let root = reading.probe().await.unwrap();
    let file = reading.lookup(&root.key, &name("f")).await.unwrap();
    assert_eq!((root.rights, file.rights), (Rights::READ, Rights::READ));
    assert_eq!(
        create(&reading, &root.key, "g", b"").await.unwrap_err().kind(),
        ErrorKind::Denied
    );
    assert_eq!(reading.remove_file(&file).await.unwrap_err().kind(), ErrorKind::Denied);

    let settings = Settings {
        rights_override: Some(Rights::READ),
        ..bucket_settings("both")
    };
    let overridden = provider_at(&at.server.endpoint(), &secret, settings).await;
    assert_eq!(overridden.probe().await.unwrap().rights, Rights::READ);

    let other = provider_at(&at.server.endpoint(), &secret, bucket_settings("other")).await;
    let root = other.probe().await.unwrap();
    assert_eq!(root.rights, Rights::NONE);
    assert_eq!(other.list(&root.key).await.unwrap_err().kind(), ErrorKind::Denied);
    let wrong = provider_at(&at.server.endpoint(), "wrong", bucket_settings("b")).await;
    assert_eq!(wrong.probe().await.unwrap_err().kind(), ErrorKind::NeedsLogin);
}

#[tokio::test]
async fn a_write_only_token_stores_without_seeing() {
    let at = Mounted::new().await;
    at.put("b/_-", 1, &[("x-reduct-label-name", "f")], "x").await;
    let secret = token(&at.server, "writer", json!({"write": ["b"]})).await;
    let blind = provider_at(&at.server.endpoint(), &secret, bucket_settings("b")).await;
    let root = blind.probe().await.unwrap();
    assert_eq!(root.rights, "wd".parse().unwrap());
    assert_eq!(blind.list(&root.key).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(
        blind.lookup(&root.key, &name("f")).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(blind.usage().await.unwrap_err().kind(), ErrorKind::Unsupported);
    let directory = blind.create_directory(&root.key, &name("in box")).await.unwrap();
    let entry = create(&blind, &directory.key, "new", b"one").await.unwrap();
    assert_eq!(blind.stat(&entry).await.unwrap(), entry);
    assert_eq!(read(&blind, &entry).await, Err(ErrorKind::Denied));
    let target = Target::Replace {
        parent: directory.key.clone(),
        entry: entry.clone(),
    };
    let next = blind
        .upload(&target, &Content::from_bytes(b"two").unwrap())
        .await
        .unwrap();
    let late = blind.upload(&target, &Content::from_bytes(b"three").unwrap()).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Changed);
    let place = |text: &str| Place {
        parent: directory.key.clone(),
        name: name(text),
    };
    let moved = blind
        .rename(&next, &place("new"), &place("renamed"), None)
        .await
        .unwrap();
    let labels = LabelChanges::from([("k".into(), Some("v".into()))]);
    let moved = blind.set_labels(&moved, &labels).await.unwrap();
    assert_eq!(moved.labels["k"], "v");
    assert_eq!(
        blind.remove_directory(&directory).await.unwrap_err().kind(),
        ErrorKind::Denied
    );

    let seen = at.listed(&directory.key).await;
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["renamed"]);
    assert_eq!(
        (&seen["renamed"].version, &seen["renamed"].labels),
        (&moved.version, &moved.labels)
    );
    assert_eq!(read(&at.provider, &seen["renamed"]).await.unwrap(), b"two");
    blind.remove_file(&moved).await.unwrap();
    assert_eq!(blind.stat(&moved).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(at.names(&directory.key).await.is_empty());

    let settings = Settings {
        path: vec![name("in box")],
        ..bucket_settings("b")
    };
    let below = provider_at(&at.server.endpoint(), &secret, settings).await;
    assert_eq!(below.probe().await.unwrap().key, directory.key);
}

#[tokio::test]
async fn quotas_are_told_and_felt() {
    let at = Mounted::new().await;
    assert_eq!(at.provider.usage().await.unwrap().total, None);
    for (bucket, quota, kind) in [
        ("hard", "HARD", ErrorKind::Quota),
        ("fifo", "FIFO", ErrorKind::TooLarge),
    ] {
        let settings = json!({"quota_type": quota, "quota_size": 1_000_000, "max_block_size": 100_000}).to_string();
        raw(&at.server, Method::POST, &format!("b/{bucket}"), &[], &settings).await;
        let provider = provider_at(&at.server.endpoint(), TOKEN, bucket_settings(bucket)).await;
        let root = provider.probe().await.unwrap();
        create(&provider, &root.key, "small", &[7; 1000]).await.unwrap();
        let error = create(&provider, &root.key, "large", &vec![0; 5_000_000])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let usage = provider.usage().await.unwrap();
        assert_eq!(usage.total, Some(1_000_000));
        assert!((1000..100_000).contains(&usage.used), "{usage:?}");
        assert_eq!(provider.list(&root.key).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn the_rate_limit_tells_how_long_to_wait() {
    let server = ReductServer::start(&[("RS_RATE_LIMIT_API", "8/m")]);
    let provider = provider_at(&server.endpoint(), TOKEN, Settings::default()).await;
    let root = provider.probe().await.unwrap();
    let limited = until(async || provider.list(&root.key).await.err()).await;
    match limited.kind() {
        ErrorKind::RateLimited {
            retry_after: Some(wait),
        } => assert!(wait > Duration::ZERO && wait <= Duration::from_secs(60), "{wait:?}"),
        other => panic!("{other:?}: {limited}"),
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_unreachable_and_comes_back() {
    let mut at = Mounted::new().await;
    let entry = at.create(&at.root.key, "f", b"kept").await;
    at.server.stop();
    assert_eq!(read(&at.provider, &entry).await, Err(ErrorKind::Unreachable));
    at.server.restart();
    assert_eq!(read(&at.provider, &entry).await.unwrap(), b"kept");
}

#[tokio::test]
async fn what_was_stored_survives_a_crash_of_the_server() {
    let mut at = Mounted::new().await;
    let directory = at.mkdir(&at.root.key, "d").await;
    for number in 0..20 {
        at.create(&directory.key, &format!("f{number}"), &[number; 5000]).await;
    }
    at.server.kill();
    at.server.restart();
    let listed = at.listed(&directory.key).await;
    assert_eq!(listed.len(), 20);
    assert_eq!(read(&at.provider, &listed["f7"]).await.unwrap(), [7; 5000]);
}

/// Passes everything on but, while armed, the answer to the next record that is stored.
async fn proxy_that_loses_an_answer(port: u16, armed: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let armed = Arc::clone(&armed);
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let storing = Arc::new(AtomicBool::new(false));
                let requests = async {
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                        let chunk = &buffer[..read];
                        let first_line = chunk.split(|byte| *byte == b'\r').next().unwrap_or_default();
                        if first_line.starts_with(b"POST") && first_line.windows(4).any(|part| part == b"?ts=") {
                            storing.store(true, Ordering::SeqCst);
                        }
                        if to_server.write_all(chunk).await.is_err() {
                            break;
                        }
                    }
                };
                let answers = async {
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                        if storing.swap(false, Ordering::SeqCst) && armed.swap(false, Ordering::SeqCst) {
                            break;
                        }
                        if to_client.write_all(&buffer[..read]).await.is_err() {
                            break;
                        }
                    }
                };
                tokio::select! {
                    () = requests => {}
                    () = answers => {}
                }
            });
        }
    });
    own
}

#[tokio::test]
async fn an_upload_whose_answer_is_lost_is_recognised() {
    let at = Mounted::new().await;
    for mode in [NameMode::Label, NameMode::Timestamp] {
        let armed = Arc::new(AtomicBool::new(false));
        let port = proxy_that_loses_an_answer(at.server.port(), Arc::clone(&armed)).await;
        let settings = Settings {
            names: mode,
            ..bucket_settings("b")
        };
        let provider = provider_at(&format!("http://127.0.0.1:{port}/"), TOKEN, settings).await;
        let root = provider.probe().await.unwrap();
        armed.store(true, Ordering::SeqCst);
        let entry = create(&provider, &root.key, "77.csv", b"one").await.unwrap();
        assert!(!armed.load(Ordering::SeqCst), "an answer was lost");
        assert_eq!(read(&provider, &entry).await.unwrap(), b"one");
        armed.store(true, Ordering::SeqCst);
        let target = Target::Replace {
            parent: root.key.clone(),
            entry,
        };
        let entry = provider
            .upload(&target, &Content::from_bytes(b"two").unwrap())
            .await
            .unwrap();
        assert!(!armed.load(Ordering::SeqCst), "an answer was lost");
        assert_eq!(read(&provider, &entry).await.unwrap(), b"two");
        assert_eq!(provider.list(&root.key).await.unwrap().len(), 1);
        provider.remove_file(&entry).await.unwrap();
    }
}

#[tokio::test]
async fn files_stored_at_once_all_arrive() {
    let at = Arc::new(Mounted::new().await);
    let directory = at.mkdir(&at.root.key, "d").await;
    let uploads: Vec<_> = (0..32)
        .map(|number| {
            let (at, parent) = (Arc::clone(&at), directory.key.clone());
            tokio::spawn(async move {
                let bytes = vec![number; 10_000];
                let entry = at.create(&parent, &format!("f{number}"), &bytes).await;
                assert_eq!(read(&at.provider, &entry).await.unwrap(), bytes);
            })
        })
        .collect();
    for upload in uploads {
        upload.await.unwrap();
    }
    assert_eq!(at.names(&directory.key).await.len(), 32);
}

#[tokio::test]
async fn a_server_from_before_me_grants_what_it_grants() {
    use axum::Router;
    use axum::routing::get;
    let router = Router::new()
        .route(
            "/base/api/v1/info",
            get(async || r#"{"version": "1.0.0", "usage": "123"}"#),
        )
        .route(
            "/base/api/v1/list",
            get(async || r#"{"buckets": [{"name": "old", "latest_record": "5"}]}"#),
        );
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("http://{}/base", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let provider = provider_at(&endpoint, "t", Settings::default()).await;
    let root = provider.probe().await.unwrap();
    assert_eq!(root.rights, Rights::ALL);
    assert_eq!(provider.list(&root.key).await.unwrap()[0].name, name("old"));
    assert_eq!(provider.usage().await.unwrap().used, 123);

    let provider = provider_at(&format!("{endpoint}/wrong/"), "t", Settings::default()).await;
    let error = provider.probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("not that of a ReductStore server"), "{error}");
}

/// A feed that watches some directories, after all that was done before was told.
async fn settled(provider: &ReductStore, directories: &[&Entry]) -> (Box<dyn ChangeFeed>, Vec<ObjectKey>) {
    let keys: Vec<ObjectKey> = directories.iter().map(|entry| entry.key.clone()).collect();
    let mut feed = provider.changes().unwrap();
    while !feed.next(&keys).await.unwrap().is_empty() {}
    (feed, keys)
}

/// Waits until the feed has told of all these directories; gives all that it told.
async fn told(feed: &mut dyn ChangeFeed, watched: &[ObjectKey], expected: &[&ObjectKey]) -> BTreeSet<Change> {
    let expected: BTreeSet<Change> = expected.iter().map(|key| Change::Within((*key).clone())).collect();
    let mut told = BTreeSet::new();
    while !told.is_superset(&expected) {
        told.extend(feed.next(watched).await.unwrap());
    }
    told
}

#[tokio::test]
async fn what_other_clients_change_is_told() {
    let at = Mounted::new().await;
    let (a, b) = (at.mkdir(&at.root.key, "a").await, at.mkdir(&at.root.key, "b").await);
    at.create(&a.key, "old", b"1").await;
    let (mut feed, watched) = settled(&at.provider, &[&at.root, &a, &b]).await;

    at.put("b/a", now_us(), &[("x-reduct-label-name", "new")], "2").await;
    told(&mut *feed, &watched, &[&a.key]).await;
    // Older than the latest, and a new entry: only a look shows them.
    at.put("b/a", 5, &[], "3").await;
    at.put("b/b/deep", now_us(), &[], "4").await;
    let deep = at.provider.lookup(&b.key, &name("deep")).await.unwrap();
    told(&mut *feed, &watched, &[&a.key, &b.key, &deep.key]).await;
    raw(&at.server, Method::DELETE, "b/b/a?ts=5", &[], "").await;
    raw(&at.server, Method::DELETE, "b/b/b", &[], "").await;
    told(&mut *feed, &watched, &[&at.root.key, &a.key, &b.key, &deep.key]).await;
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    now.as_micros() as u64
}

#[tokio::test]
async fn what_changed_since_a_listing_is_told_though_nobody_watched_yet() {
    let at = Mounted::new().await;
    let a = at.mkdir(&at.root.key, "a").await;
    at.names(&a.key).await;
    at.put("b/a", now_us(), &[], "theirs").await;
    let mut feed = at.provider.changes().unwrap();
    told(&mut *feed, std::slice::from_ref(&a.key), &[&a.key]).await;
}

#[tokio::test]
async fn own_changes_are_told_once_when_they_are_over() {
    let at = Mounted::new().await;
    let a = at.mkdir(&at.root.key, "a").await;
    let quiet = at.mkdir(&at.root.key, "quiet").await;
    let (mut feed, watched) = settled(&at.provider, &[&at.root, &a, &quiet]).await;
    let mut file = at.create(&a.key, "file", b"1").await;
    for content in 0..3_u8 {
        file = at.replace(&a.key, &file, &[content]).await.unwrap();
        at.put("b/_-", now_us(), &[], "theirs").await;
        let told = told(&mut *feed, &watched, &[&at.root.key]).await;
        assert!(!told.contains(&Change::Within(quiet.key.clone())), "{told:?}");
    }
    told(&mut *feed, &watched, &[&a.key]).await;
}

#[tokio::test]
async fn the_directory_of_all_buckets_is_watched_too() {
    let at = Mounted::with(&[], Settings::default()).await;
    let bucket = at.provider.lookup(&at.root.key, &name("b")).await.unwrap();
    let (mut feed, watched) = settled(&at.provider, &[&at.root, &bucket]).await;
    raw(&at.server, Method::POST, "b/more", &[], "{}").await;
    told(&mut *feed, &watched, &[&at.root.key]).await;
    raw(&at.server, Method::DELETE, "b/b", &[], "").await;
    told(&mut *feed, &watched, &[&at.root.key, &bucket.key]).await;
}

#[tokio::test]
async fn a_feed_goes_on_after_its_server_was_away() {
    let mut at = Mounted::new().await;
    at.create(&at.root.key, "file", b"1").await;
    let provider = hasty_provider(&at.server.endpoint()).await;
    let (mut feed, watched) = settled(&provider, &[&at.root]).await;
    at.server.stop();
    let error = until(async || feed.next(&watched).await.err()).await;
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    at.server.restart();
    at.put("b/_-", now_us(), &[], "theirs").await;
    told(&mut *feed, &watched, &[&at.root.key]).await;
}
