//! Where an authorization server can be asked for what: documented addresses, or the server's own metadata.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use reqwest::Url;
use serde::Deserialize;

use super::endpoint::document;
use super::{AuthorizationServer, TokenBodies};
use crate::model::{Error, Result};
use crate::net::{PlainHttp, Transport};

const PURPOSE: &str = "ask the authorization server for its addresses";

/// What was read in this process. Servers change theirs less often than daemons start.
static READ: LazyLock<Mutex<HashMap<Url, Arc<Metadata>>>> = LazyLock::new(Mutex::default);

/// Where consent is asked for, and what it becomes tokens with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Core {
    pub authorize: Option<Url>,
    pub token: Url,
    pub bodies: TokenBodies,
    pub client_secret_in: SecretPlace,
    /// What the server calls itself in its answers (RFC 9207), where it said that it does.
    pub issuer: Option<String>,
}

/// What a server may offer beyond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extras {
    pub device: Option<Url>,
    pub revocation: Option<Url>,
}

/// How an application with a secret proves itself (RFC 6749, 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretPlace {
    Body,
    Header,
}

/// RFC 8414, 2, as far as it is used.
#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: Option<Url>,
    token_endpoint: Option<Url>,
    device_authorization_endpoint: Option<Url>,
    revocation_endpoint: Option<Url>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// # Errors
/// As asking for the metadata fails, where the addresses are not known without it; `NotFound` when there is none.
pub(super) async fn core(server: &AuthorizationServer, transport: &Transport, plain_http: PlainHttp) -> Result<Core> {
    match server {
        AuthorizationServer::Known {
            authorize,
            token,
            bodies,
            ..
        } => Ok(Core {
            authorize: Some(authorize.clone()),
            token: token.clone(),
            bodies: *bodies,
            client_secret_in: SecretPlace::Body,
            issuer: None,
        }),
        AuthorizationServer::Issuer(issuer) => {
            let Some(metadata) = metadata(issuer, transport, plain_http).await? else {
                return Err(Error::not_found(format!(
                    "the description of the authorization server {issuer}"
                )));
            };
            let Some(token) = metadata.token_endpoint.clone() else {
                return Err(Error::bad_data(format!("{issuer} does not say where it gives tokens")));
            };
            Ok(Core {
                authorize: metadata.authorization_endpoint.clone(),
                token,
                bodies: TokenBodies::Form,
                client_secret_in: metadata.secret_place(),
                issuer: metadata
                    .authorization_response_iss_parameter_supported
                    .then(|| metadata.issuer.clone()),
            })
        }
    }
}

/// # Errors
/// As asking for the metadata fails; a server without metadata offers nothing more.
pub(super) async fn extras(
    server: &AuthorizationServer,
    transport: &Transport,
    plain_http: PlainHttp,
) -> Result<Extras> {
    let base = match server {
        AuthorizationServer::Known { metadata, .. } => metadata,
        AuthorizationServer::Issuer(issuer) => issuer,
    };
    Ok(metadata(base, transport, plain_http)
        .await?
        .map_or_else(Extras::default, |metadata| Extras {
            device: metadata.device_authorization_endpoint.clone(),
            revocation: metadata.revocation_endpoint.clone(),
        }))
}

async fn metadata(issuer: &Url, transport: &Transport, plain_http: PlainHttp) -> Result<Option<Arc<Metadata>>> {
    plain_http.check(issuer)?;
    let known = READ.lock().get(issuer).cloned();
    if known.is_some() {
        return Ok(known);
    }
    for place in places(issuer) {
        let Some(body) = document(transport, place, PURPOSE).await? else {
            continue;
        };
        let Ok(metadata) = serde_json::from_slice::<Metadata>(&body) else {
            continue;
        };
        if !same_issuer(issuer, &metadata.issuer) {
            return Err(Error::bad_data(format!(
                "{issuer} describes another authorization server, so nothing is sent to it"
            )));
        }
        let metadata = Arc::new(metadata);
        READ.lock().insert(issuer.clone(), Arc::clone(&metadata));
        return Ok(Some(metadata));
    }
    Ok(None)
}

/// OpenID Connect Discovery 1.0, 4, puts its document below the issuer; RFC 8414, 3.1, before the issuer's path.
fn places(issuer: &Url) -> [Url; 2] {
    let path = issuer.path().trim_end_matches('/');
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url.set_query(None);
        url.set_fragment(None);
        url
    };
    [
        at(format!("{path}/.well-known/openid-configuration")),
        at(format!("/.well-known/oauth-authorization-server{path}")),
    ]
}

/// RFC 8414, 3.3: they must be identical; a slash at the end is what parsing an address adds.
fn same_issuer(asked: &Url, told: &str) -> bool {
    told.trim_end_matches('/') == asked.as_str().trim_end_matches('/')
}

impl Metadata {
    fn secret_place(&self) -> SecretPlace {
        match &self.token_endpoint_auth_methods_supported {
            Some(methods) if methods.iter().any(|method| method == "client_secret_post") => SecretPlace::Body,
            // RFC 8414, 2: the default.
            _ => SecretPlace::Header,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_both_standards_put_it() {
        let of = |issuer: &str| places(&issuer.parse().unwrap()).map(|url| url.to_string());
        assert_eq!(
            of("https://a.example"),
            [
                "https://a.example/.well-known/openid-configuration",
                "https://a.example/.well-known/oauth-authorization-server"
            ]
        );
        assert_eq!(
            of("https://a.example/tenant/"),
            [
                "https://a.example/tenant/.well-known/openid-configuration",
                "https://a.example/.well-known/oauth-authorization-server/tenant"
            ]
        );
    }

    #[test]
    fn an_issuer_is_itself_and_nobody_else() {
        let asked: Url = "https://a.example".parse().unwrap();
        assert!(same_issuer(&asked, "https://a.example") && same_issuer(&asked, "https://a.example/"));
        for other in ["https://b.example", "http://a.example", "https://a.example/x", ""] {
            assert!(!same_issuer(&asked, other), "{other}");
        }
    }

    #[test]
    fn the_secret_goes_where_the_server_takes_it() {
        let of = |methods: Option<&[&str]>| {
            Metadata {
                issuer: String::new(),
                authorization_endpoint: None,
                token_endpoint: None,
                device_authorization_endpoint: None,
                revocation_endpoint: None,
                token_endpoint_auth_methods_supported: methods
                    .map(|methods| methods.iter().map(|method| (*method).to_owned()).collect()),
                authorization_response_iss_parameter_supported: false,
            }
            .secret_place()
        };
        assert_eq!(of(None), SecretPlace::Header);
        assert_eq!(of(Some(&["client_secret_basic"])), SecretPlace::Header);
        assert_eq!(
            of(Some(&["client_secret_basic", "client_secret_post"])),
            SecretPlace::Body
        );
    }
}
