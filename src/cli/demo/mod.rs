//! `demo`: stand-ins of the providers with something in them, mounted, until Ctrl-C.

mod content;

use std::path::{Path, PathBuf};

use super::arguments::DemoArguments;
use super::exit::{Exit, Failure};
use super::mount::{fuse_available, mount_point};
use crate::control::MountReport;
use crate::daemon::{self, DaemonSpec, LogTarget, MountSpec, OnFailure, Verbosity};
use crate::paths::{Paths, absolute, own_uid};
use content::{Exhibit, Exhibition, NAMES};

pub fn run(arguments: &DemoArguments, paths: &Paths, verbose: u8) -> Result<Exit, Failure> {
    fuse_available(false)?;
    daemon::protect_memory();
    let directories = Directories::make(&absolute(&arguments.directory))?;
    let leftovers = tempfile::Builder::new().prefix("keymount-demo-").tempdir()?;
    let log_file = paths.log_file();
    daemon::start_logging(LogTarget::file(&log_file)?, Verbosity::from_count(verbose));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let exhibition = Exhibition::open()
            .await
            .map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
        let spec = DaemonSpec {
            paths: paths.below(leftovers.path()),
            mounts: mounts(&exhibition.exhibits, &directories)?,
            on_failure: OnFailure::NothingIsMounted,
            log_file: Some(log_file),
        };
        let root = directories.root.clone();
        let ready = |mounts: &[MountReport], _: &[_]| print!("{}", guide(&root, mounts, &exhibition.exhibits));
        let ended = daemon::run(spec, exhibition.tokens.clone(), ready).await?;
        if !ended.pending.is_empty() {
            println!("{} files were still on their way and are gone.", ended.pending.len());
        }
        Ok(Exit::Done)
    });
    runtime.shutdown_background();
    drop(directories);
    if matches!(outcome, Ok(Exit::Done)) {
        println!("\nThe demo is over; everything is unmounted and removed.");
    }
    outcome
}

/// The directories that were made for the demo; those that are empty by then go with it.
struct Directories {
    root: PathBuf,
    made: Vec<PathBuf>,
}

impl Directories {
    /// Takes a missing or empty directory, or one of an earlier demo that could not clean up.
    fn make(root: &Path) -> Result<Self, Failure> {
        let refuse = |why: &str| Failure::new(Exit::MountPoint, format!("{} {why}", root.display()));
        let mut directories = Self {
            root: root.to_path_buf(),
            made: Vec::new(),
        };
        match std::fs::create_dir_all(root) {
            Ok(()) => directories.made.push(root.to_path_buf()),
            Err(error) => return Err(refuse(&format!("cannot be made: {error}"))),
        }
        let foreign = std::fs::read_dir(root)?
            .flatten()
            .any(|entry| !NAMES.iter().any(|name| entry.file_name() == *name));
        if foreign {
            directories.made.clear();
            return Err(refuse(
                "has something in it; give the demo a new directory: keymount demo DIR",
            ));
        }
        for name in NAMES {
            let directory = root.join(name);
            match std::fs::create_dir(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(refuse(&format!("cannot hold {name}: {error}"))),
            }
            directories.made.push(directory);
        }
        Ok(directories)
    }
}

impl Drop for Directories {
    /// Never more than empty directories: what is still mounted or was put there stays.
    fn drop(&mut self) {
        for directory in self.made.iter().rev() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

fn mounts(exhibits: &[Exhibit], directories: &Directories) -> Result<Vec<MountSpec>, Failure> {
    let gid = rustix::process::getgid().as_raw();
    exhibits
        .iter()
        .map(|exhibit| {
            Ok(MountSpec {
                remote: exhibit.remote.clone(),
                directory: mount_point(&directories.root.join(exhibit.name))?,
                options: content::options(&exhibit.remote, own_uid(), gid),
                // The demo's own hands remove them, also those that an earlier demo left.
                made: Vec::new(),
            })
        })
        .collect()
}

fn guide(root: &Path, mounts: &[MountReport], exhibits: &[Exhibit]) -> String {
    let mut text = format!(
        "keymount demo: stand-ins of the providers, with sample content and random tokens, are mounted below\n\n    {}\n\n",
        root.display()
    );
    for (mount, exhibit) in mounts.iter().zip(exhibits) {
        text.push_str(&format!("  {:<22} {}  {}\n", exhibit.name, mount.rights, exhibit.about));
    }
    let at = |path: &str| root.join(path).display().to_string();
    let tries = [
        (format!("ls -lR {}", root.display()), "what each token may do"),
        (
            format!("cp /etc/services {}", at("cludz-owner/documents")),
            "upload a file",
        ),
        (
            format!("rm {}", at("cludz-no-delete/readme.txt")),
            "is refused: Permission denied",
        ),
        (
            format!("touch {}", at("cludz-read-only/new")),
            "is refused: Permission denied",
        ),
        (
            format!("getfattr -d {}", at("cludz-owner/readme.txt")),
            "what the provider says of it",
        ),
        (
            format!("keymount status {}", root.display()),
            "mounts, credentials, rights",
        ),
        (
            format!("keymount refresh {}", at("cludz-owner")),
            "ask for the rights anew",
        ),
        (
            format!("keymount umount {}", root.display()),
            "end the demo; so does Ctrl-C here",
        ),
    ];
    text.push_str("\nTry in another terminal:\n\n");
    for (command, about) in tries {
        text.push_str(&format!("  {command}\n      {about}\n"));
    }
    text.push_str("\nPress Ctrl-C to end it.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine"), "x").unwrap();
        let Err(failure) = Directories::make(folder.path()) else {
            panic!("a full directory was taken")
        };
        assert_eq!(failure.exit, Exit::MountPoint);
        assert!(folder.path().join("mine").exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn its_own_directories_go_again_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("demo");
        drop(Directories::make(&root).unwrap());
        assert!(!root.exists());
        let directories = Directories::make(&root).unwrap();
        std::fs::write(root.join(NAMES[0]).join("kept"), "x").unwrap();
        drop(directories);
        assert!(root.join(NAMES[0]).join("kept").exists());
        assert!(!root.join(NAMES[1]).exists());
    }

    #[tokio::test]
    async fn every_exhibit_has_its_directory_and_no_token_shows() {
        let exhibition = Exhibition::open().await.unwrap();
        let names: Vec<_> = exhibition.exhibits.iter().map(|exhibit| exhibit.name).collect();
        assert_eq!(names, NAMES);
        let shown = format!("{exhibition:?}");
        for (_, token) in exhibition.tokens.iter() {
            assert!(!shown.contains(secrecy::ExposeSecret::expose_secret(token)));
        }
    }
}
