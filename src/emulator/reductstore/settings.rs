//! A bucket's settings.
//!
//! Responsible for their defaults and for documents that change some of them. Not responsible for keeping a quota.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum QuotaType {
    None,
    Fifo,
    Hard,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Settings {
    pub(super) quota_type: QuotaType,
    pub(super) quota_size: u64,
    pub(super) max_block_size: u64,
    pub(super) max_block_records: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            quota_type: QuotaType::None,
            quota_size: 0,
            max_block_size: 64_000_000,
            max_block_records: 1024,
        }
    }
}

/// The members of a settings document that were sent; unknown ones are ignored (measured).
#[derive(Debug, Default, Deserialize)]
pub(super) struct SettingsUpdate {
    quota_type: Option<QuotaType>,
    quota_size: Option<u64>,
    max_block_size: Option<u64>,
    max_block_records: Option<u64>,
}

impl Settings {
    pub(super) fn apply(&mut self, update: &SettingsUpdate) {
        self.quota_type = update.quota_type.unwrap_or(self.quota_type);
        self.quota_size = update.quota_size.unwrap_or(self.quota_size);
        self.max_block_size = update.max_block_size.unwrap_or(self.max_block_size);
        self.max_block_records = update.max_block_records.unwrap_or(self.max_block_records);
    }
}
