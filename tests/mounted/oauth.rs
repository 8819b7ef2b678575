//! CloudSync mounted with a grant: a login, tokens that are renewed in use, and grants that end, shrink and come back.

use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::Method;
use jiff::SignedDuration;
use keymount::emulator::cloudsync::{
    Assumptions, CloudSyncStore, Consent, Exchanges, GrantId, GrantKind, OauthClient, Plan, Refreshing, Revocation,
    Scope, Workspace,
};
use keymount::emulator::{Fault, Rule, Running};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::exercisers::until_all_is_sent;
use crate::sandbox::{Said, Sandbox, Who, told_of, until};
use crate::secrets::holders;

const OWNER: &str = "owner@example.com";
const CLIENT_SECRET: &str = "canary-client-secret-51c0";

/// Both of CloudSync's servers, and somebody who has one workspace configured as `work`, to be logged in to.
struct Account {
    person: Sandbox,
    store: CloudSyncStore,
    workspace: Workspace,
    api: Running,
    auth: Running,
    runtime: Runtime,
}

impl Account {
    fn new(who: Who) -> Self {
        Self::with(who, rotating())
    }

    fn with(who: Who, assumptions: Assumptions) -> Self {
        let store = CloudSyncStore::new(assumptions);
        store.add_user(OWNER, Plan::unlimited());
        store.add_client(OauthClient::confidential("keymount", CLIENT_SECRET));
        store.set_consent(Consent::Allows(OWNER.into()));
        let workspace = store.add_workspace(OWNER, "project").unwrap();
        let runtime = Runtime::new().unwrap();
        let (api, auth) = runtime.block_on(async { (store.serve_api().await, store.serve_auth().await) });
        let it = Self {
            person: Sandbox::new(who),
            store,
            workspace,
            api: api.unwrap(),
            auth: auth.unwrap(),
            runtime,
        };
        it.configure("");
        it
    }

    fn configure(&self, more: &str) {
        let secret = self.person.file("work/client", CLIENT_SECRET, 0o600);
        self.person.configure(&format!(
            "[remotes.work]\nprovider = \"cloudsync\"\nworkspace = \"project\"\nendpoint = \"{}v1\"\n\
             auth_endpoint = \"{}\"\n{more}\n\
             [remotes.work.auth]\nmethod = \"oauth\"\nclient_id = \"keymount\"\nclient_secret = {{ file = \"{}\" }}\n",
            self.api.url(),
            self.auth.url(),
            secret.display()
        ));
    }

    /// A login in a browser elsewhere, which ends at an address that the person pastes.
    #[track_caller]
    fn login(&self) -> String {
        let said = self.try_login();
        assert!(said.out.contains("access is granted"), "{said:?}");
        said.ok()
    }

    #[track_caller]
    fn try_login(&self) -> Said {
        let said = self
            .person
            .keymount_answering(["login", "work", "--no-browser"], |address| self.sent_to(address));
        clean(&said);
        said
    }

    #[track_caller]
    fn cannot_be_mounted(&self) {
        let mnt = self.person.mount_point();
        let mount = ["mount".as_ref(), "work".as_ref(), mnt.as_os_str()];
        self.person.keymount(mount).fails(4, "run: keymount login work");
    }

    /// A second daemon with the same remote; gives its directory.
    #[track_caller]
    fn mount_beside(&self) -> PathBuf {
        let other = self.person.other_mount_point();
        self.person
            .keymount(["mount".as_ref(), "work".as_ref(), other.as_os_str()])
            .ok();
        other
    }

    #[track_caller]
    fn unmount_with(&self, other: &Path) {
        self.person.unmount();
        self.person.keymount(["umount".as_ref(), other.as_os_str()]).ok();
    }

    /// Takes all scopes but those for reading from the grant.
    fn allow_reading_only(&self) {
        let rest = [Scope::FilesRead, Scope::WorkspacesRead, Scope::OfflineAccess];
        assert!(self.store.narrow_grant(self.grant(), &rest));
    }

    #[track_caller]
    fn was_alive_to_the_end(&self) {
        assert!(self.store.revoke_grant(self.grant()), "the grant was over before");
    }

    #[track_caller]
    fn nothing_stays_pending(&self) {
        until_all_is_sent(&self.person);
        assert!(self.pending().is_empty());
    }

    /// Where the authorization server sends a browser that asks for this address.
    fn sent_to(&self, address: &str) -> String {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        let answer = self.runtime.block_on(client.get(address).send()).unwrap();
        answer.headers()["location"].to_str().unwrap().to_owned()
    }

    /// The grant of the last login.
    fn grant(&self) -> GrantId {
        self.store.access_tokens().last().unwrap().grant
    }

    fn refreshes(&self) -> Exchanges {
        self.store.exchanges(GrantKind::RefreshToken)
    }

    fn refusals(&self) -> usize {
        let requests = self.api.requests();
        requests.iter().filter(|request| request.status == Some(401)).count()
    }

    /// The mounts of all daemons, as `status --json` has them.
    #[track_caller]
    fn mounts(&self) -> Vec<Value> {
        let said = self.person.keymount(["status", "--json"]).ok();
        let status: Value = serde_json::from_str(&said).unwrap();
        let daemons = status["daemons"].as_array().unwrap().iter();
        daemons
            .flat_map(|daemon| daemon["mounts"].as_array().unwrap().clone())
            .collect()
    }

    #[track_caller]
    fn mounted(&self) -> Value {
        self.mounts().swap_remove(0)
    }

    #[track_caller]
    fn credential(&self) -> Value {
        self.mounted()["credential"].clone()
    }

    fn kill_daemons(&self) {
        for daemon in self.person.daemons() {
            let kill = std::process::Command::new("kill")
                .arg("-KILL")
                .arg(daemon.to_string())
                .status();
            assert!(kill.unwrap().success());
        }
        until("the end of the daemons", || self.person.daemons().is_empty());
    }

    #[track_caller]
    fn pending(&self) -> Vec<String> {
        let mount = self.mounted();
        let files = mount["pending"].as_array().unwrap().iter();
        files.map(|file| file["path"].as_str().unwrap().to_owned()).collect()
    }
}

/// What a careful authorization server does: a refresh token is good once, and whoever sends it again ends the grant.
fn rotating() -> Assumptions {
    Assumptions {
        refreshing: Refreshing::Rotates,
        ..Assumptions::default()
    }
}

/// The same with tokens that live so many seconds. They are renewed a third of that before their end.
fn living(seconds: i64) -> Assumptions {
    Assumptions {
        access_lifetime: SignedDuration::from_secs(seconds),
        ..rotating()
    }
}

/// Nothing that leads to an access is printed.
#[track_caller]
fn clean(said: &Said) {
    for secret in ["canary", "at_live_", "rt_live_", "code="] {
        assert!(
            !said.out.contains(secret) && !said.err.contains(secret),
            "{secret} shows: {said:?}"
        );
    }
}

#[test]
fn a_login_opens_the_mount_and_a_logout_closes_it() {
    Who::each(|who| {
        let assumptions = Assumptions {
            revocation: Revocation::Offered,
            ..rotating()
        };
        let it = Account::with(who, assumptions);
        it.workspace.put("/folder/there", "text").unwrap();
        it.workspace.put("/unread", "more").unwrap();
        it.cannot_be_mounted();
        it.person
            .keymount(["remote", "test", "work"])
            .fails(4, "run: keymount login work");

        it.login();
        it.person.mount("work", &["-vv"]);
        it.person
            .sh("stat -c %A . && ls && cat folder/there")
            .says("drwxr-xr-x\nfolder\nunread\ntext");
        it.person.sh("echo new > folder/new && mv folder/new newer").ok();
        assert_eq!(it.workspace.read("/newer").unwrap(), "new\n");
        let status = it.person.keymount(["status"]).ok();
        for words in [
            "oauth, valid for",
            "scopes files:read files:write offline_access workspaces:read",
        ] {
            assert!(status.contains(words), "{words}: {status}");
        }
        let credential = it.credential();
        assert_eq!(
            (&credential["method"], &credential["source"]),
            (&"oauth".into(), &"stored".into()),
            "{credential}"
        );
        let tested = it.person.keymount(["remote", "test", "work"]);
        clean(&tested);
        assert!(tested.ok().contains("rwd"));
        let doctor = it.person.keymount(["doctor"]);
        clean(&doctor);
        let doctor = doctor.ok();
        for words in ["work: a grant is kept in", "work: the provider answers, rights rwd"] {
            assert!(doctor.contains(words), "{words}: {doctor}");
        }
        it.person.keymount(["keys", "list", "work"]).says("work has no keys\n");
        it.person
            .keymount(["keys", "rotate", "work"])
            .fails(2, "it is used without a key");
        assert_eq!(it.refreshes(), Exchanges::default(), "nothing had to be renewed");

        for name in ["cmdline", "environ"] {
            let bytes = told_of(it.person.daemons()[0], name);
            assert!(!String::from_utf8_lossy(&bytes).contains("canary"), "{name}");
        }
        let grant = it.person.path("state/keymount/secrets/work.grant.secret");
        for place in ["state", "cache", "run"] {
            assert_eq!(holders(&it.person.path(place), CLIENT_SECRET), "");
            for secret in ["at_live_", "rt_live_"] {
                let expected = if place == "state" {
                    format!("{}\n", grant.display())
                } else {
                    String::new()
                };
                assert_eq!(holders(&it.person.path(place), secret), expected);
            }
        }
        assert_eq!(std::fs::metadata(&grant).unwrap().mode() & 0o7777, 0o600);

        let said = it.person.keymount(["logout", "work"]);
        clean(&said);
        let said = said.ok();
        assert!(
            said.contains("revoked at CloudSync") && said.contains("needs a login"),
            "{said}"
        );
        assert!(!it.store.revoke_grant(it.grant()), "it is over at the service, too");
        assert_eq!(it.credential()["state"], "needs-login");
        it.person.sh("cat unread").refused("Permission denied");
        assert_eq!(it.person.sh("cat folder/there").ok(), "text");
        let status = it.person.keymount(["status"]).ok();
        assert!(status.contains("needs login; run: keymount login work"), "{status}");

        it.login();
        assert_eq!(it.person.sh("cat unread").ok(), "more");
        it.person.unmount();
    });
}

/// Tokens live six seconds. A refresh token is good once, and sent twice it would end the grant.
#[test]
fn tokens_are_renewed_under_readers_and_writers() {
    Who::each(|who| {
        let it = Account::with(who, living(6));
        it.login();
        it.person.mount("work", &["--attr-ttl", "0"]);
        let stop = it.person.path("work/stop");
        let go_on = format!("[ ! -e '{}' ]", stop.display());
        let writer = it.person.start(&format!(
            "n=0; while {go_on}; do n=$((n+1)); echo $n > own && sync own && test \"$(cat own)\" = $n || exit 1; done; echo $n"
        ));
        let lister = it.person.start(&format!(
            "n=0; while {go_on}; do n=$((n+1)); ls -l > /dev/null || exit 1; done; echo $n"
        ));
        let number = Cell::new(0);
        until("the third renewal", || {
            let n = number.get() + 1;
            number.set(n);
            it.workspace
                .put(&format!("/in{}", n % 10), format!("text {n}"))
                .unwrap();
            it.person.sh(&format!("cat in{}", n % 10)).says(&format!("text {n}"));
            it.refreshes().granted >= 3
        });
        it.person.file("work/stop", "", 0o644);
        let written = writer.wait().ok();
        lister.wait().ok();
        assert_eq!(it.person.sh("cat own").ok(), written);
        assert_eq!(it.workspace.read("/own").unwrap(), written);
        assert_eq!(it.refreshes().refused, 0, "every refresh token was sent once");
        // Renewing begins two seconds before the end; a machine that stood still for half of that, and then while the
        // token was kept, explains a refusal for each of those three that were asking just then.
        let tokens = it.store.access_tokens();
        let late = tokens
            .windows(2)
            .filter(|pair| pair[1].issued.duration_since(pair[0].issued) > SignedDuration::from_secs(5));
        assert!(it.refusals() <= 3 * late.count(), "{tokens:?}");
        let credential = it.credential();
        assert!(
            ["valid", "renewing"].contains(&credential["state"].as_str().unwrap()),
            "{credential}"
        );
        assert_eq!(it.person.daemons().len(), 1);
        it.person.unmount();
        it.was_alive_to_the_end();
    });
}

#[test]
fn a_mount_with_a_dead_grant_keeps_what_it_has_and_a_login_heals_it() {
    Who::each(|who| {
        let it = Account::new(who);
        for (path, text) in [
            ("/read", "old text"),
            ("/held", "held text"),
            ("/unread", "unread text"),
            ("/other", "x"),
        ] {
            it.workspace.put(path, text).unwrap();
        }
        it.login();
        it.person.mount_as_usual("work", &["--attr-ttl", "0"]);
        let daemons = it.person.daemons();
        let mut shell = it.person.open_shell();
        it.person.sh("ls > /dev/null && cat read held > /dev/null").ok();
        shell.says("exec 3<>held; dd bs=4 count=1 <&3 2>/dev/null; echo", "held\n");

        assert!(it.store.revoke_grant(it.grant()));
        let (said, good) = shell.run("exec 4<unread; cat <&4");
        assert!(!good && said.contains("Permission denied"), "{said}");
        assert_eq!(it.credential()["state"], "needs-login");
        it.person
            .sh("cat read && ls")
            .says("old textheld\nother\nread\nunread\n");
        it.person.sh("cat unread").refused("Permission denied");
        it.person
            .sh("echo changed > read && echo new > new && cat read new")
            .says("changed\nnew\n");
        shell.says("printf HELD >&3", "");
        it.person.sh("ls").says("held\nnew\nother\nread\nunread\n");
        let mut pending = it.pending();
        pending.sort();
        assert_eq!(pending, ["held", "new", "read"]);
        it.person.sh("sync new").refused("Permission denied");
        for change in ["mkdir folder", "rm other", "mv other another"] {
            it.person.sh(change).refused("Permission denied");
        }
        let status = it.person.keymount(["status"]).ok();
        assert!(status.contains("keymount login work"), "{status}");
        for _ in 0..20 {
            it.person.sh("cat unread").refused("Permission denied");
        }
        assert_eq!(
            it.refreshes(),
            Exchanges { granted: 0, refused: 1 },
            "a dead grant is left alone"
        );
        it.person
            .keymount(["refresh", "work"])
            .fails(4, "run: keymount login work");
        assert!(it.refreshes().refused <= 2, "a person asked once more");
        assert_eq!(it.workspace.read("/read").unwrap(), "old text");

        it.login();
        assert_eq!(it.credential()["state"], "valid");
        shell.says("cat <&4; echo", "unread text\n");
        shell.says(
            "printf ' and more' >&3; exec 3>&- 4<&-; cat held; echo",
            "heldHELD and more\n",
        );
        it.nothing_stays_pending();
        for (path, text) in [
            ("/read", "changed\n"),
            ("/new", "new\n"),
            ("/held", "heldHELD and more"),
        ] {
            assert_eq!(it.workspace.read(path).unwrap(), text, "{path}");
        }
        assert_eq!(it.person.daemons(), daemons, "the mount was never replaced");
        drop(shell);
        it.person.unmount();
    });
}

/// Somebody logged in without the daemon being told.
#[test]
fn a_refresh_takes_over_what_another_login_kept() {
    Who::each(|who| {
        let it = Account::new(who);
        it.workspace.put("/unread", "text").unwrap();
        it.login();
        it.person.mount_as_usual("work", &[]);
        // A name is free only in a directory that is known.
        it.person.sh("ls > /dev/null").ok();
        assert!(it.store.revoke_grant(it.grant()));
        it.person.sh("cat unread").refused("Permission denied");
        it.person.sh("echo new > new").ok();
        let (runtime, away) = (it.person.path("run"), it.person.path("away"));
        std::fs::rename(&runtime, &away).unwrap();
        it.login();
        std::fs::rename(&away, &runtime).unwrap();
        let said = it.person.keymount(["refresh", "work"]).ok();
        assert!(said.contains("rights rwd, credential valid"), "{said}");
        assert_eq!(it.person.sh("cat unread").ok(), "text");
        until("what was pending at the provider", || it.workspace.exists("/new"));
        assert_eq!(it.refreshes().granted, 0, "the token of the login was taken over");
        it.person.unmount();
    });
}

#[test]
fn a_read_only_remote_asks_for_reading_only() {
    Who::each(|who| {
        let it = Account::new(who);
        it.configure("read_only = true");
        it.workspace.put("/file", "text").unwrap();
        it.login();
        let asked = it.auth.requests().into_iter().map(|request| request.target);
        let asked: Vec<String> = asked.filter(|target| target.starts_with("/oauth/authorize")).collect();
        assert!(asked.len() == 1 && !asked[0].contains("write"), "{asked:?}");
        let scopes = asked[0].split(['?', '&']).find_map(|pair| pair.strip_prefix("scope="));
        let scopes = scopes.unwrap().replace("%3A", ":");
        assert_eq!(scopes, "files:read+offline_access+workspaces:read");
        it.person.mount("work", &[]);
        it.person
            .sh("stat -c '%A %A' . file && cat file")
            .says("dr-xr-xr-x dr-xr-xr-x\n-r--r--r-- -r--r--r--\ntext");
        it.person.sh("touch new").refused("Read-only file system");
        assert_eq!(it.credential()["scopes"], "files:read offline_access workspaces:read");
        it.person.unmount();
    });
}

/// First by a refresh that a person asks for, then by one that a refused token asks for.
#[test]
fn fewer_scopes_show_in_the_modes() {
    Who::each(|who| {
        for asked in [true, false] {
            let it = Account::new(who);
            it.workspace.put("/file", "text").unwrap();
            it.login();
            // Long enough that only a message to the kernel makes it look again.
            it.person.mount("work", &["--attr-ttl", "1h"]);
            let modes = || it.person.sh("stat -c %A . file").ok();
            assert_eq!(modes(), "drwxr-xr-x\n-rw-r--r--\n");
            it.person.sh("echo before >> file").ok();
            it.allow_reading_only();
            assert_eq!(modes(), "drwxr-xr-x\n-rw-r--r--\n");
            if asked {
                let said = it.person.keymount(["refresh", "work"]).ok();
                assert!(said.contains("rights r--"), "{said}");
                assert_eq!(modes(), "dr-xr-xr-x\n-r--r--r--\n");
            } else {
                it.store.expire_access_tokens();
                it.workspace.put("/unread", "more").unwrap();
                until("the new modes", || {
                    it.person.sh("cat unread");
                    modes() == "dr-xr-xr-x\n-r--r--r--\n"
                });
            }
            it.person.sh("echo after >> file").refused("Permission denied");
            it.person.sh("echo new > new").refused("Permission denied");
            it.person.sh("mkdir folder").refused("Permission denied");
            it.person.sh("rm -f file").refused("Permission denied");
            it.person.sh("cat file").says("textbefore\n");
            let scopes = it.credential()["scopes"].clone();
            assert_eq!(scopes, "files:read offline_access workspaces:read");
            it.login();
            assert_eq!(modes(), "drwxr-xr-x\n-rw-r--r--\n", "a login gives all of it again");
            it.person.sh("echo again >> file").ok();
            it.person.unmount();
        }
    });
}

#[test]
fn a_mount_may_wait_for_the_first_login() {
    Who::each(|who| {
        let it = Account::new(who);
        it.workspace.put("/file", "text").unwrap();
        it.cannot_be_mounted();
        assert!(!it.person.is_mounted("mnt"));
        it.person.mount("work", &["--wait-for-login"]);
        let daemons = it.person.daemons();
        assert_eq!(it.credential()["state"], "needs-login");
        let mnt = it.person.mount_point();
        let listed = it.person.command("ls").arg(mnt).output().unwrap();
        assert!(String::from_utf8_lossy(&listed.stderr).contains("Permission denied"));
        assert_eq!(it.refreshes(), Exchanges::default());
        let said = it.login();
        assert!(said.contains("rights rwd, credential valid"), "{said}");
        it.person.sh("cat file && echo new > new").says("text");
        assert_eq!(it.workspace.read("/new").unwrap(), "new\n");
        assert_eq!(it.person.daemons(), daemons);
        it.person.unmount();
    });
}

/// The same over several lifetimes of four seconds, with both at work.
#[test]
fn two_daemons_take_turns() {
    Who::each(|who| {
        let it = Account::with(who, living(4));
        it.login();
        it.person.mount("work", &["--attr-ttl", "0"]);
        let other = it.mount_beside();
        until("the sixth renewal", || {
            it.person
                .sh(&format!(
                    "echo a > a & echo b > {0}/b & ls . {0} > /dev/null && wait",
                    other.display()
                ))
                .ok();
            it.refreshes().granted >= 6
        });
        it.unmount_with(&other);
        let refreshes = it.refreshes();
        assert_eq!(refreshes.refused, 0, "every refresh token was sent once");
        let tokens = it.store.access_tokens();
        assert_eq!(tokens.len() as u64, refreshes.granted + 1);
        // One is asked for 2.5 s after the other at the soonest; had each daemon gone its own way, there would be two
        // in that time. That some answers come late doesn't add up. The login's token waited for the mounts.
        let turns = tokens.len() as i64 - 2;
        let took = tokens[tokens.len() - 1].issued.duration_since(tokens[1].issued);
        assert!(took > SignedDuration::from_millis(1800 * turns), "{tokens:?}");
        it.was_alive_to_the_end();
    });
}

/// Rotation makes sharing necessary: a second process that went its own way would end the grant for both.
#[test]
fn two_daemons_share_the_grant() {
    Who::each(|who| {
        let it = Account::new(who);
        for n in 0..4 {
            it.workspace.put(&format!("/file{n}"), format!("text {n}")).unwrap();
        }
        it.login();
        it.person.mount("work", &[]);
        let other = it.mount_beside();
        assert_eq!(it.person.daemons().len(), 2);
        it.store.expire_access_tokens();
        let both = format!("cat file0 & cat {}/file1; wait", other.display());
        let said = it.person.sh(&both).ok();
        assert!(said.contains("text 0") && said.contains("text 1"), "{said}");
        assert_eq!(it.refreshes(), Exchanges { granted: 1, refused: 0 });
        let renewals = |what: &str| -> Vec<u64> {
            let mut counts: Vec<u64> = it
                .mounts()
                .iter()
                .map(|mount| mount["credential"]["renewals"][what].as_u64().unwrap())
                .collect();
            counts.sort_unstable();
            counts
        };
        assert_eq!((renewals("exchanges"), renewals("adoptions")), (vec![0, 1], vec![0, 1]));

        it.person.keymount(["refresh", "work"]).ok();
        assert_eq!(it.refreshes(), Exchanges { granted: 2, refused: 0 });
        it.person
            .sh(&format!("cat file2 {}/file3", other.display()))
            .says("text 2text 3");
        it.unmount_with(&other);
    });
}

/// Closed under a dead grant, kept by the journal, sent by the next daemon once somebody has logged in.
#[test]
fn what_a_dead_grant_left_behind_outlives_its_daemon() {
    Who::each(|who| {
        for killed in [true, false] {
            let it = Account::new(who);
            it.workspace.put("/read", "old").unwrap();
            it.login();
            it.person.mount_as_usual("work", &[]);
            it.person.sh("ls && cat read").says("read\nold");
            assert!(it.store.revoke_grant(it.grant()));
            it.person.sh("echo changed > read && echo new > new").ok();
            if killed {
                it.kill_daemons();
            } else {
                let said = it
                    .person
                    .keymount(["umount".as_ref(), it.person.mount_point().as_os_str()]);
                assert!(said.err.contains("2 files are not at the provider; kept"), "{said:?}");
            }
            it.cannot_be_mounted();
            let listed = it.person.keymount(["pending", "list"]).ok();
            assert!(listed.contains("read") && listed.contains("new"), "{listed}");
            it.person.mount_as_usual("work", &["--wait-for-login"]);
            it.login();
            it.person.sh("cat read new").says("changed\nnew\n");
            it.nothing_stays_pending();
            assert_eq!(it.workspace.read("/read").unwrap(), "changed\n");
            assert_eq!(it.workspace.read("/new").unwrap(), "new\n");
            it.person.unmount();
        }
    });
}

/// What needs a token waits; what doesn't goes on.
#[test]
fn an_authorization_server_that_is_slow_or_away_stops_only_what_needs_it() {
    Who::each(|who| {
        let it = Account::new(who);
        for n in 0..2 {
            it.workspace.put(&format!("/unread{n}"), format!("text {n}")).unwrap();
        }
        it.workspace.put("/read", "old").unwrap();
        it.login();
        // Who waits for a token gives up when the next attempt would come too late for it.
        it.person
            .mount_as_usual("work", &["--attr-ttl", "1h", "--op-timeout", "2m"]);
        it.person.sh("ls > /dev/null && cat read").says("old");

        let go_on = Arc::new(Notify::new());
        it.auth.faults().inject(Rule::once(
            Method::POST,
            "/oauth/token",
            Fault::Hold(Arc::clone(&go_on)),
        ));
        it.store.expire_access_tokens();
        let reader = it.person.start("cat unread0");
        until("the question for a token", || it.auth.faults().pending() == 0);
        it.person
            .sh("cat read && ls && echo new > read && cat read")
            .says("oldread\nunread0\nunread1\nnew\n");
        assert_eq!(it.credential()["state"], "renewing");
        go_on.notify_one();
        assert_eq!(reader.wait().ok(), "text 0");
        assert_eq!(it.refreshes(), Exchanges { granted: 1, refused: 0 });
        it.nothing_stays_pending();

        it.auth
            .faults()
            .inject(Rule::always(Method::POST, "/oauth/token", Fault::status(503)));
        it.store.expire_access_tokens();
        let reader = it.person.start("cat unread1");
        until("a failure", || {
            it.credential()["renewals"]["failures"].as_u64() >= Some(2)
        });
        assert_eq!(it.credential()["state"], "expired");
        let status = it.person.keymount(["status"]).ok();
        assert!(status.contains("oauth, expired, retrying"), "{status}");
        it.person.sh("cat read && echo newer > read").says("new\n");
        it.auth.faults().clear();
        assert_eq!(reader.wait().ok(), "text 1");
        it.nothing_stays_pending();
        assert_eq!(it.workspace.read("/read").unwrap(), "newer\n");
        assert_eq!(it.refreshes(), Exchanges { granted: 2, refused: 0 });
        it.person.unmount();
    });
}

/// A change that was closed before anybody knew that it may not be made.
#[test]
fn a_change_whose_scope_is_gone_waits_for_the_next_login() {
    Who::each(|who| {
        let it = Account::new(who);
        it.workspace.put("/file", "old").unwrap();
        it.login();
        it.person.mount_as_usual("work", &["--attr-ttl", "1h"]);
        it.person.sh("ls && cat file").says("file\nold");
        it.allow_reading_only();
        it.store.expire_access_tokens();
        it.person.sh("echo changed > file").ok();
        let refused = || {
            it.mounted()["pending"][0]["error"]
                .to_string()
                .contains("lacks files:write")
        };
        until("the refusal", refused);
        let status = || it.person.keymount(["status"]).ok();
        until("the new rights", || status().contains("r--"));
        assert!(status().contains("file is not at the provider"), "{}", status());
        it.person.sh("cat file").says("changed\n");
        it.login();
        it.nothing_stays_pending();
        assert_eq!(it.workspace.read("/file").unwrap(), "changed\n");
        it.person.unmount();
    });
}

/// Nothing of one account shows in what was mounted with another's.
#[test]
fn a_login_of_somebody_else_opens_nothing() {
    Who::each(|who| {
        let it = Account::new(who);
        let stranger = "stranger@example.com";
        it.store.add_user(stranger, Plan::unlimited());
        it.workspace.put("/unread", "text").unwrap();
        it.login();
        it.person.mount_as_usual("work", &[]);
        it.store.set_consent(Consent::Allows(stranger.into()));
        let said = it.try_login();
        let no_part = "there is no workspace \"project\", or this account has no part in it";
        assert!(said.code == Some(11) && said.err.contains(no_part), "{said:?}");
        it.person.sh("cat unread").refused("No such file or directory");
        it.person.keymount(["remote", "test", "work"]).fails(11, no_part);
        it.store.set_consent(Consent::Allows(OWNER.into()));
        it.login();
        it.person.sh("cat unread").says("text");
        it.person.unmount();
    });
}

/// `remote add` with a grant: the answers, the client's secret, the browser, and what the grant may do.
#[test]
fn adding_a_remote_leads_into_the_login() {
    let mut it = Account::new(Who::me());
    it.person.configure("");
    let folder = it.person.path("work").display().to_string();
    // A browser that agrees to everything, and keeps cookies as browsers do.
    let browser = "#!/bin/sh\ncurl --silent --location --cookie '' --output /dev/null \"$1\" &\n";
    it.person.file("work/xdg-open", browser, 0o755);
    it.person.variable("PATH", &format!("{folder}:/usr/bin:/bin"));
    it.person.variable("DISPLAY", ":99");
    let endpoint = format!("{}v1\n", it.api.url());
    let add = format!(
        "\"$KEYMOUNT\" remote add --set auth_endpoint={}; echo \"code $?\"",
        it.auth.url()
    );
    let secret = format!("{CLIENT_SECRET}\n");
    let shown = it.person.on_a_terminal(
        &add,
        &[
            ("Where is your storage?", "cloudsync\n"),
            ("How do you prove who you are?", "oauth\n"),
            ("called [cloudsync]: ", "work\n"),
            ("Which workspace", "project\n"),
            ("[https://api.cloudsync.io/v1]: ", endpoint.as_str()),
            ("client id", "keymount\n"),
            ("What to ask for", "\n"),
            (
                "Client secret [the application has none] (not shown): ",
                secret.as_str(),
            ),
        ],
    );
    assert!(shown.contains("the client secret is kept in"), "{shown}");
    assert!(
        shown.contains("access is granted") && shown.contains("code 0"),
        "{shown}"
    );
    assert!(shown.contains("it may read, write and delete"), "{shown}");
    assert!(!shown.contains(CLIENT_SECRET), "{shown}");
    it.person.mount("work", &[]);
    it.person.sh("echo text > file && cat file").ok();
    it.person.unmount();
    let said = it.person.keymount(["remote", "remove", "work", "--yes"]).ok();
    assert!(said.contains("client_secret is forgotten"), "{said}");
    let kept = std::fs::read_dir(it.person.path("state/keymount/secrets")).unwrap();
    assert_eq!(kept.count(), 0, "nothing is left in the store");
}
