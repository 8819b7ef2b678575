//! Single byte ranges (`Range: bytes=a-b` → 206 with `Content-Range: bytes a-b/total`).
//!
//! Responsible for reading the header. No provider documents several ranges at once or units other than bytes, so they
//! are malformed here.

use std::ops::Range;

/// What a `Range` header asks of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// These bytes, at least one.
    Part(Range<usize>),
    /// Bytes that aren't there.
    Unsatisfiable,
    /// Not a single byte range.
    Malformed,
}

/// Reads a `Range` header's value for a body of `total` bytes.
pub(super) fn parse(value: &str, total: usize) -> Asked {
    let Some((first, last)) = value.strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
        return Asked::Malformed;
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Asked::Malformed,
        (Some(first), _) if first >= total => match last {
            "" => Asked::Unsatisfiable,
            text if number(text).is_some() => Asked::Unsatisfiable,
            _ => Asked::Malformed,
        },
        (Some(first), Some(last)) => Asked::Part(first..last.saturating_add(1).min(total)),
        (Some(first), None) if last.is_empty() => Asked::Part(first..total),
        (None, Some(length)) if first.is_empty() => match total.min(length) {
            0 => Asked::Unsatisfiable,
            length => Asked::Part(total - length..total),
        },
        _ => Asked::Malformed,
    }
}

fn number(text: &str) -> Option<usize> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // More digits than fit are a number past every end.
    Some(text.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges() {
        assert_eq!(parse("bytes=0-0", 10), Asked::Part(0..1));
        assert_eq!(parse("bytes=9-9", 10), Asked::Part(9..10));
        assert_eq!(parse("bytes=5-99", 10), Asked::Part(5..10));
        assert_eq!(parse("bytes=5-", 10), Asked::Part(5..10));
        assert_eq!(parse("bytes=-3", 10), Asked::Part(7..10));
        assert_eq!(parse("bytes=-30", 10), Asked::Part(0..10));
        assert_eq!(parse("bytes=0-99999999999999999999999", 10), Asked::Part(0..10));
        for beyond in ["bytes=10-10", "bytes=10-", "bytes=11-12", "bytes=-0"] {
            assert_eq!(parse(beyond, 10), Asked::Unsatisfiable, "{beyond}");
        }
        assert_eq!(parse("bytes=0-0", 0), Asked::Unsatisfiable);
        for wrong in [
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=3-1",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=+1-2",
            "bytes=99-x",
        ] {
            assert_eq!(parse(wrong, 10), Asked::Malformed, "{wrong}");
        }
    }
}
