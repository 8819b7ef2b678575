use reqwest::multipart::{Form, Part};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use super::*;
use crate::emulator::Running;

/// A drive, its server, and requests as one of its tokens.
struct Bench {
    drive: Drive,
    server: Running,
    client: Client,
}

impl Bench {
    async fn new(assumptions: Assumptions) -> Self {
        let store = CludzStore::new(assumptions);
        let drive = store.add_drive();
        let server = store.serve().await.unwrap();
        Self {
            drive,
            server,
            client: Client::builder().no_proxy().build().unwrap(),
        }
    }

    async fn plain() -> Self {
        Self::new(Assumptions::default()).await
    }

    fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        let base = self.server.url();
        self.client
            .request(method, format!("{base}storage/{}{path}", self.drive.id()))
    }

    fn owner(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).header("Token", self.drive.owner_token())
    }

    async fn upload(&self, folder: &str, name: &str, content: &str) -> Response {
        self.owner(Method::POST, folder)
            .multipart(file(name, content))
            .send()
            .await
            .unwrap()
    }

    async fn create(&self, folder: &str, body: Value) -> Response {
        self.owner(Method::POST, folder).json(&body).send().await.unwrap()
    }

    async fn rename(&self, path: &str, name: &str) -> Response {
        self.owner(Method::PUT, path)
            .json(&json!({"new_name": name}))
            .send()
            .await
            .unwrap()
    }
}

fn file(name: &str, content: &str) -> Form {
    Form::new().part("file", Part::text(content.to_owned()).file_name(name.to_owned()))
}

/// Status and message, after a look at the envelope.
async fn outcome(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["statusCode"], status);
    (status, body["message"].as_str().unwrap().to_owned())
}

async fn sent(request: RequestBuilder) -> (u16, String) {
    outcome(request.send().await.unwrap()).await
}

fn is(status: u16, message: &str) -> (u16, String) {
    (status, message.to_owned())
}

#[tokio::test]
async fn listing_has_the_documented_fields() {
    let bench = Bench::plain().await;
    bench.drive.put("/docs/a b.txt", "hello").unwrap();
    bench.drive.mkdir("/docs/public").unwrap();
    bench.drive.mkdir("/docs/shared").unwrap();
    bench.drive.mkdir("/docs/private").unwrap();
    bench.drive.set_sharing("/docs/public", Sharing::Public).unwrap();
    bench.drive.share("alice");
    bench.drive.set_grant("alice", "/docs/shared", Grant::Read).unwrap();
    let body: Value = bench
        .owner(Method::GET, "/docs/")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(body["statusCode"], 200);
    assert_eq!(body["message"], "Directory contents");
    let entries = body["data"].as_array().unwrap();
    let names: Vec<&str> = entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a b.txt", "private", "public", "shared"]);
    let file = entries[0].as_object().unwrap();
    assert_eq!(file["size"], 5);
    assert_eq!(file["isDirectory"], false);
    assert_eq!(
        file["checksum"],
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    let time = file["created_at"].as_str().unwrap();
    assert_eq!((time.len(), &time[19..20], &time[23..]), (24, ".", "Z"), "{time}");
    assert!(!file.contains_key("sharingStatus") && !file.contains_key("mimeType"));
    assert_eq!(entries[1]["sharingStatus"], Value::Null);
    assert_eq!(entries[1]["checksum"], "");
    assert_eq!(entries[2]["sharingStatus"], "public");
    assert_eq!(entries[3]["sharingStatus"], "shared");
}

#[tokio::test]
async fn detail_of_files_folders_and_the_root() {
    let bench = Bench::plain().await;
    bench.drive.put("/docs/ü.png", "hello").unwrap();
    let body: Value = bench
        .owner(Method::GET, "/docs/%C3%BC.png?detail=true")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(body["message"], "File info");
    let data = &body["data"];
    assert_eq!(data["name"], "ü.png");
    assert_eq!(data["path"], "/docs/ü.png");
    assert_eq!(data["mimeType"], "image/png");
    assert_eq!(data["size"], 5);
    assert_eq!(data["isDirectory"], false);
    assert!(data["hash"].as_str().unwrap().starts_with("2cf24d"));
    assert!(data["modified_at"].is_string());
    for path in ["/docs?detail=true", "/docs/?detail=true", "/?detail=true"] {
        let body: Value = bench
            .owner(Method::GET, path)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(body["data"]["isDirectory"], true, "{path}");
    }
    let without = Bench::new(Assumptions {
        detail_has_times: false,
        ..Assumptions::default()
    })
    .await;
    without.drive.put("/a", "").unwrap();
    let body: Value = without
        .owner(Method::GET, "/a?detail=true")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(body["data"].get("modified_at").is_none());
}

#[tokio::test]
async fn downloads_and_ranges() {
    let bench = Bench::plain().await;
    bench.drive.put("/a.txt", "0123456789").unwrap();
    bench.drive.put("/empty", "").unwrap();
    let whole = bench.owner(Method::GET, "/a.txt").send().await.unwrap();
    assert_eq!(whole.status(), 200);
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-length", "10"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(whole.headers()[name], value);
    }
    assert!(
        whole.headers()["content-disposition"]
            .to_str()
            .unwrap()
            .starts_with("inline")
    );
    assert!(whole.headers().contains_key("cache-control"));
    assert_eq!(whole.text().await.unwrap(), "0123456789");

    for (range, content_range, text) in [
        ("bytes=0-0", "bytes 0-0/10", "0"),
        ("bytes=3-5", "bytes 3-5/10", "345"),
        ("bytes=9-9", "bytes 9-9/10", "9"),
        ("bytes=8-100", "bytes 8-9/10", "89"),
        ("bytes=7-", "bytes 7-9/10", "789"),
    ] {
        let part = bench
            .owner(Method::GET, "/a.txt")
            .header("Range", range)
            .send()
            .await
            .unwrap();
        assert_eq!(part.status(), 206, "{range}");
        assert_eq!(part.headers()["content-range"], content_range);
        assert_eq!(part.headers()["content-length"], text.len().to_string());
        assert_eq!(part.text().await.unwrap(), text);
    }
    let beyond = bench
        .owner(Method::GET, "/a.txt")
        .header("Range", "bytes=10-")
        .send()
        .await
        .unwrap();
    assert_eq!(beyond.headers()["content-range"], "bytes */10");
    assert_eq!(outcome(beyond).await.0, 416);
    assert_eq!(
        sent(bench.owner(Method::GET, "/empty").header("Range", "bytes=0-0"))
            .await
            .0,
        416
    );
    assert_eq!(
        sent(bench.owner(Method::GET, "/a.txt").header("Range", "bytes=0-1,3-4"))
            .await
            .0,
        400
    );
    assert_eq!(
        bench.owner(Method::GET, "/empty").send().await.unwrap().headers()["content-length"],
        "0"
    );
}

#[tokio::test]
async fn uploads() {
    let bench = Bench::plain().await;
    bench.drive.mkdir("/docs").unwrap();
    assert_eq!(
        outcome(bench.upload("/docs/", "a.txt", "one").await).await,
        is(201, "Files uploaded")
    );
    assert_eq!(bench.drive.read("/docs/a.txt").unwrap(), "one");
    assert_eq!(
        outcome(bench.upload("/docs/", "a.txt", "one").await).await,
        is(400, "File unchanged")
    );
    assert_eq!(
        outcome(bench.upload("/docs/", "a.txt", "two").await).await,
        is(409, "File exists")
    );
    assert_eq!(
        outcome(bench.upload("/", "docs", "two").await).await,
        is(409, "File exists")
    );
    assert_eq!(
        outcome(bench.upload("/docs", "b.txt", "x").await).await,
        is(400, "Can only upload to directories")
    );
    assert_eq!(
        outcome(bench.upload("/docs/a.txt", "b.txt", "x").await).await,
        is(400, "Can only upload to directories")
    );
    assert_eq!(
        outcome(bench.upload("/none/", "b.txt", "x").await).await,
        is(404, "Not found")
    );
    assert_eq!(outcome(bench.upload("/docs/", "wei\"ß?.txt", "x").await).await.0, 201);
    assert_eq!(bench.drive.list("/docs").unwrap(), ["a.txt", "weiß.txt"]);
    assert_eq!(
        outcome(bench.upload("/docs/", &"n".repeat(51), "x").await).await,
        is(400, "Invalid name")
    );
    let mime = Part::text("x").file_name("typed").mime_str("image/webp").unwrap();
    sent(
        bench
            .owner(Method::POST, "/docs/")
            .multipart(Form::new().part("file", mime)),
    )
    .await;
    assert_eq!(
        bench.owner(Method::GET, "/docs/typed").send().await.unwrap().headers()["content-type"],
        "image/webp"
    );
}

#[tokio::test]
async fn batches_are_taken_as_a_whole() {
    let bench = Bench::plain().await;
    let two = |second: &'static str| file("a", "1").part("file", Part::text("2").file_name(second));
    let bad = bench.owner(Method::POST, "/").multipart(two("a"));
    assert_eq!(sent(bad).await, is(409, "File exists"));
    assert_eq!(bench.drive.list("/").unwrap().len(), 0);
    assert_eq!(sent(bench.owner(Method::POST, "/").multipart(two("b"))).await.0, 201);
    assert_eq!(bench.drive.list("/").unwrap(), ["a", "b"]);
}

#[tokio::test]
async fn malformed_uploads_are_refused() {
    let bench = Bench::plain().await;
    let post = || bench.owner(Method::POST, "/");
    let nameless = Form::new().part("file", Part::text("x"));
    let misnamed = Form::new().part("upload", Part::text("x").file_name("x"));
    let mixed = file("x", "x").text("path", "/");
    for form in [nameless, misnamed, mixed, Form::new()] {
        assert_eq!(sent(post().multipart(form)).await.0, 400);
    }
    for rest in ["", "\r\n--b", "\r\n--b--\r\nmore"] {
        let body = format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nx{rest}");
        let post = post().header("Content-Type", "multipart/form-data; boundary=b");
        assert_eq!(sent(post.body(body)).await.0, 400, "{rest}");
    }
    assert_eq!(
        sent(post().header("Content-Type", "application/octet-stream").body("x"))
            .await
            .0,
        400
    );
    assert_eq!(sent(post().body("x")).await.0, 400);
    assert_eq!(
        sent(post().header("Content-Type", "multipart/form-data").body("x"))
            .await
            .0,
        400
    );
    assert_eq!(bench.drive.list("/").unwrap().len(), 0);
}

#[tokio::test]
async fn switchable_upload_rules() {
    let replacing = Assumptions {
        overwrite: Overwrite::Replace,
        file_limit: 4,
        ..Assumptions::default()
    };
    let bench = Bench::new(replacing).await;
    bench.drive.put("/a", "old").unwrap();
    let before = bench.drive.info("/a").unwrap();
    assert_eq!(outcome(bench.upload("/", "a", "new!").await).await.0, 201);
    let after = bench.drive.info("/a").unwrap();
    assert_eq!(after.created, before.created);
    assert!(after.modified > before.modified);
    assert_eq!(
        outcome(bench.upload("/", "a", "new!").await).await,
        is(400, "File unchanged")
    );
    assert_eq!(outcome(bench.upload("/", "b", "new!").await).await.0, 201);
    assert_eq!(
        outcome(bench.upload("/", "c", "large").await).await,
        is(400, "File exceeds upload limit")
    );

    let anywhere = Bench::new(Assumptions {
        duplicates: Duplicates::Anywhere,
        ..Assumptions::default()
    })
    .await;
    anywhere.drive.put("/deep/down", "same").unwrap();
    assert_eq!(
        outcome(anywhere.upload("/", "b", "same").await).await,
        is(400, "File unchanged")
    );
    let accepted = Bench::new(Assumptions {
        duplicates: Duplicates::Accepted,
        ..Assumptions::default()
    })
    .await;
    accepted.drive.put("/a", "same").unwrap();
    assert_eq!(
        outcome(accepted.upload("/", "a", "same").await).await,
        is(409, "File exists")
    );
}

#[tokio::test]
async fn folders_and_empty_files() {
    let bench = Bench::plain().await;
    assert_eq!(
        outcome(bench.create("/", json!({"type": "folder", "name": "x"})).await).await,
        is(201, "Folder created")
    );
    assert_eq!(
        outcome(bench.create("/", json!({"type": "folder", "name": "x"})).await).await,
        is(409, "Folder exists")
    );
    let made = bench.create("/x/", json!({"type": "file", "name": "no?te"})).await;
    assert_eq!(made.status(), 201);
    let body: Value = made.json().await.unwrap();
    let expected = json!({"statusCode": 201, "message": "File created", "location": "/x/note", "fileName": "note"});
    assert_eq!(body, expected);
    assert_eq!(bench.drive.read("/x/note").unwrap(), "");
    assert_eq!(
        outcome(bench.create("/x/", json!({"type": "file", "name": "note"})).await).await,
        is(409, "File exists")
    );
    for name in ["", "..", "???", &"n".repeat(51)] {
        let refused = bench.create("/", json!({"type": "folder", "name": name})).await;
        assert_eq!(outcome(refused).await, is(400, "Invalid folder name"));
    }
    for body in [
        json!({"type": "link", "name": "x"}),
        json!({"type": "folder"}),
        json!({"type": "folder", "name": "y", "parents": true}),
        json!([]),
    ] {
        assert_eq!(
            outcome(bench.create("/", body).await).await,
            is(400, "Invalid JSON body")
        );
    }
    let missing = bench.create("/none/", json!({"type": "folder", "name": "x"})).await;
    assert_eq!(outcome(missing).await.0, 404);
    let slashless = bench.create("/x", json!({"type": "folder", "name": "x"})).await;
    assert_eq!(outcome(slashless).await, is(400, "Can only upload to directories"));
}

#[tokio::test]
async fn renaming_keeps_content_times_and_grants() {
    let bench = Bench::plain().await;
    let secret = bench.drive.share("alice");
    bench.drive.put("/docs/deep/a", "x").unwrap();
    bench.drive.put("/docs/b", "x").unwrap();
    bench.drive.set_grant("alice", "/docs/deep", Grant::Read).unwrap();
    assert_eq!(
        outcome(bench.rename("/docs/deep", "deeper").await).await,
        is(200, "Renamed successfully")
    );
    let read = bench
        .anonymous(Method::GET, "/docs/deeper/a")
        .header("Token", secret)
        .send()
        .await
        .unwrap();
    assert_eq!(read.status(), 200);
    assert_eq!(
        outcome(bench.rename("/docs/b", "deeper").await).await,
        is(409, "Destination already exists")
    );
    assert_eq!(
        outcome(bench.rename("/docs/none", "c").await).await,
        is(404, "Not found")
    );
    assert_eq!(
        outcome(bench.rename("/docs/b", &"n".repeat(51)).await).await,
        is(400, "Invalid name")
    );
    assert_eq!(outcome(bench.rename("/docs/b", "COM1.txt").await).await.0, 200);
    assert!(bench.drive.exists("/docs/_COM1.txt"));
    assert_eq!(outcome(bench.rename("/docs/_COM1.txt", "x/y:z").await).await.0, 200);
    assert_eq!(bench.drive.list("/docs").unwrap(), ["deeper", "xyz"]);
    assert_eq!(outcome(bench.rename("/", "root").await).await.0, 400);
    let put = |path| {
        bench
            .owner(Method::PUT, path)
            .header("Content-Type", "application/json")
    };
    assert_eq!(sent(put("/docs/xyz").body("{")).await, is(400, "Invalid JSON body"));
    assert_eq!(
        sent(put("/docs/xyz").body(r#"{"new_name":"q","path":"/"}"#)).await,
        is(400, "Invalid JSON body")
    );
    assert_eq!(
        sent(bench.owner(Method::PUT, "/docs/xyz").body(r#"{"new_name":"q"}"#))
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn deletion_takes_all_that_is_beneath() {
    let bench = Bench::plain().await;
    bench.drive.put("/docs/deep/a", "x").unwrap();
    bench.drive.put("/b", "x").unwrap();
    assert_eq!(sent(bench.owner(Method::DELETE, "/b/")).await.0, 404);
    assert_eq!(sent(bench.owner(Method::DELETE, "/b")).await.0, 200);
    assert_eq!(sent(bench.owner(Method::DELETE, "/docs")).await.0, 200);
    assert_eq!(sent(bench.owner(Method::DELETE, "/docs")).await, is(404, "Not found"));
    assert_eq!(sent(bench.owner(Method::DELETE, "/")).await.0, 400);
    assert_eq!(bench.drive.list("/").unwrap().len(), 0);
}

#[tokio::test]
async fn tokens_in_header_and_query() {
    let bench = Bench::plain().await;
    bench.drive.put("/a", "x").unwrap();
    let token = bench.drive.owner_token();
    assert_eq!(sent(bench.anonymous(Method::GET, "/")).await, is(401, "Token required"));
    assert_eq!(
        sent(bench.anonymous(Method::GET, "/").header("Token", "wrong")).await,
        is(401, "Token required")
    );
    assert_eq!(
        sent(bench.anonymous(Method::GET, &format!("/?token={token}"))).await.0,
        200
    );
    let both = bench.owner(Method::GET, &format!("/?token={token}"));
    assert_eq!(sent(both).await.0, 400);
    let upload = bench.anonymous(Method::POST, "/").multipart(file("b", "x"));
    assert_eq!(sent(upload).await, is(401, "Authentication required"));
    let rename = bench.anonymous(Method::PUT, "/a").json(&json!({"new_name": "b"}));
    assert_eq!(sent(rename).await, is(401, "Token required"));
    assert_eq!(
        sent(bench.anonymous(Method::DELETE, "/a")).await,
        is(401, "Token required")
    );
    let log = bench.server.requests();
    assert_eq!(log[0].authenticated_as, None);
    assert_eq!(log[2].authenticated_as.as_deref(), Some("owner"));
    assert!(log.iter().all(|request| !format!("{request:?}").contains(&token)));
}

#[tokio::test]
async fn grants_are_inherited_and_can_change() {
    let bench = Bench::plain().await;
    for path in ["/r/sub/a", "/w/a", "/d/a", "/wd/a", "/r/closed/a", "/other/a"] {
        bench.drive.put(path, "x").unwrap();
    }
    bench.drive.share_as("alice", "secret");
    for (folder, grant) in [
        ("/r", Grant::Read),
        ("/w", Grant::Write),
        ("/d", Grant::Delete),
        ("/wd", Grant::WriteDelete),
        ("/r/closed", Grant::Nothing),
    ] {
        bench.drive.set_grant("alice", folder, grant).unwrap();
    }
    let alice = |method, path: &str| bench.anonymous(method, path).header("Token", "secret");
    let read = async |path: &str| alice(Method::GET, path).send().await.unwrap().status().as_u16();
    let write = async |path: &str| sent(alice(Method::POST, path).multipart(file("new", path))).await;
    let remove = async |path: &str| sent(alice(Method::DELETE, path)).await;
    for path in ["/r/sub/a", "/w/a", "/d/a", "/wd/a"] {
        assert_eq!(read(path).await, 200, "{path}");
    }
    for path in ["/", "/other/a", "/r/closed/a", "/other/none"] {
        assert_eq!(sent(alice(Method::GET, path)).await, is(403, "Access denied"), "{path}");
    }
    assert_eq!(read("/r/none").await, 404);
    for (path, status) in [("/r/sub/", 403), ("/w/", 201), ("/d/", 403), ("/wd/", 201)] {
        assert_eq!(write(path).await.0, status, "{path}");
    }
    assert_eq!(write("/d/").await, is(403, "No write permission"));
    for (path, status) in [
        ("/r/sub/a", 403),
        ("/w/a", 403),
        ("/d/a", 200),
        ("/wd/a", 200),
        ("/r/none", 403),
        ("/d/none", 404),
    ] {
        assert_eq!(remove(path).await.0, status, "{path}");
    }
    let rename = alice(Method::PUT, "/w/a").json(&json!({"new_name": "b"}));
    assert_eq!(sent(rename).await.0, 200);
    let probe = alice(Method::PUT, "/r/sub/a")
        .header("Content-Type", "application/json")
        .body("{");
    assert_eq!(sent(probe).await, is(403, "No write permission"));

    bench.drive.set_grant("alice", "/w", Grant::Read).unwrap();
    assert_eq!(write("/w/").await.0, 403);
    bench.drive.clear_grant("alice", "/w").unwrap();
    assert_eq!(read("/w/b").await, 403);
    assert!(bench.drive.revoke("alice"));
    assert_eq!(read("/r/sub/a").await, 401);
    assert_eq!(
        bench.drive.set_grant("alice", "/w", Grant::Read),
        Err(StoreError::UnknownToken)
    );
}

#[tokio::test]
async fn public_folders_are_readable_and_no_more() {
    let bench = Bench::plain().await;
    bench.drive.put("/pub/sub/a", "x").unwrap();
    bench.drive.set_sharing("/pub", Sharing::Public).unwrap();
    for path in ["/pub/", "/pub/sub/", "/pub/sub/a", "/pub/sub/a?detail=true"] {
        assert_eq!(
            bench.anonymous(Method::GET, path).send().await.unwrap().status(),
            200,
            "{path}"
        );
    }
    assert_eq!(sent(bench.anonymous(Method::GET, "/pub/none")).await.0, 404);
    assert_eq!(sent(bench.anonymous(Method::GET, "/")).await.0, 401);
    assert_eq!(
        sent(bench.anonymous(Method::GET, "/pub/").header("Token", "wrong"))
            .await
            .0,
        401
    );
    assert_eq!(
        sent(bench.anonymous(Method::POST, "/pub/").multipart(file("b", "x")))
            .await
            .0,
        401
    );
    assert_eq!(sent(bench.anonymous(Method::DELETE, "/pub/sub/a")).await.0, 401);
    let stranger = bench.drive.share("stranger");
    let get = |path| bench.anonymous(Method::GET, path).header("Token", stranger.clone());
    assert_eq!(get("/pub/sub/a").send().await.unwrap().status(), 200);
    bench.drive.set_sharing("/pub", Sharing::Private).unwrap();
    assert_eq!(get("/pub/sub/a").send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn an_expired_subscription_stops_writing_only() {
    let bench = Bench::plain().await;
    bench.drive.put("/a", "x").unwrap();
    bench.drive.set_subscription(Subscription::Expired);
    let (status, message) = outcome(bench.upload("/", "b", "x").await).await;
    assert_eq!(status, 403);
    assert!(message.starts_with("Subscription expired. Please renew"));
    assert_eq!(
        outcome(bench.create("/", json!({"type": "folder", "name": "x"})).await)
            .await
            .0,
        403
    );
    assert_eq!(outcome(bench.rename("/a", "b").await).await.0, 403);
    assert_eq!(bench.owner(Method::GET, "/a").send().await.unwrap().status(), 200);
    assert_eq!(sent(bench.owner(Method::DELETE, "/a")).await.0, 200);
    bench.drive.set_subscription(Subscription::Active);
    assert_eq!(outcome(bench.upload("/", "b", "x").await).await.0, 201);
}

#[tokio::test]
async fn undocumented_requests_are_refused() {
    let bench = Bench::plain().await;
    bench.drive.put("/docs/a", "x").unwrap();
    assert_eq!(sent(bench.owner(Method::GET, "/docs")).await.0, 400);
    assert_eq!(sent(bench.owner(Method::GET, "")).await.0, 400);
    assert_eq!(sent(bench.owner(Method::GET, "/docs/a/")).await.0, 404);
    assert_eq!(sent(bench.owner(Method::GET, "/docs/?limit=5")).await.0, 400);
    assert_eq!(sent(bench.owner(Method::DELETE, "/docs/a?detail=true")).await.0, 400);
    assert_eq!(sent(bench.owner(Method::PATCH, "/docs/a")).await.0, 405);
    assert_eq!(bench.owner(Method::HEAD, "/docs/a").send().await.unwrap().status(), 405);
    let elsewhere = format!("{}storage/{}/", bench.server.url(), Uuid::new_v4());
    assert_eq!(
        sent(bench.client.get(elsewhere).header("Token", bench.drive.owner_token()))
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn changes_advance_the_clock() {
    let bench = Bench::plain().await;
    let mut latest = bench.drive.latest_change();
    for round in 0..20 {
        bench.drive.put("/dir/a", format!("{round}")).unwrap();
        let modified = bench.drive.info("/dir/a").unwrap().modified;
        assert!(modified > latest);
        assert_eq!(bench.drive.info("/dir").unwrap().modified, modified);
        latest = modified;
    }
    assert!(bench.drive.remove("/dir/a"));
    assert!(bench.drive.info("/dir").unwrap().modified > latest);
    assert!(!bench.drive.remove("/dir/a"));
    assert_eq!(bench.drive.put("/dir", "x"), Err(StoreError::InTheWay));
}
