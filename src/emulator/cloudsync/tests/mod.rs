mod access;
mod device;
mod files;
mod oauth;
mod workspaces;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;

use super::*;

const JANE: &str = "jane@example.com";
const JOHN: &str = "john@example.com";

/// A store with a user and a workspace, its API server, and requests as any credential.
struct Bench {
    store: CloudSyncStore,
    workspace: Workspace,
    server: Running,
    client: Client,
    key: ApiKey,
}

impl Bench {
    async fn new(assumptions: Assumptions) -> Self {
        let store = CloudSyncStore::new(assumptions);
        store.add_user(JANE, Plan::unlimited());
        store.add_user(JOHN, Plan::unlimited());
        let workspace = store.add_workspace(JANE, "My Project").unwrap();
        let key = store.create_key(JANE, "all", &Scope::of_keys()).unwrap();
        let server = store.serve_api().await.unwrap();
        Self {
            store,
            workspace,
            server,
            client: client(),
            key,
        }
    }

    async fn plain() -> Self {
        Self::new(Assumptions::default()).await
    }

    fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        let base = self.server.url();
        self.client.request(method, format!("{base}v1{path}"))
    }

    fn with(&self, secret: &str, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(secret)
    }

    fn jane(&self, method: Method, path: &str) -> RequestBuilder {
        self.with(self.key.secret(), method, path)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        sent(self.jane(Method::GET, path)).await
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        sent(self.jane(method, path).json(&body)).await
    }

    fn id(&self, path: &str) -> String {
        self.workspace.info(path).unwrap().id
    }
}

/// Follows no redirect and uses no proxy.
fn client() -> Client {
    let builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.build().unwrap()
}

async fn outcome(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

async fn sent(request: RequestBuilder) -> (u16, Value) {
    outcome(request.send().await.unwrap()).await
}

/// Status and code of a refusal, after a look at the envelope.
async fn refused(request: RequestBuilder) -> (u16, String) {
    let (status, body) = sent(request).await;
    assert!(body["error"]["message"].is_string(), "{body}");
    assert!(body["error"]["details"].is_object(), "{body}");
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The request with a form as browsers send it.
fn with_form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    let body = form.extend_pairs(fields).finish();
    request
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(body)
}
