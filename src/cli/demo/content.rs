//! What the stand-ins of the demo hold, and the mounts that show it: one for each kind of token.

use std::fmt;

use uuid::Uuid;

use crate::auth::{GivenSecrets, SecretSource};
use crate::config::{DiskCacheUse, MountOptions, OptionLayer, ResolvedRemote};
use crate::emulator::Running;
use crate::emulator::cludz::{CludzStore, Drive, Grant, Sharing};
use crate::provider::registry::{CludzAuth, CludzSpec, ProviderSpec, RemotePath, TokenSending};

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
pub const NAMES: [&str; 4] = ["cludz-owner", "cludz-read-only", "cludz-no-delete", "cludz-public"];

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
        let remote = |name: &str, path: &str, auth: CludzAuth| -> Result<ResolvedRemote, SetupError> {
            Ok(ResolvedRemote {
                name: name.to_owned(),
                provider: ProviderSpec::Cludz(CludzSpec {
                    storage: drive.id(),
                    auth,
                }),
                endpoint: server.url(),
                path: path.parse::<RemotePath>().map_err(failed)?,
                rights: None,
                insecure: false,
                options: OptionLayer::default(),
            })
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
            let remote = remote(name, "", auth)?;
            self.exhibits.push(Exhibit { name, about, remote });
        }
        self.exhibits.push(Exhibit {
            name: NAMES[3],
            about: "no token: the folder that its owner made public",
            remote: remote(NAMES[3], "public", CludzAuth::None)?,
        });
        self._servers.push(server);
        Ok(())
    }

    /// Keeps a token under a name that no environment has.
    fn hold(&mut self, token: String) -> SecretSource {
        let variable = format!("DEMO_{}", Uuid::new_v4().simple());
        self.tokens.insert(variable.clone(), token.into());
        SecretSource::Env(variable)
    }
}

fn fill_drive(drive: &Drive) -> Result<(), crate::emulator::cludz::StoreError> {
    drive.put("/readme.txt", WELCOME)?;
    drive.put("/documents/notes.md", NOTES)?;
    drive.put("/documents/table.csv", table())?;
    drive.put("/pictures/gradient.ppm", picture())?;
    drive.put("/public/hello.txt", "Everybody may read this.\n")?;
    drive.put("/public/download.bin", noise(3 << 20))?;
    drive.mkdir("/empty")?;
    drive.set_sharing("/public", Sharing::Public)
}

/// The demo reads nothing twice that it needs to keep, so memory is enough.
pub fn options(uid: u32, gid: u32) -> MountOptions {
    MountOptions {
        disk_cache: DiskCacheUse::Off,
        ..OptionLayer::default().resolve(uid, gid)
    }
}

const WELCOME: &str = "This drive is a stand-in inside keymount demo. It lives in memory and ends with it.\n\
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
