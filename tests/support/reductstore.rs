//! The real ReductStore server for tests: on a free loopback port, with a data folder of its own, ended with the test.

#![allow(dead_code, reason = "each suite uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where its server fails"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::program::listens;

/// The token with full access.
pub const TOKEN: &str = "full-access-for-tests";

/// The folder below the test cache where `scripts/test` installs the server.
const INSTALLED: &str = "reductstore-1.21.5/bin/reductstore";
/// How long a start may take on a busy machine.
const START_TIME: Duration = Duration::from_secs(30);
/// How often another port is tried when somebody else took the first.
const PORTS: u32 = 5;

/// One running (or stopped) server. Dropping it ends the process and removes the data.
pub struct ReductServer {
    settings: Vec<(String, String)>,
    data: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl ReductServer {
    /// Starts a server; `settings` are further `RS_*` variables.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let mut server = Self {
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            data: tempfile::tempdir().expect("a temporary folder"),
            port: 0,
            child: None,
        };
        for _ in 0..PORTS {
            server.port = free_port();
            if server.launch() {
                return server;
            }
        }
        panic!("the ReductStore server does not start: {}", server.log());
    }

    /// The server's root, as a remote's `endpoint` has it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// The address of an API call: `url("b/bucket")`.
    pub fn url(&self, path: &str) -> String {
        format!("{}api/v1/{path}", self.endpoint())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it as a crash does (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it as an administrator does (SIGTERM), and waits for it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _ = child.wait();
        }
    }

    /// Starts it again after `kill` or `stop`, with the same data at the same port.
    pub fn restart(&mut self) {
        self.kill();
        assert!(
            self.launch(),
            "the ReductStore server does not start again: {}",
            self.log()
        );
    }

    /// What it printed since its last start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.data.path().join("log")
    }

    /// Starts the process and waits until it answers; `false` when it ends instead.
    fn launch(&mut self) -> bool {
        let log = std::fs::File::create(self.log_path()).expect("the server's log");
        let mut child = Command::new(binary())
            .env_clear()
            .env("RS_HOST", "127.0.0.1")
            .env("RS_PORT", self.port.to_string())
            .env("RS_DATA_PATH", self.data.path().join("data"))
            .env("RS_API_TOKEN", TOKEN)
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the server's log"))
            .stderr(log)
            .spawn()
            .expect("the ReductStore server can be started");
        let start = Instant::now();
        let answers = loop {
            if let Ok(Some(_)) = child.try_wait() {
                return false;
            }
            if listens(child.id(), self.port) && is_alive(self.port) {
                break true;
            }
            if start.elapsed() > START_TIME {
                break false;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.child = Some(child);
        if !answers {
            self.kill();
        }
        answers
    }
}

impl Drop for ReductServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server's program, or a failed test that says where to get it.
fn binary() -> PathBuf {
    let path = std::env::var_os("KEYMOUNT_TEST_REDUCTSTORE").map_or_else(
        || {
            let cache = std::env::var_os("KEYMOUNT_TEST_CACHE").map(PathBuf::from);
            let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/keymount-tests");
            cache.unwrap_or_else(home).join(INSTALLED)
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "{} is missing: run scripts/test, which installs the ReductStore server, or set KEYMOUNT_TEST_REDUCTSTORE",
        path.display()
    );
    path
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("the port's number").port()
}

fn is_alive(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /api/v1/alive HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 64];
        let read = stream.read(&mut answer)?;
        Ok(answer[..read].starts_with(b"HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
