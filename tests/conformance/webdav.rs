//! WebDAV, against three independent real servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use keymount::provider::Provider;

use crate::suite::{Fixture, RawStore, run};
use crate::webdav_support::{APACHES_OWN, DavServer, PASSWORD, Software, USER, client, given, password};

/// One folder of a server that all cases share.
struct AtServer {
    provider: Arc<dyn Provider>,
    folder: PathBuf,
    skips: &'static [(&'static str, &'static str)],
    server: Arc<DavServer>,
}

impl AtServer {
    async fn new(server: &Arc<DavServer>, skips: &'static [(&'static str, &'static str)]) -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("case {} %41", FOLDERS.fetch_add(1, Ordering::Relaxed));
        let fixture = Self {
            provider: Arc::new(client(server, &name, password(given(PASSWORD)).await)),
            folder: server.data().join(&name),
            skips,
            server: Arc::clone(server),
        };
        let make = fixture.by_another(reqwest::Method::from_bytes(b"MKCOL").unwrap(), "");
        make.send().await.unwrap().error_for_status().unwrap();
        fixture
    }
}

impl AtServer {
    /// A request of another client: servers don't expect their folder to change behind their backs.
    fn by_another(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let mut url: reqwest::Url = self.server.endpoint().parse().unwrap();
        let folder = self.folder.file_name().unwrap().to_str().unwrap();
        url.path_segments_mut()
            .unwrap()
            .pop()
            .push(folder)
            .extend(path.split('/'));
        reqwest::Client::new()
            .request(method, url)
            .basic_auth(USER, Some(PASSWORD))
    }
}

impl Fixture for AtServer {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider)
    }

    fn raw(&self) -> Option<&dyn RawStore> {
        Some(self)
    }

    fn skips(&self) -> &'static [(&'static str, &'static str)] {
        self.skips
    }
}

#[async_trait]
impl RawStore for AtServer {
    async fn read(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.join(path)).ok()
    }

    async fn write(&self, path: &str, bytes: &[u8]) {
        let put = self.by_another(reqwest::Method::PUT, path).body(bytes.to_vec());
        put.send().await.unwrap().error_for_status().unwrap();
    }

    async fn remove(&self, path: &str) {
        let delete = self.by_another(reqwest::Method::DELETE, path);
        delete.send().await.unwrap().error_for_status().unwrap();
    }

    async fn names(&self, folder: &str) -> Vec<String> {
        std::fs::read_dir(self.folder.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != APACHES_OWN)
            .collect()
    }
}

const NO_PROPERTIES: &str = "the server keeps no properties but its own";
const SECONDS: &str = "the server's entity tags have whole seconds, and cases don't wait";

#[tokio::test]
async fn at_wsgidav() {
    let server = Arc::new(DavServer::start_with_properties());
    let skips = &[
        ("a_version_changes_with_the_content_only", SECONDS),
        (
            "concurrent_creates_of_one_name_have_one_winner",
            "the server empties a file for its lock before it looks whether somebody else has one",
        ),
        ("read_of_a_replaced_version", SECONDS),
        (
            "rename_to_unusual_names",
            "the server cuts the new name off at a question mark",
        ),
    ];
    run("webdav, WsgiDAV", async || AtServer::new(&server, skips).await).await;
}

#[tokio::test]
async fn at_rclone() {
    let server = Arc::new(DavServer::start(Software::Rclone));
    let skips = &[
        ("attributes_go_with_the_content", NO_PROPERTIES),
        ("attributes_are_changed_alone", NO_PROPERTIES),
        ("attributes_go_along_with_a_rename", NO_PROPERTIES),
        ("more_than_fits_is_left_out", NO_PROPERTIES),
    ];
    run("webdav, rclone", async || AtServer::new(&server, skips).await).await;
}

#[tokio::test]
async fn at_apache() {
    let server = Arc::new(DavServer::start(Software::Apache));
    run("webdav, Apache", async || AtServer::new(&server, &[]).await).await;
}
