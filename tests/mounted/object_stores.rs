//! S3 and WebDAV, mounted: a tree copied in and out with ordinary tools, at real servers.

use crate::s3_server::{BUCKET, KEY_ID, S3Server, SECRET_KEY};
use crate::sandbox::{Sandbox, Who};
use crate::webdav_server::{DavServer, PASSWORD, USER};
use crate::{s3_server, webdav_server};

/// The server as the remote `store`, with one more line.
pub fn configure_webdav(person: &Sandbox, server: &DavServer, more: &str) {
    let file = person.file("work/password", PASSWORD, 0o600);
    person.configure(&format!(
        "[remotes.store]\nprovider = \"webdav\"\nendpoint = \"{}\"\n{more}\n\
         [remotes.store.auth]\nmethod = \"basic\"\nusername = \"{USER}\"\npassword = {{ file = \"{}\" }}\n",
        server.endpoint(),
        file.display()
    ));
}

/// The bucket as the remote `store`, with one more line.
pub fn configure_s3(person: &Sandbox, server: &S3Server, more: &str) {
    let file = person.file("work/secret", SECRET_KEY, 0o600);
    person.configure(&format!(
        "[remotes.store]\nprovider = \"s3\"\nendpoint = \"{}\"\nbucket = \"{BUCKET}\"\n{more}\n\
         [remotes.store.auth]\nmethod = \"static\"\naccess_key_id = \"{KEY_ID}\"\n\
         secret_access_key = {{ file = \"{}\" }}\n",
        server.endpoint(),
        file.display()
    ));
}

/// Copies a tree in, compares, works on it, unmounts, mounts again and compares what comes out.
fn a_tree_in_and_out(person: &Sandbox) {
    let made = "mkdir -p tree/deep/er tree/empty && printf 'some text\\n' > 'tree/with space' && : > tree/nothing && \
                dd if=/dev/urandom of=tree/deep/er/big bs=64k count=200 2>/dev/null && \
                printf x > 'tree/100%41 #?+&.txt' && printf y > tree/.hidden && printf z > tree/grüße";
    person.sh(&format!("cd ../work && {made}")).ok();
    person.mount("store", &[]);
    person
        .sh("cp -r ../work/tree . && diff -r ../work/tree tree && ls -lR tree >/dev/null")
        .ok();
    person.sh("echo one > f && echo two >> f && cat f").says("one\ntwo\n");
    person
        .sh("echo new > f.tmp && sync f.tmp && mv f.tmp f && cat f && test ! -e f.tmp")
        .says("new\n");
    person
        .sh("mv f tree/deep/f && cat tree/deep/f && test ! -e f")
        .says("new\n");
    person
        .sh("rm tree/nothing && : > tree/nothing && rmdir tree/empty && mkdir tree/empty && rm tree/deep/f")
        .ok();
    person
        .sh("rmdir tree 2>&1 || true")
        .says("rmdir: failed to remove 'tree': Directory not empty\n");
    // Where the service can't, the tool copies.
    person
        .sh("mv tree moved && test ! -e tree && diff -r ../work/tree moved")
        .ok();
    person.unmount();
    assert!(!person.is_mounted("mnt"));
    person.mount("store", &[]);
    person
        .sh("cp -r moved ../work/out && diff -r ../work/tree ../work/out")
        .ok();
    person.sh("rm -r moved && ls -A").says("");
    person.unmount();
}

fn webdav(software: webdav_server::Software) {
    Who::each(|who| {
        let server = DavServer::start(software);
        let person = Sandbox::new(who);
        std::fs::create_dir(server.data().join("a folder")).unwrap();
        configure_webdav(&person, &server, "root = \"a folder\"");
        a_tree_in_and_out(&person);
        assert_eq!(std::fs::read_dir(server.data().join("a folder")).unwrap().count(), 0);
    });
}

#[test]
fn a_tree_at_wsgidav() {
    webdav(webdav_server::Software::WsgiDav);
}

#[test]
fn a_tree_at_rclone() {
    webdav(webdav_server::Software::Rclone);
}

#[test]
fn a_tree_in_a_bucket() {
    Who::each(|who| {
        let server = S3Server::start(s3_server::Software::Moto);
        tokio::runtime::Runtime::new().unwrap().block_on(server.make_bucket());
        let person = Sandbox::new(who);
        configure_s3(&person, &server, "prefix = \"a/b\"");
        a_tree_in_and_out(&person);
    });
}

/// Addresses, with the variables that people already have.
#[test]
fn addresses_take_the_usual_variables() {
    let dav = DavServer::start(webdav_server::Software::Rclone);
    let mut person = Sandbox::new(Who::me());
    // No machine's own role either.
    person.variable("AWS_EC2_METADATA_DISABLED", "true");
    person.variable("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    let nobody = person.keymount(["mount".as_ref(), "s3://b".as_ref(), person.mount_point().as_os_str()]);
    nobody.fails(4, "no AWS credential was found");
    person.variable("WEBDAV_USERNAME", USER);
    person.variable("WEBDAV_PASSWORD", PASSWORD);
    person.mount(&format!("webdav://127.0.0.1:{}", dav.port()), &[]);
    person.sh("echo dav > f && sync f").ok();
    person.unmount();
    assert_eq!(std::fs::read_to_string(dav.data().join("f")).unwrap(), "dav\n");
    let bucket = S3Server::start(s3_server::Software::Rclone);
    person.variable("AWS_ACCESS_KEY_ID", KEY_ID);
    person.variable("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    person.variable("AWS_ENDPOINT_URL", &bucket.endpoint());
    person.mount(&format!("s3://{BUCKET}"), &[]);
    person.sh("echo s3 > f && sync f && cat f").says("s3\n");
    let status = person.keymount(["status"]).ok();
    assert!(status.contains("chain") && !status.contains(SECRET_KEY), "{status}");
    person.unmount();
    assert_eq!(std::fs::read_to_string(bucket.data().join("f")).unwrap(), "s3\n");
}
