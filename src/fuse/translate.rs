//! The kernel's words and the file system's: numbers, types, attributes, and the forms of replies.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, OpenAccMode, OpenFlags, ReplyAttr,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr, Request, TimeOrNow,
};

use crate::fs::{Access, Attributes, Caller, Child, FileSystem, Found, HandleId, HandleReads, Ino, Looked, Opened};
use crate::model::{self, Error, ErrorKind, Result, Special};

/// What `stat` shows as the preferred size of reads and writes, in bytes: the largest WRITE that the kernel sends.
const BLOCK_SIZE: u32 = 1 << 20;

/// What the kernel takes for nothing: only its number counts (`fuse_lookup_name` in `fs/fuse/dir.c`).
const NOTHING: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: SystemTime::UNIX_EPOCH,
    mtime: SystemTime::UNIX_EPOCH,
    ctime: SystemTime::UNIX_EPOCH,
    crtime: SystemTime::UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

pub(super) fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

pub(super) fn handle(number: FileHandle) -> HandleId {
    HandleId(number.0)
}

pub(super) fn file_type(node_type: model::FileType) -> FileType {
    match node_type {
        model::FileType::File => FileType::RegularFile,
        model::FileType::Directory => FileType::Directory,
        model::FileType::Symlink => FileType::Symlink,
        model::FileType::Fifo => FileType::NamedPipe,
        model::FileType::Socket => FileType::Socket,
        model::FileType::BlockDevice => FileType::BlockDevice,
        model::FileType::CharacterDevice => FileType::CharDevice,
    }
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
    }
}

/// What `mknod` was asked for; `None` for a file.
pub(super) fn special(mode: u32, device: u32) -> Result<Option<Special>> {
    Ok(match mode & libc::S_IFMT {
        0 | libc::S_IFREG => None,
        libc::S_IFIFO => Some(Special::Fifo),
        libc::S_IFSOCK => Some(Special::Socket),
        libc::S_IFBLK => Some(Special::BlockDevice(device)),
        libc::S_IFCHR => Some(Special::CharacterDevice(device)),
        _ => return Err(Error::new(ErrorKind::InvalidInput, "that is no type of a node")),
    })
}

pub(super) fn file_attr(attributes: &Attributes) -> FileAttr {
    let Attributes {
        ino,
        kind: _,
        file_type: node_type,
        size,
        mode,
        uid,
        gid,
        modified,
        accessed,
        changed,
        links,
        device,
    } = *attributes;
    FileAttr {
        ino: INodeNo(ino.0),
        size,
        blocks: size.div_ceil(512),
        atime: accessed,
        mtime: modified,
        ctime: changed,
        crtime: modified,
        kind: file_type(node_type),
        perm: mode as u16,
        nlink: links,
        uid,
        gid,
        rdev: device,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

pub(super) fn access(flags: OpenFlags) -> Access {
    match flags.acc_mode() {
        OpenAccMode::O_RDONLY => Access::Read,
        OpenAccMode::O_WRONLY => Access::Write,
        OpenAccMode::O_RDWR => Access::ReadWrite,
    }
}

pub(super) fn open_flags(reads: &HandleReads) -> FopenFlags {
    match reads {
        HandleReads::KeepPages => FopenFlags::FOPEN_KEEP_CACHE,
        HandleReads::Anew | HandleReads::Itself(_) => FopenFlags::empty(),
    }
}

pub(super) fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

/// Whether a provider could keep such an attribute. The kernel and programs that copy ask for the others, of access lists
/// and security modules, with every file and every write; they are answered without a task and a line in the log.
pub(super) fn is_users(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"user.")
}

pub(super) fn entry_reply(reply: ReplyEntry) -> impl FnOnce(Result<Child, Errno>) + Send + 'static {
    move |outcome| match outcome {
        Ok(child) => {
            let found = child.keep();
            reply.entry(&found.ttl, &file_attr(&found.attributes), Generation(0));
        }
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn look_reply(reply: ReplyEntry) -> impl FnOnce(Result<Looked, Errno>) + Send + 'static {
    move |outcome| match outcome {
        Ok(Looked::There(child)) => entry_reply(reply)(Ok(child)),
        Ok(Looked::Missing { stays }) => reply.entry_with_ttls(&Duration::ZERO, &stays, &NOTHING, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn attr_reply(reply: ReplyAttr) -> impl FnOnce(Result<Found, Errno>) + Send + 'static {
    move |outcome| match outcome {
        Ok(found) => reply.attr(&found.ttl, &file_attr(&found.attributes)),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn empty_reply(reply: ReplyEmpty) -> impl FnOnce(Result<(), Errno>) + Send + 'static {
    move |outcome| match outcome {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn open_reply(
    fs: Arc<FileSystem>,
    number: Ino,
    reply: ReplyOpen,
) -> impl FnOnce(Result<Opened, Errno>) + Send + 'static {
    move |outcome| match outcome {
        Ok(opened) => {
            let (handle, flags) = (FileHandle(opened.handle.0), open_flags(&opened.reads));
            let HandleReads::Itself(backing) = &opened.reads else {
                return reply.opened(handle, flags);
            };
            match backing.registered(|file| reply.open_backing(file).ok()) {
                Some(id) => reply.opened_passthrough(handle, flags, id),
                None => {
                    fs.kernel_reads_no_files(number);
                    reply.opened(handle, flags);
                }
            }
        }
        Err(errno) => reply.error(errno),
    }
}

/// Both forms of an extended attribute's answer: its size, or its bytes if they fit.
pub(super) fn xattr_reply(size: u32, reply: ReplyXattr) -> impl FnOnce(Result<Vec<u8>, Errno>) + Send + 'static {
    move |outcome| match outcome {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(errno) => reply.error(errno),
    }
}
