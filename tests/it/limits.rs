//! The behavior of the process at its resource limits.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use crate::support::http1::{self, Connection};
use crate::support::proxy::{BINARY, Builder};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, client, corpus, in_time, wait_for};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";

async fn ok_upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

#[tokio::test]
async fn connections_beyond_the_cap_are_reset_and_counted() {
    let upstream = ok_upstream().await;
    let proxy = Builder::new(upstream.addr).flag("--max-connections=2").start().await;
    let mut first = Connection::open(proxy.addr, Some("alice")).await.unwrap();
    let second = Connection::open(proxy.addr, Some("alice")).await.unwrap();
    for _ in 0..5 {
        // The reset can arrive before `connect` returns.
        let error = match tokio::net::TcpStream::connect(proxy.addr).await {
            Ok(mut third) => in_time("the reset", third.read(&mut [0; 1])).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!(proxy.metric("kube_audit_proxy_connections_refused_total").await, 5);
    let said = proxy.process.logs("--max-connections").await;
    assert_eq!(said.matches("--max-connections").count(), 1, "one line in ten seconds: {said}");
    first.send(&http1::request("GET", TARGET, &[], b"")).await.unwrap();
    assert_eq!(first.answer("GET").await.unwrap().head.status, 200, "those that are open go on");
    drop(second);
    let start = Instant::now();
    while Connection::open(proxy.addr, Some("alice")).await.is_err() {
        assert!(start.elapsed() < crate::support::DEADLINE, "never accepted again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs `serve` after a shell command that lowers a limit. Returns exit code and standard error.
fn limited(dir: &TempDir, limit: &str) -> (Option<i32>, String) {
    let pki = |name: &str| corpus::pki(name).display().to_string();
    let policy = dir.write("policy.yaml", crate::support::proxy::METADATA);
    let command = format!(
        "{limit}; exec {BINARY} serve --bind-address=127.0.0.1 --secure-port=0 \
         --admin-bind-address=127.0.0.1:0 --tls-cert-file={} --tls-private-key-file={} \
         --audit-policy-file={} --audit-log-path={} --upstream-server=http://127.0.0.1:1",
        pki("proxy.crt"),
        pki("proxy.key"),
        policy.display(),
        dir.path("audit.log").display(),
    );
    let output = Command::new("timeout")
        .args(["20", "sh", "-c", &command])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn too_few_descriptors_are_an_error_at_the_start() {
    for limit in [4, 8, 12, 20, 40] {
        let (code, said) = limited(&TempDir::new(), &format!("ulimit -n {limit}"));
        assert_eq!(code, Some(1), "{limit}: {said}");
        assert!(!said.contains("panicked"), "{limit}: {said}");
        if limit >= 8 {
            assert!(said.contains("ulimit -n"), "{limit}: {said}");
        }
    }
}

#[test]
fn too_few_threads_are_an_error_at_the_start() {
    // The limit does not apply to root, so the test switches to another user; other users share
    // theirs among all their processes.
    if !rustix::process::geteuid().is_root() || Command::new("setpriv").arg("-h").output().is_err()
    {
        eprintln!("skipped: not root, or no setpriv");
        return;
    }
    let dir = TempDir::new();
    let policy = dir.write("policy.yaml", crate::support::proxy::METADATA);
    let readable = Command::new("setpriv")
        .args(["--reuid=64321", "--clear-groups", "--inh-caps=-all", BINARY, "--version"])
        .output()
        .unwrap();
    if !readable.status.success() {
        eprintln!("skipped: others may not run the program here");
        return;
    }
    for limit in [1, 2, 4, 8] {
        let output = Command::new("timeout")
            .args(["20", "prlimit", &format!("--nproc={limit}"), "setpriv", "--reuid=64321"])
            .args(["--clear-groups", "--inh-caps=-all", BINARY, "serve", "--secure-port=0"])
            .arg(format!("--audit-policy-file={}", policy.display()))
            .args(["--audit-log-path=-", "--upstream-server=http://127.0.0.1:1"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{limit}: {said}");
        assert!(said.contains("ulimit -u") && !said.contains("panicked"), "{limit}: {said}");
    }
}

#[tokio::test]
async fn a_delayed_shutdown_is_not_ready_but_still_serves() {
    let upstream = ok_upstream().await;
    let mut proxy = Builder::new(upstream.addr).flag("--shutdown-delay-duration=2s").start().await;
    assert_eq!(client::admin(proxy.admin, "/readyz").await.unwrap().0, 200);
    let start = Instant::now();
    proxy.process.signal("TERM");
    while client::admin(proxy.admin, "/readyz").await.unwrap().0 == 200 {
        assert!(start.elapsed() < Duration::from_secs(2), "still ready");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (_, said) = client::admin(proxy.admin, "/readyz").await.unwrap();
    assert!(said.contains("[-]shutdown failed: process is shutting down"), "{said}");
    assert_eq!(client::admin(proxy.admin, "/livez").await.unwrap().0, 200);
    let answer = http1::get(proxy.addr, Some("alice"), TARGET, &["Audit-ID: late"]).await.unwrap();
    assert_eq!(answer.head.status, 200);
    assert!(start.elapsed() < Duration::from_secs(2), "this machine is too slow to tell");
    assert_eq!(proxy.process.wait().await.code(), Some(0));
    assert!(start.elapsed() >= Duration::from_secs(2), "did not wait");
    assert_eq!(proxy.audit_log().of("late").len(), 2);
}

#[tokio::test]
async fn a_second_signal_ends_the_delay() {
    let upstream = ok_upstream().await;
    let mut proxy = Builder::new(upstream.addr).flag("--shutdown-delay-duration=60s").start().await;
    proxy.process.signal("TERM");
    wait_for("the delay", || {
        proxy.process.stderr().contains("shutting down after the delay").then_some(())
    })
    .await;
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.wait().await.code(), Some(0), "{}", proxy.process.stderr());
}

#[tokio::test]
async fn a_policy_written_all_the_time_is_loaded_within_two_seconds() {
    let upstream = ok_upstream().await;
    let proxy = Builder::new(upstream.addr).start().await;
    let end = Instant::now() + Duration::from_secs(5);
    let path = proxy.policy.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut count = 1;
        while Instant::now() < end {
            count = count % 40 + 1;
            let rules = "- level: Metadata\n".repeat(count);
            let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n";
            std::fs::write(&path, format!("{head}{rules}")).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    writing.await.unwrap();
    let reloads = "kube_audit_proxy_reloads_total{file=\"policy\",result=\"success\"}";
    assert!(proxy.metric(reloads).await >= 2, "{}", proxy.process.stderr());
    proxy.process.logs("changes continuously").await;
    proxy.process.logs("audit policy reloaded").await;
}
