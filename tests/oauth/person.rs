//! Somebody with a home of their own, who logs in with the real program.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use keymount::auth::oauth::{AuthorizationServer, OauthClient, OauthSpec};
use keymount::auth::renewing::{Exchange, ExchangeError, Grant, Granted, Keeper};
use keymount::auth::{GivenSecrets, SecretSource, StoreSpec, StoredSecret};
use keymount::net::PlainHttp;
use secrecy::SecretString;
use tempfile::TempDir;

use crate::script::write_script;

/// In the client's secret; it must never be printed.
pub const CLIENT_SECRET: &str = "canary-client-secret-8d1f";
const SECRET_VARIABLE: &str = "SYNC_CLIENT_SECRET";

pub struct Person {
    home: TempDir,
}

/// A login that is under way.
pub struct Login {
    child: Child,
    input: Option<ChildStdin>,
    said: BufReader<std::process::ChildStderr>,
    heard: String,
}

/// How a command ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn ends(self, code: i32, words: &str) -> Self {
        assert_eq!(self.code, Some(code), "another exit code: {self:?}");
        assert!(
            self.out.contains(words) || self.err.contains(words),
            "{words:?} is missing: {self:?}"
        );
        self
    }
}

impl Person {
    /// With a remote `sync` whose `auth` table this is.
    pub fn with(remote: &str, auth: &str) -> Self {
        let home = tempfile::Builder::new().prefix("oauth-").tempdir().unwrap();
        let person = Self { home };
        for folder in ["run", "bin", ".config/keymount"] {
            std::fs::create_dir_all(person.path(folder)).unwrap();
        }
        std::fs::set_permissions(person.path("run"), std::fs::Permissions::from_mode(0o700)).unwrap();
        let config = format!(
            "[remotes.sync]\nprovider = \"cloudsync\"\nendpoint = \"http://127.0.0.1:9/v1\"\n{remote}\n\n\
             [remotes.sync.auth]\nmethod = \"oauth\"\n{auth}\n"
        );
        std::fs::write(person.path(".config/keymount/config.toml"), config).unwrap();
        // Whoever opens an address here hands it to the test.
        let opener = person.path("bin/xdg-open");
        let text = "#!/bin/sh\nenv >\"$HOME/environment\"\nprintf '%s\\n' \"$1\" >\"$HOME/opened\"\n";
        write_script(&opener, text, 0o755);
        person
    }

    /// The client secret as the configuration names it.
    pub fn secret_line() -> String {
        format!("client_secret = {{ env = \"{SECRET_VARIABLE}\" }}")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keymount"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env(SECRET_VARIABLE, CLIENT_SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        let output = self.command(arguments).output().unwrap();
        self.checked(output.status.code(), &output.stdout, &output.stderr)
    }

    /// Without a display, with something to paste into.
    pub fn begin_login(&self, arguments: &[&str]) -> Login {
        let mut command = self.command(&["login", "sync", "--wait", "180s"]);
        Login::start(command.args(arguments).stdin(Stdio::piped()))
    }

    /// On a desktop.
    pub fn begin_login_with_display(&self) -> Login {
        let made = Command::new("mkfifo").arg(self.path("opened")).status().unwrap();
        assert!(made.success());
        let mut command = self.command(&["login", "sync", "--wait", "180s"]);
        Login::start(command.env("DISPLAY", ":99"))
    }

    /// What the desktop was told to open.
    pub fn opened(&self) -> String {
        std::fs::read_to_string(self.path("opened")).unwrap().trim().to_owned()
    }

    pub fn finish(&self, mut login: Login) -> Said {
        drop(login.input.take());
        login.said.read_to_string(&mut login.heard).unwrap();
        let mut out = Vec::new();
        login.child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        let status = login.child.wait().unwrap();
        self.checked(status.code(), &out, login.heard.as_bytes())
    }

    /// No secret is printed, and none is in the clear where others could read it.
    fn checked(&self, code: Option<i32>, out: &[u8], err: &[u8]) -> Said {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let said = Said {
            code,
            out: text(out),
            err: text(err),
        };
        for secret in ["canary", "at_live_", "rt_live_", "?code=", "&code="] {
            assert!(
                !said.out.contains(secret) && !said.err.contains(secret),
                "{secret} shows: {said:?}"
            );
        }
        said
    }

    fn kept(&self) -> StoredSecret {
        StoredSecret {
            remote: "sync".into(),
            field: "grant".into(),
            store: StoreSpec::Files {
                folder: self.path(".local/state/keymount/secrets"),
                passphrase: None,
            },
        }
    }

    pub fn keeper(&self) -> Keeper {
        Keeper::new(self.kept(), self.path(".local/state/keymount/renew-sync.lock"))
    }

    pub async fn grant(&self) -> Option<Grant> {
        self.keeper().read(&GivenSecrets::default()).await.unwrap().grant()
    }

    /// Asks for the next token, as a mount would.
    pub async fn renew(
        &self,
        server: AuthorizationServer,
        client_id: &str,
        secret: Option<&str>,
        refresh: &SecretString,
    ) -> Result<Granted, ExchangeError> {
        let spec = OauthSpec {
            server,
            client_id: client_id.into(),
            client_secret: secret.map(|_| SecretSource::Env("S".into())),
            scopes: None,
            kept: self.kept(),
        };
        let mut given = GivenSecrets::default();
        given.insert("S", secret.unwrap_or_default().into());
        let client = OauthClient::new(spec, PlainHttp::LoopbackOnly).unwrap();
        client.exchange(Some(refresh), &given).await
    }
}

impl Login {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        Self {
            input: child.stdin.take(),
            said: BufReader::new(child.stderr.take().unwrap()),
            child,
            heard: String::new(),
        }
    }

    /// The next line on its own that the person is to open or type.
    #[track_caller]
    pub fn shown(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self.said.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended before: {}", self.heard);
            self.heard.push_str(&line);
            if let Some(shown) = line.strip_prefix("  ") {
                return shown.trim().to_owned();
            }
        }
    }

    /// Reads until this is said.
    #[track_caller]
    pub fn hears(&mut self, words: &str) {
        loop {
            let mut line = String::new();
            let read = self.said.read_line(&mut line).unwrap();
            assert!(read > 0, "{words:?} was never said: {}", self.heard);
            self.heard.push_str(&line);
            if line.contains(words) {
                return;
            }
        }
    }

    pub fn paste(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        // Only when a test failed on the way is it still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
