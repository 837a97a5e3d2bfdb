//! A spool whose disk fails, whose files are damaged, or that two proxies try to use.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use serde_json::Value;

use crate::support::client::{self, Short};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{DEADLINE, TempDir, wait_for};
use crate::webhook::{SPOOL, Taken, arrived, kubeconfig, taker};

const LOST: &str = "apiserver_audit_error_total{plugin=\"webhook\"}";
const BUFFERED: &str = "apiserver_audit_error_total{plugin=\"buffered\"}";
const REJECTED_EVENTS: &str = "kube_audit_proxy_spool_rejected_events_total{backend=\"webhook\"}";
const REJECTED_FILES: &str = "kube_audit_proxy_spool_rejected_files{backend=\"webhook\"}";
const REJECTED_BYTES: &str = "kube_audit_proxy_spool_rejected_bytes{backend=\"webhook\"}";

async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

fn spooling(upstream: &FakeUpstream, config: &str, spool: &Path) -> Builder {
    Builder::new(upstream.addr)
        .flag(config)
        .flag("--audit-webhook-initial-backoff=20ms")
        .flag("--audit-webhook-batch-max-size=5")
        .flag("--audit-webhook-batch-max-wait=20ms")
        .flag("--audit-webhook-batch-throttle-enable=false")
        .flag(&format!("--audit-webhook-spool-dir={}", spool.display()))
}

/// Sends the requests `spool-NUMBER` over one connection.
async fn load(
    sender: &mut hyper::client::conn::http2::SendRequest<Short>,
    numbers: std::ops::Range<usize>,
) {
    for number in numbers {
        let id = format!("spool-{number}");
        let answer = client::h2_get(sender, "/api/v1/pods", &[("audit-id", &id)]).await.unwrap();
        assert_eq!(answer.status(), 200, "{id}");
        client::whole(answer).await.unwrap();
    }
}

async fn connect(proxy: &Proxy) -> hyper::client::conn::http2::SendRequest<Short> {
    client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap()
}

async fn until(proxy: &Proxy, name: &str, value: u64) {
    let started = Instant::now();
    while proxy.metric(name).await != value {
        assert!(started.elapsed() < DEADLINE, "{name} does not become {value}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn files(spool: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(spool) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

/// Sets the limit of open files of a running process.
fn limit_files(proxy: &Proxy, soft: &str) {
    let pid = proxy.process.id().to_string();
    let limit = format!("--nofile={soft}:");
    let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(set.unwrap().success());
}

/// Neither reading nor writing works for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lack_of_descriptors_for_a_while_loses_nothing() {
    const EACH: usize = 60;
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http2, taker(&taken)).await;
    let spool = dir.path("spool");
    let mut proxy = spooling(&upstream, &kubeconfig(&dir, receiver.addr), &spool).start().await;
    let mut sender = connect(&proxy).await;
    load(&mut sender, 0..EACH).await;
    until(&proxy, SPOOL, 0).await;
    limit_files(&proxy, "3");
    load(&mut sender, EACH..2 * EACH).await;
    let said = || proxy.process.stderr();
    wait_for("the failure", || {
        said().contains("cannot write to the webhook's spool").then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(arrived(&taken, "spool-", 3 * EACH)[2 * EACH - 1], 0, "it does fail");
    limit_files(&proxy, "4096");
    load(&mut sender, 2 * EACH..3 * EACH).await;
    until(&proxy, SPOOL, 0).await;
    wait_for("everything", || {
        arrived(&taken, "spool-", 3 * EACH).iter().all(|&count| count == 2).then_some(())
    })
    .await;
    assert_eq!(proxy.metric(LOST).await + proxy.metric(BUFFERED).await, 0);
    assert!(said().contains("is healthy again"), "{}", said());
    assert!(proxy.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_vanishes_is_created_again_and_what_was_in_it_is_counted() {
    const EACH: usize = 50;
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http1, taker(&taken)).await;
    let addr = receiver.addr;
    receiver.stop().await;
    let spool = dir.path("spool");
    let mut proxy = spooling(&upstream, &kubeconfig(&dir, addr), &spool).start().await;
    let mut sender = connect(&proxy).await;
    load(&mut sender, 0..EACH).await;
    let pending = || {
        let names = files(&spool, "json").into_iter();
        let events = names.map(|path| {
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            stem.rsplit_once('-').unwrap().1.parse::<usize>().unwrap()
        });
        events.sum::<usize>()
    };
    wait_for("all events", || (pending() == 2 * EACH).then_some(())).await;
    std::fs::remove_dir_all(&spool).unwrap();
    load(&mut sender, EACH..2 * EACH).await;
    wait_for("the new events", || (pending() == 2 * EACH).then_some(())).await;
    let _receiver = FakeUpstream::start_on(addr, Protocols::Http1, taker(&taken)).await;
    until(&proxy, SPOOL, 0).await;
    let arrived = arrived(&taken, "spool-", 2 * EACH);
    assert!(arrived[EACH..].iter().all(|&count| count == 2), "{arrived:?}");
    let lost = proxy.metric(LOST).await as usize;
    assert_eq!(arrived.iter().sum::<usize>() + lost, 4 * EACH, "{arrived:?}");
    assert!(lost > 0);
    assert!(proxy.stop().await.success());
    proxy.process.logs("was deleted before the webhook endpoint accepted it").await;
    proxy.process.logs("was deleted or moved; it was created again").await;
}

#[tokio::test]
async fn a_spool_has_one_owner_however_its_path_is_spelled() {
    let (upstream, dir) = (upstream().await, TempDir::new());
    let config = kubeconfig(&dir, "127.0.0.1:1".parse().unwrap());
    let spool = dir.path("spool");
    let mut first = spooling(&upstream, &config, &spool).start().await;
    std::os::unix::fs::symlink(&spool, dir.path("link")).unwrap();
    for same in ["spool", "spool/../spool", "link"] {
        let (code, said) = spooling(&upstream, &config, &dir.path(same)).run_to_end().await;
        assert_eq!(code, Some(1), "{same}: {said}");
        assert!(said.contains("--audit-webhook-spool-dir: "), "{said}");
        assert!(said.contains("is in use: another process, or another backend"), "{said}");
    }
    assert!(first.stop().await.success());
    let mut next = spooling(&upstream, &config, &spool).start().await;
    assert!(next.stop().await.success());
}

/// Fills a spool with events of `count` requests. Returns its batches.
async fn filled(upstream: &FakeUpstream, config: &str, spool: &Path, count: usize) -> Vec<PathBuf> {
    let mut proxy = spooling(upstream, config, spool).start().await;
    load(&mut connect(&proxy).await, 0..count).await;
    assert!(proxy.stop().await.success());
    files(spool, "json")
}

#[tokio::test]
async fn a_flipped_bit_is_set_aside_and_counted_and_files_of_earlier_versions_are_sent() {
    const COUNT: usize = 20;
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http1, taker(&taken)).await;
    let (addr, spool) = (receiver.addr, dir.path("spool"));
    receiver.stop().await;
    let config = kubeconfig(&dir, addr);
    let batches = filled(&upstream, &config, &spool, COUNT).await;
    assert!(batches.len() >= 4, "{batches:?}");
    let events = |path: &Path| {
        let list: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        list["items"].as_array().unwrap().len()
    };
    let damaged = events(&batches[1]);
    let mut content = std::fs::read(&batches[1]).unwrap();
    // Changes a digit of an ID, so that the batch is still valid JSON.
    let at = content.windows(6).position(|bytes| bytes == b"spool-").unwrap() + 6;
    content[at] ^= 1;
    std::fs::write(&batches[1], &content).unwrap();
    // A name of an earlier version.
    let name = batches[2].file_name().unwrap().to_str().unwrap();
    let (number, rest) = name.split_once('.').unwrap();
    let old = format!("{number}-{}", rest.split_once('-').unwrap().1);
    std::fs::rename(&batches[2], spool.join(old)).unwrap();
    // Entries that only have the name of a batch.
    std::fs::create_dir(spool.join("00000000000000000900-5.json")).unwrap();
    std::fs::write(spool.join("00000000000000000901-5.json"), "not a list").unwrap();
    let pipe = spool.join("00000000000000000902-5.json");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());

    let _receiver = FakeUpstream::start_on(addr, Protocols::Http1, taker(&taken)).await;
    let mut proxy = spooling(&upstream, &config, &spool).start().await;
    until(&proxy, SPOOL, 0).await;
    let arrived: usize = arrived(&taken, "spool-", COUNT).iter().sum();
    assert_eq!(arrived, 2 * COUNT - damaged);
    for metric in [LOST, REJECTED_EVENTS] {
        assert_eq!(proxy.metric(metric).await, damaged as u64, "{metric}");
    }
    assert_eq!(proxy.metric(REJECTED_FILES).await, 1);
    assert_eq!(proxy.metric(REJECTED_BYTES).await, content.len() as u64);
    let rejected = files(&spool, "rejected");
    assert_eq!(rejected.len(), 1);
    assert_eq!(std::fs::read(&rejected[0]).unwrap(), content);
    assert!(proxy.stop().await.success());
    proxy.process.logs("its checksum does not match").await;
    let said = proxy.process.stderr();
    assert_eq!(said.matches("00000000000000000900-5.json").count(), 1, "{said}");
    assert_eq!(said.matches("00000000000000000901-5.json").count(), 1, "{said}");
    assert!(spool.join("00000000000000000901-5.json").exists(), "it is not ours");

    // It is listed at the next start.
    let mut proxy = spooling(&upstream, &config, &spool).start().await;
    assert_eq!(proxy.metric(REJECTED_FILES).await, 1);
    assert!(proxy.stop().await.success());
}

#[tokio::test]
async fn a_list_that_is_too_large_is_halved_and_only_what_is_too_large_alone_is_set_aside() {
    const COUNT: usize = 20;
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http1, taker(&taken)).await;
    let (addr, spool) = (receiver.addr, dir.path("spool"));
    receiver.stop().await;
    let config = kubeconfig(&dir, addr);
    let batches = filled(&upstream, &config, &spool, COUNT).await;
    let before = batches.len();
    // Accepts at most two events; that of spool-7 is rejected even alone.
    let take = taken.clone();
    let _receiver = FakeUpstream::start_on(addr, Protocols::Http1, move |request| {
        let take = take.clone();
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            let list: Value = serde_json::from_slice(&body)?;
            let items = list["items"].as_array().ok_or("no items")?;
            let refused = items.iter().any(|item| item["auditID"] == "spool-7");
            if items.len() > 2 || refused {
                return json(413, "too large");
            }
            take.lock().unwrap().push(list);
            json(200, "")
        }
    })
    .await;
    let mut proxy = spooling(&upstream, &config, &spool).start().await;
    until(&proxy, SPOOL, 0).await;
    let arrived = arrived(&taken, "spool-", COUNT);
    let expected: Vec<_> = (0..COUNT).map(|number| if number == 7 { 0 } else { 2 }).collect();
    assert_eq!(arrived, expected, "{before} batches");
    assert_eq!(proxy.metric(LOST).await, 2);
    assert_eq!(proxy.metric(REJECTED_EVENTS).await, 2);
    let rejected = files(&spool, "rejected");
    let texts: Vec<_> = rejected.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    let refused: usize = texts.iter().map(|text| text.matches("\"spool-7\"").count()).sum();
    assert_eq!((refused, texts.concat().matches("auditID").count()), (2, 2), "{texts:?}");
    assert!(proxy.stop().await.success());
}

#[tokio::test]
async fn rejected_batches_take_half_of_the_spool_and_are_never_overwritten() {
    let (upstream, dir) = (upstream().await, TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http1, |_| async { json(413, "") }).await;
    let spool = dir.path("spool");
    let start = || {
        spooling(&upstream, &kubeconfig(&dir, receiver.addr), &spool)
            .flag("--audit-webhook-spool-max-size=1")
            .flag("--audit-webhook-batch-max-size=1")
            .start()
    };
    let padding = format!("/api/v1/pods?padding={}", "p".repeat(40_000));
    let mut kept = Vec::new();
    for round in 0..2_u64 {
        let mut proxy = start().await;
        let mut sender = connect(&proxy).await;
        for number in 0..10 {
            let id = format!("aside-{round}-{number}");
            let answer = client::h2_get(&mut sender, &padding, &[("audit-id", &id)]).await.unwrap();
            assert_eq!(answer.status(), 200);
        }
        until(&proxy, REJECTED_EVENTS, 20).await;
        until(&proxy, SPOOL, 0).await;
        assert_eq!(proxy.metric(LOST).await, 20);
        let files: Vec<_> = files(&spool, "rejected")
            .into_iter()
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
        assert!(bytes <= 512 << 10, "{bytes}");
        assert_eq!(proxy.metric(REJECTED_BYTES).await, bytes as u64);
        assert_eq!(proxy.metric(REJECTED_FILES).await, files.len() as u64);
        assert!(kept.iter().all(|known| files.contains(known)), "none is overwritten or deleted");
        kept = files;
        assert!(proxy.stop().await.success());
        let said = proxy.process.stderr();
        assert!(said.contains("rejected events to ") || round > 0, "{said}");
        assert!(said.contains("that was rejected: ") || round == 0, "{said}");
    }
    assert!(kept.len() > 5, "{}", kept.len());
}
