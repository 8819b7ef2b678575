//! The end of another process, to be waited for.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process that will end. Held by a descriptor, for its number may be another process's by then.
#[derive(Debug)]
pub struct Ending(OwnedFd);

impl Ending {
    /// `None` when it has ended, or cannot be seen from here.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        pidfd_open(pid, PidfdFlags::empty()).ok().map(Self)
    }

    /// Whether it has ended, which is waited for so long.
    pub async fn within(self, patience: Duration) -> bool {
        tokio::task::spawn_blocking(move || self.is_over(patience))
            .await
            .unwrap_or(false)
    }

    fn is_over(&self, patience: Duration) -> bool {
        let Ok(patience) = Timespec::try_from(patience) else {
            return false;
        };
        let mut process = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut process, Some(&patience)).is_ok_and(|ended| ended > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_noticed_and_not_before() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let ending = Ending::of(child.id()).unwrap();
        assert!(!ending.is_over(Duration::ZERO));
        drop(child.stdin.take());
        assert!(ending.within(Duration::from_secs(60)).await);
        assert!(child.try_wait().unwrap().is_some());
    }
}
