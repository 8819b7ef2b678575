//! Reads of a provider: one request in flight per piece whoever asks, filled from and into the cache.
