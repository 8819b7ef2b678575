//! What the stand-ins of the demo hold, and the mounts that show it: one for each kind of token.

use std::fmt;
use std::time::Duration;

use secrecy::ExposeSecret;
use url::Url;
use uuid::Uuid;

use crate::auth::{GivenSecrets, SecretSource};
use crate::config::{MountOptions, OptionLayer, ResolvedRemote};
use crate::emulator::Running;
use crate::emulator::cloudsync::{self, CloudSyncStore, Plan, Role, Scope, Workspace};
use crate::emulator::cludz::{CludzStore, Drive, Grant, Sharing, StoreError as DriveError};
use crate::emulator::dstor::{Assumptions, DstorStore, Network as DstorNetwork};
use crate::emulator::reductstore::{Options, Permissions, ReductStore, StoredRecord};
use crate::emulator::storra::StorraStore;
use crate::provider::dstor::Endpoints;
use crate::provider::registry::{
    CloudSyncAuth, CloudSyncSpec, CludzAuth, CludzSpec, DstorAuth, DstorSpec, Network, OnUnlink, ProviderSpec,
    RecordNames, ReductstoreAuth, ReductstoreSpec, RemotePath, StorraSpec, TokenSending,
};

/// A mount of the demo before it has a directory.
#[derive(Debug)]
pub struct Exhibit {
    /// The directory's name, too.
    pub name: &'static str,
    pub about: &'static str,
    pub remote: ResolvedRemote,
}

/// Stand-ins that answer as long as this lives, and what to mount of them.
#[derive(Debug)]
pub struct Exhibition {
    pub exhibits: Vec<Exhibit>,
    pub tokens: GivenSecrets,
    _servers: Vec<Running>,
}

/// Every directory that the demo makes.
pub const NAMES: [&str; 10] = [
    "cludz-owner",
    "cludz-read-only",
    "cludz-no-delete",
    "cludz-public",
    "reductstore",
    "reductstore-read-only",
    "cloudsync",
    "cloudsync-viewer",
    "dstor",
    "storra",
];

/// The bucket of the ReductStore stand-in.
const BUCKET: &str = "sensors";

/// Why a stand-in could not be set up.
#[derive(Debug)]
pub struct SetupError(String);

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a stand-in cannot be started: {}", self.0)
    }
}

fn failed(error: impl fmt::Display) -> SetupError {
    SetupError(error.to_string())
}

impl Exhibition {
    pub async fn open() -> Result<Self, SetupError> {
        let mut exhibition = Self {
            exhibits: Vec::new(),
            tokens: GivenSecrets::default(),
            _servers: Vec::new(),
        };
        exhibition.add_cludz().await?;
        exhibition.add_reductstore().await?;
        exhibition.add_cloudsync().await?;
        exhibition.add_dstor().await?;
        exhibition.add_storra().await?;
        Ok(exhibition)
    }

    async fn add_cludz(&mut self) -> Result<(), SetupError> {
        let store = CludzStore::default();
        let drive = store.add_drive();
        fill_drive(&drive).map_err(failed)?;
        let share = |name: &str, grant: Grant| -> Result<String, SetupError> {
            let token = drive.share(name);
            drive.set_grant(name, "/", grant).map_err(failed)?;
            Ok(token)
        };
        let read_only = share("reader", Grant::Read)?;
        let no_delete = share("writer", Grant::Write)?;
        let server = store.serve().await.map_err(failed)?;
        let folder = |name: &str, path: &str, auth: CludzAuth| -> Result<ResolvedRemote, SetupError> {
            Ok(remote(
                name,
                ProviderSpec::Cludz(CludzSpec {
                    storage: drive.id(),
                    auth,
                }),
                server.url(),
                path.parse().map_err(failed)?,
            ))
        };
        for (name, token, about) in [
            (
                NAMES[0],
                drive.owner_token(),
                "the owner's token: everything is allowed",
            ),
            (NAMES[1], read_only, "a shared token with Read: nothing can be changed"),
            (
                NAMES[2],
                no_delete,
                "a shared token with Read and Write: nothing can be deleted",
            ),
        ] {
            let auth = CludzAuth::Token {
                token: self.hold(token),
                send: TokenSending::Header,
            };
            let remote = folder(name, "", auth)?;
            self.exhibits.push(Exhibit { name, about, remote });
        }
        self.exhibits.push(Exhibit {
            name: NAMES[3],
            about: "no token: the folder that its owner made public",
            remote: folder(NAMES[3], "public", CludzAuth::None)?,
        });
        self._servers.push(server);
        Ok(())
    }

    async fn add_reductstore(&mut self) -> Result<(), SetupError> {
        let store = ReductStore::new(Options::default());
        fill_bucket(&store);
        let reading = Permissions {
            full_access: false,
            read: vec![BUCKET.to_owned()],
            write: Vec::new(),
        };
        let missing = || failed("it made no token");
        let full = store.root_token().ok_or_else(missing)?;
        let read_only = store.create_token("reader", reading).ok_or_else(missing)?;
        let server = store.serve().await.map_err(failed)?;
        for (name, token, about) in [
            (NAMES[4], full, "a token with full access; records are files"),
            (NAMES[5], read_only, "a token that may read the bucket"),
        ] {
            let auth = ReductstoreAuth::Token {
                token: self.hold(token),
            };
            self.show(
                name,
                about,
                ProviderSpec::Reductstore(ReductstoreSpec {
                    keys_auth: None,
                    bucket: Some(BUCKET.to_owned()),
                    names: RecordNames::Label,
                    auth,
                }),
                server.url(),
            );
        }
        self._servers.push(server);
        Ok(())
    }

    async fn add_cloudsync(&mut self) -> Result<(), SetupError> {
        /// People of the stand-in.
        const OWNER: &str = "owner@example.com";
        const VIEWER: &str = "viewer@example.com";
        let store = CloudSyncStore::default();
        for person in [OWNER, VIEWER] {
            store.add_user(person, Plan::unlimited());
        }
        let project = store.add_workspace(OWNER, "My Project").map_err(failed)?;
        let archive = store.add_workspace(OWNER, "Archive").map_err(failed)?;
        fill_workspace(&project, &archive).map_err(failed)?;
        project.set_role(VIEWER, Role::Viewer).map_err(failed)?;
        let key = |person: &str| store.create_key(person, "demo", &Scope::of_keys()).map_err(failed);
        let (owners, viewers) = (key(OWNER)?, key(VIEWER)?);
        let server = store.serve_api().await.map_err(failed)?;
        for (name, key, workspace, about) in [
            (
                NAMES[6],
                owners,
                None,
                "an API key of the owner; workspaces are directories",
            ),
            (
                NAMES[7],
                viewers,
                Some(project.slug()),
                "one workspace, by the key of somebody who is a viewer there",
            ),
        ] {
            let auth = CloudSyncAuth::ApiKey {
                key: self.hold(key.secret().to_owned()),
            };
            self.show(
                name,
                about,
                ProviderSpec::CloudSync(CloudSyncSpec { workspace, auth }),
                server.url().join("v1").map_err(failed)?,
            );
        }
        self._servers.push(server);
        Ok(())
    }

    /// An account without files: the tree of names is on the machine that mounts, and a new one is empty.
    async fn add_dstor(&mut self) -> Result<(), SetupError> {
        let store = DstorStore::new(DstorNetwork::Testnet, Assumptions::default());
        let key = store
            .add_account("demo@localhost", Uuid::new_v4().to_string())
            .add_key("demo");
        let server = store.serve().await.map_err(failed)?;
        let api_key = self.hold(key.expose_secret().to_owned());
        self.show(
            NAMES[8],
            "an API key for tokens that end within a minute and are renewed; empty",
            ProviderSpec::Dstor(DstorSpec {
                network: Network::Testnet,
                on_unlink: OnUnlink::Forget,
                endpoints: Endpoints::default(),
                index: None,
                shared: None,
                auth: DstorAuth::TempToken {
                    api_key,
                    lifetime: Some(Duration::from_secs(60)),
                },
                kept: None,
            }),
            server.url(),
        );
        self._servers.push(server);
        Ok(())
    }

    async fn add_storra(&mut self) -> Result<(), SetupError> {
        let store = StorraStore::default();
        let account = store.add_account("demo@example.com");
        account.put("readme.txt", WELCOME).map_err(failed)?;
        account.put("documents/notes.md", NOTES).map_err(failed)?;
        account.put("documents/table.csv", table()).map_err(failed)?;
        let key = self.hold(account.create_key("demo"));
        let server = store.serve().await.map_err(failed)?;
        self.show(
            NAMES[9],
            "an account's key; every upload is private",
            ProviderSpec::Storra(StorraSpec {
                key,
                keys_auth: None,
                chmod_publishes: false,
            }),
            server.url(),
        );
        self._servers.push(server);
        Ok(())
    }

    /// One more share: the whole of what a stand-in at this address has.
    fn show(&mut self, name: &'static str, about: &'static str, provider: ProviderSpec, endpoint: Url) {
        let remote = remote(name, provider, endpoint, RemotePath::default());
        self.exhibits.push(Exhibit { name, about, remote });
    }

    /// Keeps a token under a name that no environment has.
    fn hold(&mut self, token: String) -> SecretSource {
        let variable = format!("DEMO_{}", Uuid::new_v4().simple());
        self.tokens.insert(variable.clone(), token.into());
        SecretSource::Env(variable)
    }
}

fn remote(name: &str, provider: ProviderSpec, endpoint: Url, path: RemotePath) -> ResolvedRemote {
    ResolvedRemote {
        name: name.to_owned(),
        provider,
        endpoint,
        path,
        rights: None,
        insecure: false,
        options: OptionLayer::default(),
        shared_index: None,
    }
}

/// Records as keymount writes them, with names, and some as a sensor does, without.
fn fill_bucket(store: &ReductStore) {
    /// Microseconds since 1970 of the first record: 2024-01-01.
    const START: u64 = 1_704_067_200_000_000;
    const MINUTE: u64 = 60_000_000;
    store.create_bucket(BUCKET);
    for minute in 0..5 {
        let text = format!("temperature 2{minute}.5\n");
        let record = StoredRecord {
            content_type: "text/plain".to_owned(),
            ..StoredRecord::plain(text)
        };
        store.put(BUCKET, "thermometer", START + minute * MINUTE, record);
    }
    let named = |name: &str, content: Vec<u8>| StoredRecord::plain(content).with_label("name", name);
    store.put(BUCKET, "reports", START, named("january.csv", table().into_bytes()));
    store.put(BUCKET, "reports", START + MINUTE, named("readme.md", NOTES.into()));
    store.put(BUCKET, "camera", START, named("first.ppm", picture()));
}

fn fill_drive(drive: &Drive) -> Result<(), DriveError> {
    drive.put("/readme.txt", WELCOME)?;
    drive.put("/documents/notes.md", NOTES)?;
    drive.put("/documents/table.csv", table())?;
    drive.put("/pictures/gradient.ppm", picture())?;
    drive.put("/public/hello.txt", "Everybody may read this.\n")?;
    drive.put("/public/download.bin", noise(3 << 20))?;
    drive.mkdir("/empty")?;
    drive.set_sharing("/public", Sharing::Public)
}

fn fill_workspace(project: &Workspace, archive: &Workspace) -> Result<(), cloudsync::StoreError> {
    project.put("/readme.txt", WELCOME)?;
    project.put("/plans/notes.md", NOTES)?;
    project.put("/plans/table.csv", table())?;
    project.put("/plans/gradient.ppm", picture())?;
    project.mkdir("/empty")?;
    archive.put("/2025/download.bin", noise(1 << 20))?;
    Ok(())
}

/// The demo reads nothing twice that it needs to keep, so memory is enough.
pub fn options(remote: &ResolvedRemote, uid: u32, gid: u32) -> MountOptions {
    let in_memory = OptionLayer {
        no_disk_cache: Some(true),
        ..OptionLayer::default()
    };
    remote.mount_options(in_memory, uid, gid)
}

const WELCOME: &str = "This place is a stand-in inside keymount demo. It lives in memory and ends with it.\n\
Change it, delete it, break it: nothing of it is real.\n";

const NOTES: &str = "# Notes\n\n- What a token may do is what `ls -l` shows.\n\
- `getfattr -d notes.md` shows what the provider knows of a file.\n";

fn table() -> String {
    let mut text = String::from("n,square,cube\n");
    for n in 1..=1000_u64 {
        text.push_str(&format!("{n},{},{}\n", n * n, n * n * n));
    }
    text
}

/// A picture without a library: portable pixmap, 256 by 256.
fn picture() -> Vec<u8> {
    let mut bytes = b"P6 256 256 255\n".to_vec();
    for y in 0..=255_u8 {
        for x in 0..=255_u8 {
            bytes.extend([x, y, 255 - x / 2 - y / 2]);
        }
    }
    bytes
}

/// Bytes that compress badly and are the same every time.
fn noise(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}
