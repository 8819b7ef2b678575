//! What a credential may do: scopes and permissions, the account's role, and what only a refusal tells.

use std::sync::Arc;

use async_trait::async_trait;
use keymount::api::{Api, PlainHttp};
use keymount::auth::{
    AfterRejection, Anonymous, Authenticator, CredentialState, Generation, GivenSecrets, Presented, RenewalCounts,
    Scopes, Vitals,
};
use keymount::emulator::cloudsync::{Assumptions, Environment, ForeignGrant, KeyManagement, Plan, Role, Scope};
use keymount::model::{ErrorKind, Kind, Result, Rights};
use keymount::net::{Credential as Sent, Transport};
use keymount::provider::Provider;
use keymount::provider::cloudsync::CloudSync;

use super::support::{Credential, OWNER, impatient, settings};
use super::{Bench, content, kind, name, read};

const MEMBER: &str = "member@example.com";

fn rights(text: &str) -> Rights {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_keys_permissions_and_the_role_in_the_workspace_decide_together() {
    use Scope::{FilesRead, FilesWrite, WorkspacesRead};
    let bench = Bench::new().await;
    bench.workspace.put("/folder/file", "content").unwrap();
    bench.store.add_user(MEMBER, Plan::unlimited());
    for (role, permissions, expected) in [
        (Role::Admin, &[WorkspacesRead, FilesRead, FilesWrite][..], "rwd"),
        (Role::Editor, &[WorkspacesRead, FilesRead, FilesWrite], "rwd"),
        (Role::Viewer, &[WorkspacesRead, FilesRead, FilesWrite], "r"),
        (Role::Editor, &[WorkspacesRead, FilesRead], "r"),
        (Role::Editor, &[WorkspacesRead, FilesWrite], "wd"),
        (Role::Viewer, &[WorkspacesRead, FilesRead], "r"),
    ] {
        let what = format!("{role:?} {permissions:?}");
        bench.workspace.set_role(MEMBER, role).unwrap();
        let key = bench.store.create_key(MEMBER, "member's", permissions).unwrap();
        let theirs = bench
            .of(Credential::ApiKey(key.secret().to_owned()), Some("project"))
            .await;
        let root = theirs.probe().await.unwrap();
        assert_eq!(root.rights, rights(expected), "{what}");
        let own = theirs.current_key().unwrap();
        assert_eq!((own.id.as_str(), own.name.as_str()), (key.id(), "member's"));
        let account = bench.of(Credential::ApiKey(key.secret().to_owned()), None).await;
        let above = account.probe().await.unwrap();
        assert_eq!(above.rights, Rights::READ, "{what}");
        let listed = account.list(&above.key).await.unwrap();
        assert_eq!((listed.len(), listed[0].rights), (1, rights(expected)), "{what}");
        assert_eq!(listed[0].key, root.key, "{what}");
        if root.rights.read {
            let folder = theirs.lookup(&root.key, &name("folder")).await.unwrap();
            let file = theirs.lookup(&folder.key, &name("file")).await.unwrap();
            assert_eq!((folder.rights, file.rights), (root.rights, root.rights), "{what}");
            assert_eq!(read(&theirs, &file).await.unwrap(), b"content", "{what}");
        }
        // What is shown as impossible is, and what is shown as possible too.
        let made = theirs.upload(&bench.new_file("new"), &content(b"new")).await;
        if root.rights.write {
            assert_eq!(made.unwrap().rights, root.rights, "{what}");
            assert!(bench.workspace.remove("/new"));
        } else {
            assert_eq!(kind(&made), Some(ErrorKind::Denied), "{what}");
        }
        bench.store.revoke_key(key.id());
    }
}

#[tokio::test]
async fn without_the_permission_to_list_workspaces_one_must_be_named() {
    let bench = Bench::new().await;
    bench.workspace.put("/file", "content").unwrap();
    let permissions = [Scope::FilesRead, Scope::FilesWrite];
    let named = bench.limited(&permissions).await;
    let root = named.probe().await.unwrap();
    assert_eq!((root.rights, root.name.as_str()), (Rights::ALL, "project"));
    let file = named.lookup(&root.key, &name("file")).await.unwrap();
    assert_eq!(read(&named, &file).await.unwrap(), b"content");
    named.upload(&bench.new_file("unused"), &content(b"")).await.unwrap();
    assert_eq!(named.stat(&root).await.unwrap().rights, Rights::ALL);
    assert!(
        !bench
            .requests()
            .iter()
            .any(|(_, target)| target.starts_with("/workspaces")),
        "what is known to be refused isn't asked"
    );
    let key = bench.store.create_key(OWNER, "unnamed", &permissions).unwrap();
    let unnamed = bench.of(Credential::ApiKey(key.secret().to_owned()), None).await;
    let error = unnamed.probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.message().contains("cloudsync://WORKSPACE"), "{error}");
    let wrong = bench
        .of(Credential::ApiKey(key.secret().to_owned()), Some("nowhere"))
        .await;
    assert_eq!(kind(&wrong.probe().await), Some(ErrorKind::NotFound));
}

/// Neither a key's permissions nor a scope is told: everything is tried, and refusals teach.
#[tokio::test]
async fn what_is_not_told_is_learned_from_refusals() {
    let assumptions = Assumptions {
        key_management: KeyManagement::Forbidden,
        ..Assumptions::default()
    };
    let bench = Bench::with(assumptions, Plan::unlimited()).await;
    let limited = bench.limited(&[Scope::FilesRead, Scope::WorkspacesRead]).await;
    let root = limited.probe().await.unwrap();
    assert_eq!(root.rights, Rights::ALL);
    assert!(limited.current_key().is_none());
    let refused = limited.upload(&bench.new_file("file"), &content(b"x")).await;
    assert_eq!(kind(&refused), Some(ErrorKind::Denied));
    assert_eq!(limited.stat(&root).await.unwrap().rights, rights("rd"));
    bench.workspace.put("/file", "content").unwrap();
    let file = limited.lookup(&root.key, &name("file")).await.unwrap();
    assert_eq!(kind(&limited.remove_file(&file).await), Some(ErrorKind::Denied));
    assert_eq!(limited.stat(&root).await.unwrap().rights, Rights::READ);
    assert_eq!(limited.probe().await.unwrap().rights, Rights::ALL, "asked anew");
}

#[tokio::test]
async fn an_access_token_works_until_it_ends() {
    let bench = Bench::new().await;
    let token = "at_live_of-somebody-else";
    let good = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let still = Arc::clone(&good);
    bench.store.trust(move |text| {
        let recognised = text == token && still.load(std::sync::atomic::Ordering::Relaxed);
        recognised.then(|| ForeignGrant {
            email: OWNER.into(),
            scopes: vec![Scope::FilesRead, Scope::WorkspacesRead],
        })
    });
    let cloudsync = bench.of(Credential::AccessToken(token.into()), Some("project")).await;
    let root = cloudsync.probe().await.unwrap();
    assert_eq!(root.rights, Rights::ALL, "its scopes aren't told");
    assert!(
        !bench.requests().iter().any(|(_, target)| target.contains("api-keys")),
        "it is no key"
    );
    good.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(kind(&cloudsync.list(&root.key).await), Some(ErrorKind::NeedsLogin));
}

/// A credential whose issuer told its scopes.
struct Scoped(&'static str);

#[async_trait]
impl Authenticator for Scoped {
    fn method(&self) -> &'static str {
        "oauth"
    }
    fn environment(&self) -> Option<&'static str> {
        None
    }
    fn public_prefix(&self) -> Option<String> {
        None
    }
    fn scopes(&self) -> Option<Scopes> {
        self.0.parse().ok()
    }
    fn counts(&self) -> RenewalCounts {
        RenewalCounts::default()
    }
    async fn present(&self) -> Result<Presented> {
        Ok(Presented {
            credential: Sent::Header {
                name: reqwest::header::AUTHORIZATION,
                value: "Bearer at_live_scoped".parse().unwrap(),
            },
            generation: Generation(1),
        })
    }
    async fn rejected(&self, generation: Generation) -> AfterRejection {
        Anonymous.rejected(generation).await
    }
    fn accepted(&self, _: Generation) {}
    async fn refresh(&self, _: &GivenSecrets) -> Result<()> {
        Ok(())
    }
    fn state(&self) -> CredentialState {
        CredentialState::Valid { until: None }
    }
    fn vitals(&self) -> tokio::sync::watch::Receiver<Vitals> {
        Anonymous.vitals()
    }
    async fn close(&self) {}
}

#[tokio::test]
async fn scopes_are_taken_at_their_word() {
    let bench = Bench::new().await;
    bench.store.trust(|text| {
        (text == "at_live_scoped").then(|| ForeignGrant {
            email: OWNER.into(),
            scopes: Scope::of_oauth(),
        })
    });
    for (scopes, workspace, expected) in [
        (
            "files:read files:write workspaces:read offline_access",
            Some("project"),
            "rwd",
        ),
        ("files:read", Some("project"), "r"),
        ("files:read workspaces:read", None, "r"),
        ("workspaces:read workspaces:write", None, "rwd"),
    ] {
        let api = Api::new(
            bench.running.url().join("v1").unwrap(),
            PlainHttp::LoopbackOnly,
            Transport::new(impatient()).unwrap(),
            Arc::new(Scoped(scopes)),
            CloudSync::dialect(),
        );
        let cloudsync = CloudSync::new(Arc::new(api.unwrap()), settings(workspace, ""));
        let root = cloudsync.probe().await.unwrap();
        assert_eq!(root.rights, rights(expected), "{scopes} {workspace:?}");
    }
}

#[tokio::test]
async fn workspaces_are_made_and_never_removed_or_renamed() {
    let bench = Bench::new().await;
    let key = bench.store.create_key(OWNER, "k", &Scope::of_keys()).unwrap();
    let account = bench.of(Credential::ApiKey(key.secret().to_owned()), None).await;
    let root = account.probe().await.unwrap();
    assert_eq!(root.rights, Rights::ALL);
    let made = account.create_directory(&root.key, &name("new-one")).await.unwrap();
    assert_eq!(bench.store.workspace("new-one").unwrap().id(), made.key.as_str());
    assert_eq!(account.lookup(&root.key, &name("new-one")).await.unwrap(), made);
    assert_eq!(account.stat(&made).await.unwrap(), made);
    let taken = account.create_directory(&root.key, &name("project")).await;
    assert_eq!(kind(&taken), Some(ErrorKind::AlreadyExists));
    let odd = account.check_name(&root.key, Kind::Directory, &name("Not A Slug"));
    assert_eq!(kind(&odd), Some(ErrorKind::InvalidName));
    let refused = account.remove_directory(&made).await;
    assert_eq!(kind(&refused), Some(ErrorKind::NotPermitted));
    assert!(bench.store.workspace("new-one").unwrap().is_there());
    let place = |text: &str| keymount::provider::Place {
        parent: root.key.clone(),
        name: name(text),
    };
    let refused = account.rename(&made, &place("new-one"), &place("other"), None).await;
    assert_eq!(kind(&refused), Some(ErrorKind::NotPermitted));
    // From one workspace to another tools copy.
    bench.workspace.put("/file", "content").unwrap();
    let file = account.lookup(&bench.root(), &name("file")).await.unwrap();
    let there = keymount::provider::Place {
        parent: made.key.clone(),
        name: name("file"),
    };
    let moved = account.rename(&file, &bench.place("file"), &there, None).await;
    assert_eq!(kind(&moved), Some(ErrorKind::CrossDevice));
    let limited = [Scope::WorkspacesRead, Scope::FilesRead];
    let key = bench.store.create_key(OWNER, "k", &limited).unwrap();
    let account = bench.of(Credential::ApiKey(key.secret().to_owned()), None).await;
    assert_eq!(account.probe().await.unwrap().rights, Rights::READ);
    let denied = account.create_directory(&root.key, &name("another")).await;
    assert_eq!(kind(&denied), Some(ErrorKind::Denied));
}

#[tokio::test]
async fn a_part_of_the_account_is_found_by_its_path() {
    let bench = Bench::new().await;
    bench.workspace.put("/a/b/file", "content").unwrap();
    let key = bench.store.create_key(OWNER, "k", &Scope::of_keys()).unwrap();
    let mount = async |workspace: Option<&str>, path: &str| {
        let credential = Credential::ApiKey(key.secret().to_owned());
        let cloudsync = super::client(&bench.running.url(), credential, settings(workspace, path)).await;
        cloudsync.probe().await
    };
    let by_name = mount(None, "project/a/b").await.unwrap();
    let by_id = mount(Some(bench.workspace.id()), "a/b").await.unwrap();
    assert_eq!(by_name, by_id);
    assert_eq!(by_name.name.as_str(), "b");
    assert_eq!(kind(&mount(None, "nowhere").await), Some(ErrorKind::NotFound));
    assert_eq!(kind(&mount(None, "project/x").await), Some(ErrorKind::NotFound));
    assert_eq!(
        kind(&mount(Some("project"), "a/b/file").await),
        Some(ErrorKind::NotADirectory)
    );
}

/// What a sandbox holds is not what production holds, whatever the ids are.
#[tokio::test]
async fn a_sandbox_is_another_storage() {
    let bench = Bench::new().await;
    let test = bench
        .store
        .create_key_for(Environment::Sandbox, OWNER, "test", &Scope::of_keys())
        .unwrap();
    let sandbox = bench
        .of(Credential::ApiKey(test.secret().to_owned()), Some("project"))
        .await;
    sandbox.probe().await.unwrap();
    assert_ne!(sandbox.identity(), bench.cloudsync.identity());
    assert_eq!(sandbox.current_key().unwrap().name, "test");
}
