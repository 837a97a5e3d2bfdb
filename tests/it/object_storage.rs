//! The backend `s3` against a real server, SeaweedFS (`tests/servers/install.sh`): `kill -9` of the
//! proxy and of the server.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::support::TempDir;
use crate::support::delivery::{EventKey, check_complete, key, load};
use crate::support::proxy::Builder;
use crate::support::seaweed::{KEY, PATIENCE, SECRET, Server, weed};
use crate::support::upstream::{FakeUpstream, Protocols, json};

/// Each has two events.
const REQUESTS: usize = 10_000;

/// Gets a path of the server's file store, which needs no signature.
async fn fetch(server: &Server, path: &str) -> (u16, Bytes) {
    let filer = ("127.0.0.1", server.ports[2]);
    let stream = tokio::net::TcpStream::connect(filer).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("host", "filer")
        .header("accept", "application/json")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

/// All objects below a directory.
pub(crate) async fn objects(server: &Server, root: &str) -> Vec<(String, Bytes)> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        let (status, list) = fetch(server, &format!("{dir}/?limit=100000")).await;
        if status == 404 {
            continue;
        }
        let list: Value = serde_json::from_slice(&list).unwrap();
        for entry in list["Entries"].as_array().into_iter().flatten() {
            let path = entry["FullPath"].as_str().unwrap().to_owned();
            if path.ends_with(".json.zst") || path.ends_with(".parquet") {
                let (status, object) = fetch(server, &path).await;
                assert_eq!(status, 200, "{path}");
                found.push((path, object));
            } else {
                open.push(path);
            }
        }
    }
    found
}

/// Returns how often each event is in the bucket, by audit ID and stage.
async fn stored(server: &Server) -> HashMap<EventKey, u32> {
    let mut events = HashMap::new();
    for (path, object) in objects(server, "/buckets/audit/logs").await {
        assert!(path.contains("/logs/cluster=prod/date=20") && path.contains("/hour="), "{path}");
        let text = String::from_utf8(zstd::decode_all(&object[..]).unwrap()).unwrap();
        for line in text.lines() {
            *events.entry(key(line)).or_default() += 1;
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_proxy_and_server_are_killed() {
    let Some(weed) = weed() else { return };
    let dir = TempDir::new();
    let mut server = Server::start(weed, &dir.path("seaweed"));
    server.create_bucket().await;
    let upstream =
        FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await;
    let (log, spool) = (dir.path("audit.log"), dir.path("spool"));
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";
    let start = || {
        let builder = Builder::new(upstream.addr)
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("AWS_REGION", "us-east-1");
        builder.dir().write("all.yaml", policy);
        let policy = builder.dir().path("all.yaml");
        let (policy, endpoint) = (policy.display(), server.endpoint());
        let sinks = format!(
            "\
             - {{name: file, type: file, policy-file: {policy}, path: {}, mode: blocking}}\n\
             - name: bucket\n  type: s3\n  policy-file: {policy}\n  url: s3://audit/logs\n  \
               endpoint: {endpoint}\n  allow-http: true\n  cluster: prod\n  node: proxy-0\n  \
               format: ndjson\n  mode: blocking\n  segment-max-size: 1\n  segment-max-age: 1s\n  \
               spool-dir: {}\n",
            log.display(),
            spool.display()
        );
        builder.sinks(&sinks)
    };
    let first = start();
    let second = start();
    let third = start();
    let mut proxy = first.start().await;
    let mut answered = load(&proxy, "a", REQUESTS / 2, Some(REQUESTS / 4)).await;
    proxy.process.wait().await;
    drop(proxy);

    server.kill();
    let proxy = second.start().await;
    answered.extend(load(&proxy, "b", REQUESTS / 2, None).await);
    let healthy = "kube_audit_proxy_delivery_healthy{backend=\"bucket\"}";
    let started = Instant::now();
    while proxy.metric(healthy).await == 1 {
        assert!(started.elapsed() < PATIENCE, "the server is down");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut proxy = proxy;
    proxy.process.signal("KILL");
    proxy.process.wait().await;
    drop(proxy);

    server.restart();
    server.create_bucket().await;
    let mut proxy = third.start().await;
    // Some more requests, because those in flight had no response when the first proxy was killed.
    answered.extend(load(&proxy, "c", REQUESTS / 4 + 100, None).await);
    let started = Instant::now();
    while proxy.metric("kube_audit_proxy_spool_bytes{backend=\"bucket\"}").await > 0 {
        assert!(started.elapsed() < PATIENCE, "{}", proxy.process.stderr());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(proxy.stop().await.success());

    let stored = stored(&server).await;
    assert!(answered.len() >= REQUESTS, "{}", answered.len());
    check_complete(&answered, &log, &stored, &proxy);
    let repeated = stored.values().filter(|count| **count > 1).count();
    println!("{} events, {repeated} of them more than once", stored.len());
}
