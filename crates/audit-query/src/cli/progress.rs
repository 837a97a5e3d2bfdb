//! Prints the progress of a long scan on standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::scan::Progress;

/// Delay before the progress is printed.
const PATIENCE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(200);

/// A progress line, which is removed on drop.
#[derive(Debug)]
pub(crate) struct ProgressBar {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ProgressBar {
    /// Starts the progress line if standard error is a terminal, and standard output does not print
    /// to a terminal or `quiet_output` is set.
    pub(crate) fn start(progress: &Arc<Progress>, quiet_output: bool) -> ProgressBar {
        let wanted = io::stderr().is_terminal() && (quiet_output || !io::stdout().is_terminal());
        if !wanted {
            return ProgressBar { end: None, thread: None };
        }
        let progress = progress.clone();
        let (end, ended) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let mut shown = false;
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if started.elapsed() < PATIENCE {
                    continue;
                }
                shown = true;
                let total = progress.total.load(Ordering::Relaxed) as f64;
                let done = progress.done.load(Ordering::Relaxed) as f64;
                let percent = if total > 0.0 { (done / total * 100.0).min(100.0) } else { 0.0 };
                let rate = done / 1e6 / started.elapsed().as_secs_f64();
                eprint!(
                    "\r\x1b[K{percent:3.0} %  {:.2} of {:.2} GB  {rate:.0} MB/s",
                    done / 1e9,
                    total / 1e9
                );
            }
            if shown {
                eprint!("\r\x1b[K");
                let _ = io::stderr().flush();
            }
        });
        ProgressBar { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
