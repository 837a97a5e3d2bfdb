//! Several backends at once under load and with faults: each keeps its guarantees, whatever happens
//! to the others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use super::disk::Disk;
use crate::support::client::{self, Short};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, audit_log, wait_for};
use crate::webhook::{Taken, receiver_of, taker};

const CLIENTS: usize = 4;

/// The policy of the webhook, which selects only the last events of requests.
const ENDS: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
    - {level: Metadata, verbs: [list]}\n- level: None\n";
const ALL: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n";

struct Scene {
    upstream: FakeUpstream,
    dir: TempDir,
    /// Requests with a complete response.
    answered: Arc<Mutex<Vec<String>>>,
    round: usize,
    /// The directory of the spool, if it is not the default.
    spool: Option<PathBuf>,
}

impl Scene {
    async fn new(receiver: std::net::SocketAddr) -> Scene {
        let upstream = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
        let dir = TempDir::new();
        dir.write("webhook.conf", &receiver_of(receiver));
        dir.write("all.yaml", ALL);
        dir.write("some.yaml", ENDS);
        Scene { upstream, dir, answered: Arc::default(), round: 0, spool: None }
    }

    fn log(&self) -> PathBuf {
        self.dir.path("audit.log")
    }

    fn spool(&self) -> PathBuf {
        self.spool.clone().unwrap_or_else(|| self.dir.path("spool"))
    }

    fn builder(&self) -> Builder {
        let path = |name: &str| self.dir.path(name).display().to_string();
        let sinks = format!(
            "- {{name: log, type: file, path: {log}, policy-file: {all}, mode: blocking-strict}}\n\
             - {{name: siem, type: webhook, config-file: {config}, policy-file: {some}, \
             spool-dir: {spool}, initial-backoff: 20ms, batch-max-size: 10, batch-max-wait: 20ms, \
             batch-throttle-enable: false}}\n\
             - {{name: out, type: stdout, policy-file: {all}, mode: batch}}\n",
            log = path("audit.log"),
            all = path("all.yaml"),
            some = path("some.yaml"),
            config = path("webhook.conf"),
            spool = self.spool().display(),
        );
        Builder::new(self.upstream.addr).sinks(&sinks).flag("--shutdown-timeout=4s")
    }

    /// Sends requests while `fault` runs, until it returns.
    async fn under_load<T>(&mut self, proxy: &Proxy, fault: impl Future<Output = T>) -> T {
        let (stop, round) = (Arc::new(AtomicBool::new(false)), self.round);
        self.round += 1;
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (addr, answered, stop) = (proxy.addr, self.answered.clone(), stop.clone());
            clients.spawn(async move {
                let sender = client::http2::<Short>(addr, Some("alice")).await;
                let Ok(mut sender) = sender else { return };
                for request in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = format!("{round}-{number}-{request}");
                    let headers = [("audit-id", id.as_str())];
                    let answer = client::h2_get(&mut sender, "/api/v1/pods", &headers).await;
                    let Ok(answer) = answer else { return };
                    assert_eq!(answer.status(), 200);
                    if client::whole(answer).await.is_err() {
                        return;
                    }
                    answered.lock().unwrap().push(id);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        }
        let result = fault.await;
        stop.store(true, Ordering::Relaxed);
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
        result
    }

    /// Checks that the strict log has both events of each request with a response.
    fn check_log(&self) {
        let mut count: HashMap<String, usize> = HashMap::new();
        for line in audit_log::lines(&self.log()) {
            let event: Value = serde_json::from_str(&line).unwrap();
            *count.entry(event["auditID"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        for id in self.answered.lock().unwrap().iter() {
            assert_eq!(count.get(id), Some(&2), "{id}");
        }
    }
}

/// Returns the IDs of the events that the endpoint accepted, and of those in the spool.
fn delivered(taken: &Taken, spool: &Path) -> HashMap<String, usize> {
    let mut lists = taken.lock().unwrap().clone();
    for entry in std::fs::read_dir(spool).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            lists.push(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap());
        }
    }
    let mut count = HashMap::new();
    for list in &lists {
        for item in list["items"].as_array().unwrap() {
            *count.entry(item["auditID"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    count
}

/// Returns the number of events that a backend has logged as lost.
fn told(proxy: &Proxy, sink: &str) -> usize {
    let said = proxy.process.stderr();
    let of_sink = said.lines().filter(|line| line.contains(&format!("sink=\"{sink}\"")));
    let counts = of_sink.filter_map(|line| {
        line.split_once(" affecting ")?.1.split(' ').next()?.parse::<usize>().ok()
    });
    counts.sum()
}

/// Checks that all events are accounted for: in the strict log, at the webhook or in its spool, and
/// in standard output or logged as lost.
fn check(scene: &Scene, proxy: &Proxy, taken: &Taken) {
    scene.check_log();
    let answered = scene.answered.lock().unwrap().clone();
    let webhook = delivered(taken, &scene.spool());
    let missing = answered.iter().filter(|id| !webhook.contains_key(*id)).count();
    let lost = told(proxy, "siem");
    assert!(missing <= lost, "{missing} are missing, {lost} are logged as lost");
    let out = proxy.process.stdout().matches("\"auditID\"").count() + told(proxy, "out");
    let log = audit_log::lines(&scene.log()).len();
    assert!(out >= log, "{out} of {log}");
    println!(
        "{} answered, {log} lines, {} to the webhook, {lost} lost",
        answered.len(),
        webhook.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_and_an_endpoint_that_fail_under_load_lose_nothing_of_the_others() {
    let taken = Taken::default();
    let receiver = FakeUpstream::start(Protocols::Http1, taker(&taken)).await;
    let addr = receiver.addr;
    let mut scene = Scene::new(addr).await;
    let mut proxy = scene.builder().start().await;
    let spool = scene.spool();
    let answered = scene.answered.clone();
    let more = |more: usize| {
        let answered = answered.clone();
        async move {
            let now = answered.lock().unwrap().len();
            let enough = || (answered.lock().unwrap().len() >= now + more).then_some(());
            wait_for("answers", enough).await;
        }
    };
    let _receiver = scene
        .under_load(&proxy, async {
            more(50).await;
            // The endpoint stops, then the spool directory is replaced by a file, then removed.
            receiver.stop().await;
            more(50).await;
            let aside = spool.with_extension("aside");
            std::fs::rename(&spool, &aside).unwrap();
            std::fs::write(&spool, "").unwrap();
            more(50).await;
            std::fs::remove_file(&spool).unwrap();
            more(50).await;
            FakeUpstream::start_on(addr, Protocols::Http1, taker(&taken)).await
        })
        .await;
    let mut waited = Duration::ZERO;
    while proxy.metric("kube_audit_proxy_spool_bytes{backend=\"siem\"}").await > 0 {
        assert!(waited < crate::support::DEADLINE, "the spool does not become empty");
        tokio::time::sleep(Duration::from_millis(20)).await;
        waited += Duration::from_millis(20);
    }
    assert!(proxy.stop().await.success());
    check(&scene, &proxy, &taken);
    assert_eq!(told(&proxy, "siem"), 0, "{}", proxy.process.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_hangs_to_the_end_costs_nothing_that_is_not_counted() {
    let taken = Taken::default();
    let receiver = FakeUpstream::start(Protocols::Http2, |_| std::future::pending()).await;
    let mut scene = Scene::new(receiver.addr).await;
    let mut proxy = scene.builder().start().await;
    let answered = scene.answered.clone();
    let enough = async {
        wait_for("answers", || (answered.lock().unwrap().len() >= 100).then_some(())).await;
    };
    scene.under_load(&proxy, enough).await;
    let started = std::time::Instant::now();
    assert!(proxy.stop().await.success());
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    check(&scene, &proxy, &taken);
}

/// Events in memory are lost with the process, but not events that the strict log has accepted or
/// that are in the spool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_under_load_takes_nothing_from_the_strict_log_and_the_spool() {
    let taken = Taken::default();
    let receiver = FakeUpstream::start(Protocols::Http1, taker(&taken)).await;
    let mut scene = Scene::new(receiver.addr).await;
    // 5, or the value of `CRASH_ROUNDS`.
    let rounds = std::env::var("CRASH_ROUNDS").map_or(5, |text| text.parse().unwrap());
    for round in 0..rounds {
        let mut proxy = scene.builder().start().await;
        let answered = scene.answered.clone();
        let before = answered.lock().unwrap().len();
        let pid = proxy.process.id().to_string();
        let kill = async {
            let enough = || (answered.lock().unwrap().len() > before + 20).then_some(());
            wait_for("answers", enough).await;
            tokio::time::sleep(Duration::from_micros(round * 791 % 5_000)).await;
            std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap();
        };
        scene.under_load(&proxy, kill).await;
        proxy.process.wait().await;
        scene.check_log();
    }
    let spooled = delivered(&Taken::default(), &scene.spool());
    let mut last = scene.builder().start().await;
    let second = scene.builder().run_to_end().await;
    assert!(second.0 == Some(1) && second.1.contains("is in use"), "{}", second.1);
    while last.metric("kube_audit_proxy_spool_bytes{backend=\"siem\"}").await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(last.stop().await.success());
    let arrived = delivered(&taken, &scene.spool());
    assert!(spooled.keys().all(|id| arrived.contains_key(id)));
    assert_eq!(told(&last, "siem"), 0);
    scene.check_log();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_on_a_disk_that_is_full_waits_for_room() {
    let taken = Taken::default();
    let receiver = FakeUpstream::start(Protocols::Http2, taker(&taken)).await;
    let mut scene = Scene::new(receiver.addr).await;
    let Some(disk) = Disk::small(&scene.dir) else {
        return eprintln!("not run: this user may not mount");
    };
    scene.spool = Some(disk.0.join("spool"));
    let mut proxy = scene.builder().start().await;
    let answered = scene.answered.clone();
    let more = |more: usize| {
        let answered = answered.clone();
        async move {
            let now = answered.lock().unwrap().len();
            let enough = || (answered.lock().unwrap().len() >= now + more).then_some(());
            wait_for("answers", enough).await;
        }
    };
    let said = || proxy.process.stderr();
    let fault = async {
        more(20).await;
        // A delivered file frees its space, and the next one may fit.
        let noticed = || {
            disk.fill();
            said().contains("No space left on device").then_some(())
        };
        wait_for("the full disk", noticed).await;
        more(50).await;
        disk.empty();
        wait_for("room", || said().contains("is healthy again").then_some(())).await;
        more(20).await;
    };
    scene.under_load(&proxy, fault).await;
    assert!(proxy.stop().await.success());
    check(&scene, &proxy, &taken);
    assert_eq!(told(&proxy, "siem"), 0, "{}", proxy.process.stderr());
}
