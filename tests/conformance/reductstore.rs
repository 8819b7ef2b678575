//! ReductStore, against the real server and against the stand-in that must answer like it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use keymount::api::{Api, PlainHttp};
use keymount::auth::{GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};
use keymount::emulator;
use keymount::model::{ErrorKind, Kind, Name};
use keymount::net::{Transport, TransportSettings};
use keymount::provider::Provider;
use keymount::provider::reductstore::{NameMode, ReductStore, Settings};
use percent_encoding::percent_decode_str;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::export_names::ExportNames;
use crate::reductstore_support::{ReductServer, TOKEN};
use crate::suite::{Fixture, RawStore, run};

/// What answers. Ended with the fixture.
enum Server {
    Real(ReductServer),
    StandIn(emulator::Running),
}

#[derive(Clone, Copy)]
enum Which {
    Real,
    StandIn,
}

impl Server {
    async fn start(which: Which) -> Self {
        match which {
            Which::Real => Self::Real(ReductServer::start(&[])),
            Which::StandIn => {
                let store = emulator::reductstore::ReductStore::new(emulator::reductstore::Options {
                    auth: emulator::reductstore::Auth::Token(TOKEN.to_owned()),
                    ..Default::default()
                });
                Self::StandIn(store.serve().await.unwrap())
            }
        }
    }

    fn endpoint(&self) -> String {
        match self {
            Self::Real(server) => server.endpoint(),
            Self::StandIn(running) => running.url().to_string(),
        }
    }
}

/// What is mounted.
#[derive(Clone, Copy)]
struct Mounted {
    bucket: Option<&'static str>,
    path: &'static [&'static str],
    names: NameMode,
    workplace: Option<&'static str>,
    /// The bucket and the entry that the root, or the workplace in it, is on the server; without an entry the bucket.
    place: (&'static str, &'static str),
    skips: &'static [(&'static str, &'static str)],
}

const BUCKET: Mounted = Mounted {
    bucket: Some("b"),
    path: &[],
    names: NameMode::Label,
    workplace: None,
    place: ("b", ""),
    skips: BY_LABEL,
};

const FOLDER: Mounted = Mounted {
    path: &["outer dir", "q"],
    place: ("b", "outer_-20dir/_-71"),
    ..BUCKET
};

const ALL_BUCKETS: Mounted = Mounted {
    bucket: None,
    workplace: Some("my files"),
    place: ("my_-20files", ""),
    ..BUCKET
};

const BY_TIME: Mounted = Mounted {
    names: NameMode::Timestamp,
    skips: BY_TIMESTAMP,
    ..BUCKET
};

const BY_LABEL: &[(&str, &str)] = &[(
    "concurrent_creates_of_one_name_have_one_winner",
    "names are labels, on which the server has no conditions: all are kept, the newest has the name",
)];

const NO_RENAME: &str = "a file's name is its record's time, which cannot change";
const TWO_SPELLINGS: &str = "a directory cannot have the name of a file: export names end with an extension";

const BY_TIMESTAMP: &[(&str, &str)] = &[
    ("upload_over_an_existing_name_is_refused", TWO_SPELLINGS),
    ("create_over_an_existing_name_is_refused", TWO_SPELLINGS),
    (
        "replace_a_removed_file_is_refused",
        "the record is removed before it is written anew: what is missing may be a replacement that was interrupted",
    ),
    ("rename_to_a_free_name", NO_RENAME),
    ("rename_to_unusual_names", NO_RENAME),
    ("rename_over_a_file", NO_RENAME),
    ("rename_over_a_changed_file_is_refused", NO_RENAME),
    ("rename_to_a_taken_name_is_refused", NO_RENAME),
    ("rename_of_a_missing_entry", NO_RENAME),
    ("attributes_go_along_with_a_rename", NO_RENAME),
];

struct AtServer {
    server: Server,
    mounted: Mounted,
    provider: Arc<dyn Provider>,
    /// Between the cases' names and export names, in that mode.
    spelling: Option<Arc<ExportNames>>,
    client: reqwest::Client,
}

impl AtServer {
    async fn new(which: Which, mounted: Mounted) -> Self {
        let server = Server::start(which).await;
        let provider = Arc::new(client(&server.endpoint(), &mounted).await);
        let spelling = match mounted.names {
            NameMode::Label => None,
            NameMode::Timestamp => Some(Arc::new(ExportNames::over(provider.clone()))),
        };
        let this = Self {
            server,
            mounted,
            provider: match &spelling {
                None => provider,
                Some(spelling) => Arc::clone(spelling) as Arc<dyn Provider>,
            },
            spelling,
            client: reqwest::Client::new(),
        };
        if let Some(bucket) = mounted.bucket {
            this.call(Method::POST, &format!("b/{bucket}"), "{}").await;
            if !mounted.path.is_empty() {
                let (bucket, entry) = mounted.place;
                let nothing = r#"{"query_type":"REMOVE","start":0,"stop":1}"#;
                this.call(Method::POST, &format!("b/{bucket}/{entry}/q"), nothing).await;
            }
        }
        this
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}api/v1/{path}", self.server.endpoint());
        self.client.request(method, url).bearer_auth(TOKEN)
    }

    async fn call(&self, method: Method, path: &str, body: &str) -> Response {
        let request = self
            .request(method.clone(), path)
            .header("content-type", "application/json");
        let answer = request.body(body.to_owned()).send().await.unwrap();
        assert!(answer.status().is_success(), "{method} {path}: {}", answer.status());
        answer
    }

    /// The path of the entry that holds a folder's files, below `b/`.
    fn entry(&self, folder: &str) -> String {
        let (bucket, entry) = self.mounted.place;
        let segments = [bucket, entry, folder];
        let path: Vec<&str> = segments.into_iter().filter(|part| !part.is_empty()).collect();
        match path.as_slice() {
            [bucket] => format!("{bucket}/_-"),
            path => path.join("/"),
        }
    }

    /// Every file of a folder by its time, oldest first; `None` without such an entry.
    async fn files(&self, folder: &str) -> Vec<(u64, String)> {
        let entry = self.entry(folder);
        let query = json!({"query_type": "QUERY", "only_metadata": true}).to_string();
        let url = format!("b/{entry}/q");
        let request = self
            .request(Method::POST, &url)
            .header("content-type", "application/json");
        let answer = request.body(query).send().await.unwrap();
        if answer.status() == StatusCode::NOT_FOUND {
            return Vec::new();
        }
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let mut files = Vec::new();
        loop {
            let batch = self
                .call(Method::HEAD, &format!("b/{entry}/batch?q={}", answer["id"]), "")
                .await;
            for (header, value) in batch.headers() {
                if let Some(at) = header.as_str().strip_prefix("x-reduct-time-") {
                    let at = at.parse().unwrap();
                    files.push((at, self.name_of(at, value.to_str().unwrap())));
                }
            }
            if batch.status() == StatusCode::NO_CONTENT || batch.headers()["x-reduct-last"] == "true" {
                files.sort_unstable();
                return files;
            }
        }
    }

    fn name_of(&self, at: u64, described: &str) -> String {
        if let Some(spelling) = &self.spelling {
            return spelling.text_at(at);
        }
        let label = described.split(',').find_map(|field| field.strip_prefix("name="));
        percent_decode_str(label.unwrap()).decode_utf8().unwrap().into_owned()
    }

    async fn times(&self, path: &str) -> (String, Vec<u64>) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let files = self.files(folder).await.into_iter();
        let times = files.filter(|(_, other)| other == name).map(|(at, _)| at).collect();
        (self.entry(folder), times)
    }
}

/// As a mount would build it.
async fn client(endpoint: &str, mounted: &Mounted) -> ReductStore {
    let mut given = GivenSecrets::default();
    given.insert("T", TOKEN.into());
    let token = StaticToken::open(
        SecretSource::Env("T".into()),
        TokenPlacement::Bearer,
        TokenKind::TOKEN,
        given,
    )
    .await;
    let api = Api::new(
        endpoint.parse().unwrap(),
        PlainHttp::LoopbackOnly,
        Transport::new(TransportSettings::within(Duration::from_secs(30))).unwrap(),
        Arc::new(token.unwrap()),
        ReductStore::dialect(),
    );
    let settings = Settings {
        bucket: mounted.bucket.map(str::to_owned),
        path: mounted.path.iter().map(|part| Name::new(*part).unwrap()).collect(),
        names: mounted.names,
        rights_override: None,
    };
    ReductStore::new(Arc::new(api.unwrap()), settings)
}

impl Fixture for AtServer {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider)
    }

    fn raw(&self) -> Option<&dyn RawStore> {
        Some(self)
    }

    fn workplace(&self) -> Option<&'static str> {
        self.mounted.workplace
    }

    /// A directory is a folder on the server's disk, each byte that isn't a plain one takes four there, and 255 fit.
    fn refuses(&self, kind: Kind, name: &str) -> Option<ErrorKind> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let len: usize = name.bytes().map(|byte| if plain(byte) { 1 } else { 4 }).sum();
        (kind == Kind::Directory && len > 255).then_some(ErrorKind::NameTooLong)
    }

    fn requests(&self) -> Option<usize> {
        match &self.server {
            Server::Real(_) => None,
            Server::StandIn(running) => Some(running.requests().len()),
        }
    }

    fn skips(&self) -> &'static [(&'static str, &'static str)] {
        self.mounted.skips
    }
}

#[async_trait]
impl RawStore for AtServer {
    async fn read(&self, path: &str) -> Option<Vec<u8>> {
        let (entry, times) = self.times(path).await;
        let at = times.last()?;
        let answer = self.call(Method::GET, &format!("b/{entry}?ts={at}"), "").await;
        Some(answer.bytes().await.unwrap().to_vec())
    }

    async fn write(&self, path: &str, bytes: &[u8]) {
        let (entry, former) = self.times(path).await;
        let (_, name) = path.rsplit_once('/').unwrap_or(("", path));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let at = match &self.spelling {
            None => u64::try_from(now.as_micros()).unwrap(),
            Some(spelling) => {
                self.remove_all(&entry, &former).await;
                spelling.time_of(name)
            }
        };
        let request = self
            .request(Method::POST, &format!("b/{entry}?ts={at}"))
            .header("content-type", "application/octet-stream")
            .header("x-reduct-label-name", name);
        let answer = request.body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        if self.spelling.is_none() {
            self.remove_all(&entry, &former).await;
        }
    }

    async fn remove(&self, path: &str) {
        let (entry, times) = self.times(path).await;
        assert!(!times.is_empty(), "{path} is not there");
        self.remove_all(&entry, &times).await;
    }

    async fn names(&self, folder: &str) -> Vec<String> {
        self.files(folder).await.into_iter().map(|(_, name)| name).collect()
    }
}

impl AtServer {
    async fn remove_all(&self, entry: &str, times: &[u64]) {
        for at in times {
            self.call(Method::DELETE, &format!("b/{entry}?ts={at}"), "").await;
        }
    }
}

#[tokio::test]
async fn a_bucket_at_the_real_server() {
    run("reductstore, bucket", async || AtServer::new(Which::Real, BUCKET).await).await;
}

#[tokio::test]
async fn a_bucket_at_the_stand_in() {
    run("reductstore stand-in, bucket", async || {
        AtServer::new(Which::StandIn, BUCKET).await
    })
    .await;
}

#[tokio::test]
async fn a_folder_at_the_real_server() {
    run("reductstore, folder", async || AtServer::new(Which::Real, FOLDER).await).await;
}

#[tokio::test]
async fn a_folder_at_the_stand_in() {
    run("reductstore stand-in, folder", async || {
        AtServer::new(Which::StandIn, FOLDER).await
    })
    .await;
}

#[tokio::test]
async fn all_buckets_of_the_real_server() {
    run("reductstore, all buckets", async || {
        AtServer::new(Which::Real, ALL_BUCKETS).await
    })
    .await;
}

#[tokio::test]
async fn all_buckets_of_the_stand_in() {
    run("reductstore stand-in, all buckets", async || {
        AtServer::new(Which::StandIn, ALL_BUCKETS).await
    })
    .await;
}

#[tokio::test]
async fn names_by_time_at_the_real_server() {
    run("reductstore, by time", async || {
        AtServer::new(Which::Real, BY_TIME).await
    })
    .await;
}

#[tokio::test]
async fn names_by_time_at_the_stand_in() {
    run("reductstore stand-in, by time", async || {
        AtServer::new(Which::StandIn, BY_TIME).await
    })
    .await;
}
