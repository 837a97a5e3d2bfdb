//! Interrupted requests, and start and end of the process: each request has exactly one last event.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::body::Frame;

use crate::support::audit_log::Event;
use crate::support::http1::{self, Connection};
use crate::support::proxy::{Builder, METADATA, Process, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, full, json, streamed};
use crate::support::{audit_log, client, in_time, wait_for};

const LIST: &str = "/api/v1/namespaces/team-a/configmaps";
const WATCH: &str = "/api/v1/namespaces/team-a/configmaps?watch=true";

async fn ok_upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

/// Returns an upstream that begins a response and never ends it.
async fn endless_upstream(protocols: Protocols) -> FakeUpstream {
    FakeUpstream::start(protocols, |_| async {
        let (sender, body) = streamed();
        tokio::spawn(async move {
            let piece = Bytes::from_static(b"{\"type\":\"ADDED\"}\n");
            let _ = sender.send(Ok(Frame::data(piece))).await;
            sender.closed().await;
        });
        Ok(Response::new(body))
    })
    .await
}

/// Opens a connection as alice and sends a GET with this audit ID.
async fn begin(proxy: &Proxy, target: &str, id: &str) -> Connection {
    let mut connection = Connection::open(proxy.addr, Some("alice")).await.unwrap();
    let line = format!("Audit-ID: {id}");
    connection.send(&http1::request("GET", target, &[&line], b"")).await.unwrap();
    connection
}

async fn get(proxy: &Proxy, id: &str) -> http1::Answer {
    let line = format!("Audit-ID: {id}");
    let lines = [line.as_str()];
    in_time("an answer", http1::get(proxy.addr, Some("alice"), LIST, &lines)).await.unwrap()
}

fn stages(events: &[Event]) -> Vec<&str> {
    events.iter().map(Event::stage).collect()
}

/// Waits for the last event of a request and a little longer; there must be only one.
async fn one_end(proxy: &Proxy, id: &str) -> Vec<Event> {
    let mut log = proxy.audit_log();
    log.wait_end(id).await;
    get(proxy, &format!("after-{id}")).await;
    let events = log.of(id);
    let ends = events.iter().filter(|event| event.is_end()).count();
    assert_eq!(ends, 1, "{:?}", stages(&events));
    assert!(events.last().unwrap().is_end(), "{:?}", stages(&events));
    events
}

#[tokio::test]
async fn a_client_disconnecting_during_the_response_has_one_final_event() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = FakeUpstream::start(protocols, |request| async move {
            if request.uri().query().is_none() && !request.uri().path().contains("endless") {
                return json(200, "{}");
            }
            let (sender, body) = streamed();
            tokio::spawn(async move {
                let piece = Bytes::from_static(&[b'x'; 1024]);
                while sender.send(Ok(Frame::data(piece.clone()))).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            Ok(Response::new(body))
        })
        .await;
        let proxy = Builder::new(upstream.addr).start().await;
        for (target, id, count) in [("/endless", "gone", 2), (WATCH, "gone-watch", 3)] {
            let mut connection = begin(&proxy, target, id).await;
            let head = in_time("the head", connection.head()).await.unwrap();
            assert_eq!(head.status, 200);
            connection.chunk().await.unwrap();
            drop(connection);
            let events = one_end(&proxy, id).await;
            assert_eq!(events.len(), count, "{:?}", stages(&events));
        }
    }
}

#[tokio::test]
async fn a_client_disconnecting_before_the_response_has_one_final_event() {
    let upstream = FakeUpstream::start(Protocols::Http2, |request| async move {
        if request.uri().query().is_some_and(|query| query.contains("slow")) {
            std::future::pending::<()>().await;
        }
        json(200, "{}")
    })
    .await;
    let proxy = Builder::new(upstream.addr).start().await;
    let connection = begin(&proxy, &format!("{LIST}?slow"), "early").await;
    wait_for("the request upstream", || (!upstream.seen().is_empty()).then_some(())).await;
    drop(connection);
    let events = one_end(&proxy, "early").await;
    assert_eq!(events.len(), 2, "{:?}", stages(&events));
}

#[tokio::test]
async fn an_unreachable_upstream_is_a_recorded_503() {
    let upstream = ok_upstream().await;
    let proxy = Builder::new(upstream.addr).start().await;
    upstream.stop().await;
    let answer = get(&proxy, "down").await;
    assert_eq!(answer.head.status, 503);
    let status = answer.json();
    assert_eq!((&status["kind"], &status["code"]), (&"Status".into(), &503.into()), "{status}");
    assert_eq!(status["reason"], "ServiceUnavailable");
    let events = proxy.audit_log().wait_end("down").await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    assert_eq!(events[1].code(), 503);
    assert_eq!(events[1].text("/responseStatus/reason"), "ServiceUnavailable");
}

#[tokio::test]
async fn an_upstream_is_used_again_after_it_recovers() {
    let upstream = ok_upstream().await;
    let addr = upstream.addr;
    let proxy = Builder::new(addr).start().await;
    assert_eq!(get(&proxy, "before").await.head.status, 200);
    upstream.stop().await;
    assert_eq!(get(&proxy, "down").await.head.status, 503);
    let _upstream =
        FakeUpstream::start_on(addr, Protocols::Http2, |_| async { json(200, "{}") }).await;
    for attempt in 0..200 {
        if get(&proxy, &format!("again-{attempt}")).await.head.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never used again");
}

#[tokio::test]
async fn an_upstream_that_fails_during_the_body_aborts_the_response_and_ends_the_record() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = endless_upstream(protocols).await;
        let proxy = Builder::new(upstream.addr).start().await;
        let mut connection = begin(&proxy, LIST, "cut").await;
        let head = in_time("the head", connection.head()).await.unwrap();
        connection.chunk().await.unwrap();
        upstream.stop().await;
        // A partial body must not look complete.
        let rest = in_time("the end of the body", connection.body(&head, "GET")).await;
        assert!(rest.is_err(), "{protocols:?}: ended as if whole: {rest:?}");
        let events = one_end(&proxy, "cut").await;
        assert_eq!(events.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_requests_end_ends_watches_and_loses_no_record() {
    let upstream = FakeUpstream::start(Protocols::Http2, |request| async move {
        if request.uri().query().is_some_and(|query| query.contains("watch")) {
            let (sender, body) = streamed();
            tokio::spawn(async move {
                let piece = Bytes::from_static(b"{\"type\":\"ADDED\"}\n");
                let _ = sender.send(Ok(Frame::data(piece))).await;
                sender.closed().await;
            });
            return Ok(Response::new(body));
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        Ok(Response::new(full("slow but whole")))
    })
    .await;
    let mut proxy = Builder::new(upstream.addr).start().await;
    let mut watch = begin(&proxy, WATCH, "watch").await;
    assert_eq!(in_time("the watch", watch.head()).await.unwrap().status, 200);
    watch.chunk().await.unwrap();
    let mut slow = begin(&proxy, LIST, "slow").await;
    wait_for("both upstream", || (upstream.seen().len() == 2).then_some(())).await;
    proxy.process.signal("TERM");

    let watch_end = in_time("the end of the watch", watch.read_to_end()).await;
    assert!(watch_end.is_ok() || watch_end.is_err(), "any way of ending will do");
    let answer = in_time("the slow answer", slow.answer("GET")).await.unwrap();
    assert_eq!((answer.head.status, answer.body.as_slice()), (200, &b"slow but whole"[..]));
    assert_eq!(proxy.process.wait().await.code(), Some(0), "{}", proxy.process.stderr());
    let mut log = proxy.audit_log();
    assert_eq!(stages(&log.of("slow")), ["RequestReceived", "ResponseComplete"]);
    let watch = log.of("watch");
    assert_eq!(stages(&watch), ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
    assert_eq!(watch[2].code(), 200);
}

#[tokio::test]
async fn a_second_sigterm_ends_at_once_with_the_records_written() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| std::future::pending()).await;
    let mut proxy = Builder::new(upstream.addr).start().await;
    let _connection = begin(&proxy, LIST, "stuck").await;
    wait_for("the request upstream", || (!upstream.seen().is_empty()).then_some(())).await;
    proxy.process.signal("TERM");
    wait_for("not ready", || {
        std::net::TcpStream::connect_timeout(&proxy.addr, Duration::from_millis(50))
            .is_err()
            .then_some(())
    })
    .await;
    assert!(proxy.process.ended().is_none(), "did not wait for the request");
    proxy.process.signal("TERM");
    let start = std::time::Instant::now();
    proxy.process.wait().await;
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    let events = proxy.audit_log().of("stuck");
    assert_eq!(stages(&events).first(), Some(&"RequestReceived"));
    assert_eq!(events.iter().filter(|event| event.is_end()).count(), 1, "{:?}", stages(&events));
}

#[tokio::test]
async fn a_deleted_log_is_recreated_within_a_second() {
    let upstream = ok_upstream().await;
    let proxy = Builder::new(upstream.addr).start().await;
    get(&proxy, "before").await;
    std::fs::remove_file(&proxy.log).unwrap();
    let start = std::time::Instant::now();
    let mut number = 0;
    while !proxy.log.exists() {
        assert!(start.elapsed() < Duration::from_secs(3), "not recreated");
        get(&proxy, &format!("between-{number}")).await;
        number += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("recreated after {:?}", start.elapsed());
    get(&proxy, "after").await;
    let events = proxy.audit_log().wait_end("after").await;
    assert_eq!(events.len(), 2);
}

#[tokio::test]
async fn sighup_reopens_a_moved_log_and_loses_nothing() {
    let upstream = ok_upstream().await;
    let mut proxy = Builder::new(upstream.addr).start().await;
    let mut moved = Vec::new();
    for round in 0..5 {
        get(&proxy, &format!("round-{round}")).await;
        let to = proxy.dir.path(&format!("moved-{round}.log"));
        std::fs::rename(&proxy.log, &to).unwrap();
        moved.push(to);
        proxy.process.signal("HUP");
        wait_for("the new log", || proxy.log.exists().then_some(())).await;
    }
    get(&proxy, "round-5").await;
    assert_eq!(proxy.stop().await.code(), Some(0));
    let (mut all, last) = (Vec::new(), audit_log::lines(&proxy.log));
    moved.iter().for_each(|path| all.extend(audit_log::lines(path)));
    all.extend(last.iter().cloned());
    assert_eq!(last.len(), 2);
    for round in 0..6 {
        let id = format!("\"round-{round}\"");
        assert_eq!(all.iter().filter(|line| line.contains(&id)).count(), 2, "{id}");
    }
}

#[tokio::test]
async fn a_bad_token_is_one_event_at_response_started() {
    let upstream = ok_upstream().await;
    let mut proxy = Builder::new(upstream.addr).start().await;
    let lines = ["Authorization: Bearer secret-of-nobody", "Audit-ID: bad"];
    let answer = http1::get(proxy.addr, None, LIST, &lines).await.unwrap();
    assert_eq!(answer.head.status, 401);
    assert_eq!(answer.json()["reason"], "Unauthorized");
    assert!(upstream.seen().is_empty());
    assert_eq!(proxy.stop().await.code(), Some(0));
    let events = proxy.audit_log().of("bad");
    assert_eq!(stages(&events), ["ResponseStarted"]);
    assert_eq!(events[0].code(), 401);
    assert_eq!(events[0].value["user"], serde_json::json!({}));
    let said = [proxy.process.stderr(), events[0].line.clone()].concat();
    assert!(!said.contains("secret-of-nobody"), "the token is in a log");
}

#[tokio::test]
async fn a_malformed_timeout_is_one_event_before_authentication() {
    let upstream = ok_upstream().await;
    let mut proxy = Builder::new(upstream.addr).start().await;
    let target = format!("{LIST}?timeout=foo");
    let answer = http1::get(proxy.addr, Some("alice"), &target, &["Audit-ID: timeout"]).await;
    assert_eq!(answer.unwrap().head.status, 400);
    assert_eq!(proxy.stop().await.code(), Some(0));
    let events = proxy.audit_log().of("timeout");
    assert_eq!(stages(&events), ["ResponseStarted"]);
    let message = "invalid timeout specified in the request URL - time: invalid duration \"foo\"";
    assert_eq!(events[0].text("/responseStatus/message"), message);
    assert_eq!(events[0].value["user"], serde_json::json!({}));
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn invalid_flags_exit_with_2_and_invalid_files_with_1() {
    let addr = "127.0.0.1:1".parse().unwrap();
    let (code, said) = Builder::new(addr).flag("--audit-polcy-file=x").run_to_end().await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--audit-policy-file"), "says what would be right: {said}");

    let builder = Builder::new(addr).policy(&METADATA.replace("Metadata", "Meta"));
    let file = builder.dir().path("policy.yaml").display().to_string();
    let (code, said) = builder.run_to_end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("{file}:4")), "names file and line: {said}");

    let (code, said) = Builder::new(addr).flag("--upstream-identity=nonsense").run_to_end().await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("request-header"), "says what would be right: {said}");
}

#[tokio::test]
async fn an_invalid_policy_on_reload_is_logged_and_the_current_one_stays_active() {
    let upstream = ok_upstream().await;
    let proxy = Builder::new(upstream.addr).start().await;
    get(&proxy, "before").await;
    proxy
        .dir
        .write("policy.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: X\n");
    proxy.process.signal("HUP");
    wait_for("the complaint", || proxy.process.stderr().contains("policy.yaml:4").then_some(()))
        .await;
    get(&proxy, "after").await;
    assert_eq!(proxy.audit_log().wait_end("after").await[0].level(), "Metadata");
    let (status, metrics) = client::admin(proxy.admin, "/metrics").await.unwrap();
    assert_eq!(status, 200);
    assert!(metrics.contains("apiserver_audit_event_total"), "{metrics}");
}

#[tokio::test]
async fn the_admin_port_reports_health() {
    let upstream = ok_upstream().await;
    let proxy = Builder::new(upstream.addr).start().await;
    for path in ["/healthz", "/livez", "/readyz"] {
        let (status, body) = client::admin(proxy.admin, path).await.unwrap();
        assert_eq!(status, 200, "{path}: {body}");
    }
    assert_eq!(client::admin(proxy.admin, "/nope").await.unwrap().0, 404);
}

#[tokio::test]
async fn help_and_version_exit_with_0() {
    for arguments in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let mut process = Process::start(&arguments);
        assert_eq!(process.wait().await.code(), Some(0), "{arguments:?}");
        assert!(process.stdout().contains("kube-audit-proxy"), "{}", process.stdout());
    }
}
