//! Temporary tokens of dStor, got with an API key or with an e-mail address and a password.
//!
//! When one is asked for and where it is kept is `auth::renewing`'s affair.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::token;
use super::wire::refusal;
use crate::auth::GivenSecrets;
use crate::auth::renewing::{Exchange, ExchangeError, Granted};
use crate::model::{Error, ErrorKind, Result};
use crate::net::{Answer, Body, PlainHttp, Request, Transport, error_for, retry_after};
use crate::provider::content::hex;
use crate::provider::registry::{DstorAuth, Network};

/// Characters of an API key (documented).
const KEY_CHARS: usize = 64;
/// The header of the key; an older page of the documentation says `x-api-key`, all its samples say this.
const API_KEY: HeaderName = HeaderName::from_static("api-key");
/// When the token shall end, in seconds since 1970 (documented).
const EXPIRATION: HeaderName = HeaderName::from_static("x-expiration");
/// The longest answer, in bytes: a token has less than one thousand.
const MAX_ANSWER: usize = 64 * 1024;
/// Clocks that are closer than this count as equal.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);
const PURPOSE: &str = "get an access token";

/// Asks one network of dStor for access tokens.
pub struct TempTokens {
    network: Network,
    address: Url,
    auth: DstorAuth,
    transport: Transport,
    /// For one request and its answer.
    patience: Duration,
    /// How far the service's clock is ahead of ours, in seconds, as its last answer told.
    ahead: AtomicI64,
}

#[derive(Deserialize)]
struct Given {
    access_token: String,
}

impl TempTokens {
    /// `endpoint` is the service's root, `https://api.dstor.cloud/`.
    ///
    /// # Errors
    /// `InvalidInput` when a key must not be sent to this address.
    pub fn new(
        network: Network,
        endpoint: &Url,
        plain_http: PlainHttp,
        auth: DstorAuth,
        transport: Transport,
        patience: Duration,
    ) -> Result<Self> {
        plain_http.check(endpoint)?;
        let mut address = endpoint.clone();
        let path = format!("{}/v1/dev/temp-token", endpoint.path().trim_end_matches('/'));
        address.set_path(&path);
        Ok(Self {
            network,
            address,
            auth,
            transport,
            patience,
            ahead: AtomicI64::new(0),
        })
    }

    /// The key or the password as it is now.
    async fn secret(&self, given: &GivenSecrets) -> Result<SecretString> {
        let secret = self.auth.secret_source().read(given).await?;
        match self.auth {
            DstorAuth::TempToken { .. } => Self::check_key(&secret)?,
            DstorAuth::Login { .. } => {}
        }
        Ok(secret)
    }

    /// A key that cannot be one is not sent anywhere: it may be another secret, put there by mistake.
    fn check_key(key: &SecretString) -> Result<()> {
        let key = key.expose_secret();
        let chars = key.chars().count();
        let what = if chars != KEY_CHARS {
            format!("has {chars} characters")
        } else if !key.chars().all(|c| c.is_ascii_graphic()) {
            "has characters that a key cannot have".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::NeedsLogin,
            format!("an API key of dStor has {KEY_CHARS} letters and digits, and this one {what}"),
        ))
    }

    fn request(&self, secret: &SecretString) -> Result<Request> {
        match &self.auth {
            DstorAuth::TempToken { lifetime, .. } => {
                let request = Request::get(self.address.clone(), PURPOSE).header(API_KEY, hidden(secret)?);
                Ok(match lifetime {
                    None => request,
                    Some(lifetime) => request.header(EXPIRATION, HeaderValue::from(self.expiration(*lifetime))),
                })
            }
            DstorAuth::Login { email, .. } => {
                let body = serde_json::json!({ "email": email, "password": secret.expose_secret() });
                Ok(Request::new(Method::POST, self.address.clone(), PURPOSE)
                    .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                    .body(Body::Bytes(body.to_string().into())))
            }
        }
    }

    /// The end of a life that begins now, in seconds since 1970 by the service's clock as far as it is known.
    fn expiration(&self, lifetime: Duration) -> u64 {
        let now = seconds(SystemTime::now()).saturating_add_signed(self.ahead.load(Ordering::Relaxed));
        now.saturating_add(lifetime.as_secs().max(1))
    }

    /// Learns the service's clock from an answer.
    fn note_clock(&self, answered: Option<SystemTime>) -> i64 {
        let Some(answered) = answered else {
            return self.ahead.load(Ordering::Relaxed);
        };
        let ahead = seconds(answered).cast_signed() - seconds(SystemTime::now()).cast_signed();
        let ahead = if ahead.unsigned_abs() <= CLOCK_TOLERANCE.as_secs() {
            0
        } else {
            ahead
        };
        self.ahead.store(ahead, Ordering::Relaxed);
        ahead
    }

    fn judge(&self, answer: Answer, assumed_ahead: i64, secret: &SecretString) -> Result<Granted, ExchangeError> {
        let answered = date(&answer.headers);
        let ahead = self.note_clock(answered);
        if answer.status.is_success() {
            return granted(&answer, answered);
        }
        let words = refusal(&answer.body).filter(|words| !words.contains(secret.expose_secret()));
        match answer.status {
            StatusCode::BAD_REQUEST
                if self.lifetime().is_some() && ahead.abs_diff(assumed_ahead) > CLOCK_TOLERANCE.as_secs() =>
            {
                let message = format!(
                    "{PURPOSE}: this machine's clock and dStor's differ by {} s; the next request allows for that",
                    ahead.unsigned_abs()
                );
                Err(ExchangeError::Passing {
                    error: Error::new(ErrorKind::Unreachable, message),
                    retry_after: Some(Duration::ZERO),
                })
            }
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(ExchangeError::Dead(self.refused(answer.status, words)))
            }
            status if status.is_redirection() => Err(passing(Error::bad_data(format!(
                "{PURPOSE}: {} answers with a redirect, and a key is sent nowhere else; correct the endpoint",
                self.address.origin().ascii_serialization()
            )))),
            status => {
                let refusal = crate::net::Refusal {
                    message: words,
                    ..Default::default()
                };
                Err(ExchangeError::Passing {
                    error: error_for(status, &answer.headers, refusal, PURPOSE),
                    retry_after: retry_after(&answer.headers, SystemTime::now()),
                })
            }
        }
    }

    fn lifetime(&self) -> Option<Duration> {
        match self.auth {
            DstorAuth::TempToken { lifetime, .. } => lifetime,
            DstorAuth::Login { .. } => None,
        }
    }

    /// The sentence for a person who must act.
    fn refused(&self, status: StatusCode, words: Option<String>) -> Error {
        let network = self.network.word();
        let what = match (&self.auth, status) {
            (DstorAuth::TempToken { lifetime: Some(_), .. }, StatusCode::BAD_REQUEST) => {
                format!("dStor's {network} network gives no token with this API key and this lifetime")
            }
            (DstorAuth::TempToken { .. }, _) => format!(
                "dStor's {network} network does not accept the API key (production and testnet have different keys)"
            ),
            (DstorAuth::Login { .. }, _) => {
                format!("dStor's {network} network does not accept the e-mail address or the password")
            }
        };
        let words = words.map_or(String::new(), |words| format!(", it says {words:?}"));
        Error::new(ErrorKind::NeedsLogin, format!("{what}{words}"))
    }
}

#[async_trait]
impl Exchange for TempTokens {
    fn method(&self) -> &'static str {
        self.auth.method()
    }

    fn environment(&self) -> Option<&'static str> {
        Some(self.network.word())
    }

    /// A password may change and the account stays the same; a key may be another account's.
    async fn basis(&self, given: &GivenSecrets) -> Result<String> {
        let mut hasher = Sha256::new();
        let key;
        let who = match &self.auth {
            DstorAuth::TempToken { .. } => {
                key = self.secret(given).await?;
                key.expose_secret()
            }
            DstorAuth::Login { email, .. } => email,
        };
        for part in [self.network.word(), self.address.as_str(), self.auth.method(), who] {
            // No text has this byte, so that no two lists of parts give the same bytes.
            hasher.update(part);
            hasher.update([0xff]);
        }
        Ok(hex(&hasher.finalize()))
    }

    async fn exchange(&self, _: Option<&SecretString>, given: &GivenSecrets) -> Result<Granted, ExchangeError> {
        let secret = self.secret(given).await.map_err(passing)?;
        let request = self.request(&secret).map_err(passing)?;
        let assumed_ahead = self.ahead.load(Ordering::Relaxed);
        let answer = self
            .transport
            .send_once(&request, self.patience, MAX_ANSWER)
            .await
            .map_err(passing)?;
        self.judge(answer, assumed_ahead, &secret)
    }
}

fn passing(error: Error) -> ExchangeError {
    ExchangeError::Passing {
        error,
        retry_after: None,
    }
}

fn granted(answer: &Answer, answered: Option<SystemTime>) -> Result<Granted, ExchangeError> {
    // serde's own words would show the answer, which may hold a token.
    let given: Given = serde_json::from_slice(&answer.body)
        .map_err(|_| passing(Error::bad_data(format!("{PURPOSE}: dStor's answer holds no token"))))?;
    let access = SecretString::from(given.access_token);
    if access.expose_secret().is_empty() {
        return Err(passing(Error::bad_data(format!(
            "{PURPOSE}: dStor gave an empty token"
        ))));
    }
    Ok(Granted {
        life: token::life(&access, answered),
        access,
        refresh: None,
        scopes: None,
    })
}

fn hidden(secret: &SecretString) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(secret.expose_secret()).map_err(|_| {
        Error::new(
            ErrorKind::NeedsLogin,
            "the API key has characters that no header can hold",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The answer's date (RFC 9110, 6.6.1).
fn date(headers: &HeaderMap) -> Option<SystemTime> {
    let text = headers.get(DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(SystemTime::from(date))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
