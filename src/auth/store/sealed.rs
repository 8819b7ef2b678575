//! The form of one secret in a file: plain, or sealed with a passphrase. Bytes in and out, no files.
//!
//! All numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `KMSECRET` |
//! | 1 | version, 1 |
//! | 1 | 0 plain, 1 sealed |
//! | plain: *n* | the secret |
//! | sealed: 4, 4, 4 | Argon2id's memory in KiB, passes and lanes (RFC 9106) |
//! | sealed: 16 | salt |
//! | sealed: 24 | nonce |
//! | sealed: 32 | what the passphrase must come to: tells a wrong passphrase from a damaged file |
//! | sealed: *n* + 16 | the secret under XChaCha20-Poly1305; everything before it and the place are associated data |
//! | 4 | CRC-32 of all before: tells accidental damage |

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use parking_lot::Mutex;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use crate::model::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"KMSECRET";
const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const SEALED: u8 = 1;
const SALT: usize = 16;
const NONCE: usize = 24;
const CHECK: usize = 32;
const KEY: usize = 32;
/// Everything of a sealed file before the ciphertext.
const SEALED_HEAD: usize = 10 + 12 + SALT + NONCE + CHECK;
/// Of a plain file before the secret.
const PLAIN_HEAD: usize = 10;
const CRC: usize = 4;

/// The most that a file may make us compute: four times the memory and passes that we write ourselves.
const MAX_MEMORY: u32 = 256 * 1024;
const MAX_PASSES: u32 = 12;
const MAX_LANES: u32 = 16;

/// One derivation at a time: each takes the memory that its parameters say.
static DERIVING: Mutex<()> = Mutex::new(());

/// What a derivation costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// In KiB.
    memory: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// The second recommendation of RFC 9106, section 4: 64 MiB, for where 2 GiB would be too much.
    pub const RECOMMENDED: Self = Self {
        memory: 64 * 1024,
        passes: 3,
        lanes: 4,
    };

    /// What is written is sealed with this. Builds for tests open hundreds of files in processes of their own.
    pub const OF_NEW_FILES: Self = if cfg!(feature = "cheap-passphrases") {
        Self {
            memory: 1024,
            passes: 1,
            lanes: 1,
        }
    } else {
        Self::RECOMMENDED
    };

    /// For tests that are not about the cost.
    #[cfg(test)]
    pub const LEAST: Self = Self {
        memory: 8,
        passes: 1,
        lanes: 1,
    };

    fn parameters(self) -> Result<Params> {
        if self.memory > MAX_MEMORY || self.passes > MAX_PASSES || self.lanes > MAX_LANES {
            return Err(Error::bad_data(
                "is damaged: it asks for more work than keymount ever wrote",
            ));
        }
        Params::new(self.memory, self.passes, self.lanes, Some(KEY + CHECK)).map_err(|_| damaged())
    }
}

/// Whose secret it is. A sealed file opens only in its own place.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub remote: &'a str,
    pub field: &'a str,
}

impl Place<'_> {
    fn associated(self, head: &[u8]) -> Vec<u8> {
        let mut data = head.to_vec();
        for part in [self.remote, self.field] {
            data.extend((part.len() as u64).to_le_bytes());
            data.extend(part.as_bytes());
        }
        data
    }
}

/// The file's bytes for a secret.
///
/// # Errors
/// `Internal` when the kernel has no random numbers.
pub fn write(
    place: Place<'_>,
    secret: &SecretString,
    passphrase: Option<&SecretString>,
    cost: Cost,
) -> Result<Zeroizing<Vec<u8>>> {
    let secret = secret.expose_secret().as_bytes();
    let mut bytes = Zeroizing::new(Vec::with_capacity(SEALED_HEAD + secret.len() + 16 + CRC));
    bytes.extend(MAGIC);
    bytes.push(VERSION);
    match passphrase {
        None => {
            bytes.push(PLAIN);
            bytes.extend(secret);
        }
        Some(passphrase) => {
            bytes.push(SEALED);
            for number in [cost.memory, cost.passes, cost.lanes] {
                bytes.extend(number.to_le_bytes());
            }
            let mut random = [0; SALT + NONCE];
            fill_random(&mut random)?;
            bytes.extend(random);
            let (salt, nonce) = random.split_at(SALT);
            let derived = derive(passphrase, salt, cost)?;
            bytes.extend(&derived[KEY..]);
            let payload = Payload {
                msg: secret,
                aad: &place.associated(&bytes),
            };
            let sealed = cipher(&derived)?
                .encrypt(&nonce_of(nonce)?, payload)
                .map_err(|_| Error::internal("the secret cannot be encrypted"))?;
            bytes.extend(sealed);
        }
    }
    let sum = crc32fast::hash(&bytes);
    bytes.extend(sum.to_le_bytes());
    Ok(bytes)
}

/// The secret in a file's bytes. Errors are the ends of sentences that begin with the file's name.
///
/// # Errors
/// `Denied` for a wrong or missing passphrase, and for a plain file where a passphrase is set;
/// `BadData` for a damaged file and for one of another place.
pub fn read(place: Place<'_>, bytes: &[u8], passphrase: Option<&SecretString>) -> Result<SecretString> {
    let body = bytes.len().checked_sub(CRC).ok_or_else(damaged)?;
    let (content, sum) = bytes.split_at(body);
    if content.len() < PLAIN_HEAD || &content[..MAGIC.len()] != MAGIC {
        return Err(Error::bad_data("is damaged: it is no file of keymount"));
    }
    if sum != crc32fast::hash(content).to_le_bytes() {
        return Err(damaged());
    }
    if content[8] != VERSION {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "was written by another version of keymount",
        ));
    }
    match (content[9], passphrase) {
        (PLAIN, None) => text(&content[PLAIN_HEAD..]),
        (PLAIN, Some(_)) => Err(Error::denied("is not encrypted although [store] has a passphrase")),
        (SEALED, None) => Err(Error::denied("is encrypted, and [store] has no passphrase")),
        (SEALED, Some(passphrase)) => open(place, content, passphrase),
        _ => Err(damaged()),
    }
}

fn open(place: Place<'_>, content: &[u8], passphrase: &SecretString) -> Result<SecretString> {
    let (head, sealed) = content.split_at_checked(SEALED_HEAD).ok_or_else(damaged)?;
    let number = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&head[at..at + 4]);
        u32::from_le_bytes(bytes)
    };
    let cost = Cost {
        memory: number(10),
        passes: number(14),
        lanes: number(18),
    };
    let (salt, rest) = head[22..].split_at(SALT);
    let (nonce, check) = rest.split_at(NONCE);
    let derived = derive(passphrase, salt, cost)?;
    if derived[KEY..] != *check {
        return Err(Error::denied("was encrypted with another passphrase"));
    }
    let payload = Payload {
        msg: sealed,
        aad: &place.associated(head),
    };
    let secret = cipher(&derived)?
        .decrypt(&nonce_of(nonce)?, payload)
        .map(Zeroizing::new)
        .map_err(|_| Error::bad_data("was changed, or belongs to another remote"))?;
    text(&secret)
}

/// The key and, behind it, the check. Both come out of one computation, so the check tells no more than a try would.
fn derive(passphrase: &SecretString, salt: &[u8], cost: Cost) -> Result<Zeroizing<[u8; KEY + CHECK]>> {
    let parameters = cost.parameters()?;
    let mut derived = Zeroizing::new([0; KEY + CHECK]);
    let _one = DERIVING.lock();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into(passphrase.expose_secret().as_bytes(), salt, &mut *derived)
        .map_err(|_| damaged())?;
    Ok(derived)
}

fn cipher(derived: &[u8; KEY + CHECK]) -> Result<XChaCha20Poly1305> {
    XChaCha20Poly1305::new_from_slice(&derived[..KEY]).map_err(|_| Error::internal("the key has another length"))
}

fn nonce_of(bytes: &[u8]) -> Result<XNonce> {
    XNonce::try_from(bytes).map_err(|_| Error::internal("the nonce has another length"))
}

fn fill_random(mut bytes: &mut [u8]) -> Result<()> {
    while !bytes.is_empty() {
        let got = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Error::from(std::io::Error::from(error)))?;
        bytes = &mut bytes[got..];
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<SecretString> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() => Ok(text.into()),
        _ => Err(damaged()),
    }
}

fn damaged() -> Error {
    Error::bad_data("is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: Place<'static> = Place {
        remote: "drive",
        field: "token",
    };

    fn sealed(secret: &str, passphrase: &str) -> Vec<u8> {
        write(HERE, &secret.into(), Some(&passphrase.into()), Cost::LEAST)
            .unwrap()
            .to_vec()
    }

    fn refused(bytes: &[u8], passphrase: Option<&str>) -> Error {
        let passphrase = passphrase.map(SecretString::from);
        read(HERE, bytes, passphrase.as_ref()).unwrap_err()
    }

    /// With a checksum that fits, as somebody who wants to do harm would write it.
    fn forged(mut bytes: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        bytes.truncate(bytes.len() - CRC);
        change(&mut bytes);
        let sum = crc32fast::hash(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_sealed_secret_shows_nothing_and_no_two_are_alike() {
        let one = sealed("canary-secret", "p");
        assert!(!String::from_utf8_lossy(&one).contains("canary"));
        assert_ne!(one, sealed("canary-secret", "p"));
        let read = read(HERE, &one, Some(&"p".into())).unwrap();
        assert_eq!(read.expose_secret(), "canary-secret");
    }

    #[test]
    fn the_causes_of_a_refusal_are_told_apart() {
        let bytes = sealed("s", "right");
        let wrong = refused(&bytes, Some("wrong"));
        assert_eq!(wrong.kind(), ErrorKind::Denied);
        assert!(wrong.message().contains("another passphrase"), "{wrong}");
        assert!(refused(&bytes, None).message().contains("has no passphrase"));
        let mut flipped = bytes.clone();
        flipped[SEALED_HEAD] ^= 1;
        assert_eq!(refused(&flipped, Some("right")).message(), "is damaged");
        for at in [10, 30, 50, 80, SEALED_HEAD] {
            let forged = forged(bytes.clone(), |bytes| bytes[at] ^= 1);
            assert_ne!(refused(&forged, Some("right")).message(), "is damaged", "byte {at}");
        }
        let changed = forged(bytes.clone(), |bytes| bytes[SEALED_HEAD] ^= 1);
        assert!(refused(&changed, Some("right")).message().contains("was changed"));
        let plain = write(HERE, &"s".into(), None, Cost::LEAST).unwrap();
        assert!(refused(&plain, Some("right")).message().contains("is not encrypted"));
        let newer = forged(bytes, |bytes| bytes[8] = 2);
        assert_eq!(refused(&newer, Some("right")).kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_file_opens_only_in_its_own_place() {
        let bytes = sealed("s", "p");
        for (remote, field) in [("drive2", "token"), ("drive", "key"), ("drivet", "oken")] {
            let error = read(Place { remote, field }, &bytes, Some(&"p".into())).unwrap_err();
            assert!(error.message().contains("another remote"), "{error}");
        }
    }

    #[test]
    fn a_file_cannot_order_more_work_than_ours() {
        for (at, number) in [(10, u32::MAX), (10, MAX_MEMORY + 1), (14, u32::MAX), (18, 0xff_ffff)] {
            let bytes = forged(sealed("s", "p"), |bytes| {
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            });
            assert!(refused(&bytes, Some("p")).message().contains("more work"));
        }
        assert!(Cost::RECOMMENDED.parameters().is_ok());
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(secret in "\\PC{1,200}", seal in any::<bool>()) {
            let passphrase = seal.then(|| SecretString::from("p"));
            let bytes = write(HERE, &secret.as_str().into(), passphrase.as_ref(), Cost::LEAST).unwrap();
            let read = read(HERE, &bytes, passphrase.as_ref()).unwrap();
            prop_assert_eq!(read.expose_secret(), secret);
        }

        #[test]
        fn garbage_is_refused_in_words(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(HERE, &bytes, Some(&"p".into())).is_err());
            prop_assert!(read(HERE, &bytes, None).is_err());
        }

        #[test]
        fn garbage_behind_a_good_head_is_refused(
            kind in 0u8..4,
            body in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend([VERSION, kind]);
            // Little to compute, so that many are tried.
            bytes.extend([8, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
            bytes.extend(body);
            bytes.extend([0; CRC]);
            prop_assert!(read(HERE, &forged(bytes, |_| ()), Some(&"p".into())).is_err());
        }

        #[test]
        fn a_truncated_file_is_refused(cut in 1usize..200) {
            for bytes in [sealed("secret", "p"), write(HERE, &"secret".into(), None, Cost::LEAST).unwrap().to_vec()] {
                let kept = &bytes[..bytes.len().saturating_sub(cut)];
                prop_assert!(read(HERE, kept, Some(&"p".into())).is_err());
                prop_assert!(read(HERE, kept, None).is_err());
            }
        }
    }
}
