use std::os::unix::fs::symlink;

use super::*;

const PERSONAL: &str = "# What I use.\n# Ask me before you change it.\n\n# The family's drive\n[remotes.drive] # shared\n\
    provider   = 'cludz'\nstorage = \"3f0c1f6e-9d2b-4a57-8c64-0e5b7a1d2c3f\"\n\n  [remotes.drive.auth]\n  method = \"none\"\n\n\
    # Encrypts.\n[store]\npassphrase = { env = \"WORDS\" } # not the login's\n\n# The end.\n";

struct Home {
    folder: tempfile::TempDir,
    paths: Paths,
}

impl Home {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_tests(folder.path());
        std::fs::write(paths.config_file().0, text).unwrap();
        Self { folder, paths }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.paths.config_file().0).unwrap()
    }
}

fn reduct(name: &str) -> NewRemote {
    let setting = |table: Option<&str>, key: &str, value| Setting {
        table: table.map(str::to_owned),
        key: key.to_owned(),
        value,
    };
    NewRemote {
        name: name.to_owned(),
        provider: "reductstore",
        settings: vec![
            setting(None, "endpoint", Written::Text("http://h:8383".into())),
            setting(None, "read_only", Written::Truth(true)),
            setting(Some("auth"), "method", Written::Text("token".into())),
            setting(Some("auth"), "token", Written::Secret(Place::Stored)),
            setting(Some("options"), "umask", Written::Text("077".into())),
        ],
    }
}

#[test]
fn a_remote_is_written_and_nothing_else_is_touched() {
    let home = Home::with(PERSONAL);
    std::fs::set_permissions(home.paths.config_file().0, Permissions::from_mode(0o640)).unwrap();
    let config = Config::add(&home.paths, &reduct("new.one")).unwrap();
    assert!(config.remotes().any(|(name, _)| name == "new.one"));
    let text = home.text();
    let written = "[remotes.\"new.one\"]\nprovider = \"reductstore\"\nendpoint = \"http://h:8383\"\nread_only = true\n\n\
        [remotes.\"new.one\".auth]\nmethod = \"token\"\ntoken = { stored = true }\n\n\
        [remotes.\"new.one\".options]\numask = \"077\"\n";
    assert!(text.contains(written), "{text}");
    assert_eq!(text.replace(&format!("\n{written}"), ""), PERSONAL);
    let mode = std::fs::metadata(home.paths.config_file().0).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o640);
    Config::remove(&home.paths, "new.one").unwrap();
    assert_eq!(home.text(), PERSONAL);
}

#[test]
fn a_removed_remote_takes_its_own_remark_along_and_no_other() {
    let home = Home::with(PERSONAL);
    Config::remove(&home.paths, "drive").unwrap();
    assert_eq!(
        home.text(),
        "# What I use.\n# Ask me before you change it.\n\n# Encrypts.\n[store]\npassphrase = { env = \"WORDS\" } # not the login's\n\n# The end.\n"
    );
    let alone = Home::with(
        "# Mine.\n\n[remotes.a]\nprovider = \"storra\"\nauth = { method = \"api-key\", key = { env = \"K\" } }\n",
    );
    Config::remove(&alone.paths, "a").unwrap();
    assert_eq!(alone.text(), "# Mine.\n");
    Config::add(&alone.paths, &reduct("b")).unwrap();
    assert!(alone.text().starts_with("# Mine.\n\n[remotes.b]\n"), "{}", alone.text());
}

#[test]
fn every_way_to_write_remotes_is_kept() {
    for text in [
        "",
        "remotes = { }\n",
        "remotes.a = { provider = \"cludz\", storage = \"3f0c1f6e-9d2b-4a57-8c64-0e5b7a1d2c3f\", auth = { method = \"none\" } }",
        "[remotes]\n",
        "[remotes]\n# nobody\n",
        "[remotes.a]\nprovider = \"storra\"\nauth = { method = \"api-key\", key = { env = \"K\" } }",
    ] {
        let home = Home::with(text);
        let config = Config::add(&home.paths, &reduct("b")).unwrap();
        assert!(config.remotes().any(|(name, _)| name == "b"), "{text}");
        let before: Vec<&str> = text.lines().filter(|line| *line != "remotes = { }").collect();
        let after = home.text();
        assert!(before.iter().all(|line| after.contains(line)), "{after}");
        Config::remove(&home.paths, "b").unwrap();
        assert!(!home.text().contains("reductstore"), "{}", home.text());
    }
}

#[test]
fn a_missing_file_is_made_closed_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::for_tests(&folder.path().join("deep/er"));
    Config::add(&paths, &reduct("b")).unwrap();
    let file = std::fs::metadata(paths.config_file().0).unwrap();
    assert_eq!(file.mode() & 0o7777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path().join("deep/er")).unwrap().count(), 1);
}

#[test]
fn a_link_stays_one() {
    let home = Home::with(PERSONAL);
    let real = home.folder.path().join("dotfiles.toml");
    std::fs::rename(home.paths.config_file().0, &real).unwrap();
    symlink(&real, home.paths.config_file().0).unwrap();
    Config::add(&home.paths, &reduct("b")).unwrap();
    assert!(home.paths.config_file().0.is_symlink());
    assert!(std::fs::read_to_string(&real).unwrap().contains("[remotes.b]"));
}

#[test]
fn what_cannot_be_changed_stays_as_it_was_and_says_why() {
    let malformed = NewRemote {
        settings: Vec::new(),
        ..reduct("b")
    };
    for (text, remote, part) in [
        ("[remotes.a\n", reduct("b"), "line 1 is not TOML"),
        ("remote = 1\n", reduct("b"), "did you mean \"remotes\"?"),
        (PERSONAL, reduct("drive"), "there is a remote drive already"),
        (PERSONAL, reduct("a:b"), "unlike \"a:b\""),
        (PERSONAL, reduct(".."), "unlike \"..\""),
        (PERSONAL, malformed, "remotes.b.auth is missing"),
    ] {
        let home = Home::with(text);
        let error = Config::add(&home.paths, &remote).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(home.text(), text);
    }
    let home = Home::with(PERSONAL);
    let error = Config::remove(&home.paths, "driev").unwrap_err().to_string();
    assert!(error.contains("did you mean \"drive\"?"), "{error}");
    let _other = Alone::with(&home.paths).unwrap();
    let error = Config::add(&home.paths, &reduct("b")).unwrap_err().to_string();
    assert!(error.contains("by another keymount"), "{error}");
    assert_eq!(home.text(), PERSONAL);
}
