//! The file system: inodes, directories, handles, and every operation as an async method with plain arguments.
