//! `remote show`: how a remote is configured. Secrets are told by their places, and of commands only the program.

use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::{Map, Value as Json};
use toml::Value;

use crate::cli::exit::{Exit, Failure};
use crate::cli::{environment, printable};
use crate::config::Config;
use crate::control::Daemons;
use crate::paths::Paths;

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    provider: &'static str,
    /// Where requests go, whether that is written or the provider's own.
    endpoint: String,
    method: &'static str,
    /// The remote's table as it is written, without arguments of commands.
    written: Json,
    /// Where it is mounted now.
    mounted_on: Vec<std::path::PathBuf>,
}

pub async fn run(name: &str, json: bool, paths: &Paths) -> Result<Exit, Failure> {
    let config = Config::load(paths)?;
    let remote = config.resolve(name, &environment)?;
    let written = Config::written(paths, &remote.name)?;
    let daemons = Daemons::find(paths).await?;
    let mounts = daemons.mounts().filter(|(_, mount)| mount.remote_name() == remote.name);
    let shown = Shown {
        provider: remote.provider.kind(),
        endpoint: remote.endpoint.to_string(),
        method: remote.provider.method(),
        written: without_arguments(&Value::Table(written)),
        mounted_on: mounts.map(|(_, mount)| mount.directory.clone()).collect(),
        name: remote.name,
    };
    if json {
        let text = serde_json::to_string_pretty(&shown)
            .map_err(|error| Failure::new(Exit::Other, format!("the remote cannot be written: {error}")))?;
        println!("{text}");
        return Ok(Exit::Done);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.add_row(["name", &shown.name]);
    let mut rows = Vec::new();
    flatten("", &shown.written, &mut rows);
    if !rows.iter().any(|(key, _)| key == "endpoint") {
        rows.push((
            "endpoint".to_owned(),
            format!("{} (the provider's own)", shown.endpoint),
        ));
    }
    // What it is, then how one gets in, then the rest.
    rows.sort_by_key(|(key, _)| match key.split('.').next() {
        Some("provider") => 0,
        Some("auth") => 2,
        Some("keys_auth") => 3,
        Some("options") => 4,
        _ => 1,
    });
    for (key, value) in rows {
        table.add_row([key, printable(&value)]);
    }
    for directory in &shown.mounted_on {
        table.add_row(["mounted on".to_owned(), directory.display().to_string()]);
    }
    println!("{table}");
    Ok(Exit::Done)
}

fn without_arguments(value: &Value) -> Json {
    match value {
        Value::Table(table) => Json::Object(
            table
                .iter()
                .map(|(key, value)| {
                    let shown = match value {
                        Value::Array(words) if key == "command" => match words.as_slice() {
                            [only] => Json::Array(vec![without_arguments(only)]),
                            [program, ..] => Json::Array(vec![without_arguments(program), "…".into()]),
                            [] => Json::Array(Vec::new()),
                        },
                        value => without_arguments(value),
                    };
                    (key.clone(), shown)
                })
                .collect::<Map<_, _>>(),
        ),
        Value::Array(values) => values.iter().map(without_arguments).collect(),
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(truth) => (*truth).into(),
        Value::Datetime(time) => time.to_string().into(),
    }
}

/// Keys as they are typed after `--set`; a secret source is one value.
fn flatten(above: &str, value: &Json, rows: &mut Vec<(String, String)>) {
    const SOURCES: [&str; 6] = ["env", "file", "command", "systemd", "stored", "keyring"];
    match value {
        Json::Object(table) => match table.iter().next() {
            Some((form, place)) if table.len() == 1 && SOURCES.contains(&form.as_str()) => {
                rows.push((above.to_owned(), format!("{{ {form} = {place} }}")));
            }
            _ => {
                for (key, value) in table {
                    let name = if above.is_empty() {
                        key.clone()
                    } else {
                        format!("{above}.{key}")
                    };
                    flatten(&name, value, rows);
                }
            }
        },
        Json::String(text) => rows.push((above.to_owned(), text.clone())),
        other => rows.push((above.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_arguments_are_not_shown() {
        let table: toml::Table = "provider = \"storra\"\nread_only = true\n[auth]\nmethod = \"api-key\"\n\
             key = { command = [\"echo\", \"canary\"] }\n[options]\numask = \"077\"\n"
            .parse()
            .unwrap();
        let shown = without_arguments(&Value::Table(table));
        assert!(!shown.to_string().contains("canary"), "{shown}");
        let mut rows = Vec::new();
        flatten("", &shown, &mut rows);
        let row = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert!(
            rows.contains(&row("auth.key", "{ command = [\"echo\",\"…\"] }")),
            "{rows:?}"
        );
        assert!(rows.contains(&row("options.umask", "077")) && rows.contains(&row("read_only", "true")));
    }
}
