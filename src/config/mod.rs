//! What a person configured: remotes, where their secrets are kept, mount options.
//!
//! It reads and checks; it fetches no secret and calls no provider. Its results hold no secret, so they may be written
//! anywhere.

mod edit;
mod file;
mod keys;
pub mod options;
mod providers;
mod source;
mod url;

pub use edit::{NewRemote, Place, Setting, Written};
pub use file::{Config, ConfiguredRemote};
pub use options::{DiskCacheUse, MountOptions, OPTIONS, OptionLayer, OptionSpec, WithoutLogin};

use ::url::Url;
use serde::{Deserialize, Serialize};

pub use crate::model::Bandwidth;
use crate::model::Rights;
use crate::provider::registry::{ProviderSpec, RemotePath};

/// What is wrong with the configuration or with the name of a remote, as a sentence without any secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

/// One remote, ready to be mounted. Free of secrets: it names where they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResolvedRemote {
    /// The name in the configuration, or the address that was given in its place.
    pub name: String,
    #[serde(flatten)]
    pub provider: ProviderSpec,
    pub endpoint: Url,
    /// The directory of the remote that is mounted.
    pub path: RemotePath,
    /// In place of what the probe finds.
    #[serde(with = "rights_text")]
    pub rights: Option<Rights>,
    /// Whether a credential may travel over plain http to another machine.
    pub insecure: bool,
    /// The remote's own mount options, without what the command line adds.
    pub options: OptionLayer,
    /// The remote that has the index which this one shares with other machines.
    pub shared_index: Option<Box<ResolvedRemote>>,
}

impl ResolvedRemote {
    /// A remote given as an address; its credential comes from the variables that people already have.
    ///
    /// # Errors
    /// When it is malformed, has an unknown scheme, or holds a secret.
    pub fn from_address(address: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        url::parse(address, environment)
    }

    /// How it is mounted: what was typed, over the remote's own options, over those of its provider.
    pub fn mount_options(&self, typed: OptionLayer, uid: u32, gid: u32) -> MountOptions {
        OptionLayer::of_provider(&self.provider)
            .under(self.options.clone())
            .under(typed)
            .resolve(uid, gid)
    }

    /// The variables whose values the person's process must hand over.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let index = self.shared_index.iter().flat_map(|index| index.provider.variables());
        self.provider.variables().chain(index)
    }

    /// The variables whose values the person's process must read to manage keys.
    pub fn key_variables(&self) -> impl Iterator<Item = &str> {
        let index = self.shared_index.iter().flat_map(|index| index.provider.variables());
        self.provider.key_variables().chain(index)
    }

    /// The remote and its directory as they are typed: `drive:photos`.
    pub fn label(&self) -> String {
        if self.path.is_root() || self.name.contains("://") {
            self.name.clone()
        } else {
            format!("{}:{}", self.name, self.path)
        }
    }
}

/// The known word that is most like a wrong one, if any is.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this Jaro-Winkler similarity two words have nothing to do with each other (the bound that clap uses too).
    const ALIKE: f64 = 0.7;
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Words as a sentence has them: `a, b and c`.
pub fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `; did you mean "…"?`, or nothing.
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |candidate| format!("; did you mean {candidate:?}?"))
}

mod rights_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::model::Rights;

    pub fn serialize<S: Serializer>(rights: &Option<Rights>, serializer: S) -> Result<S::Ok, S::Error> {
        rights.map(|rights| rights.to_string()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Rights>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}
