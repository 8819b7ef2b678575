use serde_json::json;

use super::*;

#[tokio::test]
async fn workspaces_are_listed_and_described() {
    let bench = Bench::plain().await;
    bench.workspace.put("/a/b", "12345").unwrap();
    let (status, body) = bench.get("/workspaces").await;
    assert_eq!(status, 200);
    let entry = body["data"][0].as_object().unwrap();
    let fields: Vec<&String> = entry.keys().collect();
    assert_eq!(
        fields,
        ["createdAt", "description", "id", "name", "role", "slug", "stats"]
    );
    assert_eq!(entry["stats"], json!({"files": 1, "size": 5, "members": 1}));
    assert_eq!(
        (&entry["role"], &entry["slug"]),
        (&json!("owner"), &json!("my-project"))
    );
    assert!(entry["id"].as_str().unwrap().starts_with("ws_"));
    for key in [bench.workspace.id(), "my-project"] {
        let described = bench.get(&format!("/workspaces/{key}")).await.1;
        assert_eq!(described["data"]["settings"], json!({}));
        assert_eq!(described["data"]["name"], "My Project");
    }
    assert_eq!(bench.get("/workspaces/none").await.0, 404);
}

#[tokio::test]
async fn workspaces_are_made_changed_and_deleted() {
    let bench = Bench::plain().await;
    let new = json!({"name": "New Project", "settings": {"syncMode": "realtime", "versionHistory": true}});
    let (status, made) = bench.json(Method::POST, "/workspaces", new).await;
    assert_eq!((status, &made["data"]["slug"]), (201, &json!("new-project")));
    assert_eq!(
        made["data"]["settings"],
        json!({"syncMode": "realtime", "versionHistory": true})
    );
    let id = made["data"]["id"].as_str().unwrap();
    let (_, second) = bench
        .json(Method::POST, "/workspaces", json!({"name": "New Project"}))
        .await;
    assert_eq!(second["data"]["slug"], "new-project-2");
    for (wrong, code) in [
        (json!({"name": " "}), "invalid_request"),
        (json!({"slug": "x"}), "invalid_request"),
        (json!({"name": "x", "slug": "Not A Slug"}), "invalid_request"),
        (json!({"name": "x", "slug": "my-project"}), "resource_already_exists"),
        (
            json!({"name": "x", "settings": {"syncMode": "sometimes"}}),
            "invalid_request",
        ),
        (json!({"name": "x", "color": "red"}), "invalid_request"),
    ] {
        let request = bench.jane(Method::POST, "/workspaces").json(&wrong);
        assert_eq!(refused(request).await, is(400, code), "{wrong}");
    }
    let path = format!("/workspaces/{id}");
    let update = json!({"name": "Renamed", "description": "d", "settings": {"maxVersions": 5}});
    let (status, changed) = bench.json(Method::PATCH, &path, update).await;
    assert_eq!((status, &changed["data"]["name"]), (200, &json!("Renamed")));
    assert_eq!(changed["data"]["slug"], "new-project");
    assert_eq!(
        changed["data"]["settings"],
        json!({"syncMode": "realtime", "versionHistory": true, "maxVersions": 5})
    );
    assert_eq!(bench.json(Method::PATCH, &path, json!({"slug": "x"})).await.0, 400);
    assert_eq!(sent(bench.jane(Method::DELETE, &path)).await.0, 200);
    assert!(bench.store.workspace(id).is_none());
    assert_eq!(bench.store.workspaces().len(), 2);
}

#[tokio::test]
async fn members_come_change_and_go() {
    let bench = Bench::plain().await;
    let members = "/workspaces/my-project/members";
    let invite = |email: &str, role: &str| {
        let body = json!({"email": email, "role": role, "message": "Welcome"});
        sent(bench.jane(Method::POST, members).json(&body))
    };
    let (status, invited) = invite(JOHN, "editor").await;
    assert_eq!((status, &invited["data"]["role"]), (201, &json!("editor")));
    let id = invited["data"]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        invite(JOHN, "viewer").await.1["error"]["code"],
        "resource_already_exists"
    );
    assert_eq!(invite("nobody@example.com", "viewer").await.0, 404);
    assert_eq!(invite("nobody@example.com", "owner").await.0, 400);
    let listed = bench.get(members).await.1;
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let john = format!("{members}/{id}");
    let (status, changed) = bench.json(Method::PATCH, &john, json!({"role": "viewer"})).await;
    assert_eq!((status, &changed["data"]["role"]), (200, &json!("viewer")));
    assert_eq!(bench.json(Method::PATCH, &john, json!({"role": "owner"})).await.0, 400);
    let jane = bench.get("/me").await.1["data"]["id"].as_str().unwrap().to_owned();
    let owner = bench.jane(Method::DELETE, &format!("{members}/{jane}"));
    assert_eq!(refused(owner).await, is(403, "permission_denied"));
    assert_eq!(sent(bench.jane(Method::DELETE, &john)).await.0, 200);
    assert_eq!(sent(bench.jane(Method::DELETE, &john)).await.0, 404);
}

#[tokio::test]
async fn the_profile_tells_plan_and_usage() {
    let bench = Bench::plain().await;
    bench.store.add_user(JANE, Plan::Free);
    let me = bench.get("/me").await.1;
    let fields: Vec<&String> = me["data"].as_object().unwrap().keys().collect();
    let documented = [
        "avatar",
        "createdAt",
        "email",
        "id",
        "name",
        "plan",
        "settings",
        "usage",
    ];
    assert_eq!(fields, documented);
    assert_eq!(
        (&me["data"]["email"], &me["data"]["plan"]),
        (&json!(JANE), &json!("free"))
    );
    assert_eq!(me["data"]["usage"]["storageLimit"], 5_368_709_120_u64);
    assert_eq!(me["data"]["usage"]["workspacesLimit"], 3);
    bench.store.add_user(JANE, Plan::unlimited());
    assert_eq!(bench.get("/me").await.1["data"]["usage"]["storageLimit"], -1);
}
