//! Services that say that something is stored and have nothing, or something else: what was closed stays in the journal until
//! they have it.
//!
//! Each is a real server, or the stand-in where there is none, behind a proxy that lies about what is uploaded.

use std::sync::Arc;
use std::time::Duration;

use keymount::api::{Api, PlainHttp};
use keymount::auth::{Authenticator, GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};
use keymount::emulator;
use keymount::emulator::{Fault, Rule};
use keymount::model::Name;
use keymount::provider::Provider;
use keymount::provider::dstor::Polling;
use keymount::provider::reductstore::ReductStore;
use reqwest::Method;

use crate::lying::{FORGED, Lie, LyingProxy, TRUTH, Told};
use crate::mounted::Mounted;
use crate::{dstor, program, s3, webdav};

/// As long as what replaces it.
const BEFORE: &str = "what was there before that, really";

/// What is uploaded under a lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    New,
    Replacement,
}

impl Mounted {
    /// Whatever is attempted while the provider lies, the file is not taken for stored; and it is as soon as it tells the
    /// truth.
    async fn believes_no_lie(self, what: &str, upload: Upload, lie: impl AsyncFn(), truth: impl AsyncFn()) {
        if upload == Upload::Replacement {
            self.write("file", BEFORE).await;
            self.fs.drain().await.unwrap();
        }
        lie().await;
        self.write("file", TRUTH).await;
        for attempt in 1..=3 {
            // What comes of it is told by what is pending.
            let outcome = self.fs.drain().await;
            assert!(
                !self.fs.pending().is_empty(),
                "{what}: struck at attempt {attempt}: {outcome:?}"
            );
            assert_eq!(self.journaled(), 1, "{what}: attempt {attempt}: {outcome:?}");
        }
        truth().await;
        for _ in 0..5 {
            if self.fs.pending().is_empty() {
                break;
            }
            let _ = self.fs.drain().await;
        }
        assert!(self.fs.pending().is_empty(), "{what}: {:?}", self.fs.pending());
        assert_eq!(self.journaled(), 0, "{what}");
        let contents = self.contents().await;
        assert_eq!(
            contents.iter().filter(|text| *text == TRUTH).count(),
            1,
            "{what}: {contents:?}"
        );
    }
}

/// Each lie about a new file and about a replacement, each time in a directory of its own.
async fn no_lie_is_believed<P: Provider>(
    service: &str,
    proxy: &LyingProxy,
    told: &[Told],
    mounted: impl AsyncFn(&str) -> P,
) {
    let lies = told.iter().flat_map(|told| [Lie::Nothing(*told), Lie::Another(*told)]);
    for (number, lie) in lies.enumerate() {
        for upload in [Upload::New, Upload::Replacement] {
            let it = Mounted::new(Arc::new(mounted(&format!("{upload:?} {number}")).await), Duration::ZERO).await;
            let what = format!("{service}, {lie:?}, {upload:?}");
            let lies = async || proxy.lies(lie);
            it.believes_no_lie(&what, upload, lies, async || proxy.is_honest())
                .await;
            assert!(proxy.told() > 0, "{what}: nothing was lied about");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_bucket() {
    for software in [s3::Software::Moto, s3::Software::MotoWithCopies] {
        let server = s3::S3Server::start(software);
        server.make_bucket().await;
        let proxy = LyingProxy::before(server.port());
        let keys = s3::key(s3::given(s3::SECRET_KEY)).await;
        let (service, told) = (format!("{software:?}"), [Told::Servers, Told::AsSent]);
        no_lie_is_believed(&service, &proxy, &told, async |folder: &str| {
            s3::client_at(&proxy.endpoint(), s3::REGION, folder, Arc::clone(&keys))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_share() {
    for software in webdav::Software::ALL {
        let server = webdav::DavServer::start(software);
        // Before the server is asked for the first time: rclone remembers what is there.
        for folder in ["New 0", "Replacement 0", "New 1", "Replacement 1"] {
            server.make_folder(folder);
        }
        let proxy = LyingProxy::before(server.port());
        let password = webdav::password(webdav::given(webdav::PASSWORD)).await;
        let service = format!("{software:?}");
        no_lie_is_believed(&service, &proxy, &[Told::Servers], async |folder: &str| {
            webdav::client_at(&proxy.endpoint(), folder, Arc::clone(&password))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_time_series_database() {
    let store = emulator::reductstore::ReductStore::new(emulator::reductstore::Options::default());
    assert!(store.create_bucket("b"));
    let running = store.serve().await.unwrap();
    let proxy = LyingProxy::before(running.address().port());
    let mut given = GivenSecrets::default();
    given.insert("T", store.root_token().unwrap_or_default().as_str().into());
    let source = SecretSource::Env("T".into());
    let token = StaticToken::open(source, TokenPlacement::Bearer, TokenKind::TOKEN, given).await;
    let token: Arc<dyn Authenticator> = Arc::new(token.unwrap());
    no_lie_is_believed("ReductStore", &proxy, &[Told::Servers], async |folder: &str| {
        assert!(store.create_entry("b", &folder.replace(' ', "-")));
        let api = Api::new(
            proxy.endpoint().parse().unwrap(),
            PlainHttp::LoopbackOnly,
            program::transport(),
            Arc::clone(&token),
            ReductStore::dialect(),
        );
        let settings = keymount::provider::reductstore::Settings {
            bucket: Some("b".into()),
            path: vec![Name::new(folder.replace(' ', "-")).unwrap()],
            ..Default::default()
        };
        ReductStore::new(Arc::new(api.unwrap()), settings)
    })
    .await;
}

/// dStor's word for success is a hash: of nothing, or of another content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_content_network() {
    use emulator::dstor::{Assumptions, DstorStore, Network};
    for upload in [Upload::New, Upload::Replacement] {
        for has_another in [false, true] {
            let store = DstorStore::new(Network::Production, Assumptions::default());
            let key = store.add_account("me@example.org", "correct horse").add_key("test");
            let running = store.serve().await.unwrap();
            let polling = Polling {
                patience: Duration::from_millis(20),
                ..dstor::settings().polling
            };
            let settings = keymount::provider::dstor::Settings {
                polling,
                ..dstor::settings()
            };
            let client = dstor::client(&running, &key, dstor::index(), settings).await;
            let it = Mounted::new(Arc::new(client), Duration::ZERO).await;
            let hash = store.put(FORGED);
            if !has_another {
                assert!(store.forget(&hash));
            }
            let done = serde_json::json!({"status": "DONE", "data": [{"Name": "file", "Hash": hash}]});
            let lie = async || {
                running.faults().inject(Rule::always(
                    Method::GET,
                    "/v1/upload/get-status",
                    Fault::Status {
                        status: 200,
                        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
                        body: done.to_string(),
                    },
                ));
            };
            let what = format!("dStor, another content: {has_another}, {upload:?}");
            it.believes_no_lie(&what, upload, lie, async || running.faults().clear())
                .await;
            running.stop().await;
        }
    }
}
