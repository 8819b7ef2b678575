//! Names that are hard to carry through URLs, headers and JSON.

use std::collections::BTreeSet;

use keymount::model::{Entry, ErrorKind, Kind, Name, Result};

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

const KINDS: [Kind; 2] = [Kind::File, Kind::Directory];

/// Those that the provider's rules allow; the others have a case of their own.
fn allowed(bench: &Bench, kind: Kind) -> impl Iterator<Item = &'static str> {
    UNUSUAL.iter().copied().filter(move |text| bench.allows(kind, text))
}

pub async fn unusual_names_of_files(bench: &Bench) -> Outcome {
    let mut expected = BTreeSet::new();
    for text in allowed(bench, Kind::File) {
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
    for text in allowed(bench, Kind::Directory) {
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
    let possible = |text: &String| KINDS.into_iter().all(|kind| bench.allows(kind, text));
    for text in of_length(longest).filter(possible) {
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
    let mut tried = 0;
    for entry_kind in KINDS {
        for text in some_of_every_length() {
            let Some(expected) = bench.fixture().refuses(entry_kind, &text) else {
                continue;
            };
            tried += 1;
            let refused = make(bench, entry_kind, &text).await;
            assert_eq!(kind(&refused), Some(expected), "{entry_kind:?} {text:?}");
            // What cannot be stored isn't there.
            let missing = bench.lookup(&bench.root, &text).await;
            assert_eq!(kind(&missing), Some(ErrorKind::NotFound), "{text:?}");
        }
    }
    assert!(bench.names(&bench.root).await.is_empty());
    if tried == 0 {
        return NotApplicable("every name is possible");
    }
    Passed
}

/// Names of every character and of lengths at which rules begin to bite.
fn some_of_every_length() -> Vec<String> {
    let long = ["x", ".", "_", "%", "é", "日"]
        .into_iter()
        .flat_map(|part| [31, 49, 50, 51, 63, 64, 84, 127, 254, 255].map(|len| part.repeat(len)));
    UNUSUAL
        .iter()
        .map(|text| (*text).to_owned())
        .chain(long)
        .filter(|text| Name::new(text.clone()).is_ok())
        .collect()
}

/// Makes an empty file or directory.
async fn make(bench: &Bench, kind: Kind, text: &str) -> Result<Entry> {
    match kind {
        Kind::File => bench.try_put(&bench.root, text, b"").await,
        Kind::Directory => bench.provider.create_directory(&bench.root, &name(text)).await,
    }
}

pub async fn what_check_name_accepts_can_be_made(bench: &Bench) -> Outcome {
    for entry_kind in KINDS {
        for text in some_of_every_length() {
            let checked = bench.provider.check_name(&bench.root, entry_kind, &name(&text));
            let refused = kind(&checked);
            let longest = bench.provider.capabilities().max_name_chars;
            if longest.is_some_and(|longest| text.chars().count() > longest) {
                assert!(refused.is_some(), "{entry_kind:?} {text:?} is too long");
            } else {
                assert_eq!(
                    refused,
                    bench.fixture().refuses(entry_kind, &text),
                    "{entry_kind:?} {text:?}"
                );
            }
            if refused.is_some() {
                continue;
            }
            let made = make(bench, entry_kind, &text)
                .await
                .unwrap_or_else(|error| panic!("{entry_kind:?} {text:?}: {error:?}"));
            assert_eq!(made.name, name(&text));
            match entry_kind {
                Kind::File => bench.provider.remove_file(&made).await.unwrap(),
                Kind::Directory => bench.provider.remove_directory(&made).await.unwrap(),
            }
        }
    }
    assert!(bench.names(&bench.root).await.is_empty());
    Passed
}

pub async fn what_check_name_refuses_is_refused_without_asking(bench: &Bench) -> Outcome {
    let source = bench.put(&bench.root, "source", b"kept").await;
    let mut tried = 0;
    for entry_kind in KINDS {
        for text in some_of_every_length() {
            let checked = bench.provider.check_name(&bench.root, entry_kind, &name(&text));
            let Some(expected) = kind(&checked) else {
                continue;
            };
            tried += 1;
            let before = bench.fixture().requests();
            let refused = make(bench, entry_kind, &text).await;
            assert_eq!(kind(&refused), Some(expected), "{entry_kind:?} {text:?}");
            assert_eq!(
                bench.fixture().requests(),
                before,
                "{entry_kind:?} {text:?} went to the service"
            );
            if entry_kind == Kind::File {
                let refused = bench.rename(&bench.root, &source, &text, None).await;
                assert_eq!(kind(&refused), Some(expected), "renamed to {text:?}");
            }
        }
    }
    assert_eq!(bench.names(&bench.root).await, BTreeSet::from(["source".to_owned()]));
    if tried == 0 {
        return NotApplicable("every name is possible");
    }
    Passed
}

pub async fn check_name_where_no_file_can_be(bench: &Bench) -> Outcome {
    let Some(workplace) = bench.fixture().workplace() else {
        return NotApplicable("files are possible everywhere");
    };
    let root = bench.provider.probe().await.unwrap().key;
    let refused = bench.provider.check_name(&root, Kind::File, &name("file"));
    assert_eq!(kind(&refused), Some(ErrorKind::Unsupported));
    let before = bench.fixture().requests();
    let refused = bench.try_put(&root, "file", b"x").await;
    assert_eq!(kind(&refused), Some(ErrorKind::Unsupported));
    assert_eq!(bench.fixture().requests(), before, "the upload went to the service");
    assert!(
        bench
            .provider
            .check_name(&root, Kind::Directory, &name("folder"))
            .is_ok()
    );
    bench.make_directory(&root, "folder").await;
    let both = BTreeSet::from(["folder".to_owned(), workplace.to_owned()]);
    assert_eq!(bench.names(&root).await, both);
    Passed
}
