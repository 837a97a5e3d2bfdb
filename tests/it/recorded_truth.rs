//! The record is true: the recorded request is the forwarded one, and events contain what
//! kube-apiserver records of a response.

mod cbor;
mod fairness;
mod names;
mod refused;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;

use crate::support::client::{self, Short};
use crate::support::http1::{self, Connection};
use crate::support::in_time;
use crate::support::proxy::Builder;
use crate::support::upstream::{FakeUpstream, Protocols, empty, json};

const REQUEST_RESPONSE: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: RequestResponse\n";

#[tokio::test]
async fn the_forwarded_target_is_recorded_in_every_form() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = FakeUpstream::start(protocols, |_| async { json(200, "{}") }).await;
        let proxy = Builder::new(upstream.addr).start().await;
        let targets = [
            ("GET", "https://h?q", "/?q"),
            ("GET", "https://h", "/"),
            ("GET", "https://h/", "/"),
            ("GET", "http://u@h:99/api/v1/pods?limit=1", "/api/v1/pods?limit=1"),
            ("GET", "//h/x", "//h/x"),
            ("GET", "/a#f?q", "/a"),
            ("GET", "https://h?q#f", "/?q"),
            ("GET", "/?", "/?"),
            ("GET", "/a?b??c=/", "/a?b??c=/"),
            ("OPTIONS", "*", "*"),
        ];
        let mut log = proxy.audit_log();
        for (method, target, expected) in targets {
            let id = format!("{method} {target}");
            let request = http1::request(method, target, &[&format!("Audit-ID: {id}")], b"");
            let answer = http1::exchange(proxy.addr, Some("admin"), &request);
            assert_eq!(in_time(&id, answer).await.unwrap().head.status, 200, "{id}");
            let events = log.wait_end(&id).await;
            let seen = upstream.take_seen();
            assert_eq!(seen[0].target, expected, "{id} {protocols:?}");
            for event in events {
                assert_eq!(event.text("/requestURI"), expected, "{id} {protocols:?}");
            }
        }
        // The URI of a request makes no difference in HTTP/2, its path does.
        let mut client = client::http2::<Short>(proxy.addr, Some("admin")).await.unwrap();
        let request = Request::get("https://kubernetes?q").header("audit-id", "http2");
        let request = request.body(Full::new(Bytes::new())).unwrap();
        client.ready().await.unwrap();
        let answer = in_time("an answer", client.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), 200);
        let events = log.wait_end("http2").await;
        assert_eq!(upstream.take_seen()[0].target, "/?q");
        assert_eq!(events[1].text("/requestURI"), "/?q");
    }
}

// kube-apiserver 1.36 responds and records like this.
#[tokio::test]
async fn the_status_of_a_refused_head_is_recorded() {
    let upstream = FakeUpstream::start(Protocols::Http2, |request| async move {
        let path = request.uri().path_and_query().unwrap().as_str();
        let (code, length) = match path {
            "/api/v1/nonexist" => (404, "174"),
            "/api/v1/namespaces/default/pods/x" => (403, "266"),
            "/api/v1/namespaces/default/pods/y" => (403, "280"),
            _ => (405, "197"),
        };
        let response = Response::builder().status(code).header("content-length", length);
        Ok(response.header("content-type", "application/json").body(empty())?)
    })
    .await;
    let proxy = Builder::new(upstream.addr).policy(REQUEST_RESPONSE).start().await;
    let cases = [
        ("/api/v1/pods", "MethodNotAllowed", 405, 2),
        ("/api/v1/pods?watch=1", "MethodNotAllowed", 405, 3),
        ("/api/v1/nonexist", "NotFound", 404, 2),
        ("/api/v1/namespaces/default/pods/x", "Forbidden", 403, 2),
        // The reason of the authorizer cannot be known.
        ("/api/v1/namespaces/default/pods/y", "", 403, 2),
    ];
    let mut log = proxy.audit_log();
    for (target, reason, code, count) in cases {
        let id = format!("Audit-ID: {target}");
        let mut connection = Connection::open(proxy.addr, Some("alice")).await.unwrap();
        connection.send(&http1::request("HEAD", target, &[&id], b"")).await.unwrap();
        let answer = in_time("an answer", connection.answer("HEAD")).await.unwrap();
        assert_eq!(u64::from(answer.head.status), code);
        let events = log.wait(target, count).await;
        for event in &events[1..] {
            assert_eq!(event.code(), code, "{target}");
            assert_eq!(event.text("/responseStatus/reason"), reason, "{target}");
            assert_eq!(event.text("/responseObject/reason"), reason, "{target}");
        }
    }
}

/// Text with which a client could try to break out of a line of the log.
const HOSTILE: &[&[u8]] = &[
    b"\xff\xfe",
    b"\xc3",
    "\u{2028}\u{2029}\u{feff}\u{85}".as_bytes(),
    b"\"}\\",
    b"\xed\xa0\x80<>&",
];

#[tokio::test]
async fn each_line_is_a_document_that_every_tool_reads() {
    let upstream = FakeUpstream::start(Protocols::Http2, |request| async move {
        let body = http_body_util::BodyExt::collect(request.into_body()).await?.to_bytes();
        json(200, body)
    })
    .await;
    for format in ["json", "legacy"] {
        let proxy = Builder::new(upstream.addr)
            .policy(REQUEST_RESPONSE)
            .flag(&format!("--audit-log-format={format}"))
            .start()
            .await;
        let nested = [vec![b'['; 3000], vec![b']'; 3000]].concat();
        let mut count = 0;
        for text in HOSTILE {
            let bodies = [
                [&b"{\"a\":\""[..], text, b"\",\"n\":1e999,\"s\":\"\\ud800\"}"].concat(),
                [&b"{\"a\":"[..], &nested, b"}"].concat(),
                text.to_vec(),
            ];
            for body in bodies {
                for media_type in ["application/json", "application/yaml", "x/y"] {
                    let head = format!(
                        "PUT /api/v1/namespaces/a/configmaps/c?x=%00%ff HTTP/1.1\r\nHost: h\r\n\
                         Content-Type: {media_type}\r\nContent-Length: {}\r\n",
                        body.len()
                    );
                    let mut request = head.into_bytes();
                    for name in ["User-Agent", "Audit-ID"] {
                        request.extend_from_slice(format!("{name}: a").as_bytes());
                        request.extend_from_slice(text);
                        request.extend_from_slice(b"\r\n");
                    }
                    request.extend_from_slice(b"\r\n");
                    request.extend_from_slice(&body);
                    let answer = http1::exchange(proxy.addr, Some("admin"), &request);
                    assert_eq!(in_time("an answer", answer).await.unwrap().head.status, 200);
                    count += 2;
                }
            }
        }
        let log = std::fs::read(&proxy.log).unwrap();
        let log = String::from_utf8(log).expect("UTF-8");
        // Characters that are line breaks in JavaScript are escaped, like in kube-apiserver.
        assert!(!log.contains(['\r', '\u{2028}', '\u{2029}']));
        assert_eq!(log.lines().count(), count, "{format}");
        for line in log.lines().filter(|_| format == "json") {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(event["kind"], "Event");
        }
    }
}
