//! Blocks of object versions that were read before: in memory and on disk, capped in bytes.
