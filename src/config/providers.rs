//! The keys that each provider has of its own, and its methods of authentication.

use std::path::PathBuf;

use url::Url;
use uuid::Uuid;

use super::keys::Keys;
use super::options::parse_duration;
use super::source::{self, Keeper};
use super::{ConfigError, listed, suggestion};
use crate::auth::oauth::{AuthorizationServer, OauthSpec};
use crate::model::Error;
use crate::provider::dstor::{Endpoint, Endpoints, Purpose};
use crate::provider::registry::{
    CloudSyncAuth, CloudSyncSpec, CludzAuth, CludzSpec, DEFAULT_REGION, DstorAuth, DstorSpec, FORMS, Form, KeyId,
    Network, OnUnlink, ProviderSpec, RecordNames, ReductstoreAuth, ReductstoreSpec, RemotePath, S3Auth, S3Spec,
    SharedPlace, StaticKey, StorraSpec, TokenSending, WebdavAuth, WebdavSpec, check_username, cloudsync_server, form,
};

/// Reads the provider's own keys and its `auth` tables.
pub fn read(keys: &mut Keys, keeper: Keeper<'_>) -> Result<ProviderSpec, ConfigError> {
    let kind = keys.required_text("provider")?;
    let unknown = || {
        let words = FORMS.map(|form| form.kind);
        ConfigError::new(format!(
            "{} = {kind:?} is not a provider (there are {}){}",
            keys.name("provider"),
            listed(&words),
            suggestion(&kind, words)
        ))
    };
    let form = form(&kind).ok_or_else(unknown)?;
    match form.kind {
        "cludz" => cludz(keys, form, keeper),
        "cloudsync" => cloudsync(keys, form, keeper),
        "storra" => storra(keys, form, keeper),
        "dstor" => dstor(keys, form, keeper),
        "reductstore" => reductstore(keys, form, keeper),
        "s3" => s3(keys, form, keeper),
        "webdav" => webdav(keys, form, keeper),
        other => Err(ConfigError::new(format!("{other} cannot be configured"))),
    }
}

fn cludz(keys: &mut Keys, form: &Form, keeper: Keeper<'_>) -> Result<ProviderSpec, ConfigError> {
    let storage = keys.required_text("storage")?;
    let storage = Uuid::parse_str(&storage).map_err(|_| {
        ConfigError::new(format!(
            "{} is the drive's id, a UUID such as 3f0c1f6e-9d2b-4a57-8c64-0e5b7a1d2c3f",
            keys.name("storage")
        ))
    })?;
    let auth = match authentication(keys, form)? {
        (mut auth, "token") => {
            let token = source::required(&mut auth, "token", keeper)?;
            let send = match auth.text("send")?.as_deref() {
                None | Some("header") => TokenSending::Header,
                Some("query") => TokenSending::Query,
                Some(_) => {
                    return Err(ConfigError::new(format!(
                        "{} is \"header\" or \"query\"",
                        auth.name("send")
                    )));
                }
            };
            auth.finish()?;
            CludzAuth::Token { token, send }
        }
        (auth, _) => {
            auth.finish()?;
            CludzAuth::None
        }
    };
    Ok(ProviderSpec::Cludz(CludzSpec { storage, auth }))
}

fn reductstore(keys: &mut Keys, form: &Form, keeper: Keeper<'_>) -> Result<ProviderSpec, ConfigError> {
    let bucket = keys.text("bucket")?.filter(|bucket| !bucket.is_empty());
    let names = match keys.text("names")?.as_deref() {
        None | Some("label") => RecordNames::Label,
        Some("timestamp") => RecordNames::Timestamp,
        Some(_) => {
            return Err(ConfigError::new(format!(
                "{} is \"label\" or \"timestamp\"",
                keys.name("names")
            )));
        }
    };
    let auth = match authentication(keys, form)? {
        (mut auth, "token") => {
            let token = source::required(&mut auth, "token", keeper)?;
            auth.finish()?;
            ReductstoreAuth::Token { token }
        }
        (auth, _) => {
            auth.finish()?;
            ReductstoreAuth::None
        }
    };
    let keys_auth = match keys.section("keys_auth")? {
        None => None,
        Some(section) => {
            let (mut section, _) = method(section, &["token"])?;
            let token = source::required(&mut section, "token", keeper)?;
            section.finish()?;
            Some(token)
        }
    };
    Ok(ProviderSpec::Reductstore(ReductstoreSpec {
        bucket,
        names,
        auth,
        keys_auth,
    }))
}

fn s3(keys: &mut Keys, form: &Form, keeper: Keeper<'_>) -> Result<ProviderSpec, ConfigError> {
    let bucket = keys.required_text("bucket")?;
    check_bucket(&keys.name("bucket"), &bucket)?;
    let region = keys.text("region")?.filter(|region| !region.is_empty());
    let prefix = folder(keys, "prefix")?;
    let auth = match authentication(keys, form)? {
        (mut auth, "static") => {
            let access_key_id = if auth.has_text("access_key_id") {
                KeyId::Text(auth.required_text("access_key_id")?)
            } else {
                KeyId::Source(source::required(&mut auth, "access_key_id", keeper)?)
            };
            let secret_access_key = source::required(&mut auth, "secret_access_key", keeper)?;
            let session_token = source::optional(&mut auth, "session_token", keeper)?;
            auth.finish()?;
            S3Auth::Static(Box::new(StaticKey {
                access_key_id,
                secret_access_key,
                session_token,
            }))
        }
        (mut auth, "chain") => {
            let profile = auth.text("profile")?.filter(|profile| !profile.is_empty());
            auth.finish()?;
            S3Auth::Chain { profile }
        }
        (auth, _) => {
            auth.finish()?;
            S3Auth::None
        }
    };
    Ok(ProviderSpec::S3(S3Spec {
        bucket,
        region: region.unwrap_or_else(|| DEFAULT_REGION.to_owned()),
        prefix,
        auth,
    }))
}

/// # Errors
/// When it has a character that no bucket's name has and that means something in an address.
pub fn check_bucket(name: &str, bucket: &str) -> Result<(), ConfigError> {
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if bucket.is_empty() || !bucket.chars().all(usable) || bucket.starts_with('.') {
        return Err(ConfigError::new(format!(
            "{name} is a bucket's name: letters, digits, '-', '_' and '.'"
        )));
    }
    Ok(())
}

fn webdav(keys: &mut Keys, form: &Form, keeper: Keeper<'_>) -> Result<ProviderSpec, ConfigError> {
    let root = folder(keys, "root")?;
    let auth = match authentication(keys, form)? {
        (mut auth, "basic") => {
            let username = auth.required_text("username")?;
            check_username(&username)
                .map_err(|error| ConfigError::new(format!("{}: {}", auth.name("username"), error.message())))?;
            let password = source::required(&mut auth, "password", keeper)?;
            auth.finish()?;
            WebdavAuth::Basic { username, password }
        }
        (mut auth, "bearer") => {
            let token = source::required(&mut auth, "token", keeper)?;
            auth.finish()?;
            WebdavAuth::Bearer { token }
        }
        (auth, _) => {
            auth.finish()?;
            WebdavAuth::None
        }
    };
    Ok(ProviderSpec::Webdav(WebdavSpec { root, auth }))
}

/// A folder's path; the topmost one without the key.
fn folder(keys: &mut Keys, key: &'static str) -> Result<RemotePath, ConfigError> {
    let text = keys.text(key)?.unwrap_or_default();
    text.parse()
        .map_err(|error: Error| ConfigError::new(format!("{}: {}", keys.name(key), error.message())))
}

fn cloudsync(keys: &mut Keys, form: &Form, keeper: Keeper<'_>) -> Result<ProviderSpec, ConfigError> {
    let workspace = keys.text("workspace")?.filter(|workspace| !workspace.is_empty());
    let auth_endpoint = optional_address(keys, "auth_endpoint")?;
    let auth = match authentication(keys, form)? {
        (mut auth, "api-key") => {
            let key = source::required(&mut auth, "key", keeper)?;
            auth.finish()?;
            CloudSyncAuth::ApiKey { key }
        }
        (mut auth, "oauth") => {
            let server = match optional_address(&mut auth, "issuer")? {
                Some(_) if auth_endpoint.is_some() => {
                    return Err(ConfigError::new(format!(
                        "{} and auth_endpoint both say who grants; leave one away",
                        auth.name("issuer")
                    )));
                }
                Some(issuer) => AuthorizationServer::Issuer(issuer),
                None => cloudsync_server(auth_endpoint.clone()).map_err(|error| ConfigError::new(error.message()))?,
            };
            CloudSyncAuth::Oauth(Box::new(oauth(auth, server, keeper)?))
        }
        (mut auth, _) => {
            let token = source::required(&mut auth, "token", keeper)?;
            auth.finish()?;
            CloudSyncAuth::AccessToken { token }
        }
    };
    Ok(ProviderSpec::CloudSync(CloudSyncSpec { workspace, auth }))
}

fn oauth(mut auth: Keys, server: AuthorizationServer, keeper: Keeper<'_>) -> Result<OauthSpec, ConfigError> {
    let client_id = auth.required_text("client_id")?;
    let client_secret = source::optional(&mut auth, "client_secret", keeper)?;
    let scopes = auth
        .text("scopes")?
        .map(|text| {
            text.parse()
                .map_err(|error: Error| ConfigError::new(format!("{}: {}", auth.name("scopes"), error.message())))
        })
        .transpose()?;
    let kept = source::kept(&mut auth, "grant", keeper)?;
    auth.finish()?;
    Ok(OauthSpec {
        server,
        client_id,
        client_secret,
        scopes,
        kept,
    })
}

fn storra(keys: &mut Keys, form: &Form, keeper: Keeper<'_>) -> Result<ProviderSpec, ConfigError> {
    let chmod_publishes = keys.truth("chmod_publishes")?;
    let (mut auth, _) = authentication(keys, form)?;
    let key = source::required(&mut auth, "key", keeper)?;
    auth.finish()?;
    let keys_auth = match keys.section("keys_auth")? {
        None => None,
        Some(section) => {
            let (mut section, _) = method(section, &["session"])?;
            let cookie = source::required(&mut section, "cookie", keeper)?;
            section.finish()?;
            Some(cookie)
        }
    };
    Ok(ProviderSpec::Storra(StorraSpec {
        key,
        keys_auth,
        chmod_publishes,
    }))
}

fn dstor(keys: &mut Keys, form: &Form, keeper: Keeper<'_>) -> Result<ProviderSpec, ConfigError> {
    let network = match keys.text("network")?.as_deref() {
        None | Some("production") => Network::Production,
        Some("testnet") => Network::Testnet,
        Some(_) => {
            return Err(ConfigError::new(format!(
                "{} is \"production\" or \"testnet\"",
                keys.name("network")
            )));
        }
    };
    let on_unlink = match keys.text("on_unlink")?.as_deref() {
        None | Some("forget") => OnUnlink::Forget,
        Some("deny") => OnUnlink::Deny,
        Some(_) => {
            return Err(ConfigError::new(format!(
                "{} is \"forget\" or \"deny\"",
                keys.name("on_unlink")
            )));
        }
    };
    let endpoints = match keys.section("endpoints")? {
        None => Endpoints::default(),
        Some(mut section) => {
            let endpoints = Endpoints {
                delete: endpoint(&mut section, "delete", Purpose::Delete)?,
                rename: endpoint(&mut section, "rename", Purpose::Rename)?,
                list: endpoint(&mut section, "list", Purpose::List)?,
            };
            section.finish()?;
            endpoints
        }
    };
    let (index, shared) = index(keys)?;
    let (auth, kept) = match authentication(keys, form)? {
        (mut auth, "temp-token") => {
            let api_key = source::required(&mut auth, "api_key", keeper)?;
            let lifetime = match auth.text("lifetime")? {
                None => None,
                Some(text) => Some(
                    parse_duration(&text)
                        .ok()
                        .filter(|lifetime| !lifetime.is_zero())
                        .ok_or_else(|| {
                            ConfigError::new(format!("{} is a time such as \"12h\"", auth.name("lifetime")))
                        })?,
                ),
            };
            let kept = source::kept(&mut auth, "grant", keeper)?;
            auth.finish()?;
            (DstorAuth::TempToken { api_key, lifetime }, kept)
        }
        (mut auth, _) => {
            let email = auth.required_text("email")?;
            let password = source::required(&mut auth, "password", keeper)?;
            let kept = source::kept(&mut auth, "grant", keeper)?;
            auth.finish()?;
            (DstorAuth::Login { email, password }, kept)
        }
    };
    Ok(ProviderSpec::Dstor(DstorSpec {
        network,
        on_unlink,
        endpoints,
        index,
        shared,
        auth,
        kept: Some(kept),
    }))
}

fn endpoint(section: &mut Keys, key: &'static str, purpose: Purpose) -> Result<Option<Endpoint>, ConfigError> {
    let Some(text) = section.text(key)? else {
        return Ok(None);
    };
    match Endpoint::new(purpose, &text) {
        Ok(endpoint) => Ok(Some(endpoint)),
        Err(error) => Err(ConfigError::new(format!("{}: {}", section.name(key), error.message()))),
    }
}

/// A list of contents, or where the tree is shared, or both.
fn index(keys: &mut Keys) -> Result<(Option<PathBuf>, Option<SharedPlace>), ConfigError> {
    let list = |name: String, text: &str| {
        let path = source::expand_home(text);
        if path.is_relative() {
            let why = "must be an absolute path or begin with ~/: the daemon works in /";
            return Err(ConfigError::new(format!("{name} {why}")));
        }
        Ok(path)
    };
    if keys.has_text("index") {
        let text = keys.required_text("index")?;
        return Ok((Some(list(keys.name("index"), &text)?), None));
    }
    let Some(mut section) = keys.section("index")? else {
        return Ok((None, None));
    };
    let remote = section.required_text("remote")?;
    let path = section.required_text("path")?;
    let path = path
        .parse()
        .map_err(|error: Error| ConfigError::new(format!("{}: {}", section.name("path"), error.message())))?;
    let import = match section.text("import")? {
        Some(text) => Some(list(section.name("import"), &text)?),
        None => None,
    };
    let place = SharedPlace { remote, path };
    if place.path.is_root() {
        let why = "is the index's own path at that remote, such as \"keymount/archive.jsonl\"";
        return Err(ConfigError::new(format!("{} {why}", section.name("path"))));
    }
    section.finish()?;
    Ok((import, Some(place)))
}

/// An address that must not hold a secret, if the key is there.
fn optional_address(keys: &mut Keys, key: &'static str) -> Result<Option<Url>, ConfigError> {
    let name = keys.name(key);
    keys.text(key)?.map(|text| address(&name, &text)).transpose()
}

/// # Errors
/// When it isn't http or https with a host, or holds a user, a password or a query.
pub fn address(name: &str, text: &str) -> Result<Url, ConfigError> {
    let malformed = |why: &str| ConfigError::new(format!("{name} {why}"));
    let url = Url::parse(text).map_err(|_| malformed("is not an address such as https://host:port"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(malformed("must begin with http:// or https:// and a host"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(malformed(
            "must not hold a user, a password or a query; the token's place is [auth]",
        ));
    }
    Ok(url)
}

/// The `auth` table and the method it names, one of those that the provider has.
fn authentication(keys: &mut Keys, form: &Form) -> Result<(Keys, &'static str), ConfigError> {
    match keys.section("auth")? {
        Some(auth) => method(auth, &form.method_words()),
        None => Err(keys.missing("auth")),
    }
}

/// The method that such a table names.
fn method(mut auth: Keys, methods: &[&'static str]) -> Result<(Keys, &'static str), ConfigError> {
    let method = auth.required_text("method")?;
    match methods.iter().find(|known| **known == method) {
        Some(known) => Ok((auth, known)),
        None => Err(ConfigError::new(format!(
            "{} = {method:?} is not a method of this provider; there are {}",
            auth.name("method"),
            listed(methods)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::auth::StoreSpec;
    use crate::provider::registry::{Answer, Field};

    fn dstor_spec(own: &str, auth: &str) -> Result<DstorSpec, String> {
        let text = format!("provider = \"dstor\"\n{own}\n[auth]\n{auth}");
        let mut keys = Keys::new("remotes.drive", text.parse().unwrap());
        let files = StoreSpec::Files {
            folder: "/secrets".into(),
            passphrase: None,
        };
        let keeper = Keeper {
            remote: "drive",
            files: &files,
        };
        match read(&mut keys, keeper).and_then(|spec| keys.finish().map(|()| spec)) {
            Ok(ProviderSpec::Dstor(spec)) => Ok(spec),
            Ok(other) => panic!("{other:?} is no remote at dStor"),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What a form offers is what is read, and the other way round as far as a form can know.
    #[test]
    fn every_form_filled_in_is_a_remote() {
        let said = |field: &Field| match field.answer {
            Answer::Text { example } => format!("{} = \"{example}\"\n", field.key),
            Answer::Choice(words) => format!("{} = \"{}\"\n", field.key, words[words.len() - 1]),
            Answer::Truth => format!("{} = true\n", field.key),
        };
        for form in FORMS {
            for method in form.methods {
                let own: String = form.fields.iter().map(said).collect();
                // The two name the same server.
                let fields = method.fields.iter().filter(|field| field.key != "issuer");
                let auth: String = fields.map(said).collect();
                let secrets = method.secrets.iter();
                let secrets: String = secrets
                    .map(|secret| format!("{} = {{ stored = true }}\n", secret.key))
                    .collect();
                let text = format!(
                    "provider = \"{}\"\n{own}[auth]\nmethod = \"{}\"\n{auth}{secrets}",
                    form.kind, method.word
                );
                let mut keys = Keys::new("remotes.r", text.parse().unwrap());
                let files = StoreSpec::Files {
                    folder: "/secrets".into(),
                    passphrase: None,
                };
                let keeper = Keeper {
                    remote: "r",
                    files: &files,
                };
                let spec = read(&mut keys, keeper).unwrap_or_else(|error| panic!("{text}\n{error}"));
                assert!(keys.text("endpoint").is_ok());
                keys.finish().unwrap_or_else(|error| panic!("{text}\n{error}"));
                assert_eq!((spec.kind(), spec.method()), (form.kind, method.word));
                let words = method.secrets.iter().map(|secret| secret.word);
                if let Some(main) = method.main_secret() {
                    assert_eq!(spec.secret_word(), main.word);
                    assert!(words.clone().any(|word| word == main.word));
                }
                let stored: Vec<&str> = spec.stored_secrets().map(|stored| stored.field.as_str()).collect();
                for secret in method.secrets {
                    assert!(stored.contains(&secret.key), "{stored:?}");
                }
            }
        }
    }

    const KEY: &str = "method = \"temp-token\"\napi_key = { stored = true }\n";

    #[test]
    fn a_remote_at_dstor_is_read() {
        let plain = dstor_spec("", KEY).unwrap();
        assert_eq!(
            (plain.network, plain.on_unlink),
            (Network::Production, OnUnlink::Forget)
        );
        assert_eq!(
            (plain.endpoints, plain.index, plain.shared),
            (Endpoints::default(), None, None)
        );
        let full = dstor_spec(
            "network = \"testnet\"\non_unlink = \"deny\"\nindex = \"/lists/mine.json\"\n\
             endpoints = { delete = \"DELETE /v1/files/{hash}\" }",
            &format!("{KEY}lifetime = \"12h\""),
        )
        .unwrap();
        assert_eq!((full.network, full.on_unlink), (Network::Testnet, OnUnlink::Deny));
        let delete = full.endpoints.delete.as_ref().unwrap();
        assert_eq!(delete.to_string(), "DELETE /v1/files/{hash}");
        let shared = "index = { remote = \"team\", path = \"/keymount/a.jsonl\", import = \"/lists/mine\" }";
        let shared = dstor_spec(shared, KEY).unwrap();
        assert_eq!(shared.index.as_deref(), Some(Path::new("/lists/mine")));
        let place = shared.shared.unwrap();
        assert_eq!((place.remote.as_str(), place.path.names().len()), ("team", 2));
        assert_eq!(full.index.as_deref(), Some(Path::new("/lists/mine.json")));
        let DstorAuth::TempToken { lifetime, .. } = full.auth else {
            panic!("{:?} is no key", full.auth)
        };
        assert_eq!(lifetime, Some(Duration::from_secs(12 * 3600)));
        let json = serde_json::to_string(&ProviderSpec::Dstor(full.clone())).unwrap();
        let back: ProviderSpec = serde_json::from_str(&json).unwrap();
        assert_eq!(back, ProviderSpec::Dstor(full));
        let login = "method = \"login\"\nemail = \"me@example.org\"\npassword = { env = \"PASSWORD\" }";
        assert_eq!(dstor_spec("", login).unwrap().auth.method(), "login");
    }

    #[test]
    fn mistakes_in_a_remote_at_dstor_are_named() {
        for (own, auth, words) in [
            ("network = \"mainnet\"", KEY, "network is \"production\" or \"testnet\""),
            ("on_unlink = \"keep\"", KEY, "on_unlink is \"forget\" or \"deny\""),
            ("index = \"mine.json\"", KEY, "must be an absolute path"),
            ("endpoints = { delete = \"GET /v1/{hash}\" }", KEY, "endpoints.delete"),
            ("endpoints = { stat = \"GET /v1/files\" }", KEY, "unknown key"),
            (
                "endpoints = { rename = \"PUT /v1/{hash}\" }",
                KEY,
                "endpoints.rename: \"PUT",
            ),
            (
                "endpoints = { list = \"GET /v1/{path}\" }",
                KEY,
                "a list is asked for as it is",
            ),
            ("index = { remote = \"team\" }", KEY, "index.path is missing"),
            (
                "index = { remote = \"team\", path = \"/\" }",
                KEY,
                "own path at that remote",
            ),
            (
                "index = { remote = \"team\", path = \"a\", merge = true }",
                KEY,
                "unknown key",
            ),
            ("index = 3", KEY, "index must be"),
            (
                "",
                "method = \"temp-token\"\napi_key = \"secret\"",
                "holds the secret itself",
            ),
            (
                "",
                "method = \"temp-token\"\napikey = { stored = true }",
                "did you mean \"api_key\"",
            ),
        ] {
            let error = dstor_spec(own, auth).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let error = dstor_spec("", &format!("{KEY}lifetime = \"soon\"")).unwrap_err();
        assert!(error.contains("lifetime is a time"), "{error}");
    }
}
