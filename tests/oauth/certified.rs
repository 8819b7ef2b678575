//! Against `oidc-provider`, which is certified by the OpenID Foundation, with a headless browser on its pages.

use std::time::SystemTime;

use keymount::auth::GivenSecrets;
use keymount::auth::oauth::AuthorizationServer;
use keymount::auth::renewing::ExchangeError;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::node::{Oidc, browse};
use crate::person::{CLIENT_SECRET, Person};

fn server(oidc: &Oidc) -> AuthorizationServer {
    AuthorizationServer::Issuer(oidc.issuer.parse().unwrap())
}

fn public(oidc: &Oidc) -> Person {
    Person::with("", &format!("client_id = \"public\"\nissuer = \"{}\"", oidc.issuer))
}

fn confidential(oidc: &Oidc, remote: &str) -> Person {
    let secret = Person::secret_line();
    Person::with(
        remote,
        &format!("client_id = \"confidential\"\nissuer = \"{}\"\n{secret}", oidc.issuer),
    )
}

async fn is_over(person: &Person, oidc: &Oidc, client: (&str, Option<&str>), refresh: &SecretString) -> bool {
    let answer = person.renew(server(oidc), client.0, client.1, refresh).await;
    matches!(answer, Err(ExchangeError::Dead(error)) if error.message().contains("keymount login sync"))
}

#[tokio::test]
async fn a_grant_from_the_browser_is_renewed_with_rotation_and_revoked() {
    let oidc = Oidc::start();
    let person = confidential(&oidc, "");
    let client = ("confidential", Some(CLIENT_SECRET));
    let login = person.begin_login_with_display();
    let seen = browse(&json!({"open": person.opened(), "shot": "connected"}));
    assert_eq!(
        (seen.status, seen.title.as_str()),
        (200, "CloudSync is connected – keymount")
    );
    assert_eq!(seen.headers["referrer-policy"], "no-referrer");
    assert!(
        seen.text.contains("files:write") && seen.text.contains("close this window"),
        "{}",
        seen.text
    );
    person.finish(login).ends(0, "sync: access is granted, and kept in");
    let environment = std::fs::read_to_string(person.path("environment")).unwrap();
    assert!(!environment.contains(CLIENT_SECRET), "the browser is told a secret");
    let grant = person.grant().await.unwrap();
    let first = grant.refresh.unwrap();
    assert!(grant.scopes.unwrap().contains("files:write"));

    let asked = SystemTime::now();
    let renewed = person.renew(server(&oidc), client.0, client.1, &first).await.unwrap();
    let second = renewed.refresh.clone().unwrap();
    assert_ne!(first.expose_secret(), second.expose_secret(), "it rotates");
    assert_ne!(grant.access.expose_secret(), renewed.access.expose_secret());
    let given = GivenSecrets::default();
    let keeper = person.keeper();
    let patience = std::time::Duration::from_secs(5);
    keeper
        .install(&renewed, &grant.basis, asked, &given, patience)
        .await
        .unwrap();

    person
        .run(&["logout", "sync"])
        .ends(0, "sync: revoked at CloudSync, and forgotten here");
    assert!(person.grant().await.is_none());
    assert!(
        is_over(&person, &oidc, client, &second).await,
        "the revoked token is refused"
    );
    person.run(&["logout", "sync"]).ends(0, "there was nothing to forget");
}

#[tokio::test]
async fn a_refresh_token_that_was_rotated_away_is_over() {
    let oidc = Oidc::start();
    let person = public(&oidc);
    let mut login = person.begin_login(&["--no-browser"]);
    browse(&json!({"open": login.shown()}));
    person.finish(login).ends(0, "access is granted");
    let first = person.grant().await.unwrap().refresh.unwrap();
    let second = person
        .renew(server(&oidc), "public", None, &first)
        .await
        .unwrap()
        .refresh
        .unwrap();
    assert!(is_over(&person, &oidc, ("public", None), &first).await);
    assert!(
        is_over(&person, &oidc, ("public", None), &second).await,
        "and so is what was made of it (RFC 9700, 4.14.2)"
    );
}

#[tokio::test]
async fn a_code_on_another_device_is_enough() {
    let oidc = Oidc::start();
    // Least privilege: a remote that only reads asks for nothing more.
    let person = confidential(&oidc, "read_only = true");
    let mut login = person.begin_login(&["--device"]);
    let (address, code) = (login.shown(), login.shown());
    let seen = browse(&json!({"open": address, "code": code}));
    assert_eq!(seen.status, 200, "{}", seen.text);
    person.finish(login).ends(0, "sync: access is granted");
    let grant = person.grant().await.unwrap();
    assert_eq!(
        grant.scopes.unwrap().to_string(),
        "files:read offline_access workspaces:read"
    );
    let refresh = grant.refresh.unwrap();
    let renewed = person
        .renew(server(&oidc), "confidential", Some(CLIENT_SECRET), &refresh)
        .await;
    assert!(renewed.unwrap().refresh.is_some());
}

#[tokio::test]
async fn whoever_refuses_is_told_how_to_go_on() {
    let oidc = Oidc::start();
    let person = confidential(&oidc, "");
    let mut login = person.begin_login(&["--no-browser"]);
    let seen = browse(&json!({"open": login.shown(), "deny": true, "shot": "denied", "dark": true}));
    assert_eq!(seen.title, "CloudSync is not connected – keymount");
    assert!(
        seen.text.contains("Access was refused") && seen.text.contains("keymount login sync"),
        "{}",
        seen.text
    );
    person
        .finish(login)
        .ends(4, "sync: nothing was stored: access was refused");
    assert!(person.grant().await.is_none());
}

#[tokio::test]
async fn a_server_that_is_not_who_it_should_be_is_refused() {
    let oidc = Oidc::start();
    let other = format!("{}/tenant", oidc.issuer);
    let person = Person::with("", &format!("client_id = \"public\"\nissuer = \"{other}\""));
    let said = person.run(&["login", "sync", "--no-browser"]);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains(&oidc.issuer), "{said:?}");
}
