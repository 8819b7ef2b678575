//! The list of cases, what they need from a provider, and the run over them.

mod beside;
mod changes;
mod files;
mod helpers;
mod labels;
mod names;
mod reads;
mod report;
mod trees;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use keymount::model::{ErrorKind, Kind};
use keymount::provider::Provider;

pub use helpers::Bench;
use report::Verdict;

/// One fresh, empty, writable root of a provider. Dropping it cleans up.
#[async_trait]
pub trait Fixture: Send + Sync {
    fn provider(&self) -> Arc<dyn Provider>;

    /// A way to the stored objects that doesn't lead through the provider, to cross-check what it says.
    fn raw(&self) -> Option<&dyn RawStore> {
        None
    }

    /// The folder below the provider's root that is made for the cases, where the root itself holds no files.
    fn workplace(&self) -> Option<&'static str> {
        None
    }

    /// How the provider's rules forbid a name, written down independently of the provider; `max_name_chars` apart.
    fn refuses(&self, _kind: Kind, _name: &str) -> Option<ErrorKind> {
        None
    }

    /// How many requests the service has got so far, where that can be told.
    fn requests(&self) -> Option<usize> {
        None
    }

    /// Cases that cannot apply, each with the reason.
    fn skips(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

/// The store seen past the provider. Paths are relative to the fixture's root, parts divided by `/`.
#[async_trait]
pub trait RawStore: Send + Sync {
    async fn read(&self, path: &str) -> Option<Vec<u8>>;
    /// Stores a file as another client would, over what is there.
    async fn write(&self, path: &str, bytes: &[u8]);
    async fn remove(&self, path: &str);
    /// All names in a folder.
    async fn names(&self, folder: &str) -> Vec<String>;
}

/// How a case ended, unless it panicked.
pub enum Outcome {
    Passed,
    /// The provider's capabilities say that it cannot be.
    NotApplicable(&'static str),
}

struct Case {
    /// What it is about, as its module.
    group: &'static str,
    name: &'static str,
    run: fn(Arc<Bench>) -> BoxFuture<'static, Outcome>,
}

macro_rules! cases {
    ($($module:ident :: { $($case:ident),* $(,)? }),* $(,)?) => {
        &[$($(Case {
            group: stringify!($module),
            name: stringify!($case),
            run: |bench| Box::pin(async move { $module::$case(&bench).await }),
        }),*),*]
    };
}

const CASES: &[Case] = cases![
    files::{
        probe_gives_an_empty_writable_directory,
        an_empty_file,
        a_small_file,
        a_large_file,
        equal_contents_under_two_names,
        every_view_gives_the_same_entry,
        a_version_changes_with_the_content_only,
        upload_over_an_existing_name_is_refused,
        replace_the_expected_version,
        replace_a_stale_version_is_refused,
        replace_a_removed_file_is_refused,
        replace_by_the_same_content,
        replace_content_by_nothing_and_back,
        concurrent_creates_of_one_name_have_one_winner,
        concurrent_creates_of_many_names_all_succeed,
        concurrent_replaces_of_one_version_keep_a_whole_content,
        a_file_above_the_limit_is_refused,
        uploads_are_what_the_store_holds,
        edits_by_others_are_seen,
    },
    reads::{
        ranges_at_every_edge,
        concurrent_reads_of_one_file,
        read_of_a_replaced_version,
        read_of_a_removed_file,
        usage_or_unsupported,
    },
    names::{
        unusual_names_of_files,
        unusual_names_of_directories,
        composed_and_decomposed_names_are_two,
        names_that_differ_in_case_are_two,
        the_longest_name,
        one_character_too_many,
        forbidden_names_are_refused,
        what_check_name_accepts_can_be_made,
        what_check_name_refuses_is_refused_without_asking,
        check_name_where_no_file_can_be,
    },
    trees::{
        a_deep_tree,
        many_entries_in_one_directory,
        an_empty_directory,
        create_over_an_existing_name_is_refused,
        list_of_a_file,
        list_of_a_missing_directory,
        lookup_of_a_missing_name,
        stat_of_a_removed_entry,
        changes_in_a_missing_directory,
    },
    changes::{
        remove_a_file_and_use_its_name_again,
        remove_what_is_missing,
        remove_an_empty_directory,
        removals_beside_uploads_leave_all_others,
        a_directory_that_is_not_empty_stays,
        rename_to_a_free_name,
        rename_to_unusual_names,
        rename_over_a_file,
        rename_over_a_changed_file_is_refused,
        rename_to_a_taken_name_is_refused,
        rename_to_an_impossible_name_is_refused,
        rename_of_a_missing_entry,
        rename_to_another_directory,
        rename_a_directory_with_content,
        rename_a_directory_over_an_empty_one,
    },
    labels::{
        labels_are_kept_and_removed,
        labels_leave_the_content_alone,
    },
    beside::{
        attributes_go_with_the_content,
        attributes_are_changed_alone,
        attributes_go_along_with_a_rename,
        more_than_fits_is_left_out,
    },
];

/// Runs every case on a root of its own, reports the results and fails when a case did.
pub async fn run<F: Fixture + 'static>(label: &'static str, fresh: impl AsyncFn() -> F) {
    let mut results = Vec::new();
    let mut failed = Vec::new();
    let mut known = Vec::new();
    let mut capabilities = None;
    for case in CASES {
        let bench = Bench::open(fresh().await).await;
        capabilities = Some(bench.provider.capabilities().clone());
        known.extend(bench.fixture().skips().iter().map(|(name, _)| *name));
        let skip = bench.fixture().skips().iter().find(|(name, _)| *name == case.name);
        let result = match skip {
            Some((_, reason)) => Verdict::Skipped(reason),
            None => match AssertUnwindSafe((case.run)(bench)).catch_unwind().await {
                Ok(Outcome::Passed) => Verdict::Passed,
                Ok(Outcome::NotApplicable(reason)) => Verdict::NotApplicable(reason),
                Err(_) => {
                    failed.push(case.name);
                    Verdict::Failed
                }
            },
        };
        results.push((case.group, case.name, result));
    }
    report::add(label, capabilities.expect("there are cases"), results);
    assert!(failed.is_empty(), "{label}: {failed:?}");
    let unknown: Vec<_> = known
        .iter()
        .filter(|name| !CASES.iter().any(|case| case.name == **name))
        .collect();
    assert!(unknown.is_empty(), "skips that name no case: {unknown:?}");
}
