//! The configuration file: TOML with one table for each remote.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use url::Url;

use super::keys::Keys;
use super::source::{self, Keeper};
use super::{ConfigError, OptionLayer, ResolvedRemote, providers, suggestion};
use crate::auth::StoreSpec;
use crate::model::Rights;
use crate::paths::{ConfigOrigin, Paths};
use crate::provider::registry::{DstorSpec, ProviderSpec, RemotePath};

/// Everything that the file says, checked as a whole: one mistake in it is told before anything is done.
#[derive(Debug)]
pub struct Config {
    path: PathBuf,
    files: StoreSpec,
    remotes: BTreeMap<String, ConfiguredRemote>,
}

/// One `[remotes.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfiguredRemote {
    pub provider: ProviderSpec,
    pub endpoint: Url,
    pub rights: Option<Rights>,
    pub insecure: bool,
    pub options: OptionLayer,
    /// The remote that has the index which this one shares with other machines.
    shared_index: Option<Box<ResolvedRemote>>,
}

impl Config {
    /// Reads the file; without one in the usual place there are no remotes.
    ///
    /// # Errors
    /// With the file's name, the key and what is wrong with it.
    pub fn load(paths: &Paths) -> Result<Self, ConfigError> {
        let (path, origin) = paths.config_file();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && origin == ConfigOrigin::Default => {
                return Self::parse(path, "", &paths.secrets());
            }
            Err(error) => {
                return Err(ConfigError::new(format!(
                    "the configuration {} cannot be read: {error}",
                    path.display()
                )));
            }
        };
        refuse_foreign_hands(path)?;
        Self::parse(path, &text, &paths.secrets())
            .map_err(|error| ConfigError::new(format!("{}: {error}", path.display())))
    }

    pub(super) fn parse(path: &Path, text: &str, secrets: &Path) -> Result<Self, ConfigError> {
        let table: Table = text.parse().map_err(|error| syntax(text, &error))?;
        let mut top = Keys::new("", table);
        let files = store(&mut top, secrets)?;
        let mut remotes = match top.section("remotes")? {
            None => BTreeMap::new(),
            Some(keys) => {
                let (path, tables) = keys.into_rest();
                tables
                    .into_iter()
                    .map(|(name, value)| remote(&path, name, value, &files))
                    .collect::<Result<_, _>>()?
            }
        };
        top.finish()?;
        find_indexes(&mut remotes)?;
        Ok(Self {
            path: path.to_path_buf(),
            files,
            remotes,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that keep secrets.
    pub fn files(&self) -> &StoreSpec {
        &self.files
    }

    pub fn remotes(&self) -> impl Iterator<Item = (&str, &ConfiguredRemote)> {
        self.remotes.iter().map(|(name, remote)| (name.as_str(), remote))
    }

    /// What `<remote>[:path]` or an address stands for.
    ///
    /// # Errors
    /// When there is no such remote, or the address is malformed or holds a secret.
    pub fn resolve(
        &self,
        source: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<ResolvedRemote, ConfigError> {
        if source.contains("://") {
            return super::url::parse(source, environment);
        }
        let (name, path) = source.split_once(':').unwrap_or((source, ""));
        let path: RemotePath = path
            .parse()
            .map_err(|error: crate::model::Error| ConfigError::new(error.message()))?;
        match self.remotes.get(name) {
            Some(remote) => Ok(remote.resolve(name, path)),
            None => Err(self.no_such_remote(name)),
        }
    }

    pub(super) fn no_such_remote(&self, name: &str) -> ConfigError {
        let known: Vec<&str> = self.remotes.keys().map(String::as_str).collect();
        let there = if known.is_empty() {
            format!(
                "{} has none; run: keymount remote add, or give an address such as cludz://UUID",
                self.path.display()
            )
        } else {
            format!("{} has {}", self.path.display(), known.join(", "))
        };
        let hint = suggestion(name, known);
        ConfigError::new(format!("there is no remote {name:?}{hint} ({there})"))
    }

    /// Every environment variable that holds a secret of some remote or opens one.
    pub fn secret_variables(&self) -> impl Iterator<Item = &str> {
        self.remotes.values().flat_map(|remote| remote.provider.key_variables())
    }
}

impl ConfiguredRemote {
    pub fn resolve(&self, name: &str, path: RemotePath) -> ResolvedRemote {
        ResolvedRemote {
            name: name.to_owned(),
            provider: self.provider.clone(),
            endpoint: self.endpoint.clone(),
            path,
            rights: self.rights,
            insecure: self.insecure,
            options: self.options.clone(),
            shared_index: self.shared_index.clone(),
        }
    }
}

/// A line number in place of the parser's excerpt: the excerpt might show a secret.
fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    match error.span() {
        Some(span) => {
            let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
            ConfigError::new(format!("line {line} is not TOML"))
        }
        None => ConfigError::new("this is not TOML"),
    }
}

/// The file names programs that are run, so nobody else may write it.
fn refuse_foreign_hands(path: &Path) -> Result<(), ConfigError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.mode() & 0o002 != 0 => Err(ConfigError::new(format!(
            "{} can be written by everybody, and it may name programs to run; run: chmod o-w {}",
            path.display(),
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// The files that keep secrets, with `[store]`'s passphrase if it has one.
fn store(top: &mut Keys, secrets: &Path) -> Result<StoreSpec, ConfigError> {
    let passphrase = match top.section("store")? {
        None => None,
        Some(mut keys) => {
            let passphrase = source::passphrase(&mut keys, "passphrase")?;
            keys.finish()?;
            passphrase.map(Box::new)
        }
    };
    Ok(StoreSpec::Files {
        folder: secrets.to_path_buf(),
        passphrase,
    })
}

fn remote(
    above: &str,
    name: String,
    value: Value,
    files: &StoreSpec,
) -> Result<(String, ConfiguredRemote), ConfigError> {
    let place = format!("{above}.{name}");
    let usable = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    // A remote's name is a directory's, too: `mount --all`.
    if name.trim_matches('.').is_empty() || !name.chars().all(usable) {
        return Err(ConfigError::new(format!(
            "a remote's name has letters, digits, '-', '_' and '.' only, unlike {name:?}"
        )));
    }
    let Value::Table(table) = value else {
        return Err(ConfigError::new(format!("{place} must be a table")));
    };
    let mut keys = Keys::new(place, table);
    let provider = providers::read(&mut keys, Keeper { remote: &name, files })?;
    let endpoint = endpoint(&mut keys, &provider)?;
    let rights = match keys.text("rights")? {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            ConfigError::new(format!(
                "{} is written with the letters r, w and d",
                keys.name("rights")
            ))
        })?),
    };
    let insecure = keys.truth("insecure")?;
    let mut options = options(&mut keys)?;
    if keys.truth("read_only")? {
        options.read_only = Some(true);
    }
    keys.finish()?;
    let remote = ConfiguredRemote {
        provider,
        endpoint,
        rights,
        insecure,
        options,
        shared_index: None,
    };
    Ok((name, remote))
}

/// Gives every remote that shares an index the remote that has it.
fn find_indexes(remotes: &mut BTreeMap<String, ConfiguredRemote>) -> Result<(), ConfigError> {
    let mut found = Vec::new();
    for (name, remote) in &*remotes {
        let ProviderSpec::Dstor(DstorSpec {
            shared: Some(place), ..
        }) = &remote.provider
        else {
            continue;
        };
        let key = format!("remotes.{name}.index.remote = {:?}", place.remote);
        let Some(holder) = remotes.get(&place.remote) else {
            let hint = suggestion(&place.remote, remotes.keys().map(String::as_str));
            return Err(ConfigError::new(format!("{key} is not the name of a remote{hint}")));
        };
        if !matches!(holder.provider, ProviderSpec::S3(_) | ProviderSpec::Webdav(_)) {
            let why = "an index can be shared through S3 and WebDAV, where writes can have conditions";
            return Err(ConfigError::new(format!(
                "{key} is a remote at {}; {why}",
                holder.provider.title()
            )));
        }
        found.push((name.clone(), holder.resolve(&place.remote, RemotePath::default())));
    }
    for (name, holder) in found {
        if let Some(remote) = remotes.get_mut(&name) {
            remote.shared_index = Some(Box::new(holder));
        }
    }
    Ok(())
}

fn endpoint(keys: &mut Keys, provider: &ProviderSpec) -> Result<Url, ConfigError> {
    let name = keys.name("endpoint");
    let text = match (keys.text("endpoint")?, provider.default_endpoint()) {
        (Some(text), _) => text,
        (None, Some(default)) => return Ok(default),
        (None, None) => return Err(keys.missing("endpoint")),
    };
    providers::address(&name, &text)
}

fn options(keys: &mut Keys) -> Result<OptionLayer, ConfigError> {
    let mut layer = OptionLayer::default();
    let Some(section) = keys.section("options")? else {
        return Ok(layer);
    };
    let (path, table) = section.into_rest();
    for (name, value) in table {
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(truth) => truth.to_string(),
            _ => {
                return Err(ConfigError::new(format!(
                    "{path}.{name} must be a text, a number or true or false"
                )));
            }
        };
        layer
            .set(&name, Some(&text))
            .map_err(|error| ConfigError::new(format!("{path}: {error}")))?;
    }
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::SecretSource;
    use crate::provider::registry::{CloudSyncAuth, CludzAuth, CludzSpec, RecordNames, ReductstoreAuth, TokenSending};

    const CLUDZ: &str = r#"
        [remotes.drive]
        provider = "cludz"
        storage = "3f0c1f6e-9d2b-4a57-8c64-0e5b7a1d2c3f"
    "#;
    const TOKEN: &str = r#"
        [remotes.drive.auth]
        method = "token"
        token = { env = "CLUDZ_STORAGE_TOKEN" }
    "#;

    fn parse(parts: &[&str]) -> Result<Config, String> {
        Config::parse(Path::new("/c.toml"), &parts.concat(), Path::new("/secrets")).map_err(|error| error.to_string())
    }

    fn resolve(config: &Config, source: &str) -> Result<ResolvedRemote, String> {
        config.resolve(source, &|_| None).map_err(|error| error.to_string())
    }

    #[test]
    fn a_complete_remote_is_read() {
        let config = parse(&[
            CLUDZ,
            "endpoint = \"http://127.0.0.1:9001\"\nread_only = true\nrights = \"rw\"\ninsecure = true\n",
            "[remotes.drive.options]\numask = \"077\"\nattr_ttl = 5\nallow_other = true\n",
            TOKEN,
            "send = \"query\"\n",
        ])
        .unwrap();
        let remote = resolve(&config, "drive:photos/2024").unwrap();
        assert_eq!(remote.label(), "drive:photos/2024");
        assert_eq!(remote.endpoint.as_str(), "http://127.0.0.1:9001/");
        assert_eq!(remote.rights, Some("rw".parse().unwrap()));
        assert!(remote.insecure);
        assert_eq!(remote.options.read_only, Some(true));
        assert_eq!(remote.options.umask, Some(0o077));
        assert_eq!(remote.variables().collect::<Vec<_>>(), ["CLUDZ_STORAGE_TOKEN"]);
        let ProviderSpec::Cludz(CludzSpec {
            auth: CludzAuth::Token { send, .. },
            ..
        }) = remote.provider
        else {
            panic!("a Cludz remote with a token")
        };
        assert_eq!(send, TokenSending::Query);
    }

    #[test]
    fn a_resolved_remote_survives_the_way_to_the_daemon() {
        let config = parse(&[
            CLUDZ,
            "rights = \"r\"\n[remotes.drive.options]\ncache_size = \"1G\"\n",
            TOKEN,
        ])
        .unwrap();
        let remote = resolve(&config, "drive:a").unwrap();
        let json = serde_json::to_string(&remote).unwrap();
        assert_eq!(serde_json::from_str::<ResolvedRemote>(&json).unwrap(), remote);
    }

    #[test]
    fn webdav_and_s3_have_their_own_keys() {
        let dav = |auth: &str| {
            format!(
                "[remotes.r]\nprovider = \"webdav\"\nendpoint = \"https://h/dav\"\nroot = \"a/b\"\n[remotes.r.auth]\n{auth}"
            )
        };
        let config = parse(&[&dav(
            "method = \"basic\"\nusername = \"u\"\npassword = { env = \"P\" }\n",
        )])
        .unwrap();
        let remote = resolve(&config, "r").unwrap();
        assert_eq!(remote.variables().collect::<Vec<_>>(), ["P"]);
        let s3 = |more: &str| format!("[remotes.r]\nprovider = \"s3\"\nbucket = \"b\"\n{more}");
        let keys = "region = \"eu-west-1\"\nprefix = \"p\"\n[remotes.r.auth]\nmethod = \"static\"\n\
                    access_key_id = \"AKIA\"\nsecret_access_key = { env = \"K\" }\nsession_token = { env = \"T\" }\n";
        let remote = resolve(&parse(&[&s3(keys)]).unwrap(), "r").unwrap();
        assert_eq!(remote.endpoint.as_str(), "https://s3.eu-west-1.amazonaws.com/");
        assert_eq!(remote.variables().collect::<Vec<_>>(), ["K", "T"]);
        let json = serde_json::to_string(&remote).unwrap();
        assert_eq!(serde_json::from_str::<ResolvedRemote>(&json).unwrap(), remote);
        let chain = "[remotes.r.auth]\nmethod = \"chain\"\nprofile = \"work\"\n";
        assert!(parse(&[&s3(chain)]).is_ok());
        for (text, part) in [
            (
                dav("method = \"basic\"\nusername = \"a:b\"\npassword = { env = \"P\" }\n"),
                "no colon",
            ),
            (
                dav("method = \"basic\"\nusername = \"u\"\npassword = \"canary\"\n"),
                "remotes.r.auth.password",
            ),
            (dav("method = \"token\"\n"), "there are basic, bearer and none"),
            (
                s3("[remotes.r.auth]\nmethod = \"static\"\naccess_key_id = \"A\"\nsecret_access_key = \"canary\"\n"),
                "secret_access_key",
            ),
            (
                s3("prefix = \"a/../b\"\n[remotes.r.auth]\nmethod = \"none\"\n"),
                "remotes.r.prefix",
            ),
            (
                s3("[remotes.r.auth]\nmethod = \"none\"\n").replace("\"b\"", "\"b/c\""),
                "a bucket's name",
            ),
        ] {
            let error = parse(&[&text]).unwrap_err();
            assert!(error.contains(part) && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn keys_may_have_a_credential_of_their_own() {
        let text = |keys: &str| {
            format!(
                "[remotes.r]\nprovider = \"reductstore\"\nendpoint = \"http://h/\"\n\
                 [remotes.r.auth]\nmethod = \"token\"\ntoken = {{ env = \"FILES\" }}\n[remotes.r.keys_auth]\n{keys}"
            )
        };
        let config = parse(&[&text("method = \"token\"\ntoken = { env = \"KEYS\" }\n")]).unwrap();
        assert_eq!(config.secret_variables().collect::<Vec<_>>(), ["FILES", "KEYS"]);
        let remote = resolve(&config, "r").unwrap();
        assert_eq!(
            remote.variables().collect::<Vec<_>>(),
            ["FILES"],
            "the daemon gets no other"
        );
        assert_eq!(remote.key_variables().collect::<Vec<_>>(), ["FILES", "KEYS"]);
        for (keys, part) in [
            ("", "remotes.r.keys_auth.method is missing"),
            ("method = \"none\"\n", "remotes.r.keys_auth.method"),
            (
                "method = \"token\"\ntoken = \"canary\"\n",
                "remotes.r.keys_auth.token holds the secret itself",
            ),
        ] {
            let error = parse(&[&text(keys)]).unwrap_err();
            assert!(error.contains(part) && !error.contains("canary"), "{error}");
        }
        assert!(parse(&[CLUDZ, TOKEN, "[remotes.drive.keys_auth]\nmethod = \"token\"\n"]).is_err());
    }

    #[test]
    fn storra_has_a_key_and_perhaps_a_session_for_keys() {
        let text = |more: &str| {
            format!(
                "[remotes.c]\nprovider = \"storra\"\n{more}\n[remotes.c.auth]\nmethod = \"api-key\"\n\
                 key = {{ stored = true }}\n"
            )
        };
        let remote = resolve(&parse(&[&text("")]).unwrap(), "c:folder").unwrap();
        assert_eq!(remote.endpoint.as_str(), "https://cloud.storra.host/");
        let ProviderSpec::Storra(spec) = &remote.provider else {
            panic!("a Storra remote")
        };
        assert!(!spec.chmod_publishes && spec.keys_auth.is_none());
        assert_eq!(spec.key.stored().map(|stored| stored.field.as_str()), Some("key"));

        let session = "[remotes.c.keys_auth]\nmethod = \"session\"\ncookie = { stored = true }\n";
        let config = parse(&[&text("chmod_publishes = true"), session]).unwrap();
        let remote = resolve(&config, "c").unwrap();
        let ProviderSpec::Storra(spec) = &remote.provider else {
            panic!("a Storra remote")
        };
        assert!(spec.chmod_publishes);
        let cookie = spec.keys_auth.as_ref().and_then(SecretSource::stored).unwrap();
        assert_eq!(cookie.field, "keys_auth.cookie", "beside the key");

        for (more, part) in [
            ("[remotes.c.keys_auth]\nmethod = \"token\"\n", "there are session"),
            (
                "[remotes.c.keys_auth]\nmethod = \"session\"\n",
                "remotes.c.keys_auth.cookie is missing",
            ),
            (
                "[remotes.c.keys_auth]\nmethod = \"session\"\ncookie = \"canary\"\n",
                "remotes.c.keys_auth.cookie holds the secret itself",
            ),
        ] {
            let error = parse(&[&text(""), more]).unwrap_err();
            assert!(error.contains(part) && !error.contains("canary"), "{error}");
        }
        let error = parse(&[&text("chmod_publish = true")]).unwrap_err();
        assert!(error.contains("did you mean \"chmod_publishes\"?"), "{error}");
    }

    #[test]
    fn storra_is_mounted_privately_and_asked_seldom_unless_told_otherwise() {
        let text = |options: &str| {
            format!(
                "[remotes.c]\nprovider = \"storra\"\n[remotes.c.auth]\nmethod = \"api-key\"\nkey = {{ env = \"K\" }}\n{options}"
            )
        };
        let options = |text: &str, typed: &str| {
            let mut layer = OptionLayer::default();
            layer.set_list(typed).unwrap();
            let remote = resolve(&parse(&[text]).unwrap(), "c").unwrap();
            let options = remote.mount_options(layer, 1, 2);
            (options.umask, options.attr_ttl.as_secs())
        };
        assert_eq!(options(&text(""), ""), (0o077, 600));
        assert_eq!(
            options(&text("[remotes.c.options]\numask = \"027\"\n"), ""),
            (0o027, 600)
        );
        assert_eq!(options(&text(""), "attr_ttl=1m,umask=0"), (0, 60));
        let cludz = resolve(&parse(&[CLUDZ, TOKEN]).unwrap(), "drive").unwrap();
        let options = cludz.mount_options(OptionLayer::default(), 1, 2);
        assert_eq!((options.umask, options.attr_ttl.as_secs()), (0o022, 10));
    }

    #[test]
    fn reductstore_needs_an_endpoint_and_may_have_a_bucket() {
        let text = |extra: &str| {
            format!("[remotes.r]\nprovider = \"reductstore\"\n{extra}\n[remotes.r.auth]\nmethod = \"none\"\n")
        };
        let config = parse(&[&text(
            "endpoint = \"https://h:8383/base\"\nbucket = \"b\"\nnames = \"timestamp\"",
        )])
        .unwrap();
        let ProviderSpec::Reductstore(spec) = resolve(&config, "r").unwrap().provider else {
            panic!("a ReductStore remote")
        };
        assert_eq!(spec.bucket.as_deref(), Some("b"));
        assert_eq!(spec.names, RecordNames::Timestamp);
        assert_eq!(spec.auth, ReductstoreAuth::None);
        assert_eq!(parse(&[&text("")]).unwrap_err(), "remotes.r.endpoint is missing");
    }

    #[test]
    fn cloudsync_has_three_methods() {
        let text = |auth: &str| {
            format!("[remotes.w]\nprovider = \"cloudsync\"\nworkspace = \"my-project\"\n[remotes.w.auth]\n{auth}\n")
        };
        let spec = |auth: &str| {
            let remote = resolve(&parse(&[&text(auth)]).unwrap(), "w").unwrap();
            assert_eq!(remote.endpoint.as_str(), "https://api.cloudsync.io/v1");
            let ProviderSpec::CloudSync(spec) = remote.provider else {
                panic!("a CloudSync remote")
            };
            assert_eq!(spec.workspace.as_deref(), Some("my-project"));
            spec.auth
        };
        let key = spec("method = \"api-key\"\nkey = { env = \"K\" }");
        assert!(matches!(key, CloudSyncAuth::ApiKey { .. }));
        let token = spec("method = \"access-token\"\ntoken = { env = \"T\" }");
        assert!(matches!(token, CloudSyncAuth::AccessToken { .. }));
        let CloudSyncAuth::Oauth(oauth) = spec("method = \"oauth\"\nclient_id = \"me\"\nscopes = \"files:read\"")
        else {
            panic!("OAuth")
        };
        assert_eq!(oauth.client_id, "me");
        assert!(oauth.scopes.unwrap().contains("files:read"));
        for (auth, part) in [
            ("method = \"password\"", "is not a method of this provider"),
            ("method = \"api-key\"", "remotes.w.auth.key is missing"),
            (
                "method = \"api-key\"\nkey = \"sk_live_canary\"",
                "remotes.w.auth.key holds the secret itself",
            ),
            (
                "method = \"api-key\"\ntoken = { env = \"T\" }\nkey = { env = \"K\" }",
                "unknown key remotes.w.auth.token",
            ),
            ("method = \"oauth\"", "remotes.w.auth.client_id is missing"),
        ] {
            let error = parse(&[&text(auth)]).unwrap_err();
            assert!(error.contains(part) && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn every_mistake_has_its_sentence() {
        let remote = |rest: &str| format!("{CLUDZ}{rest}");
        for (text, sentence) in [
            ("remote = 1".to_owned(), "unknown key remote; did you mean \"remotes\"?"),
            ("[remotes]\nx = 1".to_owned(), "remotes.x must be a table"),
            ("[remotes.\"a:b\"]".to_owned(), "unlike \"a:b\""),
            ("[remotes.a]".to_owned(), "remotes.a.provider is missing"),
            (
                "[remotes.a]\nprovder = \"cludz\"".to_owned(),
                "unknown key remotes.a.provder; did you mean \"provider\"?",
            ),
            (
                "[remotes.a]\nprovider = \"cluds\"".to_owned(),
                "remotes.a.provider = \"cluds\" is not a provider (there are cludz, cloudsync, storra, dstor, reductstore, s3 and webdav); did you mean \"cludz\"?",
            ),
            (
                "[remotes.a]\nprovider = \"cludz\"\nstorage = \"x\"".to_owned(),
                "remotes.a.storage is the drive's id, a UUID",
            ),
            (remote(""), "remotes.drive.auth is missing"),
            (
                remote("readonly = true\n") + TOKEN,
                "unknown key remotes.drive.readonly; did you mean \"read_only\"?",
            ),
            (
                remote("read_only = 1\n") + TOKEN,
                "remotes.drive.read_only must be true or false, not an integer",
            ),
            (
                remote("rights = \"rx\"\n") + TOKEN,
                "remotes.drive.rights is written with the letters r, w and d",
            ),
            (
                remote("endpoint = \"host\"\n") + TOKEN,
                "remotes.drive.endpoint is not an address",
            ),
            (
                remote("endpoint = \"ftp://h\"\n") + TOKEN,
                "must begin with http:// or https://",
            ),
            (remote("endpoint = \"http://u:p@h\"\n") + TOKEN, "must not hold a user"),
            (
                remote("[remotes.drive.options]\numaks = \"0\"\n") + TOKEN,
                "remotes.drive.options: unknown option \"umaks\"; did you mean \"umask\"?",
            ),
            (
                remote("[remotes.drive.auth]\nmethod = \"oauth\"\n"),
                "remotes.drive.auth.method = \"oauth\" is not a method of this provider; there are token and none",
            ),
            (
                remote("[remotes.drive.auth]\nmethod = \"none\"\ntoken = { env = \"A\" }\n"),
                "unknown key remotes.drive.auth.token",
            ),
            (
                remote(TOKEN) + "send = \"cookie\"\n",
                "remotes.drive.auth.send is \"header\" or \"query\"",
            ),
            (
                remote(TOKEN) + "sned = \"query\"\n",
                "unknown key remotes.drive.auth.sned; did you mean \"send\"?",
            ),
            (
                remote("[remotes.drive.auth]\nmethod = \"token\"\ntoken = \"canary\"\n"),
                "remotes.drive.auth.token holds the secret itself",
            ),
        ] {
            let error = parse(&[&text]).unwrap_err();
            assert!(error.contains(sentence), "expected {sentence:?}, got {error:?}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn broken_toml_names_the_line_and_shows_nothing_of_it() {
        let error = parse(&["[remotes.a]\n", "token = \"canary-secret\nb = 1\n"]).unwrap_err();
        assert_eq!(error, "line 2 is not TOML");
    }

    #[test]
    fn an_unknown_remote_names_the_known_ones() {
        let config = parse(&[CLUDZ, TOKEN]).unwrap();
        let error = resolve(&config, "driev").unwrap_err();
        assert!(error.contains("did you mean \"drive\"?"), "{error}");
        let error = resolve(&parse(&[""]).unwrap(), "drive").unwrap_err();
        assert!(error.contains("has none"), "{error}");
    }

    #[test]
    fn variables_that_hold_secrets_are_listed() {
        let config = parse(&[CLUDZ, TOKEN]).unwrap();
        assert_eq!(config.secret_variables().collect::<Vec<_>>(), ["CLUDZ_STORAGE_TOKEN"]);
    }
}
