//! What POSIX has of a file beside its content, where the provider keeps it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use keymount::model::{Entry, ErrorKind, PosixAttributes, PosixTimes};
use keymount::provider::{AttributeSupport, Content, Place, Target};

use super::Outcome::{self, NotApplicable, Passed};
use super::helpers::{Bench, kind, name};

const NOWHERE: &str = "the provider has no place for attributes";
const NOT_ALONE: &str = "the provider changes attributes with the content only";

fn some(mode: u32) -> PosixAttributes {
    let modified = SystemTime::UNIX_EPOCH + Duration::new(981_173_106, 123_456_789);
    PosixAttributes {
        mode: Some(mode),
        times: Some(PosixTimes {
            modified,
            accessed: modified + Duration::from_nanos(1),
        }),
        xattrs: BTreeMap::from([("Ünïcode, =\"".to_owned(), b"\0\xff;:".to_vec())]),
    }
}

fn content(bytes: &[u8], attributes: &PosixAttributes) -> Content {
    Content::from_bytes(bytes).unwrap().with_attributes(attributes.clone())
}

async fn put(bench: &Bench, text: &str, attributes: &PosixAttributes) -> Entry {
    let target = Target::New {
        parent: bench.root.clone(),
        name: name(text),
    };
    bench
        .provider
        .upload(&target, &content(b"content", attributes))
        .await
        .unwrap()
}

pub async fn attributes_go_with_the_content(bench: &Bench) -> Outcome {
    let wanted = some(0o751);
    let made = put(bench, "file", &wanted).await;
    let now = bench.provider.stat(&made).await.unwrap();
    if bench.provider.capabilities().attributes == AttributeSupport::None {
        assert_eq!((made.posix.told(), now.posix.told()), (None, None));
        return NotApplicable(NOWHERE);
    }
    assert_eq!(made.posix.told(), Some(&wanted), "as it was made");
    assert_eq!(now.posix.told(), Some(&wanted), "as it is");
    let parent = bench.root.clone();
    let over = |entry: &Entry| Target::Replace {
        parent: parent.clone(),
        entry: entry.clone(),
    };
    let other = some(0o600);
    let replaced = bench
        .provider
        .upload(&over(&now), &content(b"more content", &other))
        .await
        .unwrap();
    assert_eq!(replaced.posix.told(), Some(&other), "as it was replaced");
    let found = bench.lookup(&bench.root, "file").await.unwrap();
    assert_eq!(found.posix.told(), Some(&other));
    assert_eq!(bench.read(&found).await, b"more content");
    // Somebody who was not told what it had leaves open what he doesn't set.
    let untold = Entry {
        posix: keymount::model::ToldAttributes::Untold,
        ..found
    };
    let times = PosixAttributes {
        times: some(0).times,
        ..PosixAttributes::default()
    };
    let again = bench
        .provider
        .upload(&over(&untold), &content(b"last", &times))
        .await
        .unwrap();
    assert_eq!(again.posix.told(), Some(&other), "as it was left open");
    Passed
}

pub async fn attributes_are_changed_alone(bench: &Bench) -> Outcome {
    let file = put(bench, "file", &some(0o751)).await;
    let changed = bench.provider.set_attributes(&file, &some(0o600)).await;
    if bench.provider.capabilities().attributes != AttributeSupport::Stored {
        assert_eq!(kind(&changed), Some(ErrorKind::Unsupported));
        return NotApplicable(NOT_ALONE);
    }
    let changed = changed.unwrap();
    assert_eq!(changed.posix.told(), Some(&some(0o600)));
    assert_eq!(changed.size, file.size);
    let now = bench.lookup(&bench.root, "file").await.unwrap();
    assert_eq!((now.posix.told(), &now.version), (Some(&some(0o600)), &changed.version));
    assert_eq!(bench.read(&now).await, b"content");
    let none = PosixAttributes::default();
    bench.provider.set_attributes(&now, &none).await.unwrap();
    let now = bench.provider.stat(&now).await.unwrap();
    assert_eq!(now.posix.told().cloned().unwrap_or_default(), none);
    assert_eq!(bench.read(&now).await, b"content");
    Passed
}

pub async fn attributes_go_along_with_a_rename(bench: &Bench) -> Outcome {
    if bench.provider.capabilities().attributes == AttributeSupport::None {
        return NotApplicable(NOWHERE);
    }
    let file = put(bench, "file", &some(0o751)).await;
    let place = |text| Place {
        parent: bench.root.clone(),
        name: name(text),
    };
    let moved = bench
        .provider
        .rename(&file, &place("file"), &place("other"), None)
        .await
        .unwrap();
    assert_eq!(moved.posix.told(), Some(&some(0o751)));
    let now = bench.lookup(&bench.root, "other").await.unwrap();
    assert_eq!(now.posix.told(), Some(&some(0o751)));
    Passed
}

pub async fn more_than_fits_is_left_out(bench: &Bench) -> Outcome {
    if bench.provider.capabilities().attributes == AttributeSupport::None {
        return NotApplicable(NOWHERE);
    }
    let wanted = PosixAttributes {
        xattrs: (0..100)
            .map(|number| (format!("n{number:02}"), vec![number; 30]))
            .collect(),
        ..some(0o751)
    };
    let file = put(bench, "file", &wanted).await;
    let told = file.posix.told().unwrap();
    assert_eq!(told, &wanted.fitting());
    assert!(!told.xattrs.is_empty() && told.xattrs.len() < 100);
    assert_eq!(bench.read(&file).await, b"content");
    Passed
}
