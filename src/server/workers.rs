//! Threads that serve clients, each with its own scheduler.
//!
//! A connection stays on the thread that it was assigned to, with its requests and the connection
//! to the API server that they use. Nothing is passed between threads, no other thread has to be
//! woken, and writes of concurrent requests to the API server, to their clients and to the audit
//! log are coalesced. The disadvantage: other threads do not take over work from a busy one.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use audit_log::CommitSequence;

/// The threads. Dropping this ends them, together with the connections that they serve.
#[derive(Default)]
pub(crate) struct Workers(Vec<Worker>);

struct Worker {
    handle: Handle,
    /// The commit sequence of the worker's connections.
    sequence: CommitSequence,
    /// The number of open connections.
    open: Arc<AtomicUsize>,
    /// Ends the thread when it is dropped, without waiting: a thread may be blocked in a write.
    _end: oneshot::Sender<()>,
}

impl Workers {
    /// Starts one thread for each processor that the process may use. `sequence` creates the commit
    /// sequence of a thread, given its runtime.
    ///
    /// # Errors
    /// Returns the error of the operating system if it allows no more threads.
    pub(crate) fn start(
        sequence: impl Fn(ThreadId, Handle) -> CommitSequence,
    ) -> io::Result<Workers> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let start = |number| Worker::start(number, &sequence);
        (0..count).map(start).collect::<io::Result<_>>().map(Workers)
    }

    /// Starts no threads: connections are served by the thread that accepts them.
    #[cfg(test)]
    pub(crate) fn none() -> Workers {
        Workers::default()
    }

    /// Runs the future that `serve` creates on the thread with the fewest connections. `serve` is
    /// called in that thread's runtime, with that thread's commit sequence.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        serve: impl FnOnce(CommitSequence) -> F + Send + 'static,
    ) {
        let Some(worker) = self.0.iter().min_by_key(|w| w.open.load(Ordering::Relaxed)) else {
            tokio::spawn(serve(CommitSequence::detached()));
            return;
        };
        let (open, sequence) = (Open::new(&worker.open), worker.sequence.clone());
        worker.handle.spawn(async move {
            let _open = open;
            serve(sequence).await;
        });
    }
}

impl Worker {
    fn start(
        number: usize,
        sequence: impl Fn(ThreadId, Handle) -> CommitSequence,
    ) -> io::Result<Worker> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            // Nothing is ever sent; this waits for the sender to be dropped.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        let sequence = sequence(thread.thread().id(), handle.clone());
        Ok(Worker { handle, sequence, open: Arc::default(), _end: end })
    }
}

/// Counts a connection as open until dropped.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Open {
        count.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn connections_go_where_the_fewest_are_and_end_with_the_threads() {
        let detached = |_, _| CommitSequence::detached();
        let workers = Workers((0..2).map(|n| Worker::start(n, detached).unwrap()).collect());
        let (tell, told) = mpsc::channel();
        let (release, released) = oneshot::channel::<()>();
        let mut released = Some(released);
        let mut serve = |waits: bool| {
            let (tell, wait) = (tell.clone(), waits.then(|| released.take()).flatten());
            workers.spawn(move |_| async move {
                tell.send(thread::current().name().unwrap().to_owned()).unwrap();
                match wait {
                    Some(wait) => drop(wait.await),
                    None => std::future::pending().await,
                }
            });
            told.recv().unwrap()
        };
        assert_eq!([serve(true), serve(false)], ["worker-0", "worker-1"]);
        release.send(()).unwrap();
        while workers.0[0].open.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
        assert_eq!(serve(false), "worker-0");
        drop(tell);
        drop(workers);
        assert!(told.recv().is_err(), "tasks outlive their threads");
    }
}
