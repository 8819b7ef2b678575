//! `keymount demo`: what a newcomer sees first.

use crate::sandbox::{Sandbox, Who, until};

#[test]
fn the_demo_shows_every_share_and_cleans_up() {
    for who in Who::everybody() {
        let person = Sandbox::new(who);
        let folder = person.path("work/demo");
        let mut demo = person.start_keymount(["demo".as_ref(), folder.as_os_str()]);
        let said = demo.wait_for("Ctrl-C");
        assert!(said.contains("ls -l"), "{said}");
        let shell = |script: &str| person.sh(&format!("cd {} && {script}", folder.display()));
        let shares: Vec<String> = shell("ls").ok().lines().map(str::to_owned).collect();
        for share in [
            "cludz-owner",
            "cludz-read-only",
            "cludz-no-delete",
            "cludz-public",
            "cloudsync",
            "cloudsync-viewer",
            "reductstore",
            "reductstore-read-only",
            "dstor",
        ] {
            assert!(
                shares.iter().any(|shown| shown == share),
                "{share} is not among {shares:?}"
            );
        }
        let mode = |share: &str| shell(&format!("stat -c %A {share}")).ok().trim().to_owned();
        assert_eq!(mode("cludz-owner"), "drwxr-xr-x");
        assert_eq!(mode("cludz-read-only"), "dr-xr-xr-x");
        assert_eq!(mode("cludz-no-delete"), "drwxr-xr-t");
        assert_eq!(mode("reductstore-read-only"), "dr-xr-xr-x");
        assert_eq!(mode("cloudsync"), "drwxr-xr-x");
        assert_eq!(mode("cloudsync-viewer"), "dr-xr-xr-x");
        shell("mkdir cloudsync/new-workspace && echo hello > cloudsync/new-workspace/hello").ok();
        shell("echo x > cloudsync-viewer/x").refused("Permission denied");
        shell("test -n \"$(find . -type f | head -n 1)\" && find . -type f -exec cat {} + > /dev/null").ok();
        shell("echo hello > cludz-owner/hello && cat cludz-owner/hello && rm cludz-owner/hello").ok();
        shell("echo hello > dstor/hello && sync dstor/hello && cat dstor/hello && rm dstor/hello").ok();
        shell("echo x > cludz-read-only/x").refused("Permission denied");
        assert!(person.keymount(["status"]).ok().contains("cludz-owner"));
        demo.signal("TERM");
        demo.wait().ok();
        until("the folder's end", || !folder.exists());
    }
}
