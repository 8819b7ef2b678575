//! Which errno an error is. The only place that says so.

use fuser::Errno;

use crate::model::{Error, ErrorKind};

pub fn errno(error: &Error) -> Errno {
    match error.kind() {
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::AlreadyExists => Errno::EEXIST,
        ErrorKind::NotEmpty => Errno::ENOTEMPTY,
        ErrorKind::NotADirectory => Errno::ENOTDIR,
        ErrorKind::IsADirectory => Errno::EISDIR,
        ErrorKind::InvalidName | ErrorKind::InvalidInput => Errno::EINVAL,
        ErrorKind::NameTooLong => Errno::ENAMETOOLONG,
        ErrorKind::Denied | ErrorKind::NeedsLogin => Errno::EACCES,
        ErrorKind::NotPermitted => Errno::EPERM,
        ErrorKind::ReadOnly => Errno::EROFS,
        ErrorKind::Changed => Errno::ESTALE,
        ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        ErrorKind::CrossDevice => Errno::EXDEV,
        ErrorKind::Quota => Errno::EDQUOT,
        ErrorKind::NoSpace => Errno::ENOSPC,
        ErrorKind::TooLarge => Errno::EFBIG,
        ErrorKind::RateLimited { .. } => Errno::EAGAIN,
        ErrorKind::TimedOut | ErrorKind::Unreachable => Errno::ETIMEDOUT,
        ErrorKind::Busy => Errno::EBUSY,
        ErrorKind::BadHandle => Errno::EBADF,
        ErrorKind::NoAttribute => Errno::ENODATA,
        ErrorKind::AttributeBufferTooSmall => Errno::ERANGE,
        ErrorKind::BadData | ErrorKind::Internal => Errno::EIO,
    }
}
