//! `cache`: what was read and is kept on disk, shown and emptied. A cache that a daemon uses is emptied by that daemon.

use std::collections::BTreeMap;
use std::path::PathBuf;

use comfy_table::{Table, presets};
use indicatif::HumanBytes;
use serde::Serialize;

use super::arguments::{CacheArguments, CacheCommand};
use super::exit::{Exit, Failure};
use crate::config::Config;
use crate::control::{Daemon, Daemons};
use crate::daemon::{cache_survey, empty_cache};
use crate::paths::Paths;

/// One folder.
#[derive(Debug, Serialize)]
struct Folder {
    folder: PathBuf,
    /// What it takes on disk.
    bytes: u64,
    /// Versions of files of which at least a part is there.
    versions: u64,
    /// In bytes; `None` where no daemon says one.
    limit: Option<u64>,
    /// The process that uses it.
    daemons: Vec<u32>,
}

/// What emptying one folder came to.
#[derive(Debug, Serialize)]
struct Emptying {
    folder: PathBuf,
    freed: u64,
    /// What open files need.
    kept: u64,
}

pub async fn run(arguments: &CacheArguments, paths: &Paths) -> Result<Exit, Failure> {
    let daemons = Daemons::find(paths).await?;
    let folders = folders(&daemons, paths)?;
    match arguments.command {
        CacheCommand::Show { json } => show(&folders, json),
        CacheCommand::Clear { json } => clear(folders, &daemons, json).await,
    }
}

/// The usual one, those of mounts, and those that a remote is configured to use.
fn folders(daemons: &Daemons, paths: &Paths) -> Result<Vec<Folder>, Failure> {
    let mut known: BTreeMap<PathBuf, (Option<u64>, Vec<u32>)> = BTreeMap::new();
    known.entry(paths.blocks()).or_default();
    // What cannot be read tells of no other folder.
    if let Ok(config) = Config::load(paths) {
        for (_, remote) in config.remotes() {
            if let Some(folder) = &remote.options.cache_dir {
                known.entry(paths.with_cache(folder).blocks()).or_default();
            }
        }
    }
    for (daemon, mount) in daemons.mounts().filter(|(daemon, _)| daemon.is_own()) {
        if let Some(folder) = &mount.cache.folder {
            let (limit, users) = known.entry(folder.clone()).or_default();
            *limit = (*limit).max(mount.cache.disk_limit);
            if !users.contains(&daemon.report.pid) {
                users.push(daemon.report.pid);
            }
        }
    }
    known
        .into_iter()
        .map(|(folder, (limit, daemons))| {
            let survey = cache_survey(&folder)?;
            Ok(Folder {
                bytes: survey.bytes,
                versions: survey.versions,
                folder,
                limit,
                daemons,
            })
        })
        .collect()
}

fn show(folders: &[Folder], json: bool) -> Result<Exit, Failure> {
    if json {
        return print(folders);
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["FOLDER", "SIZE", "FILES", "LIMIT", "USED BY"]);
    for folder in folders {
        let users: Vec<String> = folder.daemons.iter().map(|pid| format!("daemon {pid}")).collect();
        table.add_row([
            folder.folder.display().to_string(),
            HumanBytes(folder.bytes).to_string(),
            folder.versions.to_string(),
            folder
                .limit
                .map_or("-".to_owned(), |limit| HumanBytes(limit).to_string()),
            if users.is_empty() {
                "nobody".to_owned()
            } else {
                users.join(", ")
            },
        ]);
    }
    println!("{table}");
    Ok(Exit::Done)
}

async fn clear(folders: Vec<Folder>, daemons: &Daemons, json: bool) -> Result<Exit, Failure> {
    let mut done = Vec::new();
    let mut failure = None;
    for Folder {
        folder,
        bytes,
        daemons: users,
        ..
    } in folders
    {
        let of = |daemon: &&Daemon| users.contains(&daemon.report.pid) && daemon.is_own();
        let emptied = if users.is_empty() {
            match empty_cache(&folder) {
                Ok(Some(freed)) => Ok((freed, 0)),
                Ok(None) => Err(Failure::new(
                    Exit::Busy,
                    format!(
                        "{} is used by a daemon that does not answer; nothing was cleared in it",
                        folder.display()
                    ),
                )),
                Err(error) => Err(error.into()),
            }
        } else {
            let mut outcome = Ok(());
            for daemon in daemons.running.iter().filter(of) {
                outcome = outcome.and(daemon.empty_caches().await.map(drop));
            }
            let left = cache_survey(&folder)?.bytes;
            outcome
                .map(|()| (bytes.saturating_sub(left), left))
                .map_err(|error| Failure::from(error).about(folder.display()))
        };
        match emptied {
            Ok((freed, kept)) => done.push(Emptying { folder, freed, kept }),
            Err(failed) => failure = failure.or(Some(failed)),
        }
    }
    if json {
        print(&done)?;
    } else {
        for Emptying { folder, freed, kept } in &done {
            let stays = match kept {
                0 => String::new(),
                kept => format!("; {} stay, which open files need", HumanBytes(*kept)),
            };
            println!("{}: {} cleared{stays}", folder.display(), HumanBytes(*freed));
        }
    }
    failure.map_or(Ok(Exit::Done), Err)
}

fn print<T: Serialize>(document: &[T]) -> Result<Exit, Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::new(Exit::Other, format!("the list cannot be written: {error}")))?;
    println!("{text}");
    Ok(Exit::Done)
}
