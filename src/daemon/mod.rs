//! Builds the stack of a mount and keeps it until it is unmounted.
