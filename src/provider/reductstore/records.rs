//! Records as files: what a record's headers say, which name each record of an entry gets, and the entry it becomes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};

use super::NameMode;
use super::key::{EntryId, Key, RecordId, Timestamp};
use super::names;
use crate::model::{Entry, Kind, Name, PosixAttributes, Rights, ToldAttributes, Version, read_time};

pub(super) const LABEL_PREFIX: &str = "x-reduct-label-";
const TIME_PREFIX: &str = "x-reduct-time-";

/// The label that holds a file's name.
pub(super) const NAME: &str = "name";
/// The label that holds the content's SHA-256 in lower-case hexadecimal.
pub(super) const SHA256: &str = "sha256";
/// The label that holds a modification time of its own, in seconds since 1970 with a fraction.
pub(super) const MTIME: &str = "mtime";

/// The label that holds what POSIX has of the file beside its content (`PosixAttributes::write`).
pub(super) const POSIX: &str = "keymount";

/// Labels with a meaning to keymount, which aren't shown as labels.
pub(super) fn is_reserved(label: &str) -> bool {
    matches!(label, NAME | SHA256 | MTIME | POSIX)
}

/// One record without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) at: Timestamp,
    /// In bytes.
    pub(super) size: u64,
    pub(super) content_type: String,
    /// As on the wire.
    pub(super) labels: BTreeMap<String, String>,
}

impl Record {
    /// From the answer to GET or HEAD of one record; `None` when a header is missing.
    pub(super) fn from_headers(at: Timestamp, headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let labels = headers
            .iter()
            .filter_map(|(name, value)| {
                let label = name.as_str().strip_prefix(LABEL_PREFIX)?;
                Some((label.to_owned(), value.to_str().ok()?.to_owned()))
            })
            .collect();
        Some(Self {
            at,
            size: text(CONTENT_LENGTH)?.parse().ok()?,
            content_type: text(CONTENT_TYPE).unwrap_or_default().to_owned(),
            labels,
        })
    }

    /// All records that a batch answer describes; `None` when one of them cannot be read.
    pub(super) fn from_batch(headers: &HeaderMap) -> Option<Vec<Self>> {
        headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().strip_prefix(TIME_PREFIX)?, value)))
            .map(|(at, value)| {
                let at = Timestamp(at.parse().ok()?);
                Self::from_batch_value(at, value.to_str().ok()?)
            })
            .collect()
    }

    /// `<length>,<content type>,<label>=<value>,…`, values with a comma in quotes (measured on ReductStore 1.21.5).
    fn from_batch_value(at: Timestamp, value: &str) -> Option<Self> {
        let mut fields = fields(value).into_iter();
        let size = fields.next()?.trim().parse().ok()?;
        let content_type = fields.next().unwrap_or_default().trim().to_owned();
        let labels = fields
            .filter_map(|field| {
                let (label, value) = field.split_once('=')?;
                Some((label.trim(), value))
            })
            // What the server calculated for this query only begins with @.
            .filter(|(label, _)| !label.starts_with('@'))
            .map(|(label, value)| (label.to_owned(), unquoted(value).to_owned()))
            .collect();
        Some(Self {
            at,
            size,
            content_type,
            labels,
        })
    }

    /// The name that the record's label asks for.
    pub(super) fn claimed_name(&self) -> Option<Name> {
        self.labels.get(NAME).and_then(|label| names::decode_file_name(label))
    }

    /// The vendor's export name.
    pub(super) fn timestamp_name(&self) -> Option<Name> {
        names::timestamp_name(self.at, &self.content_type)
    }

    /// The checksum that the record promises, if it is one.
    pub(super) fn sha256(&self) -> Option<&str> {
        let text = self.labels.get(SHA256)?;
        let is_digest = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_digest.then_some(text)
    }

    /// Timestamp, length, and checksum or content type: a record of the same time that others wrote anew without a
    /// checksum, with the same length and type, cannot be told apart.
    pub(super) fn version(&self) -> Version {
        let last = self.sha256().unwrap_or(&self.content_type);
        Version::new(format!("{}-{}-{last}", self.at.0, self.size))
    }

    pub(super) fn posix(&self) -> ToldAttributes {
        ToldAttributes::read(self.labels.get(POSIX).map(String::as_str))
    }

    /// Gives the record these attributes instead of those that it has, and no time of anybody else.
    pub(super) fn set_posix(&mut self, attributes: PosixAttributes) {
        self.labels.remove(MTIME);
        self.labels.remove(POSIX);
        if attributes != PosixAttributes::default() {
            self.labels.insert(POSIX.to_owned(), attributes.write());
        }
    }

    fn modified(&self) -> SystemTime {
        self.labels
            .get(MTIME)
            .and_then(|text| read_time(text))
            .unwrap_or_else(|| time_of(self.at))
    }

    pub(super) fn to_entry(&self, entry: &EntryId, name: Name, rights: Rights) -> Entry {
        let key = Key::Record(RecordId {
            entry: entry.clone(),
            at: self.at,
        });
        Entry {
            key: key.to_object_key(),
            name,
            kind: Kind::File,
            size: self.size,
            modified: self.modified(),
            version: self.version(),
            rights,
            labels: self
                .labels
                .iter()
                .filter(|(label, _)| !is_reserved(label))
                .map(|(label, value)| (label.clone(), names::decode_value(value)))
                .collect(),
            posix: self.posix(),
        }
    }
}

/// The moment a timestamp means; 1970 for those that the system cannot express.
pub(super) fn time_of(at: Timestamp) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_micros(at.0))
        .unwrap_or(UNIX_EPOCH)
}

/// Splits at the commas that aren't inside a quoted value.
fn fields(text: &str) -> Vec<&str> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let end = field_end(rest);
        fields.push(&rest[..end]);
        match rest.get(end + 1..) {
            Some(tail) if end < rest.len() => rest = tail,
            _ => return fields,
        }
    }
}

fn field_end(text: &str) -> usize {
    let comma = text.find(',').unwrap_or(text.len());
    let Some(quoted) = text[..comma].find("=\"").map(|at| at + 2) else {
        return comma;
    };
    // A value is quoted for its comma; its own quotes aren't escaped, so the closing one is what ends the field. What
    // would swallow the begin of another quoted value was no opening quote.
    let tail = &text[quoted..];
    let end = match tail.find("\",") {
        Some(at) => at + 1,
        None if tail.ends_with('"') => tail.len(),
        None => return comma,
    };
    if tail[..end].contains("=\"") {
        return comma;
    }
    quoted + end
}

fn unquoted(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .filter(|value| value.contains(','))
        .unwrap_or(value)
}

/// Gives each record of one entry its name: the newest that asks for a name has it, the others have their export name.
/// A directory keeps its name against every record. A record without a free name is left out.
pub(super) fn with_names(records: Vec<Record>, directories: &HashSet<Name>, mode: NameMode) -> Vec<(Name, Record)> {
    let mut newest: HashMap<Name, Timestamp> = HashMap::new();
    if mode == NameMode::Label {
        for record in &records {
            if let Some(name) = record.claimed_name().filter(|name| !directories.contains(name)) {
                let at = newest.entry(name).or_insert(record.at);
                *at = (*at).max(record.at);
            }
        }
    }
    records
        .into_iter()
        .filter_map(|record| {
            let claimed = record
                .claimed_name()
                .filter(|name| newest.get(name) == Some(&record.at));
            let name = match claimed {
                Some(name) => name,
                None => record
                    .timestamp_name()
                    .filter(|name| !directories.contains(name) && !newest.contains_key(name))?,
            };
            Some((name, record))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: u64, name: Option<&str>) -> Record {
        Record {
            at: Timestamp(at),
            size: 1,
            content_type: "text/plain".into(),
            labels: name
                .map(|name| (NAME.to_owned(), name.to_owned()))
                .into_iter()
                .collect(),
        }
    }

    fn named(records: Vec<Record>, directories: &[&str], mode: NameMode) -> Vec<(String, u64)> {
        let directories = directories.iter().map(|name| Name::new(*name).unwrap()).collect();
        with_names(records, &directories, mode)
            .into_iter()
            .map(|(name, record)| (name.to_string(), record.at.0))
            .collect()
    }

    #[test]
    fn batch_values_are_read_with_and_without_quotes() {
        let read = |text| Record::from_batch_value(Timestamp(5), text).unwrap();
        let record = read(r#"5,text/plain,@n=1,c="a,b",name=a%20b,q="x,up=a b  c"#);
        assert_eq!((record.size, record.content_type.as_str()), (5, "text/plain"));
        let labels: Vec<_> = record.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            labels,
            [("c", "a,b"), ("name", "a%20b"), ("q", "\"x"), ("up", "a b  c")]
        );

        let record = read(r#"0,text/plain; x="a,b",k="a,"b",z="c,d""#);
        assert_eq!(record.content_type, r#"text/plain; x="a,b""#);
        assert_eq!(record.labels["k"], "a,\"b");
        assert_eq!(record.labels["z"], "c,d");

        let record = read(r#"1,a/b,k="x,name=n,z="c,d""#);
        assert_eq!(
            (record.labels["name"].as_str(), record.labels["z"].as_str()),
            ("n", "c,d")
        );

        assert_eq!(read("7").content_type, "");
        assert_eq!(read("7,").labels.len(), 0);
        assert!(Record::from_batch_value(Timestamp(5), "x,text/plain").is_none());
    }

    #[test]
    fn the_newest_of_a_name_has_it() {
        let records = vec![record(1, Some("a")), record(2, Some("a")), record(3, None)];
        assert_eq!(
            named(records.clone(), &[], NameMode::Label),
            [("1.txt".into(), 1), ("a".into(), 2), ("3.txt".into(), 3)]
        );
        assert_eq!(
            named(records, &[], NameMode::Timestamp),
            [("1.txt".into(), 1), ("2.txt".into(), 2), ("3.txt".into(), 3)]
        );
    }

    #[test]
    fn a_directory_keeps_its_name() {
        assert_eq!(
            named(vec![record(1, Some("a"))], &["a"], NameMode::Label),
            [("1.txt".into(), 1)]
        );
    }

    #[test]
    fn each_name_is_given_once() {
        let records = vec![record(1, None), record(2, Some("1.txt"))];
        assert_eq!(named(records, &[], NameMode::Label), [("1.txt".into(), 2)]);
    }

    #[test]
    fn names_that_are_no_file_names_are_not_used() {
        assert_eq!(
            named(vec![record(1, Some("a/b"))], &[], NameMode::Label),
            [("1.txt".into(), 1)]
        );
    }

    #[test]
    fn modification_times_have_up_to_nine_digits() {
        let after = |nanos| UNIX_EPOCH + Duration::from_nanos(nanos);
        assert_eq!(read_time("1.5"), Some(after(1_500_000_000)));
        assert_eq!(read_time("1.000000007"), Some(after(1_000_000_007)));
        assert_eq!(read_time("2"), Some(after(2_000_000_000)));
        assert_eq!(read_time("1.0000000001"), None);
        assert_eq!(read_time("x"), None);
        assert_eq!(time_of(Timestamp(1_500_000)), after(1_500_000_000));
    }

    #[test]
    fn only_digests_count_as_checksums() {
        let mut record = record(1, None);
        record.labels.insert(SHA256.into(), "abc".into());
        assert_eq!(record.sha256(), None);
        assert_eq!(record.version().as_str(), "1-1-text/plain");
        record.labels.insert(SHA256.into(), "a".repeat(64));
        assert_eq!(record.version().as_str(), format!("1-1-{}", "a".repeat(64)));
    }
}
