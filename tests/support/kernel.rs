//! What the kernel makes of one call of a program, where that is more than one of the file system.

use keymount::fs::{Access, AttributeChange, FileSystem, Ino, Opened};
use keymount::model::Result;

/// `open` with O_TRUNC.
pub async fn open_emptied(fs: &FileSystem, ino: Ino, access: Access) -> Result<Opened> {
    let opened = fs.open(ino, access).await?;
    let emptied = AttributeChange {
        size: Some(0),
        handle: Some(opened.handle),
        ..Default::default()
    };
    let done = fs.set_attributes(ino, emptied).await;
    done.inspect_err(|_| _ = fs.close(opened.handle))?;
    Ok(opened)
}
