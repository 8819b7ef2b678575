//! Names that are hard to carry through URLs, headers and JSON.

use std::collections::BTreeSet;

use keymount::model::{ErrorKind, Name};

use super::Outcome::{self, NotApplicable, Passed};
use super::helpers::{Bench, kind, name};

const UNUSUAL: &[&str] = &[
    "with space",
    " leading space",
    "trailing space ",
    "trailing dot.",
    "..two dots first",
    ".hidden",
    "...",
    "a..b",
    "100%",
    "%41",
    "%2F",
    "%",
    "a#b",
    "a?b",
    "a+b",
    "a&b",
    "a=b",
    "a;b",
    "a,b",
    "a@b",
    "a!b",
    "a$b",
    "~tilde",
    "a'b",
    "a\"b",
    "a\\b",
    "a:b",
    "a*b",
    "a|b",
    "a<b>c",
    "[brackets]",
    "{braces}",
    "(parens)",
    "^caret",
    "`tick`",
    "-dash",
    "_under",
    "tab\there",
    "line\nbreak",
    "null",
    "true",
    "0",
    "token=x",
    "?token=x",
    "grüße.txt",
    "日本語",
    "🦀.rs",
    "שלום",
    "e\u{301}",
    "\u{feff}bom",
    "zero\u{200b}width",
    "CON",
    "nul.txt",
    "COM1",
    "index.html",
    "a.tar.gz",
];

/// Those that the provider's rules allow; the others have a case of their own.
fn allowed(bench: &Bench) -> impl Iterator<Item = &'static str> {
    UNUSUAL.iter().copied().filter(|text| !bench.fixture().refuses(text))
}

pub async fn unusual_names_of_files(bench: &Bench) -> Outcome {
    let mut expected = BTreeSet::new();
    for text in allowed(bench) {
        bench.put(&bench.root, text, text.as_bytes()).await;
        expected.insert(text.to_owned());
    }
    assert_eq!(bench.names(&bench.root).await, expected);
    if let Some(raw) = bench.raw() {
        assert_eq!(raw.names("").await.into_iter().collect::<BTreeSet<_>>(), expected);
    }
    for text in &expected {
        assert_eq!(bench.content(&bench.root, text).await, text.as_bytes(), "{text:?}");
    }
    for text in &expected {
        let entry = bench.lookup(&bench.root, text).await.unwrap();
        let changed = bench.replace(&bench.root, &entry, b"other").await;
        bench
            .provider
            .remove_file(&changed)
            .await
            .unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
    }
    assert!(bench.names(&bench.root).await.is_empty());
    Passed
}

pub async fn unusual_names_of_directories(bench: &Bench) -> Outcome {
    for text in allowed(bench) {
        let folder = bench.make_directory(&bench.root, text).await;
        let inner = bench.make_directory(&folder.key, text).await;
        let file = bench.put(&inner.key, text, text.as_bytes()).await;
        assert_eq!(bench.content(&inner.key, text).await, text.as_bytes());
        assert_eq!(bench.names(&folder.key).await, BTreeSet::from([text.to_owned()]));
        bench.provider.remove_file(&file).await.unwrap();
        bench.provider.remove_directory(&inner).await.unwrap();
        bench.provider.remove_directory(&folder).await.unwrap();
    }
    assert!(bench.names(&bench.root).await.is_empty());
    Passed
}

pub async fn composed_and_decomposed_names_are_two(bench: &Bench) -> Outcome {
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    bench.put(&bench.root, composed, b"composed").await;
    assert_eq!(
        kind(&bench.lookup(&bench.root, decomposed).await),
        Some(ErrorKind::NotFound)
    );
    bench.put(&bench.root, decomposed, b"decomposed").await;
    assert_eq!(bench.content(&bench.root, composed).await, b"composed");
    assert_eq!(bench.content(&bench.root, decomposed).await, b"decomposed");
    let both = BTreeSet::from([composed.to_owned(), decomposed.to_owned()]);
    assert_eq!(bench.names(&bench.root).await, both);
    Passed
}

pub async fn names_that_differ_in_case_are_two(bench: &Bench) -> Outcome {
    bench.put(&bench.root, "README", b"upper").await;
    bench.put(&bench.root, "readme", b"lower").await;
    assert_eq!(bench.content(&bench.root, "README").await, b"upper");
    assert_eq!(bench.content(&bench.root, "readme").await, b"lower");
    Passed
}

/// Names of `len` characters, with one and with two bytes each, as far as a name can hold them.
fn of_length(len: usize) -> impl Iterator<Item = String> {
    ["x", "é"]
        .into_iter()
        .map(move |part| part.repeat(len))
        .filter(|text| Name::new(text.clone()).is_ok())
}

pub async fn the_longest_name(bench: &Bench) -> Outcome {
    let longest = bench.provider.capabilities().max_name_chars.unwrap_or(255);
    for text in of_length(longest) {
        let file = bench.put(&bench.root, &text, b"content").await;
        assert_eq!(bench.content(&bench.root, &text).await, b"content");
        let changed = bench.replace(&bench.root, &file, b"more content").await;
        bench.provider.remove_file(&changed).await.unwrap();
        let folder = bench.make_directory(&bench.root, &text).await;
        bench.put(&folder.key, &text, b"inside").await;
        assert_eq!(bench.content(&folder.key, &text).await, b"inside");
        assert!(bench.names(&bench.root).await.contains(&text));
        bench
            .provider
            .remove_file(&bench.lookup(&folder.key, &text).await.unwrap())
            .await
            .unwrap();
        bench.provider.remove_directory(&folder).await.unwrap();
    }
    Passed
}

pub async fn one_character_too_many(bench: &Bench) -> Outcome {
    let Some(longest) = bench.provider.capabilities().max_name_chars else {
        return NotApplicable("names are limited by the kernel only");
    };
    for text in of_length(longest + 1) {
        let refused = bench.try_put(&bench.root, &text, b"x").await;
        assert_eq!(kind(&refused), Some(ErrorKind::NameTooLong), "a file");
        let refused = bench.provider.create_directory(&bench.root, &name(&text)).await;
        assert_eq!(kind(&refused), Some(ErrorKind::NameTooLong), "a directory");
    }
    assert!(bench.names(&bench.root).await.is_empty());
    Passed
}

pub async fn forbidden_names_are_refused(bench: &Bench) -> Outcome {
    let forbidden: Vec<&str> = UNUSUAL
        .iter()
        .copied()
        .filter(|text| bench.fixture().refuses(text))
        .collect();
    if forbidden.is_empty() {
        return NotApplicable("every name is possible");
    }
    for text in forbidden {
        let refused = bench.try_put(&bench.root, text, b"x").await;
        assert_eq!(kind(&refused), Some(ErrorKind::InvalidName), "a file {text:?}");
        let refused = bench.provider.create_directory(&bench.root, &name(text)).await;
        assert_eq!(kind(&refused), Some(ErrorKind::InvalidName), "a directory {text:?}");
        // What cannot be stored isn't there.
        let missing = bench.lookup(&bench.root, text).await;
        assert_eq!(kind(&missing), Some(ErrorKind::NotFound), "{text:?}");
    }
    assert!(bench.names(&bench.root).await.is_empty());
    Passed
}
