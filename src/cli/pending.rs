//! `pending`: what is not at its provider, trying again, and copying it out.

use std::path::Path;

use comfy_table::{Table, presets};
use indicatif::HumanBytes;

use super::arguments::{PendingArguments, PendingCommand};
use super::exit::{Exit, Failure};
use super::{printable, refresh};
use crate::control::Daemons;
use crate::daemon::{KeptFile, Waiting, kept_files};
use crate::paths::Paths;

pub async fn run(arguments: &PendingArguments, paths: &Paths) -> Result<Exit, Failure> {
    match &arguments.command {
        PendingCommand::List { json } => list(*json, paths),
        PendingCommand::Retry { target } => retry(target.as_deref(), paths).await,
        PendingCommand::Export { folder, remote } => export(folder, remote.as_deref(), paths),
    }
}

fn list(json: bool, paths: &Paths) -> Result<Exit, Failure> {
    let files = kept_files(paths)?;
    if json {
        let text = serde_json::to_string_pretty(&files)
            .map_err(|error| Failure::new(Exit::Other, format!("the list cannot be written: {error}")))?;
        println!("{text}");
        return Ok(Exit::Done);
    }
    if files.is_empty() {
        println!("nothing is pending");
        return Ok(Exit::Done);
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["REMOTE", "FILE", "SIZE", "STATE"]);
    for file in &files {
        table.add_row([
            file.remote.clone(),
            printable(&file.path),
            HumanBytes(file.bytes).to_string(),
            state(file),
        ]);
    }
    println!("{table}");
    Ok(Exit::Done)
}

fn state(file: &KeptFile) -> String {
    let waits = match file.waiting {
        Waiting::Sending => "being sent",
        Waiting::NotShown => "not in the mount yet, tried again",
        Waiting::ForNextMount => "sent by the next mount",
        Waiting::HalfWritten => "half written; saved by the next mount",
    };
    match &file.error {
        Some(error) => format!("{waits}; last time: {}", printable(error)),
        None => waits.to_owned(),
    }
}

async fn retry(target: Option<&str>, paths: &Paths) -> Result<Exit, Failure> {
    let daemons = Daemons::find(paths).await?;
    let mounts = match target {
        Some(target) => refresh::targets(&daemons, target),
        None => daemons.mounts().collect(),
    };
    if mounts.is_empty() {
        let what = match target {
            Some(target) => format!("keymount has nothing mounted that is called {target:?}"),
            None => "nothing is mounted".to_owned(),
        };
        let why = format!("{what}; what is pending is sent by the next mount of its remote");
        return Err(Failure::new(Exit::NotMounted, why));
    }
    for (daemon, mount) in mounts {
        let report = daemon.retry(mount.id).await?;
        let shown = report.directory.display();
        match report.pending.len() {
            0 => println!("{shown}: nothing is pending"),
            1 => println!("{shown}: 1 file is tried again now"),
            files => println!("{shown}: {files} files are tried again now"),
        }
    }
    Ok(Exit::Done)
}

/// One that cannot be copied keeps none of the others back.
fn export(folder: &Path, remote: Option<&str>, paths: &Paths) -> Result<Exit, Failure> {
    let (mut count, mut failure) = (0, None);
    for file in kept_files(paths)? {
        if remote.is_some_and(|remote| remote != file.remote) {
            continue;
        }
        match file.export(folder) {
            Ok(Some(copy)) => println!("{}", copy.display()),
            // It was sent meanwhile.
            Ok(None) => continue,
            Err(error) => {
                if let Some(first) = failure.replace(Failure::from(error)) {
                    eprintln!("keymount: {first}");
                }
            }
        }
        count += 1;
    }
    if count == 0 {
        println!("nothing is pending");
    }
    failure.map_or(Ok(Exit::Done), Err)
}
