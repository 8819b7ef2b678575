//! The entity tag that proves an upload: services make it of the bytes that they got.
//!
//! It is the MD5 of an object that was stored at once, and of one stored in parts the MD5 of the parts' MD5s with their
//! number (Amazon S3 API reference, "Object", `ETag`). Where objects are encrypted with keys of KMS or of the customer it
//! is something else, and proves nothing. What is done without a proof is in `settle`.

use md5::{Digest, Md5};

use super::store::version_of;
use crate::model::Version;
use crate::provider::hex;

/// The tag of what was sent so far.
pub(super) struct Tag {
    /// Bytes of each part but the last.
    part: u64,
    current: Md5,
    in_current: u64,
    /// Of the parts that are full.
    parts: Md5,
    full: u64,
}

impl Tag {
    /// Of what is stored in parts of so many bytes when it is longer than one.
    pub(super) fn new(part: u64) -> Self {
        Self {
            part: part.max(1),
            current: Md5::new(),
            in_current: 0,
            parts: Md5::new(),
            full: 0,
        }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.in_current == self.part {
                self.end_part();
            }
            let room = usize::try_from(self.part - self.in_current).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.current.update(now);
            self.in_current += now.len() as u64;
            bytes = later;
        }
    }

    fn end_part(&mut self) {
        self.parts.update(self.current.finalize_reset());
        self.full += 1;
        self.in_current = 0;
    }

    pub(super) fn finish(mut self) -> Version {
        if self.full == 0 {
            return version_of(&hex(&self.current.finalize()));
        }
        self.end_part();
        version_of(&format!("{}-{}", hex(&self.parts.finalize()), self.full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(part: u64, chunks: &[&[u8]]) -> String {
        let mut tag = Tag::new(part);
        chunks.iter().for_each(|chunk| tag.update(chunk));
        tag.finish().as_str().to_owned()
    }

    #[test]
    fn what_is_stored_at_once_has_its_md5() {
        // RFC 1321, A.5.
        assert_eq!(tag(8, &[]), "\"d41d8cd98f00b204e9800998ecf8427e\"");
        assert_eq!(tag(8, &[b"abc"]), "\"900150983cd24fb0d6963f7d28e17f72\"");
        assert_eq!(tag(3, &[b"a", b"bc"]), "\"900150983cd24fb0d6963f7d28e17f72\"");
    }

    #[test]
    fn parts_have_the_md5_of_their_md5s() {
        let of = |text: &[u8]| Md5::digest(text).to_vec();
        let expected = hex(&Md5::digest([of(b"abc"), of(b"def"), of(b"g")].concat()));
        let expected = format!("\"{expected}-3\"");
        for chunks in [&[&b"abcdefg"[..]][..], &[b"ab", b"cdefg"], &[b"abc", b"def", b"g"]] {
            assert_eq!(tag(3, chunks), expected);
        }
        assert!(tag(3, &[b"abcdef"]).ends_with("-2\""));
    }
}
