//! The table of provider, case and result, for people: one file, written anew as each provider's run ends.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// How a case ended with a provider.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    NotApplicable(&'static str),
    Skipped(&'static str),
    Failed,
}

type Results = Vec<(&'static str, Verdict)>;

/// All runs of this process so far.
static RUNS: Mutex<BTreeMap<&'static str, Results>> = Mutex::new(BTreeMap::new());

/// Adds a provider's results, prints them for whom asks with `--nocapture`, and writes the table of all.
pub fn add(label: &'static str, results: Results) {
    let mut runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{}", table(&BTreeMap::from([(label, results.clone())])));
    runs.insert(label, results);
    // Written while locked: the last one to write has all.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance.txt");
    std::fs::write(&path, table(&runs)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn table(runs: &BTreeMap<&'static str, Results>) -> String {
    let mut text = counts(runs);
    let columns: String = ('a'..='z')
        .take(runs.len())
        .map(|letter| format!(" {letter}"))
        .collect();
    text += "\n";
    for (letter, label) in ('a'..='z').zip(runs.keys()) {
        let _ = writeln!(text, "  {letter}  {label}");
    }
    let cases = runs.values().next().into_iter().flatten().map(|(case, _)| *case);
    let _ = writeln!(
        text,
        "\n{:<56}{columns}",
        "+ passed  - not applicable  s skipped  F FAILED"
    );
    for (row, case) in cases.enumerate() {
        let signs: String = runs
            .values()
            .map(|results| format!(" {}", results[row].1.sign()))
            .collect();
        let _ = writeln!(text, "{case:<56}{signs}");
    }
    text += "\n";
    for ((sign, case, why), letters) in reasons(runs) {
        let _ = writeln!(text, "{sign} {case}: {why} ({letters})");
    }
    text
}

/// Why cases weren't run to their end, each reason once with the letters of its providers.
fn reasons(runs: &BTreeMap<&'static str, Results>) -> BTreeMap<(char, &'static str, &'static str), String> {
    let mut reasons: BTreeMap<_, String> = BTreeMap::new();
    for (letter, results) in ('a'..='z').zip(runs.values()) {
        for (case, verdict) in results {
            if let Verdict::NotApplicable(why) | Verdict::Skipped(why) = verdict {
                reasons.entry((verdict.sign(), *case, *why)).or_default().push(letter);
            }
        }
    }
    reasons
}

/// The first line, which `scripts/test` shows.
fn counts(runs: &BTreeMap<&'static str, Results>) -> String {
    let count = |sign| {
        let all = runs.values().flatten();
        all.filter(|(_, verdict)| verdict.sign() == sign).count()
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
