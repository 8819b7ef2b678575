//! Every provider with an empty storage: a stand-in, or a real server behind a proxy that counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keymount::emulator::cloudsync::{CloudSyncStore, Plan, Scope, Workspace};
use keymount::emulator::cludz::{CludzStore, Drive};
use keymount::emulator::dstor::{Account as DstorAccount, Assumptions, DstorStore, Network, Processing};
use keymount::emulator::storra::{Account as StorraAccount, StorraStore};
use keymount::emulator::{Rule, Running};
use secrecy::ExposeSecret;
use tokio::runtime::Runtime;

use crate::counting::{Asked, CountingProxy};
use crate::s3_server::{self, BUCKET, KEY_ID, S3Server, SECRET_KEY};
use crate::sandbox::Sandbox;
use crate::server::{ReductServer, TOKEN};
use crate::webdav_server::{self, DavServer, PASSWORD, USER};

/// The remote of every configuration here.
pub const REMOTE: &str = "store";

/// A file to be there before anything is mounted: its path and its content.
pub type Seed = (String, Vec<u8>);

/// A service of one kind.
pub trait Service {
    /// Writes the configuration that has it as `REMOTE`.
    fn configure(&self, person: &Sandbox);

    /// Puts files there, past the service's interface where that is quick.
    fn seed(&self, person: &Sandbox, files: &[Seed]);

    /// What was asked so far.
    fn asked(&self) -> Vec<Asked>;

    fn forget(&self);
}

/// Every kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Cludz,
    CloudSync,
    Storra,
    Dstor,
    ReductStore,
    S3Moto,
    S3Rclone,
    WebdavRclone,
    WebdavWsgiDav,
}

impl Kind {
    pub fn start(self) -> Box<dyn Service> {
        match self {
            Self::Cludz => Box::new(Cludz::start()),
            Self::CloudSync => Box::new(CloudSync::start()),
            Self::Storra => Box::new(Storra::start()),
            Self::Dstor => Box::new(Dstor::start()),
            Self::ReductStore => Box::new(Reduct::start()),
            Self::S3Moto => Box::new(S3::start(s3_server::Software::Moto)),
            Self::S3Rclone => Box::new(S3::start(s3_server::Software::Rclone)),
            Self::WebdavRclone => Box::new(Webdav::start(webdav_server::Software::Rclone)),
            Self::WebdavWsgiDav => Box::new(Webdav::start(webdav_server::Software::WsgiDav)),
        }
    }
}

/// A stand-in and the runtime that it was started from.
struct StandIn {
    running: Running,
    _runtime: Runtime,
}

impl StandIn {
    fn start(serve: impl AsyncFnOnce() -> std::io::Result<Running>) -> Self {
        let runtime = Runtime::new().unwrap();
        Self {
            running: runtime.block_on(serve()).unwrap(),
            _runtime: runtime,
        }
    }

    fn asked(&self) -> Vec<Asked> {
        let asked = self.running.requests().into_iter();
        asked
            .map(|request| Asked {
                method: request.method.to_string(),
                target: request.target,
            })
            .collect()
    }
}

fn configure(person: &Sandbox, provider: &str, endpoint: &str, fields: &str, auth: &str, secret: &str) {
    let file = person.file("work/secret", secret, 0o600);
    let auth = auth.replace("SECRET", &format!("{{ file = \"{}\" }}", file.display()));
    person.configure(&format!(
        "[remotes.{REMOTE}]\nprovider = \"{provider}\"\nendpoint = \"{endpoint}\"\n{fields}\n\
         [remotes.{REMOTE}.auth]\n{auth}\n"
    ));
}

pub struct Cludz {
    drive: Drive,
    stand_in: StandIn,
}

impl Cludz {
    pub fn start() -> Self {
        let store = CludzStore::new(Default::default());
        let drive = store.add_drive();
        let stand_in = StandIn::start(async || store.serve().await);
        Self { drive, stand_in }
    }

    pub fn inject(&self, rule: Rule) {
        self.stand_in.running.faults().inject(rule);
    }
}

impl Service for Cludz {
    fn configure(&self, person: &Sandbox) {
        let storage = format!("storage = \"{}\"", self.drive.id());
        let auth = "method = \"token\"\ntoken = SECRET";
        let token = self.drive.owner_token();
        configure(
            person,
            "cludz",
            self.stand_in.running.url().as_str(),
            &storage,
            auth,
            &token,
        );
    }

    fn seed(&self, _: &Sandbox, files: &[Seed]) {
        for (path, content) in files {
            self.drive.put(path, content.clone()).unwrap();
        }
    }

    fn asked(&self) -> Vec<Asked> {
        self.stand_in.asked()
    }

    fn forget(&self) {
        self.stand_in.running.forget_requests();
    }
}

struct CloudSync {
    store: CloudSyncStore,
    workspace: Workspace,
    stand_in: StandIn,
}

impl CloudSync {
    const OWNER: &str = "owner@example.com";

    fn start() -> Self {
        let store = CloudSyncStore::new(Default::default());
        store.add_user(Self::OWNER, Plan::unlimited());
        let workspace = store.add_workspace(Self::OWNER, "project").unwrap();
        let stand_in = StandIn::start(async || store.serve_api().await);
        Self {
            store,
            workspace,
            stand_in,
        }
    }
}

impl Service for CloudSync {
    fn configure(&self, person: &Sandbox) {
        let key = self.store.create_key(Self::OWNER, "all", &Scope::of_keys()).unwrap();
        let endpoint = format!("{}v1", self.stand_in.running.url());
        let auth = "method = \"api-key\"\nkey = SECRET";
        configure(
            person,
            "cloudsync",
            &endpoint,
            "workspace = \"project\"",
            auth,
            key.secret(),
        );
    }

    fn seed(&self, _: &Sandbox, files: &[Seed]) {
        for (path, content) in files {
            self.workspace.put(&format!("/{path}"), content.clone()).unwrap();
        }
    }

    fn asked(&self) -> Vec<Asked> {
        self.stand_in.asked()
    }

    fn forget(&self) {
        self.stand_in.running.forget_requests();
    }
}

/// With Storra's limits in force.
pub struct Storra {
    pub account: StorraAccount,
    stand_in: StandIn,
}

impl Storra {
    pub fn start() -> Self {
        let store = StorraStore::default();
        let account = store.add_account("owner@example.com");
        let stand_in = StandIn::start(async || store.serve().await);
        Self { account, stand_in }
    }
}

impl Service for Storra {
    fn configure(&self, person: &Sandbox) {
        let key = self.account.create_key("laptop");
        let auth = "method = \"api-key\"\nkey = SECRET";
        configure(person, "storra", self.stand_in.running.url().as_str(), "", auth, &key);
    }

    fn seed(&self, _: &Sandbox, files: &[Seed]) {
        for (path, content) in files {
            self.account.put(path, content.clone()).unwrap();
        }
    }

    fn asked(&self) -> Vec<Asked> {
        self.stand_in.asked()
    }

    fn forget(&self) {
        self.stand_in.running.forget_requests();
    }
}

/// Its tree is in keymount's state, so what is seeded gets there by a list.
struct Dstor {
    store: DstorStore,
    account: DstorAccount,
    stand_in: StandIn,
}

impl Dstor {
    fn start() -> Self {
        let assumptions = Assumptions {
            processing: Processing { adding: 0, saving: 0 },
            ..Assumptions::default()
        };
        let store = DstorStore::new(Network::Testnet, assumptions);
        let account = store.add_account("me@example.org", "correct horse");
        let stand_in = StandIn::start(async || store.serve().await);
        Self {
            store,
            account,
            stand_in,
        }
    }

    fn list(person: &Sandbox) -> PathBuf {
        person.path("work/list.json")
    }
}

impl Service for Dstor {
    fn configure(&self, person: &Sandbox) {
        let key = self.account.add_key("laptop");
        let list = Self::list(person);
        let index = if list.exists() {
            format!("index = \"{}\"", list.display())
        } else {
            String::new()
        };
        let fields = format!("network = \"testnet\"\n{index}");
        let auth = "method = \"temp-token\"\napi_key = SECRET";
        let endpoint = self.stand_in.running.url();
        configure(person, "dstor", endpoint.as_str(), &fields, auth, key.expose_secret());
    }

    fn seed(&self, person: &Sandbox, files: &[Seed]) {
        let entries: Vec<serde_json::Value> = files
            .iter()
            .map(|(path, content)| {
                let hash = self.store.put(content.clone());
                serde_json::json!({ "path": path, "hash": hash, "size": content.len() })
            })
            .collect();
        person.file("work/list.json", &serde_json::json!(entries).to_string(), 0o600);
        self.configure(person);
    }

    fn asked(&self) -> Vec<Asked> {
        self.stand_in.asked()
    }

    fn forget(&self) {
        self.stand_in.running.forget_requests();
    }
}

struct Reduct {
    server: ReductServer,
    proxy: CountingProxy,
}

impl Reduct {
    fn start() -> Self {
        let server = ReductServer::start(&[]);
        let proxy = CountingProxy::before(server.port());
        let it = Self { server, proxy };
        it.curl(&["-X", "POST", &it.server.url("b/data"), "-d", "{}"]);
        it
    }

    /// Asks the server itself, with full rights.
    fn curl(&self, arguments: &[&str]) {
        let mut command = Command::new("curl");
        let authorization = format!("Authorization: Bearer {TOKEN}");
        command.args(["-sS", "--fail-with-body", "-o", "/dev/null", "-H", &authorization]);
        let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Service for Reduct {
    fn configure(&self, person: &Sandbox) {
        let auth = "method = \"token\"\ntoken = SECRET";
        configure(
            person,
            "reductstore",
            &self.proxy.endpoint(),
            "bucket = \"data\"",
            auth,
            TOKEN,
        );
    }

    /// In batches, whose headers describe the records.
    fn seed(&self, _: &Sandbox, files: &[Seed]) {
        /// A request has at most some hundred headers (measured on ReductStore 1.21.5: 97 are refused).
        const BATCH: usize = 80;
        let mut folders: BTreeMap<&str, Vec<(usize, &Seed)>> = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            let (folder, _) = file.0.rsplit_once('/').unwrap();
            folders.entry(folder).or_default().push((number, file));
        }
        let client = reqwest::Client::new();
        Runtime::new().unwrap().block_on(async {
            for (folder, files) in folders {
                for batch in files.chunks(BATCH) {
                    let mut request = client
                        .post(self.server.url(&format!("b/data/{folder}/batch")))
                        .bearer_auth(TOKEN);
                    let mut body = Vec::new();
                    for (number, (path, content)) in batch {
                        let (_, name) = path.rsplit_once('/').unwrap();
                        let record = format!("{},text/plain,name={name}", content.len());
                        request = request.header(format!("x-reduct-time-{}", 1_700_000_000_000_000 + number), record);
                        body.extend_from_slice(content);
                    }
                    let answer = request.body(body).send().await.unwrap();
                    assert!(answer.status().is_success(), "{answer:?}");
                }
            }
        });
    }

    fn asked(&self) -> Vec<Asked> {
        self.proxy.asked()
    }

    fn forget(&self) {
        self.proxy.forget();
    }
}

struct S3 {
    server: S3Server,
    software: s3_server::Software,
    proxy: CountingProxy,
}

impl S3 {
    fn start(software: s3_server::Software) -> Self {
        let server = S3Server::start(software);
        if software == s3_server::Software::Moto {
            Runtime::new().unwrap().block_on(server.make_bucket());
        }
        Self {
            proxy: CountingProxy::before(server.port()),
            server,
            software,
        }
    }
}

impl Service for S3 {
    fn configure(&self, person: &Sandbox) {
        let bucket = format!("bucket = \"{BUCKET}\"");
        let auth = format!("method = \"static\"\naccess_key_id = \"{KEY_ID}\"\nsecret_access_key = SECRET");
        configure(person, "s3", &self.proxy.endpoint(), &bucket, &auth, SECRET_KEY);
    }

    fn seed(&self, _: &Sandbox, files: &[Seed]) {
        if self.software == s3_server::Software::Rclone {
            return write_all(&self.server.data(), files);
        }
        let client = reqwest::Client::new();
        Runtime::new().unwrap().block_on(async {
            for (path, content) in files {
                let object = format!("{}{BUCKET}/{path}", self.server.endpoint());
                let answer = client.put(object).body(content.clone()).send().await.unwrap();
                assert!(answer.status().is_success(), "{answer:?}");
            }
        });
    }

    fn asked(&self) -> Vec<Asked> {
        self.proxy.asked()
    }

    fn forget(&self) {
        self.proxy.forget();
    }
}

struct Webdav {
    server: DavServer,
    proxy: CountingProxy,
}

impl Webdav {
    fn start(software: webdav_server::Software) -> Self {
        let server = DavServer::start(software);
        Self {
            proxy: CountingProxy::before(server.port()),
            server,
        }
    }
}

impl Service for Webdav {
    fn configure(&self, person: &Sandbox) {
        let auth = format!("method = \"basic\"\nusername = \"{USER}\"\npassword = SECRET");
        configure(person, "webdav", &self.proxy.endpoint(), "", &auth, PASSWORD);
    }

    fn seed(&self, _: &Sandbox, files: &[Seed]) {
        write_all(&self.server.data(), files);
    }

    fn asked(&self) -> Vec<Asked> {
        self.proxy.asked()
    }

    fn forget(&self) {
        self.proxy.forget();
    }
}

fn write_all(folder: &Path, files: &[Seed]) {
    for (path, content) in files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}
