//! The client API: who asks, whether they may, and what each route does.
//!
//! Responsible for the order of checks that [`super::Assumptions`] describes, and for statuses. Not responsible for the
//! shapes of requests and answers, nor for the items themselves.

use std::cmp::Ordering;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::StorraStore;
use super::accounts::{AccountState, Plan, UploadPreference, World};
use super::answers::{self, json_response};
use super::assumptions::{Assumptions, DownloadUrl, MissingFolder, TRASH_PAGE, Visibility};
use super::content;
use super::grants::Level;
use super::path::ItemPath;
use super::rates::Allowance;
use super::refusal::{Place, Refusal};
use super::request::{Incoming, Query, Route};
use super::tree::{Item, StoreError};
use crate::emulator::AuthenticatedAs;

/// What stands before the routes.
pub(super) const BASE: &str = "/api/v1/client/";

/// What a route needs to know besides its body.
struct Asked {
    query: String,
    headers: HeaderMap,
    now: Timestamp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Preferences {
    upload_preference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFolder {
    folder_path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    source_path: String,
    destination_path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneItem {
    item_path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CopyFolder {
    source_folder_path: String,
    destination_folder_path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Privacy {
    item_path: String,
    visibility: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restore {
    item_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGrant {
    item_path: String,
    user_email: String,
    permission_level: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantChange {
    permission_level: String,
}

/// Answers a request to `/api/v1/client/{rest}`.
pub(super) async fn answer(store: &StorraStore, rest: &str, request: Request) -> Response {
    let assumptions = store.world.lock().assumptions;
    let route = Route::find(request.method(), rest, assumptions.reserved_names);
    let headers = request.headers().clone();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let incoming = Incoming::read(request, route.as_ref().ok(), assumptions.file_limit).await;

    let mut world = store.world.lock();
    let mut known = None;
    let outcome = route.and_then(|route| {
        let (account, allowance) = admit(&mut world, &headers, &route, &mut known)?;
        let now = world.clock.tick();
        let asked = Asked { query, headers, now };
        let response = act(&mut world, account, route, &asked, incoming)?;
        Ok(with_allowance(response, allowance))
    });
    let mut response = outcome.unwrap_or_else(|refusal| refusal.into_response(assumptions.validation));
    if let Some(label) = known {
        response.extensions_mut().insert(AuthenticatedAs(label));
    }
    response
}

/// Key, plan and rate, in this order; `known` tells whose key it was, even if the request fails.
fn admit(
    world: &mut World,
    headers: &HeaderMap,
    route: &Route,
    known: &mut Option<String>,
) -> Result<(Uuid, Allowance), Refusal> {
    let mut secrets = headers.get_all("x-api-key").iter();
    let secret = secrets.next().ok_or(Refusal::MissingKey)?;
    if secrets.next().is_some() {
        return Err(Refusal::UnknownKey);
    }
    let secret = secret.to_str().map_err(|_| Refusal::UnknownKey)?;
    let (account, prefix) = world.owner_of_key(secret).ok_or(Refusal::UnknownKey)?;
    let (now, bucket) = (world.clock.now(), route.bucket());
    let limit = world.limits.of(bucket);
    let account = world.account(account).ok_or(Refusal::UnknownKey)?;
    let mut keys = account.keys.iter_mut();
    let key = keys.find(|key| key.info.prefix == prefix).ok_or(Refusal::UnknownKey)?;
    *known = Some(key.info.label.clone());
    if account.plan != Plan::Pro {
        return Err(Refusal::PlanRequired);
    }
    let allowance = key
        .windows
        .admit(bucket, limit, now)
        .map_err(|too_many| Refusal::RateLimited {
            retry_after: too_many.retry_after,
        })?;
    key.info.last_used = Some(now);
    *account.totals.entry(bucket).or_insert(0) += 1;
    Ok((account.id, allowance))
}

/// rate-limiting, "Response headers": on successes.
fn with_allowance(mut response: Response, allowance: Allowance) -> Response {
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", HeaderValue::from(allowance.limit));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(allowance.remaining));
    headers.insert("x-ratelimit-reset", HeaderValue::from(allowance.reset));
    response
}

fn act(world: &mut World, id: Uuid, route: Route, asked: &Asked, incoming: Incoming) -> Result<Response, Refusal> {
    let assumptions = world.assumptions;
    if !matches!(route, Route::RichList | Route::SimpleList | Route::TrashList) {
        Query::parse(&asked.query, &[])?;
    }
    if let Route::Download { id: file } = &route {
        incoming.nothing()?;
        return content::download(world, id, file, &asked.headers);
    }
    if let Route::Grant = route {
        let grant = give_grant(world, id, incoming.json()?, asked.now)?;
        return Ok(json_response(StatusCode::OK, &grant));
    }
    let account = world.account(id).ok_or(Refusal::UnknownKey)?;
    account.tree.expire(asked.now);
    let now = asked.now;
    let (status, body) = match route {
        Route::Profile => {
            incoming.nothing()?;
            (StatusCode::OK, answers::profile(account, assumptions.quota))
        }
        Route::Preferences => {
            let wanted: Preferences = incoming.json()?;
            let preference = UploadPreference::from_word(&wanted.upload_preference);
            account.preference = preference.ok_or_else(|| not_one_of("upload_preference"))?;
            account.updated = now;
            (StatusCode::OK, json!({"upload_preference": account.preference.word()}))
        }
        Route::RichList => {
            incoming.nothing()?;
            (StatusCode::OK, rich_list(account, asked, assumptions)?)
        }
        Route::SimpleList => {
            incoming.nothing()?;
            let folder = Query::parse(&asked.query, &["folder_path"])?.folder("folder_path")?;
            existing_folder(account, &folder, assumptions)?;
            let mut items: Vec<&Item> = account.tree.children(&folder).collect();
            items.sort_by_key(|item| (&item.path, item.id));
            (StatusCode::OK, items.into_iter().map(answers::simple_item).collect())
        }
        Route::Upload => {
            let form = incoming.upload()?;
            let item = account.tree.upload(&form.path, form.content, form.visibility, now)?;
            (StatusCode::OK, answers::uploaded(&item, account))
        }
        Route::CreateFolder => {
            let wanted: NewFolder = incoming.json()?;
            let path = body_path("folder_path", &wanted.folder_path)?;
            let folder = account.tree.create_folder(&path, now).map_err(|error| match error {
                StoreError::Taken => Refusal::Conflict("Folder already exists."),
                error => error.into(),
            })?;
            (StatusCode::CREATED, answers::simple_item(&folder))
        }
        Route::FolderInfo(path) => {
            incoming.nothing()?;
            let folder = account.tree.at(&path).filter(|item| item.is_folder());
            let folder = folder.ok_or(Refusal::NotFound("Folder not found."))?;
            (StatusCode::OK, answers::folder_info(folder, &account.tree, account))
        }
        Route::Move => {
            let wanted: Move = incoming.json()?;
            let from = body_path("source_path", &wanted.source_path)?;
            let to = body_path("destination_path", &wanted.destination_path)?;
            let moved = account.tree.relocate(&from, &to, now)?;
            (StatusCode::OK, answers::simple_item(&moved))
        }
        Route::Duplicate => {
            let wanted: OneItem = incoming.json()?;
            let path = body_path("item_path", &wanted.item_path)?;
            (StatusCode::CREATED, all(&account.tree.duplicate(&path, now)?))
        }
        Route::CopyFolder => {
            let wanted: CopyFolder = incoming.json()?;
            let from = body_path("source_folder_path", &wanted.source_folder_path)?;
            let to = body_path("destination_folder_path", &wanted.destination_folder_path)?;
            (StatusCode::CREATED, all(&account.tree.copy_folder(&from, &to, now)?))
        }
        Route::Privacy => {
            let wanted: Privacy = incoming.json()?;
            let path = body_path("item_path", &wanted.item_path)?;
            let visibility = Visibility::from_word(&wanted.visibility).ok_or_else(|| not_one_of("visibility"))?;
            let item = account.tree.at_mut(&path).ok_or(StoreError::Missing)?;
            item.visibility = visibility;
            item.updated = now;
            (StatusCode::OK, answers::simple_item(item))
        }
        Route::Delete(path) => {
            incoming.nothing()?;
            account.tree.delete(&path, account.trash_use, now)?;
            return Ok(no_content());
        }
        Route::TrashList => {
            incoming.nothing()?;
            let query = Query::parse(&asked.query, &["skip", "limit"])?;
            let skip = query.number("skip", 0, 0..=usize::MAX)?;
            let limit = query.number("limit", TRASH_PAGE, 1..=500)?;
            let trash = account.tree.trash(now).into_iter();
            let page = trash.skip(skip).take(limit).map(answers::trashed_item);
            (StatusCode::OK, page.collect())
        }
        Route::TrashRestore => {
            let wanted: Restore = incoming.json()?;
            (StatusCode::OK, all(&account.tree.restore(&wanted.item_ids, now)?))
        }
        Route::TrashEmpty => {
            incoming.nothing()?;
            (StatusCode::OK, json!({"deleted": account.tree.empty_trash()}))
        }
        Route::Grants(path) => {
            incoming.nothing()?;
            let item = account.tree.at(&path).ok_or(StoreError::Missing)?;
            (StatusCode::OK, answers::permissions(item))
        }
        Route::ChangeGrant { id } => {
            let wanted: GrantChange = incoming.json()?;
            let changed = account.tree.change_grant(&id, level(&wanted.permission_level)?);
            let (path, grant) = changed.ok_or(Refusal::NotFound("Permission not found."))?;
            (StatusCode::OK, answers::grant(&path, &grant))
        }
        Route::RevokeGrant { id } => {
            incoming.nothing()?;
            if !account.tree.remove_grant(&id) {
                return Err(Refusal::NotFound("Permission not found."));
            }
            return Ok(no_content());
        }
        Route::Download { .. } | Route::Grant => return Err(Refusal::NoRoute),
    };
    Ok(json_response(status, &body))
}

/// file-listing, `/files/list`.
fn rich_list(account: &AccountState, asked: &Asked, assumptions: Assumptions) -> Result<Value, Refusal> {
    type Order = fn(&Item, &Item) -> Ordering;
    let known = ["path", "recursive", "limit", "offset", "sort", "order", "type"];
    let query = Query::parse(&asked.query, &known)?;
    let folder = query.folder("path")?;
    let recursive = query.word("recursive", &[("false", false), ("true", true)])?;
    let limit = query.number("limit", 100, 1..=1000)?;
    let offset = query.number("offset", 0, 0..=usize::MAX)?;
    let by: Order = query.word::<Order>(
        "sort",
        &[
            ("name", |a, b| a.path.name().cmp(b.path.name())),
            ("size", |a, b| a.size().cmp(&b.size())),
            ("modified", |a, b| a.updated.cmp(&b.updated)),
            ("type", |a, b| a.is_folder().cmp(&b.is_folder())),
        ],
    )?;
    let descending = query.word("order", &[("asc", false), ("desc", true)])?;
    let (files, folders) = query.word(
        "type",
        &[
            ("all", (true, true)),
            ("files", (true, false)),
            ("folders", (false, true)),
        ],
    )?;
    existing_folder(account, &folder, assumptions)?;
    let mut items: Vec<&Item> = if recursive {
        account.tree.below(&folder).collect()
    } else {
        account.tree.children(&folder).collect()
    };
    items.retain(|item| if item.is_folder() { folders } else { files });
    items.sort_by(|a, b| by(a, b).then_with(|| (&a.path, a.id).cmp(&(&b.path, b.id))));
    if descending {
        items.reverse();
    }
    let path = format!("{BASE}files/download/");
    let downloads = match assumptions.download_url {
        DownloadUrl::PathOnly => path,
        DownloadUrl::Absolute => {
            let host = asked.headers.get(header::HOST).and_then(|host| host.to_str().ok());
            format!("http://{}{path}", host.unwrap_or_default())
        }
    };
    let page = items.into_iter().skip(offset).take(limit);
    Ok(page
        .map(|item| answers::rich_item(item, &downloads, assumptions.folder_items))
        .collect())
}

fn existing_folder(account: &AccountState, folder: &ItemPath, assumptions: Assumptions) -> Result<(), Refusal> {
    if account.tree.is_folder(folder) || assumptions.missing_folder == MissingFolder::Empty {
        Ok(())
    } else {
        Err(Refusal::NotFound("Folder not found."))
    }
}

/// file-sharing, "Grant permission".
fn give_grant(world: &mut World, id: Uuid, wanted: NewGrant, now: Timestamp) -> Result<Value, Refusal> {
    let path = body_path("item_path", &wanted.item_path)?;
    let level = level(&wanted.permission_level)?;
    let somebody = world.accounts().find(|account| account.email == wanted.user_email);
    let somebody = somebody.map(|account| account.id);
    let account = world.account(id).ok_or(Refusal::UnknownKey)?;
    let item = account.tree.at_mut(&path).ok_or(StoreError::Missing)?;
    match somebody {
        None => return Err(Refusal::NotFound("No user has this email address.")),
        Some(grantee) if grantee == id => {
            return Err(Refusal::invalid(Place::Body, "user_email", "The item is your own"));
        }
        Some(_) => {}
    }
    let grant = item
        .grant(&wanted.user_email, level, now)
        .map_err(|_| Refusal::Conflict("Item is already shared with this user."))?;
    Ok(answers::grant(&path, &grant))
}

fn level(word: &str) -> Result<Level, Refusal> {
    Level::from_word(word).ok_or_else(|| not_one_of("permission_level"))
}

fn not_one_of(name: &str) -> Refusal {
    Refusal::invalid(Place::Body, name, "Input should be one of the documented values")
}

/// A path in a body that names an item, so not the root.
fn body_path(name: &str, text: &str) -> Result<ItemPath, Refusal> {
    let path = ItemPath::parse(text).map_err(|why| Refusal::invalid(Place::Body, name, why))?;
    if path.is_root() {
        return Err(Refusal::invalid(Place::Body, name, "The root cannot be used here"));
    }
    Ok(path)
}

fn all(items: &[Item]) -> Value {
    items.iter().map(answers::simple_item).collect()
}

fn no_content() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
