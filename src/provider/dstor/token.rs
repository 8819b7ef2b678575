//! What an access token of dStor says about its own life.
//!
//! It is a JSON Web Token (RFC 7519). Its signature is not verified, and needn't be: the token came over TLS from the
//! service that made it, nobody is let in because of what it says, and the key to verify it (HS256) is the service's
//! own secret. What it says only decides when the next one is asked for; a wrong answer costs one request more.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// Longer lives are taken for nonsense: the longest documented one is a year.
const LONGEST: f64 = 10.0 * 365.0 * 86_400.0;
/// How far the token's time of issue may be from the answer's date, in seconds: both are of one service.
const TOLERANCE: f64 = 60.0;

/// Seconds since 1970, possibly with a fraction (RFC 7519, 4.1.4 and 4.1.6).
#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
    iat: Option<f64>,
}

/// How long the token lives from when it was issued. Both ends are told by the service, so that a wrong clock on this
/// machine does no harm; `answered` is the date of the answer that brought it.
///
/// `None` when it isn't such a token, or says nothing that can be believed.
pub(super) fn life(token: &SecretString, answered: Option<SystemTime>) -> Option<Duration> {
    let claims = claims(token.expose_secret())?;
    let expires = claims.exp?;
    let answered = answered.and_then(|at| Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs_f64()));
    let plausible = |from: f64| Some(expires - from).filter(|life| *life > 0.0 && *life <= LONGEST);
    let by_issue = claims.iat.and_then(plausible);
    let by_answer = answered.and_then(plausible);
    let seconds = match (by_issue, by_answer) {
        // Renewing too early is harmless.
        (Some(issued), Some(answered)) if (issued - answered).abs() > TOLERANCE => issued.min(answered),
        (issued, answered) => issued.or(answered)?,
    };
    Some(Duration::from_secs_f64(seconds))
}

fn claims(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> SecretString {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", part(r#"{"alg":"HS256","typ":"JWT"}"#), part(claims)).into()
    }

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn seconds(claims: &str, answered: Option<SystemTime>) -> Option<u64> {
        life(&token(claims), answered).map(|life| life.as_secs())
    }

    #[test]
    fn the_life_is_from_issue_to_end() {
        let sample = r#"{"d":false,"o":false,"s":false,"t":null,"iat":1664346227,"exp":1664349827,
            "aud":"dstor.cloud","iss":"dstor.cloud","sub":"6b0f4d3c-1a55-4e0e-9f0a-0d2a5b7c9e11"}"#;
        assert_eq!(seconds(sample, None), Some(3600));
        assert_eq!(seconds(sample, at(1_664_346_228)), Some(3600));
        assert_eq!(seconds(r#"{"iat":100.5,"exp":200.5}"#, None), Some(100));
    }

    #[test]
    fn without_a_time_of_issue_the_answers_date_counts() {
        assert_eq!(seconds(r#"{"exp":1000}"#, at(400)), Some(600));
        assert_eq!(seconds(r#"{"exp":1000}"#, None), None);
    }

    #[test]
    fn what_cannot_be_believed_is_not() {
        // Issued long ago by its own account: what is left by the answer's date counts.
        assert_eq!(seconds(r#"{"iat":100,"exp":5000}"#, at(4000)), Some(1000));
        assert_eq!(seconds(r#"{"iat":4000,"exp":5000}"#, at(100)), Some(1000));
        assert_eq!(seconds(r#"{"iat":5000,"exp":4000}"#, at(5000)), None);
        assert_eq!(seconds(r#"{"iat":0,"exp":99999999999}"#, at(10)), None);
        assert_eq!(seconds(r#"{"iat":0,"exp":-5}"#, None), None);
        for odd in ["{}", r#"{"exp":"soon"}"#, "[]", "nonsense"] {
            assert_eq!(seconds(odd, at(1)), None, "{odd}");
        }
        for odd in ["", "opaque", "a.b", "a.b.c", "a.b.c.d"] {
            assert_eq!(life(&odd.to_owned().into(), at(1)), None, "{odd}");
        }
    }
}
