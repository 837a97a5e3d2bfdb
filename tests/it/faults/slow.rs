//! A slow disk, simulated by a named pipe with a slow reader.

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use super::upstream;
use crate::support::proxy::Builder;
use crate::support::tally::Tally;
use crate::support::{TempDir, client};

const REQUESTS: usize = 200;

/// Sends requests to a proxy with a slow log. Returns how long they took.
async fn slow(mode: &str) -> Duration {
    let upstream = upstream().await;
    let dir = TempDir::new();
    let pipe = dir.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || {
            let mut file = std::fs::File::open(pipe).unwrap();
            let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                match file.read(&mut buffer).unwrap() {
                    0 => return String::from_utf8(text).unwrap(),
                    length => text.extend_from_slice(&buffer[..length]),
                }
                // 4 kB in 20 ms: 200 kB a second.
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let mut proxy = Builder::new(upstream.addr)
        .flag(&format!("--audit-log-mode={mode}"))
        .flag(&format!("--audit-log-path={}", pipe.display()))
        .start()
        .await;
    let sender = client::http2::<client::Short>(proxy.addr, Some("alice")).await.unwrap();
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..REQUESTS {
        let mut sender = sender.clone();
        running.spawn(async move {
            let id = format!("slow-{number}");
            let headers = [("audit-id", id.as_str())];
            let answer = client::h2_get(&mut sender, "/api/v1/pods", &headers).await.unwrap();
            assert_eq!(answer.status(), 200);
            client::whole(answer).await.unwrap();
        });
    }
    // A slow log is healthy, and does not delay health checks.
    for path in ["/livez", "/readyz"] {
        let asked = Instant::now();
        assert_eq!(client::admin(proxy.admin, path).await.unwrap().0, 200);
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    }
    running.join_all().await;
    let took = started.elapsed();
    let lost = proxy.metric(super::LOST).await as usize;
    assert!(proxy.stop().await.success());
    let text = reader.join().unwrap();
    for number in 0..REQUESTS {
        let id = format!("\"auditID\":\"slow-{number}\"");
        assert_eq!(text.lines().filter(|line| line.contains(&id)).count(), 2, "{id}");
    }
    let (requests, events) = (REQUESTS, text.lines().count());
    Tally { requests, events, refused: 0, lost }.print(&format!("slow disk, {mode}"));
    println!("  requests took {:.1} s", took.as_secs_f64());
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_log_delays_requests_that_wait_for_it_and_loses_none() {
    // 400 events of some 700 bytes, less what fits into the pipe.
    let least = Duration::from_millis(500);
    assert!(slow("blocking").await > least);
    assert!(slow("blocking-strict").await > least);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_log_delays_nobody_in_batch_mode() {
    slow("batch").await;
}
