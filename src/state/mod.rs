//! What must outlive the daemon: a small database of local attributes.
