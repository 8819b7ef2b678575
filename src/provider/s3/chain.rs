//! The places where AWS programs look for a key: the environment, the files in `~/.aws`, a program that one of them names,
//! web identities, and the container's or the machine's own role.
//!
//! Which places there are, in which order, and what is asked there is reqsign's. How it reads files, runs programs and
//! sends requests is keymount's own, below: with deadlines, without a proxy's or a log's knowledge of a secret.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use reqsign_aws_v4::{Credential as AwsCredential, DefaultCredentialProvider};
use reqsign_core::{CommandExecute, CommandOutput, Context, Env, FileRead, HttpSend, OsEnv, ProvideCredential};
use reqwest::Url;
use secrecy::ExposeSecret;

use crate::auth::GivenSecrets;
use crate::model::{Error, ErrorKind, Result};
use crate::net::{Body, Replay, Request, Transport};

/// How long a program may take that prints a key: it may ask a person, or a host that is far away.
const PROGRAM_TIME: Duration = Duration::from_secs(30);
/// How long a service on the network may take.
const SERVICE_TIME: Duration = Duration::from_secs(10);
/// How long the machine's own metadata service may take. Where there is none, nobody answers at all.
const METADATA_TIME: Duration = Duration::from_secs(2);
/// The longest file or answer, in bytes.
const MAX_DOCUMENT: usize = 256 * 1024;

/// All these places, for one profile.
pub(super) struct Chain {
    profile: Option<String>,
    transport: Transport,
}

/// A key as one of the places has it.
pub(super) struct Found {
    pub(super) key: AwsCredential,
    /// When it ends by itself.
    pub(super) until: Option<SystemTime>,
}

impl Chain {
    pub(super) fn new(profile: Option<String>, transport: Transport) -> Self {
        Self { profile, transport }
    }

    /// Looks everywhere until there is a key.
    ///
    /// # Errors
    /// `NeedsLogin` when there is none, with what went wrong on the way.
    pub(super) async fn ask(&self, given: &GivenSecrets) -> Result<Found> {
        let troubles = Troubles::default();
        let context = Context::new()
            .with_file_read(Files)
            .with_http_send(Sender {
                transport: self.transport.clone(),
                troubles: troubles.clone(),
            })
            .with_command_execute(Programs {
                troubles: troubles.clone(),
            })
            .with_env(Environment(given.clone()));
        let mut places = DefaultCredentialProvider::builder();
        if let Some(profile) = &self.profile {
            places = places.with_profile(profile);
        }
        match places.build().provide_credential(&context).await {
            Ok(Some(key)) => Ok(Found {
                until: key.expires_in.map(|time| time.as_system_time()),
                key,
            }),
            Ok(None) => Err(nowhere(troubles.told())),
            Err(error) => Err(nowhere(Some(error.to_string()))),
        }
    }
}

fn nowhere(why: Option<String>) -> Error {
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let message = format!(
        "no AWS credential was found{why}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run: aws configure"
    );
    Error::new(ErrorKind::NeedsLogin, message)
}

/// What went wrong, the last thing last: reqsign itself goes on to the next place without a word.
#[derive(Clone, Debug, Default)]
struct Troubles(Arc<Mutex<Vec<String>>>);

impl Troubles {
    fn note(&self, what: String) -> reqsign_core::Error {
        self.0.lock().push(what.clone());
        reqsign_core::Error::unexpected(what)
    }

    /// The machine's metadata service is missing nearly everywhere, so it is no reason if there is another one.
    fn told(&self) -> Option<String> {
        self.0.lock().first().cloned()
    }
}

#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        let failed = |error: std::io::Error| reqsign_core::Error::unexpected(format!("{path}: {error}"));
        if tokio::fs::metadata(path).await.map_err(failed)?.len() > MAX_DOCUMENT as u64 {
            return Err(reqsign_core::Error::unexpected(format!("{path} is too long")));
        }
        tokio::fs::read(path).await.map_err(failed)
    }
}

#[derive(Debug)]
struct Programs {
    troubles: Troubles,
}

impl CommandExecute for Programs {
    async fn command_execute(&self, program: &str, arguments: &[&str]) -> reqsign_core::Result<CommandOutput> {
        let failed = |why: String| self.troubles.note(format!("credential_process {program:?} {why}"));
        let child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            // It may say what no log is to know.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        match tokio::time::timeout(PROGRAM_TIME, child).await {
            Err(_) => Err(failed("did not finish".to_owned())),
            Ok(Err(error)) => Err(failed(format!("cannot be started: {error}"))),
            Ok(Ok(output)) if !output.status.success() => Err(failed(format!("failed ({})", output.status))),
            Ok(Ok(output)) => Ok(CommandOutput {
                status: 0,
                stdout: output.stdout,
                stderr: Vec::new(),
            }),
        }
    }
}

struct Sender {
    transport: Transport,
    troubles: Troubles,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl HttpSend for Sender {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string())
            .map_err(|_| self.troubles.note("an address for credentials is malformed".to_owned()))?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let near = is_near(&host);
        // As the AWS command line: a key travels in the clear only inside the machine.
        if url.scheme() != "https" && !near {
            let what = format!("credentials are not asked for over plain http at {host}");
            return Err(self.troubles.note(what));
        }
        let request = Request {
            body: if body.is_empty() {
                Body::Empty
            } else {
                Body::Bytes(body)
            },
            headers: parts.headers,
            ..Request::new(parts.method, url, "ask for a key").replay(Replay::Once)
        };
        let patience = if near { METADATA_TIME } else { SERVICE_TIME };
        let answer = self.transport.send_once(&request, patience, MAX_DOCUMENT).await;
        let answer = answer.map_err(|error| self.troubles.note(error.message().to_owned()))?;
        if !answer.status.is_success() {
            self.troubles
                .note(format!("{host} answered {}", answer.status.as_u16()));
        }
        let mut response = http::Response::new(answer.body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

/// Whether an address is this machine, or the services that clouds put beside it (link-local, and Amazon's own IPv6 ones).
fn is_near(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.segments()[..2] == [0xfd00, 0xec2],
        Err(_) => host == "localhost",
    }
}

/// The daemon's environment, and before it what the person's process handed over.
struct Environment(GivenSecrets);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment(***)")
    }
}

impl Env for Environment {
    fn var(&self, name: &str) -> Option<String> {
        match self.0.get(name) {
            Some(value) => Some(value.expose_secret().to_owned()),
            None => OsEnv.var(name),
        }
    }

    fn vars(&self) -> HashMap<String, String> {
        let mut all = OsEnv.vars();
        let given = self.0.iter();
        all.extend(given.map(|(name, value)| (name.to_owned(), value.expose_secret().to_owned())));
        all
    }

    fn home_dir(&self) -> Option<PathBuf> {
        OsEnv.home_dir()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_travels_in_the_clear_only_inside_the_machine() {
        for near in [
            "127.0.0.1",
            "169.254.170.2",
            "169.254.169.254",
            "[::1]",
            "[fd00:ec2::23]",
            "localhost",
        ] {
            assert!(is_near(near), "{near}");
        }
        for far in ["10.0.0.1", "example.org", "[fd00:bad::1]", "localhost.example.org", ""] {
            assert!(!is_near(far), "{far}");
        }
    }
}
