//! A Garage cluster for tests: three nodes on loopback, every object on each of them. Nodes can be killed and started
//! again; all data is in a temporary folder, and everything ends with the test.

#![allow(dead_code, reason = "each suite uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where its server fails"
)]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::program::{Program, free_port, installed};

pub const NODES: usize = 3;
pub const BUCKET: &str = "bucket";
/// As the nodes' configuration has it: signatures name it.
pub const REGION: &str = "garage";
/// How long the nodes may take to find each other on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the ports are chosen anew when somebody else took one.
const TRIES: u32 = 5;

/// Three nodes with one bucket and one key that may do everything with it.
pub struct Garage {
    folder: tempfile::TempDir,
    nodes: Vec<Node>,
    admin_token: String,
    key_id: String,
    secret_key: String,
    http: reqwest::Client,
}

/// One node's place, and its process while it runs.
struct Node {
    folder: PathBuf,
    s3: u16,
    admin: u16,
    rpc: u16,
    program: Option<Program>,
}

impl Node {
    /// `None` when one of its ports was taken meanwhile.
    fn new(folder: PathBuf, rpc_secret: &str, admin_token: &str) -> Option<Self> {
        std::fs::create_dir_all(&folder).unwrap();
        let (s3, admin, rpc) = (free_port(), free_port(), free_port());
        // LMDB, the other database, takes no keys of S3's full length.
        let config = format!(
            "metadata_dir = {meta:?}\ndata_dir = {data:?}\ndb_engine = \"sqlite\"\nreplication_factor = {NODES}\n\
             compression_level = \"none\"\ndisable_scrub = true\n\
             rpc_secret = \"{rpc_secret}\"\nrpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\n\
             [s3_api]\napi_bind_addr = \"127.0.0.1:{s3}\"\ns3_region = \"{REGION}\"\n\
             [admin]\napi_bind_addr = \"127.0.0.1:{admin}\"\nadmin_token = \"{admin_token}\"\n",
            meta = folder.join("meta"),
            data = folder.join("data"),
        );
        std::fs::write(folder.join("garage.toml"), config).unwrap();
        let mut node = Self {
            folder,
            s3,
            admin,
            rpc,
            program: None,
        };
        node.start().then_some(node)
    }

    fn start(&mut self) -> bool {
        let mut command = Command::new(installed("KEYMOUNT_TEST_GARAGE", "garage-2.5.0/bin/garage"));
        command.arg("-c").arg(self.folder.join("garage.toml")).arg("server");
        command.env("RUST_LOG", "garage=info");
        self.program = Program::start(&self.folder.join("log"), command, self.admin);
        self.program.is_some()
    }

    fn log(&self) -> String {
        self.program.as_ref().map(Program::log).unwrap_or_default()
    }
}

impl Garage {
    /// A healthy cluster with an empty bucket.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let secret = || format!("{:032x}{:032x}", fastrand::u128(..), fastrand::u128(..));
        let (rpc_secret, admin_token) = (secret(), secret());
        let nodes = (0..NODES).map(|number| {
            let mut tries = (0..TRIES).map(|attempt| folder.path().join(format!("node-{number}-{attempt}")));
            let node = tries.find_map(|place| Node::new(place, &rpc_secret, &admin_token));
            node.expect("Garage starts")
        });
        let nodes = nodes.collect();
        let mut garage = Self {
            folder,
            nodes,
            admin_token,
            key_id: String::new(),
            secret_key: String::new(),
            http: reqwest::Client::new(),
        };
        garage.join().await;
        garage.make_bucket().await;
        garage
    }

    /// The S3 address of a node, as a remote's `endpoint` has it.
    pub fn endpoint(&self, node: usize) -> String {
        format!("http://127.0.0.1:{}/", self.nodes[node].s3)
    }

    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// Ends a node as a power cut would.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].program.take().expect("the node runs").kill();
    }

    /// Starts a killed node with what it had on its disk, and waits until all three are one again.
    pub async fn start_again(&mut self, node: usize) {
        assert!(self.nodes[node].start(), "the node starts again");
        for number in 0..NODES {
            self.becomes(number, "healthy").await;
        }
    }

    /// Waits until a node says this of the cluster: `healthy`, `degraded`, `unavailable`.
    pub async fn becomes(&self, node: usize, wanted: &str) {
        let what = format!("node {node}: {wanted}");
        self.until(&what, async || {
            let health = self.try_ask(node, "GetClusterHealth", None).await;
            health.is_some_and(|health| health["status"] == wanted)
        })
        .await;
    }

    /// How many objects the bucket has, by the cluster's own count.
    pub async fn stored_objects(&self, node: usize) -> u64 {
        self.bucket(node).await["objects"].as_u64().expect("a number")
    }

    /// How many uploads in parts were begun and neither completed nor aborted.
    pub async fn unfinished_uploads(&self, node: usize) -> u64 {
        let bucket = self.bucket(node).await;
        bucket["unfinishedMultipartUploads"].as_u64().expect("a number")
    }

    async fn bucket(&self, node: usize) -> Value {
        self.ask(node, &format!("GetBucketInfo?globalAlias={BUCKET}"), None)
            .await
    }

    /// Lets the nodes find each other and gives each all data.
    async fn join(&self) {
        let mut roles = Vec::new();
        let mut addresses = Vec::new();
        for number in 0..NODES {
            self.until("the node answers", async || {
                self.try_ask(number, "GetClusterHealth", None).await.is_some()
            })
            .await;
            let status = self.ask(number, "GetClusterStatus", None).await;
            let own = status["nodes"]
                .as_array()
                .and_then(|nodes| nodes.iter().find(|node| node["isUp"] == true));
            let own = own.unwrap_or_else(|| panic!("no node in {status}"));
            let id = own["id"].as_str().expect("a node has an id");
            addresses.push(format!("{id}@127.0.0.1:{}", self.nodes[number].rpc));
            roles.push(json!({ "id": id, "zone": "here", "capacity": 1_000_000_000u64, "tags": [] }));
        }
        let joined = self.ask(0, "ConnectClusterNodes", Some(json!(addresses[1..]))).await;
        let all = joined.as_array().expect("one answer for each");
        assert!(all.iter().all(|one| one["success"] == true), "{joined}");
        self.ask(0, "UpdateClusterLayout", Some(json!({ "roles": roles })))
            .await;
        self.ask(0, "ApplyClusterLayout", Some(json!({ "version": 1 }))).await;
        for number in 0..NODES {
            self.becomes(number, "healthy").await;
            self.until("the node knows its role", async || {
                let status = self.try_ask(number, "GetClusterStatus", None).await;
                status.is_some_and(|status| {
                    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
                    status["layoutVersion"] == 1
                        && nodes
                            .iter()
                            .filter(|node| node["isUp"] == true && !node["role"].is_null())
                            .count()
                            == NODES
                })
            })
            .await;
        }
    }

    async fn make_bucket(&mut self) {
        let key = self.ask(0, "CreateKey", Some(json!({ "name": "tests" }))).await;
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        self.key_id = text(&key["accessKeyId"]);
        self.secret_key = text(&key["secretAccessKey"]);
        let bucket = self
            .ask(0, "CreateBucket", Some(json!({ "globalAlias": BUCKET })))
            .await;
        let allowed = json!({
            "bucketId": bucket["id"],
            "accessKeyId": self.key_id,
            "permissions": { "read": true, "write": true, "owner": true },
        });
        self.ask(0, "AllowBucketKey", Some(allowed)).await;
    }

    /// One call of the admin API, which has to work.
    async fn ask(&self, node: usize, call: &str, body: Option<Value>) -> Value {
        let answer = self.send(node, call, body).await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(
            status.is_success(),
            "{call}: {status} {text}\n{}",
            self.nodes[node].log()
        );
        serde_json::from_str(&text).unwrap()
    }

    /// As `ask`, for a node that may not answer yet.
    async fn try_ask(&self, node: usize, call: &str, body: Option<Value>) -> Option<Value> {
        let answer = self.send(node, call, body).await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    async fn send(&self, node: usize, call: &str, body: Option<Value>) -> reqwest::Result<reqwest::Response> {
        let url = format!("http://127.0.0.1:{}/v2/{call}", self.nodes[node].admin);
        let request = match &body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url),
        };
        request.bearer_auth(&self.admin_token).send().await
    }

    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let start = Instant::now();
        while !holds().await {
            let logs: Vec<String> = self.nodes.iter().map(Node::log).collect();
            assert!(
                start.elapsed() < PATIENCE,
                "{what} did not happen:\n{}",
                logs.join("\n")
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
