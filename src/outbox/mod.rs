//! Changed files on their way to the provider.
