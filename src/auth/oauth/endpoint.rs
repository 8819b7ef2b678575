//! One address of an authorization server: how requests are written for it, and what its answers mean.
//!
//! The adapter between the `oauth2` crate and `net`, and the one place that knows how servers differ from the standard.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use oauth2::http::{HeaderValue, Response as HttpResponse};
use oauth2::{HttpRequest, HttpResponse as CrateResponse};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Map, Value, json};

use super::TokenBodies;
use crate::model::{Error, ErrorKind, Result};
use crate::net::{Answer, Body, PlainHttp, Refusal, Request, Transport, error_for, retry_after};

/// For one request with its answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer in bytes; a token that is a signed document has some thousand.
pub(super) const MAX_ANSWER: usize = 256 * 1024;
/// The longest explanation of a server that is shown, in characters.
const MAX_EXPLANATION: usize = 200;
/// What must not come back in a server's explanation. Shorter values say nothing, and may be in any sentence.
const SECRET_FIELDS: [&str; 6] = [
    "client_secret",
    "code",
    "code_verifier",
    "device_code",
    "refresh_token",
    "token",
];
const SHORTEST_SECRET: usize = 6;

/// Sends the crate's requests to one address.
#[derive(Clone)]
pub(super) struct Endpoint {
    transport: Transport,
    url: Url,
    bodies: TokenBodies,
    purpose: &'static str,
}

/// There was no answer that the protocol knows.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub(super) struct NoAnswer {
    pub error: Error,
    /// The wait that the server asks for.
    pub retry_after: Option<Duration>,
}

impl From<Error> for NoAnswer {
    fn from(error: Error) -> Self {
        Self {
            error,
            retry_after: None,
        }
    }
}

impl Endpoint {
    /// # Errors
    /// `InvalidInput` for an address that no secret may be sent to.
    pub fn new(
        transport: Transport,
        url: Url,
        plain_http: PlainHttp,
        bodies: TokenBodies,
        purpose: &'static str,
    ) -> Result<Self> {
        plain_http.check(&url)?;
        Ok(Self {
            transport,
            url,
            bodies,
            purpose,
        })
    }

    /// The crate's client; whatever address it was told, this one is asked.
    pub fn client(
        self,
    ) -> impl Fn(HttpRequest) -> futures_util::future::BoxFuture<'static, Result<CrateResponse, NoAnswer>> {
        let endpoint = Arc::new(self);
        move |request| {
            let endpoint = Arc::clone(&endpoint);
            Box::pin(async move { endpoint.call(&request).await })
        }
    }

    async fn call(&self, request: &HttpRequest) -> Result<CrateResponse, NoAnswer> {
        let fields: Vec<(String, String)> = url::form_urlencoded::parse(request.body()).into_owned().collect();
        let mut sent = Request::new(Method::POST, self.url.clone(), self.purpose);
        if let Some(value) = request.headers().get(AUTHORIZATION) {
            let mut value = value.clone();
            value.set_sensitive(true);
            sent = sent.header(AUTHORIZATION, value);
        }
        sent = sent.header(reqwest::header::ACCEPT, HeaderValue::from_static("application/json"));
        let sent = match self.bodies {
            TokenBodies::Json => {
                let body: Map<String, Value> = fields
                    .iter()
                    .map(|(name, value)| (name.clone(), Value::String(value.clone())))
                    .collect();
                sent.json(&Value::Object(body))
            }
            TokenBodies::Form => sent
                .header(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/x-www-form-urlencoded"),
                )
                .body(Body::Bytes(Bytes::copy_from_slice(request.body()))),
        };
        let answer = self.transport.send_once(&sent, PATIENCE, MAX_ANSWER).await?;
        self.understood(answer, &fields)
    }

    /// The answer as the standard has it, if it can be read so.
    fn understood(&self, answer: Answer, fields: &[(String, String)]) -> Result<CrateResponse, NoAnswer> {
        let Answer { status, headers, body } = answer;
        let body = if status.is_success() {
            body.to_vec()
        } else {
            let refused = status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
            let words = refused.then(|| refusal(&body, fields)).flatten();
            words.ok_or_else(|| self.no_answer(status, &headers))?
        };
        let mut response = HttpResponse::new(body);
        // The crate takes 200 only, and revocation may be answered with another success.
        *response.status_mut() = if status.is_success() { StatusCode::OK } else { status };
        if let Some(kind) = headers.get(CONTENT_TYPE).filter(|_| status.is_success()) {
            response.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
        Ok(response)
    }

    fn no_answer(&self, status: StatusCode, headers: &HeaderMap) -> NoAnswer {
        let error = if status.is_redirection() {
            Error::bad_data(format!(
                "{}: the authorization server leads elsewhere, and secrets are not sent after it",
                self.purpose
            ))
        } else {
            error_for(status, headers, Refusal::default(), self.purpose)
        };
        NoAnswer {
            error,
            retry_after: retry_after(headers, SystemTime::now()),
        }
    }
}

/// The refusal in the standard's form (RFC 6749, 5.2), without anything that was sent.
///
/// CloudSync's other errors are `{"error": {"code": …, "message": …}}`; that its authorization server uses the standard's
/// codes within is assumed.
fn refusal(body: &[u8], fields: &[(String, String)]) -> Option<Vec<u8>> {
    let read: Value = serde_json::from_slice(body).ok()?;
    let error = read.get("error")?;
    let (code, explanation) = match error {
        Value::String(code) => (code.as_str(), read.get("error_description")),
        nested => (nested.get("code")?.as_str()?, nested.get("message")),
    };
    // RFC 6749, 5.2: visible ASCII and spaces; an echo of a secret is no code.
    if code.len() > 64 || !code.chars().all(|c| c.is_ascii_graphic()) || echoes(code, fields) {
        return None;
    }
    let mut standard = json!({ "error": code });
    if let Some(text) = explanation.and_then(Value::as_str)
        && !echoes(text, fields)
    {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(MAX_EXPLANATION).collect();
        standard["error_description"] = Value::String(shown);
    }
    Some(standard.to_string().into_bytes())
}

fn echoes(text: &str, fields: &[(String, String)]) -> bool {
    fields.iter().any(|(name, value)| {
        SECRET_FIELDS.contains(&name.as_str()) && value.len() >= SHORTEST_SECRET && text.contains(value.as_str())
    })
}

/// What a document of the server says, or nothing when it has none there.
///
/// # Errors
/// `Unreachable`, `TimedOut` and the like.
pub(super) async fn document(transport: &Transport, url: Url, purpose: &'static str) -> Result<Option<Bytes>> {
    let request = Request::get(url, purpose);
    let Answer { status, headers, body } = transport.send_once(&request, PATIENCE, MAX_ANSWER).await?;
    if status.is_success() {
        return Ok(Some(body));
    }
    let error = error_for(status, &headers, Refusal::default(), purpose);
    match error.kind() {
        ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::RateLimited { .. } => Err(error),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Vec<(String, String)> {
        vec![("refresh_token".to_owned(), "canary-refresh".to_owned())]
    }

    fn read(body: &str) -> Option<Value> {
        refusal(body.as_bytes(), &fields()).map(|bytes| serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn refusals_of_both_forms_are_read() {
        assert_eq!(
            read(r#"{"error":"invalid_grant","error_description":"revoked","more":1}"#).unwrap(),
            json!({"error": "invalid_grant", "error_description": "revoked"})
        );
        assert_eq!(
            read(r#"{"error":{"code":"invalid_grant","message":"revoked","details":{}}}"#).unwrap(),
            json!({"error": "invalid_grant", "error_description": "revoked"})
        );
        for other in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"error":5}"#,
            r#"{"error":"a b\n"}"#,
            r#"{"error":{}}"#,
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_refusal_does_not_bring_a_secret_back() {
        let read = read(r#"{"error":"invalid_grant","error_description":"canary-refresh is unknown"}"#).unwrap();
        assert_eq!(read, json!({"error": "invalid_grant"}));
        assert_eq!(refusal(br#"{"error":"canary-refresh"}"#, &fields()), None);
    }
}
