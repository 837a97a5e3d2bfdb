//! `--audit-ambiguous-bodies`: ambiguous bodies are rejected, and bodies are buffered for that.

use http_body_util::BodyExt;

use super::REQUEST_RESPONSE;
use crate::support::http1::{self, Connection};
use crate::support::in_time;
use crate::support::proxy::{Builder, METADATA, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/a/configmaps";
const JSON: &str = "Content-Type: application/json";
const YAML: &str = "Content-Type: application/yaml";
const REJECT: &str = "--audit-ambiguous-bodies=reject";

async fn echo() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |request| async move {
        let body = request.into_body().collect().await?.to_bytes();
        json(201, body)
    })
    .await
}

async fn post(
    proxy: &Proxy,
    id: &str,
    target: &str,
    media_type: &str,
    body: &[u8],
) -> http1::Answer {
    let headers = [media_type, &format!("Audit-ID: {id}")];
    let request = http1::request("POST", target, &headers, body);
    let exchange = http1::exchange(proxy.addr, Some("admin"), &request);
    in_time("an answer", exchange).await.unwrap()
}

#[tokio::test]
async fn an_ambiguous_body_is_rejected_before_anything_is_forwarded() {
    let upstream = echo().await;
    let proxy = Builder::new(upstream.addr).policy(REQUEST_RESPONSE).flag(REJECT).start().await;
    let mut log = proxy.audit_log();
    let role_binding =
        b"roleRef:\n  name: viewer\n  <<: {name: cluster-admin}\nmetadata: {name: x}\n";
    for (id, media_type, body, names) in [
        ("json", JSON, &br#"{"metadata":{"name":"a","name":"b"}}"#[..], "duplicate-keys"),
        ("yaml", YAML, role_binding, "merge-key-override"),
        (
            "documents",
            YAML,
            b"metadata: {name: a}\n---\nmetadata: {name: b}\n",
            "several-documents",
        ),
        (
            "utf8",
            JSON,
            b"{\"metadata\":{\"name\":\"a\"},\"data\":{\"x\":\"\xff\"}}",
            "invalid-utf8",
        ),
    ] {
        let answer = post(&proxy, id, CONFIG_MAPS, media_type, body).await;
        assert_eq!(answer.head.status, 400, "{id}");
        let status = answer.json();
        assert_eq!((&status["kind"], &status["reason"]), (&"Status".into(), &"BadRequest".into()));
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with("the request body is ambiguous: "), "{message}");
        assert!(upstream.take_seen().is_empty(), "{id} was forwarded");
        let events = log.wait_end(id).await;
        let event = &events[1];
        assert_eq!(event.text("/responseStatus/message"), message);
        assert_eq!(event.text("/annotations/kube-audit-proxy~1request-ambiguous"), names);
        let recorded = event.text("/requestObject");
        match std::str::from_utf8(body) {
            Ok(text) => assert_eq!(recorded, text, "{id}: as it came"),
            Err(_) => assert!(recorded.starts_with("eyJtZXRhZGF0YSI6"), "{id}: {recorded}"),
        }
        assert_eq!(event.text("/objectRef/name"), "", "no decoy");
    }
    assert_eq!(proxy.metric("kube_audit_proxy_ambiguous_bodies_rejected_total").await, 4);

    let plain = br#"{"kind":"ConfigMap","metadata":{"name":"a"}}"#;
    assert_eq!(post(&proxy, "plain", CONFIG_MAPS, JSON, plain).await.body, plain);
    let events = log.wait_end("plain").await;
    assert_eq!(events[1].text("/objectRef/name"), "a");
    assert_eq!(events[1].text("/requestObject/metadata/name"), "a");
}

#[tokio::test]
async fn the_mode_decides_unless_the_flag_does() {
    let upstream = echo().await;
    let ambiguous = br#"{"metadata":{"name":"a","name":"b"}}"#;
    for (flags, code) in [
        (&[][..], 201),
        (&["--audit-log-mode=batch"], 201),
        (&["--audit-log-mode=blocking-strict"], 400),
        (&["--audit-log-mode=blocking-strict", "--audit-ambiguous-bodies=record"], 201),
    ] {
        let builder = flags.iter().fold(Builder::new(upstream.addr), |b, flag| b.flag(flag));
        let proxy = builder.start().await;
        assert_eq!(post(&proxy, "id", CONFIG_MAPS, JSON, ambiguous).await.head.status, code);
        let events = proxy.audit_log().wait_end("id").await;
        let names = events[1].text("/annotations/kube-audit-proxy~1request-ambiguous");
        assert_eq!(names, "duplicate-keys", "{flags:?}");
    }
}

#[tokio::test]
async fn secrets_are_redacted_in_a_rejected_body() {
    let upstream = echo().await;
    let proxy = Builder::new(upstream.addr).policy(REQUEST_RESPONSE).flag(REJECT).start().await;
    let body = br#"{"data":{"p":"aHVudGVyMg==","p":"aHVudGVyMg=="}}"#;
    let target = "/api/v1/namespaces/a/secrets";
    assert_eq!(post(&proxy, "id", target, JSON, body).await.head.status, 400);
    let events = proxy.audit_log().wait_end("id").await;
    assert!(events[1].text("/requestObject").starts_with("REDACTED("));
    assert!(!events[1].line.contains("aHVudGVyMg"));
}

#[tokio::test]
async fn a_body_is_buffered_until_it_is_complete() {
    let upstream = echo().await;
    let proxy = Builder::new(upstream.addr).flag(REJECT).start().await;
    let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
    let head = format!(
        "POST {CONFIG_MAPS} HTTP/1.1\r\nHost: h\r\n{JSON}\r\nAudit-ID: held\r\n\
         Expect: 100-continue\r\nContent-Length: 29\r\n\r\n"
    );
    connection.send(head.as_bytes()).await.unwrap();
    let interim = in_time("100 Continue", connection.head()).await.unwrap();
    assert_eq!(interim.status, 100);
    connection.send(b"{\"metadata\":{\"name\":").await.unwrap();
    // Another request of the same client is not delayed, and reaches the API server first.
    post(&proxy, "other", CONFIG_MAPS, JSON, b"{}").await;
    assert_eq!(upstream.take_seen().len(), 1);
    connection.send(b"\"held\" }}").await.unwrap();
    let answer = in_time("an answer", connection.answer("POST")).await.unwrap();
    assert_eq!(answer.body, b"{\"metadata\":{\"name\":\"held\" }}");
    let events = proxy.audit_log().wait_end("held").await;
    assert_eq!(events[1].text("/objectRef/name"), "held");
}

#[tokio::test]
async fn bodies_that_are_not_recorded_are_not_buffered() {
    let upstream = FakeUpstream::start(Protocols::Http2, |request| async move {
        // Responds before the end of the request body.
        let first = request.into_body().frame().await.unwrap()?.into_data().unwrap();
        json(200, first)
    })
    .await;
    let none = METADATA.replace("level: Metadata", "level: None");
    for (policy, target) in
        [(none.as_str(), CONFIG_MAPS), (METADATA, "/api/v1/namespaces/a/pods/p/proxy/x")]
    {
        let proxy = Builder::new(upstream.addr).policy(policy).flag(REJECT).start().await;
        let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
        let head = format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello");
        connection.send(head.as_bytes()).await.unwrap();
        let answer = in_time("an answer", connection.answer("POST")).await.unwrap();
        assert_eq!(answer.body, b"hello", "{target}");
    }
}

#[tokio::test]
async fn a_body_beyond_kube_apiservers_limit_is_rejected() {
    let upstream = echo().await;
    let proxy = Builder::new(upstream.addr).flag(REJECT).start().await;
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(3 << 20));
    let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
    let request = http1::request("POST", CONFIG_MAPS, &[JSON, "Audit-ID: id"], body.as_bytes());
    let _ = connection.send(&request).await;
    let answer = in_time("an answer", connection.answer("POST")).await.unwrap();
    assert_eq!(answer.head.status, 413);
    assert_eq!(answer.json()["message"], "Request entity too large: limit is 3145728");
    assert!(upstream.take_seen().is_empty());
    let events = proxy.audit_log().wait_end("id").await;
    assert_eq!(events[1].text("/responseStatus/reason"), "RequestEntityTooLarge");
}

#[tokio::test]
async fn a_client_disconnecting_while_its_body_is_buffered_is_recorded() {
    let upstream = echo().await;
    let proxy = Builder::new(upstream.addr).flag(REJECT).start().await;
    let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
    let head = format!(
        "POST {CONFIG_MAPS} HTTP/1.1\r\nHost: h\r\n{JSON}\r\nAudit-ID: gone\r\n\
         Content-Length: 100\r\n\r\nhello"
    );
    connection.send(head.as_bytes()).await.unwrap();
    proxy.audit_log().wait("gone", 1).await;
    drop(connection);
    let events = proxy.audit_log().wait_end("gone").await;
    assert_eq!((events.len(), events[1].code()), (2, 504));
    assert!(upstream.take_seen().is_empty());
}
