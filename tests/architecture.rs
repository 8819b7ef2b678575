//! Holds the house's order: which room may name which, who may name the kernel and the HTTP client, how long a file is.
//!
//! It reads the tokens of every file in `src/`, without comments and test code. It knows nothing of types: a room that
//! another one hands on by re-exporting is not seen.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Lines of a file that are not tests; beyond it a file does more than one thing.
const MAX_LINES: usize = 600;

/// A room is a top-level module; everybody may use `model`, and no other arrow exists than these.
const ARROWS: &[(&str, &str, &str)] = &[
    ("main", "cli", "main only hands the arguments over"),
    ("cli", "daemon", "`mount` becomes the daemon"),
    ("cli", "control", "the other commands ask the daemon"),
    ("cli", "config", "commands read and change the remotes"),
    ("cli", "paths", "commands find the socket, the state and the cache"),
    ("cli", "emulator", "`demo` starts the stand-ins"),
    ("cli", "auth", "`mount` and `refresh` hand environment secrets over"),
    (
        "cli",
        "provider",
        "`remote` names the providers there are and tries one",
    ),
    ("daemon", "fuse", "the daemon builds the stack and mounts it"),
    ("daemon", "fs", "the daemon builds the stack"),
    ("daemon", "outbox", "the daemon builds the stack and drains it"),
    ("daemon", "fetch", "the daemon builds the stack"),
    ("daemon", "cache", "the daemon builds the stack"),
    ("daemon", "state", "the daemon builds the stack"),
    ("daemon", "provider", "the daemon builds the stack"),
    ("daemon", "api", "the daemon builds the stack"),
    (
        "daemon",
        "auth",
        "the daemon builds the stack and refreshes credentials",
    ),
    ("daemon", "net", "the daemon builds the stack"),
    ("daemon", "control", "the daemon answers status, refresh and unmount"),
    ("daemon", "config", "the daemon reads the remotes"),
    (
        "daemon",
        "paths",
        "the daemon finds the socket, the state and the cache",
    ),
    ("control", "net", "commands reach the daemon by HTTP over its socket"),
    ("control", "paths", "the daemons' sockets are found"),
    (
        "control",
        "auth",
        "`refresh` carries secrets, `status` the credential's state",
    ),
    ("config", "auth", "a remote names its secret sources"),
    (
        "config",
        "provider",
        "a remote names its provider and that one's fields",
    ),
    ("config", "paths", "the configuration has a place on disk"),
    ("fuse", "fs", "each kernel request is one operation"),
    ("fs", "outbox", "closing a changed file hands it over for upload"),
    ("fs", "fetch", "a read asks for bytes"),
    ("fs", "cache", "a read may be answered without fetching"),
    ("fs", "state", "inode numbers and local attributes are kept"),
    ("fs", "provider", "lookups, listings and changes"),
    ("outbox", "cache", "what was uploaded need not be downloaded"),
    ("outbox", "state", "the journal says what is pending"),
    ("outbox", "provider", "uploads"),
    ("fetch", "cache", "blocks are kept"),
    ("fetch", "state", "what was read survives a restart"),
    ("fetch", "provider", "blocks are read"),
    ("provider", "api", "the only way a provider is called"),
    ("provider", "auth", "a provider says where its token goes"),
    ("provider", "net", "requests, answers and what a refusal means"),
    ("api", "auth", "a request gets its credential"),
    ("api", "net", "a request is sent"),
    ("auth", "net", "a credential is a part of a request"),
];

/// The room that everybody may use and that uses nobody.
const GROUND: &str = "model";

/// Where the HTTP library's vocabulary may be used, and which words of it; `net` may use all.
const HTTP_ROOMS: &[&str] = &["provider", "api", "auth"];
const HTTP_WORDS: &[&str] = &["Url", "Method", "StatusCode", "header"];

/// The adapter of the library that speaks S3, and the crates that only it names.
const S3_ADAPTER: &str = "provider/s3/";
const S3_CRATES: &[&str] = &["opendal", "reqsign_core", "reqsign_aws_v4"];

/// What belongs to `paths.rs` alone: text within literals, and names.
const PATH_TEXTS: &[&str] = &["XDG_", "/tmp"];
const PATH_NAMES: &[&str] = &["etcetera", "temp_dir"];

#[test]
fn the_house_is_in_order() {
    // Asked at run time: two checkouts that share a target folder may share this binary.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let src = Path::new(&package).join("src");
    let sources: Vec<Source> = rust_files(&src)
        .into_iter()
        .map(|path| {
            Source::new(
                path.strip_prefix(&src).unwrap(),
                &std::fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    assert!(
        sources.len() > 20,
        "only {} files were found in {}",
        sources.len(),
        src.display()
    );
    let violations = check(&sources);
    let report: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(
        report.is_empty(),
        "\n{}\n{} violations. The arrows are drawn in CONTRIBUTING.md and listed in tests/architecture.rs.",
        report.join("\n"),
        report.len()
    );
}

#[test]
fn the_arrows_never_lead_back() {
    fn walk<'a>(room: &'a str, way: &mut Vec<&'a str>) {
        assert!(!way.contains(&room), "the arrows run in a circle: {way:?} → {room}");
        way.push(room);
        for (_, to, _) in ARROWS.iter().filter(|(from, ..)| *from == room) {
            walk(to, way);
        }
        way.pop();
    }
    for room in rooms() {
        walk(room, &mut Vec::new());
    }
}

struct Violation {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

fn rooms() -> BTreeSet<&'static str> {
    let ends = ARROWS.iter().flat_map(|(from, to, _)| [*from, *to]);
    ends.chain([GROUND, "emulator"]).collect()
}

fn check(sources: &[Source]) -> Vec<Violation> {
    let test_modules: BTreeSet<&PathBuf> = sources.iter().flat_map(|source| &source.test_modules).collect();
    let is_test = |source: &Source| {
        source
            .file
            .ancestors()
            .any(|part| test_modules.contains(&part.with_extension("")))
    };
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| !is_test(source)) {
        source.check_shape(&mut violations);
        source.check_arrows(&mut violations);
        source.check_words(&mut violations);
    }
    violations
}

/// One file: what it says outside of comments and tests.
struct Source {
    /// Relative to `src/`.
    file: PathBuf,
    text: String,
    tokens: Vec<Token>,
    /// Modules that this file declares for tests only, as paths without `.rs`.
    test_modules: Vec<PathBuf>,
}

impl Source {
    fn new(file: &Path, text: &str) -> Self {
        let (tokens, modules) = without_tests(tokens(text));
        let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") => file.parent().unwrap_or(Path::new("")).to_owned(),
            _ => file.with_extension(""),
        };
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            tokens,
            test_modules: modules
                .iter()
                .map(|module| match module {
                    TestModule::Named(name) => folder.join(name),
                    TestModule::At(path) => file.with_file_name(path).with_extension(""),
                })
                .collect(),
        }
    }

    /// The first component of the module path: `src/fs/inode.rs` and `src/fs.rs` are both in `fs`.
    fn room(&self) -> String {
        let first = self
            .file
            .components()
            .next()
            .map(|part| part.as_os_str().to_string_lossy());
        first.unwrap_or_default().trim_end_matches(".rs").to_owned()
    }

    /// How many `super` lead from this file's module to the crate's root.
    fn depth(&self) -> usize {
        let parts = self.file.with_extension("").components().count();
        match self.file.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") => parts - 1,
            _ => parts,
        }
    }

    fn violation(&self, line: usize, what: impl Into<String>) -> Violation {
        Violation {
            file: self.file.clone(),
            line,
            what: what.into(),
        }
    }

    fn check_shape(&self, violations: &mut Vec<Violation>) {
        if !self.text.starts_with("//!") {
            violations.push(self.violation(
                1,
                "the module's head (`//!`) is missing: say what it is responsible for",
            ));
        }
        let lines = self
            .text
            .lines()
            .take_while(|line| !line.trim_start().starts_with("#[cfg(test)]"))
            .count();
        if lines > MAX_LINES {
            let what = format!("{lines} lines without tests, at most {MAX_LINES} are wanted: split it");
            violations.push(self.violation(MAX_LINES + 1, what));
        }
    }

    fn check_arrows(&self, violations: &mut Vec<Violation>) {
        let (from, rooms) = (self.room(), rooms());
        if from == "lib" {
            return;
        }
        if !rooms.contains(&*from) {
            let what = format!("{from} is not a room: give it a place in the table of tests/architecture.rs");
            violations.push(self.violation(1, what));
            return;
        }
        let mut seen = BTreeMap::new();
        for (to, line) in self.references() {
            let known = to == "*" || rooms.contains(&*to);
            // A name at the crate's root that is no room is a macro or a type's own path.
            if known && to != from {
                seen.entry(to).or_insert(line);
            }
        }
        for (to, line) in seen {
            let allowed = to == GROUND || ARROWS.iter().any(|(a, b, _)| *a == from && *b == to);
            if !allowed {
                let may: Vec<&str> = ARROWS.iter().filter(|(a, ..)| *a == from).map(|(_, b, _)| *b).collect();
                let may = if may.is_empty() {
                    "nothing".to_owned()
                } else {
                    may.join(", ")
                };
                let what = format!("the arrow {from} → {to} does not exist: {from} may use {may} and {GROUND}");
                violations.push(self.violation(line, what));
            }
        }
    }

    /// What is named at the crate's root, through `crate`, `keymount` or enough `super`s.
    fn references(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        let mut inline = Vec::new();
        let mut braces = 0;
        let mut at = 0;
        while at < self.tokens.len() {
            let before = at.checked_sub(1).map(|before| &self.tokens[before].what);
            match &self.tokens[at].what {
                What::Mark('{') => {
                    braces += 1;
                    if at >= 2 && self.is_word(at - 2, "mod") {
                        inline.push(braces);
                    }
                }
                What::Mark('}') => {
                    inline.pop_if(|opened| *opened == braces);
                    braces -= 1;
                }
                What::Word(word) if before != Some(&What::PathMark) => match word.as_str() {
                    "crate" | "keymount" => self.roots(at + 1, &mut found),
                    "super" => {
                        let mut supers = 1;
                        while self.is(at + 1, &What::PathMark) && self.is_word(at + 2, "super") {
                            supers += 1;
                            at += 2;
                        }
                        if supers >= self.depth() + inline.len() {
                            self.roots(at + 1, &mut found);
                        }
                    }
                    _ => {}
                },
                _ => {}
            }
            at += 1;
        }
        found
    }

    /// The first words of the path or of the group of paths that follows.
    fn roots(&self, at: usize, found: &mut Vec<(String, usize)>) {
        if !self.is(at, &What::PathMark) {
            return;
        }
        let Some(next) = self.tokens.get(at + 1) else { return };
        match &next.what {
            What::Word(word) => found.push((word.clone(), next.line)),
            What::Mark('*') => found.push(("*".to_owned(), next.line)),
            What::Mark('{') => {
                let (mut depth, mut first) = (0, true);
                for token in &self.tokens[at + 1..] {
                    match &token.what {
                        What::Mark('{') => depth += 1,
                        What::Mark('}') if depth == 1 => break,
                        What::Mark('}') => depth -= 1,
                        What::Mark(',') if depth == 1 => first = true,
                        What::Word(word) if depth == 1 && first => {
                            found.push((word.clone(), token.line));
                            first = false;
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn check_words(&self, violations: &mut Vec<Violation>) {
        let room = self.room();
        for (at, token) in self.tokens.iter().enumerate() {
            let what = match &token.what {
                What::Word(word) if word == "fuser" && room != "fuse" => {
                    format!("only fuse names fuser, {room} does not")
                }
                What::Word(word) if word == "reqwest" && room != "net" => {
                    let mut words = Vec::new();
                    self.roots(at + 1, &mut words);
                    let fine = |word: &(String, usize)| HTTP_WORDS.contains(&&*word.0);
                    if HTTP_ROOMS.contains(&&*room) && !words.is_empty() && words.iter().all(fine) {
                        continue;
                    }
                    let words: Vec<&str> = words.iter().map(|(word, _)| word.as_str()).collect();
                    format!(
                        "only net sends requests; {} may use {} of reqwest, and {room} names {}",
                        HTTP_ROOMS.join(", "),
                        HTTP_WORDS.join(", "),
                        if words.is_empty() {
                            "all of it".to_owned()
                        } else {
                            words.join(", ")
                        }
                    )
                }
                What::Word(word) if S3_CRATES.contains(&&**word) && !self.file.starts_with(S3_ADAPTER) => {
                    format!("only {S3_ADAPTER} names {word}, {room} does not")
                }
                What::Word(word) if PATH_NAMES.contains(&&**word) && room != "paths" => {
                    format!("only paths.rs knows places on disk, {room} names {word}")
                }
                What::Text(text) if room != "paths" => match PATH_TEXTS.iter().find(|part| text.contains(**part)) {
                    Some(part) => format!("only paths.rs knows places on disk, {room} names {part:?}"),
                    None => continue,
                },
                _ => continue,
            };
            violations.push(self.violation(token.line, what));
        }
    }

    fn is(&self, at: usize, what: &What) -> bool {
        self.tokens.get(at).is_some_and(|token| token.what == *what)
    }

    fn is_word(&self, at: usize, word: &str) -> bool {
        matches!(self.tokens.get(at), Some(Token { what: What::Word(found), .. }) if found == word)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Word(String),
    /// `::`
    PathMark,
    Mark(char),
    /// A string literal's inside, as written.
    Text(String),
}

#[derive(Clone, Debug)]
struct Token {
    line: usize,
    what: What,
}

/// The words, marks and string literals of Rust source, without comments, character literals and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut found, mut line, mut at) = (Vec::new(), 1, 0);
    while at < chars.len() {
        let start = at;
        let mut push = |what| found.push(Token { line, what });
        match chars[at] {
            '/' if peek(at + 1) == '/' => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            '/' if peek(at + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (peek(at), peek(at + 1)) {
                        ('/', '*') => (depth, at) = (depth + 1, at + 2),
                        ('*', '/') => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                    if depth == 0 || at >= chars.len() {
                        break;
                    }
                }
            }
            '"' => {
                at += 1;
                while at < chars.len() && chars[at] != '"' {
                    at += if chars[at] == '\\' { 2 } else { 1 };
                }
                push(What::Text(chars[start + 1..at.min(chars.len())].iter().collect()));
                at += 1;
            }
            '\'' if peek(at + 1) == '\\' => {
                at += 3;
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            }
            '\'' if peek(at + 2) == '\'' => at += 3,
            '\'' => {
                at += 1;
                while is_word(peek(at)) {
                    at += 1;
                }
            }
            c if is_word(c) => {
                while is_word(peek(at)) {
                    at += 1;
                }
                let word: String = chars[start..at].iter().collect();
                let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
                if matches!(word.as_str(), "r" | "br" | "cr") && peek(at + hashes) == '"' {
                    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                    let inside = at + hashes + 1;
                    at = inside;
                    while at < chars.len() && !chars[at..].starts_with(&close) {
                        at += 1;
                    }
                    push(What::Text(chars[inside..at].iter().collect()));
                    at += close.len();
                } else {
                    push(What::Word(word));
                }
            }
            ':' if peek(at + 1) == ':' => {
                push(What::PathMark);
                at += 2;
            }
            c => {
                if !c.is_whitespace() {
                    push(What::Mark(c));
                }
                at += 1;
            }
        }
        line += chars[start..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    found
}

/// A file that is a module for tests only.
enum TestModule {
    /// `mod tests;`
    Named(String),
    /// `#[path = "disk_tests.rs"] mod tests;`
    At(String),
}

/// Drops every item under `#[cfg(test)]`; gives the files among them.
fn without_tests(tokens: Vec<Token>) -> (Vec<Token>, Vec<TestModule>) {
    let (mut kept, mut modules, mut at) = (Vec::new(), Vec::new(), 0);
    let opening = [
        What::Mark('#'),
        What::Mark('['),
        What::Word("cfg".into()),
        What::Mark('('),
        What::Word("test".into()),
    ];
    while at < tokens.len() {
        let is_test = tokens[at..].len() >= opening.len()
            && tokens[at..]
                .iter()
                .zip(&opening)
                .all(|(token, wanted)| token.what == *wanted);
        if !is_test {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        while at < tokens.len() && tokens[at].what != What::Mark(']') {
            at += 1;
        }
        let (start, mut depth) = (at + 1, 0usize);
        at = start;
        let is_use = matches!(&tokens.get(at).map(|token| &token.what), Some(What::Word(word)) if word == "use");
        while at < tokens.len() {
            match tokens[at].what {
                What::Mark('{' | '(' | '[') => depth += 1,
                What::Mark('}' | ')' | ']') => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && tokens[at].what == What::Mark('}') && !is_use {
                        break;
                    }
                }
                What::Mark(';') if depth == 0 => break,
                _ => {}
            }
            at += 1;
        }
        let item = &tokens[start.min(tokens.len())..at.min(tokens.len())];
        if let Some(place) = item.iter().position(|token| token.what == What::Word("mod".into()))
            && place + 2 == item.len()
            && let What::Word(name) = &item[place + 1].what
        {
            let path = item.iter().find_map(|token| match &token.what {
                What::Text(path) => Some(path.clone()),
                _ => None,
            });
            modules.push(path.map_or_else(|| TestModule::Named(name.clone()), TestModule::At));
        }
        at += 1;
    }
    (kept, modules)
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// What is found in one file with a head and this inside.
fn found_in(file: &str, inside: &str) -> Vec<String> {
    let source = Source::new(Path::new(file), &format!("//! Head.\n{inside}"));
    check(&[source]).iter().map(ToString::to_string).collect()
}

#[test]
fn a_broken_arrow_is_found_wherever_it_hides() {
    for (file, inside) in [
        ("cache/mod.rs", "use crate::provider::Provider;"),
        (
            "cache/mod.rs",
            "use crate::{model::Name, provider::{Provider, Content}};",
        ),
        ("cache/disk.rs", "fn f() { let x = crate::provider::hex(b\"\"); }"),
        ("cache/disk.rs", "use super::super::provider;"),
        ("cache/mod.rs", "use super::provider;"),
        (
            "cache/mod.rs",
            "pub(crate) fn f(_: &dyn keymount::provider::Provider) {}",
        ),
        ("cache/disk.rs", "mod inner { use super::super::super::provider; }"),
        (
            "cache/disk.rs",
            "const A: char = '\"'; use crate::provider; const B: char = '\"';",
        ),
        ("cache/disk.rs", "#[cfg(test)] mod tests { } use crate::provider;"),
        ("cache/disk.rs", "fn f<'a>(_: &'a str) {} use crate::provider;"),
        ("cache.rs", "#[cfg(test)] use std::{io, fs}; use crate::provider;"),
        ("cache.rs", "const A: &str = r#\"\"\"#; use crate::provider;"),
        ("cache.rs", "/* /* */ */ use crate::provider;"),
    ] {
        let found = found_in(file, inside);
        assert_eq!(found.len(), 1, "{inside:?}: {found:?}");
        assert!(
            found[0].starts_with(&format!("src/{file}:2: the arrow cache → provider does not exist")),
            "{found:?}"
        );
    }
    assert_eq!(found_in("fs/mod.rs", "use crate::*;").len(), 1);
    assert_eq!(found_in("attic/mod.rs", "").len(), 1);
    assert_eq!(found_in("model/name.rs", "use crate::net;").len(), 1);
    assert_eq!(found_in("emulator/mod.rs", "use crate::provider;").len(), 1);
}

#[test]
fn the_line_is_the_line_of_the_name() {
    let found = found_in("cache/mod.rs", "\n\"a\nb\";\nuse crate::{\n    model,\n    fs,\n};");
    assert!(
        found[0].starts_with("src/cache/mod.rs:7: the arrow cache → fs"),
        "{found:?}"
    );
}

#[test]
fn what_is_allowed_is_not_found() {
    for (file, inside) in [
        (
            "fs/mod.rs",
            "use crate::fetch::Fetcher; use crate::model::Name; use self::inode::Table;",
        ),
        ("fs/inode.rs", "use super::handles; use crate::fs::Table;"),
        (
            "cache/mod.rs",
            "// use crate::provider;\n/* crate::fs */ const A: &str = \"crate::fuse::x\";",
        ),
        (
            "cache/mod.rs",
            "#[cfg(test)]\nmod tests { use crate::provider::Content; use fuser::X; const P: &str = \"/tmp\"; }",
        ),
        ("main.rs", "fn main() { keymount::cli::run() }"),
        ("lib.rs", "pub mod api; pub mod fuse;"),
        ("net/transport.rs", "use reqwest::{Client, ClientBuilder};"),
        (
            "provider/cludz.rs",
            "use reqwest::header::HeaderMap; use reqwest::{Method, Url};",
        ),
        ("fuse/mod.rs", "use fuser::Filesystem;"),
        ("provider/s3/store.rs", "use opendal::Operator;"),
        ("paths.rs", "const A: &str = \"XDG_STATE_HOME\";"),
    ] {
        assert_eq!(found_in(file, inside), Vec::<String>::new(), "{inside:?}");
    }
}

#[test]
fn words_outside_their_room_are_found() {
    for (file, inside, part) in [
        ("fs/mod.rs", "use fuser::FileAttr;", "only fuse names fuser"),
        ("provider/cludz.rs", "use reqwest::Client;", "names Client"),
        (
            "provider/webdav/mod.rs",
            "use opendal::Operator;",
            "only provider/s3/ names opendal",
        ),
        (
            "provider/cludz.rs",
            "use reqwest::{Url, ClientBuilder};",
            "names Url, ClientBuilder",
        ),
        ("api.rs", "use reqwest as http;", "names all of it"),
        ("cli/mod.rs", "fn f(_: reqwest::Url) {}", "and cli names Url"),
        (
            "cli/mod.rs",
            "const A: &str = \"$XDG_CONFIG_HOME/keymount\";",
            "names \"XDG_\"",
        ),
        ("daemon.rs", "fn f() { std::env::temp_dir(); }", "names temp_dir"),
        ("daemon.rs", "const A: &str = r\"/tmp/keymount\";", "names \"/tmp\""),
    ] {
        let found = found_in(file, inside);
        assert_eq!(found.len(), 1, "{inside:?}: {found:?}");
        assert!(found[0].contains(part), "{found:?}");
    }
}

#[test]
fn shapes_are_looked_at_without_tests() {
    let headless = Source::new(Path::new("fs/mod.rs"), "fn f() {}\n");
    assert!(check(&[headless])[0].what.contains("head"));
    let long = "//! Head.\n".to_owned() + &"fn f() {}\n".repeat(MAX_LINES);
    assert!(
        check(&[Source::new(Path::new("fs/mod.rs"), &long)])[0]
            .what
            .contains("601 lines")
    );
    let tested = "//! Head.\n#[cfg(test)]\nmod tests {\n".to_owned() + &"fn f() {}\n".repeat(MAX_LINES) + "}\n";
    assert!(check(&[Source::new(Path::new("fs/mod.rs"), &tested)]).is_empty());
}

#[test]
fn a_module_for_tests_is_test_code() {
    let parent = Source::new(Path::new("fs/mod.rs"), "//! Head.\n#[cfg(test)]\nmod tests;\n");
    let tests = Source::new(Path::new("fs/tests.rs"), "use crate::fuse::X;\n");
    let deeper = Source::new(Path::new("fs/tests/more.rs"), "use crate::fuse::X;\n");
    assert!(check(&[parent, tests, deeper]).is_empty());
    let parent = Source::new(
        Path::new("cache/disk.rs"),
        "//! Head.\n#[cfg(test)]\n#[path = \"disk_tests.rs\"]\nmod tests;\n",
    );
    let tests = Source::new(Path::new("cache/disk_tests.rs"), "use crate::fuse::X;\n");
    assert!(check(&[parent, tests]).is_empty());
}
