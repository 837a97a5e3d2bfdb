//! What tests of backends that send events to another system share.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::audit_log;
use super::client::{self, Short};
use super::proxy::{Builder, Proxy};

/// Longer than other tests: the proxy waits longer and longer for a destination that is down.
pub const PATIENCE: Duration = Duration::from_secs(120);
const CLIENTS: usize = 8;

/// Audit ID and stage: what makes two copies of an event the same.
pub type EventKey = (String, String);

/// Returns the key of an event.
pub fn key(line: &str) -> EventKey {
    let event: Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| event[key].as_str().unwrap().to_owned();
    (text("auditID"), text("stage"))
}

/// Returns the keys of both events of a request.
pub fn stages(id: &str) -> [EventKey; 2] {
    ["RequestReceived", "ResponseComplete"].map(|stage| (id.to_owned(), stage.to_owned()))
}

/// Returns a proxy that records in `log` and in a backend of the type `kind` with these keys.
pub fn two_sinks(
    upstream: SocketAddr,
    log: &Path,
    spool: &Path,
    kind: &str,
    keys: &str,
) -> Builder {
    let builder = Builder::new(upstream);
    let policy = builder.dir().path("policy.yaml");
    let sinks = format!(
        "- {{name: file, type: file, policy-file: {0}, path: {1}, mode: blocking}}\n\
         - name: elsewhere\n  type: {kind}\n  policy-file: {0}\n  mode: blocking\n  \
           spool-dir: {2}\n{keys}",
        policy.display(),
        log.display(),
        spool.display()
    );
    builder.sinks(&sinks)
}

/// Sends requests, two events each. Returns the audit IDs of those that were answered. With
/// `kill_at` the proxy is killed after so many of them.
pub async fn load(
    proxy: &Proxy,
    round: &str,
    requests: usize,
    kill_at: Option<usize>,
) -> Vec<String> {
    let answered = Arc::new(Mutex::new(Vec::new()));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (addr, answered, round) = (proxy.addr, Arc::clone(&answered), round.to_owned());
        clients.spawn(async move {
            let Ok(mut sender) = client::http2::<Short>(addr, Some("alice")).await else { return };
            for number in 0..requests / CLIENTS {
                let id = format!("{round}-{client}-{number}");
                let headers = [("audit-id", id.as_str())];
                let answer = client::h2_get(&mut sender, "/api/v1/pods", &headers).await;
                let Ok(answer) = answer else { return };
                if client::whole(answer).await.is_err() {
                    return;
                }
                answered.lock().unwrap().push(id);
            }
        });
    }
    if let Some(enough) = kill_at {
        while answered.lock().unwrap().len() < enough {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        proxy.process.signal("KILL");
    }
    clients.join_all().await;
    std::mem::take(&mut *answered.lock().unwrap())
}

/// Waits until a metric of the backend, named without its labels, has such a value.
pub async fn until(proxy: &Proxy, metric: &str, is_right: impl Fn(u64) -> bool) {
    let series = format!("{metric}{{backend=\"elsewhere\"}}");
    let started = Instant::now();
    while !is_right(proxy.metric(&series).await) {
        assert!(started.elapsed() < PATIENCE, "{metric}:\n{}", proxy.process.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks that both events of each answered request are in the log and elsewhere.
pub fn check_complete(
    answered: &[String],
    log: &Path,
    elsewhere: &HashMap<EventKey, u32>,
    proxy: &Proxy,
) {
    let logged: HashSet<_> = audit_log::lines(log).iter().map(|line| key(line)).collect();
    let events = answered.iter().flat_map(|id| stages(id));
    let missing: Vec<_> = events
        .filter(|event| !elsewhere.contains_key(event) || !logged.contains(event))
        .map(|event| format!("{event:?}, logged: {}", logged.contains(&event)))
        .collect();
    let (first, last) = (missing.first(), missing.last());
    assert!(
        missing.is_empty(),
        "{} of {} are missing, {first:?} to {last:?}\n{}",
        missing.len(),
        2 * answered.len(),
        proxy.process.stderr()
    );
}

/// A TCP relay that can be cut.
pub struct Relay {
    pub address: SocketAddr,
    is_open: watch::Sender<bool>,
}

impl Relay {
    /// Starts to pass connections on to `target`.
    pub async fn start(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_open, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut state = state.clone();
                tokio::spawn(async move {
                    if !*state.borrow_and_update() {
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = state.changed() => {}
                    }
                });
            }
        });
        Relay { address, is_open }
    }

    /// Ends all connections, in the middle of whatever they carry, and closes new ones.
    pub fn cut(&self) {
        self.is_open.send_replace(false);
    }

    /// Passes new connections on again.
    pub fn mend(&self) {
        self.is_open.send_replace(true);
    }
}
