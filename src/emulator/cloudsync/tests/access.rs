use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::*;
use crate::emulator::{Fault, Rule};

#[tokio::test]
async fn credentials_are_asked_for_and_looked_at() {
    let bench = Bench::plain().await;
    let me = || bench.anonymous(Method::GET, "/me");
    assert_eq!(refused(me()).await, is(401, "authentication_required"));
    let basic = me().basic_auth("x", Some("y"));
    assert_eq!(refused(basic).await, is(401, "authentication_required"));
    for secret in ["sk_live_unknown", "at_live_unknown", "rt_live_unknown"] {
        assert_eq!(refused(me().bearer_auth(secret)).await, is(401, "invalid_token"));
    }
    assert_eq!(refused(me().bearer_auth("")).await, is(401, "authentication_required"));
    let twice = me().bearer_auth(bench.key.secret()).bearer_auth(bench.key.secret());
    assert_eq!(refused(twice).await, is(400, "invalid_request"));
    assert_eq!(sent(me().bearer_auth(bench.key.secret())).await.0, 200);
    let log = bench.server.requests();
    assert_eq!(log.last().unwrap().authenticated_as.as_deref(), Some("all"));
    assert_eq!(log[0].authenticated_as, None);
    assert!(bench.store.revoke_key(bench.key.id()));
    assert_eq!(
        refused(me().bearer_auth(bench.key.secret())).await,
        is(401, "invalid_token")
    );
}

#[tokio::test]
async fn a_permission_is_needed_for_each_endpoint() {
    let bench = Bench::plain().await;
    bench.workspace.put("/x", "x").unwrap();
    let (file, ws) = (bench.id("/x"), bench.workspace.id().to_owned());
    let endpoints = [
        (Scope::FilesRead, Method::GET, "/files?workspace=my-project".to_owned()),
        (Scope::FilesRead, Method::GET, format!("/files/{file}")),
        (Scope::FilesRead, Method::GET, format!("/files/{file}/content")),
        (Scope::FilesRead, Method::GET, format!("/files/{file}/versions")),
        (Scope::FilesWrite, Method::POST, "/files".to_owned()),
        (Scope::FilesWrite, Method::PATCH, format!("/files/{file}")),
        (Scope::FilesWrite, Method::POST, format!("/files/{file}/restore")),
        (Scope::FilesWrite, Method::DELETE, format!("/files/{file}")),
        (Scope::WorkspacesRead, Method::GET, "/workspaces".to_owned()),
        (Scope::WorkspacesRead, Method::GET, format!("/workspaces/{ws}")),
        (Scope::WorkspacesWrite, Method::POST, "/workspaces".to_owned()),
        (Scope::WorkspacesWrite, Method::PATCH, format!("/workspaces/{ws}")),
        (Scope::WorkspacesWrite, Method::DELETE, format!("/workspaces/{ws}")),
        (Scope::UsersRead, Method::GET, format!("/workspaces/{ws}/members")),
        (Scope::UsersWrite, Method::POST, format!("/workspaces/{ws}/members")),
        (
            Scope::UsersWrite,
            Method::PATCH,
            format!("/workspaces/{ws}/members/user_x"),
        ),
        (
            Scope::UsersWrite,
            Method::DELETE,
            format!("/workspaces/{ws}/members/user_x"),
        ),
    ];
    for (needed, method, path) in endpoints {
        let others: Vec<Scope> = Scope::of_keys().into_iter().filter(|scope| *scope != needed).collect();
        let without = bench.store.create_key(JANE, "without", &others).unwrap();
        let (status, body) = sent(bench.with(without.secret(), method.clone(), &path)).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (403, &json!("permission_denied")),
            "{path}"
        );
        assert_eq!(body["error"]["details"]["required"], needed.as_str());
        // With it alone the request gets further, to success or to its body's faults.
        let only = bench.store.create_key(JANE, "only", &[needed]).unwrap();
        if method != Method::DELETE {
            let (status, _) = sent(bench.with(only.secret(), method, &path)).await;
            assert_ne!(status, 403, "{path}");
        }
    }
    assert!(bench.workspace.is_there() && bench.workspace.exists("/x"));
}

#[tokio::test]
async fn roles_limit_what_permissions_allow() {
    let bench = Bench::plain().await;
    bench.workspace.put("/x", "x").unwrap();
    let file = bench.id("/x");
    let john = bench.store.create_key(JOHN, "john", &Scope::of_keys()).unwrap();
    let john = |method: Method, path: &str| bench.with(john.secret(), method, path);
    let list = || john(Method::GET, "/files?workspace=my-project");
    let rename = || john(Method::PATCH, &format!("/files/{file}")).json(&json!({"name": "x"}));
    let describe = || john(Method::PATCH, "/workspaces/my-project").json(&json!({"description": "d"}));
    let delete = || john(Method::DELETE, "/workspaces/my-project");

    for request in [
        list(),
        rename(),
        describe(),
        delete(),
        john(Method::GET, "/workspaces/my-project/members"),
    ] {
        assert_eq!(refused(request).await, is(404, "resource_not_found"));
    }
    assert_eq!(sent(john(Method::GET, "/workspaces")).await, (200, json!({"data": []})));
    for (role, expected) in [
        (Role::Viewer, [200, 403, 403, 403]),
        (Role::Editor, [200, 200, 403, 403]),
        (Role::Admin, [200, 200, 200, 403]),
    ] {
        bench.workspace.set_role(JOHN, role).unwrap();
        let mut got = Vec::new();
        for request in [list(), rename(), describe(), delete()] {
            got.push(sent(request).await.0);
        }
        assert_eq!(got, expected, "{role:?}");
        let listed = sent(john(Method::GET, "/workspaces")).await.1;
        assert_eq!(listed["data"][0]["role"], json!(role));
    }
    let (_, body) = sent(delete()).await;
    assert_eq!(body["error"]["details"]["requiredRole"], "owner");
    assert!(bench.workspace.remove_member(JOHN));
    assert_eq!(sent(list()).await.0, 404);
}

#[tokio::test]
async fn keys_are_listed_made_and_deleted() {
    let bench = Bench::plain().await;
    let new = json!({"name": "CI", "permissions": ["files:read"], "expiresAt": "2999-01-01T00:00:00Z"});
    let (status, made) = bench.json(Method::POST, "/me/api-keys", new).await;
    assert_eq!(status, 201);
    let fields: Vec<&String> = made["data"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["createdAt", "id", "key", "name", "permissions"]);
    let (id, secret) = (
        made["data"]["id"].as_str().unwrap(),
        made["data"]["key"].as_str().unwrap(),
    );
    assert!(id.starts_with("key_") && secret.starts_with("sk_live_"));

    let listed = bench.get("/me/api-keys").await.1;
    let shown = &listed["data"][1];
    assert_eq!(shown["prefix"], secret[..12]);
    assert_eq!(
        (&shown["permissions"], &shown["lastUsed"]),
        (&json!(["files:read"]), &json!(null))
    );
    assert!(!listed.to_string().contains(secret));
    let list = || bench.with(secret, Method::GET, "/files?workspace=my-project");
    assert_eq!(sent(list()).await.0, 200);
    assert!(bench.get("/me/api-keys").await.1["data"][1]["lastUsed"].is_string());

    let more = bench.with(secret, Method::POST, "/me/api-keys");
    let more = more.json(&json!({"name": "more", "permissions": ["files:write"]}));
    assert_eq!(refused(more).await, is(403, "permission_denied"));
    for wrong in [
        json!({"name": "", "permissions": ["files:read"]}),
        json!({"name": "x", "permissions": []}),
        json!({"name": "x", "permissions": ["offline_access"]}),
        json!({"name": "x", "permissions": ["everything"]}),
        json!({"name": "x", "permissions": ["files:read"], "expiresAt": "2001-01-01T00:00:00Z"}),
        json!({"name": "x", "permissions": ["files:read"], "owner": "x"}),
    ] {
        let request = bench.jane(Method::POST, "/me/api-keys").json(&wrong);
        assert_eq!(refused(request).await, is(400, "invalid_request"), "{wrong}");
    }

    bench.store.clock().stop_at("2998-12-31T23:59:59Z".parse().unwrap());
    assert_eq!(sent(list()).await.0, 200);
    bench.store.clock().advance(SignedDuration::from_secs(1));
    assert_eq!(refused(list()).await, is(401, "invalid_token"));

    let johns = bench.store.create_key(JOHN, "john", &[Scope::FilesRead]).unwrap();
    let foreign = bench.jane(Method::DELETE, &format!("/me/api-keys/{}", johns.id()));
    assert_eq!(refused(foreign).await, is(404, "resource_not_found"));
    assert_eq!(
        sent(bench.jane(Method::DELETE, &format!("/me/api-keys/{id}"))).await.0,
        200
    );
    assert_eq!(bench.store.keys(JANE), [(bench.key.id().to_owned(), "all".to_owned())]);
}

#[tokio::test]
async fn key_management_can_be_closed() {
    for (key_management, list, create) in [
        (KeyManagement::ListOnly, 200, 403),
        (KeyManagement::Forbidden, 403, 403),
    ] {
        let bench = Bench::new(Assumptions {
            key_management,
            ..Assumptions::default()
        })
        .await;
        assert_eq!(bench.get("/me/api-keys").await.0, list);
        let new = json!({"name": "x", "permissions": ["files:read"]});
        assert_eq!(bench.json(Method::POST, "/me/api-keys", new).await.0, create);
        let own = format!("/me/api-keys/{}", bench.key.id());
        assert_eq!(sent(bench.jane(Method::DELETE, &own)).await.0, create);
    }
}

#[tokio::test]
async fn the_sandbox_may_be_apart() {
    let bench = Bench::new(Assumptions {
        sandbox: Sandbox::Separate,
        ..Assumptions::default()
    })
    .await;
    let sandbox = bench
        .store
        .add_workspace_in(Environment::Sandbox, JANE, "Play")
        .unwrap();
    let test = bench
        .store
        .create_key_for(Environment::Sandbox, JANE, "test", &Scope::of_keys())
        .unwrap();
    assert!(test.secret().starts_with("sk_test_"));
    let names = |body: Value| {
        body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["slug"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(sent(bench.with(test.secret(), Method::GET, "/workspaces")).await.1),
        ["play"]
    );
    assert_eq!(names(bench.get("/workspaces").await.1), ["my-project"]);
    sandbox.put("/x", "x").unwrap();
    let id = sandbox.info("/x").unwrap().id;
    assert_eq!(bench.get(&format!("/files/{id}")).await.0, 404);
    assert_eq!(
        sent(bench.with(test.secret(), Method::GET, &format!("/files/{id}")))
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn requests_are_counted_in_windows() {
    for retry_after in [RetryAfter::Absent, RetryAfter::Sent] {
        let bench = Bench::new(Assumptions {
            retry_after,
            ..Assumptions::default()
        })
        .await;
        let start: Timestamp = "2026-01-06T10:30:00Z".parse().unwrap();
        bench.store.clock().stop_at(start);
        let limits = Limits {
            storage: None,
            workspaces: None,
            requests: 2,
        };
        bench.store.add_user(JANE, Plan::Enterprise(limits));
        let header =
            |answer: &Response, name: &str| -> i64 { answer.headers()[name].to_str().unwrap().parse().unwrap() };
        for (path, status, remaining) in [("/me", 200, 1), ("/nowhere", 404, 0), ("/me", 429, 0)] {
            let answer = bench.jane(Method::GET, path).send().await.unwrap();
            assert_eq!(answer.status(), status);
            assert_eq!(header(&answer, "x-ratelimit-limit"), 2);
            assert_eq!(header(&answer, "x-ratelimit-remaining"), remaining);
            assert_eq!(header(&answer, "x-ratelimit-reset"), start.as_second() + 60);
            let wait = answer
                .headers()
                .get("retry-after")
                .map(|value| value.to_str().unwrap().to_owned());
            let wanted = (status == 429 && retry_after == RetryAfter::Sent).then(|| "60".to_owned());
            assert_eq!(wait, wanted);
            if status == 429 {
                assert_eq!(outcome(answer).await.1["error"]["code"], "rate_limit_exceeded");
            }
        }
        let anonymous = bench.anonymous(Method::GET, "/me").send().await.unwrap();
        assert_eq!(
            (anonymous.status().as_u16(), header(&anonymous, "x-ratelimit-limit")),
            (401, 100)
        );
        bench.store.clock().advance(SignedDuration::from_secs(60));
        assert_eq!(bench.get("/me").await.0, 200);
    }
}

#[tokio::test]
async fn tokens_of_another_server_are_trusted_where_wanted() {
    let bench = Bench::plain().await;
    bench.workspace.put("/x", "x").unwrap();
    let request = || bench.with("opaque", Method::GET, "/files?workspace=my-project");
    assert_eq!(sent(request()).await.0, 401);
    bench.store.trust(|token| {
        let email = if token == "opaque" { JANE } else { "nobody@example.com" };
        Some(ForeignGrant {
            email: email.to_owned(),
            scopes: vec![Scope::FilesRead],
        })
    });
    assert_eq!(sent(request()).await.0, 200);
    assert_eq!(sent(bench.with("opaque", Method::GET, "/workspaces")).await.0, 403);
    assert_eq!(sent(bench.with("other", Method::GET, "/me")).await.0, 401);
    assert_eq!(sent(bench.jane(Method::GET, "/me")).await.0, 200);
}

#[tokio::test]
async fn nothing_else_is_offered() {
    for (statuses, wrong_method) in [(Statuses::Listed, 404), (Statuses::Standard, 405)] {
        let bench = Bench::new(Assumptions {
            statuses,
            ..Assumptions::default()
        })
        .await;
        assert_eq!(sent(bench.jane(Method::PUT, "/files")).await.0, wrong_method);
        assert_eq!(sent(bench.jane(Method::HEAD, "/me")).await.0, wrong_method);
        assert_eq!(sent(bench.jane(Method::DELETE, "/me")).await.0, wrong_method);
        assert_eq!(bench.get("/me?x=1").await.0, 400);
        assert_eq!(sent(bench.jane(Method::GET, "/me").body("x")).await.0, 400);
        let unknown = bench.jane(Method::GET, "/files/file_x/thumbnail");
        assert_eq!(refused(unknown).await.1, "resource_not_found");
    }
}

#[tokio::test]
async fn no_secret_shows_in_debug_output_or_log() {
    let bench = Bench::plain().await;
    let client = OauthClient::confidential("app", "canary-secret");
    bench.store.add_client(client.clone());
    let tokens = bench.store.grant(JANE, "app", &Scope::of_oauth()).unwrap();
    sent(bench.with(tokens.access(), Method::GET, "/me?token=canary-query")).await;
    let shown = format!(
        "{:?} {:?} {client:?} {tokens:?} {:?} {:?}",
        bench.store,
        bench.key,
        bench.store.access_tokens(),
        bench.server.requests(),
    );
    let secrets = ["canary", tokens.access(), tokens.refresh().unwrap(), bench.key.secret()];
    assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
}

#[tokio::test]
async fn lies_change_nothing_and_a_server_comes_back_where_it_was() {
    let bench = Bench::plain().await;
    let key = json!({"name": "lie", "permissions": ["files:read"]});
    bench
        .server
        .faults()
        .inject(Rule::once(Method::POST, "/v1/me/api-keys", Fault::LieAboutSuccess));
    assert_eq!(bench.json(Method::POST, "/me/api-keys", key.clone()).await.0, 201);
    assert_eq!(bench.store.keys(JANE).len(), 1);
    assert_eq!(bench.json(Method::POST, "/me/api-keys", key).await.0, 201);
    assert_eq!(bench.store.keys(JANE).len(), 2);

    let address = bench.server.address();
    bench.server.stop().await;
    let again = bench.store.start_api_on(address).await.unwrap();
    let url = format!("{}v1/me", again.url());
    let request = bench.client.get(url).bearer_auth(bench.key.secret());
    assert_eq!(sent(request).await.0, 200);
}
