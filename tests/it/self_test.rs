//! Tests of the test harness, without the proxy.

use http_body_util::BodyExt;

use crate::replay;
use crate::support::client::{self, Short};
use crate::support::compare::{self, Report};
use crate::support::corpus;
use crate::support::http1::{self, Connection};
use crate::support::in_time;
use crate::support::upstream::{FakeUpstream, Protocols, json};

#[tokio::test]
async fn the_fake_records_what_arrives_over_http1() {
    let fake = FakeUpstream::start(Protocols::Http1, |request| async move {
        let body = request.into_body().collect().await?.to_bytes();
        json(201, body)
    })
    .await;
    let request = http1::request("FROB", "/a//b?c#d", &["x-ODD: v"], b"{}");
    let answer = http1::exchange(fake.addr, Some("alice"), &request).await.unwrap();
    assert_eq!((answer.head.status, answer.body.as_slice()), (201, b"{}".as_slice()));
    assert_eq!(fake.raw(), [request]);
    assert_eq!(fake.seen()[0].all("X-Odd"), ["v"]);
    assert!(fake.seen()[0].certificate.is_some());
}

#[tokio::test]
async fn the_fake_speaks_http2() {
    let fake = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    let mut sender = client::http2::<Short>(fake.addr, None).await.unwrap();
    let response = client::h2_get(&mut sender, "/x?y", &[("a", "b")]).await.unwrap();
    assert_eq!(client::whole(response).await.unwrap(), "{}");
    assert_eq!(fake.seen()[0].target, "/x?y");
}

#[tokio::test]
async fn stopping_the_fake_breaks_its_connections() {
    let fake = FakeUpstream::start(Protocols::Http1, |_| std::future::pending()).await;
    let mut connection = Connection::open(fake.addr, None).await.unwrap();
    connection.send(&http1::request("GET", "/", &[], b"")).await.unwrap();
    fake.stop().await;
    in_time("the end of the connection", connection.head()).await.unwrap_err();
}

/// hyper, which the proxy uses, too, accepts every recorded request, and the fake sends the
/// recorded responses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_requests_and_answers_survive_the_harness() {
    let exchanges = corpus::exchanges("all-requestresponse.jsonl");
    let fake = replay::recorded_upstream(&exchanges, Protocols::Http1).await;
    for exchange in &exchanges {
        let name = &exchange.name;
        let answer = http1::exchange(fake.addr, None, &replay::request(exchange)).await;
        let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(answer.head.status, exchange.response.status, "{name}");
        if let Some(body) = &exchange.response.body {
            assert!(answer.body == corpus::decode(body), "{name}");
        }
    }
}

#[test]
fn recorded_lines_equal_themselves_and_nothing_else() {
    let mut report = Report::default();
    let exchanges = corpus::exchanges("all-metadata.jsonl");
    let lines: Vec<_> = exchanges.iter().flat_map(|exchange| &exchange.events).collect();
    for line in &lines {
        compare::event(&mut report, "itself", &compare::Sent::default(), (line, line));
    }
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!((report.compared, report.equal), (lines.len(), lines.len()));

    let changed = lines[0].replace("\"verb\":\"create\"", "\"verb\":\"update\"");
    compare::event(&mut report, "changed", &compare::Sent::default(), (lines[0], &changed));
    let shorter = lines[0].replace("\"kind\":\"Event\",", "");
    compare::event(&mut report, "shorter", &compare::Sent::default(), (lines[0], &shorter));
    let kinds: Vec<_> = report.failures.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["verb", "kind"]);
}

/// The objectRef must contain what a request specifies about its object; other differences are
/// tolerated.
#[test]
fn only_differences_that_the_request_did_not_determine_are_tolerated() {
    let line = |object: &str| {
        format!(
            r#"{{"stage":"ResponseComplete","objectRef":{object},"requestReceivedTimestamp":"2026-11-23T05:09:05.000000Z","stageTimestamp":"2026-11-23T05:09:05.000001Z"}}"#
        )
    };
    let recorded = line(r#"{"resource":"configmaps","name":"one"}"#);
    let written = line(r#"{"resource":"configmaps"}"#);
    for (request, failures) in [("{\"name\":\"one\"}", 1), ("{}", 0)] {
        let mut report = Report::default();
        let pair = (recorded.as_str(), written.as_str());
        compare::event(
            &mut report,
            "object",
            &compare::Sent { request: request.as_bytes(), ..Default::default() },
            pair,
        );
        assert_eq!(report.failures.len(), failures, "{request}");
        assert_eq!(report.forgiven.len(), 1 - failures, "{request}");
    }
}
