//! `bench`: how fast a remote is over this link, as a table or as JSON.

use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::arguments::BenchArguments;
use super::exit::{Exit, Failure};
use super::mount::resolve;
use super::{printable, secrets_of};
use crate::daemon::{Figures, MeasureSettings, Measured, Outcome, Work, Writes, measure};
use crate::paths::Paths;

/// How often the bar moves.
const MOVE_EVERY: Duration = Duration::from_millis(200);

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    remote: &'a str,
    file: Option<File<'a>>,
    works: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct File<'a> {
    path: &'a str,
    bytes: u64,
}

/// Either `skipped` or all the others.
#[derive(Debug, Serialize)]
struct Row {
    work: &'static str,
    /// Why it wasn't measured.
    skipped: Option<String>,
    operations: Option<u64>,
    bytes: Option<u64>,
    seconds: Option<f64>,
    operations_per_second: Option<f64>,
    bytes_per_second: Option<f64>,
    /// Half of the operations took no longer, in milliseconds.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

pub async fn run(arguments: &BenchArguments, paths: &Paths) -> Result<Exit, Failure> {
    let (_, remote) = resolve(&arguments.source, paths)?;
    let label = remote.label();
    let settings = MeasureSettings {
        file: arguments.file.clone(),
        time: Duration::from_secs(arguments.seconds.into()),
        writes: if arguments.write { Writes::Cleaned } else { Writes::None },
    };
    let cancelled = CancellationToken::new();
    let bar = bar(settings.time);
    let given = secrets_of(&remote);
    let measuring = measure(&remote, paths, &given, &settings, &cancelled, |work| {
        bar.set_message(words(work));
    });
    let measured = {
        let begin = Instant::now();
        let mut measuring = std::pin::pin!(measuring);
        let mut moves = tokio::time::interval(MOVE_EVERY);
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            tokio::select! {
                measured = measuring.as_mut() => break measured,
                _ = interrupted.as_mut(), if !cancelled.is_cancelled() => cancelled.cancel(),
                _ = moves.tick() => bar.set_position(begin.elapsed().as_millis() as u64),
            }
        }
    };
    bar.finish_and_clear();
    let measured = measured.map_err(|error| Failure::from(error).about(&label))?;
    if let Some((folder, error)) = &measured.left_behind {
        eprintln!("keymount: {label}: the directory {folder} could not be removed: {error}; remove it yourself");
    }
    if cancelled.is_cancelled() {
        return Err(Failure::new(Exit::Other, "cancelled; what was written is removed").about(&label));
    }
    if arguments.json {
        let text = serde_json::to_string_pretty(&document(&label, &measured))
            .map_err(|error| Failure::new(Exit::Other, format!("the figures cannot be written: {error}")))?;
        println!("{text}");
    } else {
        print(&label, &measured);
    }
    Ok(if measured.left_behind.is_some() {
        Exit::Other
    } else {
        Exit::Done
    })
}

fn bar(time: Duration) -> ProgressBar {
    let bar = ProgressBar::new(time.as_millis() as u64);
    // A template that cannot be read would be a defect; the plain bar does.
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message("looking for a file");
    bar
}

fn words(work: Work) -> &'static str {
    match work {
        Work::Request => "a small request",
        Work::Sequential => "reading on, cold",
        Work::RandomOne => "random 4 KiB, one at a time",
        Work::RandomSixteen => "random 4 KiB, 16 at a time",
        Work::SmallFiles => "small files, one after the other",
        Work::LargeWrites => "writing files of 4 MiB",
        Work::SmallWrites => "writing files of 4 KiB",
    }
}

fn key(work: Work) -> &'static str {
    match work {
        Work::Request => "request",
        Work::Sequential => "cold_sequential",
        Work::RandomOne => "cold_random_4k_1",
        Work::RandomSixteen => "cold_random_4k_16",
        Work::SmallFiles => "small_files",
        Work::LargeWrites => "write_4m",
        Work::SmallWrites => "write_4k",
    }
}

fn per_second(count: u64, figures: &Figures) -> f64 {
    count as f64 / figures.elapsed.as_secs_f64().max(1e-9)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn document<'a>(remote: &'a str, measured: &'a Measured) -> Document<'a> {
    let row = |(work, outcome): &(Work, Outcome)| {
        let done = match outcome {
            Outcome::Done(figures) => Some(figures),
            Outcome::Skipped(_) => None,
        };
        Row {
            work: key(*work),
            skipped: match outcome {
                Outcome::Skipped(why) => Some(why.clone()),
                Outcome::Done(_) => None,
            },
            operations: done.map(|figures| figures.operations),
            bytes: done.map(|figures| figures.bytes),
            seconds: done.map(|figures| figures.elapsed.as_secs_f64()),
            operations_per_second: done.map(|figures| per_second(figures.operations, figures)),
            bytes_per_second: done.map(|figures| per_second(figures.bytes, figures)),
            p50_ms: done.map(|figures| milliseconds(figures.median)),
            p99_ms: done.map(|figures| milliseconds(figures.slowest)),
        }
    };
    Document {
        remote,
        file: measured.file.as_ref().map(|(path, bytes)| File { path, bytes: *bytes }),
        works: measured.works.iter().map(row).collect(),
    }
}

fn print(label: &str, measured: &Measured) {
    match &measured.file {
        Some((path, bytes)) => println!("{label}, reading {} ({})\n", printable(path), HumanBytes(*bytes)),
        None => println!("{label}\n"),
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["WORK", "SPEED", "A SECOND", "HALF WITHIN", "99 % WITHIN"]);
    let mut skipped = Vec::new();
    for (work, outcome) in &measured.works {
        match outcome {
            Outcome::Skipped(why) => skipped.push(format!("{}: {why}", words(*work))),
            Outcome::Done(figures) => {
                let speed = match figures.bytes {
                    0 => String::new(),
                    bytes => format!("{}/s", HumanBytes(per_second(bytes, figures) as u64)),
                };
                table.add_row([
                    words(*work).to_owned(),
                    speed,
                    format!("{:.1}", per_second(figures.operations, figures)),
                    format!("{:.1} ms", milliseconds(figures.median)),
                    format!("{:.1} ms", milliseconds(figures.slowest)),
                ]);
            }
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    if !skipped.is_empty() {
        println!("\nNot measured:");
        for line in skipped {
            println!("  {}", printable(&line));
        }
    }
}
