//! Temporary names that are in use at the moment: nobody else is to see or touch them.
//!
//! They go along when this mount gives a folder above them another name. What is left of them after a crash is shown.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

#[derive(Default)]
pub(super) struct PassingNames {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    paths: HashMap<u64, String>,
}

/// Keeps a temporary name out of listings while it lives.
pub(super) struct Passing<'a> {
    names: &'a PassingNames,
    number: u64,
}

impl PassingNames {
    pub(super) fn enter(&self, path: &str) -> Passing<'_> {
        let mut inner = self.inner.lock();
        let number = inner.next;
        inner.next += 1;
        inner.paths.insert(number, path.to_owned());
        Passing { names: self, number }
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        self.inner.lock().paths.values().any(|passing| passing == path)
    }

    pub(super) fn paths(&self) -> HashSet<String> {
        self.inner.lock().paths.values().cloned().collect()
    }

    /// A folder got another path.
    pub(super) fn follow(&self, old: &str, new: &str) {
        for path in self.inner.lock().paths.values_mut() {
            if let Some(below) = path.strip_prefix(old).filter(|below| below.starts_with('/')) {
                *path = format!("{new}{below}");
            }
        }
    }
}

impl Passing<'_> {
    /// Where it is now.
    pub(super) fn path(&self) -> String {
        self.names
            .inner
            .lock()
            .paths
            .get(&self.number)
            .cloned()
            .unwrap_or_default()
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.names.inner.lock().paths.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_along_with_the_folders_above_it() {
        let names = PassingNames::default();
        let (inside, beside) = (names.enter("a/b/t"), names.enter("a/bc"));
        names.follow("a/b", "a/c");
        names.follow("a", "z");
        assert_eq!((inside.path().as_str(), beside.path().as_str()), ("z/c/t", "z/bc"));
        drop(inside);
        assert_eq!(names.paths(), ["z/bc".to_owned()].into());
        assert!(names.contains("z/bc") && !names.contains("z/c/t"));
    }
}
