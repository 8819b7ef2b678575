//! How ordinary file and directory names are kept where ReductStore allows few characters, and back.
//!
//! Pure functions over text: directory names become entry segments, file names and label values become header text, and
//! the vendor's export names (`<timestamp>.<extension>`) are made and read. It knows no requests.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

use super::key::Timestamp;
use crate::model::{Error, ErrorKind, Name, Result};

/// The entry that holds the files directly in a bucket: an escape without its digits, which no name is encoded as.
pub(super) const BUCKET_FILES: &str = "_-";
/// Segments that the server's routes take for themselves (measured on ReductStore 1.21.5).
const RESERVED: [&str; 3] = ["q", "batch", "rename"];
/// The longest segment, in bytes: it is a directory on the server's disk (measured on ReductStore 1.21.5).
const MAX_SEGMENT: usize = 255;
/// RFC 3986, 2.3: what never needs an escape.
const ESCAPED_IN_NAMES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What a label value cannot hold, or what makes a batch header ambiguous.
const ESCAPED_IN_VALUES: &AsciiSet = &percent_encoding::CONTROLS.add(b' ').add(b'"').add(b'%').add(b',');

/// The vendor's fixed pairs of content type and extension (`reduct-cli`, `src/cmd/cp/b2f.rs`).
const WELL_KNOWN: [(&str, &str); 12] = [
    ("application/octet-stream", "bin"),
    ("text/html", "html"),
    ("text/markdown", "md"),
    ("text/plain", "txt"),
    ("text/csv", "csv"),
    ("application/json", "json"),
    ("application/xml", "xml"),
    ("application/pdf", "pdf"),
    ("application/csv", "csv"),
    ("application/mcap", "mcap"),
    ("image/jpeg", "jpg"),
    ("image/png", "png"),
];

/// The segment of an entry or the bucket that stands for a directory name.
///
/// # Errors
/// `NameTooLong` when the escaped form doesn't fit.
pub(super) fn encode_segment(name: &Name) -> Result<String> {
    let segment = escape(name.as_str());
    if segment.len() > MAX_SEGMENT {
        let message = format!(
            "the directory name takes {} bytes on ReductStore, {MAX_SEGMENT} are possible",
            segment.len()
        );
        return Err(Error::new(ErrorKind::NameTooLong, message));
    }
    Ok(segment)
}

/// The directory name that a segment stands for; segments that others made are shown as they are.
pub(super) fn decode_segment(segment: &str) -> Option<Name> {
    unescape(segment)
        .filter(|name| escape(name) == segment)
        .and_then(|name| Name::new(name).ok())
        .or_else(|| Name::new(segment).ok())
}

fn escape(name: &str) -> String {
    let bytes = name.as_bytes();
    let mut segment = String::with_capacity(bytes.len());
    for (index, byte) in bytes.iter().enumerate() {
        let begins_an_escape = *byte == b'_' && bytes.get(index + 1) == Some(&b'-');
        if (byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) && !begins_an_escape {
            segment.push(char::from(*byte));
        } else {
            push_escaped(&mut segment, *byte);
        }
    }
    if RESERVED.contains(&segment.as_str()) {
        let mut first = String::new();
        push_escaped(&mut first, bytes[0]);
        segment.replace_range(..1, &first);
    }
    segment
}

fn push_escaped(segment: &mut String, byte: u8) {
    use std::fmt::Write;
    let _ = write!(segment, "_-{byte:02X}");
}

fn unescape(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'_' && tail.first() == Some(&b'-') {
            let digits = std::str::from_utf8(tail.get(1..3)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The value of the label `name` for a file.
pub(super) fn encode_file_name(name: &Name) -> String {
    let mut label = utf8_percent_encode(name.as_str(), ESCAPED_IN_NAMES).to_string();
    if read_as_something_else(&label) {
        // Escaping one character makes it a string to the server's conditions.
        label = format!("%{:02X}{}", label.as_bytes()[0], &label[1..]);
    }
    label
}

/// The file name that a label `name` holds: decoded when keymount wrote it, else as it is.
pub(super) fn decode_file_name(label: &str) -> Option<Name> {
    let decoded = percent_decode_str(label)
        .decode_utf8()
        .ok()
        .and_then(|text| Name::new(text).ok())
        .filter(|name| encode_file_name(name) == label);
    decoded.or_else(|| Name::new(label).ok())
}

/// The server's condition that all records of this name fulfil, and perhaps a few others; `None` when there is none.
pub(super) fn name_condition(name: &Name) -> Option<Value> {
    let encoded = encode_file_name(name);
    let equals = |value: Value| json!({"&name": {"$eq": value}});
    let literal = name.as_str();
    let by_others = literal != encoded
        && literal.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
        && decode_file_name(literal).as_ref() == Some(name);
    if !by_others {
        return Some(equals(encoded.into()));
    }
    let value = if let Ok(number) = literal.parse::<i64>() {
        number.into()
    } else if let Ok(truth) = literal.parse::<bool>() {
        truth.into()
    } else if literal.starts_with(['&', '@', '$']) || read_as_something_else(literal) {
        return None;
    } else {
        literal.into()
    };
    Some(json!({"$any_of": [equals(encoded.into()), equals(value)]}))
}

/// Whether the server takes a label value, or the same text in a condition, for a truth value, number or duration
/// (`storage/query/condition/value.rs` and `core/duration.rs` of ReductStore 1.21.5).
fn read_as_something_else(text: &str) -> bool {
    text.parse::<bool>().is_ok() || text.parse::<f64>().is_ok() || is_duration(text)
}

fn is_duration(text: &str) -> bool {
    let is_part = |part: &str| {
        let (number, unit): (String, String) = part.chars().partition(|c| c.is_ascii_digit() || matches!(c, '.' | '-'));
        number.parse::<i64>().is_ok() && matches!(unit.as_str(), "us" | "ms" | "s" | "m" | "h" | "d")
    };
    let mut parts = text.split_whitespace().peekable();
    parts.peek().is_some() && parts.all(is_part)
}

/// The header text for a label value; `None` for the empty one, which the server drops.
pub(super) fn encode_value(value: &str) -> Option<String> {
    if value.is_empty() {
        return None;
    }
    let plain =
        value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) && !value.contains(['%', '"']) && value.trim() == value;
    Some(if plain {
        value.to_owned()
    } else {
        utf8_percent_encode(value, ESCAPED_IN_VALUES).to_string()
    })
}

/// The label value behind header text: decoded when keymount wrote it, else as it is.
pub(super) fn decode_value(text: &str) -> String {
    percent_decode_str(text)
        .decode_utf8()
        .ok()
        .filter(|value| encode_value(value).as_deref() == Some(text))
        .map_or_else(|| text.to_owned(), std::borrow::Cow::into_owned)
}

/// The extension that the vendor's export gives to a content type.
pub(super) fn extension(content_type: &str) -> &'static str {
    if let Some((_, extension)) = WELL_KNOWN.iter().find(|(known, _)| *known == content_type) {
        return extension;
    }
    content_type
        .split_once('/')
        .and_then(|(top, sub)| mime_guess::get_extensions(top, sub))
        .and_then(|extensions| extensions.first())
        .unwrap_or(&"bin")
}

/// A content type that `extension` turns into this extension again.
pub(super) fn content_type_with(wanted: &str) -> Option<String> {
    if let Some((known, _)) = WELL_KNOWN.iter().find(|(_, extension)| *extension == wanted) {
        return Some((*known).to_owned());
    }
    mime_guess::from_ext(wanted)
        .iter()
        .map(|mime| mime.essence_str().to_owned())
        .find(|content_type| extension(content_type) == wanted)
}

/// The content type of a new file, by its name.
pub(super) fn content_type_of(name: &Name) -> String {
    mime_guess::from_path(name.as_str())
        .first_or_octet_stream()
        .essence_str()
        .to_owned()
}

/// The vendor's export name.
pub(super) fn timestamp_name(at: Timestamp, content_type: &str) -> Option<Name> {
    Name::new(format!("{}.{}", at.0, extension(content_type))).ok()
}

/// The timestamp and extension in an export name.
pub(super) fn parse_timestamp_name(name: &Name) -> Option<(Timestamp, &str)> {
    let (digits, extension) = name.as_str().split_once('.')?;
    let at = digits.parse::<u64>().ok()?;
    // Only the form that is shown: neither leading zeros nor a sign.
    (at.to_string() == digits).then_some((Timestamp(at), extension))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn segments_are_escaped_as_documented() {
        for (shown, segment) in [
            ("plain-Name_1", "plain-Name_1"),
            (".git", "_-2Egit"),
            ("a b", "a_-20b"),
            ("é", "_-C3_-A9"),
            ("a_-b", "a_-5F-b"),
            ("_é", "__-C3_-A9"),
            ("_", "_"),
            ("q", "_-71"),
            ("batch", "_-62atch"),
            ("rename", "_-72ename"),
            ("Batch", "Batch"),
        ] {
            assert_eq!(encode_segment(&name(shown)).unwrap(), segment);
            assert_eq!(decode_segment(segment), Some(name(shown)), "{segment}");
        }
    }

    #[test]
    fn segments_of_others_are_shown_as_they_are() {
        for segment in ["a_-zz", "a_-2", "_-41", "_-2egit", "_-FF", "rename", "_-2F", "_-"] {
            assert_eq!(decode_segment(segment), Some(name(segment)), "{segment}");
        }
    }

    #[test]
    fn a_segment_beyond_the_limit_is_too_long() {
        assert!(encode_segment(&name(&"x".repeat(255))).is_ok());
        assert_eq!(
            encode_segment(&name(&".".repeat(64))).unwrap_err().kind(),
            ErrorKind::NameTooLong
        );
    }

    #[test]
    fn names_that_the_server_would_calculate_with_are_kept_as_text() {
        for text in [
            "123", "-1", "1e5", "inf", "NaN", "true", "5s", "s5", "h264", "m-1", "1.5",
        ] {
            let label = encode_file_name(&name(text));
            assert!(label.starts_with('%'), "{text} is stored as {label}");
            assert_eq!(decode_file_name(&label), Some(name(text)));
            assert_eq!(decode_file_name(text), Some(name(text)), "as others store it");
        }
    }

    #[test]
    fn conditions_find_names_of_others_too() {
        assert_eq!(name_condition(&name("a.txt")), Some(json!({"&name": {"$eq": "a.txt"}})));
        assert_eq!(
            name_condition(&name("12")),
            Some(json!({"$any_of": [{"&name": {"$eq": "%312"}}, {"&name": {"$eq": 12}}]}))
        );
        assert_eq!(name_condition(&name("$x")), None);
        assert_eq!(name_condition(&name("5s")), None);
        assert_eq!(name_condition(&name("é")), Some(json!({"&name": {"$eq": "%C3%A9"}})));
        // A number beyond i64 would crash the server's parser.
        assert_eq!(name_condition(&name("18446744073709551615")), None);
    }

    #[test]
    fn extensions_are_those_of_the_vendor() {
        for (content_type, extension_) in [
            ("application/octet-stream", "bin"),
            ("text/plain", "txt"),
            ("text/plain; charset=utf-8", "bin"),
            ("application/csv", "csv"),
            ("image/gif", "gif"),
            ("nonsense", "bin"),
        ] {
            assert_eq!(extension(content_type), extension_, "{content_type}");
        }
        for extension_ in ["bin", "txt", "csv", "jpg", "gif", "mcap", "md"] {
            let content_type = content_type_with(extension_).unwrap();
            assert_eq!(extension(&content_type), extension_);
        }
        assert_eq!(content_type_with("nonsense"), None);
    }

    #[test]
    fn export_names_have_one_form() {
        assert_eq!(parse_timestamp_name(&name("12.bin")), Some((Timestamp(12), "bin")));
        assert_eq!(
            parse_timestamp_name(&name("18446744073709551615.txt")),
            Some((Timestamp(u64::MAX), "txt"))
        );
        for text in ["012.bin", "+1.bin", "a.bin", "12", "18446744073709551616.txt"] {
            assert_eq!(parse_timestamp_name(&name(text)), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_directory_name_round_trips(text in "[^/\0]{1,60}|[_a-z.-]{1,20}") {
            if let Ok(name) = Name::new(text)
                && let Ok(segment) = encode_segment(&name)
            {
                prop_assert!(segment.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
                prop_assert_ne!(&segment, BUCKET_FILES);
                prop_assert_eq!(decode_segment(&segment), Some(name));
            }
        }

        #[test]
        fn every_file_name_round_trips(text in "[^/\0]{1,60}|[0-9smhd.e-]{1,6}") {
            if let Ok(name) = Name::new(text) {
                let label = encode_file_name(&name);
                prop_assert!(label.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b',' && b != b'"'));
                prop_assert!(!read_as_something_else(&label));
                prop_assert_eq!(decode_file_name(&label), Some(name));
            }
        }

        #[test]
        fn every_label_value_round_trips(value in "\\PC{1,60}|[ -~]{1,20}|\\s.{0,5}") {
            let text = encode_value(&value).unwrap();
            prop_assert!(text.bytes().all(|b| (0x20..=0x7e).contains(&b)));
            prop_assert_eq!(text.trim(), &text);
            prop_assert_eq!(decode_value(&text), value);
        }
    }
}
