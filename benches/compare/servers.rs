//! A server to measure, its processes, and its audit log if it has one.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::process::{Process, free_port, pause};
use crate::workspace::Workspace;

/// The number of processes or threads of nginx and HAProxy; kube-audit-proxy has one thread per
/// processor.
pub const WORKERS: usize = 2;

const LOG_DEADLINE: Duration = Duration::from_secs(20);
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// A running server.
pub struct Server {
    /// The name in tables.
    pub name: String,
    /// The address for clients.
    pub address: SocketAddr,
    /// The audit log; `None` for nginx and HAProxy.
    pub log: Option<EventLog>,
    process: Process,
    ids: Vec<u32>,
}

impl Server {
    /// Creates a server whose process is ready.
    pub fn new(name: &str, address: SocketAddr, process: Process, log: Option<EventLog>) -> Server {
        let ids = process.ids();
        Server { name: name.to_owned(), address, log, process, ids }
    }

    /// Returns the IDs of its processes.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Returns the last lines of its standard error.
    pub fn stderr_tail(&self) -> String {
        self.process.stderr_tail()
    }
}

/// The level of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    None,
    Metadata,
    RequestResponse,
}

impl Level {
    /// Returns the name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// The settings of a kube-audit-proxy.
pub struct Own {
    pub name: String,
    pub level: Level,
    /// Whether there are also `RequestReceived` events.
    pub received: bool,
    /// The number of rules in the policy, of which the last one matches.
    pub rules: usize,
    pub mode: &'static str,
    pub sync: &'static str,
}

impl Own {
    /// One rule, and the default settings of the audit log.
    pub fn new(level: Level) -> Own {
        let name = format!("kap {}", level.name());
        Own { name, level, received: false, rules: 1, mode: "blocking", sync: "off" }
    }

    /// Starts the proxy in front of `upstream`.
    pub fn start(
        &self,
        program: &PathBuf,
        work: &Workspace,
        upstream: SocketAddr,
    ) -> Result<Server> {
        let (address, admin) = (free_port()?, free_port()?);
        let file = self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let log = work.file(&format!("{file}.log"));
        let policy = work.write(&format!("{file}-policy.yaml"), &self.policy())?;
        let kubeconfig = work.write(&format!("{file}-kubeconfig"), &kubeconfig(work, upstream))?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--bind-address=127.0.0.1");
        command.arg(format!("--secure-port={}", address.port()));
        command.arg(format!("--admin-bind-address={admin}"));
        for (flag, path) in [
            ("tls-cert-file", &work.file("server.crt")),
            ("tls-private-key-file", &work.file("server.key")),
            ("token-auth-file", &work.file("tokens.csv")),
            ("kubeconfig", &kubeconfig),
            ("audit-policy-file", &policy),
            ("audit-log-path", &log),
        ] {
            command.arg(format!("--{flag}={}", path.display()));
        }
        command.args(["--upstream-identity=impersonate", "--anonymous-auth=false"]);
        // Rotation is expensive, but rare. It is disabled; the log is truncated after each
        // measurement instead.
        command.args(["--audit-log-maxsize=0", "--log-level=warn", "--shutdown-timeout=1s"]);
        command.arg(format!("--audit-log-mode={}", self.mode));
        command.arg(format!("--audit-log-sync={}", self.sync));
        let mut process = Process::start(&self.name, command, work.path())?;
        process.wait("be ready", READY_DEADLINE, || is_ready(admin).then_some(()))?;
        let events = match self.level {
            Level::None => 0,
            _ => 1 + usize::from(self.received),
        };
        Ok(Server::new(&self.name, address, process, Some(EventLog { path: log, events })))
    }

    /// The last rule matches everything; the rules before it match other users, verbs, namespaces
    /// and paths.
    fn policy(&self) -> String {
        let omitted = if self.received { "" } else { "omitStages: [RequestReceived]\n" };
        let head = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{omitted}rules:\n");
        let others = (1..self.rules).map(|number| match number % 4 {
            0 => {
                format!("- {{level: None, users: ['system:node-{number}'], verbs: [get, watch]}}\n")
            }
            1 => format!(
                "- {{level: Request, verbs: [get, list], \
                 resources: [{{group: g{number}.io, resources: [kinds{number}]}}]}}\n"
            ),
            2 => format!(
                "- {{level: Request, verbs: [get], namespaces: [team-{number}, staging]}}\n"
            ),
            _ => format!(
                "- {{level: None, userGroups: [team-{number}], \
                 resources: [{{resources: [secrets, configmaps]}}]}}\n"
            ),
        });
        let last = format!("- level: {}\n", self.level.name());
        std::iter::once(head).chain(others).chain([last]).collect()
    }
}

/// An audit log whose events are counted and removed after each measurement.
pub struct EventLog {
    path: PathBuf,
    /// The number of events per request.
    events: usize,
}

impl EventLog {
    /// Waits for the events of `requests` requests, and removes them.
    ///
    /// # Errors
    /// If there are too many events, or too few after some time.
    pub fn take(&self, requests: usize) -> Result<()> {
        let (wanted, end) = (self.events * requests, Instant::now() + LOG_DEADLINE);
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(_) if wanted == 0 => return Ok(()),
            Err(error) => return Err(error).context("there is no audit log"),
        };
        let (mut lines, mut buffer) = (0, vec![0; 1 << 18]);
        loop {
            match file.read(&mut buffer)? {
                0 if lines >= wanted => break,
                0 => {
                    ensure!(Instant::now() < end, "{lines} audit events for {requests} requests");
                    pause()?;
                }
                bytes => lines += buffer[..bytes].iter().filter(|&&byte| byte == b'\n').count(),
            }
        }
        ensure!(lines == wanted, "{lines} audit events for {requests} requests");
        // The proxy opens the file for appending, so its next line will be the first.
        File::options().write(true).open(&self.path)?.set_len(0)?;
        Ok(())
    }
}

/// Whether `/readyz` responds 200.
pub fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = std::net::TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, request)?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

fn kubeconfig(work: &Workspace, upstream: SocketAddr) -> String {
    let entry = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "api",
        "clusters": [{"name": "api", "cluster": {
            "server": format!("https://{upstream}"),
            "certificate-authority": work.file("ca.crt"),
        }}],
        "users": [{"name": "proxy", "user": {"token": "dGhlLXByb3h5J3Mtb3duLXRva2Vu"}}],
        "contexts": [{"name": "api", "context": {"cluster": "api", "user": "proxy"}}],
    });
    format!("{entry:#}\n")
}
