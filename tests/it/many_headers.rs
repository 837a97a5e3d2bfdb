//! Requests and responses with many header lines, up to the limit of 1 MiB, and requests that
//! cannot be parsed.

use http::Response;

use crate::support::http1::{self, Connection};
use crate::support::proxy::Builder;
use crate::support::upstream::{FakeUpstream, Protocols, full, json};
use crate::support::{in_time, wait_for};

const LIST: &str = "/api/v1/namespaces/team-a/configmaps";
const BOTH: [Protocols; 2] = [Protocols::Http1, Protocols::Http2];

#[tokio::test]
async fn requests_with_many_header_lines_are_forwarded_and_recorded() {
    for protocols in BOTH {
        let upstream = FakeUpstream::start(protocols, |request| async move {
            let groups = request.headers().get_all("impersonate-group").iter().count();
            json(200, groups.to_string())
        })
        .await;
        let proxy = Builder::new(upstream.addr).start().await;
        let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
        // Also after a request that exceeded the limit, and with a body.
        for (id, count) in [("few", 3), ("more", 110), ("many", 5000), ("again", 3)] {
            let mut lines = vec![format!("Audit-ID: {id}"), "Impersonate-User: jane".to_owned()];
            lines.extend((0..count).map(|n| format!("Impersonate-Group: team-{n}")));
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            connection.send(&http1::request("POST", LIST, &lines, b"{}")).await.unwrap();
            let answer = in_time("an answer", connection.answer("POST")).await.unwrap();
            assert_eq!(answer.head.status, 200, "{protocols:?} {count}");
            assert_eq!(answer.body, count.to_string().as_bytes());
            let events = proxy.audit_log().wait_end(id).await;
            assert_eq!(events.last().unwrap().code(), 200);
        }
    }
}

#[tokio::test]
async fn responses_with_many_header_lines_are_relayed_and_recorded_as_they_are() {
    for protocols in BOTH {
        let upstream = FakeUpstream::start(protocols, |request| async move {
            let count: usize = request.uri().query().unwrap().parse()?;
            let mut response = Response::builder().status(201);
            for n in 0..count {
                response = response.header("warning", format!("299 - \"unknown field {n}\""));
            }
            Ok(response.header("content-type", "application/json").body(full("{}"))?)
        })
        .await;
        let proxy = Builder::new(upstream.addr).start().await;
        for count in [90, 100, 3000] {
            let id = format!("Audit-ID: warned-{count}");
            let target = format!("{LIST}?{count}");
            for method in ["POST", "HEAD"] {
                let request = http1::request(method, &target, &[&id], b"");
                let answer = http1::exchange(proxy.addr, Some("admin"), &request);
                let answer = in_time("an answer", answer).await.unwrap();
                assert_eq!(answer.head.status, 201, "{protocols:?} {count}");
                assert_eq!(answer.head.all("warning").len(), count);
                assert_eq!(answer.body, if method == "HEAD" { &b""[..] } else { b"{}" });
            }
            let events = proxy.audit_log().wait_end(&format!("warned-{count}")).await;
            assert!(events.iter().filter(|event| event.is_end()).all(|event| event.code() == 201));
        }
        // One for each request: nothing was sent twice.
        assert_eq!(upstream.seen().len(), 6, "{protocols:?}");
    }
}

#[tokio::test]
async fn requests_rejected_by_the_http_library_are_counted_and_logged_with_the_peer() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let long = "x".repeat(2 << 20);
    let long_line = format!("X-Long: {long}");
    let long_target = format!("/{}", "y".repeat(70 << 10));
    let requests = [
        (431, "headers_too_large", http1::request("GET", LIST, &[&long_line], b"")),
        (414, "uri_too_long", http1::request("GET", &long_target, &[], b"")),
        (400, "malformed", b"GET / HTTP/1.1\r\nno header\r\n\r\n".to_vec()),
    ];
    let refused = "kube_audit_proxy_refused_requests_total";
    for (code, reason, request) in requests {
        let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
        // The proxy may close the connection before the request was sent completely.
        let _ = connection.send(&request).await;
        let head = in_time("a refusal", connection.head()).await.unwrap();
        assert_eq!(head.status, code);
        assert_eq!(proxy.metric(&format!("{refused}{{reason=\"{reason}\"}}")).await, 1);
    }
    let line = wait_for("a warning", || {
        let text = proxy.process.stderr();
        text.lines().find(|line| line.contains("cannot be parsed")).map(str::to_owned)
    })
    .await;
    assert!(line.contains("peer=127.0.0.1:") && line.contains("headers_too_large"), "{line}");
    assert!(upstream.seen().is_empty());
}
