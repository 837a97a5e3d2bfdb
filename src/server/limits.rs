//! Limits of the operating system on descriptors and threads, and the resulting number of
//! connections.

use std::fs::File;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that the process needs without clients: runtimes, listeners, logs, connections to
/// the API server.
const OWN_DESCRIPTORS: u64 = 64;
/// Descriptors of a worker: its event queue, its connection to the API server.
const WORKER_DESCRIPTORS: u64 = 8;
/// Threads besides the workers: runtime, log writers, blocking calls, signals.
const OWN_THREADS: usize = 12;
/// Minimum time between two reports of refused connections.
const REPORT: Duration = Duration::from_secs(10);

/// The operating system allows the process too few resources.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitError {
    /// Too few descriptors.
    #[error(
        "too few open files are allowed: {needed} are needed to start, and opening one more failed \
         after {got} ({reason}); raise the limit (ulimit -n, LimitNOFILE= in a systemd unit)"
    )]
    Descriptors {
        /// How many are needed.
        needed: u64,
        /// How many are available.
        got: usize,
        /// The error of the operating system.
        reason: io::Error,
    },
    /// Too few threads.
    #[error(
        "too few threads are allowed: {needed} are needed to start, and starting one more failed \
         after {got} ({reason}); raise the limit (ulimit -u, TasksMax= in a systemd unit, the pids \
         limit of the container or of the kubelet's podPidsLimit)"
    )]
    Threads {
        /// How many are needed.
        needed: usize,
        /// How many are available.
        got: usize,
        /// The error of the operating system.
        reason: io::Error,
    },
}

/// Raises the soft limit of open files to the hard one, and checks that as many descriptors and
/// threads are available as a start needs. Libraries would panic later.
///
/// # Errors
/// Returns an error if there are too few.
pub(crate) fn prepare() -> Result<(), LimitError> {
    raise_file_limit();
    let workers = thread::available_parallelism().map_or(1, usize::from);
    check_descriptors(OWN_DESCRIPTORS + WORKER_DESCRIPTORS * workers as u64)?;
    check_threads(OWN_THREADS + workers)
}

/// Raises the soft limit of open files to the hard one, like Go does for its programs. Each client
/// takes a descriptor, and shells start processes with a soft limit of 1024.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn check_descriptors(needed: u64) -> Result<(), LimitError> {
    let mut open = Vec::new();
    for _ in 0..needed {
        match File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(reason) if is_exhausted(&reason) => {
                return Err(LimitError::Descriptors { needed, got: open.len(), reason });
            }
            // The device does not exist here, which has nothing to do with limits.
            Err(_) => break,
        }
    }
    Ok(())
}

/// Returns whether the error is EMFILE or ENFILE.
fn is_exhausted(error: &io::Error) -> bool {
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn check_threads(needed: usize) -> Result<(), LimitError> {
    let mut running = Vec::new();
    let mut failed = None;
    for _ in 0..needed {
        let (end, ended) = mpsc::channel::<()>();
        // Waits for the sender to be dropped.
        match thread::Builder::new().spawn(move || ended.recv().is_ok()) {
            Ok(thread) => running.push((end, thread)),
            Err(reason) => {
                failed = Some(LimitError::Threads { needed, got: running.len(), reason });
                break;
            }
        }
    }
    for (end, thread) in running {
        drop(end);
        let _ = thread.join();
    }
    failed.map_or(Ok(()), Err)
}

/// Returns how many client connections may be open: `wanted`, or fewer if descriptors do not
/// suffice. One in four descriptors is reserved for upgraded connections, which take two, and for
/// the proxy itself, so that logs can be rotated and the API server reached.
pub(crate) fn max_connections(wanted: u64) -> u64 {
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return wanted };
    let possible = (descriptors.saturating_sub(OWN_DESCRIPTORS) / 4 * 3).max(1);
    if possible < wanted {
        tracing::info!(
            descriptors,
            max_connections = possible,
            "the limit of open files allows fewer client connections than --max-connections"
        );
    }
    possible.min(wanted)
}

/// Limits reports of frequent events to one in ten seconds.
pub(super) struct Reports {
    last: Option<Instant>,
    since: u64,
}

impl Reports {
    pub(super) fn new() -> Reports {
        Reports { last: None, since: 0 }
    }

    /// Counts an event. Returns the number of events since the last report, if one is due.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < REPORT) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_few_and_count_all() {
        let mut reports = Reports::new();
        let start = Instant::now();
        assert_eq!(reports.count(start), Some(1));
        assert_eq!(reports.count(start + Duration::from_secs(9)), None);
        assert_eq!(reports.count(start + Duration::from_secs(10)), Some(2));
    }

    #[test]
    fn this_process_may_start() {
        prepare().unwrap();
        assert_eq!(max_connections(1), 1);
    }

    #[test]
    fn too_few_threads_are_detected() {
        let error =
            LimitError::Threads { needed: 3, got: 1, reason: io::Error::from_raw_os_error(11) };
        assert!(error.to_string().contains("ulimit -u"), "{error}");
        assert!(check_threads(3).is_ok());
    }
}
