//! Owner, shared and no token: what is found out, shown and learned.

use keymount::emulator::cludz::{Grant, Sharing, Subscription};
use keymount::model::{ErrorKind, Rights};
use keymount::provider::Provider;
use reqwest::Method;

use super::support::{Token, client, client_with};
use super::{Bench, content, kind, name, new, place, read, root};

const GRANTS: [(Grant, &str); 4] = [
    (Grant::Read, "r--"),
    (Grant::Write, "rw-"),
    (Grant::Delete, "r-d"),
    (Grant::WriteDelete, "rwd"),
];

#[tokio::test]
async fn the_owner_has_all_rights_and_the_probe_changes_nothing() {
    let bench = Bench::new().await;
    bench.drive.put("/file", "content").unwrap();
    bench.drive.mkdir("/folder").unwrap();
    let before = (bench.drive.info("/"), bench.drive.list("/"), bench.files());
    assert_eq!(bench.cludz.probe().await.unwrap().rights, Rights::ALL);
    assert_eq!((bench.drive.info("/"), bench.drive.list("/"), bench.files()), before);
}

#[tokio::test]
async fn the_probe_finds_a_shared_tokens_rights() {
    for (filled, folder) in [(true, "full"), (false, "empty")] {
        for (grant, expected) in GRANTS {
            let bench = Bench::new().await;
            bench.drive.mkdir(&format!("/{folder}")).unwrap();
            if filled {
                bench.drive.put("/full/file", "content").unwrap();
            }
            let token = bench.drive.share("guest");
            bench.drive.set_grant("guest", &format!("/{folder}"), grant).unwrap();
            let guest = client_with(
                bench.running.url(),
                bench.drive.id(),
                Token::Header(token),
                folder,
                None,
            )
            .await;
            let root = guest.probe().await.unwrap();
            assert_eq!(
                root.rights.to_string(),
                expected,
                "{grant:?} on a folder that is {folder}"
            );
            for entry in guest.list(&root.key).await.unwrap() {
                assert_eq!(entry.rights.to_string(), expected, "{grant:?}");
            }
        }
    }
}

#[tokio::test]
async fn folders_below_may_grant_more_or_less() {
    let bench = Bench::new().await;
    for folder in ["plain", "docs", "trash", "secret", "docs/inner"] {
        bench.drive.mkdir(&format!("/{folder}")).unwrap();
        bench.drive.put(&format!("/{folder}/file"), "content").unwrap();
    }
    let guest = bench.shared("guest").await;
    for (folder, grant) in [
        ("/", Grant::Read),
        ("/docs", Grant::WriteDelete),
        ("/docs/inner", Grant::Write),
        ("/trash", Grant::Delete),
        ("/secret", Grant::Nothing),
    ] {
        bench.drive.set_grant("guest", folder, grant).unwrap();
    }
    let expected = [("docs", "rwd"), ("plain", "r--"), ("secret", "---"), ("trash", "r-d")];
    assert_eq!(guest.probe().await.unwrap().rights, Rights::READ);
    let listed = guest.list(&root()).await.unwrap();
    let shown: Vec<_> = listed
        .iter()
        .map(|entry| (entry.name.as_str(), entry.rights.to_string()))
        .collect();
    assert_eq!(shown, expected.map(|(name, rights)| (name, rights.to_owned())));
    // A second client that never lists sees the same.
    let token = bench.drive.share("guest");
    let other = client(bench.running.url(), bench.drive.id(), Token::Header(token)).await;
    other.probe().await.unwrap();
    for (text, rights) in expected {
        let entry = other.lookup(&root(), &name(text)).await.unwrap();
        assert_eq!(entry.rights.to_string(), rights, "{text}");
    }
    let docs = listed.iter().find(|entry| entry.name.as_str() == "docs").unwrap();
    let inside = other.list(&docs.key).await.unwrap();
    let file = inside.iter().find(|entry| !entry.is_directory()).unwrap();
    assert_eq!(file.rights, Rights::ALL);
}

#[tokio::test]
async fn without_any_right_the_probe_says_what_to_do() {
    let bench = Bench::new().await;
    let guest = bench.shared("guest").await;
    let refused = guest.probe().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    assert!(refused.message().contains("cludz://"), "{refused}");
}

#[tokio::test]
async fn a_refusal_lowers_the_rights_until_the_next_probe() {
    let bench = Bench::new().await;
    bench.drive.put("/sub/file", "content").unwrap();
    let guest = bench.shared("guest").await;
    bench.drive.set_grant("guest", "/", Grant::WriteDelete).unwrap();
    assert_eq!(guest.probe().await.unwrap().rights, Rights::ALL);
    bench.drive.set_grant("guest", "/", Grant::Delete).unwrap();
    let refused = guest.upload(&new("new"), &content(b"x")).await;
    assert_eq!(kind(&refused), Some(ErrorKind::Denied));
    let sub = guest.lookup(&root(), &name("sub")).await.unwrap();
    assert_eq!(sub.rights.to_string(), "r-d");
    let file = guest.lookup(&sub.key, &name("file")).await.unwrap();
    assert_eq!(file.rights.to_string(), "r-d");
    bench.drive.set_grant("guest", "/", Grant::Write).unwrap();
    assert_eq!(kind(&guest.remove_file(&file).await), Some(ErrorKind::Denied));
    bench.drive.set_grant("guest", "/", Grant::WriteDelete).unwrap();
    assert_eq!(guest.probe().await.unwrap().rights, Rights::ALL);
    assert_eq!(guest.stat(&file).await.unwrap().rights, Rights::ALL);
    guest.remove_file(&file).await.unwrap();
}

#[tokio::test]
async fn each_grant_allows_what_it_says_and_no_more() {
    for (grant, shown) in GRANTS {
        let bench = Bench::new().await;
        bench.drive.put("/file", "content").unwrap();
        bench.drive.put("/other", "other").unwrap();
        let guest = bench.shared("guest").await;
        bench.drive.set_grant("guest", "/", grant).unwrap();
        guest.probe().await.unwrap();
        let denied = |allowed: char| (!shown.contains(allowed)).then_some(ErrorKind::Denied);
        let file = guest.lookup(&root(), &name("file")).await.unwrap();
        assert_eq!(read(&guest, &file, 0..7).await.unwrap(), b"content", "{grant:?}");
        let made = guest.upload(&new("new"), &content(b"x")).await;
        assert_eq!(kind(&made), denied('w'), "{grant:?}: create");
        let made = guest.create_directory(&root(), &name("folder")).await;
        assert_eq!(kind(&made), denied('w'), "{grant:?}: mkdir");
        let renamed = guest.rename(&file, &place("file"), &place("renamed"), None).await;
        assert_eq!(kind(&renamed), denied('w'), "{grant:?}: rename to a free name");
        let file = renamed.unwrap_or(file);
        let other = guest.lookup(&root(), &name("other")).await.unwrap();
        let replaced = guest
            .rename(&file, &place(file.name.as_str()), &place("other"), Some(&other))
            .await;
        let expected = denied('w').or(denied('d'));
        assert_eq!(kind(&replaced), expected, "{grant:?}: rename over");
        let gone = replaced.unwrap_or(other);
        assert_eq!(kind(&guest.remove_file(&gone).await), denied('d'), "{grant:?}: remove");
    }
}

#[tokio::test]
async fn nothing_is_left_behind_where_replacing_is_not_allowed() {
    let bench = Bench::new().await;
    bench.drive.put("/file", "content").unwrap();
    let guest = bench.shared("guest").await;
    bench.drive.set_grant("guest", "/", Grant::Write).unwrap();
    guest.probe().await.unwrap();
    let file = guest.lookup(&root(), &name("file")).await.unwrap();
    let refused = guest.upload(&super::over(&file), &content(b"new")).await;
    assert_eq!(kind(&refused), Some(ErrorKind::Denied));
    assert_eq!(bench.files(), [("file".to_owned(), b"content".to_vec())].into());
}

#[tokio::test]
async fn public_folders_are_read_without_a_token() {
    let bench = Bench::new().await;
    bench.drive.put("/public/file", "content").unwrap();
    bench.drive.put("/private/file", "content").unwrap();
    bench.drive.set_sharing("/public", Sharing::Public).unwrap();
    let visitor = |path: &'static str| client_with(bench.running.url(), bench.drive.id(), Token::None, path, None);
    let public = visitor("public").await;
    let root = public.probe().await.unwrap();
    assert_eq!((root.rights, root.name.as_str()), (Rights::READ, "public"));
    let file = public.lookup(&root.key, &name("file")).await.unwrap();
    assert_eq!(file.rights, Rights::READ);
    assert_eq!(read(&public, &file, 0..7).await.unwrap(), b"content");
    let refused = public.create_directory(&root.key, &name("new")).await;
    assert_eq!(kind(&refused), Some(ErrorKind::NeedsLogin));
    assert!(
        bench
            .running
            .requests()
            .iter()
            .all(|request| request.method != Method::PUT)
    );
    assert_eq!(
        kind(&visitor("private").await.probe().await),
        Some(ErrorKind::NeedsLogin)
    );
}

#[tokio::test]
async fn a_revoked_token_needs_a_login_and_heals_with_a_new_grant() {
    let bench = Bench::new().await;
    bench.drive.put("/file", "content").unwrap();
    bench.drive.share_as("guest", "the secret");
    bench.drive.set_grant("guest", "/", Grant::WriteDelete).unwrap();
    let token = Token::Header("the secret".into());
    let guest = client(bench.running.url(), bench.drive.id(), token).await;
    let root = guest.probe().await.unwrap();
    let file = guest.lookup(&root.key, &name("file")).await.unwrap();
    assert!(bench.drive.revoke("guest"));
    assert_eq!(kind(&guest.probe().await), Some(ErrorKind::NeedsLogin));
    assert_eq!(kind(&guest.list(&root.key).await), Some(ErrorKind::NeedsLogin));
    assert_eq!(kind(&read(&guest, &file, 0..7).await), Some(ErrorKind::NeedsLogin));
    let refused = guest.upload(&new("new"), &content(b"x")).await;
    assert_eq!(kind(&refused), Some(ErrorKind::NeedsLogin));
    bench.drive.share_as("guest", "the secret");
    assert_eq!(guest.probe().await.unwrap().rights, Rights::ALL);
    assert_eq!(read(&guest, &file, 0..7).await.unwrap(), b"content");
}

#[tokio::test]
async fn an_expired_subscription_is_no_lack_of_rights() {
    let bench = Bench::new().await;
    bench.drive.put("/file", "content").unwrap();
    let file = bench.entry("file").await;
    bench.drive.set_subscription(Subscription::Expired);
    assert_eq!(bench.cludz.probe().await.unwrap().rights, Rights::ALL);
    let cludz = &bench.cludz;
    let results = [
        kind(&cludz.upload(&new("new"), &content(b"x")).await),
        kind(&cludz.upload(&new("empty"), &content(b"")).await),
        kind(&cludz.upload(&super::over(&file), &content(b"x")).await),
        kind(&cludz.create_directory(&root(), &name("folder")).await),
        kind(&cludz.rename(&file, &place("file"), &place("new"), None).await),
    ];
    assert_eq!(results, [Some(ErrorKind::Quota); 5]);
    assert_eq!(read(cludz, &file, 0..7).await.unwrap(), b"content");
    let file = bench.entry("file").await;
    assert_eq!(file.rights, Rights::ALL);
    cludz.remove_file(&file).await.unwrap();
}

#[tokio::test]
async fn given_rights_are_shown_and_nothing_is_asked() {
    let bench = Bench::new().await;
    bench.drive.put("/file", "content").unwrap();
    let rights = "rd".parse().unwrap();
    let token = Token::Header(bench.drive.owner_token());
    let cludz = client_with(bench.running.url(), bench.drive.id(), token, "", Some(rights)).await;
    assert_eq!(cludz.probe().await.unwrap().rights, rights);
    assert_eq!(cludz.list(&root()).await.unwrap()[0].rights, rights);
    assert_eq!(bench.changes(), []);
}
