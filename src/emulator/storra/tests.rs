use reqwest::multipart::{Form, Part};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use super::*;

/// An account with a key, its server, and requests with that key.
struct Bench {
    store: StorraStore,
    account: Account,
    key: String,
    server: Running,
    client: Client,
}

impl Bench {
    async fn new(assumptions: Assumptions) -> Self {
        let store = StorraStore::new(assumptions);
        store.stop_clock();
        let account = store.add_account("ada@example.org");
        let key = account.create_key("laptop");
        let server = store.serve().await.unwrap();
        Self {
            store,
            account,
            key,
            server,
            client: Client::builder().no_proxy().build().unwrap(),
        }
    }

    async fn plain() -> Self {
        Self::new(Assumptions::default()).await
    }

    fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        let base = self.server.url();
        self.client.request(method, format!("{base}api/v1/{path}"))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, &format!("client/{path}"))
            .header("X-API-Key", &self.key)
    }

    async fn ask(&self, method: Method, path: &str) -> (u16, Value) {
        outcome(self.request(method, path)).await
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn tell(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        outcome(self.request(method, path).json(&body)).await
    }

    async fn upload(&self, folder: &str, name: &str, content: &str) -> (u16, Value) {
        let form = file(name, content).text("path", folder.to_owned());
        let form = form.text("is_private", "true");
        outcome(self.request(Method::POST, "files/upload").multipart(form)).await
    }

    async fn names(&self, query: &str) -> Vec<String> {
        let items = self.get(&format!("files/list{query}")).await;
        let paths = items.as_array().unwrap().iter();
        paths.map(|item| item["path"].as_str().unwrap().to_owned()).collect()
    }

    async fn download(&self, path: &str) -> Response {
        let id = self.account.info(path).unwrap().id;
        let request = self.request(Method::GET, &format!("files/download/{id}"));
        request.send().await.unwrap()
    }
}

fn file(name: &str, content: &str) -> Form {
    Form::new().part("file", Part::text(content.to_owned()).file_name(name.to_owned()))
}

/// Status and body; null for none.
async fn outcome(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap()
    };
    (status, body)
}

fn detail(status: u16, text: &str) -> (u16, Value) {
    (status, json!({"detail": text}))
}

/// Whether it is the framework's list, about this part of the request.
fn is_about(outcome: &(u16, Value), place: &Value) -> bool {
    outcome.0 == 400 && outcome.1["detail"][0]["loc"] == *place && outcome.1["detail"][0]["msg"].is_string()
}

fn keys_of(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn is_time(value: &Value) -> bool {
    let time = value.as_str().unwrap();
    (time.len(), &time[19..20], &time[23..]) == (24, ".", "Z")
}

const LATIN: &str = "ü \"x\".txt";

#[tokio::test]
async fn a_key_is_needed_and_must_be_known() {
    let bench = Bench::plain().await;
    let missing = json!({"detail": [{
        "type": "missing",
        "loc": ["header", "X-API-Key"],
        "msg": "Field required",
        "input": null,
    }]});
    let bearer = bench.anonymous(Method::GET, "client/users/me").bearer_auth(&bench.key);
    assert_eq!(outcome(bearer).await, (401, missing.clone()));
    assert_eq!(
        outcome(bench.anonymous(Method::DELETE, "client/a")).await,
        (401, missing)
    );
    for wrong in ["", "sk_wrong", &bench.key[..20]] {
        let request = bench
            .anonymous(Method::GET, "client/users/me")
            .header("X-API-Key", wrong);
        assert_eq!(outcome(request).await, detail(401, "User not found."), "{wrong}");
    }
    let twice = bench.request(Method::GET, "users/me").header("X-API-Key", &bench.key);
    assert_eq!(outcome(twice).await, detail(401, "User not found."));
    bench.account.create_key_as("chosen", "sk_0123456789abcdef");
    let chosen = bench.anonymous(Method::GET, "client/users/me");
    let chosen = chosen.header("X-API-Key", "sk_0123456789abcdef");
    assert_eq!(outcome(chosen).await.0, 200);
    assert_eq!(bench.account.keys()[1].prefix, "sk_01234567");
    assert_eq!(bench.ask(Method::GET, "users/me").await.0, 200);
    assert!(bench.account.revoke_key(&bench.key) && !bench.account.revoke_key(&bench.key));
    assert_eq!(bench.ask(Method::GET, "users/me").await, detail(401, "User not found."));
}

#[tokio::test]
async fn only_cloud_pro_may_use_the_api() {
    let bench = Bench::plain().await;
    let refused = detail(403, "API access requires Cloud Pro plan. Upgrade to use the API.");
    bench.account.set_plan(Plan::Free);
    assert_eq!(bench.ask(Method::GET, "users/me").await, refused);
    assert_eq!(bench.upload(".", "a", "a").await, refused);
    assert!(!bench.account.exists("a"));
    assert_eq!(bench.account.used(&bench.key, Bucket::UserRead), Some(0));
    bench.account.set_plan(Plan::Pro);
    assert_eq!(bench.ask(Method::GET, "users/me").await.0, 200);
}

#[tokio::test]
async fn profile_and_preferences() {
    let bench = Bench::plain().await;
    bench.account.put("a", vec![0; 1_250_000]).unwrap();
    let profile = bench.get("users/me").await;
    assert_eq!(profile["email"], "ada@example.org");
    assert_eq!(profile["username"], "ada");
    let subscription = json!({"plan": "plan_pro", "storage_used": "1.2 MB", "storage_limit": "25 GB"});
    assert_eq!(profile["subscription"], subscription);
    assert!(is_time(&profile["created_at"]) && is_time(&profile["updated_at"]));
    for field in ["id", "discord_id", "discord_avatar", "profile_picture"] {
        assert!(profile.get(field).is_some(), "{field}");
    }
    assert_eq!(profile["upload_preference"], "ask_every_time");

    let wanted = json!({"upload_preference": "always_private"});
    let path = "users/me/preferences";
    assert_eq!(bench.tell(Method::PATCH, path, wanted.clone()).await, (200, wanted));
    assert_eq!(bench.get("users/me").await["upload_preference"], "always_private");
    for wrong in [json!({"upload_preference": "never"}), json!({}), json!({"x": 1})] {
        assert_eq!(bench.tell(Method::PATCH, path, wrong).await.0, 400);
    }
}

#[tokio::test]
async fn a_rich_listing_has_the_documented_fields() {
    let bench = Bench::plain().await;
    bench.account.put("documents/report.pdf", "hello").unwrap();
    bench.account.mkdir("documents/old").unwrap();
    bench
        .account
        .set_visibility("documents/old", Visibility::Public)
        .unwrap();
    let items = bench.get("files/list?path=documents").await;
    let info = bench.account.info("documents/report.pdf").unwrap();
    let [folder, file] = items.as_array().unwrap().as_slice() else {
        panic!("{items}");
    };
    assert_eq!(file["id"], info.id);
    assert_eq!(info.id, format!("file_{}", &info.uuid.to_string()[..8]));
    assert_eq!(file["name"], "report.pdf");
    assert_eq!(file["path"], "documents/report.pdf");
    assert_eq!(file["type"], "file");
    assert_eq!(file["size"], 5);
    assert_eq!(file["mime_type"], "application/pdf");
    assert_eq!(file["is_private"], true);
    assert!(is_time(&file["created_at"]) && is_time(&file["updated_at"]));
    let url = file["download_url"].as_str().unwrap();
    assert_eq!(
        url,
        format!("{}api/v1/client/files/download/{}", bench.server.url(), info.id)
    );
    let whole = bench
        .client
        .get(url)
        .header("X-API-Key", &bench.key)
        .send()
        .await
        .unwrap();
    assert_eq!(whole.text().await.unwrap(), "hello");
    assert_eq!(keys_of(file), keys_of(folder));
    assert_eq!((&folder["type"], &folder["size"]), (&json!("folder"), &json!(0)));
    assert_eq!(
        (&folder["mime_type"], &folder["download_url"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(folder["is_private"], false);
    assert!(folder["id"].as_str().unwrap().starts_with("folder_"));

    let short = Bench::new(Assumptions {
        folder_items: FolderItems::Short,
        download_url: DownloadUrl::PathOnly,
        ..Assumptions::default()
    })
    .await;
    short.account.put("a/b", "").unwrap();
    let items = short.get("files/list?recursive=true").await;
    assert_eq!(
        keys_of(&items[0]),
        ["created_at", "id", "is_private", "name", "path", "type", "updated_at"]
    );
    let url = items[1]["download_url"].as_str().unwrap();
    assert!(url.starts_with("/api/v1/client/files/download/file_"), "{url}");
}

#[tokio::test]
async fn listings_are_sorted_filtered_and_cut_into_pages() {
    let bench = Bench::plain().await;
    for (path, content) in [("b", "22"), ("d/a", "1"), ("d/e/c", "333")] {
        bench.account.put(path, content).unwrap();
    }
    bench.account.put("b", "4444").unwrap();
    assert_eq!(bench.names("").await, ["b", "d"]);
    assert_eq!(bench.names("?path=.").await, ["b", "d"]);
    assert_eq!(bench.names("?path=d").await, ["d/a", "d/e"]);
    let all = ["d/a", "b", "d/e/c", "d", "d/e"];
    assert_eq!(bench.names("?recursive=true").await, all);
    assert_eq!(
        bench.names("?recursive=true&sort=name&order=desc").await,
        ["d/e", "d", "d/e/c", "b", "d/a"]
    );
    let files = "?recursive=true&type=files";
    assert_eq!(bench.names(&format!("{files}&sort=size")).await, ["d/a", "d/e/c", "b"]);
    assert_eq!(
        bench.names(&format!("{files}&sort=modified")).await,
        ["d/a", "d/e/c", "b"]
    );
    assert_eq!(bench.names("?recursive=true&type=folders").await, ["d", "d/e"]);
    assert_eq!(bench.names("?sort=type&type=all").await, ["b", "d"]);
    assert_eq!(bench.names("?recursive=true&limit=2&offset=1").await, &all[1..3]);
    assert_eq!(bench.names("?recursive=true&limit=1000&offset=5").await.len(), 0);
    for i in 0..101 {
        bench.account.put(&format!("many/{i}"), "").unwrap();
    }
    assert_eq!(bench.names("?path=many").await.len(), 100);
    assert_eq!(bench.account.counted(Bucket::List), 12);

    for wrong in [
        "limit=0",
        "limit=1001",
        "limit=+1",
        "limit=",
        "offset=-1",
        "sort=date",
        "order=up",
        "type=file",
        "recursive=1",
        "path=/d",
        "path=d/",
        "path=d/../b",
        "skip=1",
    ] {
        let refused = bench.ask(Method::GET, &format!("files/list?{wrong}")).await;
        let name = wrong.split('=').next().unwrap();
        assert!(is_about(&refused, &json!(["query", name])), "{wrong}: {refused:?}");
    }
    assert_eq!(bench.ask(Method::GET, "files/list?limit=1&limit=1").await.0, 400);
    for missing in ["files/list?path=nope", "files/list?path=b", "list?folder_path=nope"] {
        assert_eq!(
            bench.ask(Method::GET, missing).await,
            detail(404, "Folder not found."),
            "{missing}"
        );
    }
    let lenient = Bench::new(Assumptions {
        missing_folder: MissingFolder::Empty,
        ..Assumptions::default()
    })
    .await;
    assert_eq!(lenient.get("files/list?path=nope").await, json!([]));
}

#[tokio::test]
async fn a_simple_listing_has_other_words() {
    let bench = Bench::plain().await;
    bench.account.put("d/a", "hello").unwrap();
    bench.account.mkdir("d/b").unwrap();
    bench.account.set_visibility("d/a", Visibility::Public).unwrap();
    bench.account.grant("d/b", "bob@example.org", Level::View).unwrap();
    let items = bench.get("list?folder_path=d").await;
    assert_eq!(
        keys_of(&items[0]),
        ["created_at", "id", "item_type", "path", "size_bytes", "visibility"]
    );
    let shown = |item: &Value| {
        (
            item["path"].clone(),
            item["item_type"].clone(),
            item["visibility"].clone(),
        )
    };
    assert_eq!(shown(&items[0]), (json!("d/a"), json!("FILE"), json!("PUBLIC")));
    assert_eq!(shown(&items[1]), (json!("d/b"), json!("FOLDER"), json!("SHARED")));
    assert_eq!(items[0]["size_bytes"], 5);
    assert_eq!(bench.get("list").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn downloads_and_their_headers() {
    let bench = Bench::plain().await;
    bench.account.put("d/ü.txt", "hello").unwrap();
    let info = bench.account.info("d/ü.txt").unwrap();
    for method in [Method::GET, Method::HEAD] {
        let path = format!("files/download/{}", info.id);
        let request = bench.request(method.clone(), &path).header("Range", "bytes=1-2");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/plain");
        assert_eq!(header("content-length"), "5");
        assert_eq!(
            header("content-disposition"),
            "attachment; filename*=UTF-8''%C3%BC%2Etxt"
        );
        let InfoKind::File { etag, .. } = &info.kind else {
            panic!("{info:?}");
        };
        assert_eq!(&header("etag"), etag);
        let modified = jiff::fmt::rfc2822::parse(&header("last-modified")).unwrap().timestamp();
        assert_eq!(modified.as_second(), info.updated.as_second());
        assert!(header("last-modified").ends_with(" GMT"));
        assert!(!response.headers().contains_key("accept-ranges"));
        let body = response.text().await.unwrap();
        assert_eq!(body, if method == Method::HEAD { "" } else { "hello" });
    }
    assert_eq!(bench.account.used(&bench.key, Bucket::Download), Some(2));
    let former = info.kind;
    bench.account.put("d/ü.txt", "other").unwrap();
    let now = bench.account.info("d/ü.txt").unwrap();
    assert_ne!(now.kind, former, "the tag follows the content");
    assert_eq!(now.id, info.id);
}

#[tokio::test]
async fn ids_are_short_and_may_collide() {
    for colliding_ids in [CollidingIds::NotFound, CollidingIds::Oldest] {
        let bench = Bench::new(Assumptions {
            colliding_ids,
            ..Assumptions::default()
        })
        .await;
        bench.account.put("a", "first").unwrap();
        bench.account.put("b", "second").unwrap();
        bench.account.mkdir("c").unwrap();
        let not_found = detail(404, "File not found.");
        let ask = |id: &str| {
            let request = bench.request(Method::GET, &format!("files/download/{id}"));
            async move {
                let response = request.send().await.unwrap();
                (response.status().as_u16(), response.text().await.unwrap())
            }
        };
        let uuid = |last: u8| Uuid::parse_str(&format!("550e8400-e29b-41d4-a716-4466554400{last:02}")).unwrap();
        bench.account.set_uuid("a", uuid(1)).unwrap();
        assert_eq!(ask("file_550e8400").await, (200, "first".into()));
        assert_eq!(ask("550e8400").await, (200, "first".into()));
        bench.account.set_uuid("b", uuid(2)).unwrap();
        for ambiguous in ["550e8400", "550e8400-e29b"] {
            assert_eq!(ask(ambiguous).await.0, 404, "{ambiguous}");
        }
        assert_eq!(ask(&uuid(2).to_string()).await, (200, "second".into()));
        let expected = match colliding_ids {
            CollidingIds::NotFound => 404,
            CollidingIds::Oldest => 200,
        };
        assert_eq!(ask("file_550e8400").await.0, expected);
        let folder = bench.account.info("c").unwrap();
        for missing in [
            &folder.id,
            "file_",
            "file_00000000",
            "file_550e84",
            &folder.uuid.to_string(),
        ] {
            let path = format!("files/download/{missing}");
            assert_eq!(bench.ask(Method::GET, &path).await, not_found, "{missing}");
        }
    }
}

#[tokio::test]
async fn ranges_where_they_are_honoured() {
    let bench = Bench::new(Assumptions {
        ranges: Ranges::Honoured,
        ..Assumptions::default()
    })
    .await;
    bench.account.put("a", "0123456789").unwrap();
    let id = bench.account.info("a").unwrap().id;
    let ask = |range: &str| {
        let request = bench.request(Method::GET, &format!("files/download/{id}"));
        request.header("Range", range).send()
    };
    let part = ask("bytes=2-4").await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 2-4/10");
    assert_eq!(part.headers()["accept-ranges"], "bytes");
    assert_eq!(part.headers()["content-length"], "3");
    assert_eq!(part.text().await.unwrap(), "234");
    let beyond = ask("bytes=10-").await.unwrap();
    assert_eq!(beyond.status(), 416);
    assert_eq!(beyond.headers()["content-range"], "bytes */10");
    assert_eq!(ask("bytes=x").await.unwrap().status(), 400);
}

#[tokio::test]
async fn uploads_are_public_unless_told_otherwise() {
    let bench = Bench::plain().await;
    let (status, body) = bench.upload("a/b", LATIN, "hello").await;
    assert_eq!(status, 200);
    assert_eq!(
        keys_of(&body),
        [
            "created_at",
            "id",
            "item_type",
            "owner",
            "path",
            "permissions",
            "size_bytes",
            "visibility"
        ]
    );
    let path = format!("a/b/{LATIN}");
    assert_eq!(body["path"], path);
    assert_eq!(
        (&body["item_type"], &body["visibility"]),
        (&json!("file"), &json!("private"))
    );
    assert_eq!((&body["size_bytes"], &body["permissions"]), (&json!(5), &json!([])));
    assert_eq!(body["owner"]["email"], "ada@example.org");
    assert_eq!(body["id"], bench.account.info(&path).unwrap().id);
    assert_eq!(bench.account.read(&path).unwrap(), "hello");

    let upload = |form| outcome(bench.request(Method::POST, "files/upload").multipart(form));
    let (status, body) = upload(file("plain", "")).await;
    assert_eq!(
        (status, &body["visibility"], &body["path"]),
        (200, &json!("public"), &json!("plain"))
    );
    upload(file("open", "").text("is_private", "false").text("path", ".")).await;
    let private = Visibility::Private;
    let public = Visibility::Public;
    assert_eq!(
        bench.account.visibilities(),
        [
            ("a".to_owned(), private),
            ("a/b".to_owned(), private),
            (path, private),
            ("open".to_owned(), public),
            ("plain".to_owned(), public),
        ]
    );
}

#[tokio::test]
async fn malformed_uploads_are_refused() {
    let bench = Bench::plain().await;
    bench.account.put("taken", "").unwrap();
    let upload = |form| outcome(bench.request(Method::POST, "files/upload").multipart(form));
    for (form, name) in [
        (Form::new().text("path", "a"), "file"),
        (Form::new().text("file", "no name"), "file"),
        (file("x", "").part("file", Part::text("").file_name("y")), "file"),
        (file("..", ""), "file"),
        (file("x", "").text("is_private", "True"), "is_private"),
        (file("x", "").text("is_private", "1"), "is_private"),
        (file("x", "").text("path", "/a"), "path"),
        (file("x", "").text("path", "a/"), "path"),
        (file("x", "").text("path", "a").text("path", "a"), "path"),
        (file("x", "").text("overwrite", "true"), "overwrite"),
        (file(&"x".repeat(256), ""), "file"),
    ] {
        let refused = upload(form).await;
        assert!(is_about(&refused, &json!(["body", name])), "{name}: {refused:?}");
    }
    let json_body = bench.tell(Method::POST, "files/upload", json!({"path": "x"})).await;
    assert!(is_about(&json_body, &json!(["body", "file"])));
    for rest in ["", "\r\n--b--\r\nmore"] {
        let odd = bench
            .request(Method::POST, "files/upload")
            .header("Content-Type", "multipart/form-data; boundary=b")
            .body(format!(
                "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nhalf{rest}"
            ));
        assert!(is_about(&outcome(odd).await, &json!(["body"])), "{rest}");
    }
    assert_eq!(upload(file("x", "").text("path", "taken")).await.0, 409);
    let no_parameters = bench
        .request(Method::POST, "files/upload?path=a")
        .multipart(file("x", ""));
    assert_eq!(outcome(no_parameters).await.0, 400);
    assert_eq!(bench.account.list("").unwrap(), ["taken"]);

    let framework = Bench::new(Assumptions {
        validation: Validation::UnprocessableContent,
        ..Assumptions::default()
    })
    .await;
    assert_eq!(framework.ask(Method::GET, "files/list?limit=0").await.0, 422);
}

#[tokio::test]
async fn an_upload_to_a_taken_path() {
    let with = |overwrite, shared_path| {
        Bench::new(Assumptions {
            overwrite,
            shared_path,
            ..Assumptions::default()
        })
    };
    for shared_path in [SharedPath::Oldest, SharedPath::Newest] {
        let bench = with(Overwrite::Duplicate, shared_path).await;
        let first = bench.upload(".", "a", "one").await.1["id"].clone();
        let second = bench.upload(".", "a", "two").await.1["id"].clone();
        assert_ne!(first, second);
        assert_eq!(bench.names("").await, ["a", "a"]);
        assert_eq!(bench.account.read_all("a"), ["one", "two"]);
        let (meant, other) = match shared_path {
            SharedPath::Oldest => ("one", "two"),
            SharedPath::Newest => ("two", "one"),
        };
        assert_eq!(bench.account.read("a").unwrap(), meant);
        assert_eq!(bench.ask(Method::DELETE, "a").await, (204, Value::Null));
        assert_eq!(bench.account.read_all("a"), [other]);
    }

    let bench = with(Overwrite::Replace, SharedPath::Oldest).await;
    let first = bench.upload(".", "a", "one").await.1;
    let second = bench.upload(".", "a", "two").await.1;
    assert_eq!(first["id"], second["id"]);
    assert_eq!(first["created_at"], second["created_at"]);
    assert_eq!(bench.account.read_all("a"), ["two"]);

    let bench = with(Overwrite::Refuse, SharedPath::Oldest).await;
    bench.upload(".", "a", "one").await;
    assert_eq!(
        bench.upload(".", "a", "two").await,
        detail(409, "An item already exists at this path.")
    );
    assert_eq!(bench.account.read_all("a"), ["one"]);

    bench.account.mkdir("d").unwrap();
    assert_eq!(bench.upload(".", "d", "").await.0, 409);
}

#[tokio::test]
async fn files_and_accounts_have_an_end() {
    let bench = Bench::new(Assumptions {
        file_limit: 10,
        quota: 15,
        overwrite: Overwrite::Replace,
        ..Assumptions::default()
    })
    .await;
    let too_large = detail(413, "File too large. Maximum file size is 1 GB.");
    let full = detail(413, "Storage quota exceeded. Delete files or upgrade your plan.");
    assert_eq!(bench.upload(".", "a", "01234567890").await, too_large);
    assert_eq!(bench.upload(".", "a", "0123456789").await.0, 200);
    assert_eq!(bench.upload(".", "b", "012345").await, full);
    assert_eq!(
        bench.tell(Method::POST, "duplicate", json!({"item_path": "a"})).await,
        full
    );
    assert_eq!(bench.upload(".", "a", "0123456789").await.0, 200);
    assert_eq!(bench.upload(".", "b", "01234").await.0, 200);
    bench.account.mkdir("d").unwrap();
    bench.account.rename("a", "d/a").unwrap();
    let copy = json!({"source_folder_path": "d", "destination_folder_path": "e"});
    assert_eq!(bench.tell(Method::POST, "copy-folder", copy).await, full);
    assert_eq!(bench.ask(Method::DELETE, "d").await.0, 204);
    assert_eq!(bench.upload(".", "c", "0").await, full, "the trash counts");
    assert_eq!(
        bench.ask(Method::POST, "trash/empty").await,
        (200, json!({"deleted": 1}))
    );
    assert_eq!(bench.upload(".", "c", "0").await.0, 200);
    assert_eq!(bench.account.storage_used(), 6);
}

#[tokio::test]
async fn folders_are_made_and_asked_about() {
    let bench = Bench::plain().await;
    let make = |path: &str| bench.tell(Method::POST, "create-folder", json!({"folder_path": path}));
    let (status, body) = make("a").await;
    assert_eq!(status, 201);
    assert!(body["id"].as_str().unwrap().starts_with("folder_"));
    assert_eq!((&body["path"], &body["item_type"]), (&json!("a"), &json!("FOLDER")));
    assert_eq!(
        (&body["size_bytes"], &body["visibility"]),
        (&json!(0), &json!("PRIVATE"))
    );
    assert!(is_time(&body["created_at"]));
    assert_eq!(make("a").await, detail(409, "Folder already exists."));
    assert_eq!(make("x/y").await, detail(404, "Parent folder not found."));
    for wrong in ["", ".", "/a", "a/", "a//b", "a/../b", "a\nb"] {
        assert!(is_about(&make(wrong).await, &json!(["body", "folder_path"])), "{wrong}");
    }
    bench.account.put("a/b/f", "hello").unwrap();
    bench.account.put("a/g", "you").unwrap();
    assert_eq!(make("a/g").await.0, 409);
    assert_eq!(make("a/g/h").await.0, 404);

    let info = bench.get("info/a").await;
    assert_eq!((&info["size_bytes"], &info["path"]), (&json!(8), &json!("a")));
    assert_eq!(info["owner"]["username"], "ada");
    assert_eq!(bench.get("info/a/b").await["size_bytes"], 5);
    for missing in ["info/", "info/a/g", "info/nope"] {
        let refused = detail(404, "Folder not found.");
        assert_eq!(bench.ask(Method::GET, missing).await, refused, "{missing}");
    }
    assert_eq!(bench.account.used(&bench.key, Bucket::Folder), Some(17));

    let lenient = Bench::new(Assumptions {
        missing_parents: MissingParents::Created,
        new_folder: Visibility::Public,
        ..Assumptions::default()
    })
    .await;
    let (status, body) = lenient
        .tell(Method::POST, "create-folder", json!({"folder_path": "x/y"}))
        .await;
    assert_eq!((status, &body["visibility"]), (201, &json!("PUBLIC")));
    assert_eq!(lenient.account.list("x").unwrap(), ["y"]);
}

#[tokio::test]
async fn moves_keep_ids() {
    let bench = Bench::plain().await;
    let relocate = |from: &str, to: &str| {
        let body = json!({"source_path": from, "destination_path": to});
        bench.tell(Method::PUT, "move", body)
    };
    bench.account.put("a/b/f", "hello").unwrap();
    bench.account.put("g", "you").unwrap();
    let before = bench.account.info("a/b/f").unwrap();
    let (status, body) = relocate("a", "c").await;
    assert_eq!((status, &body["path"]), (200, &json!("c")));
    let after = bench.account.info("c/b/f").unwrap();
    assert_eq!((&after.id, after.updated), (&before.id, before.updated));
    assert!(!bench.account.exists("a"));
    assert_eq!(relocate("c/b/f", "f").await.0, 200);
    assert!(bench.account.info("f").unwrap().updated > before.updated);
    let taken = detail(409, "An item already exists at this path.");
    for (from, to) in [("f", "g"), ("f", "f"), ("f", "c"), ("c", "f"), ("c/b", "c")] {
        assert_eq!(relocate(from, to).await, taken, "{from} {to}");
    }
    assert_eq!(relocate("nope", "x").await, detail(404, "Item not found."));
    assert_eq!(relocate("f", "x/f").await, detail(404, "Parent folder not found."));
    assert_eq!(relocate("c", "c/b/c").await.0, 400);
    assert_eq!(relocate("", "x").await.0, 400);
    assert_eq!(relocate("f", ".").await.0, 400);
    assert_eq!(bench.account.list("").unwrap(), ["c", "f", "g"]);

    for move_onto in [MoveOnto::Replace, MoveOnto::Duplicate] {
        let bench = Bench::new(Assumptions {
            move_onto,
            ..Assumptions::default()
        })
        .await;
        for (path, content) in [("f", "new"), ("g", "old"), ("c/x", ""), ("d/y", "")] {
            bench.account.put(path, content).unwrap();
        }
        let relocate = |from: &str, to: &str| {
            let body = json!({"source_path": from, "destination_path": to});
            bench.tell(Method::PUT, "move", body)
        };
        assert_eq!(relocate("f", "g").await.0, 200);
        assert_eq!(relocate("g", "c").await.0, 409);
        let folders = relocate("c", "d").await.0;
        match move_onto {
            MoveOnto::Replace => {
                assert_eq!((folders, bench.account.read_all("g")), (200, vec!["new".into()]));
                assert_eq!(bench.account.list("d").unwrap(), ["x"]);
            }
            _ => {
                assert_eq!(folders, 409);
                assert_eq!(bench.account.read_all("g"), ["new", "old"]);
            }
        }
        assert!(bench.account.trash().is_empty());
    }
}

#[tokio::test]
async fn copies_have_ids_of_their_own() {
    let bench = Bench::plain().await;
    bench.account.put("d/a.txt", "hello").unwrap();
    bench.account.set_visibility("d/a.txt", Visibility::Public).unwrap();
    let duplicate = |path: &str| bench.tell(Method::POST, "duplicate", json!({"item_path": path}));
    let (status, body) = duplicate("d/a.txt").await;
    assert_eq!((status, &body[0]["path"]), (201, &json!("d/a (copy).txt")));
    assert_eq!(body[0]["visibility"], "PUBLIC");
    assert_ne!(body[0]["id"], bench.account.info("d/a.txt").unwrap().id);
    assert_eq!(duplicate("d/a.txt").await.1[0]["path"], "d/a (copy 2).txt");
    let (status, body) = duplicate("d").await;
    assert_eq!((status, body.as_array().unwrap().len()), (201, 4));
    assert_eq!(bench.account.read("d (copy)/a.txt").unwrap(), "hello");
    assert_eq!(duplicate("nope").await.0, 404);

    let copy = |from: &str, to: &str| {
        let body = json!({"source_folder_path": from, "destination_folder_path": to});
        bench.tell(Method::POST, "copy-folder", body)
    };
    let (status, body) = copy("d", "e").await;
    assert_eq!((status, &body[0]["path"]), (201, &json!("e")));
    assert_eq!(bench.account.list("e").unwrap().len(), 3);
    assert_eq!(copy("d", "e").await.0, 409);
    assert_eq!(copy("d", "d/in").await.0, 400);
    assert_eq!(copy("d/a.txt", "f").await.0, 404);
    assert_eq!(copy("d", "x/y").await.0, 404);
    assert_eq!(bench.account.used(&bench.key, Bucket::FileOps), Some(9));
}

#[tokio::test]
async fn what_is_deleted_can_be_restored_for_a_while() {
    let bench = Bench::plain().await;
    bench.account.put("d/e/a b", "hello").unwrap();
    bench.account.put("f", "you").unwrap();
    assert_eq!(bench.ask(Method::DELETE, "d/e").await, (204, Value::Null));
    assert_eq!(bench.ask(Method::DELETE, "d/e").await, detail(404, "Item not found."));
    bench.store.advance(Duration::from_secs(1));
    assert_eq!(bench.ask(Method::DELETE, "f").await.0, 204);
    assert_eq!(bench.account.list("").unwrap(), ["d"]);
    let trash = bench.get("trash").await;
    assert_eq!((&trash[0]["path"], &trash[1]["path"]), (&json!("f"), &json!("d/e")));
    assert_eq!(trash[1]["size_bytes"], 5);
    let expires: Timestamp = trash[1]["expires_at"].as_str().unwrap().parse().unwrap();
    let deleted: Timestamp = trash[1]["deleted_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(expires.duration_since(deleted), SignedDuration::from_hours(720));
    assert_eq!(bench.get("trash?skip=1&limit=1").await[0]["path"], "d/e");
    assert_eq!(bench.ask(Method::GET, "trash?limit=501").await.0, 400);

    let restore = |ids: Value| bench.tell(Method::POST, "trash/restore", json!({"item_ids": ids}));
    let (file, folder) = (trash[0]["id"].clone(), trash[1]["id"].clone());
    bench.account.remove("d");
    bench.account.put("f", "other").unwrap();
    assert_eq!(
        restore(json!([folder, file])).await.0,
        409,
        "the path of the file is taken"
    );
    assert_eq!(bench.account.trash().len(), 2, "all or none");
    let (status, body) = restore(json!([folder])).await;
    assert_eq!((status, &body[0]["path"]), (200, &json!("d/e")));
    assert_eq!(bench.account.read("d/e/a b").unwrap(), "hello");
    assert_eq!(restore(json!([folder])).await.0, 404);
    assert_eq!(restore(json!("f")).await.0, 400);

    bench.store.advance(Duration::from_secs(30 * 24 * 3600 - 1));
    assert_eq!(bench.account.trash(), ["f"]);
    bench.store.advance(Duration::from_secs(1));
    assert!(bench.account.trash().is_empty());
    bench.account.set_trash(TrashUse::Off);
    assert_eq!(bench.ask(Method::DELETE, "d").await.0, 204);
    assert_eq!(bench.get("trash").await, json!([]));
}

#[tokio::test]
async fn deletions_that_are_refused() {
    let bench = Bench::new(Assumptions {
        folder_delete: FolderDelete::RefuseNonEmpty,
        ..Assumptions::default()
    })
    .await;
    bench.account.put("d/a", "").unwrap();
    bench.account.put("trash/a", "").unwrap();
    bench.account.put("permissions/a", "").unwrap();
    assert_eq!(
        bench.ask(Method::DELETE, "d").await,
        detail(409, "Folder is not empty.")
    );
    assert_eq!(bench.ask(Method::DELETE, "d/a").await.0, 204);
    assert_eq!(bench.ask(Method::DELETE, "d").await.0, 204);
    assert_eq!(
        bench.ask(Method::DELETE, "trash/a").await,
        detail(405, "Method Not Allowed")
    );
    assert_eq!(
        bench.ask(Method::DELETE, "permissions/a").await,
        detail(404, "Permission not found.")
    );
    assert_eq!(bench.account.list("").unwrap(), ["permissions", "trash"]);
    let with_body = bench.request(Method::DELETE, "trash").body("x");
    assert_eq!(outcome(with_body).await.0, 405);

    let other = Bench::new(Assumptions {
        reserved_names: ReservedNames::PathsFirst,
        ..Assumptions::default()
    })
    .await;
    other.account.put("trash/a", "").unwrap();
    let with_body = other.request(Method::DELETE, "trash/a").body("x");
    assert!(is_about(&outcome(with_body).await, &json!(["body"])));
    assert_eq!(other.ask(Method::DELETE, "trash/a").await.0, 204);
    assert_eq!(other.account.list("trash").unwrap().len(), 0);
}

#[tokio::test]
async fn visibility_and_grants() {
    let bench = Bench::plain().await;
    let bob = bench.store.add_account("bob@example.org");
    bench.account.put("d/a", "hello").unwrap();
    let privacy = |visibility: &str| {
        let body = json!({"item_path": "d/a", "visibility": visibility});
        bench.tell(Method::PUT, "privacy", body)
    };
    assert_eq!(privacy("PUBLIC").await.1["visibility"], "PUBLIC");
    assert_eq!(bench.account.info("d/a").unwrap().visibility, Visibility::Public);
    assert_eq!(privacy("PRIVATE").await.0, 200);
    assert_eq!(privacy("private").await.0, 400);

    let grant = |path: &str, email: &str, level: &str| {
        let body = json!({"item_path": path, "user_email": email, "permission_level": level});
        bench.tell(Method::POST, "permissions/grant", body)
    };
    let (status, given) = grant("d/a", "bob@example.org", "VIEW").await;
    assert_eq!(status, 200);
    assert!(given["id"].as_str().unwrap().starts_with("perm_"));
    assert_eq!(
        (&given["item_path"], &given["permission_level"]),
        (&json!("d/a"), &json!("VIEW"))
    );
    assert!(is_time(&given["granted_at"]));
    assert_eq!(bench.account.info("d/a").unwrap().visibility, Visibility::Shared);
    assert_eq!(bench.get("permissions/d/a").await, json!([given]));
    assert_eq!(
        grant("d/a", "bob@example.org", "EDIT").await,
        detail(409, "Item is already shared with this user.")
    );
    assert_eq!(grant("d/a", "carl@example.org", "VIEW").await.0, 404);
    assert_eq!(grant("nope", "bob@example.org", "VIEW").await.0, 404);
    assert_eq!(grant("d", "ada@example.org", "VIEW").await.0, 400);
    assert_eq!(grant("d", "bob@example.org", "READ").await.0, 400);

    let id = bench.account.info("d/a").unwrap().id;
    let foreign = format!("client/files/download/{id}");
    let bobs = bob.create_key("desktop");
    let as_bob = || outcome_text(bench.anonymous(Method::GET, &foreign).header("X-API-Key", &bobs));
    assert_eq!(as_bob().await, (200, "hello".into()));

    let perm = format!("permissions/{}", given["id"].as_str().unwrap());
    let change = json!({"permission_level": "EDIT"});
    let (status, changed) = bench.tell(Method::PUT, &perm, change.clone()).await;
    assert_eq!((status, &changed["permission_level"]), (200, &json!("EDIT")));
    assert_eq!(bench.ask(Method::DELETE, &perm).await, (204, Value::Null));
    assert_eq!(bench.ask(Method::DELETE, &perm).await.0, 404);
    assert_eq!(bench.tell(Method::PUT, &perm, change).await.0, 404);
    assert_eq!(as_bob().await.0, 403);
    bench.account.grant("d", "bob@example.org", Level::View).unwrap();
    assert_eq!(as_bob().await.0, 200, "grants hold beneath a folder");
    assert_eq!(bench.ask(Method::GET, "permissions/nope").await.0, 404);
}

async fn outcome_text(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn every_bucket_has_its_limit_and_rolls() {
    let bench = Bench::plain().await;
    bench.account.put("a", "hello").unwrap();
    let id = bench.account.info("a").unwrap().id;
    let download = format!("files/download/{id}");
    for (bucket, method, path, limit, window) in [
        (Bucket::UserRead, Method::GET, "users/me", 60, 60),
        (Bucket::UserPrefs, Method::PATCH, "users/me/preferences", 30, 60),
        (Bucket::Upload, Method::POST, "files/upload", 50, 3600),
        (Bucket::List, Method::GET, "list", 100, 3600),
        (Bucket::Download, Method::HEAD, download.as_str(), 200, 3600),
        (Bucket::Folder, Method::GET, "info/nope", 100, 3600),
        (Bucket::FileOps, Method::DELETE, "nope", 100, 3600),
        (Bucket::Trash, Method::GET, "trash", 50, 3600),
        (Bucket::Permissions, Method::GET, "permissions/a", 100, 3600),
    ] {
        let start = bench.store.now().as_second();
        let first = bench.request(method.clone(), path).send().await.unwrap();
        if first.status().is_success() {
            let header = |name: &str| first.headers()[name].to_str().unwrap().parse::<i64>().unwrap();
            assert_eq!(header("x-ratelimit-limit"), limit, "{path}");
            assert_eq!(header("x-ratelimit-remaining"), limit - 1);
            assert!((start + window..=start + window + 1).contains(&header("x-ratelimit-reset")));
        } else {
            assert!(!first.headers().contains_key("x-ratelimit-limit"), "{path}");
        }
        bench.store.advance(Duration::from_secs(10));
        for _ in 1..limit {
            let response = bench.request(method.clone(), path).send().await.unwrap();
            assert_ne!(response.status(), 429, "{path}");
        }
        assert_eq!(bench.account.used(&bench.key, bucket), u32::try_from(limit).ok());
        let refused = bench.request(method.clone(), path).send().await.unwrap();
        assert_eq!(refused.status(), 429, "{path}");
        assert_eq!(refused.headers()["retry-after"], (window - 10).to_string());
        if method != Method::HEAD {
            let body: Value = refused.json().await.unwrap();
            assert_eq!(body, json!({"detail": "Rate limit exceeded. Please try again later."}));
        }
        bench
            .store
            .advance(Duration::from_secs(u64::try_from(window).unwrap() - 10));
        let again = bench.request(method.clone(), path).send().await.unwrap();
        assert_ne!(again.status(), 429, "{path}");
        let refused = bench.request(method, path).send().await.unwrap();
        assert_eq!(refused.status(), 429, "only one request left the window: {path}");
        assert_eq!(bench.account.counted(bucket), u64::try_from(limit + 1).unwrap());
    }
}

#[tokio::test]
async fn limits_are_per_key_and_can_be_set() {
    let bench = Bench::plain().await;
    bench.store.set_limit(Bucket::List, 2);
    let other = bench.account.create_key("phone");
    let with_other = || {
        bench
            .anonymous(Method::GET, "client/list")
            .header("X-API-Key", &other)
            .send()
    };
    bench.get("list").await;
    bench.get("files/list").await;
    assert_eq!(bench.ask(Method::GET, "list").await.0, 429);
    assert_eq!(with_other().await.unwrap().status(), 200);
    assert_eq!(bench.account.used(&bench.key, Bucket::List), Some(2));
    assert_eq!(bench.account.used(&other[..11], Bucket::List), Some(1));
    assert_eq!(bench.account.used("sk_nobody", Bucket::List), None);
    bench.store.lift_limits();
    bench.get("list").await;
    assert_eq!(bench.account.counted(Bucket::List), 4);
}

#[tokio::test]
async fn bodies_are_json_and_nothing_else() {
    let bench = Bench::plain().await;
    let send = |content_type: &str, body: &'static str| {
        let request = bench.request(Method::POST, "create-folder");
        outcome(request.header("Content-Type", content_type).body(body))
    };
    const GOOD: &str = "{\"folder_path\":\"a\"}";
    for (content_type, body) in [
        ("text/plain", GOOD),
        ("application/json", ""),
        ("application/json", "{"),
        ("application/json", "{\"folder_path\":\"a\"} {}"),
        ("application/json", "{\"folder_path\":\"a\",\"x\":1}"),
        ("application/json", "{\"folder_path\":1}"),
        ("application/json", "[]"),
    ] {
        let refused = send(content_type, body).await;
        assert!(is_about(&refused, &json!(["body"])), "{body}: {refused:?}");
    }
    assert_eq!(send("application/json; charset=utf-8", GOOD).await.0, 201);
    assert_eq!(bench.ask(Method::GET, "nope").await, detail(404, "Not Found"));
    assert_eq!(bench.ask(Method::POST, "list").await, detail(405, "Method Not Allowed"));
    assert_eq!(
        outcome(bench.client.get(bench.server.url())).await,
        detail(404, "Not Found")
    );
}

#[tokio::test]
async fn keys_are_managed_with_a_session_only() {
    let bench = Bench::plain().await;
    let cookies = bench.account.open_session();
    let keys = |method: Method, tail: &str| bench.anonymous(method, &format!("dashboard/users/me/api-keys{tail}"));
    let with = |request: RequestBuilder| request.header("Cookie", &cookies);
    let error = |status: u16, message: &str| (status, json!({"error": message}));

    let new = json!({"label": "Production API Key"});
    let (status, made) = outcome(with(keys(Method::POST, "")).json(&new)).await;
    assert_eq!(status, 200);
    assert_eq!(
        keys_of(&made),
        ["created_at", "id", "key", "label", "last_used", "prefix"]
    );
    let secret = made["key"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("sk_") && made["prefix"] == secret[..11]);
    assert_eq!((&made["label"], &made["last_used"]), (&new["label"], &Value::Null));
    let use_it = || {
        let request = bench.anonymous(Method::GET, "client/users/me");
        outcome(request.header("X-API-Key", &secret))
    };
    assert_eq!(use_it().await.0, 200);

    let (status, listed) = outcome(with(keys(Method::GET, ""))).await;
    assert_eq!((status, listed.as_array().unwrap().len()), (200, 2));
    assert!(listed[1].get("key").is_none() && is_time(&listed[1]["last_used"]));
    assert_eq!(
        (&listed[0]["label"], &listed[0]["last_used"]),
        (&json!("laptop"), &Value::Null)
    );

    let prefix = format!("/{}", &secret[..11]);
    assert_eq!(
        outcome(with(keys(Method::DELETE, &prefix))).await,
        (200, json!({"revoked": true}))
    );
    assert_eq!(
        outcome(with(keys(Method::DELETE, &prefix))).await,
        error(404, "API key not found")
    );
    assert_eq!(use_it().await, detail(401, "User not found."));
    let whole = format!("/{}", bench.key);
    assert_eq!(outcome(with(keys(Method::DELETE, &whole))).await.0, 404);

    let unauthorized = error(401, "Unauthorized");
    let one_cookie = cookies.split(';').next().unwrap();
    for request in [
        keys(Method::GET, ""),
        keys(Method::GET, "").bearer_auth(&bench.key),
        with(keys(Method::GET, "")).bearer_auth(&bench.key),
        keys(Method::GET, "").header("X-API-Key", &bench.key),
        keys(Method::GET, "").header("Cookie", one_cookie),
        keys(Method::POST, "").json(&new),
    ] {
        assert_eq!(outcome(request).await, unauthorized);
    }
    for body in [
        json!({}),
        json!({"label": 1}),
        json!({"label": "a", "x": 1}),
        json!({"label": " "}),
    ] {
        assert_eq!(outcome(with(keys(Method::POST, "")).json(&body)).await.0, 400, "{body}");
    }
    let form = with(keys(Method::POST, "")).body("label=a");
    assert_eq!(outcome(form).await.0, 400);
    assert_eq!(
        outcome(with(keys(Method::PUT, ""))).await,
        error(405, "Method not allowed")
    );
    let elsewhere = bench.anonymous(Method::GET, "dashboard/users/me");
    assert_eq!(outcome(with(elsewhere)).await, error(404, "Not found"));

    bench.account.set_plan(Plan::Free);
    assert_eq!(outcome(with(keys(Method::POST, "")).json(&new)).await.0, 403);
    assert_eq!(outcome(with(keys(Method::GET, ""))).await.0, 200);
    let among_others = format!("theme=dark; {cookies}; lang=en");
    assert_eq!(
        outcome(keys(Method::GET, "").header("Cookie", among_others)).await.0,
        200
    );
    assert!(bench.account.end_session(&cookies) && !bench.account.end_session(&cookies));
    assert_eq!(outcome(with(keys(Method::GET, ""))).await, unauthorized);
    assert_eq!(bench.account.keys().len(), 1);
}

#[tokio::test]
async fn credentials_are_neither_kept_nor_logged() {
    let bench = Bench::plain().await;
    let cookies = bench.account.open_session();
    let path = "dashboard/users/me/api-keys";
    bench.get("users/me").await;
    let listing = bench.anonymous(Method::GET, path).header("Cookie", &cookies);
    assert_eq!(outcome(listing).await.0, 200);
    bench.ask(Method::GET, "info/nope").await;
    let names: Vec<_> = bench
        .server
        .requests()
        .into_iter()
        .map(|request| request.authenticated_as.unwrap())
        .collect();
    assert_eq!(names, ["laptop", "session of ada@example.org", "laptop"]);
    let printed = format!("{:?} {:?} {:?}", bench.server.requests(), bench.store, bench.account);
    let session = cookies.split(['=', ';']).nth(1).unwrap();
    assert!(!printed.contains(&bench.key[11..]) && !printed.contains(session));
    assert!(printed.contains(&bench.key[..11]), "the prefix is no secret");
}

#[tokio::test]
async fn a_store_outlives_its_server_and_lies_change_nothing() {
    use crate::emulator::{Fault, Rule};
    let bench = Bench::plain().await;
    bench.account.put("a", "hello").unwrap();
    let lie = Rule::once(Method::DELETE, "client/a", Fault::LieAboutSuccess);
    bench.server.faults().inject(lie);
    assert_eq!(bench.ask(Method::DELETE, "a").await.0, 204);
    assert!(bench.account.exists("a"));
    let address = bench.server.address();
    let Bench {
        store, account, server, ..
    } = bench;
    server.stop().await;
    let server = store.start_on(address).await.unwrap();
    assert_eq!(server.address(), address);
    assert_eq!(account.read("a").unwrap(), "hello");
}

#[tokio::test]
async fn a_changed_file_is_seen_by_the_next_listing() {
    let bench = Bench::plain().await;
    bench.account.put("a", "one").unwrap();
    let before = bench.get("files/list").await[0].clone();
    bench.account.put("a", "two").unwrap();
    let after = bench.get("files/list").await[0].clone();
    assert_eq!((&before["id"], &before["size"]), (&after["id"], &after["size"]));
    assert_ne!(before["updated_at"], after["updated_at"]);
    assert_eq!(bench.download("a").await.text().await.unwrap(), "two");
}
