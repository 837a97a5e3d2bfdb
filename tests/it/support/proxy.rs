//! Runs the real binary as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::audit_log::AuditLog;
use super::{DEADLINE, TempDir, corpus, wait_for};

/// The program under test; `KAP_BINARY` selects another one for measurements.
pub const BINARY: &str = env!("CARGO_BIN_EXE_kube-audit-proxy");

/// A policy that records everything at level Metadata.
pub const METADATA: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n";

/// The flags of a proxy that is not started yet.
pub struct Builder {
    dir: TempDir,
    upstream: SocketAddr,
    identity: &'static str,
    policy: PathBuf,
    /// Whether `sinks` in a file configure the backends.
    has_sinks: bool,
    /// Whether a kubeconfig configures the API server.
    has_kubeconfig: bool,
    port: u16,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Builder {
    /// Creates a builder for a proxy in front of `upstream`: request-header mode, level Metadata,
    /// JSON lines.
    pub fn new(upstream: SocketAddr) -> Self {
        let dir = TempDir::new();
        let policy = dir.write("policy.yaml", METADATA);
        let (flags, environment) = (Vec::new(), Vec::new());
        let identity = "request-header";
        let (has_sinks, has_kubeconfig) = (false, false);
        let port = 0;
        Self {
            dir,
            upstream,
            identity,
            policy,
            has_sinks,
            has_kubeconfig,
            port,
            flags,
            environment,
        }
    }

    /// Sets `--upstream-identity`.
    pub fn identity(mut self, identity: &'static str) -> Self {
        self.identity = identity;
        self
    }

    /// Listens on this port, and allows other processes to do so, too.
    pub fn shared_port(mut self, port: u16) -> Self {
        self.port = port;
        self.flag("--permit-port-sharing")
    }

    /// Uses this policy file.
    pub fn policy_file(mut self, path: PathBuf) -> Self {
        self.policy = path;
        self
    }

    /// Uses this policy.
    pub fn policy(self, text: &str) -> Self {
        self.dir.write("policy.yaml", text);
        self
    }

    /// Trusts front proxies, like the API server of the corpus.
    pub fn front_proxies(self) -> Self {
        let ca = corpus::pki("front-proxy-ca.crt").display().to_string();
        self.flag(&format!("--requestheader-client-ca-file={ca}"))
            .flag("--requestheader-allowed-names=front-proxy-client")
            .flag("--requestheader-uid-headers=X-Remote-Uid")
    }

    /// Uses these `sinks` instead of a policy and a log; `DIR` in them is the proxy's directory.
    pub fn sinks(mut self, sinks: &str) -> Self {
        let sinks = sinks.replace("DIR", &self.dir.path("").display().to_string());
        let config = self.dir.write("config.yaml", &format!("sinks:\n{sinks}"));
        self.has_sinks = true;
        self.flag(&format!("--config={}", config.display()))
    }

    /// Uses this `--kubeconfig` instead of flags for the API server.
    pub fn kubeconfig(mut self, text: &str) -> Self {
        let path = self.dir.write("kubeconfig", text);
        self.has_kubeconfig = true;
        self.flag(&format!("--kubeconfig={}", path.display()))
    }

    /// Omits all flags for the API server.
    pub fn no_upstream(mut self) -> Self {
        self.has_kubeconfig = true;
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Trusts the ServiceAccount tokens of the corpus.
    pub fn service_accounts(self) -> Self {
        let keys = corpus::pki("sa.pub").display().to_string();
        self.flag(&format!("--service-account-key-file={keys}"))
            .flag("--service-account-issuer=https://kubernetes.default.svc")
    }

    /// Adds a flag.
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Returns the directory of this proxy, for files that its flags name.
    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// Starts the process without waiting.
    pub fn spawn(&self) -> Process {
        Process::start_in(&self.arguments(), &self.environment)
    }

    /// Returns all arguments of `serve`.
    fn arguments(&self) -> Vec<String> {
        let client = match self.identity {
            "request-header" => "front-proxy-client",
            _ => "proxy-client",
        };
        let pki = |name: &str| corpus::pki(name).display().to_string();
        let mut all = vec![
            "serve".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.port),
            "--admin-bind-address=127.0.0.1:0".to_owned(),
            "--log-format=text".to_owned(),
            format!("--tls-cert-file={}", pki("proxy.crt")),
            format!("--tls-private-key-file={}", pki("proxy.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--token-auth-file={}", pki("tokens.csv")),
            format!("--upstream-identity={}", self.identity),
        ];
        if !self.has_kubeconfig {
            all.push(format!("--upstream-server=https://{}", self.upstream));
            all.push(format!("--upstream-ca-file={}", pki("ca.crt")));
        }
        if !self.has_sinks {
            all.push(format!("--audit-policy-file={}", self.policy.display()));
            all.push(format!("--audit-log-path={}", self.dir.path("audit.log").display()));
        }
        if self.identity != "pass-through" && !self.has_kubeconfig {
            all.push(format!("--upstream-client-cert-file={}", pki(&format!("{client}.crt"))));
            all.push(format!("--upstream-client-key-file={}", pki(&format!("{client}.key"))));
        }
        all.extend(self.flags.iter().cloned());
        all
    }

    /// Starts the process and waits until it serves.
    ///
    /// # Panics
    /// Panics if the process ends, or does not log `serving addr=` and `admin addr=` in time.
    pub async fn start(self) -> Proxy {
        let mut process = Process::start_in(&self.arguments(), &self.environment);
        let addr = process.address("serving addr=").await;
        let admin = process.address("admin addr=").await;
        let log = self.dir.path("audit.log");
        Proxy { process, addr, admin, log, policy: self.policy, dir: self.dir }
    }

    /// Runs the process to its end, for invalid flags and files.
    pub async fn run_to_end(self) -> (Option<i32>, String) {
        let mut process = Process::start_in(&self.arguments(), &self.environment);
        let status = process.wait().await;
        (status.code(), process.stderr())
    }
}

/// A running proxy; killed when dropped.
pub struct Proxy {
    pub process: Process,
    /// The address for clients.
    pub addr: SocketAddr,
    /// The address of `/metrics` and `/readyz`.
    pub admin: SocketAddr,
    /// The audit log.
    pub log: PathBuf,
    /// The policy file.
    pub policy: PathBuf,
    pub dir: TempDir,
}

impl Proxy {
    /// Returns the audit log, from its beginning.
    pub fn audit_log(&self) -> AuditLog {
        AuditLog::new(&self.log)
    }

    /// Returns the value of a series in `/metrics`; `name` includes its labels.
    ///
    /// # Panics
    /// Panics if there is no series with that name.
    pub async fn metric(&self, name: &str) -> u64 {
        let (_, text) = super::client::admin(self.admin, "/metrics").await.unwrap();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Stops the process with SIGTERM and waits for its end, after which its log is complete.
    pub async fn stop(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait().await
    }
}

/// A process of the program; killed when dropped.
pub struct Process {
    child: Child,
    stderr: Arc<Mutex<String>>,
    stdout: Arc<Mutex<String>>,
}

impl Process {
    /// Starts the program with these arguments.
    pub fn start(arguments: &[String]) -> Self {
        Self::start_in(arguments, &[])
    }

    /// Like [`Process::start`], with additional environment variables.
    pub fn start_in(arguments: &[String], environment: &[(String, String)]) -> Self {
        let binary = std::env::var("KAP_BINARY").unwrap_or_else(|_| BINARY.to_owned());
        let mut child = Command::new(binary)
            .args(arguments)
            .env("NO_COLOR", "1")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = collect(child.stderr.take().unwrap());
        let stdout = collect(child.stdout.take().unwrap());
        Self { child, stderr, stdout }
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns what the process has logged so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until the process has logged `text`, and returns everything that it has logged. A
    /// response can be received before an earlier log line, because another thread reads the pipe.
    pub async fn logs(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let logged = self.stderr();
            if logged.contains(text) {
                return logged;
            }
            assert!(start.elapsed() < DEADLINE, "{text:?} is not logged:\n{logged}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns what the process has printed so far.
    pub fn stdout(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    /// Sends a signal, by name without `SIG`.
    pub fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(status.success(), "kill -{name} failed");
    }

    /// Returns the exit status if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end of the process.
    pub async fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                // Separate threads read the pipes, and hold the texts until the end.
                while Arc::strong_count(&self.stderr) + Arc::strong_count(&self.stdout) > 2 {
                    assert!(start.elapsed() < DEADLINE * 2, "what it said does not end");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                return status;
            }
            assert!(start.elapsed() < DEADLINE * 2, "does not end; it said:\n{}", self.stderr());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns the resident memory in bytes.
    pub fn resident(&self) -> u64 {
        resident(self.id())
    }

    async fn address(&mut self, prefix: &str) -> SocketAddr {
        let stderr = Arc::clone(&self.stderr);
        wait_for(&format!("a line with {prefix:?}"), || {
            if let Some(status) = self.ended() {
                std::thread::sleep(Duration::from_millis(50));
                panic!("ended with {status} before it served:\n{}", stderr.lock().unwrap());
            }
            let text = stderr.lock().unwrap();
            let rest = &text[text.find(prefix)? + prefix.len()..];
            let end = rest.find(|c: char| c.is_whitespace())?;
            Some(rest[..end].trim_matches('"').parse().unwrap())
        })
        .await
    }
}

/// Returns the resident memory of a process in bytes.
pub fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = self.stderr();
            let tail: Vec<&str> = text.lines().rev().take(40).collect();
            eprintln!("--- the last lines of the program's own log ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Collects the lines of a pipe without color escape sequences.
fn collect(pipe: impl std::io::Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let writer = Arc::clone(&text);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            let line = plain(&String::from_utf8_lossy(&line));
            let mut text = writer.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}

fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find("\u{1b}[") {
        out.push_str(&rest[..start]);
        let tail = &rest[start + 2..];
        let end = tail.find(|c: char| c.is_ascii_alphabetic()).map_or(tail.len(), |at| at + 1);
        rest = &tail[end..];
    }
    out.push_str(rest);
    out
}
