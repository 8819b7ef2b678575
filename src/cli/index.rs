//! `index`: the names that keymount keeps for a remote at dStor, written down and taken in.

use std::io::{Read, Write};
use std::path::Path;

use super::arguments::{IndexArguments, IndexCommand};
use super::exit::{Exit, Failure};
use super::mount::resolve;
use super::secrets_of;
use crate::config::ResolvedRemote;
use crate::daemon::{LONGEST_INDEX, OpenIndex, Told, open_index};
use crate::model::{Taken, Taking};
use crate::paths::Paths;

pub async fn run(arguments: &IndexArguments, paths: &Paths) -> Result<Exit, Failure> {
    match &arguments.command {
        IndexCommand::Export { source, file } => {
            let (remote, index) = open(source, paths).await?;
            export(&remote, &index, file.as_deref()).await
        }
        IndexCommand::Import { source, file, replace } => {
            let text = read(file)?;
            let (remote, index) = open(source, paths).await?;
            let taking = if *replace { Taking::Replace } else { Taking::Merge };
            let taken = index
                .import(&text, taking)
                .map_err(|error| Failure::from(error).about(file.display()))?;
            println!("{}: {}", remote.name, summary(taken));
            tell(&remote, &index.tell_others().await);
            Ok(Exit::Done)
        }
    }
}

async fn open(source: &str, paths: &Paths) -> Result<(ResolvedRemote, OpenIndex), Failure> {
    let (_, remote) = resolve(source, paths)?;
    if !remote.path.is_root() {
        let why = format!(
            "an index is of a whole remote; give {:?} without a directory",
            remote.name
        );
        return Err(Failure::new(Exit::Usage, why));
    }
    let index = open_index(&remote, paths, &secrets_of(&remote))
        .await
        .map_err(|error| Failure::from(error).about(&remote.name))?;
    Ok((remote, index))
}

async fn export(remote: &ResolvedRemote, index: &OpenIndex, file: Option<&Path>) -> Result<Exit, Failure> {
    tell(remote, &index.tell_others().await);
    let text = index.export()?;
    match file {
        None => std::io::stdout().write_all(text.as_bytes())?,
        Some(file) => {
            let file = crate::paths::absolute(file);
            write(&file, &text).map_err(|error| Failure::from(error).about(file.display()))?;
            println!("{}: {} is written", remote.name, file.display());
        }
    }
    Ok(Exit::Done)
}

/// The whole file or the one that was there before.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(())
}

fn read(file: &Path) -> Result<String, Failure> {
    let about = |error: std::io::Error| Failure::from(error).about(file.display());
    let input: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(file).map_err(about)?),
    };
    let mut text = String::new();
    input.take(LONGEST_INDEX + 1).read_to_string(&mut text).map_err(about)?;
    if text.len() as u64 > LONGEST_INDEX {
        let why = format!("{} is longer than {LONGEST_INDEX} bytes", file.display());
        return Err(Failure::new(Exit::Other, why));
    }
    Ok(text)
}

fn summary(taken: Taken) -> String {
    let parts: Vec<String> = [
        (taken.added, "added"),
        (taken.replaced, "replaced"),
        (taken.removed, "removed"),
        (taken.kept, "other than in the list and kept"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    match parts.is_empty() {
        true => "nothing to change".to_owned(),
        false => parts.join(", "),
    }
}

fn tell(remote: &ResolvedRemote, told: &Told) {
    if let Told::Later(why) = told {
        eprintln!(
            "keymount: {}: the shared index cannot be reached, so other machines' changes are missing, and they see \
             yours after the next mount: {why}",
            remote.name
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_told() {
        assert_eq!(summary(Taken::default()), "nothing to change");
        let taken = Taken {
            added: 2,
            kept: 1,
            ..Taken::default()
        };
        assert_eq!(summary(taken), "2 added, 1 other than in the list and kept");
    }
}
