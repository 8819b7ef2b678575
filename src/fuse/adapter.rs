//! `fuser::Filesystem` in terms of `fs::FileSystem`: arguments in, replies out.
//!
//! Left to the kernel on purpose: permission checks by mode bits (`default_permissions`) and locks (one host).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use super::bridge::Bridge;
use super::translate::{
    access, attr_reply, caller, empty_reply, entry_reply, file_attr, file_type, handle, ino, is_users, look_reply,
    open_flags, open_reply, special, time, xattr_reply,
};
use crate::fs::{Allocation, AttributeChange, Length, RenameMode, Seek, SetMode, Statistics};
use crate::model::{Error, ErrorKind, Special};

/// Requests that the kernel may keep in flight for reads ahead and asynchronous work; its default is 16 (mountpoint-s3
/// uses 64).
const MAX_BACKGROUND: u16 = 64;

/// How deep file systems are stacked when the kernel reads a cached file by itself: the cache is on a plain one, and the
/// mount may still be a layer of another.
const BACKING_DEPTH: u32 = 1;

pub struct Adapter {
    bridge: Bridge,
}

impl Adapter {
    pub fn new(bridge: Bridge) -> Self {
        Self { bridge }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without FUSE_ATOMIC_O_TRUNC: with it a program that runs is emptied before the kernel refuses that.
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_ASYNC_DIO,
        ];
        for flag in wanted {
            // What an older kernel lacks, it does without.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        let reads_files = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
        if reads_files && config.set_max_stack_depth(BACKING_DEPTH).is_ok() {
            self.bridge.fs.kernel_reads_files();
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, name) = (self.bridge.fs.clone(), name.to_owned());
        let work = async move { fs.look(ino(parent), &name).await };
        self.bridge.answer("lookup", ino(parent), work, look_reply(reply));
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.bridge.fs.forget(ino(number), lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let fs = self.bridge.fs.clone();
        let work = async move { fs.attributes(ino(number)).await };
        self.bridge.answer("getattr", ino(number), work, attr_reply(reply));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        fh: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let fs = self.bridge.fs.clone();
        let change = AttributeChange {
            mode,
            uid,
            gid,
            size,
            handle: fh.map(handle),
            accessed: atime.map(time),
            modified: mtime.map(time),
        };
        let work = async move { fs.set_attributes(ino(number), change).await };
        self.bridge.change("setattr", ino(number), work, attr_reply(reply));
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let fs = self.bridge.fs.clone();
        let work = async move { fs.read_link(ino(number)) };
        self.bridge
            .answer("readlink", ino(number), work, move |outcome| match outcome {
                Ok(target) => reply.data(&target),
                Err(errno) => reply.error(errno),
            });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let (fs, name, caller) = (self.bridge.fs.clone(), name.to_owned(), caller(request));
        let names = vec![(ino(parent), name.clone())];
        let work = async move {
            let child = match special(mode, device)? {
                Some(special) => fs.make_special(ino(parent), &name, special, mode & !umask).await?,
                None => fs.make_file(ino(parent), &name, mode, umask).await?,
            };
            fs.give_to(child, ino(parent), caller)
        };
        self.bridge
            .change_names("mknod", ino(parent), names, work, entry_reply(reply));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (fs, name, caller) = (self.bridge.fs.clone(), name.to_owned(), caller(request));
        let names = vec![(ino(parent), name.clone())];
        let special = Special::Symlink(target.as_os_str().as_bytes().into());
        let work = async move {
            let child = fs.make_special(ino(parent), &name, special, 0o777).await?;
            fs.give_to(child, ino(parent), caller)
        };
        self.bridge
            .change_names("symlink", ino(parent), names, work, entry_reply(reply));
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, name) = (self.bridge.fs.clone(), name.to_owned());
        let names = vec![(ino(parent), name.clone())];
        let work = async move { fs.link(ino(number), ino(parent), &name).await };
        self.bridge
            .change_names("link", ino(parent), names, work, entry_reply(reply));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (fs, name, caller) = (self.bridge.fs.clone(), name.to_owned(), caller(request));
        let names = vec![(ino(parent), name.clone())];
        let work = async move {
            let child = fs.make_directory(ino(parent), &name, mode, umask).await?;
            fs.give_to(child, ino(parent), caller)
        };
        self.bridge
            .change_names("mkdir", ino(parent), names, work, entry_reply(reply));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (self.bridge.fs.clone(), name.to_owned());
        let names = vec![(ino(parent), name.clone())];
        let work = async move { fs.unlink(ino(parent), &name).await };
        self.bridge
            .change_names("unlink", ino(parent), names, work, empty_reply(reply));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (self.bridge.fs.clone(), name.to_owned());
        let names = vec![(ino(parent), name.clone())];
        let work = async move { fs.remove_directory(ino(parent), &name).await };
        self.bridge
            .change_names("rmdir", ino(parent), names, work, empty_reply(reply));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (fs, name, new_name): (_, OsString, OsString) = (self.bridge.fs.clone(), name.into(), new_name.into());
        let names = vec![(ino(parent), name.clone()), (ino(new_parent), new_name.clone())];
        let work = async move {
            let mode = if flags.is_empty() {
                RenameMode::Replace
            } else if flags == RenameFlags::RENAME_NOREPLACE {
                RenameMode::KeepExisting
            } else if flags == RenameFlags::RENAME_EXCHANGE {
                return fs.exchange((ino(parent), &name), (ino(new_parent), &new_name)).await;
            } else {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "whiteouts are for the layers of overlay file systems",
                ));
            };
            fs.rename((ino(parent), &name), (ino(new_parent), &new_name), mode)
                .await
        };
        self.bridge
            .change_names("rename", ino(parent), names, work, empty_reply(reply));
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let fs = self.bridge.fs.clone();
        let work = async move { fs.open(ino(number), access(flags)).await };
        let answer = open_reply(self.bridge.fs.clone(), ino(number), reply);
        self.bridge.answer("open", ino(number), work, answer);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (fs, name, caller) = (self.bridge.fs.clone(), name.to_owned(), caller(request));
        let work = async move {
            let access = access(OpenFlags(flags));
            let (child, opened) = fs.create(ino(parent), &name, access, mode, umask).await?;
            let child = fs.give_to(child, ino(parent), caller);
            let child = child.inspect_err(|_| _ = fs.close(opened.handle))?;
            Ok((child, opened))
        };
        self.bridge
            .answer("create", ino(parent), work, move |outcome| match outcome {
                Ok((child, opened)) => {
                    let found = child.keep();
                    let attr = file_attr(&found.attributes);
                    reply.created(
                        &found.ttl,
                        &attr,
                        Generation(0),
                        FileHandle(opened.handle.0),
                        open_flags(&opened.reads),
                    );
                }
                Err(errno) => reply.error(errno),
            });
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = self.bridge.fs.clone();
        let work = async move { fs.read(handle(fh), offset, size as usize).await };
        self.bridge
            .answer("read", ino(number), work, move |outcome| match outcome {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(errno),
            });
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (fs, bytes) = (self.bridge.fs.clone(), Bytes::copy_from_slice(data));
        let written = data.len() as u32;
        // The kernel's idea of the end may be older than another handle's append.
        let offset = (flags.0 & libc::O_APPEND == 0).then_some(offset);
        let work = async move { fs.write(handle(fh), offset, bytes).await };
        self.bridge
            .answer("write", ino(number), work, move |outcome| match outcome {
                Ok(()) => reply.written(written),
                Err(errno) => reply.error(errno),
            });
    }

    fn flush(&self, _: &Request, number: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let fs = self.bridge.fs.clone();
        let work = async move { fs.flush(handle(fh)).await };
        self.bridge.change("flush", ino(number), work, empty_reply(reply));
    }

    fn fsync(&self, _: &Request, number: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        let fs = self.bridge.fs.clone();
        let work = async move { fs.fsync(handle(fh)).await };
        self.bridge.change("fsync", ino(number), work, empty_reply(reply));
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let fs = self.bridge.fs.clone();
        if let Some(ino) = fs.close(handle(fh)) {
            let work = async move { fs.send_closed(ino).await };
            // Nobody sees what comes of it, but `status` shows it.
            self.bridge.change("release", ino, work, |_| ());
        }
        reply.ok();
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let fs = self.bridge.fs.clone();
        let work = async move { fs.open_directory(ino(number)).await };
        self.bridge
            .answer("opendir", ino(number), work, move |outcome| match outcome {
                Ok(opened) => reply.opened(FileHandle(opened.0), FopenFlags::empty()),
                Err(errno) => reply.error(errno),
            });
    }

    fn readdir(&self, _: &Request, number: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let fs = self.bridge.fs.clone();
        let work = async move { fs.read_directory(handle(fh), offset).await };
        self.bridge
            .answer("readdir", ino(number), work, move |outcome| match outcome {
                Ok(entries) => {
                    for (index, entry) in entries.iter().enumerate().skip(offset as usize) {
                        if reply.add(
                            INodeNo(entry.ino.0),
                            index as u64 + 1,
                            file_type(entry.file_type),
                            &entry.name,
                        ) {
                            break;
                        }
                    }
                    reply.ok();
                }
                Err(errno) => reply.error(errno),
            });
    }

    fn readdirplus(&self, _: &Request, number: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let fs = self.bridge.fs.clone();
        let listing = {
            let fs = fs.clone();
            async move { fs.read_directory(handle(fh), offset).await }
        };
        self.bridge.answer("readdirplus", ino(number), listing, move |outcome| {
            let entries = match outcome {
                Ok(entries) => entries,
                Err(errno) => return reply.error(errno),
            };
            let mut rest = entries.iter().enumerate().skip(offset as usize).peekable();
            let kept = rest.peek().and_then(|_| fs.kept_inside(ino(number)));
            for (index, entry) in rest {
                // A child that vanished since is left out; the buffer keeps what is already in it.
                let Ok((found, reference)) = fs.listed_attributes(ino(number), entry, kept.as_ref()) else {
                    continue;
                };
                let attr = file_attr(&found.attributes);
                let next = index as u64 + 1;
                if reply.add(attr.ino, next, &entry.name, &found.ttl, &attr, Generation(0)) {
                    break;
                }
                if let Some(reference) = reference {
                    reference.keep();
                }
            }
            reply.ok();
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.bridge.fs.close_directory(handle(fh));
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let fs = self.bridge.fs.clone();
        let work = async move { fs.sync_names().await };
        self.bridge.answer("fsyncdir", ino(number), work, empty_reply(reply));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let fs = self.bridge.fs.clone();
        self.bridge.detached(async move {
            let Statistics {
                blocks,
                free,
                max_name,
                block_size,
            } = fs.statistics();
            reply.statfs(blocks, free, free, 0, 0, block_size, max_name, block_size);
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        if !is_users(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let (fs, name, value) = (self.bridge.fs.clone(), name.to_owned(), value.to_vec());
        let mode = match flags {
            libc::XATTR_CREATE => SetMode::Create,
            libc::XATTR_REPLACE => SetMode::Replace,
            _ => SetMode::Any,
        };
        let work = async move { fs.set_xattr(ino(number), &name, &value, mode).await };
        self.bridge.change("setxattr", ino(number), work, empty_reply(reply));
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !is_users(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let (fs, name) = (self.bridge.fs.clone(), name.to_owned());
        let work = async move { fs.get_xattr(ino(number), &name).await };
        self.bridge
            .answer("getxattr", ino(number), work, xattr_reply(size, reply));
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let fs = self.bridge.fs.clone();
        let work = async move {
            let names = fs.list_xattrs(ino(number)).await?;
            Ok(names
                .into_iter()
                .flat_map(|name| name.into_bytes().into_iter().chain([0]))
                .collect())
        };
        self.bridge
            .answer("listxattr", ino(number), work, xattr_reply(size, reply));
    }

    fn removexattr(&self, _: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (self.bridge.fs.clone(), name.to_owned());
        let work = async move { fs.remove_xattr(ino(number), &name).await };
        self.bridge.change("removexattr", ino(number), work, empty_reply(reply));
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let keeps = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let what = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => Allocation::Room,
            libc::FALLOC_FL_ZERO_RANGE => Allocation::Zeros,
            // The only form there is (fallocate(2)).
            libc::FALLOC_FL_PUNCH_HOLE if keeps => Allocation::Zeros,
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        let size = if keeps { Length::Stays } else { Length::Grows };
        let Some(end) = offset.checked_add(length) else {
            return reply.error(Errno::EFBIG);
        };
        let fs = self.bridge.fs.clone();
        let work = async move { fs.allocate(handle(fh), offset..end, what, size).await };
        self.bridge.answer("fallocate", ino(number), work, empty_reply(reply));
    }

    fn lseek(&self, _: &Request, number: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        let fs = self.bridge.fs.clone();
        let work = async move { fs.seek(handle(fh), offset, what).await };
        self.bridge
            .answer("lseek", ino(number), work, move |outcome| match outcome {
                Ok(Some(place)) => reply.offset(place as i64),
                Ok(None) => reply.error(Errno::ENXIO),
                Err(errno) => reply.error(errno),
            });
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        number: INodeNo,
        to: FileHandle,
        to_offset: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let fs = self.bridge.fs.clone();
        let work = async move {
            fs.copy_range((handle(from), from_offset), (handle(to), to_offset), len)
                .await
        };
        self.bridge
            .answer("copy_file_range", ino(number), work, move |outcome| match outcome {
                Ok(copied) => reply.written(copied),
                Err(errno) => reply.error(errno),
            });
    }
}
