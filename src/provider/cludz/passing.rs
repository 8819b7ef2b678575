//! Temporary names that are in use at the moment: nobody else is to see or touch them.
//!
//! They go along when this mount gives a folder above them another name. What is left of them after a crash is shown.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

#[derive(Default)]
pub(super) struct PassingNames {
    paths: Mutex<Vec<Arc<Mutex<String>>>>,
}

/// Keeps a temporary name out of listings while it lives.
pub(super) struct Passing<'a> {
    names: &'a PassingNames,
    path: Arc<Mutex<String>>,
}

impl PassingNames {
    pub(super) fn enter(&self, path: &str) -> Passing<'_> {
        let path = Arc::new(Mutex::new(path.to_owned()));
        self.paths.lock().push(Arc::clone(&path));
        Passing { names: self, path }
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        self.paths.lock().iter().any(|passing| *passing.lock() == path)
    }

    pub(super) fn paths(&self) -> HashSet<String> {
        self.paths.lock().iter().map(|path| path.lock().clone()).collect()
    }

    /// What had the path `old` has the path `new` now.
    pub(super) fn follow(&self, old: &str, new: &str) {
        for path in self.paths.lock().iter() {
            let mut path = path.lock();
            if let Some(below) = path.strip_prefix(old).filter(|below| below.starts_with('/')) {
                *path = format!("{new}{below}");
            }
        }
    }
}

impl Passing<'_> {
    /// Where it is now.
    pub(super) fn path(&self) -> String {
        self.path.lock().clone()
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.names.paths.lock().retain(|path| !Arc::ptr_eq(path, &self.path));
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
