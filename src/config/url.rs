//! Remotes given as an address, without a configuration: `cludz://UUID/path`, `reductstore://host/bucket/entry`.

use percent_encoding::percent_decode_str;
use url::Url;
use uuid::Uuid;

use super::{ConfigError, OptionLayer, ResolvedRemote, providers, suggestion};
use crate::provider::registry::{
    CloudSyncAuth, CloudSyncSpec, CludzAuth, CludzSpec, DstorSpec, ProviderSpec, REDUCTSTORE_PORT, RecordNames,
    ReductstoreAuth, ReductstoreSpec, RemotePath, S3Spec, StorraSpec, WebdavAuth, WebdavSpec,
};

const SCHEMES: [&str; 9] = [
    "cludz",
    "cloudsync",
    "storra",
    "dstor",
    "reductstore",
    "reductstores",
    "s3",
    "webdav",
    "webdavs",
];

/// An address's parts, none of them a secret.
struct Address<'a> {
    scheme: &'a str,
    host: &'a str,
    path: String,
}

/// Reads an address; the credential comes from the variables that people already have.
///
/// # Errors
/// When it is malformed, has an unknown scheme, or holds a secret.
pub fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<ResolvedRemote, ConfigError> {
    let address = split(text)?;
    let path: RemotePath = address.path.parse().map_err(said)?;
    let (provider, endpoint, path) = match address.scheme {
        "cludz" => {
            let storage = Uuid::parse_str(address.host).map_err(|_| {
                ConfigError::new("after cludz:// comes the drive's id, a UUID: cludz://UUID or cludz://UUID/folder")
            })?;
            let auth = CludzAuth::from_environment(environment);
            at_own_endpoint(ProviderSpec::Cludz(CludzSpec { storage, auth }), path)?
        }
        "cloudsync" => {
            let auth = CloudSyncAuth::from_environment(environment).map_err(said)?;
            let workspace = (!address.host.is_empty()).then(|| decoded(address.host)).transpose()?;
            if workspace.is_none() && !path.is_root() {
                return Err(ConfigError::new(
                    "after cloudsync:// comes the workspace: cloudsync://workspace/folder",
                ));
            }
            at_own_endpoint(ProviderSpec::CloudSync(CloudSyncSpec { workspace, auth }), path)?
        }
        "storra" => {
            let spec = StorraSpec::from_environment(environment).map_err(said)?;
            at_own_endpoint(ProviderSpec::Storra(spec), address.whole_path()?)?
        }
        "dstor" => {
            let spec = DstorSpec::from_environment(environment).map_err(said)?;
            at_own_endpoint(ProviderSpec::Dstor(spec), address.whole_path()?)?
        }
        "reductstore" => reductstore("http", Some(REDUCTSTORE_PORT), address.host, path, environment)?,
        "reductstores" => reductstore("https", None, address.host, path, environment)?,
        "s3" => s3(address.host, path, environment)?,
        "webdav" => webdav("http", address.host, path, environment)?,
        "webdavs" => webdav("https", address.host, path, environment)?,
        unknown => {
            return Err(ConfigError::new(format!(
                "{unknown}:// is not an address keymount knows (there are {}){}",
                SCHEMES.map(|scheme| format!("{scheme}://")).join(", "),
                suggestion(unknown, SCHEMES)
            )));
        }
    };
    Ok(ResolvedRemote {
        name: text.to_owned(),
        provider,
        endpoint,
        path,
        rights: None,
        insecure: false,
        options: OptionLayer::default(),
        shared_index: None,
    })
}

impl Address<'_> {
    /// The path of a provider that needs no host.
    fn whole_path(&self) -> Result<RemotePath, ConfigError> {
        format!("{}/{}", decoded(self.host)?, self.path).parse().map_err(said)
    }
}

fn said(error: crate::model::Error) -> ConfigError {
    ConfigError::new(error.message())
}

fn at_own_endpoint(provider: ProviderSpec, path: RemotePath) -> Result<(ProviderSpec, Url, RemotePath), ConfigError> {
    let endpoint = provider
        .default_endpoint()
        .ok_or_else(|| ConfigError::new(format!("the address of {} is malformed", provider.kind())))?;
    Ok((provider, endpoint, path))
}

fn decoded(text: &str) -> Result<String, ConfigError> {
    let decoded = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| ConfigError::new("the address's path is not UTF-8"))?;
    Ok(decoded.into_owned())
}

fn split(text: &str) -> Result<Address<'_>, ConfigError> {
    let secret = || {
        ConfigError::new(
            "an address must not hold a user, a token or a query: everybody can read command lines; \
             put the token into KEYMOUNT_TOKEN or the provider's own variable, or configure a remote",
        )
    };
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if rest.contains(['?', '#']) {
        return Err(secret());
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return Err(secret());
    }
    Ok(Address {
        scheme,
        host,
        path: decoded(path)?,
    })
}

fn reductstore(
    scheme: &str,
    default_port: Option<u16>,
    host: &str,
    path: RemotePath,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(ProviderSpec, Url, RemotePath), ConfigError> {
    let malformed = || ConfigError::new("after reductstore:// comes a host: reductstore://host:8383/bucket");
    let mut endpoint = server(scheme, host).ok_or_else(malformed)?;
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    if !has_port && let Some(port) = default_port {
        endpoint.set_port(Some(port)).map_err(|()| malformed())?;
    }
    let (bucket, path) = match path.split_first() {
        Some((bucket, rest)) => (Some(bucket.to_string()), rest),
        None => (None, RemotePath::default()),
    };
    let provider = ProviderSpec::Reductstore(ReductstoreSpec {
        bucket,
        names: RecordNames::default(),
        auth: ReductstoreAuth::from_environment(environment),
        keys_auth: None,
    });
    Ok((provider, endpoint, path))
}

fn s3(
    bucket: &str,
    path: RemotePath,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(ProviderSpec, Url, RemotePath), ConfigError> {
    providers::check_bucket("what follows s3://", bucket)?;
    let (spec, endpoint) = S3Spec::from_environment(bucket.to_owned(), environment);
    let provider = ProviderSpec::S3(spec);
    match endpoint {
        Some((variable, text)) => {
            let endpoint = providers::address(variable, &text)?;
            Ok((provider, endpoint, path))
        }
        None => at_own_endpoint(provider, path),
    }
}

/// The whole path is the directory to mount: which part of it the server answers at isn't known, and needn't be.
fn webdav(
    scheme: &str,
    host: &str,
    path: RemotePath,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(ProviderSpec, Url, RemotePath), ConfigError> {
    let endpoint =
        server(scheme, host).ok_or_else(|| ConfigError::new("after webdav:// comes a host: webdavs://host/folder"))?;
    let provider = ProviderSpec::Webdav(WebdavSpec {
        root: RemotePath::default(),
        auth: WebdavAuth::from_environment(environment).map_err(said)?,
    });
    Ok((provider, endpoint, path))
}

/// A server's root.
fn server(scheme: &str, host: &str) -> Option<Url> {
    let url = Url::parse(&format!("{scheme}://{host}/")).ok()?;
    url.host_str().is_some_and(|host| !host.is_empty()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVE: &str = "3f0c1f6e-9d2b-4a57-8c64-0e5b7a1d2c3f";

    fn read(text: &str) -> Result<ResolvedRemote, String> {
        parse(text, &|name| (name == "KEYMOUNT_TOKEN").then(|| "canary".to_owned())).map_err(|error| error.to_string())
    }

    #[test]
    fn cludz_addresses() {
        let remote = read(&format!("cludz://{DRIVE}/a%20b/c")).unwrap();
        assert_eq!(remote.endpoint.as_str(), "https://storage.cludz.net/");
        assert_eq!(remote.path.to_string(), "a b/c");
        assert_eq!(remote.variables().collect::<Vec<_>>(), ["KEYMOUNT_TOKEN"]);
        let bare = parse(&format!("cludz://{DRIVE}"), &|_| None).unwrap();
        assert!(bare.path.is_root());
        assert_eq!(bare.provider.secret_source(), None);
    }

    #[test]
    fn reductstore_addresses() {
        for (text, endpoint, bucket, path) in [
            ("reductstore://h", "http://h:8383/", None, ""),
            ("reductstore://h:80/b", "http://h/", Some("b"), ""),
            ("reductstore://[::1]/b/e/f", "http://[::1]:8383/", Some("b"), "e/f"),
            ("reductstore://[::1]:9/b", "http://[::1]:9/", Some("b"), ""),
            ("reductstores://h/b/", "https://h/", Some("b"), ""),
        ] {
            let remote = read(text).unwrap();
            assert_eq!(remote.endpoint.as_str(), endpoint, "{text}");
            assert_eq!(remote.path.to_string(), path, "{text}");
            let ProviderSpec::Reductstore(spec) = remote.provider else {
                panic!("{text}")
            };
            assert_eq!(spec.bucket.as_deref(), bucket, "{text}");
        }
    }

    #[test]
    fn cloudsync_addresses() {
        for (text, workspace, path) in [
            ("cloudsync://", None, ""),
            ("cloudsync://my-project", Some("my-project"), ""),
            ("cloudsync://ws_abc123/a%20b/c", Some("ws_abc123"), "a b/c"),
        ] {
            let remote = read(text).unwrap();
            assert_eq!(remote.endpoint.as_str(), "https://api.cloudsync.io/v1", "{text}");
            assert_eq!(remote.path.to_string(), path, "{text}");
            let ProviderSpec::CloudSync(spec) = remote.provider else {
                panic!("{text}")
            };
            assert_eq!(spec.workspace.as_deref(), workspace, "{text}");
            assert!(matches!(spec.auth, CloudSyncAuth::ApiKey { .. }), "{text}");
        }
        let token = parse("cloudsync://w", &|name| {
            (name == "CLOUDSYNC_ACCESS_TOKEN").then(|| "canary".to_owned())
        });
        let ProviderSpec::CloudSync(spec) = token.unwrap().provider else {
            panic!("a CloudSync remote")
        };
        assert!(matches!(spec.auth, CloudSyncAuth::AccessToken { .. }));
        let error = parse("cloudsync://w", &|_| None).unwrap_err().to_string();
        assert!(error.contains("CLOUDSYNC_API_KEY"), "{error}");
    }

    #[test]
    fn s3_addresses() {
        let remote = parse("s3://my.bucket/a/b", &|_| None).unwrap();
        assert_eq!(remote.endpoint.as_str(), "https://s3.us-east-1.amazonaws.com/");
        assert_eq!(remote.path.to_string(), "a/b");
        let variables: Vec<&str> = remote.variables().collect();
        assert_eq!(
            variables,
            ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
        );
        let elsewhere = |name: &str| match name {
            "AWS_REGION" => Some("eu-west-1".to_owned()),
            "AWS_ENDPOINT_URL" => Some("http://127.0.0.1:9000".to_owned()),
            _ => None,
        };
        let remote = parse("s3://b", &elsewhere).unwrap();
        assert_eq!(remote.endpoint.as_str(), "http://127.0.0.1:9000/");
        let ProviderSpec::S3(spec) = remote.provider else {
            panic!("a bucket")
        };
        assert_eq!((spec.bucket.as_str(), spec.region.as_str()), ("b", "eu-west-1"));
        for text in ["s3://", "s3:///x", "s3://b%20c/x"] {
            assert!(read(text).unwrap_err().contains("a bucket's name"), "{text}");
        }
    }

    #[test]
    fn webdav_addresses() {
        for (text, endpoint, path) in [
            ("webdav://h:8080/a%20b/c", "http://h:8080/", "a b/c"),
            ("webdavs://h", "https://h/", ""),
            (
                "webdavs://[::1]:9/remote.php/dav/",
                "https://[::1]:9/",
                "remote.php/dav",
            ),
        ] {
            let remote = read(text).unwrap();
            assert_eq!(remote.endpoint.as_str(), endpoint, "{text}");
            assert_eq!(remote.path.to_string(), path, "{text}");
            assert_eq!(remote.variables().collect::<Vec<_>>(), ["KEYMOUNT_TOKEN"], "{text}");
        }
    }

    #[test]
    fn an_address_with_a_secret_is_refused_and_not_repeated() {
        for text in [
            &format!("cludz://canary@{DRIVE}"),
            &format!("cludz://{DRIVE}?token=canary"),
            "reductstore://user:canary@host/b",
            "reductstores://host/b?canary",
            "reductstores://host/b#canary",
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains("KEYMOUNT_TOKEN"), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn malformed_addresses_say_what_is_expected() {
        for (text, part) in [
            ("cludz://drive", "a UUID"),
            ("reductstore:///b", "comes a host"),
            ("webdav:///b", "comes a host"),
            ("cluds://x", "did you mean \"cludz\"?"),
            ("s4://x", "there are cludz://"),
            ("reductstore://h/b/../c", "cannot be mounted"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
