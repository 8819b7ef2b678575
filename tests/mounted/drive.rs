//! A Cludz drive on loopback with somebody's configuration for it.

use keymount::emulator::Running;
use keymount::emulator::cludz::{Assumptions, CludzStore, Drive};
use tokio::runtime::Runtime;

use crate::sandbox::{Sandbox, Who};

/// The stand-in, the drive in it, and a sandbox that has it configured as `drive`.
pub struct CludzDrive {
    pub person: Sandbox,
    pub drive: Drive,
    pub server: Running,
    pub runtime: Runtime,
}

impl CludzDrive {
    pub fn new(who: Who) -> Self {
        Self::with(who, Assumptions::default())
    }

    pub fn with(who: Who, assumptions: Assumptions) -> Self {
        let runtime = Runtime::new().unwrap();
        let store = CludzStore::new(assumptions);
        let drive = store.add_drive();
        let server = runtime.block_on(store.serve()).unwrap();
        let person = Sandbox::new(who);
        let it = Self {
            person,
            drive,
            server,
            runtime,
        };
        it.configure(&it.drive.owner_token(), "");
        it
    }

    /// Writes the configuration: the token in a file, and more lines for the remote.
    pub fn configure(&self, token: &str, more: &str) {
        let file = self.person.file("work/token", token, 0o600);
        self.person.configure(&format!(
            "[remotes.drive]\nprovider = \"cludz\"\nstorage = \"{}\"\nendpoint = \"{}\"\n{more}\n\
             [remotes.drive.auth]\nmethod = \"token\"\ntoken = {{ file = \"{}\" }}\n",
            self.drive.id(),
            self.server.url(),
            file.display()
        ));
    }

    /// As `configure`, with the token in keymount's store, and more lines at the end.
    pub fn configure_stored(&self, more: &str) {
        self.configure_kept("stored", more);
    }

    /// As `configure`, with the token in the keyring.
    pub fn configure_keyring(&self) {
        self.configure_kept("keyring", "");
    }

    fn configure_kept(&self, place: &str, more: &str) {
        self.person.configure(&format!(
            "[remotes.drive]\nprovider = \"cludz\"\nstorage = \"{}\"\nendpoint = \"{}\"\n\
             [remotes.drive.auth]\nmethod = \"token\"\ntoken = {{ {place} = true }}\n{more}",
            self.drive.id(),
            self.server.url()
        ));
    }

    /// As `configure`, without any token.
    pub fn configure_public(&self) {
        self.person.configure(&format!(
            "[remotes.drive]\nprovider = \"cludz\"\nstorage = \"{}\"\nendpoint = \"{}\"\n\
             [remotes.drive.auth]\nmethod = \"none\"\n",
            self.drive.id(),
            self.server.url()
        ));
    }
}
