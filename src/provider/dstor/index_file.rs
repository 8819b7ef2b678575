//! The written form of a tree: JSON lines, one entry a line in the order of the paths, so that two of them can be
//! compared line by line.
//!
//! ```text
//! {"index":"dstor","version":1}
//! {"path":"papers","kind":"directory"}
//! {"path":"papers/ipfs.pdf","kind":"file","hash":"Qm…","size":1091,"modified":"2024-01-31T12:00:00Z","sha256":"…"}
//! {"path":"site","kind":"folder","hash":"Qm…"}
//! ```
//!
//! `kind` is `file` where nothing is said. Files need a `hash` and a `size` in bytes; `modified` (RFC 3339) and `sha256`
//! may be missing. A `folder` is immutable, and what is in it has its hash and the way below it for a hash. Directories
//! that only lead somewhere needn't be named. Lines may come in any order, empty ones say nothing.
//!
//! Whoever shares a tree writes more into the first line (`sharing`); it is left out here and ignored on import.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::{
    ContentAddress, Error, ErrorKind, IndexedContent, IndexedFile, Listed, Listing, Result, TreePath, instant,
};

/// The form that is written, and the newest that is understood.
const VERSION: u32 = 1;
/// What the first line begins with, so that nothing else is taken for an index.
const FORMAT: &str = "dstor";

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head<S> {
    index: String,
    version: u32,
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    sharing: Option<S>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    path: String,
    #[serde(default)]
    kind: ItemKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ItemKind {
    #[default]
    File,
    Folder,
    Directory,
}

/// An entry as it was written, checked for itself.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// In the file, from one on.
    line: usize,
    pub(super) path: TreePath,
    pub(super) content: WrittenContent,
    modified: SystemTime,
}

#[derive(Clone, Debug)]
pub(super) enum WrittenContent {
    Known(IndexedContent),
    /// A file whose size isn't written.
    Unmeasured {
        address: ContentAddress,
        sha256: Option<String>,
    },
}

/// A tree in its written form.
pub fn write(tree: &Listing) -> Result<String> {
    write_shared::<()>(tree, None)
}

/// The same with what those who share it need.
pub(super) fn write_shared<S: Serialize>(tree: &Listing, sharing: Option<S>) -> Result<String> {
    let head = Head {
        index: FORMAT.to_owned(),
        version: VERSION,
        sharing,
    };
    let mut text = line(&head)?;
    for (path, listed) in tree.iter() {
        text.push_str(&line(&item(path, listed))?);
    }
    Ok(text)
}

/// A tree from its written form.
///
/// # Errors
/// `InvalidInput` with the number of the first line that is wrong.
pub fn read(text: &str) -> Result<Listing> {
    let written = lines::<serde::de::IgnoredAny>(text)?.1;
    listing(&written)
}

/// The same with what those who share it wrote.
pub(super) fn read_shared<S: for<'de> Deserialize<'de>>(text: &str) -> Result<(Option<S>, Listing)> {
    let (sharing, written) = lines(text)?;
    Ok((sharing, listing(&written)?))
}

/// A list of contents: an index, or an array of such entries in JSON.
pub(super) fn read_list(text: &str) -> Result<Vec<Written>> {
    if !text.trim_start().starts_with('[') {
        return Ok(lines::<serde::de::IgnoredAny>(text)?.1);
    }
    let items: Vec<Item> =
        serde_json::from_str(text).map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))?;
    // The parser tells lines of what is no JSON; an entry is called by its path.
    let read = |item: &Item| written(item, 0).map_err(|error| error.context(format_args!("{:?}", item.path)));
    items.iter().map(read).collect()
}

fn line(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(value)
        .map_err(|error| Error::internal(format_args!("the index cannot be written: {error}")))?;
    Ok(format!("{text}\n"))
}

fn item(path: &TreePath, listed: &Listed) -> Item {
    let (kind, hash, file) = match &listed.content {
        IndexedContent::Directory => (ItemKind::Directory, None, None),
        IndexedContent::Folder(address) => (ItemKind::Folder, Some(address), None),
        IndexedContent::File(file) => (ItemKind::File, Some(&file.address), Some(file)),
    };
    Item {
        path: path.to_string(),
        kind,
        hash: hash.map(ToString::to_string),
        size: file.map(|file| file.size),
        // A directory's time is not the tree's.
        modified: file.map(|_| instant::text(listed.modified)),
        sha256: file.and_then(|file| file.sha256.clone()),
    }
}

fn lines<S: for<'de> Deserialize<'de>>(text: &str) -> Result<(Option<S>, Vec<Written>)> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let Some((_, first)) = lines.next() else {
        return Err(invalid(
            1,
            "there is nothing; an index begins with {\"index\":\"dstor\",\"version\":1}",
        ));
    };
    let named: serde_json::Value = serde_json::from_str(first).unwrap_or_default();
    if named["index"] != FORMAT {
        return Err(invalid(1, "an index begins with {\"index\":\"dstor\",\"version\":1}"));
    }
    match named["version"].as_u64() {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) if version > u64::from(VERSION) => {
            let why = format!("a newer keymount wrote this index (form {version}, this one knows {VERSION})");
            return Err(Error::unsupported(why));
        }
        _ => return Err(invalid(1, "version is not one")),
    }
    let head: Head<S> = serde_json::from_str(first).map_err(|error| invalid(1, said(&error)))?;
    let written = lines
        .map(|(index, line)| {
            let number = index + 1;
            let item: Item = serde_json::from_str(line).map_err(|error| invalid(number, said(&error)))?;
            written(&item, number).map_err(|error| invalid(number, error.message()))
        })
        .collect::<Result<_>>()?;
    Ok((head.sharing, written))
}

/// Without the line, which is always the first of this text.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} (column {})", error.column()),
        None => text,
    }
}

fn written(item: &Item, line: usize) -> Result<Written> {
    let invalid = |why: &str| Error::new(ErrorKind::InvalidInput, why);
    let path: TreePath = item.path.trim_matches('/').parse()?;
    let address = match &item.hash {
        None => None,
        Some(hash) => Some(ContentAddress::new(hash).ok_or_else(|| invalid("hash is not one"))?),
    };
    let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !item.sha256.iter().all(is_digest) {
        return Err(invalid("sha256 is not one: 64 digits of lower-case hexadecimal"));
    }
    let modified = match &item.modified {
        None => SystemTime::UNIX_EPOCH,
        Some(text) => {
            instant::parse(text).ok_or_else(|| invalid("modified is not a time such as 2024-01-31T12:00:00Z"))?
        }
    };
    let content = match (item.kind, address) {
        (ItemKind::Directory, None) => WrittenContent::Known(IndexedContent::Directory),
        (ItemKind::Directory, Some(_)) => return Err(invalid("a directory has no hash; an immutable one is a folder")),
        (ItemKind::Folder | ItemKind::File, None) => return Err(invalid("hash is missing")),
        (ItemKind::Folder, Some(address)) => WrittenContent::Known(IndexedContent::Folder(address)),
        (ItemKind::File, Some(address)) => match item.size {
            Some(size) => WrittenContent::Known(IndexedContent::File(IndexedFile {
                address,
                size,
                sha256: item.sha256.clone(),
            })),
            None => WrittenContent::Unmeasured {
                address,
                sha256: item.sha256.clone(),
            },
        },
    };
    let measures = item.size.is_some() || item.sha256.is_some();
    if measures && item.kind != ItemKind::File {
        return Err(invalid("only a file has size and sha256"));
    }
    Ok(Written {
        line,
        path,
        content,
        modified,
    })
}

/// The tree that these entries are, with the directories that lead to them.
///
/// # Errors
/// `InvalidInput` where two have one path, one lies below a file, or a size is missing.
pub(super) fn listing(written: &[Written]) -> Result<Listing> {
    let mut seen: BTreeMap<&TreePath, &Written> = BTreeMap::new();
    for entry in written {
        if let Some(earlier) = seen.insert(&entry.path, entry) {
            return Err(entry.wrong(&format!("{} is there already{}", entry.path, earlier.place())));
        }
    }
    let mut tree = Listing::default();
    for (path, entry) in seen {
        let WrittenContent::Known(content) = &entry.content else {
            return Err(entry.wrong("size is missing"));
        };
        lead(&mut tree, entry, content)?;
        let listed = Listed {
            content: content.clone(),
            modified: entry.modified,
        };
        tree.insert(path.clone(), listed);
    }
    Ok(tree)
}

/// Makes the directories on the way to an entry, as those of the folder where they are in one.
fn lead(tree: &mut Listing, entry: &Written, content: &IndexedContent) -> Result<()> {
    let mut folder: Option<ContentAddress> = None;
    for above in entry.path.ancestors() {
        let way = match tree.get(&above).map(|listed| &listed.content) {
            Some(IndexedContent::File(_)) => {
                return Err(entry.wrong(&format!("{} lies below the file {above}", entry.path)));
            }
            Some(IndexedContent::Folder(address)) => {
                folder = Some(address.clone());
                continue;
            }
            Some(IndexedContent::Directory) => continue,
            None => match &folder {
                Some(address) => {
                    let below = ContentAddress::new(&format!("{address}/{}", above.name()));
                    let below = below.ok_or_else(|| entry.wrong("the folder's hash leads nowhere"))?;
                    folder = Some(below.clone());
                    IndexedContent::Folder(below)
                }
                None => IndexedContent::Directory,
            },
        };
        let listed = Listed {
            content: way,
            modified: SystemTime::UNIX_EPOCH,
        };
        tree.insert(above, listed);
    }
    let lies_in = |folder: &ContentAddress| match content {
        IndexedContent::Directory => false,
        IndexedContent::Folder(address) => address.is_below(folder),
        IndexedContent::File(file) => file.address.is_below(folder),
    };
    if folder.is_some_and(|folder| !lies_in(&folder)) {
        return Err(entry.wrong("what is in a folder has the folder's hash and the way below it"));
    }
    Ok(())
}

impl Written {
    /// The file's size, which is not written.
    pub(super) fn measure(&mut self, size: u64) {
        if let WrittenContent::Unmeasured { address, sha256 } = &self.content {
            self.content = WrittenContent::Known(IndexedContent::File(IndexedFile {
                address: address.clone(),
                size,
                sha256: sha256.clone(),
            }));
        }
    }

    fn wrong(&self, why: &str) -> Error {
        match self.line {
            0 => Error::new(ErrorKind::InvalidInput, format!("{:?}: {why}", self.path.to_string())),
            line => invalid(line, why),
        }
    }

    fn place(&self) -> String {
        let mut place = String::new();
        if self.line > 0 {
            let _ = write!(place, " (line {})", self.line);
        }
        place
    }
}

fn invalid(line: usize, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("line {line}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";

    fn index(lines: &[&str]) -> String {
        let mut text = String::from("{\"index\":\"dstor\",\"version\":1}\n");
        for line in lines {
            text += &line.replace("HASH", HASH);
            text.push('\n');
        }
        text
    }

    #[test]
    fn what_is_written_is_read_again_line_by_line() {
        let text = index(&[
            r#"{"path":"a \"ü\"","kind":"directory"}"#,
            r#"{"path":"a \"ü\"/f","kind":"file","hash":"HASH","size":3,"modified":"2024-01-31T12:00:00.5Z","sha256":"DIGEST"}"#,
            r#"{"path":"site","kind":"folder","hash":"HASH"}"#,
            r#"{"path":"site/x","kind":"file","hash":"HASH/x","size":0,"modified":"1970-01-01T00:00:00Z"}"#,
        ])
        .replace("DIGEST", &"0123456789abcdef".repeat(4));
        let tree = read(&text).unwrap();
        assert_eq!(tree.len(), 4);
        assert_eq!(write(&tree).unwrap(), text);
    }

    #[test]
    fn short_entries_in_any_order_are_enough() {
        let text = index(&[
            r#"{"path":"site/deep/page","hash":"HASH/deep/page","size":1}"#,
            "",
            r#"{"path":"/a/b/","hash":"HASH","size":2}"#,
            r#"{"path":"site","hash":"HASH","kind":"folder"}"#,
        ]);
        let tree = read(&text).unwrap();
        let kinds: Vec<_> = tree
            .iter()
            .map(|(path, listed)| format!("{path} {}", matches!(listed.content, IndexedContent::Folder(_))))
            .collect();
        assert_eq!(
            kinds,
            [
                "a false",
                "a/b false",
                "site true",
                "site/deep true",
                "site/deep/page false"
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let good = r#"{"path":"a","hash":"HASH","size":1}"#;
        for (wrong, words) in [
            (
                r#"{"path":"b","hash":"HASH","size":1"#,
                "EOF while parsing an object (column",
            ),
            (r#"{"path":"b","hash":"HASH","sise":1}"#, "unknown field `sise`"),
            (r#"{"hash":"HASH","size":1}"#, "missing field `path`"),
            (r#"{"path":"b/../c","hash":"HASH","size":1}"#, "is not a file name"),
            (r#"{"path":"","hash":"HASH","size":1}"#, "is not a file name"),
            (r#"{"path":"b","size":1}"#, "hash is missing"),
            (r#"{"path":"b","hash":"Qm","size":1}"#, "hash is not one"),
            (r#"{"path":"b","hash":"HASH"}"#, "size is missing"),
            (r#"{"path":"b","hash":"HASH","size":-1}"#, "invalid value"),
            (
                r#"{"path":"b","hash":"HASH","size":1,"modified":"soon"}"#,
                "modified is not a time",
            ),
            (
                r#"{"path":"b","hash":"HASH","size":1,"sha256":"AB"}"#,
                "sha256 is not one",
            ),
            (
                r#"{"path":"b","kind":"directory","hash":"HASH"}"#,
                "a directory has no hash",
            ),
            (
                r#"{"path":"b","kind":"folder","hash":"HASH","size":1}"#,
                "only a file has size",
            ),
            (r#"{"path":"b","kind":"link","hash":"HASH"}"#, "unknown variant `link`"),
            (r#"{"path":"a","hash":"HASH","size":2}"#, "a is there already (line 2)"),
            (r#"{"path":"a/b","hash":"HASH","size":2}"#, "a/b lies below the file a"),
        ] {
            let error = read(&index(&[good, "", wrong])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.message().starts_with("line 4: "), "{error}");
            assert!(error.message().contains(words), "{words:?} is not in {error}");
        }
        let in_folder = index(&[
            r#"{"path":"s","kind":"folder","hash":"HASH"}"#,
            r#"{"path":"s/x","hash":"HASH","size":1}"#,
        ]);
        assert!(
            read(&in_folder)
                .unwrap_err()
                .message()
                .starts_with("line 3: what is in a folder")
        );
    }

    #[test]
    fn what_is_no_index_is_not_taken_for_one() {
        for text in ["", "\n", "{}", "[]", "{\"index\":\"other\",\"version\":1}", "\u{0}"] {
            let error = read(text).unwrap_err();
            assert!(error.message().starts_with("line 1: "), "{error}");
        }
        let newer = read("{\"index\":\"dstor\",\"version\":2,\"more\":1}").unwrap_err();
        assert_eq!(newer.kind(), ErrorKind::Unsupported);
        let unknown = read("{\"index\":\"dstor\",\"version\":1,\"more\":1}").unwrap_err();
        assert!(unknown.message().contains("unknown field `more`"), "{unknown}");
        let shared = "{\"index\":\"dstor\",\"version\":1,\"sharing\":{\"revision\":3}}";
        assert!(read(shared).unwrap().is_empty());
    }
}
