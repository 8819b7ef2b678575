//! The JSON of dStor, what its refusals say, and how an upload ends.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;

use crate::model::{Error, ErrorKind};
use crate::net::{Dialect, Refusal};

/// The longest text that counts as words for a person, in bytes.
const MAX_WORDS: usize = 300;

/// The answer to the announcement of an upload (README of the API).
#[derive(Deserialize)]
pub(super) struct Announced {
    pub(super) token: String,
}

/// The answer to one post of an upload (as a public client reads it).
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Posted {
    error_at_stage: Option<String>,
    error_explanation: Option<String>,
}

/// How far an upload is (README of the API).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) status: String,
    #[serde(default)]
    data: Option<Vec<Stored>>,
    #[serde(default)]
    error_at_stage: Option<String>,
    #[serde(default)]
    error_explanation: Option<String>,
}

/// What an upload made of one file.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stored {
    name: String,
    hash: String,
}

/// How an upload stands.
pub(super) enum Standing {
    /// It goes on; the service's word for where it is.
    Working(String),
    /// It is done; the hash of the file of this name.
    Done(String),
}

impl Posted {
    /// # Errors
    /// When the post says that the upload failed.
    pub(super) fn check(self) -> Result<(), Error> {
        match self.error_at_stage {
            Some(stage) => Err(failed(Some(stage), self.error_explanation)),
            None => Ok(()),
        }
    }
}

impl Status {
    /// `name` is the one that was sent.
    ///
    /// # Errors
    /// When the upload failed, or its end names no file.
    pub(super) fn standing(self, name: &str) -> Result<Standing, Error> {
        match self.status.as_str() {
            "DONE" => {
                let mut data = self.data.unwrap_or_default();
                let at = match data.iter().position(|stored| stored.name == name) {
                    Some(at) => at,
                    // One file was sent, whatever it is called now.
                    None if data.len() == 1 => 0,
                    None => {
                        return Err(Error::bad_data(
                            "upload the file: dStor says it is done and names no hash",
                        ));
                    }
                };
                Ok(Standing::Done(data.swap_remove(at).hash))
            }
            "ERROR" => Err(failed(self.error_at_stage, self.error_explanation)),
            // Seen are ADDING_TO_IPFS and SAVING_DATA; another word is taken for work as well.
            _ => Ok(Standing::Working(self.status)),
        }
    }
}

/// What a failed upload means. The explanations aren't documented: only words that leave no doubt are read, and what
/// remains is taken for a fault of the service that passes, so that nothing which was written is given up.
fn failed(stage: Option<String>, explanation: Option<String>) -> Error {
    let explanation = explanation.map(|text| words(&text)).filter(|text| !text.is_empty());
    let explanation = explanation.unwrap_or_else(|| "no reason given".to_owned());
    let lower = explanation.to_ascii_lowercase();
    let says = |hints: &[&str]| hints.iter().any(|hint| lower.contains(hint));
    let kind = if says(&["too large", "too big", "size limit"]) {
        ErrorKind::TooLarge
    } else if says(&["quota", "storage limit", "payment", "billing", "suspended"]) {
        ErrorKind::Quota
    } else {
        ErrorKind::Unreachable
    };
    let stage = stage.map_or(String::new(), |stage| format!(" (at {})", words(&stage)));
    Error::new(
        kind,
        format!("upload the file: dStor could not store it{stage}: {explanation:?}"),
    )
}

/// The form of v1's errors isn't documented; the gateway's are plain text (source of the serving nodes).
pub(super) struct DstorDialect;

impl Dialect for DstorDialect {
    fn explain(&self, _: StatusCode, _: &HeaderMap, body: &[u8]) -> Refusal {
        Refusal {
            message: refusal(body),
            ..Refusal::default()
        }
    }
}

/// The words of a refusal, if they are words.
pub(super) fn refusal(body: &[u8]) -> Option<String> {
    let text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(json) => ["message", "error", "detail"]
            .iter()
            .find_map(|key| Some(json.get(key)?.as_str()?.to_owned()))?,
        Err(_) => std::str::from_utf8(body).ok()?.trim().to_owned(),
    };
    (!text.is_empty() && !text.starts_with('<')).then(|| words(&text))
}

/// One line of bearable length.
fn words(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    let end = (0..=line.len().min(MAX_WORDS))
        .rev()
        .find(|&at| line.is_char_boundary(at))
        .unwrap_or(0);
    line[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(json: &str) -> Result<String, ErrorKind> {
        let status: Status = serde_json::from_str(json).unwrap();
        match status.standing("a") {
            Ok(Standing::Done(hash)) => Ok(hash),
            Ok(Standing::Working(word)) => Ok(format!("… {word}")),
            Err(error) => Err(error.kind()),
        }
    }

    #[test]
    fn the_hash_is_that_of_the_file_that_was_sent() {
        assert_eq!(
            standing(r#"{"status":"ADDING_TO_IPFS"}"#),
            Ok("… ADDING_TO_IPFS".into())
        );
        let done = |data: &str| standing(&format!(r#"{{"status":"DONE","data":{data}}}"#));
        assert_eq!(
            done(r#"[{"Name":"b","Hash":"1"},{"Name":"a","Hash":"2"}]"#),
            Ok("2".into())
        );
        assert_eq!(done(r#"[{"Name":"other","Hash":"1"}]"#), Ok("1".into()));
        assert_eq!(done("[]"), Err(ErrorKind::BadData));
        assert_eq!(done("null"), Err(ErrorKind::BadData));
        assert_eq!(
            done(r#"[{"Name":"b","Hash":"1"},{"Name":"c","Hash":"2"}]"#),
            Err(ErrorKind::BadData)
        );
    }

    #[test]
    fn a_failure_is_what_its_explanation_says() {
        let error = |text: &str| {
            standing(&format!(
                r#"{{"status":"ERROR","errorExplanation":"{text}","errorAtStage":"SAVING_DATA"}}"#
            ))
        };
        assert_eq!(error("Storage quota exceeded"), Err(ErrorKind::Quota));
        assert_eq!(error("File is too large"), Err(ErrorKind::TooLarge));
        assert_eq!(error("ipfs: context deadline exceeded"), Err(ErrorKind::Unreachable));
        assert_eq!(standing(r#"{"status":"ERROR"}"#), Err(ErrorKind::Unreachable));
        let posted: Posted = serde_json::from_str(r#"{"upload_token":"t","errorAtStage":"UPLOADING"}"#).unwrap();
        assert!(posted.check().is_err());
        let posted: Posted = serde_json::from_str(r#"{"upload_token":"t"}"#).unwrap();
        assert!(posted.check().is_ok());
    }

    #[test]
    fn refusals_are_json_or_plain_text() {
        assert_eq!(refusal(br#"{"message":"no"}"#).as_deref(), Some("no"));
        assert_eq!(refusal(br#"{"error":"no"}"#).as_deref(), Some("no"));
        assert_eq!(
            refusal(b"Signature expired\nmore").as_deref(),
            Some("Signature expired")
        );
        assert_eq!(refusal(b"<html>"), None);
        assert_eq!(refusal(b""), None);
        assert_eq!(refusal(&"ü".repeat(400).into_bytes()).map(|text| text.len()), Some(300));
    }
}
