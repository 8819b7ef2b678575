//! Where everything is on disk. The only place that says so.
