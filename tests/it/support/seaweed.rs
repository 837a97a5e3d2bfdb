//! SeaweedFS, a server of the S3 API (`tests/servers/install.sh`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The access key of the server.
pub const KEY: &str = "kube-audit-proxy";
/// Its secret.
pub const SECRET: &str = "a-secret-of-the-test";
/// Longer than other tests: the server may need a while to start after it was killed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The program of SeaweedFS, if it is installed.
pub fn weed() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let servers = std::env::var_os("KAP_TEST_SERVERS").map(PathBuf::from);
    let weed = servers.unwrap_or_else(|| home.join(".cache/kube-audit-proxy/servers")).join("weed");
    if !weed.exists() {
        println!("skipped: SeaweedFS is not installed; run bash tests/servers/install.sh weed");
        return None;
    }
    Some(weed)
}

/// A server whose data survive it.
pub struct Server {
    program: PathBuf,
    dir: PathBuf,
    /// Master, volume, filer, and S3 API.
    pub ports: [u16; 4],
    child: Child,
}

/// Ports that are free now, and whose ports for gRPC are, too.
fn ports() -> [u16; 4] {
    let mut found = [0; 4];
    let mut held = Vec::new();
    for port in &mut found {
        *port = loop {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let free = listener.local_addr().unwrap().port();
            if let Some(grpc) = free.checked_add(10_000)
                && let Ok(other) = std::net::TcpListener::bind(("127.0.0.1", grpc))
            {
                held.extend([listener, other]);
                break free;
            }
        };
    }
    found
}

impl Server {
    /// Starts it; its data are in `dir`.
    pub fn start(program: PathBuf, dir: &Path) -> Server {
        let ports = ports();
        let child = Server::spawn(&program, dir, ports);
        Server { program, dir: dir.to_owned(), ports, child }
    }

    fn spawn(program: &Path, dir: &Path, [master, volume, filer, s3]: [u16; 4]) -> Child {
        std::fs::create_dir_all(dir).unwrap();
        let log = std::fs::File::create(dir.join("weed.log")).unwrap();
        Command::new(program)
            .arg("server")
            .arg(format!("-dir={}", dir.display()))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-volume.max=8"])
            .arg("-master.volumeSizeLimitMB=64")
            .arg(format!("-master.port={master}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-filer.port={filer}"))
            .arg(format!("-s3.port={s3}"))
            // These have fixed ports, on which a server of another test may listen.
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, on the same ports.
    pub fn restart(&mut self) {
        self.child = Server::spawn(&self.program, &self.dir, self.ports);
    }

    /// Runs a command of its shell.
    pub fn shell(&self, command: &str) -> String {
        let [master, .., filer, _] = self.ports;
        let mut shell = Command::new(&self.program)
            .arg("shell")
            .arg(format!("-master=127.0.0.1:{master}"))
            .arg(format!("-filer=127.0.0.1:{filer}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut shell.stdin.take().unwrap(), command.as_bytes()).unwrap();
        let output = shell.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Creates the bucket as soon as the server can.
    pub async fn create_bucket(&self) {
        let started = Instant::now();
        while !self.shell("s3.bucket.list\n").contains("audit") {
            assert!(started.elapsed() < PATIENCE, "the server does not start");
            self.shell("s3.bucket.create -name audit\n");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The URL of its S3 API.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[3])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
