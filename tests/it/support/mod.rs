//! What the behaviour tests share: the real binary as a process, a fake API server behind it, and
//! clients that put exactly the bytes on the wire that a test writes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub mod access;
pub mod audit_log;
pub mod client;
pub mod cluster;
pub mod compare;
pub mod corpus;
pub mod http1;
pub mod jwt;
pub mod pki;
pub mod proxy;
pub mod seaweed;
pub mod tally;
pub mod upstream;

/// How long anything may take before a test gives up; generous, because a busy machine is not a
/// bug.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Asks `probe` again and again until it has a response.
///
/// # Panics
/// When `DEADLINE` passes without one; `what` says what was awaited.
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

/// Lets `future` take no longer than `DEADLINE`.
///
/// # Panics
/// When it does.
pub async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {DEADLINE:?} without success for {what}"),
    }
}

/// A folder for one test; removed at its end, kept where the test failed.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes a new, empty folder.
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        loop {
            let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            // A folder that a failed test left can have the same name: process ids come again.
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists),
            }
        }
    }

    /// Returns the folder, or a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in the folder and gives its path.
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
