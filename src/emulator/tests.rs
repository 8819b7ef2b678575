use std::sync::Arc;

use reqwest::{Client, Method, RequestBuilder};
use tokio::sync::Notify;

use super::cludz::{CludzStore, Drive};
use super::*;

/// The server, a drive with `/a` = ten digits, and a client.
async fn bench() -> (Running, Drive, Client) {
    let store = CludzStore::default();
    let drive = store.add_drive();
    drive.put("/a", "0123456789").unwrap();
    let client = Client::builder().no_proxy().build().unwrap();
    (store.serve().await.unwrap(), drive, client)
}

fn request(server: &Running, drive: &Drive, client: &Client, method: Method, path: &str) -> RequestBuilder {
    let url = format!("{}storage/{}{path}", server.url(), drive.id());
    client.request(method, url).header("Token", drive.owner_token())
}

#[tokio::test]
async fn requests_are_recorded_with_their_bytes() {
    let (server, drive, client) = bench().await;
    let body = r#"{"type":"folder","name":"x"}"#;
    let made = request(&server, &drive, &client, Method::POST, "/")
        .header("Content-Type", "application/json")
        .body(body);
    assert_eq!(made.send().await.unwrap().status(), 201);
    let read = request(&server, &drive, &client, Method::GET, "/a")
        .send()
        .await
        .unwrap();
    assert_eq!(read.text().await.unwrap().len(), 10);
    let log = server.requests();
    assert_eq!(log[0].bytes_in, body.len() as u64);
    assert_eq!((log[1].status, log[1].bytes_out), (Some(200), 10));
    assert_eq!(log[1].target, format!("/storage/{}/a", drive.id()));
    server.forget_requests();
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_rule_is_used_up() {
    let (server, drive, client) = bench().await;
    let headers = vec![("Retry-After".to_owned(), "7".to_owned())];
    let fault = Fault::Status {
        status: 429,
        headers,
        body: "slow down".into(),
    };
    server.faults().inject(Rule::times(2, Method::GET, "/a", fault));
    for status in [429, 429, 200] {
        let answer = request(&server, &drive, &client, Method::GET, "/a")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status);
        if status == 429 {
            assert_eq!(answer.headers()["retry-after"], "7");
            assert_eq!(answer.text().await.unwrap(), "slow down");
        }
    }
    assert_eq!(server.faults().pending(), 0);
    server.faults().inject(Rule::everything(Fault::status(503)));
    assert_eq!(
        request(&server, &drive, &client, Method::GET, "/")
            .send()
            .await
            .unwrap()
            .status(),
        503
    );
    server.faults().clear();
    assert_eq!(
        request(&server, &drive, &client, Method::GET, "/")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn dropped_connections_have_no_answer() {
    let (server, drive, client) = bench().await;
    for fault in [Fault::DropConnection, Fault::DropAfterEffect] {
        server.faults().inject(Rule::once(Method::DELETE, "/a", fault));
        let failed = request(&server, &drive, &client, Method::DELETE, "/a")
            .send()
            .await
            .unwrap_err();
        assert!(failed.is_request() && failed.status().is_none(), "{failed:?}");
    }
    assert!(!drive.exists("/a"));
    assert!(server.requests().iter().all(|request| request.status.is_none()));
}

#[tokio::test]
async fn truncated_bodies_keep_their_length_header() {
    let (server, drive, client) = bench().await;
    let large = vec![7; 3_000_000];
    drive.put("/large", large.clone()).unwrap();
    for (path, total, after) in [("/a", 10, 0), ("/a", 10, 4), ("/large", 3_000_000, 2_999_999)] {
        server
            .faults()
            .inject(Rule::once(Method::GET, path, Fault::TruncateBody { after }));
        let mut answer = request(&server, &drive, &client, Method::GET, path)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.headers()["content-length"], total.to_string());
        let mut got = 0;
        let end = loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => got += chunk.len(),
                end => break end,
            }
        };
        assert!(end.is_err());
        assert_eq!(got, after);
    }
}

#[tokio::test]
async fn lies_change_nothing_and_late_errors_do() {
    let (server, drive, client) = bench().await;
    server
        .faults()
        .inject(Rule::once(Method::DELETE, "/a", Fault::LieAboutSuccess));
    server
        .faults()
        .inject(Rule::once(Method::DELETE, "/a", Fault::status_after_effect(500)));
    assert_eq!(
        request(&server, &drive, &client, Method::DELETE, "/a")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert!(drive.exists("/a"));
    assert_eq!(
        request(&server, &drive, &client, Method::DELETE, "/a")
            .send()
            .await
            .unwrap()
            .status(),
        500
    );
    assert!(!drive.exists("/a"));
}

#[tokio::test]
async fn wrong_ranges_and_garbage() {
    let (server, drive, client) = bench().await;
    for (asked, got) in [("bytes=0-3", "bytes 1-4/10"), ("bytes=4-9", "bytes 3-8/10")] {
        server.faults().inject(Rule::once(Method::GET, "/a", Fault::WrongRange));
        let part = request(&server, &drive, &client, Method::GET, "/a")
            .header("Range", asked)
            .send()
            .await
            .unwrap();
        assert_eq!(part.headers()["content-range"], got);
    }
    server.faults().inject(Rule::once(Method::GET, "", Fault::Garbage));
    let garbage = request(&server, &drive, &client, Method::GET, "/")
        .send()
        .await
        .unwrap();
    assert_eq!(garbage.status(), 200);
    let bytes = garbage.bytes().await.unwrap();
    assert!(std::str::from_utf8(&bytes).is_err());
}

#[tokio::test]
async fn held_requests_go_on_when_released() {
    let (server, drive, client) = bench().await;
    let release = Arc::new(Notify::new());
    server
        .faults()
        .inject(Rule::always(Method::GET, "/a", Fault::Hold(Arc::clone(&release))));
    let held = tokio::spawn(request(&server, &drive, &client, Method::GET, "/a").send());
    server.wait_until(|log| log.len() == 1).await;
    assert_eq!(server.requests()[0].status, None);
    drive.put("/a", "later").unwrap();
    release.notify_one();
    assert_eq!(held.await.unwrap().unwrap().text().await.unwrap(), "later");
    server.wait_until(|log| log[0].status == Some(200)).await;
}

#[tokio::test]
async fn a_server_is_killed_and_restarted_where_it_was() {
    let store = CludzStore::default();
    let drive = store.add_drive();
    drive.put("/a", "kept").unwrap();
    let client = Client::builder().no_proxy().build().unwrap();
    let server = store.serve().await.unwrap();
    let address = server.address();
    let never = Arc::new(Notify::new());
    server
        .faults()
        .inject(Rule::once(Method::GET, "/a", Fault::Hold(never)));
    let held = tokio::spawn(request(&server, &drive, &client, Method::GET, "/a").send());
    server.wait_until(|log| log.len() == 1).await;
    server.stop().await;
    assert!(held.await.unwrap().is_err());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let again = store.start_on(address).await.unwrap();
    assert_eq!(again.address(), address);
    let read = request(&again, &drive, &client, Method::GET, "/a")
        .send()
        .await
        .unwrap();
    assert_eq!(read.text().await.unwrap(), "kept");
    drop(again);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
