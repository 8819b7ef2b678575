//! Labels, where the provider keeps them.

use keymount::model::ErrorKind;
use keymount::provider::{LabelChanges, LabelSupport};

use super::Outcome::{self, NotApplicable, Passed};
use super::helpers::{Bench, kind};

fn changes(pairs: &[(&str, Option<&str>)]) -> LabelChanges {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
        .collect()
}

pub async fn labels_are_kept_and_removed(bench: &Bench) -> Outcome {
    let file = bench.put(&bench.root, "file", b"x").await;
    let set = changes(&[("colour", Some("blue")), ("size", Some("7"))]);
    let result = bench.provider.set_labels(&file, &set).await;
    if bench.provider.capabilities().labels != LabelSupport::Stored {
        assert_eq!(kind(&result), Some(ErrorKind::Unsupported));
        return NotApplicable("the provider keeps no labels of a person's own");
    }
    assert_eq!(result.unwrap().labels["colour"], "blue");
    let now = bench.lookup(&bench.root, "file").await.unwrap();
    assert_eq!(
        (now.labels["colour"].as_str(), now.labels["size"].as_str()),
        ("blue", "7")
    );
    let more = changes(&[("colour", None), ("size", Some("8")), ("absent", None)]);
    bench.provider.set_labels(&now, &more).await.unwrap();
    let now = bench.provider.stat(&file).await.unwrap();
    assert!(!now.labels.contains_key("colour"), "{:?}", now.labels);
    assert_eq!(now.labels["size"], "8");
    Passed
}

pub async fn labels_leave_the_content_alone(bench: &Bench) -> Outcome {
    if bench.provider.capabilities().labels != LabelSupport::Stored {
        return NotApplicable("the provider keeps no labels of a person's own");
    }
    let file = bench.put(&bench.root, "file", b"content").await;
    let labelled = bench
        .provider
        .set_labels(&file, &changes(&[("a", Some("b"))]))
        .await
        .unwrap();
    assert_eq!((labelled.size, &labelled.version), (file.size, &file.version));
    assert_eq!(bench.read(&file).await, b"content");
    Passed
}
