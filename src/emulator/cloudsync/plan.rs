//! Plans: how much somebody may store and how often they may ask.
//!
//! Responsible for the limits of each plan and for counting requests. Not responsible for counting what is stored.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::assumptions::RATE_WINDOW;
use super::clock::later;

/// What a plan allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all workspaces of the user; `None` is unlimited.
    pub storage: Option<u64>,
    /// Workspaces of the user; `None` is unlimited.
    pub workspaces: Option<u64>,
    /// Requests a minute.
    pub requests: u32,
}

/// A user's plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// 5 GiB, 3 workspaces, 100 requests a minute (guide, FAQ, "Rate Limiting").
    Free,
    /// 100 GiB, any number of workspaces, 1,000 requests a minute (sample of `GET /v1/me`, "Rate Limiting").
    Pro,
    /// "Custom limits".
    Enterprise(Limits),
}

impl Plan {
    /// A plan that a test never reaches the end of.
    pub fn unlimited() -> Self {
        Self::Enterprise(Limits {
            storage: None,
            workspaces: None,
            requests: 1_000_000,
        })
    }

    /// What it allows.
    pub fn limits(self) -> Limits {
        match self {
            Self::Free => Limits {
                storage: Some(5 << 30),
                workspaces: Some(3),
                requests: 100,
            },
            Self::Pro => Limits {
                storage: Some(100 << 30),
                workspaces: None,
                requests: 1000,
            },
            Self::Enterprise(limits) => limits,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Pro => "pro",
            Self::Enterprise(_) => "enterprise",
        }
    }
}

/// The windows of everybody who asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates(BTreeMap<Option<String>, Window>);

#[derive(Debug, Clone, Copy)]
struct Window {
    ends: Timestamp,
    used: u32,
}

/// What the headers of an answer tell ("Rate Limiting").
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    pub(super) resets: Timestamp,
    pub(super) exceeded: bool,
}

impl Rates {
    /// Counts a request by this user, or by nobody in particular.
    pub(super) fn take(&mut self, user: Option<&str>, limit: u32, now: Timestamp) -> Budget {
        let fresh = Window {
            ends: later(now, RATE_WINDOW),
            used: 0,
        };
        let window = self.0.entry(user.map(str::to_owned)).or_insert(fresh);
        if window.ends <= now {
            *window = fresh;
        }
        let exceeded = window.used >= limit;
        if !exceeded {
            window.used += 1;
        }
        Budget {
            limit,
            remaining: limit.saturating_sub(window.used),
            resets: window.ends,
            exceeded,
        }
    }
}
