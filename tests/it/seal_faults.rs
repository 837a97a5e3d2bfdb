//! A sealed, strict, rotated and compressed log with many `kill -9`, a deleted seal, a second
//! proxy, and rotated files from the future: tampering is reported if and only if it happened.
//!
//! `CRASH_ROUNDS=50` runs longer. The unit tests of `audit_log::seal` change the clock.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::client::{self, Short};
use crate::support::http1;
use crate::support::proxy::{BINARY, Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, wait_for};

const CLIENTS: usize = 8;

/// Returns 6, or the value of `CRASH_ROUNDS`.
fn rounds() -> usize {
    std::env::var("CRASH_ROUNDS").map_or(6, |text| text.parse().unwrap())
}

async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await
}

/// A directory with a key and a log.
struct Sealed {
    dir: TempDir,
    log: PathBuf,
}

impl Sealed {
    fn new() -> Sealed {
        let dir = TempDir::new();
        let key = dir.path("key.pem");
        let output = Command::new(BINARY).args(["log", "keygen"]).arg(key).output().unwrap();
        assert!(output.status.success());
        std::fs::create_dir(dir.path("logs")).unwrap();
        let log = dir.path("logs/audit.log");
        Sealed { dir, log }
    }

    fn builder(&self, upstream: &FakeUpstream) -> Builder {
        Builder::new(upstream.addr)
            .flag("--audit-log-mode=blocking-strict")
            .flag("--audit-log-maxsize=1")
            .flag("--audit-log-seal")
            .flag(&format!("--audit-log-path={}", self.log.display()))
            .flag(&format!("--audit-log-seal-key-file={}", self.dir.path("key.pem").display()))
    }

    /// Runs `log verify`: exit code and output.
    fn verify(&self) -> (i32, String) {
        verify(&["--public-key", self.dir.path("key.pem.pub").to_str().unwrap()], &self.log)
    }

    fn is_innocent(&self, when: &str) {
        let (code, text) = self.verify();
        assert_eq!(code, 0, "{when}:\n{text}");
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path("logs")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path("logs").join(name)
    }
}

fn verify(arguments: &[&str], log: &Path) -> (i32, String) {
    let mut command = Command::new(BINARY);
    let output = command.args(["log", "verify"]).args(arguments).arg(log).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

async fn get(proxy: &Proxy, id: &str) -> Option<u16> {
    let line = format!("Audit-ID: {id}");
    let answer = http1::get(proxy.addr, Some("alice"), "/api/v1/pods", &[&line]).await;
    answer.ok().map(|answer| answer.head.status)
}

/// Sends requests with long events, until the proxy was killed or `enough` of them had a response.
async fn load(proxy: &Proxy, name: &str, enough: usize, kill: bool) -> Vec<String> {
    let answered = Arc::new(Mutex::new(Vec::new()));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (addr, answered, name) = (proxy.addr, answered.clone(), name.to_owned());
        clients.spawn(async move {
            let Ok(mut sender) = client::http2::<Short>(addr, Some("alice")).await else { return };
            let target = format!("/api/v1/pods?padding={}", "p".repeat(7_000));
            for number in 0.. {
                if !kill && answered.lock().unwrap().len() >= enough {
                    return;
                }
                let id = format!("{name}-{client}-{number}");
                let answer = client::h2_get(&mut sender, &target, &[("audit-id", &id)]).await;
                let Ok(answer) = answer else { return };
                assert_eq!(answer.status(), 200);
                if client::whole(answer).await.is_err() {
                    return;
                }
                answered.lock().unwrap().push(id);
            }
        });
    }
    let count = || (answered.lock().unwrap().len() >= enough).then_some(());
    wait_for("answers", count).await;
    if kill {
        proxy.process.signal("KILL");
    }
    clients.join_all().await;
    std::mem::take(&mut *answered.lock().unwrap())
}

/// Returns the IDs of requests whose events are complete, in all existing files.
fn recorded(sealed: &Sealed) -> HashSet<String> {
    let mut ids = HashSet::new();
    for name in sealed.names() {
        let mut text = String::new();
        let file = File::open(sealed.path(&name)).unwrap();
        if name.ends_with(".log.gz") {
            MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
        } else if name.ends_with(".log") {
            { file }.read_to_string(&mut text).unwrap();
        }
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            if event["stage"] == "ResponseComplete" {
                ids.insert(event["auditID"].as_str().unwrap().to_owned());
            }
        }
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_often_it_is_killed_nothing_is_missing_and_nobody_accused() {
    let (upstream, sealed) = (upstream().await, Sealed::new());
    let mut answered = Vec::new();
    for round in 0..rounds() {
        let builder = sealed.builder(&upstream).flag("--audit-log-compress");
        let mut proxy = builder.flag("--audit-log-maxbackup=0").start().await;
        // Sometimes within the first second, sometimes after rotations that are not sealed yet.
        let enough = [1, 40, 150, 2, 300, 90][round % 6] + round % 7;
        answered.extend(load(&proxy, &round.to_string(), enough, true).await);
        proxy.process.wait().await;
        sealed.is_innocent(&format!("round {round}, killed"));
        upstream.take_seen();
        if round % 3 == 2 {
            // A graceful shutdown between two crashes.
            let mut proxy = sealed.builder(&upstream).start().await;
            sealed.is_innocent(&format!("round {round}, started"));
            assert!(proxy.stop().await.success());
            sealed.is_innocent(&format!("round {round}, stopped"));
        }
    }
    let mut proxy = sealed.builder(&upstream).start().await;
    assert!(proxy.stop().await.success());
    let (code, text) = sealed.verify();
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("(yet)"), "all is sealed after an orderly end: {text}");
    let recorded = recorded(&sealed);
    let missing: Vec<_> = answered.iter().filter(|id| !recorded.contains(*id)).collect();
    println!("{} answered in {} files", answered.len(), sealed.names().len());
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn a_kill_in_the_first_second_after_a_graceful_shutdown_is_not_tampering() {
    let (upstream, sealed) = (upstream().await, Sealed::new());
    let mut proxy = sealed.builder(&upstream).start().await;
    assert_eq!(get(&proxy, "first").await, Some(200));
    assert!(proxy.stop().await.success());
    let mut proxy = sealed.builder(&upstream).start().await;
    assert_eq!(get(&proxy, "second").await, Some(200));
    proxy.process.signal("KILL");
    proxy.process.wait().await;
    sealed.is_innocent("killed");
    let mut proxy = sealed.builder(&upstream).start().await;
    assert!(proxy.stop().await.success());
    let (code, text) = sealed.verify();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("lines 3-4 were not sealed before the crash"), "{text}");
}

#[tokio::test]
async fn a_deleted_seal_is_reported_by_verify_and_at_startup() {
    let (upstream, sealed) = (upstream().await, Sealed::new());
    let mut proxy = sealed.builder(&upstream).start().await;
    assert_eq!(get(&proxy, "first").await, Some(200));
    assert!(proxy.stop().await.success());

    let (code, text) = verify(&[], &sealed.log);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--public-key"), "{text}");
    let (code, text) = verify(&["--trust-embedded-key"], &sealed.log);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("not verified"), "{text}");

    let text = std::fs::read_to_string(&sealed.log).unwrap();
    std::fs::write(&sealed.log, text.replace("alice", "mallory")).unwrap();
    std::fs::remove_file(sealed.path("audit.log.seal")).unwrap();
    let (code, text) = sealed.verify();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("there is no seal: it was removed"), "{text}");

    let mut proxy = sealed.builder(&upstream).start().await;
    let said = proxy.process.logs("there is no seal").await;
    assert!(said.contains("ERROR"), "{said}");
    assert_eq!(proxy.metric("kube_audit_proxy_log_seal_broken{backend=\"log\"}").await, 1);
    assert_eq!(get(&proxy, "second").await, Some(200));
    assert!(proxy.stop().await.success());
    let (code, text) = sealed.verify();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("audit.log:1: lines 1-2 were found without their seal"), "{text}");

    let mut proxy = sealed.builder(&upstream).start().await;
    assert_eq!(proxy.metric("kube_audit_proxy_log_seal_broken{backend=\"log\"}").await, 0);
    assert!(proxy.stop().await.success());
    assert_eq!(sealed.verify().0, 1, "it stays so");
}

#[tokio::test]
async fn a_sealed_log_has_one_writer_however_its_path_is_spelled() {
    let (upstream, sealed) = (upstream().await, Sealed::new());
    let mut proxy = sealed.builder(&upstream).start().await;
    assert_eq!(get(&proxy, "first").await, Some(200));
    std::os::unix::fs::symlink(sealed.dir.path("logs"), sealed.dir.path("link")).unwrap();
    std::os::unix::fs::symlink(&sealed.log, sealed.dir.path("other.log")).unwrap();
    for spelled in ["logs/audit.log", "logs/../logs/audit.log", "link/audit.log", "other.log"] {
        let path = sealed.dir.path(spelled);
        let second =
            sealed.builder(&upstream).flag(&format!("--audit-log-path={}", path.display()));
        let (code, text) = second.run_to_end().await;
        assert_eq!(code, Some(1), "{spelled}: {text}");
        assert!(text.contains("already written by another kube-audit-proxy"), "{text}");
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
    assert_eq!(get(&proxy, "second").await, Some(200));
    assert!(proxy.stop().await.success());
    sealed.is_innocent("after others have tried");
}

#[tokio::test]
async fn two_sinks_with_one_log_are_refused_however_its_path_is_spelled() {
    let upstream = upstream().await;
    let sink = |name: &str, path: &str| {
        format!("- name: {name}\n  type: file\n  policy-file: DIR/policy.yaml\n  path: {path}\n")
    };
    for spelled in ["DIR/a/../audit.log", "DIR/./audit.log", "DIR/link.log"] {
        let builder = Builder::new(upstream.addr);
        std::fs::create_dir(builder.dir().path("a")).unwrap();
        let link = builder.dir().path("link.log");
        std::os::unix::fs::symlink("audit.log", link).unwrap();
        let sinks = sink("one", "DIR/audit.log") + &sink("two", spelled);
        let (code, text) = builder.sinks(&sinks).run_to_end().await;
        assert_ne!(code, Some(0), "{spelled}: {text}");
        assert!(text.contains("is that of sink \"one\" already"), "{spelled}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_the_future_do_not_cost_the_newest_ones() {
    let (upstream, sealed) = (upstream().await, Sealed::new());
    for name in ["audit-2097-01-01T00-00-00.000.log", "audit-2097-01-02T00-00-00.000.log"] {
        std::fs::write(sealed.path(name), "{}\n").unwrap();
    }
    let builder = sealed.builder(&upstream).flag("--audit-log-maxbackup=2");
    let mut proxy = builder.flag("--audit-log-maxage=1").start().await;
    load(&proxy, "load", 400, false).await;
    let deletions = || {
        let said = proxy.process.stderr();
        let deleted = said.lines().filter(|line| line.contains("deleting the rotated audit log"));
        (deleted.count() >= 2 && sealed.names().iter().all(|name| !name.contains("2097-01-01")))
            .then_some(said)
    };
    let said = wait_for("deletions", deletions).await;
    assert!(said.contains("there are more than --audit-log-maxbackup=2"), "{said}");
    assert!(said.contains("in the future"), "{said}");
    assert!(proxy.stop().await.success());
    let names = sealed.names();
    let logs: Vec<_> =
        names.iter().filter(|name| name.starts_with("audit-") && name.ends_with(".log")).collect();
    assert!(logs.len() >= 2, "{names:?}");
    assert!(logs.iter().all(|name| name.starts_with("audit-2097-01-02")), "{names:?}");
    // The remaining files are the end of the written ones, without a gap.
    let (code, text) = sealed.verify();
    assert_eq!(code, 0, "{text}");
}
