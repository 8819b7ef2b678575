//! Downloads that aren't what was asked for.

use std::sync::Arc;

use keymount::emulator::{Fault, Rule};
use keymount::model::{Entry, ErrorKind};
use reqwest::Method;
use tokio::sync::Notify;

use super::{Bench, kind, read};

/// Longer than what a client holds back to check it.
const LARGE: usize = 6 * 1024 * 1024;

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

async fn with_file(len: usize) -> (Bench, Entry, Vec<u8>) {
    let bench = Bench::new().await;
    let content = bytes(len, 1);
    bench.drive.put("/file", content.clone()).unwrap();
    let entry = bench.entry("file").await;
    bench.running.forget_requests();
    (bench, entry, content)
}

/// For the next download of the file, not for a look at it.
fn download(fault: Fault) -> Rule {
    Rule::when(
        1,
        |method, target| *method == Method::GET && target.ends_with("/file"),
        fault,
    )
}

#[tokio::test]
async fn a_small_file_costs_one_request_and_a_part_two() {
    let (bench, entry, content) = with_file(10_000).await;
    assert_eq!(read(&bench.cludz, &entry, 0..10_000).await.unwrap(), content);
    assert_eq!(bench.running.requests().len(), 1);
    assert_eq!(read(&bench.cludz, &entry, 10..20).await.unwrap(), content[10..20]);
    assert_eq!(bench.running.requests().len(), 3);
    assert_eq!(bench.running.requests()[1].bytes_out, 10);
}

#[tokio::test]
async fn another_range_than_asked_for_is_wrong() {
    let (bench, entry, _) = with_file(10_000).await;
    bench.running.faults().inject(download(Fault::WrongRange));
    let wrong = read(&bench.cludz, &entry, 100..200).await;
    assert_eq!(kind(&wrong), Some(ErrorKind::BadData));
}

#[tokio::test]
async fn an_ignored_range_is_cut_out_of_the_whole() {
    let (bench, entry, content) = with_file(10_000).await;
    let text = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| char::from(byte % 26 + b'a'))
            .collect::<String>()
    };
    let whole = |body: String| Fault::Status {
        status: 200,
        headers: Vec::new(),
        body,
    };
    let body = text(&content);
    bench.running.faults().inject(download(whole(body.clone())));
    let part = read(&bench.cludz, &entry, 100..200).await.unwrap();
    assert_eq!(part, body.as_bytes()[100..200]);
    bench.running.faults().inject(download(whole(body[1..].to_owned())));
    assert_eq!(
        kind(&read(&bench.cludz, &entry, 100..200).await),
        Some(ErrorKind::BadData)
    );
}

#[tokio::test]
async fn a_broken_off_download_is_no_success() {
    for len in [10_000, LARGE] {
        let (bench, entry, _) = with_file(len).await;
        for range in [0..entry.size, 1..entry.size] {
            let fault = Fault::TruncateBody { after: len / 2 };
            bench.running.faults().inject(download(fault));
            let broken = read(&bench.cludz, &entry, range).await;
            assert_eq!(kind(&broken), Some(ErrorKind::Unreachable));
        }
    }
}

#[tokio::test]
async fn other_bytes_than_the_checksums_are_wrong() {
    for len in [10_000, LARGE] {
        let (bench, entry, _) = with_file(len).await;
        let forged = Fault::Status {
            status: 200,
            headers: Vec::new(),
            body: "x".repeat(len),
        };
        bench.running.faults().inject(download(forged));
        let wrong = read(&bench.cludz, &entry, 0..entry.size).await;
        assert_eq!(kind(&wrong), Some(ErrorKind::BadData));
        bench.running.faults().inject(download(Fault::Garbage));
        let wrong = read(&bench.cludz, &entry, 0..entry.size).await;
        assert_eq!(kind(&wrong), Some(ErrorKind::BadData));
    }
}

/// Somebody replaces the file when the download is on its way: by as many, fewer or more bytes.
#[tokio::test]
async fn a_file_replaced_during_the_download_has_changed() {
    for len in [10_000, LARGE] {
        for new_len in [len, len / 2, len + 1] {
            for whole in [true, false] {
                let (bench, entry, _) = with_file(len).await;
                let release = Arc::new(Notify::new());
                let hold = Fault::Hold(Arc::clone(&release));
                bench.running.faults().inject(download(hold));
                let range = if whole {
                    0..entry.size
                } else {
                    entry.size - 100..entry.size
                };
                let reading = read(&bench.cludz, &entry, range);
                let meanwhile = async {
                    bench.running.wait_until(|log| !log.is_empty()).await;
                    bench.drive.put("/file", bytes(new_len, 2)).unwrap();
                    release.notify_one();
                };
                let (changed, ()) = tokio::join!(reading, meanwhile);
                assert_eq!(kind(&changed), Some(ErrorKind::Changed), "{len} {new_len} {whole}");
            }
        }
    }
}

/// What is too long to be held back is looked at before its first byte is handed on.
#[tokio::test]
async fn not_one_byte_of_another_version_is_handed_on() {
    use keymount::provider::Provider;
    let (bench, entry, _) = with_file(LARGE).await;
    bench.drive.put("/file", bytes(LARGE, 2)).unwrap();
    for range in [0..entry.size, 1..entry.size] {
        let refused = bench.cludz.read(&entry.object(), range).await;
        assert_eq!(kind(&refused), Some(ErrorKind::Changed));
    }
}
