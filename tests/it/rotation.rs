//! Rotation under full load: wherever the log is rotated, each event is in one file, once, and in
//! order.
//!
//! `ROTATION_EVENTS=1000000` runs longer.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::support::client::{self, Short};
use crate::support::proxy::{BINARY, Builder, Proxy};
use crate::support::tally::Tally;
use crate::support::upstream::{FakeUpstream, Protocols, json};

/// Requests in flight at a time.
const STREAMS: usize = 64;
/// Padding in bytes, so that there are many files of 1 MB.
const PADDING: usize = 2_500;

/// Returns 8,000, or the value of `ROTATION_EVENTS`.
fn events() -> usize {
    std::env::var("ROTATION_EVENTS").map_or(8_000, |text| text.parse().unwrap())
}

/// Sends `count` requests with the IDs `load-NUMBER`, over a few connections.
async fn load(proxy: &Proxy, count: usize) {
    let mut running = JoinSet::new();
    for stream in 0..STREAMS {
        let (addr, padding) = (proxy.addr, "p".repeat(PADDING));
        running.spawn(async move {
            let mut sender = client::http2::<Short>(addr, Some("alice")).await.unwrap();
            let target = format!("/api/v1/pods?padding={padding}");
            for number in (stream..count).step_by(STREAMS) {
                let id = format!("load-{number}");
                let answer = client::h2_get(&mut sender, &target, &[("audit-id", &id)]).await;
                let answer = answer.unwrap();
                assert_eq!(answer.status(), 200);
                client::whole(answer).await.unwrap();
            }
        });
    }
    running.join_all().await;
}

/// Returns the rotated files in the order of their names, which is that of time, and the log
/// itself.
fn files(log: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(log.parent().unwrap()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("audit-") && (name.ends_with(".log") || name.ends_with(".log.gz"))
    };
    let mut files: Vec<PathBuf> = paths.filter(named).collect();
    files.sort();
    files.push(log.to_owned());
    let plain = |path: &PathBuf| path.display().to_string().trim_end_matches(".gz").to_owned();
    let distinct: HashSet<_> = files.iter().map(plain).collect();
    assert_eq!(distinct.len(), files.len(), "a file is there both plain and compressed");
    files
}

fn lines(path: &Path) -> Box<dyn BufRead> {
    let file = File::open(path).unwrap();
    match path.extension() {
        Some(extension) if extension == "gz" => Box::new(BufReader::new(MultiGzDecoder::new(file))),
        _ => Box::new(BufReader::new(file)),
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: &'a str,
}

/// Reads all files in order, and checks that each event occurs once and in order. Returns the
/// number of events.
fn each_once_in_order(files: &[PathBuf], requests: usize) -> usize {
    // The number of stages of each request that were found.
    let mut seen = vec![0_u8; requests];
    let mut events = 0;
    for path in files {
        let mut reader = lines(path);
        let mut text = String::new();
        while reader.read_line(&mut text).unwrap() > 0 {
            let line: Line<'_> = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}: {text}", path.display()));
            let number = line.audit_id.strip_prefix("load-").unwrap().parse::<usize>().unwrap();
            let next = ["RequestReceived", "ResponseComplete"].get(usize::from(seen[number]));
            assert_eq!(next, Some(&line.stage), "{}: {}", path.display(), line.audit_id);
            seen[number] += 1;
            events += 1;
            text.clear();
        }
    }
    let missing: Vec<_> = (0..requests).filter(|&number| seen[number] != 2).take(10).collect();
    assert!(missing.is_empty(), "events of these are missing: {missing:?}");
    events
}

async fn rotates(mode: &str, more: &[&str]) -> Proxy {
    let requests = events() / 2;
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    let mut builder = Builder::new(upstream.addr)
        .flag(&format!("--audit-log-mode={mode}"))
        .flag("--audit-log-maxsize=1")
        .flag("--audit-log-maxbackup=0")
        // Batch mode may drop events if the queue is full; here it must not be.
        .flag("--audit-log-batch-buffer-size=2000000");
    for flag in more {
        builder = builder.flag(flag);
    }
    let mut proxy = builder.start().await;
    let started = Instant::now();
    tokio::select! {
        () = load(&proxy, requests) => {}
        // Storing a million requests would take too much memory.
        () = forgets(&upstream) => {}
    }
    let took = started.elapsed();
    let rotations = proxy.metric("kube_audit_proxy_log_rotations_total{backend=\"log\"}").await;
    assert!(proxy.stop().await.success());
    let files = files(&proxy.log);
    let compressed =
        files.iter().filter(|path| path.extension().is_some_and(|e| e == "gz")).count();
    let events = each_once_in_order(&files, requests);
    let is_sealed = more.contains(&"--audit-log-seal");
    Tally { requests, events, ..Tally::default() }
        .print(&format!("rotation, {mode}{}", if is_sealed { ", sealed" } else { "" }));
    println!(
        "  {rotations} rotations, {compressed} of {} files compressed, {:.1} s, {:.0} events/s",
        files.len(),
        took.as_secs_f64(),
        events as f64 / took.as_secs_f64()
    );
    assert!(files.len() as u64 > rotations, "{} files", files.len());
    assert!(rotations >= 20, "{rotations} rotations only");
    let compresses = more.contains(&"--audit-log-compress");
    assert_eq!(compressed > 0, compresses, "{compressed} compressed files");
    proxy
}

async fn forgets(upstream: &FakeUpstream) {
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        upstream.take_seen();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_in_one_of_the_files_and_in_order() {
    rotates("blocking", &["--audit-log-compress"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_batch_mode_too() {
    rotates("batch", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_and_synced_files_are_intact_after_rotations() {
    let dir = crate::support::TempDir::new();
    let key = dir.path("key.pem");
    let keygen = std::process::Command::new(BINARY).args(["log", "keygen"]).arg(&key).output();
    assert!(keygen.unwrap().status.success());
    let seal = format!("--audit-log-seal-key-file={}", key.display());
    let flags = ["--audit-log-compress", "--audit-log-sync=always", "--audit-log-seal", &seal];
    let proxy = rotates("blocking-strict", &flags).await;
    let mut verify = std::process::Command::new(BINARY);
    let verify = verify.args(["log", "verify", "--public-key"]).arg(dir.path("key.pem.pub"));
    let output = verify.arg(&proxy.log).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    println!("  {}", text.lines().last().unwrap_or(""));
    assert!(output.status.success() && text.contains("intact: "), "{text}");
    assert!(!text.contains("warning"), "{text}");
}
