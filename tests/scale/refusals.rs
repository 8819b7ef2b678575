//! What a program sees of a service that takes no requests for now.

use keymount::emulator::{Fault, Rule};

use crate::sandbox::{Sandbox, Who};
use crate::service::{Cludz, REMOTE, Service};

#[test]
fn a_wait_beyond_the_deadline_is_eagain_at_once_and_nobody_asks_again() {
    let cludz = Cludz::start();
    let person = Sandbox::new(Who::me());
    cludz.configure(&person);
    cludz.seed(&person, &["f", "g"].map(|name| (name.to_owned(), b"text".to_vec())));
    person.mount(REMOTE, &["--attr-ttl", "3600"]);
    person.sh("ls -l").ok();
    cludz.inject(Rule::everything(Fault::Status {
        status: 429,
        headers: vec![("retry-after".to_owned(), "3600".to_owned())],
        body: String::new(),
    }));
    cludz.forget();
    for file in ["f", "g", "f"] {
        person
            .sh(&format!("cat {file}"))
            .refused("Resource temporarily unavailable");
    }
    person
        .sh("printf more | tee -a f")
        .refused("Resource temporarily unavailable");
    let why = person.sh("getfattr --only-values -n user.keymount.last_error g").ok();
    assert!(why.contains("takes no requests for now; it is asked again in"), "{why}");
    assert_eq!(cludz.asked().len(), 1, "{:?}", cludz.asked());
    // What is known is shown, and what was written waits.
    person.sh("stat -c %s f g").says("8\n4\n");
    // The next mount sends it.
    let left = person.keymount(["umount".as_ref(), person.mount_point().as_os_str()]);
    assert_eq!(left.code, Some(7), "{left:?}");
    assert!(left.err.contains("1 file is not at the provider; kept"), "{left:?}");
}
