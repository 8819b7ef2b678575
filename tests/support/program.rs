//! A server program that a test starts at a port of its own and ends with itself, and how a client comes to it.

#![allow(dead_code, reason = "each suite uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where its server fails"
)]

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keymount::net::{RetryPolicy, Transport, TransportSettings};

/// How long a start may take on a busy machine.
const START_TIME: Duration = Duration::from_secs(60);
/// How often another port is tried when somebody else took the first.
const PORTS: u32 = 5;

/// A running server with a folder of its own: its log, its settings, and what it serves.
pub struct Server {
    folder: tempfile::TempDir,
    program: Program,
    port: u16,
}

impl Server {
    /// `command` gets the folder, in which `data` is there and empty, and the port.
    pub fn start(command: impl Fn(&Path, u16) -> Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let log = folder.path().join("log");
        let (program, port) = Program::start_at_free_port(&log, |port| command(folder.path(), port));
        Self { folder, program, port }
    }

    /// Nobody listens until `start_again`.
    pub fn stop(&mut self) {
        self.program.stop();
    }

    /// With the data and at the port that it had.
    pub fn start_again(&mut self, command: impl Fn(&Path, u16) -> Command) {
        let command = command(self.folder.path(), self.port);
        self.program = Program::start_again(&self.folder.path().join("log"), command, self.port);
    }

    /// The server's root, as a remote's `endpoint` has it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it printed.
    pub fn log(&self) -> String {
        self.program.log()
    }
}

/// Patient with a busy machine, and quick to give up on what is tried again.
pub fn transport() -> Transport {
    transport_with(Duration::from_millis(200), Duration::from_millis(4))
}

/// Waits for the locks of others.
pub fn patient_transport() -> Transport {
    transport_with(Duration::from_secs(20), Duration::from_millis(50))
}

fn transport_with(budget: Duration, max_pause: Duration) -> Transport {
    Transport::new(TransportSettings {
        stall: Duration::from_secs(30),
        retry: RetryPolicy {
            budget,
            first_pause: Duration::from_millis(1),
            max_pause,
        },
    })
    .unwrap()
}

/// A running process and its log.
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts what `command` gives for a port, and waits until it listens there.
    pub fn start_at_free_port(log: &Path, command: impl Fn(u16) -> Command) -> (Self, u16) {
        for _ in 0..PORTS {
            let port = free_port();
            if let Some(program) = Self::start(log, command(port), port) {
                return (program, port);
            }
        }
        panic!(
            "the server does not start: {}",
            std::fs::read_to_string(log).unwrap_or_default()
        );
    }

    /// Starts it at a port where it was before.
    pub fn start_again(log: &Path, command: Command, port: u16) -> Self {
        Self::start(log, command, port).expect("the server starts again")
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts a command and waits until it listens at its port; `None` when it ends before.
    pub fn start(log: &Path, mut command: Command, port: u16) -> Option<Self> {
        let file = std::fs::File::create(log).expect("the server's log");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the server's log"))
            .stderr(file)
            .spawn()
            .expect("the server can be started");
        let mut program = Self {
            child,
            log: log.to_owned(),
        };
        let start = Instant::now();
        while start.elapsed() < START_TIME {
            if let Ok(Some(_)) = program.child.try_wait() {
                return None;
            }
            if listens(program.child.id(), port) {
                return Some(program);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Ends it as a power cut would (SIGKILL), and waits until it is gone.
    pub fn kill(self) {
        drop(self);
    }

    /// What it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Whether this very process listens there: somebody else may have taken the port.
pub fn listens(pid: u32, port: u16) -> bool {
    /// `TCP_LISTEN`, as the kernel's tables write it.
    const LISTENING: &str = "0A";
    let own: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.path().read_link().ok()?.to_string_lossy().into_owned()))
        .collect();
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        let table = std::fs::read_to_string(table).unwrap_or_default();
        table.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.len() > 9
                && fields[1].ends_with(&format!(":{port:04X}"))
                && fields[3] == LISTENING
                && own.contains(&format!("socket:[{}]", fields[9]))
        })
    })
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A program that `scripts/test` installs, or a failed test that says where to get it.
pub fn installed(variable: &str, path: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(
        || {
            let cache = std::env::var_os("KEYMOUNT_TEST_CACHE").map(PathBuf::from);
            let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/keymount-tests");
            cache.unwrap_or_else(home).join(path)
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "{} is missing: run scripts/test, which installs it, or set {variable}",
        path.display()
    );
    path
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("the port's number").port()
}
