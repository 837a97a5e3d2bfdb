//! Servers of other projects that tests run against, as installed by `tests/servers/install.sh`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Returns the program `name`, or prints one line that says why the test is skipped.
pub fn find(name: &str) -> Option<PathBuf> {
    let directory = match std::env::var_os("KAP_TEST_SERVERS") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/kube-audit-proxy/servers"),
    };
    let program = directory.join(name);
    if program.exists() {
        return Some(program);
    }
    println!("skipped: {} is missing; run tests/servers/install.sh", program.display());
    None
}

/// Returns an address at which nothing listens.
pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A server process that listens at one address. Killed when it is dropped.
pub struct Server {
    command: Command,
    address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts `command` and waits until it accepts connections at `address`.
    ///
    /// # Panics
    /// If it does not within 30 s.
    pub fn start(mut command: Command, address: SocketAddr) -> Server {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let mut server = Server { command, address, child };
        server.wait();
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Starts it again with the same arguments.
    pub fn restart(&mut self) {
        self.kill();
        self.child = self.command.spawn().unwrap();
        self.wait();
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(self.address).is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "{:?} ended", self.command);
            assert!(Instant::now() < deadline, "{:?} does not listen", self.command);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The command that starts a Tansu broker (Kafka) at `address`, which it tells its clients as
/// `advertised`; `None` if it is not installed.
pub fn tansu(address: SocketAddr, advertised: SocketAddr) -> Option<Command> {
    let mut command = Command::new(find("tansu")?);
    command.arg("broker");
    command.args(["--listener-url", &format!("tcp://{address}")]);
    command.args(["--advertised-listener-url", &format!("tcp://{advertised}")]);
    command.args(["--storage-engine", "memory://tansu/"]);
    Some(command)
}
