//! Receives signals, and guarantees that the process ends after SIGTERM.
//!
//! A separate thread receives signals, so that a file system that hangs at start or a busy or
//! blocked runtime cannot delay them. The same thread ends the process if the shutdown does not
//! finish in time: after the first SIGTERM or SIGINT when `--shutdown-timeout` has passed, after
//! the second within [`SECOND`], after the third immediately.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

/// Maximum time until the process ends after a second signal.
const SECOND: Duration = Duration::from_secs(1);
/// Maximum time after the first signal if the process does not serve yet.
const STARTING: Duration = Duration::from_millis(500);
/// Maximum time for the last log line: standard error may be a pipe without a reader.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What a signal requests.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProcessSignal {
    /// SIGHUP
    Reload,
    /// SIGTERM or SIGINT, with its name.
    End(&'static str),
}

/// Receives the signals of the process.
pub(super) struct Signals {
    asked: UnboundedReceiver<ProcessSignal>,
    serves: Arc<AtomicBool>,
}

impl Signals {
    /// Receives signals from now on. After the first SIGTERM or SIGINT the process ends within
    /// `limit`.
    ///
    /// # Errors
    /// If the system has no threads or file descriptors left.
    pub(super) fn new(limit: Duration) -> io::Result<Signals> {
        let (ask, asked) = mpsc::unbounded_channel();
        let serves: Arc<AtomicBool> = Arc::default();
        let (started, start) = std_mpsc::channel();
        let watch = Watch { limit, serves: serves.clone(), ask };
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async {
                match Received::new() {
                    Ok(received) => {
                        let _ = started.send(Ok(()));
                        watch.run(received).await;
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        })?;
        start.recv().map_err(io::Error::other)??;
        Ok(Signals { asked, serves })
    }

    /// Must be called when the process serves: from then on it has `limit` to shut down.
    pub(super) fn serves(&self) {
        self.serves.store(true, Ordering::SeqCst);
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> ProcessSignal {
        match self.asked.recv().await {
            Some(asked) => asked,
            // The thread ends only with the process.
            None => std::future::pending().await,
        }
    }
}

struct Received {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Received {
    fn new() -> io::Result<Received> {
        Ok(Received {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> ProcessSignal {
        tokio::select! {
            _ = self.terminate.recv() => ProcessSignal::End("SIGTERM"),
            _ = self.interrupt.recv() => ProcessSignal::End("SIGINT"),
            _ = self.hangup.recv() => ProcessSignal::Reload,
        }
    }
}

struct Watch {
    limit: Duration,
    serves: Arc<AtomicBool>,
    ask: UnboundedSender<ProcessSignal>,
}

impl Watch {
    async fn run(self, mut received: Received) {
        let (mut ends, mut last) = (0, None);
        loop {
            let over = async {
                match last {
                    Some(last) => tokio::time::sleep_until(last).await,
                    None => std::future::pending().await,
                }
            };
            let asked = tokio::select! {
                asked = received.next() => asked,
                () = over => end("the shutdown did not finish in time"),
            };
            if let ProcessSignal::End(_) = asked {
                ends += 1;
                let limit = match ends {
                    1 if self.serves.load(Ordering::SeqCst) => self.limit.max(SECOND),
                    1 => STARTING,
                    2 => SECOND,
                    _ => end("third signal, exiting immediately"),
                };
                let until = Instant::now().checked_add(limit);
                last = match (last, until) {
                    (Some(last), Some(until)) => Some(until.min(last)),
                    (last, until) => until.or(last),
                };
            }
            // There is no receiver if the process is already ending.
            let _ = self.ask.send(asked);
        }
    }
}

/// Ends the process, even if other threads are blocked.
fn end(reason: &'static str) -> ! {
    let (told, wait) = std_mpsc::channel();
    let _ = thread::Builder::new().spawn(move || {
        tracing::error!("{reason}; events that are not written yet are lost");
        let _ = told.send(());
    });
    let _ = wait.recv_timeout(LAST_WORDS);
    std::process::exit(1)
}
