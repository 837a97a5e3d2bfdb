//! In `blocking`, concurrent requests share one write of the log, and neither the API server nor
//! the client receives a byte of a request before its event is in the file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::support::client::{self, Short};
use crate::support::http1::{self, Connection};
use crate::support::proxy::{Builder, METADATA};
use crate::support::upstream::{Answered, FakeUpstream, Protocols, empty, json};
use crate::support::{TempDir, audit_log, in_time};

const CLIENTS: usize = 8;
const STREAMS: usize = 8;
const REQUESTS: usize = 5;

/// Returns whether all logs contain the event now.
fn has(logs: &[PathBuf], id: &str, stage: &str) -> bool {
    let (id, stage) = (format!("\"auditID\":\"{id}\""), format!("\"stage\":\"{stage}\""));
    let is_it = |line: &String| line.contains(&id) && line.contains(&stage);
    logs.iter().all(|log| audit_log::lines(log).iter().any(is_it))
}

/// Reports in each response whether the event of the request was in the log when it arrived.
async fn upstream(protocols: Protocols, logs: &[PathBuf]) -> FakeUpstream {
    let logs: Arc<[PathBuf]> = logs.into();
    FakeUpstream::start(protocols, move |request: Request<Incoming>| {
        let id = request.headers()["audit-id"].to_str().unwrap().to_owned();
        let recorded = has(&logs, &id, "RequestReceived");
        answer(request, recorded)
    })
    .await
}

async fn answer(mut request: Request<Incoming>, recorded: bool) -> Answered {
    if !recorded {
        return json(418, "{}");
    }
    let Some(upgrade) = request.headers().get("upgrade").cloned() else {
        return json(200, "{\"items\":[]}");
    };
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
        TokioIo::new(upgraded).write_all(b"bye").await.unwrap();
    });
    let response = Response::builder().status(101).header("connection", "Upgrade");
    Ok(response.header("upgrade", upgrade).body(empty())?)
}

async fn over_http2(proxy: SocketAddr, logs: &[PathBuf], client: usize) {
    let sender = client::http2::<Short>(proxy, Some("alice")).await.unwrap();
    let mut streams = JoinSet::new();
    for stream in 0..STREAMS {
        let (mut sender, logs) = (sender.clone(), logs.to_vec());
        streams.spawn(async move {
            for number in 0..REQUESTS {
                let id = format!("{client}-{stream}-{number}");
                let headers = [("audit-id", id.as_str())];
                let answer = client::h2_get(&mut sender, "/api/v1/pods", &headers).await.unwrap();
                assert_eq!(answer.status(), 200, "{id}");
                client::whole(answer).await.unwrap();
                assert!(has(&logs, &id, "ResponseComplete"), "{id}");
            }
        });
    }
    streams.join_all().await;
}

async fn over_http1(proxy: SocketAddr, logs: &[PathBuf], client: usize) {
    let mut connection = Connection::open(proxy, Some("alice")).await.unwrap();
    for number in 0..REQUESTS {
        let id = format!("{client}-{number}");
        let line = format!("Audit-ID: {id}");
        let request = http1::request("GET", "/api/v1/pods", &[&line], b"");
        connection.send(&request).await.unwrap();
        let answer = in_time("the answer", connection.answer("GET")).await.unwrap();
        assert_eq!(answer.head.status, 200, "{id}");
        assert!(has(logs, &id, "ResponseComplete"), "{id}");
    }
    let id = format!("{client}-upgraded");
    let lines = [&*format!("Audit-ID: {id}"), "Connection: Upgrade", "Upgrade: SPDY/3.1"];
    let exec = "/api/v1/namespaces/team-a/pods/p1/exec?command=sh";
    connection.send(&http1::request("POST", exec, &lines, b"")).await.unwrap();
    let head = in_time("the answer to the upgrade", connection.head()).await.unwrap();
    assert_eq!(head.status, 101, "{id}");
    assert!(has(logs, &id, "ResponseStarted"), "{id}");
    assert_eq!(in_time("the end", connection.exactly(3)).await.unwrap(), b"bye");
}

async fn all_hear_of_what_is_recorded(protocols: Protocols, names: &[&str]) {
    let dir = TempDir::new();
    let logs: Vec<PathBuf> = names.iter().map(|name| dir.path(name)).collect();
    let upstream = upstream(protocols, &logs).await;
    let builder = Builder::new(upstream.addr);
    builder.dir().write("meta.yaml", METADATA);
    let sink = |log: &Path| {
        let name = log.file_stem().unwrap().to_str().unwrap();
        let log = log.display();
        format!("- {{name: {name}, type: file, path: {log}, policy-file: DIR/meta.yaml}}\n")
    };
    let sinks: String = logs.iter().map(|log| sink(log)).collect();
    let mut proxy = builder.sinks(&format!("\n{sinks}")).start().await;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (addr, logs) = (proxy.addr, logs.clone());
        clients.spawn(async move {
            match client % 2 {
                0 => over_http2(addr, &logs, client).await,
                _ => over_http1(addr, &logs, client).await,
            }
        });
    }
    clients.join_all().await;
    assert!(proxy.stop().await.success());
    let requests = CLIENTS / 2 * (STREAMS * REQUESTS + REQUESTS);
    for log in &logs {
        // Upgrades have three events.
        assert_eq!(audit_log::lines(log).len(), 2 * requests + 3 * CLIENTS / 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hears_of_a_request_before_the_log() {
    all_hear_of_what_is_recorded(Protocols::Http2, &["audit.log"]).await;
    all_hear_of_what_is_recorded(Protocols::Http1, &["audit.log"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hears_of_a_request_before_all_logs() {
    all_hear_of_what_is_recorded(Protocols::Http2, &["one.log", "two.log"]).await;
}

/// Allows a user to be impersonated if the log has the `RequestReceived` event of the request,
/// whose audit ID is the user name.
async fn review(request: Request<Incoming>, logs: &[PathBuf]) -> Answered {
    match request.uri().path() {
        "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {}
        "/version" => return json(200, r#"{"major":"1","minor":"35"}"#),
        _ => return json(200, "{}"),
    }
    let body = request.into_body().collect().await?.to_bytes();
    let mut review: serde_json::Value = serde_json::from_slice(&body)?;
    let attributes = &review["spec"]["resourceAttributes"];
    let is_recorded = has(logs, attributes["name"].as_str().unwrap_or(""), "RequestReceived");
    let is_allowed = attributes["verb"] == "impersonate" && is_recorded;
    review["status"] = serde_json::json!({"allowed": is_allowed});
    json(201, review.to_string())
}

// SubjectAccessReviews are sent on connections that no gate holds back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_is_not_asked_about_a_request_before_the_log() {
    let dir = TempDir::new();
    let logs = vec![dir.path("audit.log")];
    let reviewed = logs.clone();
    let upstream = FakeUpstream::start(Protocols::Http2, move |request| {
        let logs = reviewed.clone();
        async move { review(request, &logs).await }
    })
    .await;
    let path = format!("--audit-log-path={}", logs[0].display());
    let builder = Builder::new(upstream.addr).identity("impersonate").flag(&path);
    let mut proxy = builder.flag("--audit-log-mode=blocking").start().await;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let addr = proxy.addr;
        clients.spawn(async move {
            let sender = client::http2::<Short>(addr, Some("alice")).await.unwrap();
            for number in 0..REQUESTS {
                let id = format!("user-{client}-{number}");
                let headers = [("audit-id", id.as_str()), ("impersonate-user", id.as_str())];
                let mut sender = sender.clone();
                let answer = client::h2_get(&mut sender, "/api/v1/pods", &headers).await.unwrap();
                assert_eq!(answer.status(), 200, "{id}");
            }
        });
    }
    clients.join_all().await;
    assert!(proxy.stop().await.success());
}
