//! A real etcd and kube-apiserver from the directory `KUBEBUILDER_ASSETS`.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{TempDir, corpus, http1};

/// Time limit for the start; the logs contain the reason if it fails.
const STARTING: Duration = Duration::from_secs(120);

/// An API server that writes an audit log; killed when dropped.
pub struct Cluster {
    /// The address on which it listens.
    pub addr: SocketAddr,
    /// Its audit log.
    pub log: PathBuf,
    api: Running,
    _etcd: Running,
    _dir: TempDir,
}

/// A process that is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Cluster {
    /// Returns the directory with `etcd` and `kube-apiserver`, as printed by `setup-envtest use -p
    /// path`.
    pub fn assets() -> Option<PathBuf> {
        std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from)
    }

    /// Starts both with the certificates of the corpus, and waits until they are ready. No
    /// controllers run, so only the test causes requests.
    pub async fn start(assets: &Path, policy: &Path) -> Cluster {
        Cluster::start_with(assets, policy, &[]).await
    }

    /// Like [`Cluster::start`], with additional flags for the API server.
    pub async fn start_with(assets: &Path, policy: &Path, flags: &[&str]) -> Cluster {
        let dir = TempDir::new();
        let [client, peer, secure] = free_ports();
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let etcd = run(
            &assets.join("etcd"),
            &dir,
            &[
                format!("--data-dir={}", dir.path("etcd-data").display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
            ],
        );
        let pki = |name: &str| corpus::pki(name).display().to_string();
        let log = dir.path("kube.log");
        let mut arguments = vec![
            format!("--etcd-servers={client}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", secure.port()),
            format!("--cert-dir={}", dir.path("certs").display()),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--token-auth-file={}", pki("tokens.csv")),
            format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--requestheader-uid-headers=X-Remote-Uid".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--shutdown-delay-duration=0s".to_owned(),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", log.display()),
            "--audit-log-maxsize=0".to_owned(),
        ];
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let api = run(&assets.join("kube-apiserver"), &dir, &arguments);
        let mut cluster = Cluster { addr: secure, log, api, _etcd: etcd, _dir: dir };
        cluster.ready().await;
        cluster
    }

    async fn ready(&mut self) {
        let started = Instant::now();
        loop {
            let answer = http1::get(self.addr, Some("admin"), "/readyz", &[]).await;
            if answer.is_ok_and(|answer| answer.head.status == 200) {
                return;
            }
            let ended = self.api.0.try_wait().unwrap();
            let waited = started.elapsed();
            assert!(
                ended.is_none() && waited < STARTING,
                "the API server is not ready after {waited:?}, ended: {ended:?}"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Stops the API server, after which its audit log is complete.
    pub async fn stop(&mut self) {
        let id = self.api.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let started = Instant::now();
        while self.api.0.try_wait().unwrap().is_none() && started.elapsed() < STARTING {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Starts a program. Its output goes to a file with its name.
fn run(program: &Path, dir: &TempDir, arguments: &[String]) -> Running {
    let name = program.file_name().unwrap().to_str().unwrap();
    let output = File::create(dir.path(&format!("{name}.out"))).unwrap();
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn();
    Running(child.unwrap_or_else(|error| panic!("{}: {error}", program.display())))
}

fn free_ports<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}
