//! The file beside a version's bytes that says which blocks are there: its format, nothing else.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `KMBLOCKS` |
//! | 8 | 4 | format version |
//! | 12 | 4 | bytes per block |
//! | 16 | 32 | whose blocks these are (`ContentId`) |
//! | 48 | 4 | CRC-32 of the above |
//! | 52 | 12 | zeros |
//! | 64 + 8·i | 4 | length of block i, 0 when it isn't there |
//! | 68 + 8·i | 4 | CRC-32 of i (8 bytes) and block i |
//!
//! Numbers are little-endian. The bytes themselves are a sparse file with block i at i · `BLOCK`, as in the object.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{BLOCK, ContentId};

/// To be raised with every change of the format; files of another version are removed when they are met.
const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"KMBLOCKS";
const HEADER: usize = 64;
const CHECKED: usize = 48;
const RECORD: usize = 8;

/// A map of more bytes is none of ours: it would describe an object of 512 GiB.
const LARGEST: u64 = 64 * 1024 * 1024;

/// A block that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) len: u32,
    pub(super) crc: u32,
}

impl Record {
    pub(super) fn of(block: u64, bytes: &[u8]) -> Self {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&block.to_le_bytes());
        crc.update(bytes);
        Self {
            len: bytes.len() as u32,
            crc: crc.finalize(),
        }
    }
}

/// How long the file is once it knows this block.
pub(super) fn length_with(block: u64) -> u64 {
    (HEADER + RECORD) as u64 + block * RECORD as u64
}

pub(super) fn write_header(file: &File, content: &ContentId) -> io::Result<()> {
    file.write_all_at(&header(content), 0)
}

/// Says what is there, of neighbours from `first` on.
pub(super) fn write_records(file: &File, first: u64, records: &[Option<Record>]) -> io::Result<()> {
    let mut bytes = vec![0; RECORD * records.len()];
    for (bytes, record) in bytes.chunks_exact_mut(RECORD).zip(records) {
        if let Some(Record { len, crc }) = record {
            bytes[..4].copy_from_slice(&len.to_le_bytes());
            bytes[4..].copy_from_slice(&crc.to_le_bytes());
        }
    }
    file.write_all_at(&bytes, HEADER as u64 + first * RECORD as u64)
}

/// All blocks that are there, or nothing when this isn't the map of this content in this format.
pub(super) fn read(file: &File, content: &ContentId) -> io::Result<Option<HashMap<u64, Record>>> {
    let len = file.metadata()?.len();
    if !(HEADER as u64..=LARGEST).contains(&len) {
        return Ok(None);
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    let (head, records) = bytes.split_at(HEADER);
    if head != header(content) {
        return Ok(None);
    }
    let records = records.chunks_exact(RECORD).zip(0u64..).filter_map(|(bytes, block)| {
        let (len, crc) = (number(&bytes[..4]), number(&bytes[4..]));
        (1..=BLOCK as u32)
            .contains(&len)
            .then_some((block, Record { len, crc }))
    });
    Ok(Some(records.collect()))
}

fn header(content: &ContentId) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..16].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    bytes[16..CHECKED].copy_from_slice(&content.0);
    let crc = crc32fast::hash(&bytes[..CHECKED]);
    bytes[CHECKED..CHECKED + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::super::testing::content;
    use super::*;

    /// Fails when the format changes: raise `FORMAT` then, or caches of older versions are misread.
    #[test]
    fn the_format_is_pinned_to_its_version() {
        let file = tempfile::tempfile().unwrap();
        write_header(&file, &content(7)).unwrap();
        write_records(&file, 1, &[Some(Record::of(1, b"keymount"))]).unwrap();
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let mut expected = b"KMBLOCKS\x01\0\0\0\0\0\x01\0".to_vec();
        expected.extend([7; 32]);
        expected.extend(GOLDEN_HEADER_CRC);
        expected.extend([0; 12 + 8]);
        expected.extend([8, 0, 0, 0]);
        expected.extend(GOLDEN_BLOCK_CRC);
        assert_eq!(bytes, expected);
        assert_eq!(length_with(1), bytes.len() as u64);
    }

    /// CRC-32 (IEEE 802.3) computed with Python's `zlib.crc32`.
    const GOLDEN_HEADER_CRC: [u8; 4] = [0x99, 0x97, 0xf5, 0xd0];
    const GOLDEN_BLOCK_CRC: [u8; 4] = [0x7c, 0x54, 0x3a, 0xc6];

    #[test]
    fn reads_what_was_written_and_nothing_of_others() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(read(&file, &content(1)).unwrap(), None);
        write_header(&file, &content(1)).unwrap();
        let (a, b) = (Record::of(0, b"a"), Record::of(9, b"b"));
        for (block, record) in [(0, Some(a)), (9, Some(b)), (4, Some(a)), (4, None)] {
            write_records(&file, block, &[record]).unwrap();
        }
        assert_eq!(read(&file, &content(1)).unwrap(), Some(HashMap::from([(0, a), (9, b)])));
        assert_eq!(read(&file, &content(2)).unwrap(), None);
        file.write_all_at(&[2], 8).unwrap();
        assert_eq!(read(&file, &content(1)).unwrap(), None, "another format version");
    }
}
