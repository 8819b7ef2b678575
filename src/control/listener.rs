//! The socket itself: private by its mode, its directory and a look at who calls.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::serve::Listener;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use crate::model::{Error, Result};
use crate::paths::{own_uid, runtime_directory};

/// How long to wait after a failed accept, such as too many open files.
const AFTER_FAILURE: std::time::Duration = std::time::Duration::from_millis(200);

/// What a socket's name ends with until it is listened to; as long as `sock`, for names of sockets have a limit.
const UNFINISHED: &str = "bind";

/// Accepts connections of one's own user and of root, and drops all others.
#[derive(Debug)]
pub struct GuardedListener {
    inner: UnixListener,
    own_uid: u32,
}

/// Opens the socket with mode 0600 in a directory of mode 0700.
///
/// # Errors
/// `Denied` when the directory isn't safe, and as the local disk says.
pub fn bind(socket: &Path) -> Result<GuardedListener> {
    if let Some(folder) = socket.parent() {
        runtime_directory(folder)?;
    }
    let named = |error: std::io::Error| Error::from(error).context(socket.display());
    // Found before anybody listens, it would be taken for that of a dead daemon.
    let unfinished = socket.with_extension(UNFINISHED);
    // One of this name was left by a dead process with our process id.
    let _ = std::fs::remove_file(&unfinished);
    let inner = UnixListener::bind(&unfinished).map_err(named)?;
    std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o600)).map_err(named)?;
    std::fs::rename(&unfinished, socket).map_err(named)?;
    Ok(GuardedListener {
        inner,
        own_uid: own_uid(),
    })
}

/// Who may call: the daemon's own user and root, who can read its memory anyway.
fn may_call(uid: u32, own_uid: u32) -> bool {
    uid == own_uid || uid == 0
}

impl Listener for GuardedListener {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = match self.inner.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a control connection failed");
                    tokio::time::sleep(AFTER_FAILURE).await;
                    continue;
                }
            };
            match stream.peer_cred() {
                Ok(peer) if may_call(peer.uid(), self.own_uid) => return (stream, address),
                Ok(peer) => warn!(uid = peer.uid(), "a control connection of another user was refused"),
                Err(error) => warn!(%error, "a control connection without a known user was refused"),
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use tokio::io::AsyncReadExt;

    #[test]
    fn only_the_owner_and_root_may_call() {
        assert!(may_call(1000, 1000));
        assert!(may_call(0, 1000));
        assert!(!may_call(1001, 1000));
        assert!(!may_call(1000, 0));
    }

    #[tokio::test]
    async fn a_stranger_gets_no_connection_and_the_owner_does() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("runtime/daemon-1.sock");
        let mut listener = bind(&socket).unwrap();
        assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);

        // To a listener of another user this process is a stranger, unless it is root.
        listener.own_uid = own_uid().wrapping_add(1);
        let accepting = tokio::spawn(async move { listener.accept().await });
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        if own_uid() == 0 {
            accepting.await.unwrap();
        } else {
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
            accepting.abort();
        }
    }

    #[tokio::test]
    async fn a_dead_daemons_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("runtime/daemon-1.sock");
        drop(bind(&socket).unwrap());
        assert!(socket.exists());
        bind(&socket).unwrap();
    }
}
