//! Faults a test injects into a stand-in.
//!
//! Responsible for describing faults and for deciding which request gets one. Not responsible for carrying them out:
//! the gate does that.

use std::fmt;
use std::sync::Arc;

use axum::http::Method;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers with this status instead of asking the service.
    Status {
        /// The status.
        status: u16,
        /// Further headers, as name and value.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// Closes the connection without an answer; the service never sees the request.
    DropConnection,
    /// Lets the service do its work, then closes the connection without an answer.
    DropAfterEffect,
    /// Sends the true head, with the whole body's `Content-Length`, and so many bytes of the body; then closes.
    TruncateBody {
        /// Bytes sent before the end.
        after: usize,
    },
    /// Answers 200 with bytes that are neither JSON nor text; the service never sees the request.
    Garbage,
    /// Waits until notified, then goes on to the next rule that matches or to the service.
    Hold(Arc<Notify>),
    /// Answers what the service would and changes nothing.
    LieAboutSuccess,
    /// Serves a different range than the one asked for, and says so in `Content-Range`. No effect without a `Range`
    /// header or on a service that ignores it.
    WrongRange,
    /// Lets the service do its work, then answers with this status in its place.
    StatusAfterEffect {
        /// The status.
        status: u16,
        /// Further headers, as name and value.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
}

impl Fault {
    /// A bare status without headers or body, before the service.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// A bare status without headers or body, after the service did its work.
    pub fn status_after_effect(status: u16) -> Self {
        Self::StatusAfterEffect {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }
}

/// Tells which requests a rule is for: method, and path with query (credentials hidden).
pub type Matcher = Box<dyn Fn(&Method, &str) -> bool + Send + Sync>;

/// A fault, the requests it is for, and how often it happens.
pub struct Rule {
    /// Matching requests.
    pub when: Matcher,
    /// How many matching requests get the fault.
    pub times: usize,
    /// The fault.
    pub fault: Fault,
}

impl Rule {
    /// For requests that `when` accepts, `times` times.
    pub fn when(times: usize, when: impl Fn(&Method, &str) -> bool + Send + Sync + 'static, fault: Fault) -> Self {
        Self {
            when: Box::new(when),
            times,
            fault,
        }
    }

    /// For the next request with this method whose path and query contain `path_contains`.
    pub fn once(method: Method, path_contains: impl Into<String>, fault: Fault) -> Self {
        Self::times(1, method, path_contains, fault)
    }

    /// For the next `times` requests with this method whose path and query contain `path_contains`.
    pub fn times(times: usize, method: Method, path_contains: impl Into<String>, fault: Fault) -> Self {
        let part = path_contains.into();
        Self::when(
            times,
            move |got, target| *got == method && target.contains(&part),
            fault,
        )
    }

    /// For every request with this method whose path and query contain `path_contains`, until cleared.
    pub fn always(method: Method, path_contains: impl Into<String>, fault: Fault) -> Self {
        Self::times(usize::MAX, method, path_contains, fault)
    }

    /// For every request of any kind, until cleared.
    pub fn everything(fault: Fault) -> Self {
        Self::when(usize::MAX, |_, _| true, fault)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("times", &self.times)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

/// The queue of rules: the first that matches a request and isn't used up decides.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Vec<Rule>>,
}

impl Faults {
    /// Appends a rule.
    pub fn inject(&self, rule: Rule) {
        self.rules.lock().push(rule);
    }

    /// Removes every rule. Requests that are held stay held.
    pub fn clear(&self) {
        self.rules.lock().clear();
    }

    /// How many rules still wait for a request.
    pub fn pending(&self) -> usize {
        self.rules.lock().len()
    }

    /// Uses up the first rule for this request; `held` requests skip further holds, so that one rule holds once.
    pub(super) fn take(&self, method: &Method, target: &str, held: bool) -> Option<Fault> {
        let mut rules = self.rules.lock();
        let index = rules.iter().position(|rule| {
            rule.times > 0 && !(held && matches!(rule.fault, Fault::Hold(_))) && (rule.when)(method, target)
        })?;
        let rule = &mut rules[index];
        let fault = rule.fault.clone();
        if rule.times != usize::MAX {
            rule.times -= 1;
        }
        if rule.times == 0 {
            rules.remove(index);
        }
        Some(fault)
    }
}
