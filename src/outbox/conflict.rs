//! Whose a conflicting version is, and what it is called.

pub use crate::model::conflict_name as name;

/// Today, by this machine's clock and time zone: the day that its user would write.
pub fn date() -> String {
    jiff::Zoned::now().date().to_string()
}

/// This machine's name, without what a file's name cannot hold everywhere.
pub fn host() -> String {
    let name = rustix::system::uname();
    let name: String = name
        .nodename()
        .to_string_lossy()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .take(20)
        .collect();
    if name.is_empty() { "here".to_owned() } else { name }
}
