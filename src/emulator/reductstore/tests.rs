use std::sync::Arc;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::emulator::{Fault, Rule, Running};

const ROOT: &str = "root-secret";

/// A store with the bucket `bk`, its server, and requests as one of its tokens.
struct Bench {
    store: ReductStore,
    server: Running,
    client: Client,
}

impl Bench {
    async fn new() -> Self {
        Self::with(Options {
            auth: Auth::Token(ROOT.into()),
            ..Options::default()
        })
        .await
    }

    async fn with(options: Options) -> Self {
        let store = ReductStore::new(options);
        store.create_bucket("bk");
        let server = store.serve().await.unwrap();
        Self {
            store,
            server,
            client: Client::builder().no_proxy().build().unwrap(),
        }
    }

    fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}api/v1{path}", self.server.url()))
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(ROOT)
    }

    async fn get(&self, path: &str) -> Response {
        self.call(Method::GET, path).send().await.unwrap()
    }

    async fn post(&self, path: &str, body: &str) -> Response {
        self.call(Method::POST, path)
            .body(body.to_owned())
            .send()
            .await
            .unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }

    /// Opens a query on `bk/{entry}`.
    async fn query(&self, entry: &str, body: Value) -> u64 {
        let answer = self.post(&format!("/b/bk/{entry}/q"), &body.to_string()).await;
        let body: Value = answer.json().await.unwrap();
        body["id"].as_u64().unwrap()
    }

    /// The timestamps of a query's next batch and whether it is the last; nothing at the end.
    async fn heads(&self, entry: &str, id: u64) -> Option<(Vec<u64>, bool)> {
        let path = format!("/b/bk/{entry}/batch?q={id}");
        let answer = self.call(Method::HEAD, &path).send().await.unwrap();
        if answer.status() == 204 {
            return None;
        }
        assert_eq!(answer.status(), 200);
        let last = answer.headers()["x-reduct-last"] == "true";
        let names = answer
            .headers()
            .keys()
            .filter_map(|name| name.as_str().strip_prefix("x-reduct-time-"));
        let mut times: Vec<u64> = names.map(|ts| ts.parse().unwrap()).collect();
        times.sort_unstable();
        Some((times, last))
    }

    async fn find(&self, when: Value) -> Vec<u64> {
        let id = self
            .query("e", json!({"query_type": "QUERY", "only_metadata": true, "when": when}))
            .await;
        self.heads("e", id).await.map(|(times, _)| times).unwrap_or_default()
    }

    /// Starts an upload of 1000 bytes by hand and sends 300 of them.
    async fn begin_upload(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.server.address()).await.unwrap();
        let head = format!(
            "POST /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ROOT}\r\nContent-Length: 1000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[b'y'; 300]).await.unwrap();
        self.server
            .wait_until(|log| log.last().is_some_and(|request| request.bytes_in == 300))
            .await;
        stream
    }
}

/// Status and text, after a look at body and header.
async fn failure(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let header = response.headers()["x-reduct-error"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["server"], "ReductStore 1.21.5");
    assert_eq!(response.headers()["x-reduct-api"], "1.21");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["detail"], header.replace('"', "'"));
    (status, header)
}

fn is(status: u16, detail: &str) -> (u16, String) {
    (status, detail.to_owned())
}

#[tokio::test]
async fn health_and_information() {
    let bench = Bench::new().await;
    for path in ["/alive", "/ready"] {
        assert_eq!(bench.anonymous(Method::HEAD, path).send().await.unwrap().status(), 200);
    }
    let info = bench.json("/info").await;
    assert_eq!((&info["version"], &info["bucket_count"]), (&json!("1.21.5"), &json!(1)));
    let empty = ReductStore::default();
    let server = empty.serve().await.unwrap();
    let request = bench
        .client
        .get(format!("{}api/v1/info", server.url()))
        .bearer_auth(empty.root_token().unwrap());
    let info: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(info["oldest_record"], u64::MAX);
    assert_eq!(failure(bench.get("/nope").await).await, is(404, "Not found"));
    assert_eq!(failure(bench.get("/tokens/").await).await, is(404, "Not found"));
    let refused = bench.post("/info", "").await;
    assert_eq!(
        (refused.status().as_u16(), refused.headers()["allow"].to_str().unwrap()),
        (405, "GET,HEAD")
    );
}

#[tokio::test]
async fn authentication() {
    let bench = Bench::new().await;
    let send = async |request: RequestBuilder| failure(request.send().await.unwrap()).await;
    let missing = is(401, "No bearer token in request header");
    assert_eq!(send(bench.anonymous(Method::GET, "/info")).await, missing);
    assert_eq!(
        send(bench.anonymous(Method::GET, "/info").header("Authorization", ROOT)).await,
        missing
    );
    assert_eq!(
        send(bench.anonymous(Method::GET, "/info").bearer_auth("bad")).await,
        is(401, "Invalid token")
    );
    let value = bench.store.create_token("short", Permissions::full()).unwrap();
    assert!(bench.store.expire_token("short"));
    assert_eq!(
        send(bench.anonymous(Method::GET, "/info").bearer_auth(&value)).await,
        is(401, "Token has expired")
    );
    let head = bench.anonymous(Method::HEAD, "/info").send().await.unwrap();
    assert_eq!(head.headers()["x-reduct-error"], "No bearer token in request header");
    let me = bench.json("/me").await;
    assert_eq!((&me["name"], &me["is_provisioned"]), (&json!(ROOT_TOKEN), &json!(true)));
    assert_eq!(
        bench.server.requests().last().unwrap().authenticated_as.as_deref(),
        Some(ROOT_TOKEN)
    );

    let open = Bench::with(Options {
        auth: Auth::Disabled,
        ..Options::default()
    })
    .await;
    let me: Value = open
        .anonymous(Method::GET, "/me")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(me["name"], "AUTHENTICATION-DISABLED");
    assert_eq!(me["permissions"]["full_access"], true);
    assert_eq!(open.json("/tokens").await, json!({"tokens": []}));
    assert_eq!(
        failure(open.post("/tokens/a", "{}").await).await,
        is(400, "Authentication is disabled")
    );
}

#[tokio::test]
async fn the_first_form_of_the_token_api() {
    let bench = Bench::with(Options {
        auth: Auth::Token(ROOT.into()),
        token_api: TokenApi::First,
        ..Options::default()
    })
    .await;
    assert_eq!(bench.get("/me").await.status(), 404);
    let current = r#"{"permissions":{"full_access":false,"read":["bk"],"write":[]}}"#;
    assert_eq!(bench.post("/tokens/t", current).await.status(), 422);
    let flat = r#"{"full_access":false,"read":["bk"],"write":[]}"#;
    let made: Value = bench.post("/tokens/t", flat).await.json().await.unwrap();
    assert!(made["value"].as_str().unwrap().starts_with("t-"));
    assert_eq!(bench.json("/tokens/t").await["permission"]["read"], json!(["bk"]));
    let list = bench.json("/tokens").await;
    let items = list["tokens"].as_array().unwrap();
    assert!(items.iter().all(|item| item.as_object().unwrap().len() == 2), "{list}");
    assert_eq!(bench.post("/tokens/t/rotate", "").await.status(), 404);
    assert_eq!(bench.store.token_names(), ["init-token", "t"]);
}

#[tokio::test]
async fn tokens_are_made_shown_rotated_and_removed() {
    let bench = Bench::new().await;
    let current = r#"{"permissions":{"full_access":false,"read":["bk"],"write":[]},"ttl":100}"#;
    let made: Value = bench.post("/tokens/rd", current).await.json().await.unwrap();
    let value = made["value"].as_str().unwrap().to_owned();
    assert!(value.starts_with("rd-") && value.len() == 35);
    assert_eq!(
        failure(bench.post("/tokens/rd", current).await).await,
        is(409, "Token 'rd' already exists")
    );
    assert_eq!(
        bench
            .post("/tokens/flat", r#"{"full_access":false,"read":[],"write":["b*"]}"#)
            .await
            .status(),
        200
    );
    assert_eq!(bench.post("/tokens/none", "{}").await.status(), 200);
    for body in ["", "{x", r#"{"foo":1}"#] {
        assert_eq!(
            failure(bench.post("/tokens/bad", body).await).await,
            is(422, "Invalid body")
        );
    }
    let past = r#"{"permissions":{},"expires_at":"2020-01-01T00:00:00Z"}"#;
    assert_eq!(failure(bench.post("/tokens/old", past).await).await.0, 422);
    let shown = bench.json("/tokens/rd").await;
    assert_eq!((&shown["value"], &shown["ttl"]), (&json!(""), &json!(100)));
    assert_eq!(bench.json("/tokens").await["tokens"].as_array().unwrap().len(), 4);
    let rotated: Value = bench.post("/tokens/rd/rotate", "").await.json().await.unwrap();
    assert_ne!(rotated["value"], value);
    let old = bench
        .anonymous(Method::GET, "/me")
        .bearer_auth(&value)
        .send()
        .await
        .unwrap();
    assert_eq!(failure(old).await, is(401, "Invalid token"));
    assert_eq!(
        bench.call(Method::DELETE, "/tokens/rd").send().await.unwrap().status(),
        200
    );
    assert_eq!(
        failure(bench.get("/tokens/rd").await).await,
        is(404, "Token 'rd' doesn't exist")
    );
    let root = bench.call(Method::DELETE, "/tokens/init-token").send().await.unwrap();
    assert_eq!(
        failure(root).await,
        is(409, "Can't remove provisioned token 'init-token'")
    );
    assert!(bench.store.set_permissions("flat", Permissions::full()));
    assert!(bench.store.revoke_token("flat") && !bench.store.revoke_token("flat"));
}

#[tokio::test]
async fn rights_per_bucket() {
    let bench = Bench::new().await;
    bench.store.put("bk", "e", 1, StoredRecord::plain("x"));
    bench.store.create_bucket("other");
    let reader = bench
        .store
        .create_token("rd", Permissions::buckets(&["bk"], &[]))
        .unwrap();
    let writer = bench
        .store
        .create_token("wr", Permissions::buckets(&[], &["b*"]))
        .unwrap();
    let nobody = bench.store.create_token("no", Permissions::default()).unwrap();
    let status = async |token: &str, method: Method, path: &str, body: &str| {
        let request = bench.anonymous(method, path).bearer_auth(token).body(body.to_owned());
        request.send().await.unwrap().status().as_u16()
    };
    let query = r#"{"query_type":"QUERY"}"#;
    let wipe = r#"{"query_type":"REMOVE","start":9,"stop":10}"#;
    for (method, path, body, expected) in [
        (Method::GET, "/info", "", [200, 200, 200]),
        (Method::HEAD, "/b/bk", "", [200, 200, 200]),
        (Method::GET, "/b/bk", "", [200, 403, 403]),
        (Method::GET, "/b/other", "", [403, 403, 403]),
        (Method::GET, "/b/none", "", [403, 403, 403]),
        (Method::GET, "/b/bk/e?ts=1", "", [200, 403, 403]),
        (Method::HEAD, "/b/bk/e?ts=1", "", [200, 403, 403]),
        (Method::POST, "/b/bk/e/q", query, [200, 403, 403]),
        (Method::POST, "/b/bk/e/q", wipe, [403, 200, 403]),
        (Method::PATCH, "/b/bk/e?ts=1", "", [403, 200, 403]),
        (Method::PUT, "/b/bk/e/rename", r#"{"new_name":"e"}"#, [403, 409, 403]),
        (Method::POST, "/b/bk/new?ts=1", "x", [403, 200, 403]),
        (Method::DELETE, "/b/bk/new?ts=1", "", [403, 200, 403]),
        (Method::DELETE, "/b/bk/new", "", [403, 200, 403]),
        (Method::POST, "/b/other/e?ts=1", "x", [403, 403, 403]),
        (Method::POST, "/b/made", "", [403, 403, 403]),
        (Method::PUT, "/b/bk", "{}", [403, 403, 403]),
        (Method::DELETE, "/b/bk", "", [403, 403, 403]),
        (Method::GET, "/tokens", "", [403, 403, 403]),
    ] {
        for (token, expected) in [&reader, &writer, &nobody].into_iter().zip(expected) {
            assert_eq!(
                status(token, method.clone(), path, body).await,
                expected,
                "{method} {path} {token}"
            );
        }
    }
    let list = async |token: &str| -> Value {
        bench
            .anonymous(Method::GET, "/list")
            .bearer_auth(token)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    };
    assert_eq!(list(&reader).await["buckets"].as_array().unwrap().len(), 1);
    assert_eq!(list(&writer).await["buckets"].as_array().unwrap().len(), 0);
    let denied = bench
        .anonymous(Method::GET, "/b/bk")
        .bearer_auth(&nobody)
        .send()
        .await
        .unwrap();
    assert_eq!(
        failure(denied).await,
        is(403, "Token 'no' doesn't have read access to bucket 'bk'")
    );
    let denied = bench
        .anonymous(Method::DELETE, "/b/bk")
        .bearer_auth(&nobody)
        .send()
        .await
        .unwrap();
    assert_eq!(failure(denied).await, is(403, "Token 'no' doesn't have full access"));
}

#[tokio::test]
async fn buckets() {
    let bench = Bench::new().await;
    assert_eq!(
        failure(bench.post("/b/bk", "").await).await,
        is(409, "Bucket 'bk' already exists")
    );
    for (name, body) in [("a.b", ""), ("x", "{bad"), ("x", r#"{"quota_type":"X"}"#)] {
        assert_eq!(
            failure(bench.post(&format!("/b/{name}"), body).await).await.0,
            422,
            "{name} {body}"
        );
    }
    assert_eq!(
        failure(bench.post(&format!("/b/{}", "n".repeat(256)), "").await)
            .await
            .0,
        500
    );
    assert_eq!(
        bench
            .post("/b/made", r#"{"quota_type":"FIFO","quota_size":5}"#)
            .await
            .status(),
        200
    );
    let update = bench
        .call(Method::PUT, "/b/made")
        .body(r#"{"quota_size":6}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(update.status(), 200);
    let made = bench.json("/b/made").await;
    let expected =
        json!({"quota_type": "FIFO", "quota_size": 6, "max_block_size": 64_000_000, "max_block_records": 1024});
    assert_eq!(made["settings"], expected);
    assert_eq!(made["entries"], json!([]));
    assert_eq!(
        failure(bench.get("/b/none").await).await,
        is(404, "Bucket 'none' is not found")
    );

    let token = bench
        .store
        .create_token("t", Permissions::buckets(&["made"], &["made"]))
        .unwrap();
    let rename = |body: &'static str| bench.call(Method::PUT, "/b/made/rename").body(body);
    let untyped = rename(r#"{"new_name":"moved"}"#).send().await.unwrap();
    assert_eq!(untyped.status(), 415);
    assert_eq!(
        untyped.text().await.unwrap(),
        "Expected request with `Content-Type: application/json`"
    );
    let typed = |body| rename(body).header("Content-Type", "application/json").send();
    assert_eq!(typed("{").await.unwrap().status(), 400);
    assert_eq!(typed("{}").await.unwrap().status(), 422);
    assert_eq!(failure(typed(r#"{"new_name":"bk"}"#).await.unwrap()).await.0, 409);
    assert_eq!(typed(r#"{"new_name":"moved"}"#).await.unwrap().status(), 200);
    let me = bench.anonymous(Method::GET, "/me").bearer_auth(&token);
    let me: Value = me.send().await.unwrap().json().await.unwrap();
    assert_eq!(me["permissions"]["read"], json!(["moved"]));

    bench.store.provision_bucket("fixed");
    let fixed = bench.call(Method::DELETE, "/b/fixed").send().await.unwrap();
    assert_eq!(failure(fixed).await.0, 409);
}

#[tokio::test]
async fn removal_takes_its_time() {
    let bench = Bench::new().await;
    for entry in ["dir", "dir/sub", "directory"] {
        bench.store.put("bk", entry, 1, StoredRecord::plain("x"));
    }
    assert_eq!(
        bench.call(Method::DELETE, "/b/bk/dir").send().await.unwrap().status(),
        200
    );
    let going = bench.get("/b/bk/dir?ts=1").await;
    assert_eq!(
        failure(going).await,
        is(409, "Entry 'dir' in bucket 'bk' is being deleted")
    );
    let listed = bench.json("/b/bk").await;
    assert_eq!(listed["entries"][0]["name"], "dir/sub");
    assert_eq!(listed["entries"][0]["status"], "DELETING");
    assert_eq!(failure(bench.get("/b/bk/dir/sub?ts=1").await).await.0, 404);
    assert_eq!(bench.store.entries("bk").unwrap(), ["directory"]);

    bench
        .store
        .create_token("t", Permissions::buckets(&["bk"], &[]))
        .unwrap();
    assert_eq!(bench.call(Method::DELETE, "/b/bk").send().await.unwrap().status(), 200);
    assert_eq!(
        failure(bench.get("/b/bk").await).await,
        is(409, "Bucket 'bk' is being deleted")
    );
    assert_eq!(failure(bench.get("/b/bk").await).await.0, 404);
    assert_eq!(bench.json("/tokens/t").await["permissions"]["read"], json!([]));

    let quick = Options {
        auth: Auth::Token(ROOT.into()),
        removal: Removal::AtOnce,
        ..Options::default()
    };
    let bench = Bench::with(quick).await;
    assert_eq!(bench.call(Method::DELETE, "/b/bk").send().await.unwrap().status(), 200);
    assert_eq!(bench.post("/b/bk", "").await.status(), 200);
}

#[tokio::test]
async fn records_are_written_and_read() {
    let bench = Bench::new().await;
    let post = |path: &str| bench.call(Method::POST, path).body("hello");
    let typed = post("/b/bk/a/b/c?ts=1000").header("Content-Type", "text/plain");
    let written = typed
        .header("x-reduct-label-Name", "foo")
        .header("x-reduct-label-x", "a,b")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            written.status().as_u16(),
            written.headers()["content-length"].to_str().unwrap()
        ),
        (200, "0")
    );
    assert_eq!(bench.store.entries("bk").unwrap(), ["a", "a/b", "a/b/c"]);
    for method in [Method::GET, Method::HEAD] {
        let request = bench
            .call(method.clone(), "/b/bk/a/b/c?ts=1000")
            .header("Range", "bytes=0-1");
        let read = request.send().await.unwrap();
        assert_eq!(read.status(), 200);
        for (name, value) in [
            ("content-type", "text/plain"),
            ("content-length", "5"),
            ("content-disposition", "attachment"),
            ("x-reduct-time", "1000"),
            ("x-reduct-entry", "a/b/c"),
            ("x-reduct-label-name", "foo"),
            ("x-reduct-label-x", "a,b"),
        ] {
            assert_eq!(read.headers()[name], value);
        }
        assert!(!read.headers().contains_key("accept-ranges"));
        let body = if method == Method::GET { "hello" } else { "" };
        assert_eq!(read.text().await.unwrap(), body);
    }
    let exists = is(409, "A record with timestamp 1000 already exists");
    assert_eq!(failure(post("/b/bk/a/b/c?ts=1000").send().await.unwrap()).await, exists);
    assert_eq!(
        post(&format!("/b/bk/e?ts={}", u64::MAX)).send().await.unwrap().status(),
        200
    );
    // An HTTP library leaves the header out for an empty body; the real server insists on it all the same.
    let empty = || bench.call(Method::POST, "/b/bk/e?ts=0").body("");
    assert_eq!(
        failure(empty().send().await.unwrap()).await,
        is(422, "content-length header is required")
    );
    assert_eq!(
        empty().header("Content-Length", "0").send().await.unwrap().status(),
        200
    );
    let latest = bench.get("/b/bk/e").await;
    assert_eq!(latest.headers()["x-reduct-time"], u64::MAX.to_string());
    for (path, expected) in [
        ("/b/bk/e", is(422, "'ts' parameter is required")),
        (
            "/b/bk/e?ts=x",
            is(422, "'ts' must be an unix timestamp in microseconds"),
        ),
        ("/b/none/e?ts=1", is(404, "Bucket 'none' is not found")),
    ] {
        assert_eq!(failure(post(path).send().await.unwrap()).await, expected);
    }
    for entry in ["a.b", "a//b", "a/", "a%20b", "%C3%BC"] {
        let refused = post(&format!("/b/bk/{entry}?ts=1")).send().await.unwrap();
        assert_eq!(failure(refused).await.0, 422, "{entry}");
    }
    assert_eq!(
        failure(post(&format!("/b/bk/{}?ts=1", "n".repeat(256))).send().await.unwrap())
            .await
            .0,
        500
    );
    assert_eq!(post("/b/bk/rename?ts=1").send().await.unwrap().status(), 405);
    for (path, text) in [
        ("/b/bk/a?ts=1", "Record 1 not found in entry bk/a"),
        ("/b/bk/none?ts=1", "Entry 'none' not found in bucket 'bk'"),
        ("/b/none/e?ts=1", "Bucket 'none' is not found"),
    ] {
        assert_eq!(failure(bench.get(path).await).await, is(404, text));
    }
}

#[tokio::test]
async fn lengths_that_do_not_match_leave_broken_records() {
    let bench = Bench::new().await;
    let chunked = |ts: u64, length: Option<&str>| {
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("hello")]));
        let request = bench.call(Method::POST, &format!("/b/bk/e?ts={ts}")).body(body);
        match length {
            Some(length) => request.header("x-reduct-content-length", length).send(),
            None => request.send(),
        }
    };
    assert_eq!(
        failure(chunked(1, None).await.unwrap()).await,
        is(422, "content-length header is required")
    );
    assert_eq!(failure(chunked(1, Some("x")).await.unwrap()).await.0, 422);
    for (ts, length, status) in [(2, "5", 200), (3, "9", 500), (4, "3", 500)] {
        assert_eq!(chunked(ts, Some(length)).await.unwrap().status(), 200);
        let head = bench
            .call(Method::HEAD, &format!("/b/bk/e?ts={ts}"))
            .send()
            .await
            .unwrap();
        assert_eq!(head.status(), status, "{length}");
    }
    let broken = is(500, "Record with timestamp 3 in bk/e is broken");
    assert_eq!(failure(bench.get("/b/bk/e?ts=3").await).await, broken);
    let id = bench.query("e", json!({"query_type": "QUERY"})).await;
    assert_eq!(bench.heads("e", id).await, Some((vec![2], true)));
    assert_eq!(bench.post("/b/bk/e?ts=3", "other").await.status(), 409);
    assert_eq!(bench.post("/b/bk/e?ts=3", "same size").await.status(), 200);
    assert_eq!(bench.get("/b/bk/e?ts=3").await.text().await.unwrap(), "same size");
    assert_eq!(
        bench
            .call(Method::DELETE, "/b/bk/e?ts=4")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert!(bench.store.break_record("bk", "e", 2) && bench.store.read("bk", "e", 2).is_none());
}

#[tokio::test]
async fn uploads_under_way_and_cut_off() {
    let bench = Bench::new().await;
    let mut stream = bench.begin_upload("/b/bk/e?ts=5").await;
    let early = is(425, "Record with timestamp 5 in bk/e is still being written");
    assert_eq!(failure(bench.get("/b/bk/e?ts=5").await).await, early);
    assert_eq!(bench.post("/b/bk/e?ts=5", "x").await.status(), 409);
    assert_eq!(bench.json("/b/bk").await["entries"][0]["record_count"], 1);
    let id = bench
        .query("e", json!({"query_type": "QUERY", "only_metadata": true}))
        .await;
    assert_eq!(bench.heads("e", id).await, None);
    stream.write_all(&[b'y'; 700]).await.unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert_eq!(bench.get("/b/bk/e?ts=5").await.bytes().await.unwrap().len(), 1000);

    let stream = bench.begin_upload("/b/bk/e?ts=6").await;
    let cut_off = bench.store.shared.changed.notified();
    drop(stream);
    cut_off.await;
    assert_eq!(failure(bench.get("/b/bk/e?ts=6").await).await.0, 500);
    assert_eq!(bench.store.timestamps("bk", "e").unwrap(), [5, 6]);
}

#[tokio::test]
async fn a_stopped_server_leaves_the_upload_broken() {
    let bench = Bench::new().await;
    let _stream = bench.begin_upload("/b/bk/e?ts=5").await;
    let address = bench.server.address();
    bench.server.stop().await;
    let server = bench.store.start_on(address).await.unwrap();
    let url = format!("{}api/v1/b/bk/e?ts=5", server.url());
    let read = bench.client.get(url).bearer_auth(ROOT).send().await.unwrap();
    assert_eq!(failure(read).await.0, 500);
}

#[tokio::test]
async fn labels_change_and_vanish() {
    let bench = Bench::new().await;
    bench.store.put(
        "bk",
        "e",
        1,
        StoredRecord::plain("x")
            .with_label("name", "foo")
            .with_label("kept", "1"),
    );
    let patch = |path: &str| bench.call(Method::PATCH, path);
    let changed = patch("/b/bk/e?ts=1")
        .header("x-reduct-label-name", "")
        .header("x-reduct-label-new", "v w");
    assert_eq!(
        changed
            .header("Content-Type", "image/png")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    let record = bench.store.read("bk", "e", 1).unwrap();
    assert_eq!(
        record,
        StoredRecord::plain("x")
            .with_label("kept", "1")
            .with_label("new", "v w")
    );
    assert_eq!(failure(patch("/b/bk/e?ts=2").send().await.unwrap()).await.0, 404);
    assert_eq!(failure(patch("/b/bk/e").send().await.unwrap()).await.0, 422);
    let unicode = patch("/b/bk/e?ts=1").header("x-reduct-label-u", "ü");
    let expected = is(422, "Label values for x-reduct-label-u must be valid UTF-8 strings");
    assert_eq!(failure(unicode.send().await.unwrap()).await, expected);
}

#[tokio::test]
async fn deletion_by_time_batch_query_and_entry() {
    let bench = Bench::new().await;
    for ts in 1..=20 {
        bench.store.put("bk", "e", ts, StoredRecord::plain("x"));
    }
    let delete = |path: &str| bench.call(Method::DELETE, path);
    assert_eq!(delete("/b/bk/e?ts=1").send().await.unwrap().status(), 200);
    assert_eq!(failure(delete("/b/bk/e?ts=1").send().await.unwrap()).await.0, 404);
    for path in ["/b/bk/e?time=2", "/b/bk/e?ts="] {
        assert_eq!(failure(delete(path).send().await.unwrap()).await.0, 422, "{path}");
    }
    let batch = delete("/b/bk/e/batch")
        .header("x-reduct-time-2", "")
        .header("x-reduct-time-1", "");
    let answer = batch.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.headers()["x-reduct-error-1"],
        "404,Record 1 not found in entry bk/e"
    );
    assert!(!answer.headers().contains_key("x-reduct-error-2"));
    let removed: Value = delete("/b/bk/e/q?start=3&stop=6")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(removed, json!({"removed_records": 3}));
    let limited = bench
        .post("/b/bk/e/q", r#"{"query_type":"REMOVE","when":{"$limit":2}}"#)
        .await;
    assert_eq!(limited.json::<Value>().await.unwrap(), json!({"removed_records": 2}));
    assert_eq!(bench.store.timestamps("bk", "e").unwrap(), (8..=20).collect::<Vec<_>>());
    let unbounded = failure(bench.post("/b/bk/e/q", r#"{"query_type":"REMOVE"}"#).await).await;
    assert_eq!(
        unbounded,
        is(422, "Define at least one query parameter to delete records")
    );

    let made = bench
        .post("/b/bk/new/dir/q", r#"{"query_type":"REMOVE","start":0,"stop":1}"#)
        .await;
    assert_eq!(made.status(), 200);
    assert_eq!(bench.store.entries("bk").unwrap(), ["e", "new", "new/dir"]);
    assert_eq!(delete("/b/bk/e").send().await.unwrap().status(), 200);
    assert!(bench.store.timestamps("bk", "e").is_none_or(|times| times.is_empty()));
}

#[tokio::test]
async fn entries_are_renamed_with_their_children() {
    let bench = Bench::new().await;
    for entry in ["p/x", "pp", "l"] {
        bench.store.put("bk", entry, 1, StoredRecord::plain("x"));
    }
    let rename = async |entry: &str, name: &str| {
        let body = json!({"new_name": name}).to_string();
        bench
            .call(Method::PUT, &format!("/b/bk/{entry}/rename"))
            .body(body)
            .send()
            .await
            .unwrap()
    };
    assert_eq!(
        failure(rename("p", "l").await).await,
        is(409, "Entry 'l' already exists in bucket 'bk'")
    );
    for (entry, name, status) in [
        ("p", "p/y", 409),
        ("p", "p", 409),
        ("none", "z", 404),
        ("p", "a.b", 422),
        ("p", "", 422),
    ] {
        assert_eq!(failure(rename(entry, name).await).await.0, status, "{entry} {name}");
    }
    assert_eq!(rename("p", "deep/q").await.status(), 200);
    assert_eq!(
        bench.store.entries("bk").unwrap(),
        ["deep", "deep/q", "deep/q/x", "l", "pp"]
    );
}

#[tokio::test]
async fn queries_come_in_batches() {
    let bench = Bench::new().await;
    for ts in 1..=200 {
        bench.store.put(
            "bk",
            "e",
            ts,
            StoredRecord::plain(format!("<{ts}>")).with_label("z", "a, b"),
        );
    }
    let id = bench
        .query("e", json!({"query_type": "QUERY", "only_metadata": true}))
        .await;
    let mut sizes = Vec::new();
    while let Some((times, last)) = bench.heads("e", id).await {
        sizes.push((times.len(), last));
    }
    assert_eq!(sizes, [(85, false), (85, false), (30, true)]);

    let id = bench
        .query("e", json!({"query_type": "QUERY", "start": 3, "stop": 5}))
        .await;
    let batch = bench.get(&format!("/b/bk/e/batch?q={id}")).await;
    assert_eq!(
        batch.headers()["x-reduct-time-3"],
        "3,application/octet-stream,z=\"a, b\""
    );
    assert_eq!(batch.headers()["content-length"], "6");
    assert_eq!(batch.text().await.unwrap(), "<3><4>");
    let end = bench.get(&format!("/b/bk/e/batch?q={id}")).await;
    assert_eq!(
        (end.status().as_u16(), end.headers()["x-reduct-error"].to_str().unwrap()),
        (204, "No content")
    );

    let id = bench.query("e", json!({"query_type": "QUERY", "start": 199})).await;
    assert_eq!(
        bench.get(&format!("/b/bk/e?q={id}")).await.headers()["x-reduct-time"],
        "199"
    );
    assert!(bench.store.remove("bk", "e", 200));
    assert_eq!(bench.get(&format!("/b/bk/e?q={id}")).await.status(), 204);

    let id = bench
        .query("e", json!({"query_type": "QUERY", "only_metadata": true}))
        .await;
    assert!(
        bench
            .call(Method::GET, &format!("/b/bk/e/batch?q={id}"))
            .send()
            .await
            .is_err()
    );
    bench.store.expire_queries();
    assert_eq!(failure(bench.get(&format!("/b/bk/e/batch?q={id}")).await).await.0, 404);
    assert_eq!(failure(bench.get("/b/bk/e/batch").await).await.0, 422);
}

#[tokio::test]
async fn large_records_close_a_batch() {
    let bench = Bench::new().await;
    for ts in 1..=3 {
        bench.store.put("bk", "e", ts, StoredRecord::plain(vec![0; 5_000_000]));
    }
    let id = bench.query("e", json!({"query_type": "QUERY"})).await;
    let first = bench.get(&format!("/b/bk/e/batch?q={id}")).await;
    assert_eq!(
        (&first.headers()["x-reduct-last"], &first.headers()["content-length"]),
        (&"false".parse().unwrap(), &"10000000".parse().unwrap())
    );
    let id = bench.query("e", json!({"query_type": "QUERY"})).await;
    assert_eq!(bench.heads("e", id).await, Some((vec![1, 2, 3], true)));
}

#[tokio::test]
async fn bounds_of_queries() {
    let bench = Bench::new().await;
    bench.store.put("bk", "e", 10, StoredRecord::plain("x"));
    bench.store.put("bk", "e", 40, StoredRecord::plain("x"));
    for (bounds, status) in [
        (r#""start":41"#, 200),
        (r#""start":42"#, 422),
        (r#""start":42,"continuous":true"#, 200),
        (r#""stop":3"#, 422),
        (r#""start":10,"stop":10"#, 200),
        (r#""start":11,"stop":10"#, 422),
        (r#""start":-1"#, 422),
        (r#""limit":1"#, 200),
    ] {
        let answer = bench
            .post("/b/bk/e/q", &format!(r#"{{"query_type":"QUERY",{bounds}}}"#))
            .await;
        assert_eq!(answer.status(), status, "{bounds}");
    }
    for body in ["", "{}", r#"{"query_type":"FOO"}"#] {
        assert_eq!(failure(bench.post("/b/bk/e/q", body).await).await.0, 422, "{body}");
    }
    assert_eq!(
        failure(bench.post("/b/bk/none/q", r#"{"query_type":"QUERY"}"#).await)
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn conditions_on_labels() {
    let bench = Bench::new().await;
    for ts in [10, 20, 30] {
        bench.store.put(
            "bk",
            "e",
            ts,
            StoredRecord::plain("x").with_label("n", &format!("v{ts}")),
        );
    }
    assert_eq!(bench.find(json!({"&n": {"$eq": "v20"}})).await, [20]);
    assert_eq!(bench.find(json!({"$limit": 2})).await, [10, 20]);
    assert_eq!(
        bench
            .find(json!({"$and": [{"&n": {"$ne": "v10"}}, {"$limit": 1}]}))
            .await,
        [20]
    );
    assert!(bench.find(json!({"&none": {"$eq": "x"}})).await.is_empty());
    let refused = bench
        .post("/b/bk/e/q", r#"{"query_type":"QUERY","when":{"$foo":1}}"#)
        .await;
    assert_eq!(failure(refused).await, is(422, "Operator '$foo' not supported"));
    let strict = json!({"query_type": "QUERY", "strict": true, "when": {"&none": {"$eq": "x"}}});
    let id = bench.query("e", strict).await;
    let answer = bench.get(&format!("/b/bk/e/batch?q={id}")).await;
    assert_eq!(failure(answer).await, is(404, "Reference 'none' not found"));
}

#[tokio::test]
async fn continuous_queries_see_what_comes() {
    let bench = Arc::new(Bench::new().await);
    bench.store.create_entry("bk", "e");
    let id = bench
        .query("e", json!({"query_type": "QUERY", "continuous": true}))
        .await;
    bench.server.forget_requests();
    let waiting = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { bench.heads("e", id).await }
    });
    bench.server.wait_until(|log| !log.is_empty()).await;
    bench.store.put("bk", "e", 7, StoredRecord::plain("x"));
    assert_eq!(waiting.await.unwrap().unwrap().0, [7]);
}

#[tokio::test]
async fn quotas() {
    let bench = Bench::new().await;
    let body = "z".repeat(600);
    bench
        .post("/b/hard", r#"{"quota_type":"HARD","quota_size":1000}"#)
        .await;
    assert_eq!(bench.post("/b/hard/e?ts=1", &body).await.status(), 200);
    assert_eq!(
        failure(bench.post("/b/hard/e?ts=2", &body).await).await,
        is(400, "Quota of 'hard' exceeded")
    );
    bench
        .post(
            "/b/fifo",
            r#"{"quota_type":"FIFO","quota_size":1000,"max_block_records":1}"#,
        )
        .await;
    for ts in 1..=3 {
        assert_eq!(bench.post(&format!("/b/fifo/e?ts={ts}"), &body).await.status(), 200);
    }
    assert_eq!(bench.store.timestamps("fifo", "e").unwrap(), [3]);
    let large = failure(bench.post("/b/fifo/e?ts=9", &body.repeat(2)).await).await;
    assert_eq!(large, is(500, "Failed to keep quota of 'fifo'"));
}

#[tokio::test]
async fn faults_apply_here_too() {
    let bench = Bench::new().await;
    let limit = Fault::Status {
        status: 429,
        headers: Vec::new(),
        body: "retry_after=60s".into(),
    };
    bench.server.faults().inject(Rule::once(Method::POST, "/b/bk/e", limit));
    let limited = bench.post("/b/bk/e?ts=1", "x").await;
    assert_eq!(limited.status(), 429);
    assert!(!limited.headers().contains_key("x-reduct-api"));
    bench
        .server
        .faults()
        .inject(Rule::once(Method::POST, "/b/bk/e", Fault::LieAboutSuccess));
    assert_eq!(bench.post("/b/bk/e?ts=1", "x").await.status(), 200);
    assert_eq!(bench.store.read("bk", "e", 1), None);
    assert_eq!(bench.post("/b/bk/e?ts=1", "x").await.status(), 200);
}
