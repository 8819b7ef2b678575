//! Against CloudSync's stand-in: JSON bodies, no metadata unless it offers more than is documented, and what goes wrong.

use jiff::SignedDuration;
use keymount::auth::oauth::AuthorizationServer;
use keymount::auth::renewing::ExchangeError;
use keymount::emulator::Running;
use keymount::emulator::cloudsync::{
    Assumptions, CloudSyncStore, Consent, DeviceFlow, OauthClient, Plan, Refreshing, Revocation, Scope,
};
use keymount::provider::registry::cloudsync_server;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::node::browse;
use crate::person::{CLIENT_SECRET, Login, Person, Said};

const ADA: &str = "ada@example.com";

struct CloudSync {
    store: CloudSyncStore,
    running: Running,
}

impl CloudSync {
    async fn start(assumptions: Assumptions) -> Self {
        let store = CloudSyncStore::new(assumptions);
        store.add_user(ADA, Plan::Free);
        store.add_client(OauthClient::confidential("keymount", CLIENT_SECRET).named("keymount"));
        store.set_consent(Consent::Allows(ADA.into()));
        let running = store.serve_auth().await.unwrap();
        Self { store, running }
    }

    fn person(&self, remote: &str, auth: &str) -> Person {
        let secret = Person::secret_line();
        let url = self.running.url();
        Person::with(
            &format!("auth_endpoint = \"{url}\"\n{remote}"),
            &format!("client_id = \"keymount\"\n{secret}\n{auth}"),
        )
    }

    fn server(&self) -> AuthorizationServer {
        cloudsync_server(Some(self.running.url())).unwrap()
    }
}

/// Everything in the stand-in that isn't documented.
fn generous() -> Assumptions {
    Assumptions {
        device: DeviceFlow::Offered {
            interval: SignedDuration::from_secs(1),
            lifetime: SignedDuration::from_mins(10),
        },
        revocation: Revocation::Offered,
        refreshing: Refreshing::Rotates,
        ..Assumptions::default()
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

/// Where the authorization server sends a browser that asks for this address.
async fn sent_to(address: &str) -> String {
    let answer = client().get(address).send().await.unwrap();
    answer.headers()["location"].to_str().unwrap().to_owned()
}

async fn page(address: &str) -> (u16, String) {
    let answer = client().get(address).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn with(address: &str, name: &str, value: &str) -> String {
    let mut url = reqwest::Url::parse(address).unwrap();
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    url.query_pairs_mut().clear().extend_pairs(
        pairs
            .iter()
            .map(|(key, old)| (key.as_str(), if key == name { value } else { old.as_str() })),
    );
    url.into()
}

async fn finish(person: Person, login: Login) -> (Person, Said) {
    tokio::task::spawn_blocking(move || {
        let said = person.finish(login);
        (person, said)
    })
    .await
    .unwrap()
}

/// The test's own thread waits for the program while the stand-in has threads of its own.
#[tokio::test]
async fn a_person_agrees_on_cloudsyncs_page() {
    let sync = CloudSync::start(Assumptions::default()).await;
    sync.store.set_consent(Consent::Asks);
    let person = sync.person("", "");
    let mut login = person.begin_login(&["--no-browser"]);
    let address = login.shown();
    let seen = browse(&json!({"open": address, "email": ADA, "shot": "cloudsync"}));
    assert_eq!(seen.title, "CloudSync is connected – keymount", "{}", seen.text);
    person.finish(login).ends(0, "sync: access is granted");
    let grant = person.grant().await.unwrap();
    assert!(grant.until.is_some());
    let refresh = grant.refresh.unwrap();
    assert!(grant.access.expose_secret().starts_with("at_live_"));
    let renewed = person
        .renew(sync.server(), "keymount", Some(CLIENT_SECRET), &refresh)
        .await
        .unwrap();
    assert!(renewed.refresh.is_none(), "the same goes on");
    person.run(&["logout", "sync"]).ends(
        0,
        "takes no revocation from programs, so end the access in CloudSync, Account Settings",
    );
    assert!(person.grant().await.is_none());
    person
        .run(&["login", "sync", "--device"])
        .ends(1, "does not offer login with a code on another device");
}

#[tokio::test]
async fn what_a_browser_elsewhere_ended_at_can_be_pasted() {
    let sync = CloudSync::start(Assumptions::default()).await;
    for only_code in [false, true] {
        let person = sync.person("", "");
        let mut login = person.begin_login(&["--no-browser"]);
        let back = sent_to(&login.shown()).await;
        login.paste(&with(&back, "state", "another-login"));
        login.hears("not the answer to this login");
        let code = reqwest::Url::parse(&back).unwrap();
        let code = code
            .query_pairs()
            .find(|(name, _)| name == "code")
            .unwrap()
            .1
            .into_owned();
        login.paste(if only_code { &code } else { &back });
        person.finish(login).ends(0, "access is granted");
        assert!(person.grant().await.is_some());
    }
}

#[tokio::test]
async fn strangers_cannot_answer_or_end_a_login() {
    let sync = CloudSync::start(Assumptions::default()).await;
    let person = sync.person("", "");
    let mut login = person.begin_login(&["--no-browser"]);
    let back = sent_to(&login.shown()).await;
    let (status, text) = page(&with(&back, "state", "guessed")).await;
    assert_eq!(status, 400);
    assert!(
        text.contains("not the login that keymount waits for") && !text.contains("guessed"),
        "{text}"
    );
    let elsewhere = back.replace("/callback?", "/other?");
    assert_eq!(page(&elsewhere).await.0, 404);
    let origin = reqwest::Url::parse(&back).unwrap().origin().ascii_serialization();
    assert_eq!(page(&format!("{origin}/callback?error=access_denied")).await.0, 400);
    assert_eq!(client().post(&back).send().await.unwrap().status(), 405);
    let (status, text) = page(&back).await;
    assert_eq!(status, 200);
    assert!(text.contains("CloudSync is connected"), "{text}");
    let (person, said) = finish(person, login).await;
    said.ends(0, "access is granted");
    assert!(person.grant().await.is_some());
    assert!(client().get(&back).send().await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_server_that_fails_after_the_consent_leaves_nothing_behind() {
    let sync = CloudSync::start(Assumptions::default()).await;
    let person = sync.person("", "");
    let mut login = person.begin_login(&["--no-browser"]);
    let back = sent_to(&login.shown()).await;
    sync.running.stop().await;
    let (_, text) = page(&back).await;
    assert!(
        text.contains("CloudSync is not connected") && text.contains("keymount login sync"),
        "{text}"
    );
    let (person, said) = finish(person, login).await;
    said.ends(5, "sync: nothing was stored: exchange the answer for a token");
    assert!(person.grant().await.is_none());
}

#[tokio::test]
async fn a_login_that_nobody_answers_ends() {
    let sync = CloudSync::start(Assumptions::default()).await;
    let person = sync.person("", "");
    person
        .run(&["login", "sync", "--no-browser", "--wait", "1s"])
        .ends(4, "sync: nothing was stored: nobody answered in the browser for 1 s");
}

#[tokio::test]
async fn only_what_is_needed_is_asked_for() {
    let sync = CloudSync::start(Assumptions::default()).await;
    for (remote, auth, scopes) in [
        ("", "", "files:read files:write offline_access workspaces:read"),
        ("read_only = true", "", "files:read offline_access workspaces:read"),
        ("", "scopes = \"files:read\"", "files:read offline_access"),
    ] {
        let person = sync.person(remote, auth);
        let mut login = person.begin_login(&["--no-browser"]);
        page(&sent_to(&login.shown()).await).await;
        let (person, said) = finish(person, login).await;
        said.ends(0, "access is granted");
        assert_eq!(person.grant().await.unwrap().scopes.unwrap().to_string(), scopes);
    }
}

#[tokio::test]
async fn what_was_not_granted_is_said() {
    let sync = CloudSync::start(Assumptions::default()).await;
    let only = vec![Scope::FilesRead, Scope::WorkspacesRead];
    sync.store.set_consent(Consent::AllowsOnly(ADA.into(), only));
    let person = sync.person("", "");
    let mut login = person.begin_login(&["--no-browser"]);
    let seen = browse(&json!({"open": login.shown(), "shot": "partly"}));
    assert!(seen.text.contains("Create and modify files"), "{}", seen.text);
    let said = person.finish(login).ends(0, "not granted: files:write offline_access");
    assert!(said.out.contains("nothing to renew it with"), "{said:?}");
}

#[tokio::test]
async fn a_device_waits_until_somebody_decided() {
    let sync = CloudSync::start(generous()).await;
    let person = sync.person("", "");
    let mut login = person.begin_login(&["--device"]);
    let (address, code) = (login.shown(), login.shown());
    assert!(address.ends_with("/oauth/device"), "{address}");
    assert!(sync.store.approve_device(&code, ADA));
    person.finish(login).ends(0, "access is granted");
    let first = person.grant().await.unwrap().refresh.unwrap();
    let renewed = person
        .renew(sync.server(), "keymount", Some(CLIENT_SECRET), &first)
        .await
        .unwrap();
    assert!(
        renewed
            .refresh
            .is_some_and(|next| next.expose_secret() != first.expose_secret())
    );

    let mut login = person.begin_login(&["--device"]);
    let (_, code) = (login.shown(), login.shown());
    assert!(sync.store.deny_device(&code));
    person.finish(login).ends(4, "nothing was stored: access was refused");
}

#[tokio::test]
async fn a_logout_revokes_where_that_is_offered_and_says_when_it_could_not() {
    let sync = CloudSync::start(generous()).await;
    let person = sync.person("", "");
    let mut login = person.begin_login(&["--no-browser"]);
    page(&sent_to(&login.shown()).await).await;
    let (person, said) = finish(person, login).await;
    said.ends(0, "access is granted");
    let refresh = person.grant().await.unwrap().refresh.unwrap();
    person.run(&["remote", "list"]).ends(0, "keymount's store");
    person.run(&["logout", "sync"]).ends(0, "revoked at CloudSync");
    let answer = person
        .renew(sync.server(), "keymount", Some(CLIENT_SECRET), &refresh)
        .await;
    assert!(matches!(answer, Err(ExchangeError::Dead(_))), "{answer:?}");

    let mut login = person.begin_login(&["--no-browser"]);
    page(&sent_to(&login.shown()).await).await;
    let (person, said) = finish(person, login).await;
    said.ends(0, "access is granted");
    sync.running.stop().await;
    person
        .run(&["logout", "sync"])
        .ends(5, "the authorization server could not be told");
    assert!(person.grant().await.is_none());
}
