//! Where a secret may travel without encryption.

use reqwest::Url;

use crate::model::{Error, ErrorKind, Result};

/// Whether a remote's owner accepts that a credential travels in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// Only to this machine.
    LoopbackOnly,
    Anywhere,
}

impl PlainHttp {
    /// # Errors
    /// `InvalidInput` when the address isn't http or https, has no host, or is plain http to another machine without
    /// permission.
    pub fn check(self, url: &Url) -> Result<()> {
        let invalid = |why: String| Err(Error::new(ErrorKind::InvalidInput, why));
        match url.scheme() {
            "https" => {}
            "http" if self == Self::Anywhere || is_loopback(url) => {}
            "http" => {
                return invalid(format!(
                    "{} is not encrypted and not this machine; use https or set insecure = true",
                    url.origin().ascii_serialization()
                ));
            }
            other => return invalid(format!("an endpoint is http or https, not {other}")),
        }
        if url.cannot_be_a_base() {
            return invalid("the endpoint has no host".to_owned());
        }
        Ok(())
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_travel_in_the_clear_only_where_they_may() {
        let check = |policy: PlainHttp, url: &str| policy.check(&url.parse().unwrap()).is_ok();
        for url in [
            "https://a.example",
            "http://127.0.0.1:1",
            "http://[::1]/x",
            "http://localhost",
        ] {
            assert!(check(PlainHttp::LoopbackOnly, url), "{url}");
        }
        for url in ["http://a.example", "http://localhost.a.example", "http://10.0.0.1"] {
            assert!(!check(PlainHttp::LoopbackOnly, url), "{url}");
            assert!(check(PlainHttp::Anywhere, url), "{url}");
        }
        for url in ["ftp://127.0.0.1", "data:text/plain,x", "file:///etc/passwd"] {
            assert!(!check(PlainHttp::Anywhere, url), "{url}");
        }
    }
}
