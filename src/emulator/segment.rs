//! One segment of a request's path, as strictly as RFC 3986 has it.
//!
//! Responsible for percent-decoding a name. Not responsible for what a provider allows in its names.

use percent_encoding::percent_decode_str;

/// The name that a segment stands for; an error is a sentence for the answer.
pub(super) fn decode(raw: &str) -> Result<String, &'static str> {
    check_escaping(raw.as_bytes())?;
    let name = percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| "The path is not UTF-8")?;
    let unusable = name.is_empty() || name == "." || name == ".." || name.chars().any(|c| c == '/' || c.is_control());
    if unusable {
        Err("Invalid path")
    } else {
        Ok(name.into_owned())
    }
}

/// RFC 3986, `pchar`: everything else in a segment must be percent-encoded.
fn check_escaping(raw: &[u8]) -> Result<(), &'static str> {
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match byte {
            b'%' => match tail {
                [high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => tail,
                _ => return Err("Invalid percent-encoding"),
            },
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => tail,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' => tail,
            b',' | b';' | b'=' | b':' | b'@' => tail,
            _ => return Err("The path has characters that must be percent-encoded"),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_and_anything_else_is_refused() {
        assert_eq!(decode("a%20b+%C3%BC"), Ok("a b+ü".to_owned()));
        for wrong in [
            "", ".", "..", "%2e%2e", "a%2Fb", "a%", "a%zz", "%ff", "a\"b", "a b", "%00",
        ] {
            assert!(decode(wrong).is_err(), "{wrong:?}");
        }
    }
}
