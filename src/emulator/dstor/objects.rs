//! Content by its hash.
//!
//! Responsible for hashes, files and hashed folders. Not responsible for whose they are nor what they are called.
//!
//! A hash looks like a CIDv0: base58 of the SHA2-256 multihash, 46 characters that begin with `Qm`. It is taken of the
//! bytes themselves (of a folder: of its sorted names and hashes). It isn't what IPFS would compute, which hashes the
//! root of a UnixFS tree of blocks; a client can rely on equal content having equal hashes, and on nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Multihash: SHA2-256, 32 bytes.
const MULTIHASH_PREFIX: [u8; 2] = [0x12, 0x20];

#[derive(Debug, Clone)]
pub(super) enum Object {
    File(Bytes),
    /// Hashes by name.
    Folder(BTreeMap<String, String>),
}

/// A file of an upload, with the names of its relative path.
pub(super) type PathedFile = (Vec<String>, Bytes);

/// A path or name, and the hash of what it stands for.
pub(super) type Named = (String, String);

#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    by_hash: BTreeMap<String, Object>,
}

impl Objects {
    pub(super) fn get(&self, hash: &str) -> Option<&Object> {
        self.by_hash.get(hash)
    }

    /// The hash and the object at the end of a path that begins in the object of this hash.
    pub(super) fn find<'a>(&'a self, hash: &'a str, path: &[String]) -> Option<(&'a str, &'a Object)> {
        let object = self.get(hash)?;
        match (path.split_first(), object) {
            (None, object) => Some((hash, object)),
            (Some((name, rest)), Object::Folder(children)) => self.find(children.get(name)?, rest),
            (Some(_), Object::File(_)) => None,
        }
    }

    pub(super) fn put(&mut self, content: Bytes) -> String {
        let hash = hash_of(&[&content]);
        self.by_hash.insert(hash.clone(), Object::File(content));
        hash
    }

    /// Stores an upload's files. First what lies at its top, folders with a slash at their end; then everything that
    /// `ipfs add -r` would print.
    pub(super) fn put_all(&mut self, files: Vec<PathedFile>) -> (Vec<Named>, Vec<Named>) {
        let mut top = Vec::new();
        let mut listed = Vec::new();
        let mut folders: BTreeMap<String, Vec<PathedFile>> = BTreeMap::new();
        for (names, content) in files {
            let hash = self.put(content.clone());
            listed.push((names.join("/"), hash.clone()));
            match names.as_slice() {
                [] => {}
                [name] => top.push((name.clone(), hash)),
                [name, rest @ ..] => folders.entry(name.clone()).or_default().push((rest.to_vec(), content)),
            }
        }
        for (name, files) in folders {
            let hash = self.put_folder(&name, &files, &mut listed);
            top.push((format!("{name}/"), hash));
        }
        (top, listed)
    }

    /// Makes a hashed folder of files with relative paths; `listed` gets each folder's path beneath `path`, and its
    /// hash, the deepest first. A file where a folder is needed gives way to it.
    pub(super) fn put_folder(&mut self, path: &str, files: &[PathedFile], listed: &mut Vec<Named>) -> String {
        let mut children = BTreeMap::new();
        let mut folders: BTreeMap<&str, Vec<PathedFile>> = BTreeMap::new();
        for (names, content) in files {
            match names.as_slice() {
                [] => {}
                [name] => {
                    children.insert(name.clone(), self.put(content.clone()));
                }
                [name, rest @ ..] => folders.entry(name).or_default().push((rest.to_vec(), content.clone())),
            }
        }
        for (name, files) in folders {
            let hash = self.put_folder(&format!("{path}/{name}"), &files, listed);
            children.insert(name.to_owned(), hash);
        }
        let lines: Vec<String> = children.iter().map(|(name, hash)| format!("{hash} {name}\n")).collect();
        let hash = hash_of(&lines.iter().map(String::as_bytes).collect::<Vec<_>>());
        self.by_hash.insert(hash.clone(), Object::Folder(children));
        listed.push((path.to_owned(), hash.clone()));
        hash
    }

    /// Bytes of all files beneath; of those that are there.
    pub(super) fn size(&self, hash: &str) -> u64 {
        match self.get(hash) {
            Some(Object::File(content)) => content.len() as u64,
            Some(Object::Folder(children)) => children.values().map(|hash| self.size(hash)).sum(),
            None => 0,
        }
    }

    pub(super) fn forget(&mut self, hash: &str) -> bool {
        self.by_hash.remove(hash).is_some()
    }

    pub(super) fn hashes(&self) -> Vec<String> {
        self.by_hash.keys().cloned().collect()
    }
}

fn hash_of(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    let multihash = [MULTIHASH_PREFIX.as_slice(), digest.finalize().as_slice()].concat();
    bs58::encode(multihash).into_string()
}

/// Whether this can be a plain hash: `Qm` and 44 further characters of base58.
pub(super) fn is_plain_hash(text: &str) -> bool {
    bs58::decode(text)
        .into_vec()
        .is_ok_and(|multihash| multihash.len() == 34 && multihash.starts_with(&MULTIHASH_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_look_like_the_real_ones() {
        let mut objects = Objects::default();
        let hash = objects.put(Bytes::from_static(b"hello"));
        assert_eq!((hash.len(), &hash[..2]), (46, "Qm"));
        assert_eq!(objects.put(Bytes::from_static(b"hello")), hash);
        assert_ne!(objects.put(Bytes::from_static(b"hello ")), hash);
        assert!(is_plain_hash(&hash) && !is_plain_hash(&hash[1..]) && !is_plain_hash("Qm"));
        // The empty UnixFS folder, a real CIDv0.
        assert!(is_plain_hash("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"));
        assert!(!is_plain_hash("0mUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"));
    }

    #[test]
    fn folders_hash_what_is_in_them() {
        let mut objects = Objects::default();
        let file = |path: &str, content: &'static str| -> PathedFile {
            (
                path.split('/').map(str::to_owned).collect(),
                Bytes::from_static(content.as_bytes()),
            )
        };
        let mut listed = Vec::new();
        let files = [file("a", "1"), file("b/c/d", "22")];
        let root = objects.put_folder("top", &files, &mut listed);
        let paths: Vec<&str> = listed.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["top/b/c", "top/b", "top"]);
        assert_eq!(listed[2].1, root);
        assert_eq!(objects.size(&root), 3);
        let names: Vec<String> = ["b", "c", "d"].map(str::to_owned).to_vec();
        let (hash, object) = objects.find(&root, &names).unwrap();
        assert!(matches!(object, Object::File(content) if content == "22"));
        let hash = hash.to_owned();
        assert_eq!(objects.put(Bytes::from_static(b"22")), hash);
        assert!(objects.find(&root, &names[1..]).is_none());
        let other = objects.put_folder("top", &[file("a", "2"), file("b/c/d", "22")], &mut Vec::new());
        assert_ne!(other, root);
    }
}
