//! How fast bytes may move.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// The most bytes a second in each direction; as fast as it goes without a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// To the provider.
    pub up: Option<NonZeroU64>,
    /// From the provider.
    pub down: Option<NonZeroU64>,
}
