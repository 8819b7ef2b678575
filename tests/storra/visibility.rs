//! Nothing is published by accident; on purpose it is, and hidden again.

use keymount::emulator::storra::{Assumptions, Visibility};
use keymount::model::{Entry, ErrorKind, Result};
use keymount::provider::{LabelChanges, Provider, VISIBILITY};

use super::{Bench, kind, name, root};

async fn set(bench: &Bench, entry: &Entry, value: Option<&str>) -> Result<Entry> {
    let changes = LabelChanges::from([(VISIBILITY.to_owned(), value.map(str::to_owned))]);
    bench.storra.set_labels(entry, &changes).await
}

/// Not even where the service would have new folders be seen by all.
#[tokio::test]
async fn whatever_is_made_is_private() {
    let bench = Bench::new(Assumptions {
        new_folder: Visibility::Public,
        ..Assumptions::default()
    })
    .await;
    bench.account.mkdir("shared").unwrap();
    bench.account.set_visibility("shared", Visibility::Public).unwrap();
    bench.put("new", b"x").await.unwrap();
    bench.put("quoted \"name\"", b"x").await.unwrap();
    let empty = bench.put("empty", b"").await.unwrap();
    bench.replace(&empty, b"filled").await.unwrap();
    let folder = bench.storra.create_directory(&root(), &name("folder")).await.unwrap();
    let renamed = bench.entry("new").await;
    let (from, to) = (super::place("new"), super::place("renamed"));
    bench.storra.rename(&renamed, &from, &to, None).await.unwrap();
    assert_eq!(folder.labels[VISIBILITY], "private");
    for (path, visibility) in bench.account.visibilities() {
        let expected = if path == "shared" {
            Visibility::Public
        } else {
            Visibility::Private
        };
        assert_eq!(visibility, expected, "{path}");
    }
}

/// A replaced file is a new one, and private: what is in it now was never published.
#[tokio::test]
async fn new_content_of_a_public_file_is_private() {
    let bench = Bench::new(Assumptions::default()).await;
    bench.account.put("file", "old").unwrap();
    bench.account.set_visibility("file", Visibility::Public).unwrap();
    let old = bench.entry("file").await;
    assert_eq!(old.labels[VISIBILITY], "public");
    let new = bench.replace(&old, b"new").await.unwrap();
    assert_eq!(new.labels[VISIBILITY], "private");
    assert_eq!(bench.account.info("file").unwrap().visibility, Visibility::Private);
}

#[tokio::test]
async fn files_and_folders_are_published_and_hidden_on_purpose() {
    let bench = Bench::new(Assumptions::default()).await;
    bench.put("file", b"x").await.unwrap();
    bench.storra.create_directory(&root(), &name("folder")).await.unwrap();
    for path in ["file", "folder"] {
        let entry = bench.entry(path).await;
        let public = set(&bench, &entry, Some("public")).await.unwrap();
        assert_eq!(public.labels[VISIBILITY], "public");
        assert_eq!(bench.account.info(path).unwrap().visibility, Visibility::Public);
        assert_eq!(bench.entry(path).await, public);
        let private = set(&bench, &public, Some("private")).await.unwrap();
        assert_eq!(private.labels[VISIBILITY], "private");
        assert_eq!(bench.account.info(path).unwrap().visibility, Visibility::Private);
    }
}

#[tokio::test]
async fn other_values_and_labels_change_nothing() {
    let bench = Bench::new(Assumptions::default()).await;
    let file = bench.put("file", b"x").await.unwrap();
    for value in [Some("PUBLIC!"), Some("shared"), Some(""), None] {
        assert_eq!(
            kind(&set(&bench, &file, value).await),
            Some(ErrorKind::InvalidInput),
            "{value:?}"
        );
    }
    let other = LabelChanges::from([("colour".to_owned(), Some("blue".to_owned()))]);
    assert_eq!(
        kind(&bench.storra.set_labels(&file, &other).await),
        Some(ErrorKind::Unsupported)
    );
    assert_eq!(bench.account.info("file").unwrap().visibility, Visibility::Private);
}
