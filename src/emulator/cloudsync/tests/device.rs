use jiff::SignedDuration;
use serde_json::json;

use super::oauth::{AuthBench, text};
use super::*;

async fn offered() -> AuthBench {
    let bench = AuthBench::new(Assumptions {
        device: DeviceFlow::Offered {
            interval: SignedDuration::from_secs(5),
            lifetime: SignedDuration::from_mins(10),
        },
        ..Assumptions::default()
    })
    .await;
    bench.api.store.clock().stop_at("2026-01-06T10:30:00Z".parse().unwrap());
    bench.api.store.add_client(OauthClient::public("tv"));
    bench
}

async fn begin(bench: &AuthBench) -> Value {
    let body = json!({"client_id": "tv", "scope": "files:read offline_access"});
    let (status, answer) = sent(bench.api.client.post(bench.url("/device/code")).json(&body)).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn poll(bench: &AuthBench, begun: &Value) -> (u16, Value) {
    let body = json!({
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "client_id": "tv",
        "device_code": begun["device_code"],
    });
    bench.token(&body).await
}

async fn poll_error(bench: &AuthBench, begun: &Value) -> String {
    let (status, answer) = poll(bench, begun).await;
    assert_eq!(status, 400, "{answer}");
    text(&answer, "error").to_owned()
}

fn wait(bench: &AuthBench, seconds: i64) {
    bench.api.store.clock().advance(SignedDuration::from_secs(seconds));
}

#[tokio::test]
async fn a_device_waits_and_gets_its_tokens_once() {
    let bench = offered().await;
    let begun = begin(&bench).await;
    assert_eq!((&begun["interval"], &begun["expires_in"]), (&json!(5), &json!(600)));
    assert_eq!(text(&begun, "verification_uri"), bench.url("/device"));
    assert_eq!(poll_error(&bench, &begun).await, "authorization_pending");
    assert_eq!(poll_error(&bench, &begun).await, "slow_down");
    wait(&bench, 9);
    assert_eq!(poll_error(&bench, &begun).await, "slow_down");
    wait(&bench, 15);
    assert_eq!(poll_error(&bench, &begun).await, "authorization_pending");
    let code = bench.api.store.device_requests()[0].user_code.clone();
    assert_eq!(code, text(&begun, "user_code"));
    assert!(!bench.api.store.approve_device(&code, "nobody@example.com"));
    assert!(
        bench
            .api
            .store
            .approve_device(&code.replace('-', "").to_lowercase(), JANE)
    );
    assert!(bench.api.store.device_requests().is_empty());
    wait(&bench, 15);
    let (status, tokens) = poll(&bench, &begun).await;
    assert_eq!((status, text(&tokens, "scope")), (200, "files:read offline_access"));
    let list = bench.api.with(
        text(&tokens, "access_token"),
        Method::GET,
        "/files?workspace=my-project",
    );
    assert_eq!(sent(list).await.0, 200);
    wait(&bench, 15);
    assert_eq!(poll_error(&bench, &begun).await, "invalid_grant");
    let counts = Exchanges { granted: 1, refused: 5 };
    assert_eq!(bench.api.store.exchanges(GrantKind::DeviceCode), counts);
}

#[tokio::test]
async fn a_device_is_refused_or_too_late() {
    let bench = offered().await;
    let begun = begin(&bench).await;
    assert!(bench.api.store.deny_device(text(&begun, "user_code")));
    assert_eq!(poll_error(&bench, &begun).await, "access_denied");
    let begun = begin(&bench).await;
    wait(&bench, 600);
    assert_eq!(poll_error(&bench, &begun).await, "expired_token");
    assert!(!bench.api.store.approve_device(text(&begun, "user_code"), JANE));
    for (body, code) in [
        (json!({"client_id": "tv", "scope": "everything"}), "invalid_scope"),
        (json!({"client_id": "tv"}), "invalid_request"),
        (json!({"client_id": "app", "scope": "files:read"}), "invalid_client"),
    ] {
        let (_, answer) = sent(bench.api.client.post(bench.url("/device/code")).json(&body)).await;
        assert_eq!(text(&answer, "error"), code);
    }
    let form = with_form(bench.api.client.post(bench.url("/device/code")), &[("client_id", "tv")]);
    assert_eq!(sent(form).await.0, 400);
}

#[tokio::test]
async fn a_person_types_the_code_on_the_page() {
    let bench = offered().await;
    let begun = begin(&bench).await;
    let code = text(&begun, "user_code");
    let complete = text(&begun, "verification_uri_complete");
    let page = bench
        .api
        .client
        .get(complete)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(page.contains(&format!("value=\"{code}\"")));
    let press = |code: &str, decision: &str| {
        let form = [("user_code", code), ("decision", decision), ("email", JANE)];
        with_form(bench.api.client.post(bench.url("/device")), &form).send()
    };
    let wrong = press("WRNG-CODE", "allow").await.unwrap().text().await.unwrap();
    assert!(wrong.contains("No device waits with this code"));
    let done = press(code, "allow").await.unwrap().text().await.unwrap();
    assert!(done.contains("The device knows now"));
    assert_eq!(poll(&bench, &begun).await.0, 200);
    assert!(!format!("{:?}", bench.server.requests()).contains(code));
}
