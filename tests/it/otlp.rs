//! The backend `otlp` against a collector in this process that follows the rules of OTLP/HTTP for
//! servers, and fails as they allow; and, if it is installed, against Rotel.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::Read;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use test_support::servers::{self, Server};
use tokio::net::TcpListener;

use crate::support::TempDir;
use crate::support::delivery::{EventKey, Relay, check_complete, key, load, two_sinks, until};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{audit_log, client, wait_for};

/// Each has two events.
const REQUESTS: usize = 10_000;

/// What the collector does with a request.
#[derive(Debug, Clone, Copy)]
enum Reply {
    /// It responds with this status, and stores nothing.
    Status(u16),
    /// The same, with `Retry-After: 1`.
    RetryAfter(u16),
    /// It stores all records but the first one.
    Partial,
    /// It stores the records, but its response does not arrive.
    Silent,
}

/// A collector: what it has stored, and how it replies next. Otherwise it stores everything.
#[derive(Default)]
struct Collector {
    events: Mutex<HashMap<EventKey, u32>>,
    resources: Mutex<HashSet<String>>,
    replies: Mutex<VecDeque<Reply>>,
    /// When each request arrived, its number of records, and the reply.
    requests: Mutex<Vec<(Instant, usize, Option<Reply>)>>,
}

impl Collector {
    async fn start() -> (Arc<Collector>, SocketAddr) {
        let collector = Arc::new(Collector::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Arc::clone(&collector);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = Arc::clone(&serving);
                let service = service_fn(move |request| {
                    let collector = Arc::clone(&collector);
                    async move { collector.respond(request).await }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        (collector, address)
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, String> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return Err("a cut connection".to_owned()) };
        assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/v1/logs"));
        assert_eq!(head.headers["content-type"], "application/x-protobuf");
        let mut plain = body.to_bytes().to_vec();
        if head.headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
            let compressed = std::mem::take(&mut plain);
            GzDecoder::new(&compressed[..]).read_to_end(&mut plain).unwrap();
        }
        let request = ExportLogsServiceRequest::decode(&plain[..]).unwrap();
        let mut records: Vec<LogRecord> = Vec::new();
        for logs in request.resource_logs {
            let resource = text(&logs.resource.unwrap().attributes, "k8s.cluster.name");
            self.resources.lock().unwrap().insert(resource);
            records.extend(logs.scope_logs.into_iter().flat_map(|scope| scope.log_records));
        }
        let reply = self.replies.lock().unwrap().pop_front();
        self.requests.lock().unwrap().push((Instant::now(), records.len(), reply));
        let mut response = Response::builder();
        let mut partial = None;
        match reply {
            Some(Reply::Status(status)) => {
                return Ok(response.status(status).body(Full::default()).unwrap());
            }
            Some(Reply::RetryAfter(status)) => {
                response = response.status(status).header("retry-after", "1");
                return Ok(response.body(Full::default()).unwrap());
            }
            Some(Reply::Partial) => {
                records.remove(0);
                partial = Some(ExportLogsPartialSuccess {
                    rejected_log_records: 1,
                    error_message: "it is too old".to_owned(),
                });
            }
            Some(Reply::Silent) | None => {}
        }
        let mut events = self.events.lock().unwrap();
        for record in &records {
            let Some(AnyValue::StringValue(body)) = content(record) else { panic!("{record:?}") };
            let (id, stage) = key(body);
            assert_eq!(text(&record.attributes, "log.record.uid"), format!("{id}/{stage}"));
            *events.entry((id, stage)).or_default() += 1;
        }
        if let Some(Reply::Silent) = reply {
            return Err("no response".to_owned());
        }
        let message = ExportLogsServiceResponse { partial_success: partial }.encode_to_vec();
        Ok(response.body(Full::new(message.into())).unwrap())
    }

    fn will(&self, replies: impl IntoIterator<Item = Reply>) {
        self.replies.lock().unwrap().extend(replies);
    }

    fn stored(&self) -> usize {
        self.events.lock().unwrap().len()
    }
}

fn content(record: &LogRecord) -> Option<&AnyValue> {
    record.body.as_ref()?.value.as_ref()
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == name);
    let value = found.and_then(|pair| pair.value.as_ref()?.value.as_ref());
    match value {
        Some(AnyValue::StringValue(text)) => text.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_proxy_is_killed_and_the_collector_fails() {
    let (collector, address) = Collector::start().await;
    let relay = Relay::start(address).await;
    let dir = TempDir::new();
    let upstream =
        FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await;
    let (log, spool) = (dir.path("audit.log"), dir.path("spool"));
    let keys = format!("  endpoint: http://{}\n  cluster: prod\n  node: proxy-0\n", relay.address);
    let start = || two_sinks(upstream.addr, &log, &spool, "otlp", &keys);

    // Killed under load, while the collector is busy, or does not respond.
    collector.will([Reply::RetryAfter(503), Reply::Silent, Reply::Status(502)]);
    let mut proxy = start().start().await;
    let mut answered = load(&proxy, "a", REQUESTS / 2, Some(REQUESTS / 4)).await;
    proxy.process.wait().await;
    drop(proxy);

    // The collector is gone, then back; killed while the spool is sent.
    relay.cut();
    let mut proxy = start().start().await;
    answered.extend(load(&proxy, "b", REQUESTS / 2, None).await);
    until(&proxy, "kube_audit_proxy_delivery_healthy", |healthy| healthy == 0).await;
    let (status, ready) = client::admin(proxy.admin, "/readyz?verbose").await.unwrap();
    assert_eq!(status, 200, "requests wait for the spool, not for the collector: {ready}");
    relay.mend();
    until(&proxy, "kube_audit_proxy_delivery_events_total", |events| events > 0).await;
    proxy.process.signal("KILL");
    proxy.process.wait().await;
    drop(proxy);

    collector.will([Reply::Status(504), Reply::Silent, Reply::RetryAfter(429)]);
    let mut proxy = start().start().await;
    answered.extend(load(&proxy, "c", REQUESTS / 4 + 100, None).await);
    until(&proxy, "kube_audit_proxy_spool_bytes", |bytes| bytes == 0).await;
    assert!(proxy.stop().await.success());

    let events = collector.events.lock().unwrap();
    assert!(answered.len() >= REQUESTS, "{}", answered.len());
    check_complete(&answered, &log, &events, &proxy);
    assert_eq!(*collector.resources.lock().unwrap(), HashSet::from(["prod".to_owned()]));
    let again = events.values().filter(|count| **count > 1).count();
    println!("{} events, {again} of them again", events.len());
}

#[tokio::test]
async fn responses_are_followed_by_the_rules_of_the_specification() {
    let (collector, address) = Collector::start().await;
    let dir = TempDir::new();
    let upstream =
        FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await;
    let keys = format!("  endpoint: http://{address}\n  segment-max-age: 20ms\n  cluster: prod\n");
    let (log, spool) = (dir.path("audit.log"), dir.path("spool"));
    let mut proxy = two_sinks(upstream.addr, &log, &spool, "otlp", &keys).start().await;

    // Retried, not before the time that the collector names.
    collector.will([Reply::RetryAfter(429), Reply::RetryAfter(503)]);
    load(&proxy, "a", 8, None).await;
    wait_for("the events", || (collector.stored() == 16).then_some(())).await;
    let requests = std::mem::take(&mut *collector.requests.lock().unwrap());
    let refused = |reply: &Option<Reply>| matches!(reply, Some(Reply::RetryAfter(429 | 503)));
    let retries: Vec<_> = requests.windows(2).filter(|pair| refused(&pair[0].2)).collect();
    assert_eq!(retries.len(), 2, "{requests:?}");
    for pair in retries {
        assert!(pair[1].0.duration_since(pair[0].0) >= Duration::from_secs(1), "{requests:?}");
    }

    // Records that a successful response rejects are lost, counted, and not sent again.
    collector.will([Reply::Partial]);
    load(&proxy, "b", 8, None).await;
    wait_for("the events", || (collector.stored() == 31).then_some(())).await;
    until(&proxy, "kube_audit_proxy_spool_bytes", |bytes| bytes == 0).await;
    until(&proxy, "kube_audit_proxy_otlp_rejected_events_total", |events| events == 1).await;
    assert_eq!(proxy.metric("apiserver_audit_error_total{plugin=\"stream\"}").await, 1);
    proxy.process.logs("rejected audit events of an accepted request").await;
    proxy.process.logs("it is too old").await;

    // A batch that is invalid is sent once, and kept.
    collector.requests.lock().unwrap().clear();
    collector.will([Reply::Status(400)]);
    load(&proxy, "c", 8, None).await;
    until(&proxy, "kube_audit_proxy_spool_rejected_files", |files| files == 1).await;
    until(&proxy, "kube_audit_proxy_spool_bytes", |bytes| bytes == 0).await;
    let requests = std::mem::take(&mut *collector.requests.lock().unwrap());
    let set_aside = requests.iter().find(|(.., reply)| reply.is_some()).unwrap().1;
    assert_eq!(requests.iter().map(|(_, events, _)| events).sum::<usize>(), 16, "{requests:?}");
    let rejected = "kube_audit_proxy_spool_rejected_events_total{backend=\"elsewhere\"}";
    assert_eq!(proxy.metric(rejected).await, set_aside as u64);
    assert_eq!(collector.stored(), 31 + 16 - set_aside);
    let kept = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.filter(|path| path.extension().is_some_and(|kind| kind == "rejected"));
    let kept: Vec<_> = kept.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert_eq!(kept.concat().lines().count(), set_aside);

    // It is not there any more for the next ones.
    load(&proxy, "d", 8, None).await;
    let all = 31 + 32 - set_aside;
    wait_for("the events", || (collector.stored() == all).then_some(())).await;
    assert!(proxy.stop().await.success());
}

#[tokio::test]
async fn another_collector_passes_the_events_on_unchanged() {
    let Some(rotel) = servers::find("rotel") else { return };
    let (collector, address) = Collector::start().await;
    let (http, grpc) = (servers::free_address(), servers::free_address());
    let dir = TempDir::new();
    let mut command = Command::new(rotel);
    command.args(["start", "--exporter", "otlp", "--otlp-exporter-protocol", "http"]);
    command.args(["--otlp-exporter-endpoint", &format!("http://{address}")]);
    command.args(["--otlp-http-endpoint", &http.to_string()]);
    command.args(["--otlp-grpc-endpoint", &grpc.to_string()]);
    command.args(["--pid-file", &dir.path("rotel.pid").display().to_string()]);
    let _rotel = Server::start(command, http);
    let upstream =
        FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await;
    let keys = format!("  endpoint: http://{http}\n  segment-max-age: 20ms\n  cluster: prod\n");
    let (log, spool) = (dir.path("audit.log"), dir.path("spool"));
    let mut proxy = two_sinks(upstream.addr, &log, &spool, "otlp", &keys).start().await;
    load(&proxy, "a", 80, None).await;
    until(&proxy, "kube_audit_proxy_spool_bytes", |bytes| bytes == 0).await;
    wait_for("the events", || (collector.stored() == 160).then_some(())).await;
    assert!(proxy.stop().await.success());
    let logged: HashSet<_> = audit_log::lines(&log).iter().map(|line| key(line)).collect();
    let events: HashSet<_> = collector.events.lock().unwrap().keys().cloned().collect();
    assert_eq!(events, logged);
}
