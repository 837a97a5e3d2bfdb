//! Bodies in the audit log: which are recorded, in what form, and how much of them; and that the
//! forwarded bodies are unchanged.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::task::JoinSet;

use crate::support::audit_log::Event;
use crate::support::client::{self, Short};
use crate::support::http1::{self, Connection};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{Answered, FakeUpstream, Protocols, full, json, streamed};
use crate::support::{in_time, wait_for};

const EVERYTHING: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: RequestResponse\n";
const CONFIG_MAPS: &str = "/api/v1/namespaces/a/configmaps";
const SECRETS: &str = "/api/v1/namespaces/a/secrets";
const JSON: &str = "Content-Type: application/json";

/// Returns an API server that responds to each request with the object it received.
async fn echo() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |request| async move {
        let body = request.into_body().collect().await?.to_bytes();
        json(200, body)
    })
    .await
}

/// Returns an API server that always sends this response.
async fn answering(headers: &'static [(&'static str, &'static str)], body: Bytes) -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, move |_| {
        let body = body.clone();
        async move {
            let mut response = Response::builder();
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            let answered: Answered = Ok(response.body(full(body))?);
            answered
        }
    })
    .await
}

/// Sends a request. Returns the body of the response and the last event.
async fn exchange(
    proxy: &Proxy,
    method: &str,
    target: &str,
    headers: &[&str],
    body: &[u8],
) -> (Vec<u8>, Event) {
    let headers = [headers, &["Audit-ID: the-one"]].concat();
    let request = http1::request(method, target, &headers, body);
    let answer = in_time("an answer", http1::exchange(proxy.addr, Some("admin"), &request)).await;
    let events = proxy.audit_log().wait_end("the-one").await;
    for first in &events[..events.len() - 1] {
        assert_eq!((first.at("/requestObject"), first.at("/responseObject")), (None, None));
    }
    (answer.unwrap().body, events.into_iter().next_back().unwrap())
}

fn annotation<'e>(event: &'e Event, name: &str) -> &'e str {
    event.text(&format!("/annotations/{}", name.replace('/', "~1")))
}

#[tokio::test]
async fn secrets_are_redacted_unless_that_is_turned_off() {
    let secret = br#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"s"},"data":{"p":"aHVudGVyMg=="}}"#;
    let target = format!("{SECRETS}?access_token=hunter2");
    let upstream = echo().await;
    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).start().await;
    let (answer, event) = exchange(&proxy, "POST", &target, &[JSON], secret).await;
    assert_eq!(answer, secret, "what passes is not touched");
    for object in ["/requestObject", "/responseObject"] {
        assert_eq!(event.text(&format!("{object}/data/p")), "REDACTED(12 bytes)");
    }
    assert_eq!(event.text("/requestURI"), format!("{SECRETS}?access_token=REDACTED"));
    assert_eq!(event.text("/objectRef/name"), "s");
    assert!(upstream.seen()[0].target.ends_with("hunter2"));

    let proxy =
        Builder::new(upstream.addr).policy(EVERYTHING).flag("--audit-redact=none").start().await;
    let (_, event) = exchange(&proxy, "POST", &target, &[JSON], secret).await;
    assert_eq!(event.text("/requestObject/data/p"), "aHVudGVyMg==");
    assert_eq!(event.text("/requestURI"), target);

    let rule = "--audit-redact=core/configmaps:data.password";
    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).flag(rule).start().await;
    let body = br#"{"data":{"password":"hunter2","user":"me"}}"#;
    let (_, event) = exchange(&proxy, "PUT", &format!("{CONFIG_MAPS}/c"), &[JSON], body).await;
    assert_eq!(event.text("/requestObject/data/password"), "REDACTED(7 bytes)");
    assert_eq!(event.text("/requestObject/data/user"), "me");
}

#[tokio::test]
async fn events_that_kube_apiserver_loses_are_written() {
    let upstream = echo().await;
    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).start().await;
    let target = format!("{CONFIG_MAPS}/c");
    let apply = ["Content-Type: application/apply-patch+yaml"];
    let (_, event) = exchange(&proxy, "PATCH", &target, &apply, b"data:\n  b: x\n  a: [1]\n").await;
    assert_eq!(event.at("/requestObject").unwrap().to_string(), r#"{"data":{"a":[1],"b":"x"}}"#);

    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).start().await;
    let merge = ["Content-Type: application/merge-patch+json; charset=utf-8"];
    let (_, event) = exchange(&proxy, "PATCH", &target, &merge, b"{\"data\": <oops>").await;
    assert_eq!(event.text("/requestObject"), "{\"data\": <oops>");
    assert!(annotation(&event, "kube-audit-proxy/request-object").starts_with("not JSON"));

    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).start().await;
    let protobuf = ["Content-Type: application/vnd.kubernetes.protobuf"];
    let unknown = b"k8s\0\n\x0a\n\x02v9\x12\x04Nope\x12\0\x1a\0\"\0";
    let (_, event) = exchange(&proxy, "POST", CONFIG_MAPS, &protobuf, unknown).await;
    assert!(annotation(&event, "kube-audit-proxy/request-object").contains("Nope"));
    assert!(!event.text("/requestObject").is_empty());
}

// The API server may have created it.
#[tokio::test]
async fn the_request_body_of_a_client_disconnecting_before_the_response_is_recorded() {
    let upstream = FakeUpstream::start(Protocols::Http2, |request| async move {
        request.into_body().collect().await?;
        std::future::pending().await
    })
    .await;
    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).start().await;
    let body = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c"},"data":{"a":"b"}}"#;
    let mut log = proxy.audit_log();
    for id in ["http1", "http2"] {
        let audit_id = format!("Audit-ID: {id}");
        let came = || (!upstream.take_seen().is_empty()).then_some(());
        if id == "http1" {
            let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
            let headers = [JSON, &audit_id];
            let request = http1::request("POST", CONFIG_MAPS, &headers, body.as_bytes());
            connection.send(&request).await.unwrap();
            wait_for("the request", came).await;
        } else {
            let mut client = client::http2::<Short>(proxy.addr, Some("admin")).await.unwrap();
            let request = Request::post(format!("https://kubernetes{CONFIG_MAPS}"))
                .header("content-type", "application/json")
                .header("audit-id", id)
                .body(Short::from(body))
                .unwrap();
            let asking = tokio::spawn(async move {
                client.ready().await.unwrap();
                client.send_request(request).await
            });
            wait_for("the request", came).await;
            asking.abort();
        }
        let events = log.wait_end(id).await;
        let event = events.last().unwrap();
        assert_eq!((event.code(), event.text("/objectRef/name")), (504, "c"), "{id}");
        assert_eq!(event.text("/requestObject/data/a"), "b", "{id}");
    }
}

#[tokio::test]
async fn a_response_to_a_disconnected_client_has_no_object() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async {
        let (sender, body) = streamed();
        tokio::spawn(async move {
            // The body never arrives.
            sender.closed().await;
        });
        Ok(Response::builder().header("content-type", "application/json").body(body)?)
    })
    .await;
    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).start().await;
    let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
    let request = http1::request("GET", CONFIG_MAPS, &["Audit-ID: gone"], b"");
    connection.send(&request).await.unwrap();
    assert_eq!(in_time("the head", connection.head()).await.unwrap().status, 200);
    drop(connection);
    let events = proxy.audit_log().wait_end("gone").await;
    let event = events.last().unwrap();
    assert_eq!((event.code(), event.at("/responseObject")), (200, None));
    assert_eq!(event.at("/annotations"), None, "nothing is wrong with the answer");
}

#[tokio::test]
async fn delete_options_are_recorded_as_kube_apiserver_does() {
    let upstream = echo().await;
    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).start().await;
    let body = br#"{"propagationPolicy":"Foreground","apiVersion":"v1","kind":"DeleteOptions"}"#;
    let target = format!("{CONFIG_MAPS}/c");
    let (_, event) = exchange(&proxy, "DELETE", &target, &[JSON], body).await;
    assert_eq!(event.text("/requestObject/apiVersion"), "meta.k8s.io/__internal");
    assert_eq!(event.text("/requestObject/propagationPolicy"), "Foreground");
}

#[tokio::test]
async fn compressed_responses_are_recorded_and_forwarded_unchanged() {
    let object = br#"{"kind":"ConfigMap","data":{"a":"<b>"}}"#;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(object).unwrap();
    let gzip = Bytes::from(gzip.finish().unwrap());
    let headers = &[("content-type", "application/json"), ("content-encoding", "gzip")];
    let upstream = answering(headers, gzip.clone()).await;
    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).start().await;
    let (answer, event) = exchange(&proxy, "GET", &format!("{CONFIG_MAPS}/c"), &[], b"").await;
    assert_eq!(answer, gzip);
    assert_eq!(event.text("/responseObject/data/a"), "<b>");
}

#[tokio::test]
async fn a_bomb_stops_at_the_limit() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(b"{\"data\":\"").unwrap();
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..256 {
        gzip.write_all(&megabyte).unwrap();
    }
    let bomb = Bytes::from(gzip.finish().unwrap());
    let headers = &[("content-type", "application/json"), ("content-encoding", "gzip")];
    let upstream = answering(headers, bomb.clone()).await;
    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).start().await;
    let before = proxy.process.resident();
    let (answer, event) = exchange(&proxy, "GET", &format!("{CONFIG_MAPS}/c"), &[], b"").await;
    assert_eq!(answer, bomb);
    assert_eq!(annotation(&event, "audit.k8s.io/truncated"), "true");
    assert_eq!(annotation(&event, "kube-audit-proxy/response-object"), "it is too long");
    let recorded = event.text("/responseObject/data").len();
    assert!((1_000_000..1_572_864).contains(&recorded), "{recorded}");
    let more = proxy.process.resident().saturating_sub(before);
    assert!(more < 24 << 20, "{more} bytes more in memory");
}

#[tokio::test]
async fn long_bodies_are_truncated_with_size_and_digest() {
    let upstream = echo().await;
    let proxy = Builder::new(upstream.addr)
        .policy(EVERYTHING)
        .flag("--audit-max-body-bytes=1000")
        .flag("--audit-max-request-body-bytes=2000")
        .start()
        .await;
    let body = format!("{{\"metadata\":{{\"name\":\"n\"}},\"data\":\"{}\"}}", "x".repeat(5000));
    let (answer, event) =
        exchange(&proxy, "PUT", &format!("{CONFIG_MAPS}/n"), &[JSON], body.as_bytes()).await;
    assert_eq!(answer, body.as_bytes());
    assert_eq!(annotation(&event, "audit.k8s.io/truncated"), "true");
    for (object, limit) in [("request", 2000), ("response", 1000)] {
        let recorded = event.at(&format!("/{object}Object")).unwrap().to_string();
        assert!(recorded.len() <= limit && recorded.len() > limit - 100, "{}", recorded.len());
        let size = annotation(&event, &format!("kube-audit-proxy/{object}-object-bytes"));
        assert_eq!(size, body.len().to_string());
        let digest = annotation(&event, &format!("kube-audit-proxy/{object}-object-sha256"));
        assert_eq!(digest.len(), 64);
    }
}

#[tokio::test]
async fn events_that_are_too_long_lose_the_larger_body_first() {
    let upstream = answering(
        &[("content-type", "application/json")],
        Bytes::from(format!("{{\"data\":\"{}\"}}", "x".repeat(5000))),
    )
    .await;
    let proxy = Builder::new(upstream.addr)
        .policy(EVERYTHING)
        .flag("--audit-log-truncate-enabled")
        .flag("--audit-log-truncate-max-event-size=3000")
        .start()
        .await;
    let target = format!("{CONFIG_MAPS}/n");
    let (_, event) = exchange(&proxy, "PUT", &target, &[JSON], b"{\"small\":1}").await;
    // The API server takes the kind from the URL if the object has none.
    let small = r#"{"apiVersion":"v1","kind":"ConfigMap","small":1}"#;
    assert_eq!(event.at("/requestObject").unwrap().to_string(), small);
    assert_eq!(event.at("/responseObject"), None);
    assert_eq!(annotation(&event, "audit.k8s.io/truncated"), "true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_long_answers_stay_within_the_budget() {
    const ANSWERS: usize = 40;
    const LENGTH: usize = 8 << 20;
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async {
        let (sender, body) = streamed();
        tokio::spawn(async move {
            let piece = Bytes::from(vec![b'x'; 64 << 10]);
            let mut frames = vec![Bytes::from_static(b"{\"kind\":\"ConfigMap\",\"data\":\"")];
            frames.extend(vec![piece; LENGTH / (64 << 10)]);
            frames.push(Bytes::from_static(b"\"}"));
            for frame in frames {
                if sender.send(Ok(Frame::data(frame))).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::builder().header("content-type", "application/json").body(body)?)
    })
    .await;
    let budget = 8 << 20;
    let flag = format!("--audit-total-body-bytes={budget}");
    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).flag(&flag).start().await;
    let before = proxy.process.resident();
    let mut requests = JoinSet::new();
    for index in 0..ANSWERS {
        let addr = proxy.addr;
        requests.spawn(async move {
            let id = format!("Audit-ID: {index}");
            let target = format!("{CONFIG_MAPS}/{index}");
            let request = http1::request("GET", &target, &[&id], b"");
            let answer = http1::exchange(addr, Some("admin"), &request);
            in_time("a long answer", answer).await.unwrap().body.len()
        });
    }
    let mut peak = 0;
    while let Some(length) = requests.join_next().await {
        assert!(length.unwrap() > LENGTH);
        peak = peak.max(proxy.process.resident());
    }
    let more = peak.saturating_sub(before);
    println!("{ANSWERS} answers of {LENGTH} bytes: {} KiB more in memory", more >> 10);
    assert!(more < budget + (64 << 20), "{more}");
    for index in 0..ANSWERS {
        let events = proxy.audit_log().wait_end(&index.to_string()).await;
        let event = &events[events.len() - 1];
        assert_eq!(annotation(event, "audit.k8s.io/truncated"), "true");
        let size = annotation(event, "kube-audit-proxy/response-object-bytes");
        assert_eq!(size, (LENGTH + 30).to_string());
    }
}

#[tokio::test]
async fn the_levels_say_which_bodies() {
    for (level, request, response) in
        [("Metadata", false, false), ("Request", true, false), ("RequestResponse", true, true)]
    {
        let upstream = echo().await;
        let policy = EVERYTHING.replace("RequestResponse", level);
        let proxy = Builder::new(upstream.addr).policy(&policy).start().await;
        let target = format!("{CONFIG_MAPS}/c");
        let body = br#"{ "kind": "ConfigMap", "apiVersion": "v1", "a" : 1.0 }"#;
        let (_, event) = exchange(&proxy, "PUT", &target, &[JSON], body).await;
        let object = serde_json::json!({"kind": "ConfigMap", "apiVersion": "v1", "a": 1.0});
        let expected = |is_there: bool| is_there.then(|| object.clone());
        let at = |name: &str| event.at(name).cloned();
        assert_eq!(at("/requestObject"), expected(request), "{level}");
        assert_eq!(at("/responseObject"), expected(response), "{level}");
    }
}
