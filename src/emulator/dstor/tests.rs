use reqwest::multipart::{Form, Part};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::emulator::{Fault, Rule, Running};

const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "correct horse";

/// A network with one account, its server, and requests to it.
struct Bench {
    store: DstorStore,
    account: Account,
    key: SecretString,
    server: Running,
    client: Client,
}

impl Bench {
    async fn new(assumptions: Assumptions) -> Self {
        let store = DstorStore::new(Network::Production, assumptions);
        store.stop_clock_at("2026-01-01T00:00:00Z".parse().unwrap());
        let account = store.add_account(EMAIL, PASSWORD);
        let key = account.add_key("laptop");
        let server = store.serve().await.unwrap();
        Self {
            store,
            account,
            key,
            server,
            client: Client::builder().no_proxy().redirect(Policy::none()).build().unwrap(),
        }
    }

    async fn plain() -> Self {
        Self::new(Assumptions::default()).await
    }

    fn now(&self) -> i64 {
        self.store.now().as_second()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let base = self.server.url();
        self.client
            .request(method, format!("{}{path}", base.as_str().trim_end_matches('/')))
    }

    fn exchange(&self) -> RequestBuilder {
        self.request(Method::GET, "/v1/dev/temp-token")
            .header("api-key", self.key.expose_secret())
    }

    async fn token(&self) -> String {
        token_of(self.exchange().send().await.unwrap()).await
    }

    async fn announce(&self, token: &str, posts: u32, directory: &str) -> String {
        let body = json!({"chunks_number": posts, "folder_path": directory});
        let request = self.request(Method::POST, "/v1/upload/get-token").bearer_auth(token);
        let (status, body) = sent(request.json(&body)).await;
        assert_eq!((status, &body["message"]), (200, &json!("ok")));
        body["token"].as_str().unwrap().to_owned()
    }

    fn post(&self, token: &str, upload: &str, form: Form) -> RequestBuilder {
        self.request(Method::POST, "/v1/upload/")
            .bearer_auth(token)
            .header("x-dstor-upload-token", upload)
            .multipart(form)
    }

    fn status(&self, token: &str, upload: &str) -> RequestBuilder {
        self.request(Method::GET, "/v1/upload/get-status/")
            .bearer_auth(token)
            .header("x-dstor-upload-token", upload)
    }

    /// Uploads one file and returns the last status.
    async fn upload(&self, directory: &str, name: &str, content: &str) -> Value {
        let token = self.token().await;
        let upload = self.announce(&token, 1, directory).await;
        assert_eq!(sent(self.post(&token, &upload, form([(name, content)]))).await.0, 200);
        loop {
            let (status, body) = sent(self.status(&token, &upload)).await;
            assert_eq!(status, 200);
            if matches!(body["status"].as_str().unwrap(), "DONE" | "ERROR") {
                return body;
            }
        }
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }
}

fn form<const N: usize>(files: [(&str, &str); N]) -> Form {
    files.into_iter().fold(Form::new(), |form, (name, content)| {
        form.part("any", Part::text(content.to_owned()).file_name(name.to_owned()))
    })
}

async fn sent(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    (response.status().as_u16(), response.json().await.unwrap())
}

/// The status of a refusal, after a look at its body.
async fn refused(request: RequestBuilder) -> u16 {
    let (status, body) = sent(request).await;
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["message"]);
    assert!(!body["message"].as_str().unwrap().is_empty());
    status
}

async fn token_of(response: Response) -> String {
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1);
    body["access_token"].as_str().unwrap().to_owned()
}

fn claims(token: &str) -> Value {
    use base64::Engine;
    let part = token.split('.').nth(1).unwrap();
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[tokio::test]
async fn upload_and_read_back() {
    let bench = Bench::plain().await;
    let done = bench.upload("Library", "a b.txt", "hello").await;
    let hash = bench.store.put("hello");
    assert_eq!(
        done,
        json!({"status": "DONE", "data": [{"Name": "a b.txt", "Hash": hash}]})
    );
    let content = bench.get(&format!("/ipfs/{hash}/")).await;
    assert_eq!(content.status(), 200);
    assert_eq!(content.headers()["etag"], format!("\"{hash}\""));
    assert_eq!(content.text().await.unwrap(), "hello");
    let files = bench.account.files();
    assert_eq!((files[0].path.as_str(), files[0].size), ("/Library/a b.txt", 5));
}

#[tokio::test]
async fn a_key_is_exchanged_for_a_year_or_until_the_time_asked_for() {
    let bench = Bench::plain().await;
    let token = bench.token().await;
    let claims_of_a_year = claims(&token);
    let year = 365 * 24 * 60 * 60;
    assert_eq!(
        claims_of_a_year,
        json!({
            "d": false, "o": false, "s": false, "t": null,
            "iat": bench.now(), "exp": bench.now() + year,
            "aud": "dstor.cloud", "iss": "dstor.cloud", "sub": bench.account.id(),
        })
    );
    for (asked, got) in [(60, 60), (year, year), (year + 1, year)] {
        let request = bench.exchange().header("x-expiration", bench.now() + asked);
        let token = token_of(request.send().await.unwrap()).await;
        assert_eq!(claims(&token)["exp"], bench.now() + got);
    }
    assert_eq!(bench.store.exchanges(), 4);
    for wrong in [
        "0",
        "-5",
        "+5",
        "",
        "soon",
        "1e12",
        "99999999999999999999",
        &bench.now().to_string(),
    ] {
        assert_eq!(
            refused(bench.exchange().header("x-expiration", wrong)).await,
            400,
            "{wrong}"
        );
    }
    let twice = bench
        .exchange()
        .header("x-expiration", "9999999999")
        .header("x-expiration", "1");
    assert_eq!(refused(twice).await, 400);
    assert_eq!(bench.store.exchanges(), 4);
    assert!(
        bench
            .server
            .requests()
            .iter()
            .all(|request| request.authenticated_as.as_deref() == Some("laptop"))
    );
}

#[tokio::test]
async fn a_life_beyond_the_maximum_may_be_refused() {
    let bench = Bench::new(Assumptions {
        maximum_life: 600,
        excess: Excess::Refuse,
        ..Assumptions::default()
    })
    .await;
    let ask = |life| bench.exchange().header("x-expiration", bench.now() + life);
    assert_eq!(sent(ask(600)).await.0, 200);
    assert_eq!(refused(ask(601)).await, 400);
    assert_eq!(claims(&bench.token().await)["exp"], bench.now() + 600);
}

#[tokio::test]
async fn only_a_good_key_of_64_characters_is_exchanged() {
    let bench = Bench::plain().await;
    let ask = |key: &str| bench.request(Method::GET, "/v1/dev/temp-token").header("api-key", key);
    bench.account.add_key_as("short", "x".repeat(63));
    bench.account.add_key_as("password-like", "y".repeat(64));
    assert_eq!(refused(bench.request(Method::GET, "/v1/dev/temp-token")).await, 401);
    for key in ["x".repeat(63), "z".repeat(64), PASSWORD.to_owned()] {
        assert_eq!(refused(ask(&key)).await, 401, "{key}");
    }
    assert_eq!(refused(bench.exchange().header("api-key", "y".repeat(64))).await, 401);
    let other_header = bench.request(Method::GET, "/v1/dev/temp-token");
    assert_eq!(refused(other_header.header("x-api-key", "y".repeat(64))).await, 401);
    assert_eq!(sent(ask(&"y".repeat(64))).await.0, 200);
    assert_eq!(
        refused(bench.request(Method::GET, "/v1/dev/temp-token?api-key=1")).await,
        401
    );
    assert_eq!(refused(bench.request(Method::PUT, "/v1/dev/temp-token")).await, 405);
    assert_eq!(refused(bench.request(Method::GET, "/v1/dev/temp-token/")).await, 404);
}

#[tokio::test]
async fn a_login_is_exchanged() {
    let bench = Bench::plain().await;
    let ask = |body: Value| bench.request(Method::POST, "/v1/dev/temp-token").json(&body);
    let good = json!({"email": EMAIL, "password": PASSWORD});
    let token = token_of(ask(good.clone()).send().await.unwrap()).await;
    assert_eq!(claims(&token)["exp"], bench.now() + 3600);
    bench.announce(&token, 1, "/").await;
    assert_eq!(bench.server.requests()[1].authenticated_as.as_deref(), Some("login"));
    assert_eq!(refused(ask(json!({"email": EMAIL, "password": "x"}))).await, 401);
    assert_eq!(refused(ask(json!({"email": "x", "password": PASSWORD}))).await, 401);
    assert_eq!(refused(ask(json!({"email": EMAIL}))).await, 400);
    assert_eq!(
        refused(ask(json!({"email": EMAIL, "password": PASSWORD, "x": 1}))).await,
        400
    );
    assert_eq!(
        refused(ask(good.clone()).header("x-expiration", "9999999999")).await,
        400
    );
    let untyped = bench.request(Method::POST, "/v1/dev/temp-token").body(good.to_string());
    assert_eq!(refused(untyped).await, 415);
    let trailing = bench
        .request(Method::POST, "/v1/dev/temp-token")
        .header("content-type", "application/json")
        .body(format!("{good}x"));
    assert_eq!(refused(trailing).await, 400);
    bench.account.set_password("new");
    assert_eq!(refused(ask(good)).await, 401);
    assert_eq!(sent(ask(json!({"email": EMAIL, "password": "new"}))).await.0, 200);
    // A key may be called what it likes without getting in the way of the login.
    bench.account.add_key("login");
    assert_eq!(sent(ask(json!({"email": EMAIL, "password": "new"}))).await.0, 200);
}

#[tokio::test]
async fn tokens_are_looked_at_on_every_use() {
    let bench = Bench::plain().await;
    let token = bench.token().await;
    let upload = bench.announce(&token, 1, "/").await;
    let (head, signature) = token.rsplit_once('.').unwrap();
    let look = |authorization: &str| {
        bench
            .request(Method::GET, "/v1/upload/get-status/")
            .header("x-dstor-upload-token", &upload)
            .header("authorization", authorization)
    };
    assert_eq!(sent(look(&format!("Bearer {token}"))).await.0, 200);
    for wrong in [
        token.clone(),
        format!("bearer{token}"),
        format!("Basic {token}"),
        format!("Bearer {head}."),
        format!("Bearer {head}.{}", &signature[1..]),
        format!("Bearer {}", bench.key.expose_secret()),
        "Bearer ".to_owned(),
    ] {
        assert_eq!(refused(look(&wrong)).await, 401, "{wrong}");
    }
    let missing = bench.request(Method::GET, "/v1/upload/get-status/");
    assert_eq!(refused(missing.header("x-dstor-upload-token", &upload)).await, 401);
    let twice = look(&format!("Bearer {token}")).bearer_auth(&token);
    assert_eq!(refused(twice).await, 401);

    let testnet = DstorStore::new(Network::Testnet, Assumptions::default());
    testnet.stop_clock_at(bench.store.now());
    let key = testnet.add_account(EMAIL, PASSWORD).add_key("laptop");
    let server = testnet.serve().await.unwrap();
    let url = server.url().join("v1/dev/temp-token").unwrap();
    let ask = |key: &SecretString| bench.client.get(url.clone()).header("api-key", key.expose_secret());
    assert_eq!(refused(ask(&bench.key)).await, 401);
    let foreign = token_of(ask(&key).send().await.unwrap()).await;
    assert_eq!(claims(&foreign)["iss"], "testnet.dstor.cloud");
    assert_eq!(refused(look(&format!("Bearer {foreign}"))).await, 401);
}

#[tokio::test]
async fn tokens_end_by_the_servers_clock() {
    let bench = Bench::plain().await;
    let ask = bench.exchange().header("x-expiration", bench.now() + 3600);
    let response = ask.send().await.unwrap();
    assert_eq!(response.headers()["date"], "Thu, 01 Jan 2026 00:00:00 GMT");
    let token = token_of(response).await;
    let upload = bench.announce(&token, 1, "/").await;
    bench.store.shift_clock(SignedDuration::from_secs(3599));
    assert_eq!(sent(bench.status(&token, &upload)).await.0, 200);
    bench.store.shift_clock(SignedDuration::from_secs(1));
    assert_eq!(refused(bench.status(&token, &upload)).await, 401);
    bench.store.shift_clock(SignedDuration::from_secs(-1));
    assert_eq!(sent(bench.status(&token, &upload)).await.0, 200);

    bench.account.expire_tokens();
    let (status, body) = sent(bench.status(&token, &upload)).await;
    assert_eq!((status, &body["message"]), (401, &json!("Access token expired")));
    // The same second, the same account: the new token is another one all the same.
    let token = bench.token().await;
    assert_eq!(sent(bench.status(&token, &upload)).await.0, 200);
}

#[tokio::test]
async fn revoking_a_key_ends_its_tokens_or_does_not() {
    for (revocation, after) in [(Revocation::KeepsTokens, 200), (Revocation::EndsTokens, 401)] {
        let bench = Bench::new(Assumptions {
            revocation,
            ..Assumptions::default()
        })
        .await;
        let other = bench.account.add_key("other");
        let token = bench.token().await;
        let upload = bench.announce(&token, 1, "/").await;
        assert!(bench.account.revoke_key("laptop") && !bench.account.revoke_key("laptop"));
        assert!(!bench.account.revoke_key("nobody's"));
        assert_eq!(refused(bench.exchange()).await, 401);
        assert_eq!(sent(bench.status(&token, &upload)).await.0, after);
        bench.account.add_key("laptop");
        assert_eq!(sent(bench.status(&token, &upload)).await.0, after);
        let ask = bench
            .request(Method::GET, "/v1/dev/temp-token")
            .header("api-key", other.expose_secret());
        let token = token_of(ask.send().await.unwrap()).await;
        assert_eq!(sent(bench.status(&token, &upload)).await.0, 200);
    }
}

#[tokio::test]
async fn content_is_staged_until_all_posts_are_there_and_then_worked_on() {
    let bench = Bench::plain().await;
    let token = bench.token().await;
    let upload = bench.announce(&token, 2, "a/b").await;
    let ok = json!({"message": "ok", "upload_token": upload});
    let first = bench.post(&token, &upload, form([("1", "one"), ("2", "two")]));
    assert_eq!(sent(first.header("x-dstor-comment", "mine")).await, (200, ok.clone()));
    let statuses = async |count: usize| {
        let mut seen = Vec::new();
        for _ in 0..count {
            let (_, body) = sent(bench.status(&token, &upload)).await;
            seen.push(body["status"].as_str().unwrap().to_owned());
        }
        seen
    };
    assert_eq!(statuses(3).await, ["ADDING_TO_IPFS"; 3]);
    assert_eq!(
        sent(bench.post(&token, &upload, form([("3", "three")]))).await,
        (200, ok)
    );
    assert!(bench.store.hashes().is_empty() && bench.account.files().is_empty());
    bench.store.set_processing(Processing { adding: 2, saving: 1 });
    assert_eq!(statuses(3).await, ["ADDING_TO_IPFS", "ADDING_TO_IPFS", "SAVING_DATA"]);
    assert!(bench.account.files().is_empty());
    assert_eq!(statuses(2).await, ["DONE"; 2]);
    let files = bench.account.files();
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["/a/b/1", "/a/b/2", "/a/b/3"]);
    assert_eq!(files[2].comment.as_deref(), Some("mine"));
    assert_eq!(bench.account.read("/a/b/2").unwrap(), "two");
    assert_eq!(bench.account.directories(), ["Library", "a", "a/b"]);
    assert_eq!(refused(bench.post(&token, &upload, form([("4", "four")]))).await, 400);
}

#[tokio::test]
async fn without_work_an_upload_is_done_with_its_last_post() {
    let bench = Bench::new(Assumptions {
        processing: Processing { adding: 0, saving: 0 },
        ..Assumptions::default()
    })
    .await;
    let token = bench.token().await;
    let upload = bench.announce(&token, 1, "/").await;
    assert_eq!(sent(bench.post(&token, &upload, form([("x", "")]))).await.0, 200);
    assert_eq!(bench.account.read("/x").unwrap(), "");
    assert_eq!(sent(bench.status(&token, &upload)).await.1["status"], "DONE");
}

#[tokio::test]
async fn relative_paths_become_hashed_folders() {
    let bench = Bench::plain().await;
    let token = bench.token().await;
    let upload = bench.announce(&token, 1, "/").await;
    let files = form([("top.txt", "1"), ("f/ü.txt", "22"), ("f/g/h.html", "333")]);
    assert_eq!(sent(bench.post(&token, &upload, files)).await.0, 200);
    bench.store.set_processing(Processing { adding: 0, saving: 0 });
    let (_, done) = sent(bench.status(&token, &upload)).await;
    let names: Vec<&str> = done["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["Name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["top.txt", "f/ü.txt", "f/g/h.html", "f/g", "f"]);
    let folder = done["data"][4]["Hash"].as_str().unwrap();
    let stored = bench.account.files();
    assert_eq!(stored.len(), 2);
    assert_eq!(
        (stored[1].path.as_str(), stored[1].name(), stored[1].size),
        ("/f/", "f", 5)
    );
    assert_eq!(stored[1].hash, folder);

    let leaf = bench.get(&format!("/ipfs/{folder}/g/h.html")).await;
    assert_eq!(leaf.headers()["content-type"], "text/html");
    let hash = bench.store.put("333");
    assert_eq!(leaf.headers()["etag"], format!("\"{hash}\""));
    assert_eq!(leaf.text().await.unwrap(), "333");
    assert_eq!(
        bench
            .get(&format!("/ipfs/{folder}/%C3%BC.txt"))
            .await
            .text()
            .await
            .unwrap(),
        "22"
    );
    let moved = bench.get(&format!("/ipfs/{folder}/g?a=b")).await;
    assert_eq!(moved.status(), 301);
    assert_eq!(moved.headers()["location"], format!("/ipfs/{folder}/g/?a=b"));
    let page = bench.get(&format!("/ipfs/{folder}/")).await;
    assert_eq!(page.headers()["content-type"], "text/html");
    let page = page.text().await.unwrap();
    assert!(
        page.contains("href=\"g\"") && page.contains("href=\"%C3%BC%2Etxt\""),
        "{page}"
    );
    for (tail, status) in [
        ("nope", 404),
        ("g/h.html/", 404),
        ("g/h.html/x", 404),
        ("g//h.html", 400),
        ("/", 400),
    ] {
        let response = bench.get(&format!("/ipfs/{folder}/{tail}")).await;
        assert_eq!(response.status(), status, "{tail}");
    }
}

#[tokio::test]
async fn announcements_are_strict() {
    let bench = Bench::plain().await;
    let token = bench.token().await;
    let ask = |body: Value| {
        bench
            .request(Method::POST, "/v1/upload/get-token/")
            .bearer_auth(&token)
            .json(&body)
    };
    assert_eq!(
        sent(ask(json!({"chunks_number": 1, "folder_path": "Library"}))).await.0,
        200
    );
    for wrong in [
        json!({"chunks_number": 0, "folder_path": "/"}),
        json!({"chunks_number": -1, "folder_path": "/"}),
        json!({"chunks_number": "1", "folder_path": "/"}),
        json!({"chunks_number": 1}),
        json!({"folder_path": "/"}),
        json!({"chunks_number": 1, "folder_path": "/", "folder_to_upload_to": 0}),
        json!({"chunks_number": 1, "folder_path": ""}),
        json!({"chunks_number": 1, "folder_path": "/a"}),
        json!({"chunks_number": 1, "folder_path": "a/"}),
        json!({"chunks_number": 1, "folder_path": "a//b"}),
        json!({"chunks_number": 1, "folder_path": "a/../b"}),
        json!({"chunks_number": 1, "folder_path": "x".repeat(256)}),
    ] {
        assert_eq!(refused(ask(wrong.clone())).await, 400, "{wrong}");
    }
    let good = json!({"chunks_number": 1, "folder_path": "/"});
    let path = |path: &str| bench.request(Method::POST, path).bearer_auth(&token).json(&good);
    assert_eq!(refused(path("/v1/upload/get-token?x=1")).await, 400);
    assert_eq!(refused(path("/v1/upload/get-status/")).await, 405);
    assert_eq!(refused(path("/v1/upload")).await, 404);
    assert_eq!(refused(bench.request(Method::GET, "/v1/upload/get-token")).await, 405);
    assert_eq!(refused(bench.request(Method::GET, "/v1/upload/get-status")).await, 404);
    assert_eq!(
        refused(bench.request(Method::POST, "/v1/upload/get-token").json(&good)).await,
        401
    );
}

#[tokio::test]
async fn directories_may_have_to_be_there() {
    let bench = Bench::new(Assumptions {
        missing_directory: MissingDirectory::Refuse,
        ..Assumptions::default()
    })
    .await;
    let token = bench.token().await;
    let ask = |path: &str| {
        let body = json!({"chunks_number": 1, "folder_path": path});
        bench
            .request(Method::POST, "/v1/upload/get-token")
            .bearer_auth(&token)
            .json(&body)
    };
    assert_eq!(refused(ask("a")).await, 400);
    assert_eq!(sent(ask("Library")).await.0, 200);
    bench.account.put("/a/b/file", "x");
    assert_eq!(sent(ask("a")).await.0, 200);
    assert_eq!(sent(ask("a/b")).await.0, 200);
}

#[tokio::test]
async fn posts_are_strict() {
    let bench = Bench::new(Assumptions {
        upload_limit: 10,
        ..Assumptions::default()
    })
    .await;
    let token = bench.token().await;
    let upload = bench.announce(&token, 1, "/").await;
    let post = |form: Form| bench.post(&token, &upload, form);
    assert_eq!(refused(post(form([("a", "12345"), ("b", "678901")]))).await, 413);
    assert_eq!(refused(post(Form::new().text("a", "b"))).await, 400);
    assert_eq!(refused(post(form([("a", "1"), ("a", "2")]))).await, 400);
    assert_eq!(refused(post(form([("a", "1"), ("a/b", "2")]))).await, 400);
    for name in ["../a", "/a", "a/", "a//b", "a\\b"] {
        assert_eq!(refused(post(form([(name, "1")]))).await, 400, "{name}");
    }
    let raw = |body: &'static str| {
        bench
            .request(Method::POST, "/v1/upload/")
            .bearer_auth(&token)
            .header("x-dstor-upload-token", &upload)
            .header("content-type", "multipart/form-data; boundary=X")
            .body(body)
    };
    assert_eq!(refused(raw("--X--\r\n")).await, 400);
    let cut = "--X\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a\"\r\n\r\nhello";
    assert_eq!(refused(raw(cut)).await, 400);
    let cut = "--X\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a\"\r\n\r\nhello\r\n--X";
    assert_eq!(refused(raw(cut)).await, 400);
    let followed = "--X\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a\"\r\n\r\nhello\r\n--X--\r\nmore";
    assert_eq!(refused(raw(followed)).await, 400);
    let json = bench.request(Method::POST, "/v1/upload/").bearer_auth(&token);
    let json = json.header("x-dstor-upload-token", &upload).json(&json!({}));
    assert_eq!(refused(json).await, 415);
    // Larger than any document, and answered all the same.
    let lost = bench.request(Method::POST, "/v1/upload").bearer_auth(&token);
    assert_eq!(refused(lost.body(vec![0; 1 << 20])).await, 404);
    let long = bench.request(Method::POST, "/v1/upload/get-token").bearer_auth(&token);
    assert_eq!(refused(long.body(vec![0; 1 << 20])).await, 413);
    let without = bench.request(Method::POST, "/v1/upload/").bearer_auth(&token);
    assert_eq!(refused(without.multipart(form([("a", "1")]))).await, 400);
    assert_eq!(refused(bench.post(&token, "nope", form([("a", "1")]))).await, 400);
    assert_eq!(refused(bench.post("nope", &upload, form([("a", "1")]))).await, 401);

    let stranger = bench.store.add_account("eve@example.com", "x").add_key("k");
    let ask = bench
        .request(Method::GET, "/v1/dev/temp-token")
        .header("api-key", stranger.expose_secret());
    let foreign = token_of(ask.send().await.unwrap()).await;
    assert_eq!(refused(bench.post(&foreign, &upload, form([("a", "1")]))).await, 400);
    assert_eq!(refused(bench.status(&foreign, &upload)).await, 400);
    // After all these refusals the upload still waits for its one post.
    let whole = "--X\r\nContent-Disposition: form-data; name=\"a\"; filename=\"sub/a\"\r\n\r\nhello\r\n--X--\r\n";
    assert_eq!(sent(raw(whole)).await.0, 200);
    assert_eq!(refused(raw(whole)).await, 400);
    bench.store.shift_clock(SignedDuration::from_hours(1));
    assert_eq!(refused(bench.status(&token, &upload)).await, 400);
}

#[tokio::test]
async fn uploads_fail_where_they_are_told_to() {
    let bench = Bench::plain().await;
    bench.store.fail_next_upload(Stage::AddingToIpfs, "no peers");
    bench.store.fail_next_upload(Stage::SavingData, "no space");
    bench.store.fail_next_upload(Stage::Receiving, "no luck");
    for (stage, why, looks) in [("ADDING_TO_IPFS", "no peers", 2), ("SAVING_DATA", "no space", 3)] {
        let before = bench.server.requests().len();
        let end = bench.upload("/", "x", "x").await;
        assert_eq!(
            end,
            json!({"status": "ERROR", "errorAtStage": stage, "errorExplanation": why})
        );
        assert_eq!(bench.server.requests().len() - before, 3 + looks);
    }
    let token = bench.token().await;
    let upload = bench.announce(&token, 2, "/").await;
    let (status, body) = sent(bench.post(&token, &upload, form([("x", "x")]))).await;
    let failure = json!({"errorAtStage": "UPLOADING", "errorExplanation": "no luck", "upload_token": upload});
    assert_eq!((status, body), (200, failure));
    assert_eq!(sent(bench.status(&token, &upload)).await.1["status"], "ERROR");
    assert_eq!(refused(bench.post(&token, &upload, form([("y", "y")]))).await, 400);
    assert!(bench.store.hashes().is_empty() && bench.account.files().is_empty());
    assert_eq!(bench.upload("/", "x", "x").await["status"], "DONE");
}

#[tokio::test]
async fn a_taken_name_is_kept_twice_or_replaced() {
    for (same_name, count) in [(SameName::KeepBoth, 2), (SameName::Replace, 1)] {
        let bench = Bench::new(Assumptions {
            same_name,
            ..Assumptions::default()
        })
        .await;
        bench.upload("/", "x", "old").await;
        let old = bench.account.files()[0].hash.clone();
        bench.upload("/", "x", "new").await;
        assert_eq!(bench.account.files().len(), count);
        assert_eq!(bench.account.read("/x").unwrap(), "new");
        assert_eq!(bench.store.read(&old).unwrap(), "old");
    }
}

#[tokio::test]
async fn reading_takes_a_redirect_and_no_credential() {
    let bench = Bench::plain().await;
    let hash = bench.store.put("0123456789");
    let moved = bench.get(&format!("/ipfs/{hash}?filename=a%20b&x")).await;
    assert_eq!(moved.status(), 308);
    assert_eq!(moved.headers()["location"], format!("/ipfs/{hash}/?filename=a%20b&x"));
    let path = format!("/ipfs/{hash}/");
    let ranged = |range: &str| bench.request(Method::GET, &path).header("range", range).send();
    let part = ranged("bytes=2-4").await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 2-4/10");
    assert_eq!(part.text().await.unwrap(), "234");
    let beyond = ranged("bytes=10-").await.unwrap();
    assert_eq!(
        (beyond.status().as_u16(), &beyond.headers()["content-range"]),
        (416, &"bytes */10".parse().unwrap())
    );
    let head = bench.request(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-length"]),
        (200, &"10".parse().unwrap())
    );
    assert_eq!(head.headers()["accept-ranges"], "bytes");
    let etag = format!("\"{hash}\"");
    let known = bench.request(Method::GET, &path).header("if-none-match", &etag);
    assert_eq!(known.send().await.unwrap().status(), 304);
    for (tag, status) in [(etag.as_str(), 206), ("\"other\"", 200)] {
        let request = bench.request(Method::GET, &path).header("range", "bytes=0-0");
        assert_eq!(request.header("if-range", tag).send().await.unwrap().status(), status);
    }
    let careless = bench.request(Method::GET, &path).bearer_auth("nobody's");
    assert_eq!(careless.send().await.unwrap().status(), 200);
    assert_eq!(bench.request(Method::POST, &path).send().await.unwrap().status(), 405);
    assert!(
        bench
            .server
            .requests()
            .iter()
            .all(|request| request.authenticated_as.is_none())
    );
}

#[tokio::test]
async fn a_plain_gateway_has_neither_ranges_nor_tags_nor_head() {
    let bench = Bench::new(Assumptions {
        ranges: Offered::No,
        etags: Offered::No,
        head: Offered::No,
        missing_content: MissingContent::GatewayFailure,
        ..Assumptions::default()
    })
    .await;
    let hash = bench.store.put("0123456789");
    let path = format!("/ipfs/{hash}/");
    let whole = bench.request(Method::GET, &path).header("range", "bytes=2-4");
    let whole = whole
        .header("if-none-match", format!("\"{hash}\""))
        .send()
        .await
        .unwrap();
    assert_eq!(whole.status(), 200);
    assert!(!whole.headers().contains_key("etag") && !whole.headers().contains_key("accept-ranges"));
    assert_eq!(whole.text().await.unwrap(), "0123456789");
    assert_eq!(bench.request(Method::HEAD, &path).send().await.unwrap().status(), 405);
    assert!(bench.store.forget(&hash) && !bench.store.forget(&hash));
    let lost = bench.get(&path).await;
    assert_eq!(lost.status(), 500);
    assert_eq!(lost.headers()["content-type"], "text/plain; charset=utf-8");
}

#[tokio::test]
async fn time_limited_hashes() {
    let bench = Bench::new(Assumptions {
        redirect: Redirect::Signed { life: 60 },
        ..Assumptions::default()
    })
    .await;
    let hash = bench.store.put("content");
    let told = async |path: &str| {
        let response = bench.get(path).await;
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let moved = bench.get(&format!("/ipfs/{hash}?a=b")).await;
    assert_eq!(moved.status(), 308);
    let location = moved.headers()["location"].to_str().unwrap().to_owned();
    assert!(!location.contains(&hash) && location.ends_with("/?a=b"), "{location}");
    assert_eq!(told(&location).await, (200, "content".to_owned()));
    let limited = bench.store.time_limited(&hash, SignedDuration::from_secs(90));
    bench.store.shift_clock(SignedDuration::from_secs(60));
    let expired = "Signature expired. Please access a file/folder again using our api server";
    assert_eq!(told(&location).await, (400, expired.to_owned()));
    assert_eq!(told(&format!("/ipfs/{limited}/")).await, (200, "content".to_owned()));
    let foreign = DstorStore::new(Network::Production, Assumptions::default()).time_limited(&hash, SignedDuration::MAX);
    for wrong in [&foreign, &limited[1..], "x", &hash[..45]] {
        let answer = told(&format!("/ipfs/{wrong}/")).await;
        assert_eq!(answer, (400, "Unable to decrypt a hash".to_owned()), "{wrong}");
    }
    assert_eq!(
        told(&format!("/ipfs/{}/", bench.store.put_folder([("a", "b")])))
            .await
            .0,
        200
    );
    assert_eq!(
        told("/ipfs/QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn/").await.0,
        404
    );
}

#[tokio::test]
async fn the_console_lists_deletes_and_renames_where_a_test_says() {
    let bench = Bench::plain().await;
    let token = bench.token().await;
    assert_eq!(
        refused(bench.request(Method::GET, "/v1/files").bearer_auth(&token)).await,
        404
    );

    let bench = Bench::new(Assumptions {
        console: Some(Console {
            rename: Endpoint::new(Method::PATCH, "/v1/file/{hash}?path={path}&to={name}"),
            ..Console::default()
        }),
        ..Assumptions::default()
    })
    .await;
    let token = bench.token().await;
    let ask = |method: Method, path: &str| bench.request(method, path).bearer_auth(&token);
    let (one, two) = (bench.account.put("/a/x", "12"), bench.account.put("/y", "3"));
    bench.account.put("/z", "12");
    assert_eq!(refused(bench.request(Method::GET, "/v1/files")).await, 401);
    let (_, list) = sent(ask(Method::GET, "/v1/files")).await;
    let created = "2026-01-01T00:00:00.000Z";
    assert_eq!(
        list[0],
        json!({"name": "x", "hash": one, "size": 2, "path": "/a/x", "created": created})
    );
    assert_eq!(list.as_array().unwrap().len(), 3);

    let rename = |path: &str, to: &str| ask(Method::PATCH, &format!("/v1/file/{one}?path={path}&to={to}"));
    assert_eq!(
        sent(rename("%2Fa%2Fx", "new+name")).await,
        (200, json!({"message": "ok"}))
    );
    assert_eq!(refused(rename("%2Fa%2Fx", "n")).await, 404);
    assert_eq!(refused(rename("%2Fz", "..")).await, 400);
    let paths = |bench: &Bench| {
        bench
            .account
            .files()
            .into_iter()
            .map(|file| file.path)
            .collect::<Vec<_>>()
    };
    assert_eq!(paths(&bench), ["/a/new name", "/y", "/z"]);

    assert_eq!(sent(ask(Method::DELETE, &format!("/v1/files/{one}"))).await.0, 200);
    assert_eq!(refused(ask(Method::DELETE, &format!("/v1/files/{one}"))).await, 404);
    assert_eq!(paths(&bench), ["/y"]);
    assert_eq!(bench.get(&format!("/ipfs/{one}/")).await.text().await.unwrap(), "12");
    assert_eq!(bench.account.remove("/y"), 1);
    assert_eq!(bench.store.read(&two).unwrap(), "3");
}

#[tokio::test]
async fn the_default_console_renames_by_a_json_body() {
    let bench = Bench::new(Assumptions {
        console: Some(Console::default()),
        ..Assumptions::default()
    })
    .await;
    let token = bench.token().await;
    let hash = bench.account.put("/a/x", "12");
    let ask = || {
        bench
            .request(Method::PUT, &format!("/v1/files/{hash}"))
            .bearer_auth(&token)
    };
    assert_eq!(sent(ask().json(&json!({"name": "y"}))).await.0, 200);
    assert_eq!(bench.account.files()[0].path, "/a/y");
    assert_eq!(refused(ask().json(&json!({"name": "y", "x": 1}))).await, 400);
    assert_eq!(refused(ask()).await, 415);
}

#[tokio::test]
async fn a_lie_about_success_changes_nothing_and_the_log_has_no_secret() {
    let bench = Bench::plain().await;
    let token = bench.token().await;
    bench.store.set_processing(Processing { adding: 0, saving: 0 });
    let upload = bench.announce(&token, 1, "/").await;
    bench
        .server
        .faults()
        .inject(Rule::once(Method::POST, "/v1/upload/", Fault::LieAboutSuccess));
    assert_eq!(sent(bench.post(&token, &upload, form([("x", "x")]))).await.0, 200);
    assert!(bench.account.files().is_empty());
    assert_eq!(sent(bench.status(&token, &upload)).await.1["status"], "ADDING_TO_IPFS");
    let shown = format!("{:?} {:?} {:?}", bench.server.requests(), bench.store, bench.account);
    for secret in [bench.key.expose_secret(), PASSWORD, &token] {
        assert!(!shown.contains(secret));
    }
}

#[tokio::test]
async fn a_store_outlives_its_server() {
    let bench = Bench::plain().await;
    let token = bench.token().await;
    let address = bench.server.address();
    let Bench {
        store, server, client, ..
    } = bench;
    server.stop().await;
    let server = store.serve_on(address).await.unwrap();
    let url = server.url().join("v1/upload/get-token").unwrap();
    let body = json!({"chunks_number": 1, "folder_path": "/"});
    assert_eq!(sent(client.post(url).bearer_auth(token).json(&body)).await.0, 200);
}
