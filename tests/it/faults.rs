//! What breaks under a log: the disk, its rights, the reader behind it; and that it heals without a
//! restart.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::http1;
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, audit_log, client, wait_for};

/// Nothing at the begin of a request tells that the log fails.
const LATE: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await
}

/// The status of a GET; None where the answer broke off.
async fn get(proxy: &Proxy, id: &str) -> Option<u16> {
    let line = format!("Audit-ID: {id}");
    let answer = http1::get(proxy.addr, Some("alice"), "/api/v1/pods", &[&line]).await;
    answer.ok().map(|answer| answer.head.status)
}

async fn metric(proxy: &Proxy, name: &str) -> u64 {
    let (_, text) = client::admin(proxy.admin, "/metrics").await.unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name}")).rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until a request passes again.
async fn recovered(proxy: &Proxy) {
    let started = Instant::now();
    while get(proxy, "recovered").await != Some(200) {
        assert!(started.elapsed() < Duration::from_secs(20), "does not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(client::admin(proxy.admin, "/readyz").await.unwrap(), (200, "ok".into()));
    assert_eq!(metric(proxy, "kube_audit_proxy_log_failing{sink=\"log\"}").await, 0);
}

fn count(log: &Path, id: &str) -> usize {
    let text = format!("\"auditID\":\"{id}\"");
    let lines = audit_log::lines(log);
    let whole = |line: &String| serde_json::from_str::<serde_json::Value>(line).is_ok();
    assert!(lines.iter().all(whole), "a line is no event:\n{lines:#?}");
    lines.iter().filter(|line| line.contains(&text)).count()
}

/// A file system of its own, in memory and small.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this user may not mount.
    fn mount(dir: &TempDir) -> Option<SmallDisk> {
        let path = dir.path("disk");
        std::fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&path);
        mount.status().is_ok_and(|status| status.success()).then_some(SmallDisk(path))
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.0.join("ballast")).unwrap();
        for size in [4096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_stops_a_strict_proxy_until_there_is_room() {
    let dir = TempDir::new();
    let Some(disk) = SmallDisk::mount(&dir) else {
        eprintln!("not run: this user may not mount");
        return;
    };
    let (upstream, log) = (upstream().await, disk.0.join("audit.log"));
    let proxy = Builder::new(upstream.addr)
        .policy(LATE)
        .flag("--audit-log-mode=blocking-strict")
        .flag("--audit-log-sync=always")
        .flag(&format!("--audit-log-path={}", log.display()))
        .start()
        .await;
    assert_eq!(get(&proxy, "before").await, Some(200));
    disk.fill();
    // The last block of the file may have room for some more. Then an answer breaks off.
    let mut passed = 0;
    while get(&proxy, &format!("last-{passed}")).await == Some(200) {
        passed += 1;
        assert!(passed < 100, "a full disk is noticed");
    }
    // From then on nothing is forwarded any more.
    let forwarded = upstream.seen().len();
    let (code, reason) = client::admin(proxy.admin, "/readyz").await.unwrap();
    assert_eq!(code, 500);
    assert!(reason.contains("audit-log failed: cannot write to the audit log"), "{reason}");
    for number in 0..20 {
        assert_eq!(get(&proxy, &format!("refused-{number}")).await, Some(500));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(upstream.seen().len(), forwarded);
    assert_eq!(metric(&proxy, "apiserver_audit_requests_rejected_total").await, 20);
    assert_eq!(metric(&proxy, "kube_audit_proxy_log_failing{sink=\"log\"}").await, 1);
    assert_eq!(metric(&proxy, "apiserver_audit_error_total{plugin=\"log\"}").await, 1);
    disk.empty();
    recovered(&proxy).await;
    assert_eq!(count(&log, "before"), 1);
    (0..passed).for_each(|number| assert_eq!(count(&log, &format!("last-{number}")), 1));
    assert_eq!(count(&log, "recovered"), 1);
}

#[tokio::test]
async fn a_log_that_may_no_longer_be_written_is_one_again_when_it_may() {
    let upstream = upstream().await;
    let mut proxy = Builder::new(upstream.addr).flag("--audit-log-sync=interval").start().await;
    let change = |attribute: &str| {
        let changed = Command::new("chattr").arg(attribute).arg(&proxy.log).output();
        changed.is_ok_and(|output| output.status.success())
    };
    assert_eq!(get(&proxy, "before").await, Some(200));
    if !change("+i") {
        eprintln!("not run: this user or this file system has no immutable files");
        return;
    }
    let code = get(&proxy, "lost").await;
    let ready = client::admin(proxy.admin, "/readyz").await;
    assert!(change("-i"), "the file can be removed again");
    assert_eq!(code, Some(200), "a blocking proxy goes on");
    let (code, reason) = ready.unwrap();
    assert_eq!(code, 500);
    assert!(reason.contains("Operation not permitted"), "{reason}");
    assert_eq!(metric(&proxy, "apiserver_audit_error_total{plugin=\"log\"}").await, 2);
    recovered(&proxy).await;
    assert!(proxy.stop().await.success());
    let counts = ["before", "lost", "recovered"].map(|id| count(&proxy.log, id));
    assert_eq!(counts, [2, 0, 2]);
}

#[tokio::test]
async fn a_folder_that_is_removed_is_made_anew_and_loses_nothing_more() {
    let upstream = upstream().await;
    let dir = TempDir::new();
    let log = dir.path("logs/audit.log");
    let proxy = Builder::new(upstream.addr)
        .flag("--audit-log-mode=blocking-strict")
        .flag(&format!("--audit-log-path={}", log.display()))
        .start()
        .await;
    assert_eq!(get(&proxy, "before").await, Some(200));
    std::fs::remove_dir_all(dir.path("logs")).unwrap();
    // Written to a file without a name, and copied from it.
    assert_eq!(get(&proxy, "between").await, Some(200));
    wait_for("a new log", || log.exists().then_some(())).await;
    assert_eq!(get(&proxy, "after").await, Some(200));
    assert_eq!(["between", "after"].map(|id| count(&log, id)), [2, 2]);
}

/// A disk that is slow looks like a pipe whose reader is: a write takes as long as it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_log_delays_requests_and_loses_none() {
    const REQUESTS: usize = 200;
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
                std::thread::sleep(Duration::from_millis(5));
            }
        })
    };
    let mut proxy = Builder::new(upstream.addr)
        .flag("--audit-log-mode=blocking-strict")
        .flag(&format!("--audit-log-path={}", pipe.display()))
        .start()
        .await;
    let sender = client::http2::<client::Short>(proxy.addr, Some("alice")).await.unwrap();
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
    // The log is slow, health is not.
    let asked = Instant::now();
    assert_eq!(client::admin(proxy.admin, "/livez").await.unwrap().0, 200);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    running.join_all().await;
    assert!(proxy.stop().await.success());
    let text = reader.join().unwrap();
    for number in 0..REQUESTS {
        let id = format!("\"auditID\":\"slow-{number}\"");
        assert_eq!(text.lines().filter(|line| line.contains(&id)).count(), 2, "{id}");
    }
}
