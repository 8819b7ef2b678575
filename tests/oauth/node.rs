//! The certified server and the browser: two programs of node. `scripts/test` installs what they need.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::person::CLIENT_SECRET;

/// A program that is told and answers line by line, and ends when nobody tells it anything any more.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(script: &str) -> Self {
        let folder = std::env::var_os("KEYMOUNT_TEST_OIDC")
            .map(PathBuf::from)
            .expect("KEYMOUNT_TEST_OIDC names the folder where tests/oauth/oidc is installed; run scripts/test");
        let mut child = Command::new("node")
            .arg(folder.join(script))
            .current_dir(&folder)
            .env("OIDC_CLIENT_SECRET", CLIENT_SECRET)
            .env("NODE_NO_WARNINGS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node is installed; run scripts/test");
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// The next line that isn't only said to whoever reads logs.
    fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the program ended");
            if wanted(line.trim()) {
                return line.trim().to_owned();
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// A certified OpenID provider.
pub struct Oidc {
    _program: Program,
    pub issuer: String,
}

impl Oidc {
    pub fn start() -> Self {
        let mut program = Program::start("server.mjs");
        let issuer = program.line(|line| line.starts_with("http://"));
        Self {
            _program: program,
            issuer,
        }
    }
}

/// What a browser ended at.
#[derive(Debug, Deserialize)]
pub struct Seen {
    pub status: u16,
    pub title: String,
    pub text: String,
    pub headers: std::collections::BTreeMap<String, String>,
}

/// One browser for all tests: starting it takes longer than a login. It ends with this process, whose end closes its
/// input.
pub fn browse(task: &Value) -> Seen {
    static BROWSER: OnceLock<Mutex<Program>> = OnceLock::new();
    let browser = BROWSER.get_or_init(|| Mutex::new(Program::start("browser.mjs")));
    let mut browser = browser.lock().unwrap();
    let mut task = task.clone();
    // To look at, where somebody wants to.
    if let (Some(folder), Some(name)) = (std::env::var_os("KEYMOUNT_TEST_SCREENSHOTS"), task["shot"].as_str()) {
        task["shot"] = json!(PathBuf::from(folder).join(format!("{name}.png")));
    } else {
        task["shot"] = Value::Null;
    }
    writeln!(browser.input.as_mut().unwrap(), "{task}").unwrap();
    let answer = browser.line(|line| line.starts_with('{') && !line.contains("\"ready\""));
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}
