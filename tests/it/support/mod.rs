//! Shared code of the tests: the real binary as a process, a fake API server, and clients that send
//! exactly the bytes that a test specifies.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub mod access;
pub mod audit_log;
pub mod client;
pub mod cluster;
pub mod compare;
pub mod corpus;
pub mod delivery;
pub mod http1;
pub mod jwt;
pub mod pki;
pub mod proxy;
pub mod seaweed;
pub mod tally;
pub mod upstream;

/// Time limit for everything in tests; generous, because a busy machine is not a bug.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Calls `probe` repeatedly until it returns a value.
///
/// # Panics
/// Panics after `DEADLINE`; `what` describes what was awaited.
pub async fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} without success for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Awaits `future` for at most `DEADLINE`.
///
/// # Panics
/// Panics after `DEADLINE`.
pub async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {DEADLINE:?} without success for {what}"),
    }
}

/// A temporary directory for one test; kept if the test fails.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Creates a new, empty directory.
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        loop {
            let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            // A directory that a failed test has left can have the same name, because process ids
            // are reused.
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists),
            }
        }
    }

    /// Returns the path of the directory or of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in the directory and returns its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
