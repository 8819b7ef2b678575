//! The pages that a person sees: plain HTML with forms, without script.
//!
//! Responsible for how they look and for quoting what comes from outside. Not responsible for what a button does.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::error::uncached;
use crate::emulator::cloudsync::access::Scope;

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;background:#eef2f7;color:#1d2733;margin:0;padding:8vh 1rem}\
main{max-width:26rem;margin:auto;background:#fff;padding:2rem;border-radius:.75rem;box-shadow:0 .5rem 2rem #1d273322}\
h1{font-size:1.25rem;margin:0 0 1rem}ul{padding-left:1.25rem}label{display:block;font-weight:600}\
input{width:100%;box-sizing:border-box;font:inherit;padding:.5rem;margin:.25rem 0 1rem;border:1px solid #8896a8;border-radius:.4rem}\
button{font:inherit;padding:.5rem 1.5rem;border-radius:.4rem;border:1px solid #1f5fbf;background:#fff;color:#1f5fbf}\
button[value=allow]{background:#1f5fbf;color:#fff;margin-right:.5rem}\
small{color:#56657a}[role=alert]{color:#a11b1b}";

/// Asks whether a client may have what it wants.
pub(super) fn consent(client: &str, scopes: &BTreeSet<Scope>, request: &str, complaint: Option<&str>) -> Response {
    let client = quoted(client);
    let body = format!(
        "<h1>{client} wants to use your CloudSync account</h1>{complaint}<p>It asks to:</p>{scopes}\
         <form method=\"post\" action=\"/oauth/authorize\">\
         <input type=\"hidden\" name=\"request\" value=\"{request}\">{who}</form>",
        complaint = alert(complaint),
        scopes = listed(scopes),
        request = quoted(request),
        who = WHO_AND_BUTTONS,
    );
    html(StatusCode::OK, &format!("Allow {client}?"), &body)
}

/// Asks for the code that a device shows, and whether it may have what it wants.
pub(super) fn device(user_code: &str, complaint: Option<&str>) -> Response {
    let body = format!(
        "<h1>Connect a device to your CloudSync account</h1>{complaint}\
         <form method=\"post\" action=\"/oauth/device\"><label for=\"user_code\">Code on the device</label>\
         <input id=\"user_code\" name=\"user_code\" value=\"{user_code}\" autocomplete=\"off\" required>{who}</form>",
        complaint = alert(complaint),
        user_code = quoted(user_code),
        who = WHO_AND_BUTTONS,
    );
    html(StatusCode::OK, "Connect a device", &body)
}

/// Says that it is done.
pub(super) fn done(message: &str) -> Response {
    let body = format!("<h1>{}</h1><p>You can close this page.</p>", quoted(message));
    html(StatusCode::OK, "Done", &body)
}

/// Says what is wrong.
pub(super) fn problem(message: &str) -> Response {
    let body = format!("<h1>This did not work</h1><p role=\"alert\">{}.</p>", quoted(message));
    html(StatusCode::BAD_REQUEST, "This did not work", &body)
}

const WHO_AND_BUTTONS: &str = "\
<label for=\"email\">Your e-mail address</label>\
<input id=\"email\" name=\"email\" type=\"email\" autocomplete=\"username\" required autofocus>\
<button id=\"allow\" name=\"decision\" value=\"allow\">Allow</button>\
<button id=\"deny\" name=\"decision\" value=\"deny\" formnovalidate>Deny</button>\
<p><small>This is a stand-in for CloudSync: it asks for no password.</small></p>";

fn listed(scopes: &BTreeSet<Scope>) -> String {
    let items: String = scopes
        .iter()
        .map(|scope| format!("<li>{} <small>({scope})</small></li>", scope.about()))
        .collect();
    format!("<ul>{items}</ul>")
}

fn alert(complaint: Option<&str>) -> String {
    complaint.map_or_else(String::new, |text| format!("<p role=\"alert\">{}</p>", quoted(text)))
}

fn html(status: StatusCode, title: &str, body: &str) -> Response {
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><main>{body}</main></body></html>"
    );
    let mut response = Response::new(Body::from(page));
    *response.status_mut() = status;
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        // No `form-action`: browsers would apply it to the way back to the client too.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    uncached(response)
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => quoted.push_str("&amp;"),
            '<' => quoted.push_str("&lt;"),
            '>' => quoted.push_str("&gt;"),
            '"' => quoted.push_str("&quot;"),
            '\'' => quoted.push_str("&#39;"),
            other => quoted.push(other),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_from_outside_stays_text() {
        assert_eq!(quoted("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
    }
}
