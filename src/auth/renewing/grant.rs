//! What is kept of a grant: one JSON document, read strictly.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::Granted;
use crate::auth::Scopes;
use crate::model::{Error, ErrorKind, Result};

/// The form of the document that this program writes and reads.
const FORM: u32 = 1;

/// The token of the moment and what the next one is asked for with.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Grows with every change, so that two processes know whether they speak of the same one.
    pub serial: u64,
    /// What it was got with, as `Exchange::basis` names it.
    pub basis: String,
    pub access: SecretString,
    /// When the token was asked for.
    pub issued: SystemTime,
    /// `None` when the service doesn't tell: it is used until it is rejected.
    pub until: Option<SystemTime>,
    pub refresh: Option<SecretString>,
    pub scopes: Option<Scopes>,
}

/// The document. Times are milliseconds since 1970.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    form: u32,
    serial: u64,
    #[serde(borrow)]
    basis: Cow<'a, str>,
    #[serde(borrow)]
    access: Cow<'a, str>,
    issued: u64,
    until: Option<u64>,
    #[serde(borrow)]
    refresh: Option<Text<'a>>,
    scopes: Option<Scopes>,
}

/// `Option<Cow>` alone would never borrow.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Grant {
    /// What a service just gave. What it didn't repeat is as it was in `before`.
    pub fn new(granted: &Granted, basis: &str, asked: SystemTime, before: Option<&Self>) -> Self {
        let next = before.map_or(0, |before| before.serial).saturating_add(1);
        Self {
            // After a logout nobody knows the last number, but it was smaller than the time.
            serial: next.max(milliseconds(asked)),
            basis: basis.to_owned(),
            access: granted.access.clone(),
            issued: asked,
            until: granted.life.and_then(|life| asked.checked_add(life)),
            refresh: granted
                .refresh
                .clone()
                .or_else(|| before.and_then(|before| before.refresh.clone())),
            scopes: granted
                .scopes
                .clone()
                .or_else(|| before.and_then(|before| before.scopes.clone())),
        }
    }

    /// How long the token lives in all.
    pub fn life(&self) -> Option<Duration> {
        let until = self.until?;
        Some(until.duration_since(self.issued).unwrap_or_default())
    }

    /// As it is kept.
    ///
    /// # Errors
    /// `Internal` when it cannot be written down.
    pub fn to_document(&self) -> Result<SecretString> {
        let document = Document {
            form: FORM,
            serial: self.serial,
            basis: Cow::Borrowed(&self.basis),
            access: Cow::Borrowed(self.access.expose_secret()),
            issued: milliseconds(self.issued),
            until: self.until.map(milliseconds),
            refresh: self
                .refresh
                .as_ref()
                .map(|refresh| Text(Cow::Borrowed(refresh.expose_secret()))),
            scopes: self.scopes.clone(),
        };
        let secrets = self.access.expose_secret().len() + self.refresh.as_ref().map_or(0, |r| r.expose_secret().len());
        // Room for all at once: growing would leave copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(4096 + 6 * secrets));
        let unwritable = || Error::internal("the grant cannot be written down");
        serde_json::to_writer(&mut *text, &document).map_err(|_| unwritable())?;
        let text = std::str::from_utf8(&text).map_err(|_| unwritable())?;
        Ok(text.into())
    }

    /// # Errors
    /// `BadData` when it isn't what `to_document` writes.
    pub fn from_document(document: &SecretString) -> Result<Self> {
        // The parser's own words could show a part of the secret.
        let damaged = || Error::new(ErrorKind::BadData, "the stored grant is damaged");
        let document: Document<'_> = serde_json::from_str(document.expose_secret()).map_err(|_| damaged())?;
        if document.form != FORM {
            return Err(Error::new(
                ErrorKind::BadData,
                "the stored grant was written by another version of keymount",
            ));
        }
        let access = secret(document.access);
        let refresh = document.refresh.map(|Text(text)| secret(text));
        let empty = |secret: &SecretString| secret.expose_secret().is_empty();
        if empty(&access) || refresh.as_ref().is_some_and(empty) {
            return Err(damaged());
        }
        Ok(Self {
            serial: document.serial,
            basis: document.basis.into_owned(),
            access,
            issued: time(document.issued).ok_or_else(damaged)?,
            until: match document.until {
                Some(until) => Some(time(until).ok_or_else(damaged)?),
                None => None,
            },
            refresh,
            scopes: document.scopes,
        })
    }
}

fn secret(text: Cow<'_, str>) -> SecretString {
    match text {
        Cow::Borrowed(text) => text.into(),
        Cow::Owned(text) => Zeroizing::new(text).as_str().into(),
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time(milliseconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted() -> Granted {
        Granted {
            access: "canary-access".into(),
            life: Some(Duration::from_secs(3600)),
            refresh: Some("canary-\"refresh\"".into()),
            scopes: Some("a b".parse().unwrap()),
        }
    }

    fn asked() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    #[test]
    fn what_is_kept_comes_back() {
        let grant = Grant::new(&granted(), "basis", asked(), None);
        let back = Grant::from_document(&grant.to_document().unwrap()).unwrap();
        assert_eq!(back.serial, grant.serial);
        assert_eq!(back.access.expose_secret(), "canary-access");
        assert_eq!(back.refresh.unwrap().expose_secret(), "canary-\"refresh\"");
        assert_eq!((back.issued, back.until), (grant.issued, grant.until));
        assert_eq!((back.basis, back.scopes), (grant.basis, grant.scopes));
    }

    #[test]
    fn what_the_service_does_not_repeat_stays() {
        let before = Grant::new(&granted(), "basis", asked(), None);
        let granted = Granted {
            refresh: None,
            scopes: None,
            life: None,
            ..granted()
        };
        let after = Grant::new(&granted, "basis", asked(), Some(&before));
        assert_eq!(after.refresh.as_ref().unwrap().expose_secret(), "canary-\"refresh\"");
        assert_eq!(after.scopes, before.scopes);
        assert_eq!(after.until, None);
        assert!(after.serial > before.serial);
    }

    #[test]
    fn nothing_but_our_own_document_is_read() {
        let whole = Grant::new(&granted(), "basis", asked(), None).to_document().unwrap();
        let whole = whole.expose_secret();
        for damaged in [
            "",
            "canary",
            &whole[..whole.len() / 2],
            &whole.replacen("\"form\":1", "\"form\":2", 1),
            &whole.replacen("{", "{\"more\":1,", 1),
            &whole.replacen("canary-access", "", 1),
            &format!("{whole}x"),
            &whole.replacen("\"issued\":1", "\"issued\":-1", 1),
        ] {
            let error = Grant::from_document(&damaged.to_owned().into()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadData, "{damaged}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let grant = Grant::new(&granted(), "basis", asked(), None);
        assert!(!format!("{grant:?}").contains("canary"));
    }
}
