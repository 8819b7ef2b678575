use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// What a program on this machine gets for raw text.
async fn raw(address: SocketAddr, text: String) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, target: &str) -> String {
    raw(address, format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await
}

async fn open() -> (SocketAddr, Waiting) {
    let redirect = Redirect::bind().await.unwrap();
    let address = redirect.address;
    assert_eq!(redirect.url().unwrap().as_str(), format!("http://{address}/callback"));
    assert!(address.ip().is_loopback());
    let question = "https://auth.example/authorize?state=right".parse().unwrap();
    let waiting = redirect.wait_for(&question, &Expected::for_state("right")).unwrap();
    assert_eq!(waiting.door().unwrap().as_str(), format!("http://{address}/"));
    (address, waiting)
}

#[tokio::test]
async fn what_is_no_answer_changes_nothing() {
    let (address, mut waiting) = open().await;
    let strange =
        |method: &str, host: &str| format!("{method} /callback?code=c&state=right HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (answer, status) in [
        (get(address, "/callback?code=canary&state=wrong").await, 400),
        (get(address, "/callback?code=canary").await, 400),
        (get(address, "/callback?error=access_denied&state=wrong").await, 400),
        (get(address, "/callback").await, 400),
        (get(address, "/other?code=c&state=right").await, 404),
        (get(address, "/?code=c&state=right").await, 303),
        (get(address, "/favicon.ico").await, 404),
        (raw(address, strange("POST", &address.to_string())).await, 405),
        (raw(address, strange("HEAD", &address.to_string())).await, 405),
        (raw(address, strange("GET", "evil.example")).await, 421),
    ] {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(!answer.contains("canary"), "{answer}");
    }
    let browser = tokio::spawn(async move { get(address, "/callback?code=right-code&state=right").await });
    let arrived = waiting.arrived().await.unwrap();
    assert_eq!(arrived.answer.as_ref().unwrap().expose_secret(), "right-code");
    let second = get(address, "/callback?code=other&state=right").await;
    assert!(
        second.starts_with("HTTP/1.1 409 ") && second.contains("answered already"),
        "{second}"
    );
    waiting
        .finish(Some(arrived), Page::connected("CloudSync", "drive", Vec::new()))
        .await;
    let shown = browser.await.unwrap();
    assert!(
        shown.starts_with("HTTP/1.1 200 ") && shown.contains("CloudSync is connected"),
        "{shown}"
    );
    for header in [
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "default-src 'none'",
    ] {
        assert!(shown.to_lowercase().contains(header), "{header}: {shown}");
    }
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn the_browser_is_sent_on_to_the_question() {
    let (address, waiting) = open().await;
    for host in [address.to_string(), "evil.example".to_owned()] {
        let answer = raw(address, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let sent_on = answer
            .to_lowercase()
            .contains("location: https://auth.example/authorize?state=right\r\n");
        assert_eq!(sent_on, host == address.to_string(), "{answer}");
    }
    waiting.finish(None, Page::gone()).await;
}

#[tokio::test]
async fn a_refusal_is_an_answer() {
    let (address, mut waiting) = open().await;
    let browser = tokio::spawn(async move { get(address, "/callback?error=access_denied&state=right").await });
    let arrived = waiting.arrived().await.unwrap();
    let error = arrived.answer.clone().unwrap_err();
    waiting
        .finish(Some(arrived), Page::failed("CloudSync", "drive", error.message()))
        .await;
    let shown = browser.await.unwrap();
    assert!(
        shown.contains("Access was refused") && shown.contains("keymount login drive"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_login_that_is_given_up_closes_its_port() {
    let (address, waiting) = open().await;
    waiting.finish(None, Page::gone()).await;
    assert!(TcpStream::connect(address).await.is_err());
    let (_, mut waiting) = open().await;
    waiting.server.abort();
    assert!(waiting.arrived().await.is_err(), "it doesn't wait for ever");
}
