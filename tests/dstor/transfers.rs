//! Uploads and downloads: what the service is asked, and what its odd answers come to.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::TryStreamExt;
use jiff::SignedDuration;
use keymount::emulator::dstor::{
    Account, Assumptions, Console, DstorStore, MissingContent, MissingDirectory, Network, Offered, Processing,
    Redirect, Stage,
};
use keymount::emulator::{Fault, Rule, Running};
use keymount::model::{ContentAddress, Entry, ErrorKind, IndexedContent, IndexedFile, Name, ObjectKey, Result, Rights};
use keymount::provider::dstor::{Dstor, Settings};
use keymount::provider::registry::OnUnlink;
use keymount::provider::{Content, Place, Provider, Reads, Target};
use keymount::state::PathIndex;
use reqwest::Method;

use crate::support::{client, index, names, settings};

struct Mounted {
    store: DstorStore,
    account: Account,
    index: Arc<PathIndex>,
    dstor: Dstor,
    root: Entry,
    running: Running,
}

impl Mounted {
    async fn new(assumptions: Assumptions) -> Self {
        Self::with(assumptions, |_, _| {}).await
    }

    /// `prepare` may fill the store and the tree, and change the settings.
    async fn with(assumptions: Assumptions, prepare: impl FnOnce(&Prepared<'_>, &mut Settings)) -> Self {
        let store = DstorStore::new(Network::Production, assumptions);
        let account = store.add_account("me@example.org", "correct horse");
        let key = account.add_key("test");
        let (index, mut settings) = (index(), settings());
        let prepared = Prepared {
            store: &store,
            index: &index,
        };
        prepare(&prepared, &mut settings);
        let running = store.serve().await.unwrap();
        let dstor = client(&running, &key, Arc::clone(&index), settings).await;
        let root = dstor.probe().await.unwrap();
        running.forget_requests();
        Self {
            store,
            account,
            index,
            dstor,
            root,
            running,
        }
    }

    async fn put(&self, parent: &ObjectKey, name: &str, bytes: &[u8]) -> Result<Entry> {
        let target = Target::New {
            parent: parent.clone(),
            name: Name::new(name).unwrap(),
        };
        self.dstor.upload(&target, &Content::from_bytes(bytes).unwrap()).await
    }

    async fn mkdir(&self, name: &str) -> Entry {
        let name = Name::new(name).unwrap();
        self.dstor.create_directory(&self.root.key, &name).await.unwrap()
    }

    async fn read(&self, entry: &Entry, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
        let chunks: Vec<_> = self.dstor.read(&entry.object(), range).await?.try_collect().await?;
        Ok(chunks.concat())
    }

    fn sent(&self) -> Vec<String> {
        let line = |request: &keymount::emulator::Recorded| format!("{} {}", request.method, request.target);
        self.running.requests().iter().map(line).collect()
    }
}

/// What is there before the first request.
struct Prepared<'a> {
    store: &'a DstorStore,
    index: &'a PathIndex,
}

impl Prepared<'_> {
    /// A file in the tree's root that another machine has uploaded.
    fn file(&self, name: &str, bytes: &[u8], sha256: Option<&str>) {
        let file = IndexedFile {
            address: ContentAddress::new(&self.store.put(bytes.to_vec())).unwrap(),
            size: bytes.len() as u64,
            sha256: sha256.map(str::to_owned),
        };
        self.insert(self.index.root(), name, IndexedContent::File(file));
    }

    fn insert(
        &self,
        parent: keymount::model::IndexId,
        name: &str,
        content: IndexedContent,
    ) -> keymount::model::IndexId {
        let made = self
            .index
            .insert(parent, &names(name)[0], &content, SystemTime::now())
            .unwrap();
        made.id
    }
}

fn kind<T>(outcome: &Result<T>) -> Option<ErrorKind> {
    outcome.as_ref().err().map(|error| error.kind())
}

#[tokio::test]
async fn an_upload_is_announced_sent_and_waited_for() {
    let it = Mounted::new(Assumptions::default()).await;
    it.store.set_processing(Processing { adding: 3, saving: 2 });
    let folder = it.mkdir("notes \"ü\\").await;
    let file = it.put(&folder.key, "a b.txt", b"content").await.unwrap();
    assert_eq!(it.store.read(file.version.as_str()).unwrap(), "content");
    assert_eq!(it.account.read("/notes _ü_/a b.txt").unwrap(), "content");
    let sent = it.sent();
    assert_eq!(sent[0], "POST /v1/upload/get-token");
    assert_eq!(sent[1], "POST /v1/upload/");
    assert_eq!(
        sent.iter().filter(|line| *line == "GET /v1/upload/get-status/").count(),
        6
    );
    assert_eq!(it.read(&file, 0..7).await.unwrap(), b"content");
    assert_eq!(it.read(&file, 2..5).await.unwrap(), b"nte");
}

#[tokio::test]
async fn changes_of_the_tree_ask_nobody() {
    let it = Mounted::new(Assumptions::default()).await;
    let file = it.put(&it.root.key, "file", b"content").await.unwrap();
    it.running.forget_requests();
    let folder = it.mkdir("folder").await;
    let place = |parent: &Entry, name: &str| Place {
        parent: parent.key.clone(),
        name: Name::new(name).unwrap(),
    };
    let moved = it
        .dstor
        .rename(&file, &place(&it.root, "file"), &place(&folder, "moved"), None)
        .await
        .unwrap();
    assert_eq!((&moved.key, &moved.version), (&file.key, &file.version));
    let into_itself = it
        .dstor
        .rename(&folder, &place(&it.root, "folder"), &place(&folder, "x"), None)
        .await;
    assert_eq!(kind(&into_itself), Some(ErrorKind::InvalidInput));
    it.dstor.remove_file(&moved).await.unwrap();
    it.dstor.remove_directory(&folder).await.unwrap();
    assert!(it.sent().is_empty(), "{:?}", it.sent());
    assert!(it.store.read(file.version.as_str()).is_some(), "the content stays");
}

#[tokio::test]
async fn a_failed_upload_says_why_and_leaves_no_name() {
    let it = Mounted::new(Assumptions::default()).await;
    for (stage, explanation, expected) in [
        (Stage::Receiving, "disk failure", ErrorKind::Unreachable),
        (
            Stage::AddingToIpfs,
            "ipfs add: context deadline exceeded",
            ErrorKind::Unreachable,
        ),
        (Stage::SavingData, "Storage quota exceeded", ErrorKind::Quota),
    ] {
        it.store.fail_next_upload(stage, explanation);
        let failed = it.put(&it.root.key, "file", b"content").await;
        assert_eq!(kind(&failed), Some(expected), "{stage:?}");
        let message = failed.unwrap_err().to_string();
        assert!(message.contains(explanation), "{message}");
    }
    assert!(it.dstor.list(&it.root.key).await.unwrap().is_empty());
    it.put(&it.root.key, "file", b"content").await.unwrap();
}

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    let it = Mounted::with(Assumptions::default(), |_, settings| {
        settings.polling.patience = std::time::Duration::ZERO;
    })
    .await;
    it.store.set_processing(Processing {
        adding: u32::MAX,
        saving: 0,
    });
    let failed = it.put(&it.root.key, "file", b"content").await;
    assert_eq!(kind(&failed), Some(ErrorKind::TimedOut));
}

#[tokio::test]
async fn where_the_portal_has_no_such_directory_its_root_is_used() {
    let it = Mounted::new(Assumptions {
        missing_directory: MissingDirectory::Refuse,
        ..Assumptions::default()
    })
    .await;
    let folder = it.mkdir("folder").await;
    it.put(&folder.key, "file", b"content").await.unwrap();
    assert_eq!(it.account.read("/file").unwrap(), "content");
}

/// The address that the service leads to ends at once; the one that it is asked for doesn't.
#[tokio::test]
async fn an_address_that_ended_is_asked_for_anew() {
    let it = Mounted::new(Assumptions {
        redirect: Redirect::Signed { life: 60 },
        ..Assumptions::default()
    })
    .await;
    let file = it.put(&it.root.key, "file", b"content").await.unwrap();
    it.running.forget_requests();
    let refusal = Fault::Status {
        status: 400,
        headers: Vec::new(),
        body: "Signature expired. Please access a file/folder again using our api server".to_owned(),
    };
    let is_signed = |_: &Method, target: &str| target.starts_with("/ipfs/") && target.len() > 60;
    it.running.faults().inject(Rule::when(1, is_signed, refusal));
    assert_eq!(it.read(&file, 0..7).await.unwrap(), b"content");
    let hash = format!("GET /ipfs/{}", file.version);
    assert_eq!(
        it.sent().iter().filter(|line| **line == hash).count(),
        2,
        "{:?}",
        it.sent()
    );
    // A minute later the old address is over; none was kept.
    it.store.shift_clock(SignedDuration::from_mins(2));
    assert_eq!(it.read(&file, 0..7).await.unwrap(), b"content");
}

#[tokio::test]
async fn a_content_that_is_lost_is_no_missing_file() {
    for missing_content in [MissingContent::NotFound, MissingContent::GatewayFailure] {
        let it = Mounted::new(Assumptions {
            missing_content,
            ..Assumptions::default()
        })
        .await;
        let file = it.put(&it.root.key, "file", b"content").await.unwrap();
        assert!(it.store.forget(file.version.as_str()));
        let expected = match missing_content {
            MissingContent::NotFound => ErrorKind::BadData,
            MissingContent::GatewayFailure => ErrorKind::Unreachable,
        };
        assert_eq!(kind(&it.read(&file, 0..7).await), Some(expected));
        assert!(it.dstor.stat(&file).await.is_ok());
    }
}

#[tokio::test]
async fn other_bytes_than_those_that_were_stored_are_not_handed_on() {
    let it = Mounted::with(Assumptions::default(), |prepared, _| {
        prepared.file("other", b"what came", Some(&"ab".repeat(32)));
        prepared.file("unknown", b"what came", None);
    })
    .await;
    let entry = async |name: &str| it.dstor.lookup(&it.root.key, &Name::new(name).unwrap()).await.unwrap();
    let (other, unknown) = (entry("other").await, entry("unknown").await);
    assert_eq!(kind(&it.read(&other, 0..9).await), Some(ErrorKind::BadData));
    assert_eq!(it.read(&unknown, 0..9).await.unwrap(), b"what came");
    let hash = other.version.to_string();
    it.running.faults().inject(Rule::once(
        Method::GET,
        format!("/ipfs/{hash}/"),
        Fault::TruncateBody { after: 3 },
    ));
    assert!(it.read(&unknown, 0..9).await.is_err());
}

#[tokio::test]
async fn whether_parts_can_be_read_is_found_out() {
    for (ranges, expected) in [(Offered::Yes, Reads::Ranges), (Offered::No, Reads::WholeOnly)] {
        let assumptions = Assumptions {
            ranges,
            ..Assumptions::default()
        };
        let it = Mounted::with(assumptions, |prepared, _| prepared.file("file", b"content", None)).await;
        assert_eq!(it.dstor.capabilities().reads, expected);
    }
}

#[tokio::test]
async fn a_hashed_folder_can_be_read_and_not_changed() {
    let it = Mounted::with(Assumptions::default(), |prepared, _| {
        let hash = prepared.store.put_folder([("a.txt", "one"), ("b.txt", "two")]);
        let address = |text: &str| ContentAddress::new(text).unwrap();
        let root = prepared.index.root();
        let folder = prepared.insert(root, "site", IndexedContent::Folder(address(&hash)));
        for name in ["a.txt", "b.txt"] {
            let file = IndexedFile {
                address: address(&format!("{hash}/{name}")),
                size: 3,
                sha256: None,
            };
            prepared.insert(folder, name, IndexedContent::File(file));
        }
    })
    .await;
    let name = |text: &str| Name::new(text).unwrap();
    let site = it.dstor.lookup(&it.root.key, &name("site")).await.unwrap();
    let file = it.dstor.lookup(&site.key, &name("b.txt")).await.unwrap();
    assert_eq!((site.rights, file.rights), (Rights::READ, Rights::READ));
    assert_eq!(it.root.rights, Rights::ALL);
    assert_eq!(it.read(&file, 0..3).await.unwrap(), b"two");
    let denied = Some(ErrorKind::NotPermitted);
    assert_eq!(kind(&it.put(&site.key, "new", b"x").await), denied);
    assert_eq!(kind(&it.dstor.create_directory(&site.key, &name("new")).await), denied);
    assert_eq!(kind(&it.dstor.remove_file(&file).await), denied);
    let place = |parent: &Entry, text: &str| Place {
        parent: parent.key.clone(),
        name: name(text),
    };
    let out = it
        .dstor
        .rename(&file, &place(&site, "b.txt"), &place(&it.root, "b.txt"), None)
        .await;
    assert_eq!(kind(&out), denied);
    // The folder as a whole is one entry of the tree.
    it.dstor.remove_directory(&site).await.unwrap();
    assert!(it.index.children(it.index.root()).unwrap().is_empty());
    assert_eq!(kind(&it.dstor.stat(&file).await), Some(ErrorKind::NotFound));
}

#[tokio::test]
async fn an_endpoint_to_delete_is_called_for_the_last_name_of_a_content() {
    let console = Assumptions {
        console: Some(Console::default()),
        ..Assumptions::default()
    };
    let it = Mounted::with(console, |_, settings| {
        settings.endpoints.delete = Some("DELETE /v1/files/{hash}".parse().unwrap());
    })
    .await;
    let first = it.put(&it.root.key, "first", b"the same").await.unwrap();
    let second = it.put(&it.root.key, "second", b"the same").await.unwrap();
    it.running.forget_requests();
    it.dstor.remove_file(&first).await.unwrap();
    assert!(it.sent().is_empty() && it.account.files().len() == 2);
    it.running
        .faults()
        .inject(Rule::once(Method::DELETE, "/v1/files", Fault::status(403)));
    assert_eq!(kind(&it.dstor.remove_file(&second).await), Some(ErrorKind::Denied));
    assert!(it.dstor.stat(&second).await.is_ok(), "what was refused is still there");
    it.dstor.remove_file(&second).await.unwrap();
    assert!(it.account.files().is_empty());
}

#[tokio::test]
async fn rights_are_those_of_the_account_and_of_the_configuration() {
    let it = Mounted::with(Assumptions::default(), |_, settings| {
        settings.on_unlink = OnUnlink::Deny
    })
    .await;
    assert_eq!(it.root.rights.to_string(), "rw-");
    let it = Mounted::new(Assumptions::default()).await;
    it.running
        .faults()
        .inject(Rule::once(Method::POST, "get-token", Fault::status(403)));
    assert_eq!(it.dstor.probe().await.unwrap().rights, Rights::READ);
    assert_eq!(it.dstor.probe().await.unwrap().rights, Rights::ALL);
    it.account.expire_tokens();
    assert_eq!(kind(&it.dstor.probe().await), Some(ErrorKind::NeedsLogin));
    assert_eq!(
        kind(&it.put(&it.root.key, "file", b"x").await),
        Some(ErrorKind::NeedsLogin)
    );
}

/// Reading takes no token, as public clients show; so what is known stays readable without one.
#[tokio::test]
async fn contents_are_read_without_a_token_unless_the_service_wants_one() {
    let it = Mounted::new(Assumptions::default()).await;
    let file = it.put(&it.root.key, "file", b"content").await.unwrap();
    it.account.expire_tokens();
    assert_eq!(it.read(&file, 0..7).await.unwrap(), b"content");
    let it = Mounted::new(Assumptions::default()).await;
    let file = it.put(&it.root.key, "file", b"content").await.unwrap();
    it.running
        .faults()
        .inject(Rule::once(Method::GET, "/ipfs/", Fault::status(401)));
    assert_eq!(it.read(&file, 0..7).await.unwrap(), b"content");
}

#[tokio::test]
async fn a_list_of_contents_is_taken_into_the_tree_once() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("index.json");
    let assumptions = Assumptions {
        head: Offered::No,
        ..Assumptions::default()
    };
    let it = Mounted::with(assumptions, |prepared, settings| {
        let file = prepared.store.put("from elsewhere");
        let site = prepared.store.put_folder([("page", "hello"), ("deep/er", "below")]);
        let text = serde_json::json!([
            {"path": "site/page", "hash": format!("{site}/page"), "size": 5},
            {"path": "site/deep/er", "hash": format!("{site}/deep/er")},
            {"path": "site", "hash": site, "kind": "folder"},
            {"path": "/a b/file.txt", "hash": file, "modified": "2020-02-03T04:05:06Z"},
        ]);
        std::fs::write(&list, text.to_string()).unwrap();
        settings.import = Some(list.clone());
    })
    .await;
    let walk = async |path: &str| -> Result<Entry> {
        let mut at = it.root.clone();
        for name in names(path) {
            at = it.dstor.lookup(&at.key, &name).await?;
        }
        Ok(at)
    };
    let file = walk("a b/file.txt").await.unwrap();
    assert_eq!((file.size, file.rights), (14, Rights::ALL));
    let since = file.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(since.as_secs(), 1_580_702_706);
    assert_eq!(it.read(&file, 0..14).await.unwrap(), b"from elsewhere");
    for (path, content) in [("site/page", b"hello"), ("site/deep/er", b"below")] {
        let entry = walk(path).await.unwrap();
        assert_eq!((entry.size, entry.rights), (5, Rights::READ), "{path}");
        assert_eq!(it.read(&entry, 0..5).await.unwrap(), content);
    }
    assert_eq!(walk("site/deep").await.unwrap().rights, Rights::READ);
    it.dstor.remove_file(&file).await.unwrap();
    it.dstor.probe().await.unwrap();
    assert!(
        walk("a b/file.txt").await.is_err(),
        "the same list is not imported again"
    );
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, format!("{text}\n")).unwrap();
    it.dstor.probe().await.unwrap();
    assert!(walk("a b/file.txt").await.is_ok());
    for (wrong, words) in [
        ("{}", "index.json"),
        (r#"[{"path":"a/../b","hash":"x"}]"#, "a/../b"),
        (r#"[{"path":"a","hash":"x"}]"#, "hash"),
        (r#"[{"path":"a","hash":"x","sise":1}]"#, "sise"),
    ] {
        std::fs::write(&list, wrong).unwrap();
        let error = it.dstor.probe().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().contains(words), "{error}");
    }
}

/// Every step of an upload fails once, and with it the upload or not; the next attempt stores the file.
#[tokio::test]
async fn every_step_of_an_upload_can_fail_and_be_tried_again() {
    let requests = [
        (Method::POST, "/v1/upload/get-token"),
        (Method::POST, "/v1/upload/"),
        (Method::GET, "/v1/upload/get-status/"),
    ];
    let faults = [
        Fault::status(500),
        Fault::status(429),
        Fault::DropConnection,
        Fault::DropAfterEffect,
        Fault::Garbage,
    ];
    for (method, target) in requests {
        for fault in &faults {
            // Nothing but patience tells that a post got nowhere which was answered so.
            if matches!(fault, Fault::Garbage) && target == "/v1/upload/" {
                continue;
            }
            let it = Mounted::new(Assumptions::default()).await;
            let (of, at) = (method.clone(), target.to_owned());
            let hits = move |method: &Method, target: &str| *method == of && target == at;
            it.running.faults().inject(Rule::when(1, hits, fault.clone()));
            let file = match it.put(&it.root.key, "file", b"content").await {
                Ok(file) => file,
                Err(error) => {
                    assert!(it.dstor.list(&it.root.key).await.unwrap().is_empty(), "{error}");
                    it.put(&it.root.key, "file", b"content").await.unwrap()
                }
            };
            assert_eq!(
                it.running.faults().pending(),
                0,
                "{method} {target} {fault:?} never came"
            );
            assert_eq!(
                it.read(&file, 0..7).await.unwrap(),
                b"content",
                "{method} {target} {fault:?}"
            );
        }
    }
}

/// The bytes are there; only their end wasn't seen.
#[tokio::test]
async fn an_upload_that_was_sent_is_gone_on_with() {
    let it = Mounted::new(Assumptions::default()).await;
    let is_status = |_: &Method, target: &str| target.starts_with("/v1/upload/get-status");
    it.running
        .faults()
        .inject(Rule::when(usize::MAX, is_status, Fault::status(503)));
    let failed = it.put(&it.root.key, "file", b"content").await;
    assert_eq!(kind(&failed), Some(ErrorKind::Unreachable));
    it.running.faults().clear();
    let file = it.put(&it.root.key, "file", b"content").await.unwrap();
    assert_eq!(it.read(&file, 0..7).await.unwrap(), b"content");
    let sent = it.sent().iter().filter(|line| *line == "POST /v1/upload/").count();
    assert_eq!((sent, it.account.files().len()), (1, 1), "the bytes travel once");
    // Another content of the same name is another upload.
    it.put(&it.root.key, "other", b"more content").await.unwrap();
    assert_eq!(it.account.files().len(), 2);
}

#[tokio::test]
async fn the_portal_is_told_new_names_and_tells_what_has_none_here() {
    let console = Assumptions {
        console: Some(Console::default()),
        ..Assumptions::default()
    };
    let it = Mounted::with(console, |_, settings| {
        settings.endpoints.rename = Some("PUT /v1/files/{hash} {\"name\":\"{name}\"}".parse().unwrap());
        settings.endpoints.list = Some("GET /v1/files".parse().unwrap());
    })
    .await;
    let file = it.put(&it.root.key, "file", b"content").await.unwrap();
    let folder = it.mkdir("folder").await;
    let place = |parent: &Entry, name: &str| Place {
        parent: parent.key.clone(),
        name: Name::new(name).unwrap(),
    };
    let renamed = it
        .dstor
        .rename(&file, &place(&it.root, "file"), &place(&it.root, "new 'name'"), None)
        .await
        .unwrap();
    assert_eq!(it.account.files()[0].path, "/new 'name'");
    // The template has no word for another directory, and a refusal changes nothing here.
    let refusal = Rule::once(Method::PUT, "/v1/files", Fault::status(403));
    it.running.faults().inject(refusal);
    for (from, to) in [
        ((&it.root, "new 'name'"), (&folder, "a")),
        ((&folder, "a"), (&folder, "b")),
    ] {
        it.dstor
            .rename(&renamed, &place(from.0, from.1), &place(to.0, to.1), None)
            .await
            .unwrap();
    }
    assert_eq!(it.account.files()[0].path, "/new 'name'");
    // What others put into the account appears, and what has a name here or had one doesn't.
    it.account.put("/from the portal/x", "by hand");
    it.dstor.probe().await.unwrap();
    let names = async |directory: &ObjectKey| -> Vec<String> {
        let entries = it.dstor.list(directory).await.unwrap();
        let mut names: Vec<String> = entries.iter().map(|entry| entry.name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&it.root.key).await, ["folder", "from the portal"]);
    let moved = it.dstor.lookup(&folder.key, &Name::new("b").unwrap()).await.unwrap();
    it.dstor.remove_file(&moved).await.unwrap();
    it.dstor.probe().await.unwrap();
    assert_eq!(names(&it.root.key).await, ["folder", "from the portal"]);
    assert!(names(&folder.key).await.is_empty());
    it.running
        .faults()
        .inject(Rule::once(Method::GET, "/v1/files", Fault::status(404)));
    assert_eq!(kind(&it.dstor.probe().await), Some(ErrorKind::NotFound));
}

/// A content is named by its hash: a file that was opened can be read as long as any name has the content.
#[tokio::test]
async fn a_content_is_read_whatever_its_file_is_called() {
    let it = Mounted::new(Assumptions::default()).await;
    let first = it.put(&it.root.key, "first", b"content").await.unwrap();
    let second = it.put(&it.root.key, "second", b"content").await.unwrap();
    assert_eq!(first.version, second.version);
    it.dstor.remove_file(&first).await.unwrap();
    assert_eq!(it.read(&first, 0..7).await.unwrap(), b"content");
    it.dstor.remove_file(&second).await.unwrap();
    assert_eq!(kind(&it.read(&first, 0..7).await), Some(ErrorKind::NotFound));
}
