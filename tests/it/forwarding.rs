//! Requests and responses of all kinds are forwarded unchanged.

use bytes::Bytes;
use http::Response;

use crate::support::http1::{self, Connection};
use crate::support::in_time;
use crate::support::proxy::Builder;
use crate::support::upstream::{FakeUpstream, Protocols, empty, full, json};

const LIST: &str = "/api/v1/namespaces/team-a/configmaps";

#[tokio::test]
async fn each_pipelined_request_is_processed_and_recorded() {
    let upstream = FakeUpstream::start(Protocols::Http2, |request| async move {
        json(200, request.uri().path().to_owned())
    })
    .await;
    let proxy = Builder::new(upstream.addr).start().await;
    let mut connection = Connection::open(proxy.addr, Some("alice")).await.unwrap();
    let requests: Vec<_> = (0..10)
        .map(|number| {
            let id = format!("Audit-ID: pipelined-{number}");
            http1::request("GET", &format!("{LIST}/{number}"), &[&id], b"")
        })
        .collect();
    connection.send(&requests.concat()).await.unwrap();
    for number in 0..10 {
        let answer = in_time("an answer", connection.answer("GET")).await.unwrap();
        assert_eq!(answer.body, format!("{LIST}/{number}").as_bytes());
    }
    let mut log = proxy.audit_log();
    for number in 0..10 {
        assert_eq!(log.wait_end(&format!("pipelined-{number}")).await.len(), 2);
    }
}

#[tokio::test]
async fn responses_without_a_body_keep_their_headers() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = FakeUpstream::start(protocols, |request| async move {
            let code = match request.uri().path() {
                "/204" => 204,
                "/304" => 304,
                _ => 200,
            };
            let response = Response::builder().status(code).header("etag", "\"x\"");
            Ok(match request.method().as_str() {
                "HEAD" => response.header("content-length", "1234").body(empty())?,
                _ => response.body(empty())?,
            })
        })
        .await;
        let proxy = Builder::new(upstream.addr).start().await;
        for (method, target, status) in
            [("GET", "/204", 204), ("GET", "/304", 304), ("HEAD", LIST, 200), ("GET", LIST, 200)]
        {
            let id = format!("Audit-ID: {method}-{status}");
            let request = http1::request(method, target, &[&id], b"");
            let answer = http1::exchange(proxy.addr, Some("alice"), &request);
            let answer = in_time(target, answer).await.unwrap();
            assert_eq!(answer.head.status, status, "{method} {target}");
            assert_eq!(answer.head.get("etag"), "\"x\"");
            assert!(answer.body.is_empty());
            if method == "HEAD" {
                assert_eq!(answer.head.get("content-length"), "1234", "{protocols:?}");
            }
            let events = proxy.audit_log().wait_end(&format!("{method}-{status}")).await;
            assert_eq!(events[1].code(), u64::from(status));
        }
    }
}

#[tokio::test]
async fn redirects_and_repeated_headers_are_forwarded() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async {
        let response = Response::builder().status(302).header("location", "https://elsewhere/");
        let response =
            response.header("warning", "299 - \"one\"").header("warning", "299 - \"two\"");
        Ok(response.header("connection", "x-hop").header("set-cookie", "a=b").body(empty())?)
    })
    .await;
    let proxy = Builder::new(upstream.addr).start().await;
    let answer = http1::get(proxy.addr, Some("alice"), LIST, &[]).await.unwrap();
    assert_eq!(answer.head.status, 302);
    assert_eq!(answer.head.get("location"), "https://elsewhere/");
    assert_eq!(answer.head.all("warning"), ["299 - \"one\"", "299 - \"two\""]);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn clients_that_name_no_protocol_get_http1() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let mut connection = Connection::open_without_alpn(proxy.addr, Some("alice")).await.unwrap();
    connection.send(&http1::request("GET", LIST, &[], b"")).await.unwrap();
    let answer = in_time("an answer", connection.answer("GET")).await.unwrap();
    assert_eq!(answer.head.status, 200);
}

#[tokio::test]
async fn an_interrupted_request_body_has_one_final_event() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = FakeUpstream::start(protocols, |request| async move {
            use http_body_util::BodyExt;
            let body = request.into_body().collect().await?.to_bytes();
            Ok(Response::new(full(body)))
        })
        .await;
        let proxy = Builder::new(upstream.addr).start().await;
        let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
        let lines = ["Audit-ID: broken", "Content-Length: 1000"];
        let mut request = http1::request("POST", LIST, &lines, b"");
        request.extend_from_slice(b"only the beginning");
        connection.send(&request).await.unwrap();
        let mut log = proxy.audit_log();
        log.wait("broken", 1).await;
        drop(connection);
        log.wait_end("broken").await;
        http1::get(proxy.addr, Some("admin"), "/after", &["Audit-ID: after"]).await.unwrap();
        log.wait_end("after").await;
        let events = log.of("broken");
        assert_eq!(events.len(), 2, "{protocols:?}: {events:?}");
    }
}

#[tokio::test]
async fn headers_of_many_kilobytes_are_forwarded_and_unlimited_ones_rejected() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let long = format!("X-Long: {}", "v".repeat(100_000));
    let answer = http1::get(proxy.addr, Some("alice"), LIST, &[&long]).await.unwrap();
    assert_eq!(answer.head.status, 200);
    assert_eq!(upstream.take_seen()[0].all("x-long")[0].len(), 100_000);

    let endless = Bytes::from(format!("X-Long: {}", "v".repeat(3 << 20)));
    let line = String::from_utf8(endless.to_vec()).unwrap();
    let answer = in_time("a refusal", http1::get(proxy.addr, Some("alice"), LIST, &[&line])).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.head.status == 431));
    assert!(upstream.seen().is_empty());
}
