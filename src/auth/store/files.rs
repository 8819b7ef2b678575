//! Secrets in files of their own: written at once or not at all, and refused when others could have read them.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::sealed::{self, Cost, Place};
use super::{MAX_SECRET, SecretStore, Stamp};
use crate::auth::{GivenSecrets, SecretSource};
use crate::model::{Error, ErrorKind, Result};

/// What stays as it is in a file's name. No dot: it parts the name's pieces, and `..` would lead elsewhere.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
/// Longer than any file that we write: a head, a secret, a tag and a checksum.
const MAX_FILE: u64 = MAX_SECRET as u64 + 1024;

/// One folder with a file for each remote and field.
pub struct FileStore {
    folder: PathBuf,
    passphrase: Option<(SecretSource, GivenSecrets)>,
    cost: Cost,
}

impl FileStore {
    /// With a passphrase, files are encrypted, and plain ones are refused. Nothing is read or made yet.
    pub fn new(folder: &Path, passphrase: Option<(SecretSource, GivenSecrets)>) -> Self {
        Self {
            folder: folder.to_path_buf(),
            passphrase,
            cost: Cost::OF_NEW_FILES,
        }
    }

    fn path(&self, remote: &str, field: &str) -> PathBuf {
        self.folder.join(file_name(remote, field))
    }

    async fn passphrase(&self) -> Result<Option<SecretString>> {
        let Some((source, given)) = &self.passphrase else {
            return Ok(None);
        };
        match source.read(given).await {
            Ok(passphrase) => Ok(Some(passphrase)),
            // Of another kind than "nothing is stored": the secret is there and stays there.
            Err(error) => Err(Error::denied(format!(
                "the store's passphrase cannot be had: {}",
                error.message()
            ))),
        }
    }
}

#[async_trait]
impl SecretStore for FileStore {
    async fn put(&self, remote: &str, field: &str, secret: &SecretString) -> Result<()> {
        let passphrase = self.passphrase().await?;
        let (folder, name) = (self.folder.clone(), file_name(remote, field));
        let (remote, field) = (remote.to_owned(), field.to_owned());
        let (secret, cost) = (secret.clone(), self.cost);
        blocking(move || {
            let place = Place {
                remote: &remote,
                field: &field,
            };
            let bytes = sealed::write(place, &secret, passphrase.as_ref(), cost)?;
            make_folder(&folder)?;
            replace(&folder, &name, |file| file.write_all(&bytes))
        })
        .await
    }

    async fn get(&self, remote: &str, field: &str) -> Result<Option<SecretString>> {
        let path = self.path(remote, field);
        if !check_folder(&self.folder)? {
            return Ok(None);
        }
        let Some(bytes) = read_private(&path)? else {
            return Ok(None);
        };
        let passphrase = self.passphrase().await?;
        let (remote, field) = (remote.to_owned(), field.to_owned());
        blocking(move || {
            let place = Place {
                remote: &remote,
                field: &field,
            };
            sealed::read(place, &bytes, passphrase.as_ref())
                .map(Some)
                .map_err(|error| Error::new(error.kind(), format!("{} {}", path.display(), error.message())))
        })
        .await
    }

    async fn remove(&self, remote: &str, field: &str) -> Result<bool> {
        if !check_folder(&self.folder)? {
            return Ok(false);
        }
        let (folder, name) = (self.folder.clone(), file_name(remote, field));
        blocking(move || remove(&folder, &name)).await
    }
}

/// What tells that a secret's file is another one than before.
pub(super) fn stamp(folder: &Path, remote: &str, field: &str) -> Stamp {
    match std::fs::symlink_metadata(folder.join(file_name(remote, field))) {
        Ok(metadata) => Stamp::File {
            inode: metadata.ino(),
            changed: i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Stamp::Missing,
        Err(_) => Stamp::Unknown,
    }
}

/// When a secret was put there.
pub(super) fn written(folder: &Path, remote: &str, field: &str) -> Option<SystemTime> {
    let metadata = std::fs::symlink_metadata(folder.join(file_name(remote, field)));
    metadata.and_then(|file| file.modified()).ok()
}

/// Files and key derivation keep a thread busy for up to some hundred milliseconds.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::internal("the store of secrets was interrupted")))
}

fn file_name(remote: &str, field: &str) -> String {
    let encoded = |text| utf8_percent_encode(text, ENCODED);
    format!("{}.{}.secret", encoded(remote), encoded(field))
}

/// Temporary files of one secret; a process that was killed may leave one.
fn temporary_prefix(name: &str) -> String {
    format!(".{name}.")
}

fn named(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::from(error).context(path.display())
}

fn make_folder(folder: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(named(folder))?;
    check_folder(folder).map(drop)
}

/// Whether the folder is there; it must be ours alone.
fn check_folder(folder: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(named(folder)(error)),
        Ok(metadata) if !metadata.is_dir() => Err(Error::denied(format!("{} is not a directory", folder.display()))),
        Ok(metadata) => check_private(folder, &metadata, 0o700).map(|()| true),
    }
}

/// Ours, and closed to everybody else.
fn check_private(path: &Path, metadata: &Metadata, wanted: u32) -> Result<()> {
    let shown = path.display();
    if metadata.uid() != rustix::process::getuid().as_raw() {
        return Err(Error::denied(format!(
            "{shown} belongs to another user (number {}), so its secrets are not used",
            metadata.uid()
        )));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::denied(format!(
            "{shown} is open to others (mode {mode:04o}); if nobody else uses this machine run: chmod {wanted:o} {shown}, \
             else get a new token too"
        )));
    }
    Ok(())
}

/// Puts a file in its place as a whole: after a crash there is the old one or the new one.
fn replace(folder: &Path, name: &str, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let mut temporary = tempfile::Builder::new()
        .prefix(&temporary_prefix(name))
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(named(folder))?;
    let path = folder.join(name);
    write(temporary.as_file_mut()).map_err(named(&path))?;
    temporary.as_file().sync_all().map_err(named(&path))?;
    temporary.persist(&path).map_err(|error| named(&path)(error.error))?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(named(folder))
}

/// The bytes of a file that only we can read; `None` if there is none.
fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match OpenOptions::new()
        .read(true)
        // Neither followed elsewhere nor waited for.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(path)(error)),
    };
    // Of what is open, not of what the name means a moment later.
    let metadata = file.metadata().map_err(named(path))?;
    if !metadata.is_file() {
        return Err(Error::denied(format!("{} is not a file", path.display())));
    }
    check_private(path, &metadata, 0o600)?;
    if metadata.len() > MAX_FILE {
        return Err(Error::new(
            ErrorKind::BadData,
            format!("{} is damaged: it is too long", path.display()),
        ));
    }
    // Room for all at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(named(path))?;
    Ok(Some(bytes))
}

fn remove(folder: &Path, name: &str) -> Result<bool> {
    let prefix = temporary_prefix(name);
    let mut found = false;
    for entry in std::fs::read_dir(folder).map_err(named(folder))? {
        let entry = entry.map_err(named(folder))?;
        let ours = entry
            .file_name()
            .to_str()
            .is_some_and(|entry| entry == name || entry.starts_with(&prefix));
        if !ours {
            continue;
        }
        match std::fs::remove_file(entry.path()) {
            Ok(()) => found = true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(named(&entry.path())(error)),
        }
    }
    if found {
        sync_folder(folder)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn folder(&self) -> PathBuf {
            self.0.path().join("state/secrets")
        }

        fn store(&self, passphrase: Option<&str>) -> FileStore {
            let mut given = GivenSecrets::default();
            if let Some(passphrase) = passphrase {
                given.insert("P", passphrase.into());
            }
            FileStore {
                cost: Cost::LEAST,
                ..FileStore::new(
                    &self.folder(),
                    passphrase.map(|_| (SecretSource::Env("P".into()), given)),
                )
            }
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.folder()).unwrap().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    async fn secret(store: &FileStore, remote: &str) -> Result<Option<String>> {
        let secret = store.get(remote, "token").await?;
        Ok(secret.map(|secret| secret.expose_secret().to_owned()))
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[tokio::test]
    async fn a_secret_is_kept_replaced_and_forgotten() {
        let home = Home::new();
        for passphrase in [None, Some("correct horse")] {
            let store = home.store(passphrase);
            assert_eq!(secret(&store, "drive").await.unwrap(), None);
            assert!(!store.remove("drive", "token").await.unwrap());
            for value in ["first", "second"] {
                store.put("drive", "token", &value.into()).await.unwrap();
                assert_eq!(secret(&store, "drive").await.unwrap().as_deref(), Some(value));
            }
            let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
            assert_eq!(mode(&home.folder()), 0o700);
            assert_eq!(mode(&home.folder().join("drive.token.secret")), 0o600);
            assert!(store.remove("drive", "token").await.unwrap());
            assert_eq!(home.names(), [""; 0]);
        }
    }

    #[tokio::test]
    async fn no_name_leads_out_of_the_folder_or_to_another_secret() {
        let home = Home::new();
        let store = home.store(None);
        let names = ["..", "../../etc", "/etc/x", "a.token", "a", "é.b", "A", "%2E"];
        for name in names {
            store.put(name, "token", &name.into()).await.unwrap();
        }
        store.put("a", "token.token", &"other".into()).await.unwrap();
        for name in names {
            assert_eq!(secret(&store, name).await.unwrap().as_deref(), Some(name));
        }
        assert_eq!(home.names().len(), names.len() + 1);
        let above: Vec<_> = std::fs::read_dir(home.0.path()).unwrap().flatten().collect();
        assert_eq!(above.len(), 1, "{above:?}");
    }

    #[tokio::test]
    async fn what_others_can_read_is_refused() {
        let home = Home::new();
        let store = home.store(None);
        store.put("drive", "token", &"s".into()).await.unwrap();
        let file = home.folder().join("drive.token.secret");
        for (path, bad, good) in [(&file, 0o640, 0o600), (&home.folder(), 0o755, 0o700)] {
            set_mode(path, bad);
            let error = secret(&store, "drive").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.message().contains(&format!("chmod {good:o}")), "{error}");
            set_mode(path, good);
            assert!(secret(&store, "drive").await.is_ok());
        }
        set_mode(&home.folder(), 0o777);
        assert!(store.put("drive", "token", &"t".into()).await.is_err());
        assert!(store.remove("drive", "token").await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_file_of_ours_is_refused() {
        let home = Home::new();
        let store = home.store(None);
        store.put("drive", "token", &"s".into()).await.unwrap();
        let file = home.folder().join("drive.token.secret");
        let elsewhere = home.0.path().join("elsewhere");
        std::fs::rename(&file, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        assert!(secret(&store, "drive").await.is_err(), "a link");
        std::fs::remove_file(&file).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(
            secret(&store, "drive").await.is_err(),
            "a pipe, and nobody waits for it"
        );
        std::fs::remove_file(&file).unwrap();
        let long = File::create(&file).unwrap();
        long.set_len(MAX_FILE + 1).unwrap();
        set_mode(&file, 0o600);
        assert!(
            secret(&store, "drive")
                .await
                .unwrap_err()
                .message()
                .contains("too long")
        );
    }

    /// Only root can give a file away, so only root can try this out.
    #[tokio::test]
    async fn what_belongs_to_another_user_is_refused() {
        if rustix::process::getuid().as_raw() != 0 {
            return;
        }
        let home = Home::new();
        let store = home.store(None);
        store.put("drive", "token", &"s".into()).await.unwrap();
        for path in [home.folder().join("drive.token.secret"), home.folder()] {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            let error = secret(&store, "drive").await.unwrap_err();
            assert!(error.message().contains("another user"), "{error}");
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
    }

    #[tokio::test]
    async fn a_failure_on_the_way_leaves_the_old_secret_and_nothing_else() {
        let home = Home::new();
        let store = home.store(None);
        store.put("drive", "token", &"old".into()).await.unwrap();
        let full = replace(&home.folder(), "drive.token.secret", |file| {
            file.write_all(b"half")?;
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        });
        assert_eq!(full.unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!(secret(&store, "drive").await.unwrap().as_deref(), Some("old"));
        // Nothing can be renamed over a folder.
        std::fs::create_dir(home.folder().join("other.token.secret")).unwrap();
        assert!(store.put("other", "token", &"new".into()).await.is_err());
        assert_eq!(home.names(), ["drive.token.secret", "other.token.secret"]);
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_forgotten_too() {
        let home = Home::new();
        let store = home.store(None);
        for remote in ["drive", "drive2"] {
            store.put(remote, "token", &"s".into()).await.unwrap();
            std::fs::write(home.folder().join(format!(".{remote}.token.secret.Ab12")), "s").unwrap();
        }
        assert!(store.remove("drive", "token").await.unwrap());
        assert_eq!(home.names(), [".drive2.token.secret.Ab12", "drive2.token.secret"]);
    }

    #[tokio::test]
    async fn with_a_passphrase_files_cannot_be_swapped_or_read() {
        let home = Home::new();
        let store = home.store(Some("right"));
        store.put("a", "token", &"canary-a".into()).await.unwrap();
        store.put("b", "token", &"canary-b".into()).await.unwrap();
        let (a, b) = (
            home.folder().join("a.token.secret"),
            home.folder().join("b.token.secret"),
        );
        assert!(!String::from_utf8_lossy(&std::fs::read(&a).unwrap()).contains("canary"));
        let wrong = secret(&home.store(Some("wrong")), "a").await.unwrap_err();
        assert!(
            wrong
                .message()
                .ends_with("a.token.secret was encrypted with another passphrase"),
            "{wrong}"
        );
        std::fs::rename(&b, &a).unwrap();
        let swapped = secret(&store, "a").await.unwrap_err();
        assert_eq!(swapped.kind(), ErrorKind::BadData);
        assert!(swapped.message().contains("another remote"), "{swapped}");
    }

    #[tokio::test]
    async fn without_its_passphrase_a_secret_is_not_taken_for_missing() {
        let home = Home::new();
        home.store(Some("p")).put("drive", "token", &"s".into()).await.unwrap();
        let locked = FileStore::new(
            &home.folder(),
            Some((SecretSource::Command(vec!["false".into()]), GivenSecrets::default())),
        );
        let error = secret(&locked, "drive").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.message().contains("passphrase cannot be had"), "{error}");
        assert!(
            locked.remove("drive", "token").await.unwrap(),
            "forgetting needs no passphrase"
        );
    }

    #[tokio::test]
    async fn writers_at_once_leave_one_whole_secret() {
        let home = Home::new();
        let store = home.store(None);
        let values: Vec<String> = (0..16).map(|n| n.to_string().repeat(2000)).collect();
        let writes = values.iter().map(|value| async {
            store.put("drive", "token", &value.as_str().into()).await.unwrap();
            assert!(values.contains(&secret(&store, "drive").await.unwrap().unwrap()));
        });
        futures_util::future::join_all(writes).await;
        assert_eq!(home.names(), ["drive.token.secret"]);
    }
}
