//! The kernel side: the only room that names `fuser`.
