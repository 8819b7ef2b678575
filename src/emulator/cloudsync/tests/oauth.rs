use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use serde_json::json;
use sha2::{Digest, Sha256};
use url::Url;

use super::*;

const REDIRECT: &str = "http://127.0.0.1:54321/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// An authorization server with the client `app` (secret `hush`), and the API behind it.
pub(super) struct AuthBench {
    pub(super) api: Bench,
    pub(super) server: Running,
}

impl AuthBench {
    pub(super) async fn new(assumptions: Assumptions) -> Self {
        let api = Bench::new(assumptions).await;
        let app = OauthClient::confidential("app", "hush").named("The <App>");
        api.store.add_client(app);
        let server = api.store.serve_auth().await.unwrap();
        Self { api, server }
    }

    async fn plain() -> Self {
        Self::new(Assumptions::default()).await
    }

    fn store(&self) -> &CloudSyncStore {
        &self.api.store
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}oauth{path}", self.server.url())
    }

    /// Sends the browser to the authorization server, with these parameters changed or added.
    async fn authorize(&self, changes: &[(&str, &str)]) -> Response {
        let mut url = Url::parse(&self.url("/authorize")).unwrap();
        let usual = [
            ("client_id", "app"),
            ("redirect_uri", REDIRECT),
            ("response_type", "code"),
            ("scope", "files:read offline_access"),
            ("state", "s t&te"),
        ];
        let kept = usual
            .iter()
            .filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        url.query_pairs_mut().extend_pairs(kept).extend_pairs(changes);
        self.api.client.get(url).send().await.unwrap()
    }

    /// A code that Jane agreed to at once.
    async fn code(&self, changes: &[(&str, &str)]) -> String {
        self.store().set_consent(Consent::Allows(JANE.to_owned()));
        let answer = self.authorize(changes).await;
        assert_eq!(answer.status(), 302);
        parameter(&answer, "code").unwrap()
    }

    pub(super) async fn token(&self, body: &Value) -> (u16, Value) {
        sent(self.api.client.post(self.url("/token")).json(body)).await
    }

    async fn refresh(&self, token: &str) -> (u16, Value) {
        self.token(&refresh(token)).await
    }

    async fn lists(&self, access: &str) -> u16 {
        let request = self.api.with(access, Method::GET, "/files?workspace=my-project");
        sent(request).await.0
    }
}

fn exchange(code: &str) -> Value {
    json!({
        "grant_type": "authorization_code",
        "client_id": "app",
        "client_secret": "hush",
        "code": code,
        "redirect_uri": REDIRECT,
    })
}

fn refresh(token: &str) -> Value {
    json!({"grant_type": "refresh_token", "client_id": "app", "client_secret": "hush", "refresh_token": token})
}

fn parameter(answer: &Response, name: &str) -> Option<String> {
    let url = Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap();
    assert!(url.as_str().starts_with(REDIRECT), "{url}");
    let found = url.query_pairs().find(|(key, _)| key == name);
    found.map(|(_, value)| value.into_owned())
}

pub(super) fn text<'a>(body: &'a Value, field: &str) -> &'a str {
    body[field].as_str().unwrap_or_else(|| panic!("no {field} in {body}"))
}

fn error(status: u16, code: &str, got: &(u16, Value)) {
    assert_eq!((got.0, text(&got.1, "error")), (status, code), "{}", got.1);
    assert!(got.1["error_description"].is_string());
}

#[tokio::test]
async fn a_code_becomes_tokens_that_open_the_api() {
    let bench = AuthBench::plain().await;
    bench.store().set_consent(Consent::Allows(JANE.to_owned()));
    let answer = bench.authorize(&[]).await;
    assert_eq!(parameter(&answer, "state").unwrap(), "s t&te");
    let code = parameter(&answer, "code").unwrap();
    let request = bench.api.client.post(bench.url("/token")).json(&exchange(&code));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let (status, tokens) = outcome(answer).await;
    assert_eq!(status, 200);
    let fields: Vec<&String> = tokens.as_object().unwrap().keys().collect();
    let documented = ["access_token", "expires_in", "refresh_token", "scope", "token_type"];
    assert_eq!(fields, documented);
    assert_eq!(
        (&tokens["token_type"], &tokens["expires_in"]),
        (&json!("Bearer"), &json!(3600))
    );
    assert_eq!(tokens["scope"], "files:read offline_access");
    assert!(text(&tokens, "access_token").starts_with("at_live_"));
    assert!(text(&tokens, "refresh_token").starts_with("rt_live_"));
    assert_eq!(bench.lists(text(&tokens, "access_token")).await, 200);

    let counts = Exchanges { granted: 1, refused: 0 };
    assert_eq!(bench.store().exchanges(GrantKind::AuthorizationCode), counts);
    let issued = bench.store().access_tokens();
    assert_eq!(
        (issued[0].uses, issued[0].state, &*issued[0].email),
        (1, TokenState::Valid, JANE)
    );
    let named = bench.api.server.requests().last().unwrap().authenticated_as.clone();
    assert_eq!(named.unwrap(), "access token 0");

    let log = format!("{:?}", bench.server.requests());
    assert!(
        log.contains("state=***") && !log.contains("t%26te") && !log.contains(&code),
        "{log}"
    );
}

#[tokio::test]
async fn a_code_is_good_once_and_a_second_use_ends_what_it_gave() {
    let bench = AuthBench::plain().await;
    let code = bench.code(&[]).await;
    let (_, tokens) = bench.token(&exchange(&code)).await;
    error(400, "invalid_grant", &bench.token(&exchange(&code)).await);
    assert_eq!(bench.lists(text(&tokens, "access_token")).await, 401);
    error(
        400,
        "invalid_grant",
        &bench.refresh(text(&tokens, "refresh_token")).await,
    );
    assert_eq!(bench.store().access_tokens()[0].state, TokenState::Revoked);
}

#[tokio::test]
async fn a_code_is_bound_to_client_address_and_time() {
    let bench = AuthBench::plain().await;
    bench.store().add_client(OauthClient::public("other"));
    let code = bench.code(&[]).await;
    let mut foreign = exchange(&code);
    foreign["client_id"] = json!("other");
    error(401, "invalid_client", &bench.token(&foreign).await);
    foreign.as_object_mut().unwrap().remove("client_secret");
    error(400, "invalid_grant", &bench.token(&foreign).await);
    let mut elsewhere = exchange(&code);
    elsewhere["redirect_uri"] = json!("http://127.0.0.1:54322/callback");
    error(400, "invalid_grant", &bench.token(&elsewhere).await);
    error(400, "invalid_grant", &bench.token(&exchange(&code)).await);

    let code = bench.code(&[]).await;
    bench.store().clock().advance(SignedDuration::from_mins(10));
    error(400, "invalid_grant", &bench.token(&exchange(&code)).await);
    let counts = Exchanges { granted: 0, refused: 5 };
    assert_eq!(bench.store().exchanges(GrantKind::AuthorizationCode), counts);
}

#[tokio::test]
async fn pkce_is_verified_or_unknown() {
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    let sent = [
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ];
    let with = |code: &str, verifier: &str| {
        let mut body = exchange(code);
        body["code_verifier"] = json!(verifier);
        body
    };
    let bench = AuthBench::plain().await;
    let code = bench.code(&sent).await;
    assert_eq!(bench.token(&with(&code, VERIFIER)).await.0, 200);
    let code = bench.code(&sent).await;
    error(400, "invalid_grant", &bench.token(&exchange(&code)).await);
    let code = bench.code(&sent).await;
    error(
        400,
        "invalid_grant",
        &bench.token(&with(&code, &VERIFIER.replace('d', "e"))).await,
    );
    let code = bench.code(&[]).await;
    error(400, "invalid_grant", &bench.token(&with(&code, VERIFIER)).await);
    for wrong in [
        vec![
            ("code_challenge", "x".repeat(43)),
            ("code_challenge_method", "plain".into()),
        ],
        vec![("code_challenge", "x".repeat(43))],
        vec![
            ("code_challenge", "short".into()),
            ("code_challenge_method", "S256".into()),
        ],
        vec![("code_challenge_method", "S256".into())],
    ] {
        let wrong: Vec<(&str, &str)> = wrong.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = bench.authorize(&wrong).await;
        assert_eq!(parameter(&answer, "error").unwrap(), "invalid_request", "{wrong:?}");
        assert_eq!(parameter(&answer, "state").unwrap(), "s t&te");
    }

    let bench = AuthBench::new(Assumptions {
        pkce: Pkce::Unknown,
        ..Assumptions::default()
    })
    .await;
    let code = bench.code(&sent).await;
    assert_eq!(bench.token(&with(&code, "anything")).await.0, 200);
}

#[tokio::test]
async fn wrong_requests_are_shown_or_sent_back() {
    let bench = AuthBench::plain().await;
    let registered = OauthClient::public("web").with_redirect("https://app.example/callback");
    bench.store().add_client(registered.with_scopes(&[Scope::FilesRead]));
    for redirect in [
        "https://evil.example/callback",
        "https://127.0.0.1/callback",
        "http://localhost:1/callback",
        "http://127.0.0.1.evil.example/",
        "http://127.0.0.1:1/#fragment",
        "http://user@127.0.0.1:1/",
        "callback",
        "",
    ] {
        let answer = bench.authorize(&[("redirect_uri", redirect)]).await;
        assert_eq!(answer.status(), 400, "{redirect}");
        assert!(!answer.headers().contains_key("location"));
        assert!(answer.text().await.unwrap().contains("role=\"alert\""));
    }
    assert_eq!(bench.authorize(&[("client_id", "unknown")]).await.status(), 400);
    assert_eq!(bench.authorize(&[("x", "1"), ("x", "2")]).await.status(), 400);
    for (changes, code) in [
        ([("response_type", "token")], "unsupported_response_type"),
        ([("response_type", "")], "invalid_request"),
        ([("scope", "")], "invalid_scope"),
        ([("scope", "files:read everything")], "invalid_scope"),
        ([("scope", "users:read")], "invalid_scope"),
    ] {
        let answer = bench.authorize(&changes).await;
        assert_eq!(answer.status(), 302);
        assert_eq!(parameter(&answer, "error").unwrap(), code);
        assert_eq!(parameter(&answer, "state").unwrap(), "s t&te");
    }
    let narrow = [("client_id", "web"), ("scope", "files:write")];
    assert_eq!(
        parameter(&bench.authorize(&narrow).await, "error").unwrap(),
        "invalid_scope"
    );
    for good in [
        "https://app.example/callback",
        "http://127.0.0.1/",
        "http://[::1]:9/x?y=z",
        "http://127.0.0.2:7/",
    ] {
        let answer = bench
            .authorize(&[("client_id", "web"), ("redirect_uri", good), ("scope", "files:read")])
            .await;
        assert_eq!(answer.status(), 200, "{good}");
    }
}

#[tokio::test]
async fn a_person_decides_on_the_page() {
    let bench = AuthBench::plain().await;
    let page = bench.authorize(&[]).await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let html = page.text().await.unwrap();
    assert!(html.contains("The &lt;App&gt;") && !html.contains("<App>") && !html.contains("<script"));
    assert!(html.contains("Read file contents") && html.contains(">Allow</button>"));
    let (_, rest) = html.split_once("name=\"request\" value=\"").unwrap();
    let request = rest.split_once('"').unwrap().0;
    let press = |decision: &'static str, email: &'static str| {
        let form = [("request", request), ("decision", decision), ("email", email)];
        with_form(bench.api.client.post(bench.url("/authorize")), &form).send()
    };
    let unknown = press("allow", "nobody@example.com").await.unwrap();
    assert_eq!(unknown.status(), 200);
    assert!(unknown.text().await.unwrap().contains("There is no account"));
    let allowed = press("allow", JANE).await.unwrap();
    assert_eq!(allowed.status(), 303);
    let code = parameter(&allowed, "code").unwrap();
    assert_eq!(bench.token(&exchange(&code)).await.0, 200);
    assert_eq!(press("allow", JANE).await.unwrap().status(), 400);

    let html = bench.authorize(&[]).await.text().await.unwrap();
    let request = html
        .split_once("name=\"request\" value=\"")
        .unwrap()
        .1
        .split_once('"')
        .unwrap()
        .0;
    let form = [("request", request), ("decision", "deny"), ("email", "")];
    let denied = with_form(bench.api.client.post(bench.url("/authorize")), &form)
        .send()
        .await
        .unwrap();
    assert_eq!(parameter(&denied, "error").unwrap(), "access_denied");
}

#[tokio::test]
async fn consent_can_be_given_in_part_or_refused_at_once() {
    let bench = AuthBench::plain().await;
    bench.store().set_consent(Consent::AllowsOnly(
        JANE.into(),
        vec![Scope::FilesRead, Scope::FilesWrite],
    ));
    let code = parameter(&bench.authorize(&[]).await, "code").unwrap();
    let (_, tokens) = bench.token(&exchange(&code)).await;
    assert_eq!(tokens["scope"], "files:read");
    assert!(tokens.get("refresh_token").is_none());
    bench.store().set_consent(Consent::Refuses);
    assert_eq!(
        parameter(&bench.authorize(&[]).await, "error").unwrap(),
        "access_denied"
    );
}

#[tokio::test]
async fn the_token_endpoint_takes_documented_json_only() {
    let bench = AuthBench::plain().await;
    let tokens = bench.store().grant(JANE, "app", &Scope::of_oauth()).unwrap();
    let good = refresh(tokens.refresh().unwrap());
    let post = || bench.api.client.post(bench.url("/token"));
    let form: Vec<(&str, &str)> = good
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    error(400, "invalid_request", &sent(with_form(post(), &form)).await);
    error(
        400,
        "invalid_request",
        &sent(post().basic_auth("app", Some("hush")).json(&good)).await,
    );
    error(
        400,
        "invalid_request",
        &sent(post().query(&[("a", "b")]).json(&good)).await,
    );
    error(400, "invalid_request", &sent(post().json(&json!([]))).await);
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for (body, status, code) in [
        (with("scope", json!("files:read")), 400, "invalid_request"),
        (with("code_verifier", json!(VERIFIER)), 400, "invalid_request"),
        (with("refresh_token", json!(1)), 400, "invalid_request"),
        (with("grant_type", json!("password")), 400, "unsupported_grant_type"),
        (
            with("grant_type", json!("urn:ietf:params:oauth:grant-type:device_code")),
            400,
            "unsupported_grant_type",
        ),
        (with("grant_type", json!(null)), 400, "invalid_request"),
        (with("client_secret", json!("guess")), 401, "invalid_client"),
        (with("client_secret", json!(null)), 401, "invalid_client"),
        (with("client_id", json!("nobody")), 401, "invalid_client"),
        (with("refresh_token", json!("rt_live_guess")), 400, "invalid_grant"),
    ] {
        error(status, code, &bench.token(&body).await);
    }
    assert_eq!(bench.token(&good).await.0, 200);
    for path in ["/revoke", "/device/code", "/introspect"] {
        error(
            404,
            "invalid_request",
            &sent(bench.api.client.post(bench.url(path)).json(&good)).await,
        );
    }
    assert_eq!(sent(bench.api.client.get(bench.url("/token"))).await.0, 404);
    let strict = AuthBench::new(Assumptions {
        statuses: Statuses::Standard,
        ..Assumptions::default()
    })
    .await;
    let request = with_form(strict.api.client.post(strict.url("/token")), &form);
    error(415, "invalid_request", &sent(request).await);
}

#[tokio::test]
async fn refreshing_keeps_repeats_or_rotates() {
    for refreshing in [Refreshing::Keeps, Refreshing::Repeats, Refreshing::Rotates] {
        let bench = AuthBench::new(Assumptions {
            refreshing,
            expires_in: ExpiresIn::LeftOut,
            ..Assumptions::default()
        })
        .await;
        let tokens = bench
            .store()
            .grant(JANE, "app", &[Scope::FilesRead, Scope::OfflineAccess])
            .unwrap();
        let first = tokens.refresh().unwrap();
        let (status, second) = bench.refresh(first).await;
        assert_eq!(status, 200);
        assert!(second.get("expires_in").is_none());
        let access = text(&second, "access_token");
        assert_ne!(access, tokens.access());
        assert_eq!(
            (bench.lists(access).await, bench.lists(tokens.access()).await),
            (200, 200)
        );
        match refreshing {
            Refreshing::Keeps => assert!(second.get("refresh_token").is_none()),
            Refreshing::Repeats => assert_eq!(text(&second, "refresh_token"), first),
            Refreshing::Rotates => {
                let newer = text(&second, "refresh_token");
                assert_ne!(newer, first);
                let (_, third) = bench.refresh(newer).await;
                let newest = text(&third, "refresh_token");
                error(400, "invalid_grant", &bench.refresh(first).await);
                error(400, "invalid_grant", &bench.refresh(newest).await);
                assert_eq!(bench.lists(text(&third, "access_token")).await, 401);
                continue;
            }
        }
        assert_eq!(bench.refresh(first).await.0, 200);
        let counts = Exchanges { granted: 2, refused: 0 };
        assert_eq!(bench.store().exchanges(GrantKind::RefreshToken), counts);
    }
}

#[tokio::test]
async fn tokens_age_with_the_clock() {
    let bench = AuthBench::new(Assumptions {
        access_lifetime: SignedDuration::from_secs(2),
        ..Assumptions::default()
    })
    .await;
    bench.store().clock().stop_at("2026-01-06T10:30:00Z".parse().unwrap());
    let code = bench.code(&[]).await;
    let (_, tokens) = bench.token(&exchange(&code)).await;
    assert_eq!(tokens["expires_in"], 2);
    bench.store().clock().advance(SignedDuration::from_millis(1999));
    assert_eq!(bench.lists(text(&tokens, "access_token")).await, 200);
    bench.store().clock().advance(SignedDuration::from_millis(1));
    assert_eq!(bench.lists(text(&tokens, "access_token")).await, 401);
    assert_eq!(bench.store().access_tokens()[0].state, TokenState::Expired);
    assert_eq!(bench.refresh(text(&tokens, "refresh_token")).await.0, 200);
}

#[tokio::test]
async fn grants_can_be_ended_from_outside() {
    let bench = AuthBench::plain().await;
    let give = || bench.store().grant(JANE, "app", &Scope::of_oauth()).unwrap();
    let (one, two, three) = (give(), give(), give());
    assert!(bench.store().revoke_grant(one.grant()) && !bench.store().revoke_grant(one.grant()));
    assert_eq!(
        (bench.lists(one.access()).await, bench.lists(two.access()).await),
        (401, 200)
    );
    error(400, "invalid_grant", &bench.refresh(one.refresh().unwrap()).await);
    bench.store().expire_access_tokens();
    assert_eq!(bench.lists(two.access()).await, 401);
    assert_eq!(bench.refresh(two.refresh().unwrap()).await.0, 200);
    assert_eq!(bench.store().revoke_grants_of(JANE), 2);
    error(400, "invalid_grant", &bench.refresh(three.refresh().unwrap()).await);
    assert!(bench.store().grant("nobody@example.com", "app", &[]).is_err());
    assert!(bench.store().remove_client("app"));
    error(401, "invalid_client", &bench.refresh(two.refresh().unwrap()).await);
}

#[tokio::test]
async fn a_narrowed_grant_shows_at_its_next_refresh() {
    let bench = AuthBench::plain().await;
    let tokens = bench.store().grant(JANE, "app", &Scope::of_oauth()).unwrap();
    let rest = [Scope::WorkspacesRead, Scope::OfflineAccess];
    assert!(bench.store().narrow_grant(tokens.grant(), &rest));
    assert_eq!(bench.lists(tokens.access()).await, 200);
    let (status, next) = bench.refresh(tokens.refresh().unwrap()).await;
    assert_eq!((status, text(&next, "scope")), (200, "workspaces:read offline_access"));
    assert_eq!(bench.lists(text(&next, "access_token")).await, 403);
    bench.store().revoke_grant(tokens.grant());
    assert!(!bench.store().narrow_grant(tokens.grant(), &rest));
}

#[tokio::test]
async fn tokens_are_revoked_where_that_is_offered() {
    let bench = AuthBench::new(Assumptions {
        revocation: Revocation::Offered,
        ..Assumptions::default()
    })
    .await;
    bench.store().add_client(OauthClient::public("other"));
    let tokens = bench.store().grant(JANE, "app", &Scope::of_oauth()).unwrap();
    let revoke = |body: Value| sent(bench.api.client.post(bench.url("/revoke")).json(&body));
    let own = |token: &str| json!({"client_id": "app", "client_secret": "hush", "token": token});
    error(
        401,
        "invalid_client",
        &revoke(json!({"client_id": "app", "token": tokens.access()})).await,
    );
    let foreign = json!({"client_id": "other", "token": tokens.access()});
    error(400, "unauthorized_client", &revoke(foreign).await);
    assert_eq!(revoke(own("unknown")).await.0, 200);
    assert_eq!(bench.lists(tokens.access()).await, 200);
    assert_eq!(revoke(own(tokens.access())).await.0, 200);
    assert_eq!(bench.lists(tokens.access()).await, 401);
    let (status, newer) = bench.refresh(tokens.refresh().unwrap()).await;
    assert_eq!(status, 200);
    let mut hinted = own(tokens.refresh().unwrap());
    hinted["token_type_hint"] = json!("refresh_token");
    assert_eq!(revoke(hinted).await.0, 200);
    assert_eq!(bench.lists(text(&newer, "access_token")).await, 401);
    error(400, "invalid_grant", &bench.refresh(tokens.refresh().unwrap()).await);
}
