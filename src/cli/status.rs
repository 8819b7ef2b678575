//! `status`: what is mounted and how it is, as a table or as JSON.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{HumanBytes, HumanDuration};
use serde::Serialize;

use super::arguments::StatusArguments;
use super::exit::{Exit, Failure};
use super::{locate, printable};
use crate::control::{DaemonReport, Daemons, ErrorReport, Known, MountReport, MountState, seconds};
use crate::daemon::{MountPointState, keymount_mounts, mount_point_state};
use crate::paths::Paths;

const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How long a mount without a daemon has to say whether it is alive.
const LOOK: Duration = Duration::from_secs(2);
/// A key that isn't replaced for so long is worth a word: 90 days.
const OLD_KEY: Duration = Duration::from_secs(90 * 86_400);
/// How many of the latest errors the table shows.
const ERRORS: usize = 5;

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Status {
    daemons: Vec<DaemonReport>,
    /// Mounts that nobody serves any more.
    dead: Vec<PathBuf>,
    /// Sockets of daemons that don't answer.
    silent: Vec<PathBuf>,
}

pub async fn run(arguments: &StatusArguments, paths: &Paths) -> Result<Exit, Failure> {
    if !arguments.watch {
        let status = gather(arguments, paths).await?;
        print!("{}", render(&status, arguments.json)?);
        return Ok(Exit::Done);
    }
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let status = gather(arguments, paths).await?;
        // Clears the screen and goes to its first line (ECMA-48).
        print!("\x1b[2J\x1b[H{}", render(&status, false)?);
        tokio::select! {
            _ = &mut interrupted => return Ok(Exit::Done),
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
    }
}

async fn gather(arguments: &StatusArguments, paths: &Paths) -> Result<Status, Failure> {
    let daemons = Daemons::find(paths).await?;
    let mut dead = dead_mounts(&daemons).await;
    let mut reports: Vec<DaemonReport> = daemons.running.iter().map(|daemon| daemon.report.clone()).collect();
    if let Some(directory) = &arguments.directory {
        let wanted: Vec<PathBuf> = locate::mounts_at(&daemons, directory)
            .into_iter()
            .map(|(_, mount)| mount.directory.clone())
            .collect();
        let spellings = locate::spellings(directory);
        dead.retain(|path| spellings.contains(path));
        if wanted.is_empty() && dead.is_empty() {
            return Err(Failure::new(
                Exit::NotMounted,
                format!("keymount has nothing mounted on {}", directory.display()),
            ));
        }
        for report in &mut reports {
            report.mounts.retain(|mount| wanted.contains(&mount.directory));
        }
        reports.retain(|report| !report.mounts.is_empty());
    }
    let silent = match arguments.directory {
        Some(_) => Vec::new(),
        None => daemons.silent.into_iter().map(|socket| socket.path).collect(),
    };
    Ok(Status {
        daemons: reports,
        dead,
        silent,
    })
}

/// Mounts of ours in the kernel's table that belong to no running daemon and don't answer.
pub async fn dead_mounts(daemons: &Daemons) -> Vec<PathBuf> {
    let served: Vec<PathBuf> = daemons.mounts().map(|(_, mount)| mount.directory.clone()).collect();
    let mut dead = Vec::new();
    for directory in keymount_mounts().unwrap_or_default() {
        if served.contains(&directory) {
            continue;
        }
        let looked_at = directory.clone();
        let look = tokio::task::spawn_blocking(move || mount_point_state(&looked_at));
        let state = tokio::time::timeout(LOOK, look).await;
        if matches!(state, Ok(Ok(Ok(MountPointState::DeadKeymount)))) {
            dead.push(directory);
        }
    }
    dead
}

fn render(status: &Status, json: bool) -> Result<String, Failure> {
    if json {
        return serde_json::to_string_pretty(status)
            .map(|text| text + "\n")
            .map_err(|error| Failure::new(Exit::Other, format!("the status cannot be written: {error}")));
    }
    let mounts: Vec<&MountReport> = status.daemons.iter().flat_map(|daemon| &daemon.mounts).collect();
    let mut text = String::new();
    if mounts.is_empty() && status.dead.is_empty() && status.silent.is_empty() {
        text.push_str("nothing is mounted\n");
    }
    if !mounts.is_empty() {
        text.push_str(&table(&mounts).to_string());
        text.push('\n');
    }
    for directory in &status.dead {
        let shown = directory.display();
        text.push_str(&format!("{shown}: its daemon died; run: keymount umount {shown}\n"));
    }
    for socket in &status.silent {
        let shown = socket.display();
        text.push_str(&format!(
            "the daemon behind {shown} does not answer; its log may say why\n"
        ));
    }
    for mount in &mounts {
        for file in mount.pending.iter().filter(|file| file.error.is_some()) {
            let why = file.error.as_deref().unwrap_or_default();
            let directory = mount.directory.display();
            text.push_str(&format!("{directory}: {} is not at the provider: {why}\n", file.path));
        }
    }
    let now = seconds(SystemTime::now());
    for mount in &mounts {
        text.push_str(&old_key(mount, now).unwrap_or_default());
    }
    for mount in &mounts {
        for error in mount.last_errors.iter().rev().take(ERRORS) {
            text.push_str(&error_line(mount, error, now));
        }
    }
    Ok(text)
}

/// A warning about a key that nobody replaced for long, with how that is known.
fn old_key(mount: &MountReport, now: u64) -> Option<String> {
    let since = mount.credential.since?;
    let age = Duration::from_secs(now.checked_sub(since.at)?);
    if age < OLD_KEY {
        return None;
    }
    let date = jiff::Timestamp::from_second(i64::try_from(since.at).ok()?).ok()?;
    let date = date.strftime("%Y-%m-%d");
    let known = match since.known {
        Known::Made => format!("made on {date}, as the provider says"),
        Known::Stored => format!("stored on {date}"),
        Known::Changed => format!("its file was last changed on {date}"),
        Known::Seen => format!("seen here for the first time on {date}"),
    };
    Some(format!(
        "{}: the key of {} is {} days old ({known}); think of replacing it\n",
        mount.directory.display(),
        mount.remote_name(),
        age.as_secs() / 86_400
    ))
}

fn error_line(mount: &MountReport, error: &ErrorReport, now: u64) -> String {
    let ago = HumanDuration(Duration::from_secs(now.saturating_sub(error.at)));
    format!(
        "{}: {ago} ago: {}: {}\n",
        mount.directory.display(),
        if error.path.is_empty() { "/" } else { &error.path },
        error.message
    )
}

fn table(mounts: &[&MountReport]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["DIRECTORY", "REMOTE", "RIGHTS", "CREDENTIAL", "CACHE", "PENDING"]);
    for mount in mounts {
        let directory = match mount.state {
            MountState::Mounted | MountState::Ended => mount.directory.display().to_string(),
            MountState::Detached => format!("{} (unmounted, still in use)", mount.directory.display()),
            MountState::Finishing => format!("{} (unmounted, uploading)", mount.directory.display()),
        };
        let rights = if mount.read_only {
            format!("{} (read-only)", mount.rights)
        } else {
            mount.rights.clone()
        };
        table.add_row([
            directory,
            mount.remote.clone(),
            rights,
            credential(mount),
            HumanBytes(mount.cache.memory.saturating_add(mount.cache.disk)).to_string(),
            pending(mount),
        ]);
    }
    table
}

/// `token laptop, valid for 29 days, ends after 12 hours without use`; `api-key (sandbox), valid`; `oauth, valid for
/// 50 minutes, scopes files:read`.
fn credential(mount: &MountReport) -> String {
    let credential = &mount.credential;
    if credential.state == "anonymous" {
        return "none needed".to_owned();
    }
    let mut text = credential.method.clone();
    if let Some(key) = &credential.key {
        text.push_str(&format!(" {}", printable(&key.name)));
    }
    if let Some(environment) = &credential.environment {
        text.push_str(&format!(" ({})", printable(environment)));
    }
    text.push_str(", ");
    text.push_str(&match credential.state.as_str() {
        "expired" => "expired, retrying".to_owned(),
        "needs-login" if credential.is_kept() => {
            format!("needs login; run: keymount login {}", mount.remote_name())
        }
        "needs-login" => "needs login".to_owned(),
        state => state.to_owned(),
    });
    if let Some(until) = credential.until {
        let left = Duration::from_secs(until.saturating_sub(seconds(SystemTime::now())));
        text.push_str(&match credential.state.as_str() {
            "renewing" => format!(", the present one is valid for {}", HumanDuration(left)),
            _ => format!(" for {}", HumanDuration(left)),
        });
    }
    if let Some(key) = &credential.key {
        if let Some(limit) = key.idle_limit {
            let limit = HumanDuration(Duration::from_secs(limit));
            text.push_str(&format!(", ends after {limit} without use"));
        }
        if !key.addresses.is_empty() {
            text.push_str(&format!(", from {} only", printable(&key.addresses.join(" "))));
        }
    }
    if let Some(scopes) = &credential.scopes {
        text.push_str(&format!(", scopes {}", printable(scopes)));
    }
    text
}

fn pending(mount: &MountReport) -> String {
    match mount.pending.len() {
        0 => "-".to_owned(),
        1 => format!("1 file, {}", HumanBytes(mount.pending_bytes())),
        files => format!("{files} files, {}", HumanBytes(mount.pending_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{CacheReport, CredentialReport, KeyReport, PendingReport, RenewalReport, SinceReport};

    fn mount() -> MountReport {
        MountReport {
            id: 0,
            remote: "drive".into(),
            provider: "cludz".into(),
            endpoint: "https://x/".into(),
            directory: "/mnt/drive".into(),
            state: MountState::Mounted,
            read_only: true,
            rights: "r--".into(),
            credential: CredentialReport {
                method: "token".into(),
                state: "rejected".into(),
                until: None,
                variables: Vec::new(),
                environment: None,
                scopes: None,
                renewals: RenewalReport::default(),
                key: None,
                since: None,
                source: Some("env".into()),
            },
            cache: CacheReport::default(),
            pending: vec![PendingReport {
                path: "a.txt".into(),
                bytes: 2048,
                error: Some("too large".into()),
            }],
            last_errors: vec![ErrorReport {
                at: 0,
                path: "b.txt".into(),
                message: "no such token".into(),
            }],
        }
    }

    fn status(mounts: Vec<MountReport>) -> Status {
        Status {
            daemons: vec![DaemonReport {
                pid: 1,
                version: "0".into(),
                started: 0,
                log_file: None,
                mounts,
            }],
            dead: vec!["/mnt/dead".into()],
            silent: vec!["/run/daemon-7.sock".into()],
        }
    }

    #[test]
    fn everything_that_needs_a_person_is_in_the_table() {
        let text = render(&status(vec![mount()]), false).unwrap();
        for part in [
            "/mnt/drive",
            "r-- (read-only)",
            "token, rejected",
            "1 file, 2.00 KiB",
            "a.txt is not at the provider: too large",
            "b.txt: no such token",
            "keymount umount /mnt/dead",
            "/run/daemon-7.sock does not answer",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn what_the_provider_tells_of_a_key_is_shown() {
        let mut mount = mount();
        mount.credential.state = "valid".into();
        mount.credential.until = Some(seconds(SystemTime::now()) + 30 * 86_400 + 60);
        mount.credential.key = Some(KeyReport {
            id: "laptop".into(),
            name: "laptop".into(),
            idle_limit: Some(12 * 3600),
            addresses: vec!["10.0.0.0/8".into(), "::1".into()],
        });
        let text = credential(&mount);
        assert!(text.starts_with("token laptop, valid for 4 weeks"), "{text}");
        assert!(
            text.ends_with(", ends after 12 hours without use, from 10.0.0.0/8 ::1 only"),
            "{text}"
        );
        let json = render(&status(vec![mount]), true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            value["daemons"][0]["mounts"][0]["credential"]["key"]["idle_limit"],
            43_200
        );
    }

    #[test]
    fn the_environment_that_a_key_is_for_is_shown() {
        let mut mount = mount();
        mount.credential.method = "api-key".into();
        mount.credential.environment = Some("sandbox".into());
        assert_eq!(credential(&mount), "api-key (sandbox), rejected");
    }

    #[test]
    fn a_credential_that_is_renewed_says_how_it_is() {
        let mut mount = mount();
        mount.credential.method = "oauth".into();
        mount.credential.source = Some("stored".into());
        let mut shown = |state: &str, until: Option<u64>| {
            mount.credential.state = state.into();
            mount.credential.until = until.map(|left| seconds(SystemTime::now()) + left);
            credential(&mount)
        };
        assert_eq!(shown("expired", None), "oauth, expired, retrying");
        assert_eq!(
            shown("needs-login", None),
            "oauth, needs login; run: keymount login drive"
        );
        assert_eq!(
            shown("renewing", Some(125)),
            "oauth, renewing, the present one is valid for 2 minutes"
        );
        mount.credential.scopes = Some("files:read files:write".into());
        mount.credential.environment = Some("sandbox".into());
        mount.credential.state = "rejected".into();
        mount.credential.until = None;
        assert_eq!(
            credential(&mount),
            "oauth (sandbox), rejected, scopes files:read files:write"
        );
    }

    #[test]
    fn an_old_key_is_named_with_how_its_age_is_known() {
        const DAY: u64 = 86_400;
        let mut mount = mount();
        let mut shown = |days: u64, known| {
            mount.credential.since = Some(SinceReport { at: 1000 * DAY, known });
            old_key(&mount, (1000 + days) * DAY)
        };
        assert_eq!(shown(89, Known::Stored), None);
        let said = shown(90, Known::Stored).unwrap();
        assert_eq!(
            said,
            "/mnt/drive: the key of drive is 90 days old (stored on 1972-09-27); think of replacing it\n"
        );
        for (known, part) in [
            (Known::Made, "as the provider says"),
            (Known::Changed, "its file was last changed"),
            (Known::Seen, "seen here for the first time"),
        ] {
            assert!(shown(400, known).is_some_and(|said| said.contains(part)));
        }
        mount.credential.since = None;
        assert_eq!(old_key(&mount, u64::MAX), None);
    }

    #[test]
    fn json_has_the_same() {
        let text = render(&status(vec![mount()]), true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["daemons"][0]["mounts"][0]["credential"]["state"], "rejected");
        assert_eq!(value["dead"][0], "/mnt/dead");
    }

    #[test]
    fn nothing_mounted_is_said() {
        let empty = Status {
            daemons: Vec::new(),
            dead: Vec::new(),
            silent: Vec::new(),
        };
        assert_eq!(render(&empty, false).unwrap(), "nothing is mounted\n");
    }
}
