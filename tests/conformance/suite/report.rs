//! The tables of provider, capability, case and result, for people: one file, written anew as each provider's run ends.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use keymount::provider::{AttributeSupport, Capabilities, LabelSupport, Reads};

/// How a case ended with a provider.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    NotApplicable(&'static str),
    Skipped(&'static str),
    Failed,
}

/// Each case's group, name and end.
type Results = Vec<(&'static str, &'static str, Verdict)>;

/// One provider's run.
#[derive(Clone)]
struct Run {
    capabilities: Capabilities,
    results: Results,
}

type Runs = BTreeMap<&'static str, Run>;

/// All runs of this process so far.
static RUNS: Mutex<Runs> = Mutex::new(BTreeMap::new());

/// The width of a table's first column.
const FIRST: usize = 56;

/// Adds a provider's results, prints them for whom asks with `--nocapture`, and writes the tables of all.
pub fn add(label: &'static str, capabilities: Capabilities, results: Results) {
    let mut runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
    let run = Run { capabilities, results };
    println!("{}", tables(&BTreeMap::from([(label, run.clone())])));
    runs.insert(label, run);
    // Written while locked: the last one to write has all.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance.txt");
    std::fs::write(&path, tables(&runs)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn tables(runs: &Runs) -> String {
    let mut text = counts(runs);
    text += "\n";
    for (letter, label) in ('a'..='z').zip(runs.keys()) {
        let _ = writeln!(text, "  {letter}  {label}");
    }
    declared(&mut text, runs);
    groups(&mut text, runs);
    cases(&mut text, runs);
    text += "\n";
    for ((sign, case, why), letters) in reasons(runs) {
        let _ = writeln!(text, "{sign} {case}: {why} ({letters})");
    }
    text
}

/// The head of a table: what it is, and a letter for each provider.
fn head(text: &mut String, runs: &Runs, title: &str, width: usize) {
    let _ = write!(text, "\n{title:<FIRST$}");
    for letter in ('a'..='z').take(runs.len()) {
        let _ = write!(text, " {letter:>width$}");
    }
    text.push('\n');
}

fn row(text: &mut String, first: &str, width: usize, cells: impl Iterator<Item = String>) {
    let _ = write!(text, "{first:<FIRST$}");
    for cell in cells {
        let _ = write!(text, " {cell:>width$}");
    }
    text.push('\n');
}

/// What each provider says of itself; what it cannot is not asked of it.
fn declared(text: &mut String, runs: &Runs) {
    const WIDTH: usize = 6;
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let sized = |size: Option<u64>| match size {
        None => "-".to_owned(),
        Some(size) if size >> 40 > 0 => format!("{}T", size >> 40),
        Some(size) if size >> 30 > 0 => format!("{}G", size >> 30),
        Some(size) => format!("{}M", size >> 20),
    };
    head(text, runs, "declared capability", WIDTH);
    let mut line = |first: &str, cell: &dyn Fn(&Capabilities) -> String| {
        row(text, first, WIDTH, runs.values().map(|run| cell(&run.capabilities)));
    };
    line("parts of a file can be read", &|it| yes(it.reads == Reads::Ranges));
    line("files can move to another directory", &|it| yes(it.move_files));
    line("directories can be renamed", &|it| yes(it.rename_directories));
    line("labels are kept", &|it| {
        match it.labels {
            LabelSupport::Stored => "yes",
            LabelSupport::Visibility(_) => "one",
            LabelSupport::None => "no",
        }
        .to_owned()
    });
    line("attributes of files are kept", &|it| {
        match it.attributes {
            AttributeSupport::Stored => "yes",
            AttributeSupport::WithContent => "sent",
            AttributeSupport::None => "no",
        }
        .to_owned()
    });
    line("the largest file, in bytes", &|it| sized(it.max_file_size));
    line("the longest name, in characters", &|it| {
        it.max_name_chars.map_or("-".to_owned(), |chars| chars.to_string())
    });
}

/// How many of the cases that apply have passed, for each part of what a provider can.
fn groups(text: &mut String, runs: &Runs) {
    const WIDTH: usize = 6;
    head(text, runs, "passed of those that apply", WIDTH);
    let mut groups: Vec<&str> = Vec::new();
    for (group, ..) in runs.values().flat_map(|run| &run.results) {
        if !groups.contains(group) {
            groups.push(group);
        }
    }
    for group in groups {
        let cell = |run: &Run| {
            let of = |sign| {
                let all = run.results.iter().filter(|(own, ..)| *own == group);
                all.filter(|(.., verdict)| verdict.sign() == sign).count()
            };
            let (passed, others) = (of('+'), of('s') + of('F'));
            match passed + others {
                0 => "-".to_owned(),
                all => format!("{passed}/{all}"),
            }
        };
        row(text, group, WIDTH, runs.values().map(cell));
    }
}

fn cases(text: &mut String, runs: &Runs) {
    head(text, runs, "+ passed  - not applicable  s skipped  F FAILED", 1);
    let cases = runs.values().next().into_iter().flat_map(|run| &run.results);
    for (number, (_, case, _)) in cases.enumerate() {
        let signs = runs.values().map(|run| run.results[number].2.sign().to_string());
        row(text, case, 1, signs);
    }
}

/// Why cases weren't run to their end, each reason once with the letters of its providers.
fn reasons(runs: &Runs) -> BTreeMap<(char, &'static str, &'static str), String> {
    let mut reasons: BTreeMap<_, String> = BTreeMap::new();
    for (letter, run) in ('a'..='z').zip(runs.values()) {
        for (_, case, verdict) in &run.results {
            if let Verdict::NotApplicable(why) | Verdict::Skipped(why) = verdict {
                reasons.entry((verdict.sign(), *case, *why)).or_default().push(letter);
            }
        }
    }
    reasons
}

/// The first line, which `scripts/test` shows.
fn counts(runs: &Runs) -> String {
    let count = |sign| {
        let all = runs.values().flat_map(|run| &run.results);
        all.filter(|(.., verdict)| verdict.sign() == sign).count()
    };
    format!(
        "{} providers: {} cases passed, {} not applicable, {} skipped, {} failed\n",
        runs.len(),
        count('+'),
        count('-'),
        count('s'),
        count('F')
    )
}

impl Verdict {
    fn sign(self) -> char {
        match self {
            Self::Passed => '+',
            Self::NotApplicable(_) => '-',
            Self::Skipped(_) => 's',
            Self::Failed => 'F',
        }
    }
}
