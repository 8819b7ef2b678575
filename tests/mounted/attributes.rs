//! Attributes that the provider keeps, at real servers: what one host sets, another one sees that has nothing of its own.

use crate::object_stores::{configure_s3, configure_webdav};
use crate::reductstore::Store;
use crate::s3_server::{self, S3Server};
use crate::sandbox::{Sandbox, Who};
use crate::webdav_server::{DavServer, Software};

/// `cp -a` sets all of it before it closes the copy.
const MADE: &str = "cd ../work && printf '#!/bin/sh\\necho ran\\n' > script && setfattr -n user.colour -v 'bl ü' script && \
                    chmod 750 script && touch -d '2001-02-03 04:05:06.123456789 UTC' script";
const SHOW: &str = "TZ=UTC stat -c '%a %y' script && getfattr --absolute-names --only-values -n user.colour script";
const SHOWN: &str = "750 2001-02-03 04:05:06.123456789 +0000\nbl ü";

/// What is there of a file, by what a host says that knows nothing but the server.
fn seen(who: Who, configure: &dyn Fn(&Sandbox), script: &str) -> String {
    let other = Sandbox::new(who);
    configure(&other);
    other.mount("store", &[]);
    let said = other.sh(script).ok();
    other.unmount();
    said
}

fn travel_with_the_content(who: Who, configure: &dyn Fn(&Sandbox)) {
    let one = Sandbox::new(who);
    configure(&one);
    one.sh(MADE).ok();
    one.mount("store", &[]);
    one.sh("cp -a ../work/script . && ./script").says("ran\n");
    one.sh(SHOW).says(SHOWN);
    one.unmount();
    assert_eq!(
        seen(who, configure, &format!("{SHOW} && ./script")),
        format!("{SHOWN}ran\n")
    );
}

fn are_changed_alone(who: Who, configure: &dyn Fn(&Sandbox)) {
    let one = Sandbox::new(who);
    configure(&one);
    one.mount("store", &[]);
    one.sh(
        "sync script && chmod 640 script && touch -d '1999-01-02 03:04:05.000000001 UTC' script && \
            setfattr -n user.colour -v red script && setfattr -n user.shape -v round script",
    )
    .ok();
    // It sends the rest.
    one.unmount();
    let shown = "640 1999-01-02 03:04:05.000000001 +0000\nredround";
    let show = format!("{SHOW} && getfattr --only-values -n user.shape script");
    assert_eq!(seen(who, configure, &show), shown);
    one.mount("store", &[]);
    one.sh(&show).says(shown);
    one.sh("setfattr -x user.shape script").ok();
    one.unmount();
    assert_eq!(
        seen(who, configure, "getfattr -d script | grep -c user.shape || true"),
        "0\n"
    );
}

#[test]
fn at_a_bucket() {
    let server = S3Server::start(s3_server::Software::Moto);
    tokio::runtime::Runtime::new().unwrap().block_on(server.make_bucket());
    travel_with_the_content(Who::me(), &|person| configure_s3(person, &server, ""));
}

#[test]
fn at_a_share_that_keeps_properties() {
    let server = DavServer::start_with_properties();
    let configure = |person: &Sandbox| configure_webdav(person, &server, "");
    travel_with_the_content(Who::me(), &configure);
    are_changed_alone(Who::me(), &configure);
}

#[test]
fn at_a_bucket_of_records() {
    let store = Store::new(Who::me());
    let configure = |person: &Sandbox| store.configure_for(person);
    travel_with_the_content(Who::me(), &configure);
    are_changed_alone(Who::me(), &configure);
}

/// They stay on the host that set them.
#[test]
fn at_a_share_that_keeps_none() {
    let server = DavServer::start(Software::Rclone);
    let configure = |person: &Sandbox| configure_webdav(person, &server, "");
    let one = Sandbox::new(Who::me());
    configure(&one);
    one.sh(MADE).ok();
    one.mount("store", &[]);
    one.sh("cp -a ../work/script . && ./script").says("ran\n");
    one.unmount();
    one.mount("store", &[]);
    one.sh(SHOW).says(SHOWN);
    one.sh("chmod 700 script && stat -c %a script").says("700\n");
    one.unmount();
    assert_eq!(
        seen(Who::me(), &configure, "stat -c %a script && cat script"),
        "644\n#!/bin/sh\necho ran\n"
    );
}
