//! Listings of many pages, folders that somebody moves, and the limit of requests.

use std::time::Duration;

use keymount::emulator::cloudsync::{Assumptions, Limits, Plan, RetryAfter, Scope};
use keymount::emulator::{Fault, Rule};
use keymount::model::{Entry, ErrorKind};
use keymount::provider::Provider;
use reqwest::Method;

use super::{Bench, content, kind, name, read};

const MANY: usize = 2500;

fn lists(bench: &Bench) -> usize {
    let requests = bench.requests();
    requests
        .iter()
        .filter(|(_, target)| target.starts_with("/files?"))
        .count()
}

#[tokio::test]
async fn a_long_folder_is_read_to_its_end() {
    let bench = Bench::new().await;
    for number in 0..MANY {
        bench.workspace.put(&format!("/file-{number:04}"), "x").unwrap();
    }
    let entries = bench.cloudsync.list(&bench.root()).await.unwrap();
    assert_eq!(entries.len(), MANY);
    assert_eq!(lists(&bench), 3, "1000 are the most that may be asked for");
    bench.running.forget_requests();
    let found = bench.entry("file-1234").await;
    assert_eq!(found.name.as_str(), "file-1234");
    assert_eq!(lists(&bench), 2, "what was found isn't looked for any longer");
    let missing = bench.cloudsync.lookup(&bench.root(), &name("file-9999")).await;
    assert_eq!(kind(&missing), Some(ErrorKind::NotFound));
}

#[tokio::test]
async fn pages_without_end_are_wrong_data() {
    for cursor in ["\"again\"", "null"] {
        let bench = Bench::new().await;
        let page = Fault::Status {
            status: 200,
            headers: vec![("content-type".into(), "application/json".into())],
            body: format!(r#"{{"data":[],"pagination":{{"cursor":{cursor},"hasMore":true}}}}"#),
        };
        bench
            .running
            .faults()
            .inject(Rule::always(Method::GET, "/files?", page));
        let listed = bench.cloudsync.list(&bench.root()).await;
        assert_eq!(kind(&listed), Some(ErrorKind::BadData), "{cursor}");
    }
}

/// The window ends while the caller still waits: it never sees that there was one.
#[tokio::test]
async fn a_short_wait_is_waited_for() {
    use super::support::{Credential, OWNER, client_with, settings};
    use keymount::net::TransportSettings;
    let bench = Bench::new().await;
    let key = bench.store.create_key(OWNER, "patient", &Scope::of_keys()).unwrap();
    let credential = Credential::ApiKey(key.secret().to_owned());
    let settings = settings(Some("project"), "");
    let patience = TransportSettings::within(Duration::from_secs(120));
    let patient = client_with(&bench.running.url(), credential, settings, patience).await;
    let limited = Fault::Status {
        status: 429,
        headers: vec![
            ("x-ratelimit-limit".into(), "100".into()),
            ("x-ratelimit-remaining".into(), "0".into()),
            ("x-ratelimit-reset".into(), "784111777".into()),
            ("date".into(), "Sun, 06 Nov 1994 08:49:37 GMT".into()),
        ],
        body: r#"{"error":{"code":"rate_limit_exceeded","message":"Too many requests","details":{}}}"#.into(),
    };
    bench.running.forget_requests();
    bench
        .running
        .faults()
        .inject(Rule::once(Method::POST, "/files", limited));
    patient
        .upload(&bench.new_file("file"), &content(b"content"))
        .await
        .unwrap();
    let posts = bench
        .requests()
        .into_iter()
        .filter(|(method, _)| *method == Method::POST);
    assert_eq!(posts.count(), 2, "refused once, then taken");
    assert_eq!(bench.workspace.read("/file").unwrap(), "content");
}

/// `X-RateLimit-Remaining` tells which request is the last one: the next isn't sent.
#[tokio::test]
async fn nothing_is_sent_beyond_what_remains() {
    const REQUESTS: u32 = 20;
    let plan = Plan::Enterprise(Limits {
        storage: None,
        workspaces: None,
        requests: REQUESTS,
    });
    let bench = Bench::with(Assumptions::default(), plan).await;
    bench.workspace.put("/file", "content").unwrap();
    let mut answered = 0;
    let refused = loop {
        match bench.cloudsync.lookup(&bench.root(), &name("file")).await {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused.kind(), ErrorKind::RateLimited { retry_after: Some(_) }),
        "{refused}"
    );
    assert_eq!(answered, REQUESTS);
    let statuses: Vec<_> = bench
        .running
        .requests()
        .into_iter()
        .map(|request| request.status)
        .collect();
    assert_eq!(statuses, vec![Some(200); REQUESTS as usize]);
}

/// What isn't directly in the folder, or has a name that no file can have, isn't shown.
#[tokio::test]
async fn only_children_with_possible_names_are_listed() {
    let bench = Bench::new().await;
    let item = |name: &str, path: &str| {
        format!(
            r#"{{"id":"folder_{name}","name":"{name}","path":"{path}","type":"folder","createdAt":"2026-01-01T00:00:00Z"}}"#
        )
    };
    let items = [
        item("here", "/here"),
        item("deeper", "/here/deeper"),
        item("..", "/.."),
        item("a/b", "/a/b"),
        item("here", "/here"),
    ];
    let page = Fault::Status {
        status: 200,
        headers: vec![("content-type".into(), "application/json".into())],
        body: format!(
            r#"{{"data":[{}],"pagination":{{"cursor":null,"hasMore":false}}}}"#,
            items.join(",")
        ),
    };
    bench
        .running
        .faults()
        .inject(Rule::always(Method::GET, "/files?", page));
    let entries = bench.cloudsync.list(&bench.root()).await.unwrap();
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["here"]);
}

#[tokio::test]
async fn a_walk_asks_once_for_each_folder() {
    let bench = Bench::new().await;
    bench.workspace.put("/a/b/c/file", "deep").unwrap();
    bench.cloudsync.probe().await.unwrap();
    bench.running.forget_requests();
    let mut at = bench.root();
    for part in ["a", "b", "c", "file"] {
        at = bench.cloudsync.lookup(&at, &name(part)).await.unwrap().key;
    }
    assert_eq!(bench.requests().len(), 4, "{:?}", bench.requests());
}

/// An id stays when the folder is moved, and so does what is known of it.
#[tokio::test]
async fn a_folder_that_somebody_moved_is_followed() {
    let bench = Bench::new().await;
    bench.workspace.put("/old/file", "content").unwrap();
    let folder = bench.entry("old").await;
    let file = bench.cloudsync.lookup(&folder.key, &name("file")).await.unwrap();
    bench.workspace.rename("/old", "/elsewhere").unwrap();
    let listed = bench.cloudsync.list(&folder.key).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&file));
    bench.workspace.rename("/elsewhere", "/again").unwrap();
    assert_eq!(bench.cloudsync.lookup(&folder.key, &name("file")).await.unwrap(), file);
    assert_eq!(read(&bench.cloudsync, &file).await.unwrap(), b"content");
    let now: Entry = bench.cloudsync.stat(&folder).await.unwrap();
    assert_eq!((now.key, now.name.as_str()), (folder.key, "again"));
}

/// New content goes to the file, wherever it is by now.
#[tokio::test]
async fn a_file_that_somebody_moved_is_replaced_where_it_is() {
    let bench = Bench::new().await;
    bench.workspace.put("/file", "old").unwrap();
    let file = bench.entry("file").await;
    bench.workspace.rename("/file", "/folder/renamed").unwrap();
    let replaced = bench
        .cloudsync
        .upload(&bench.over(&file), &content(b"new"))
        .await
        .unwrap();
    assert_eq!((replaced.key, replaced.name.as_str()), (file.key, "renamed"));
    assert_eq!(bench.workspace.read("/folder/renamed").unwrap(), "new");
    assert!(!bench.workspace.exists("/file"));
}

/// The wait is the window's rest, from the documented headers or from `Retry-After`; afterwards all goes on.
#[tokio::test]
async fn beyond_the_limit_the_wait_is_told() {
    use keymount::emulator::cloudsync::Scope;
    for retry_after in [RetryAfter::Absent, RetryAfter::Sent] {
        let assumptions = Assumptions {
            retry_after,
            ..Assumptions::default()
        };
        let plan = Plan::Enterprise(Limits {
            storage: None,
            workspaces: None,
            requests: 3,
        });
        let bench = Bench::with(assumptions, plan).await;
        for _ in 0..3 {
            bench.cloudsync.list(&bench.root()).await.unwrap();
        }
        let error = bench.cloudsync.list(&bench.root()).await.unwrap_err();
        let ErrorKind::RateLimited {
            retry_after: Some(wait),
        } = error.kind()
        else {
            panic!("{error:?}")
        };
        assert!(
            wait >= Duration::from_secs(1) && wait <= Duration::from_secs(61),
            "{wait:?}"
        );
        let asked = bench.requests().len();
        assert!(bench.cloudsync.list(&bench.root()).await.is_err());
        assert_eq!(
            bench.requests().len(),
            asked,
            "a request that would be refused isn't sent"
        );
        bench.store.clock().advance(jiff::SignedDuration::from_secs(61));
        // By its own clock this client has to wait still; another one sees that the window is over.
        let another = bench.limited(&Scope::of_keys()).await;
        another.list(&bench.root()).await.unwrap();
    }
}
