//! `man`: the manual pages, made from the same source as `--help`.

use std::io::Write;

use clap::{Command, CommandFactory};

use super::arguments::{Arguments, ManArguments};
use super::exit::{Exit, Failure};
use crate::config::suggestion;

pub fn run(arguments: &ManArguments) -> Result<Exit, Failure> {
    let mut program = Arguments::command();
    // Names of subcommands and their usage lines are made by this.
    program.build();
    if let Some(folder) = &arguments.to {
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
        clap_mangen::generate_to(Arguments::command(), folder).map_err(|error| failed(folder, &error))?;
        println!(
            "the pages are in {}; try: man -l {}",
            folder.display(),
            folder.join("keymount.1").display()
        );
        return Ok(Exit::Done);
    }
    let page = match &arguments.command {
        None => &program,
        Some(name) => subcommand(&program, name)?,
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page.clone()).render(&mut text)?;
    std::io::stdout().write_all(&text)?;
    Ok(Exit::Done)
}

fn subcommand<'a>(program: &'a Command, name: &str) -> Result<&'a Command, Failure> {
    program
        .find_subcommand(name)
        .filter(|command| !command.is_hide_set())
        .ok_or_else(|| {
            let known = program.get_subcommands().filter(|command| !command.is_hide_set());
            let names: Vec<&str> = known.map(Command::get_name).collect();
            Failure::new(
                Exit::Usage,
                format!("keymount has no command {name:?}{}", suggestion(name, names)),
            )
        })
}

fn failed(folder: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Other,
        format!("the pages cannot be written to {}: {error}", folder.display()),
    )
}
