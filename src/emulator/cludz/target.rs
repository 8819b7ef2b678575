//! Reading a request's path and query as strictly as the documentation allows.
//!
//! Responsible for the shape `/storage/{uuid}/{path}` (storage/authentication), for percent-decoding per segment and
//! for the two query parameters that are documented. Not responsible for whether anything is at that path.

use axum::http::Uri;
use url::form_urlencoded;
use uuid::Uuid;

use super::http::Refusal;
use crate::emulator::segment;

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) drive: Uuid,
    /// Decoded names from the drive's root on.
    pub(super) segments: Vec<String>,
    pub(super) form: Form,
    pub(super) view: View,
    /// The `token` parameter (storage/authentication, "Alternatively …").
    pub(super) token: Option<String>,
}

/// Whether the path was written as a directory's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// With a slash at its end.
    Directory,
    /// Without.
    Plain,
}

/// What a `GET` wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Listing or content.
    Content,
    /// `?detail=true`.
    Detail,
}

impl Target {
    pub(super) fn parse(uri: &Uri) -> Result<Self, Refusal> {
        let rest = uri.path().strip_prefix("/storage/").ok_or(Refusal::NotFound)?;
        let (id, path) = rest
            .split_once('/')
            .ok_or_else(|| bad("The path of a storage's root ends with a slash"))?;
        let drive = Uuid::parse_str(id).map_err(|_| Refusal::NotFound)?;
        if drive.hyphenated().to_string() != id {
            return Err(Refusal::NotFound);
        }
        let (path, form) = match path.strip_suffix('/') {
            Some(path) => (path, Form::Directory),
            None if path.is_empty() => (path, Form::Directory),
            None => (path, Form::Plain),
        };
        let is_root = rest.len() == id.len() + 1;
        let segments = if is_root {
            Vec::new()
        } else {
            path.split('/')
                .map(|raw| segment::decode(raw).map_err(bad))
                .collect::<Result<_, _>>()?
        };
        let mut target = Self {
            drive,
            segments,
            form,
            view: View::Content,
            token: None,
        };
        target.read_query(uri.query())?;
        Ok(target)
    }

    fn read_query(&mut self, query: Option<&str>) -> Result<(), Refusal> {
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match (key.as_ref(), value.as_ref()) {
                ("token", value) if self.token.is_none() => self.token = Some(value.to_owned()),
                ("detail", "true") if self.view == View::Content => self.view = View::Detail,
                _ => return Err(bad("Unknown or repeated query parameter")),
            }
        }
        Ok(())
    }
}

fn bad(message: &'static str) -> Refusal {
    Refusal::BadRequest(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "/storage/67e55044-10b1-426f-9247-bb680e5fe0c8";

    fn parse(tail: &str) -> Result<Target, Refusal> {
        Target::parse(&format!("{ROOT}{tail}").parse().unwrap())
    }

    #[test]
    fn segments_are_decoded_one_by_one() {
        let target = parse("/a%20b/%C3%BC.txt?detail=true&token=t%26").unwrap();
        assert_eq!(target.segments, ["a b", "ü.txt"]);
        assert_eq!((target.form, target.view), (Form::Plain, View::Detail));
        assert_eq!(target.token.as_deref(), Some("t&"));
        let root = parse("/").unwrap();
        assert_eq!((root.segments.len(), root.form), (0, Form::Directory));
    }

    #[test]
    fn what_is_not_documented_is_refused() {
        for tail in [
            "",
            "//",
            "/a//b",
            "//a",
            "/a//",
            "/./a",
            "/a/..",
            "/%2e%2e/a",
            "/a%2Fb",
            "/a%",
            "/a%zz",
            "/%ff",
            "/a\"b",
            "/%00",
            "/a?detail=false",
            "/a?detail=true&detail=true",
            "/a?limit=1",
        ] {
            assert!(matches!(parse(tail), Err(Refusal::BadRequest(_))), "{tail}");
        }
        for path in [
            "/",
            "/storage/",
            "/storage/nope/",
            "/storage/67E55044-10B1-426F-9247-BB680E5FE0C8/",
        ] {
            let refused = Target::parse(&path.parse().unwrap());
            assert!(
                matches!(refused, Err(Refusal::NotFound | Refusal::BadRequest(_))),
                "{path}"
            );
        }
    }
}
