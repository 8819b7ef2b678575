use reqwest::multipart::{Form, Part};
use serde_json::json;

use super::*;

fn form(workspace: &str, path: &str, content: &str) -> Form {
    Form::new()
        .text("workspace", workspace.to_owned())
        .text("path", path.to_owned())
        .part("content", Part::text(content.to_owned()).file_name("any"))
}

async fn upload(bench: &Bench, path: &str, content: &str, overwrite: Option<&str>) -> (u16, Value) {
    let mut form = form("my-project", path, content);
    if let Some(overwrite) = overwrite {
        form = form.text("overwrite", overwrite.to_owned());
    }
    sent(bench.jane(Method::POST, "/files").multipart(form)).await
}

#[tokio::test]
async fn uploads_lists_stats_and_downloads() {
    let bench = Bench::plain().await;
    let (status, made) = upload(&bench, "/documents/a b.txt", "hello", None).await;
    assert_eq!(status, 201);
    let data = made["data"].as_object().unwrap();
    let fields: Vec<&str> = data.keys().map(String::as_str).collect();
    assert_eq!(fields, ["createdAt", "id", "name", "path", "size", "type", "version"]);
    assert_eq!((&data["name"], &data["size"]), (&json!("a b.txt"), &json!(5)));
    let id = data["id"].as_str().unwrap();
    assert!(id.starts_with("file_"));

    let (status, body) = bench.get("/files?workspace=my-project&path=/documents").await;
    assert_eq!(status, 200);
    assert_eq!(body["pagination"]["hasMore"], false);
    let item = &body["data"][0];
    assert_eq!(item["id"], id);
    assert_eq!(item["path"], "/documents/a b.txt");
    assert_eq!(item["mimeType"], "text/plain");
    assert_eq!(item["createdBy"], JANE);
    assert_eq!(
        item["hash"],
        "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    let time = item["modifiedAt"].as_str().unwrap();
    assert_eq!((time.len(), &time[19..20], &time[23..]), (24, ".", "Z"), "{time}");
    assert_eq!(bench.get(&format!("/files/{id}")).await.1["data"], *item);

    let root = bench.get(&format!("/files?workspace={}", bench.workspace.id())).await.1;
    let folder = root["data"][0].as_object().unwrap();
    let fields: Vec<&str> = folder.keys().map(String::as_str).collect();
    assert_eq!(fields, ["createdAt", "id", "name", "path", "type"]);
    assert!(folder["id"].as_str().unwrap().starts_with("folder_"));

    let content = bench
        .jane(Method::GET, &format!("/files/{id}/content"))
        .header("Range", "bytes=1-2")
        .send()
        .await
        .unwrap();
    assert_eq!(content.status(), 200);
    assert_eq!(content.headers()["content-type"], "text/plain");
    assert_eq!(content.text().await.unwrap(), "hello");
}

#[tokio::test]
async fn uploads_replace_only_when_told_to_and_make_versions() {
    let bench = Bench::plain().await;
    let (_, first) = upload(&bench, "/a.txt", "one", None).await;
    for overwrite in [None, Some("false")] {
        let (status, body) = upload(&bench, "/a.txt", "two", overwrite).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (400, &json!("resource_already_exists"))
        );
    }
    let (status, second) = upload(&bench, "/a.txt", "two", Some("true")).await;
    assert_eq!((status, &second["data"]["version"]), (200, &json!(2)));
    assert_eq!(second["data"]["id"], first["data"]["id"]);
    assert_eq!(second["data"]["createdAt"], first["data"]["createdAt"]);

    let id = bench.id("/a.txt");
    let versions = bench.get(&format!("/files/{id}/versions")).await.1;
    let numbers: Vec<&Value> = versions["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["version"])
        .collect();
    assert_eq!(numbers, [2, 1]);
    assert_eq!(versions["data"][1]["modifiedBy"], JANE);
    let restore = format!("/files/{id}/restore");
    assert_eq!(bench.json(Method::POST, &restore, json!({"version": 9})).await.0, 404);
    let (status, restored) = bench.json(Method::POST, &restore, json!({"version": 1})).await;
    assert_eq!((status, &restored["data"]["size"]), (200, &json!(3)));
    assert_eq!(bench.workspace.read("/a.txt").unwrap(), "one");
    assert_eq!(bench.workspace.info("/a.txt").unwrap().file.unwrap().version, 3);

    let settings = json!({"settings": {"maxVersions": 2}});
    assert_eq!(
        bench.json(Method::PATCH, "/workspaces/my-project", settings).await.0,
        200
    );
    upload(&bench, "/a.txt", "four", Some("true")).await;
    let versions = bench.get(&format!("/files/{id}/versions")).await.1;
    assert_eq!(versions["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn json_uploads_are_base64() {
    let bench = Bench::plain().await;
    let document = json!({"workspace": "my-project", "path": "/b.json", "content": "aGVsbG8=", "encoding": "base64"});
    assert_eq!(bench.json(Method::POST, "/files", document.clone()).await.0, 201);
    assert_eq!(bench.workspace.read("/b.json").unwrap(), "hello");
    let mut again = document.clone();
    again["overwrite"] = json!(true);
    assert_eq!(bench.json(Method::POST, "/files", again).await.0, 200);
    for (field, wrong) in [
        ("content", json!("not base64!")),
        ("encoding", json!("utf-8")),
        ("encoding", json!(null)),
        ("type", json!("folder")),
        ("overwrite", json!("yes")),
        ("path", json!("relative")),
        ("path", json!("/a//b")),
        ("path", json!("/a/../b")),
        ("path", json!("/a/")),
        ("path", json!("/")),
        ("path", json!(format!("/{}", "x".repeat(256)))),
        ("unknown", json!(1)),
    ] {
        let mut document = document.clone();
        document[field] = wrong.clone();
        let request = bench.jane(Method::POST, "/files").json(&document);
        assert_eq!(refused(request).await, is(400, "invalid_request"), "{field} {wrong}");
    }
}

#[tokio::test]
async fn malformed_multipart_bodies_are_refused() {
    let bench = Bench::plain().await;
    let part =
        |name: &str, value: &str| format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let whole = part("workspace", "my-project") + &part("path", "/m") + &part("content", "x");
    for (body, why) in [
        (whole.clone(), "no closing delimiter"),
        (whole.clone() + "--B--\r\nmore", "something after the end"),
        (part("path", "/m") + &part("content", "x") + "--B--\r\n", "no workspace"),
        (
            part("workspace", "my-project") + &part("path", "/m") + "--B--\r\n",
            "no content",
        ),
        (whole.clone() + &part("path", "/n") + "--B--\r\n", "a part twice"),
        (whole.clone() + &part("extra", "x") + "--B--\r\n", "an unknown part"),
        (whole.clone() + &part("overwrite", "1") + "--B--\r\n", "not a boolean"),
    ] {
        let request = bench
            .jane(Method::POST, "/files")
            .header("Content-Type", "multipart/form-data; boundary=B")
            .body(body);
        assert_eq!(refused(request).await, is(400, "invalid_request"), "{why}");
    }
    assert!(!bench.workspace.exists("/m"));
    let request = bench
        .jane(Method::POST, "/files")
        .header("Content-Type", "multipart/form-data; boundary=B")
        .body(whole + "--B--\r\n");
    assert_eq!(sent(request).await.0, 201);
    let plain = bench
        .jane(Method::POST, "/files")
        .header("Content-Type", "text/plain")
        .body("x");
    assert_eq!(refused(plain).await, is(400, "invalid_request"));
}

#[tokio::test]
async fn folders_are_made_as_assumed() {
    let bare = json!({"workspace": "my-project", "path": "/new/folder"});
    let mut typed = bare.clone();
    typed["type"] = json!("folder");
    for (folders, bare_status, typed_status) in [
        (FolderCreation::WithoutContent, 201, 201),
        (FolderCreation::Typed, 400, 201),
        (FolderCreation::Unsupported, 400, 400),
    ] {
        for (body, status) in [(&bare, bare_status), (&typed, typed_status)] {
            let bench = Bench::new(Assumptions {
                folders,
                ..Assumptions::default()
            })
            .await;
            let (got, answer) = bench.json(Method::POST, "/files", body.clone()).await;
            assert_eq!(got, status, "{folders:?} {body}");
            if status == 201 {
                assert_eq!(answer["data"]["type"], "folder");
                assert_eq!(bench.workspace.list("/new").unwrap(), ["folder"]);
                let again = bench.jane(Method::POST, "/files").json(body);
                assert_eq!(refused(again).await, is(400, "resource_already_exists"));
            }
        }
    }
}

#[tokio::test]
async fn parents_are_made_or_required() {
    let bench = Bench::new(Assumptions {
        parents: Parents::Required,
        statuses: Statuses::Standard,
        ..Assumptions::default()
    })
    .await;
    let (status, body) = upload(&bench, "/missing/a", "x", None).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("resource_not_found")));
    assert_eq!(body["error"]["details"]["path"], "/missing/a");
    assert!(!bench.workspace.exists("/missing"));
    bench.workspace.put("/file", "x").unwrap();
    let (status, body) = upload(&bench, "/file/a", "x", None).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (409, &json!("resource_already_exists"))
    );
}

#[tokio::test]
async fn pages_follow_each_other_across_changes() {
    let bench = Bench::plain().await;
    for number in 0..5 {
        bench.workspace.put(&format!("/d/{number}"), "x").unwrap();
    }
    let names = |body: &Value| -> Vec<String> {
        let items = body["data"].as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = bench.get("/files?workspace=my-project&path=/d&limit=2").await.1;
    assert_eq!(
        (names(&first), &first["pagination"]["hasMore"]),
        (vec!["0".into(), "1".into()], &json!(true))
    );
    bench.workspace.remove("/d/1");
    bench.workspace.put("/d/1a", "x").unwrap();
    let cursor = first["pagination"]["cursor"].as_str().unwrap();
    let cursor = percent_encoding::utf8_percent_encode(cursor, percent_encoding::NON_ALPHANUMERIC).to_string();
    let second = bench.get(&format!("/files?cursor={cursor}&limit=2")).await.1;
    assert_eq!(names(&second), ["1a", "2"]);
    let rest = bench
        .get(&format!("/files?workspace=my-project&path=/d&cursor={cursor}"))
        .await
        .1;
    assert_eq!((names(&rest).len(), &rest["pagination"]["hasMore"]), (4, &json!(false)));
    assert!(rest["pagination"]["cursor"].is_string());
    let empty = bench.store.add_workspace(JANE, "Empty").unwrap();
    let nothing = bench.get(&format!("/files?workspace={}", empty.slug())).await.1;
    assert_eq!(
        nothing,
        json!({"data": [], "pagination": {"cursor": null, "hasMore": false}})
    );

    for query in [
        "limit=0".to_owned(),
        "limit=1001".to_owned(),
        "limit=x".to_owned(),
        "cursor=x".to_owned(),
        format!("path=/&cursor={cursor}"),
        "path=d".to_owned(),
        "page=2".to_owned(),
        "path=/&path=/".to_owned(),
    ] {
        let request = bench.jane(Method::GET, &format!("/files?workspace=my-project&{query}"));
        assert_eq!(refused(request).await, is(400, "invalid_request"), "{query}");
    }
    assert_eq!(bench.get("/files?workspace=my-project&limit=1000").await.0, 200);
    let missing = bench.jane(Method::GET, "/files?path=/");
    assert_eq!(refused(missing).await, is(400, "invalid_request"));
    for (workspace, path) in [("my-project", "/none"), ("my-project", "/d/0"), ("none", "/")] {
        let request = bench.jane(Method::GET, &format!("/files?workspace={workspace}&path={path}"));
        assert_eq!(refused(request).await, is(404, "resource_not_found"), "{path}");
    }
}

#[tokio::test]
async fn a_page_has_a_hundred_entries_unless_asked() {
    let bench = Bench::plain().await;
    for number in 0..101 {
        bench.workspace.put(&format!("/{number:03}"), "").unwrap();
    }
    let page = bench.get("/files?workspace=my-project").await.1;
    assert_eq!(page["data"].as_array().unwrap().len(), 100);
    assert_eq!(page["pagination"]["hasMore"], true);
}

#[tokio::test]
async fn moves_and_renames_keep_the_id() {
    let bench = Bench::plain().await;
    bench.workspace.put("/a/deep/x", "x").unwrap();
    bench.workspace.put("/taken", "t").unwrap();
    let (file, folder) = (bench.id("/a/deep/x"), bench.id("/a"));
    let patch = |id: &str, body: Value| {
        let request = bench.jane(Method::PATCH, &format!("/files/{id}")).json(&body);
        sent(request)
    };
    let (status, moved) = patch(&file, json!({"path": "/b/y"})).await;
    assert_eq!((status, &moved["data"]["path"]), (200, &json!("/b/y")));
    assert_eq!(moved["data"]["id"], file);
    assert_eq!(patch(&file, json!({"name": "z"})).await.1["data"]["path"], "/b/z");
    assert_eq!(patch(&file, json!({"path": "/b/z"})).await.0, 200);
    assert_eq!(patch(&folder, json!({"path": "/c"})).await.0, 200);
    assert_eq!(bench.workspace.list("/c").unwrap(), ["deep"]);
    assert_eq!(bench.workspace.list("/").unwrap(), ["b", "c", "taken"]);
    for (id, body, code) in [
        (&file, json!({"path": "/taken"}), "resource_already_exists"),
        (&file, json!({"path": "/taken/x"}), "resource_already_exists"),
        (&folder, json!({"path": "/c/deep/c"}), "invalid_request"),
        (&file, json!({"path": "/q", "name": "q"}), "invalid_request"),
        (&file, json!({}), "invalid_request"),
        (&file, json!({"name": "a/b"}), "invalid_request"),
        (&file, json!({"path": "/"}), "invalid_request"),
        (&file, json!({"workspace": "other"}), "invalid_request"),
    ] {
        let (status, answer) = patch(id, body.clone()).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(code)), "{body}");
    }
    assert_eq!(patch("file_none", json!({"name": "q"})).await.0, 404);
    assert_eq!(bench.workspace.read("/b/z").unwrap(), "x");
}

#[tokio::test]
async fn folders_with_content_go_only_recursively() {
    let bench = Bench::plain().await;
    bench.workspace.put("/d/sub/x", "x").unwrap();
    let (folder, file) = (bench.id("/d"), bench.id("/d/sub/x"));
    let delete = |query: &str| bench.jane(Method::DELETE, &format!("/files/{folder}{query}"));
    for query in ["", "?recursive=false"] {
        assert_eq!(refused(delete(query)).await, is(400, "resource_not_empty"));
    }
    assert_eq!(refused(delete("?recursive=1")).await, is(400, "invalid_request"));
    assert_eq!(
        refused(delete("").json(&json!({"recursive": true}))).await,
        is(400, "invalid_request")
    );
    assert_eq!(
        sent(delete("?recursive=true")).await,
        (200, json!({"data": {"id": folder}}))
    );
    assert_eq!(bench.get(&format!("/files/{file}")).await.0, 404);
    assert_eq!(refused(delete("")).await, is(404, "resource_not_found"));
    bench.workspace.mkdir("/empty").unwrap();
    let empty = bench.id("/empty");
    assert_eq!(
        sent(bench.jane(Method::DELETE, &format!("/files/{empty}"))).await.0,
        200
    );
}

#[tokio::test]
async fn a_deletion_may_answer_without_content() {
    let bench = Bench::new(Assumptions {
        deletion: Deletion::NoContent,
        ..Assumptions::default()
    })
    .await;
    bench.workspace.put("/x", "x").unwrap();
    let id = bench.id("/x");
    let answer = bench
        .jane(Method::DELETE, &format!("/files/{id}"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.text().await.unwrap(), "");
}

#[tokio::test]
async fn ranges_are_served_where_assumed() {
    let bench = Bench::new(Assumptions {
        ranges: Ranges::Served,
        times: Times::Seconds,
        ..Assumptions::default()
    })
    .await;
    bench.workspace.put("/x", "0123456789").unwrap();
    let id = bench.id("/x");
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, Some("bytes 2-4/10"), "234"),
        ("bytes=7-", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=-2", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=8-99", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=4-2", 200, None, "0123456789"),
        ("bytes=0-1,4-5", 200, None, "0123456789"),
        ("bytes=+1-2", 200, None, "0123456789"),
        ("items=0-1", 200, None, "0123456789"),
    ] {
        let request = bench.jane(Method::GET, &format!("/files/{id}/content"));
        let answer = request.header("Range", range).send().await.unwrap();
        assert_eq!(answer.status(), status, "{range}");
        let got = answer
            .headers()
            .get("content-range")
            .map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(got.as_deref(), content_range, "{range}");
        assert_eq!(answer.text().await.unwrap(), body, "{range}");
    }
    let beyond = bench
        .jane(Method::GET, &format!("/files/{id}/content"))
        .header("Range", "bytes=10-");
    assert_eq!(sent(beyond).await.0, 416);
    let item = bench.get(&format!("/files/{id}")).await.1;
    assert_eq!(
        item["data"]["createdAt"].as_str().unwrap().len(),
        "2026-01-06T10:30:00Z".len()
    );
    let folder = bench.workspace.mkdir("/f").unwrap();
    let request = bench.jane(Method::GET, &format!("/files/{folder}/content"));
    assert_eq!(refused(request).await, is(400, "invalid_request"));
}

#[tokio::test]
async fn storage_and_file_size_have_an_end() {
    let bench = Bench::new(Assumptions {
        file_limit: 8,
        statuses: Statuses::Standard,
        ..Assumptions::default()
    })
    .await;
    let limits = Limits {
        storage: Some(12),
        workspaces: Some(1),
        requests: 100,
    };
    bench.store.add_user(JANE, Plan::Enterprise(limits));
    assert_eq!(upload(&bench, "/a", "12345678", None).await.0, 201);
    let (status, body) = upload(&bench, "/b", "123456789", None).await;
    assert_eq!((status, &body["error"]["code"]), (413, &json!("payload_too_large")));
    let (status, body) = upload(&bench, "/b", "12345", None).await;
    assert_eq!((status, &body["error"]["code"]), (507, &json!("quota_exceeded")));
    assert_eq!(upload(&bench, "/a", "1234", Some("true")).await.0, 200);
    assert_eq!(upload(&bench, "/b", "12345", None).await.0, 201);
    let usage = &bench.get("/me").await.1["data"]["usage"];
    assert_eq!(
        *usage,
        json!({"storage": 9, "storageLimit": 12, "workspaces": 1, "workspacesLimit": 1})
    );
    let (status, body) = bench.json(Method::POST, "/workspaces", json!({"name": "More"})).await;
    assert_eq!((status, &body["error"]["code"]), (507, &json!("quota_exceeded")));
}
