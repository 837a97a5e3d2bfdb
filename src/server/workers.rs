//! Threads that serve clients, each with a scheduler of its own.
//!
//! A connection stays on the thread that it was given to, with its requests and the connection to the
//! API server that they use. Nothing is handed from thread to thread, no other thread has to be
//! woken, and what requests of one moment have to say to the API server, to their clients and to the
//! audit log leaves together. The price: a thread that is busy does not get help.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The threads. They end when this is dropped, and with them what is still under way there.
#[derive(Default)]
pub struct Workers(Vec<Worker>);

struct Worker {
    handle: Handle,
    /// Connections.
    open: Arc<AtomicUsize>,
    /// Ends the thread when it is dropped. Nobody waits for that: a thread may be stuck in a write.
    _end: oneshot::Sender<()>,
}

impl Workers {
    /// One thread for each processor that the process may use.
    ///
    /// # Errors
    /// The operating system's, which has no more threads.
    pub fn start() -> io::Result<Workers> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        (0..count).map(Worker::start).collect::<io::Result<_>>().map(Workers)
    }

    /// No threads of their own: connections are served where they are accepted.
    pub fn none() -> Workers {
        Workers::default()
    }

    /// Runs what `serve` makes on the thread that has the fewest connections. It is called there, in
    /// the thread's runtime.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        serve: impl FnOnce() -> F + Send + 'static,
    ) {
        let Some(worker) = self.0.iter().min_by_key(|w| w.open.load(Ordering::Relaxed)) else {
            tokio::spawn(serve());
            return;
        };
        let open = Open::new(&worker.open);
        worker.handle.spawn(async move {
            let _open = open;
            serve().await;
        });
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Worker> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            // Nothing is ever sent: it waits for the sender to go.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Worker { handle, open: Arc::default(), _end: end })
    }
}

/// Counts a connection until dropped.
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
        let workers = Workers((0..2).map(|n| Worker::start(n).unwrap()).collect());
        let (tell, told) = mpsc::channel();
        let (release, released) = oneshot::channel::<()>();
        let mut released = Some(released);
        let mut serve = |waits: bool| {
            let (tell, wait) = (tell.clone(), waits.then(|| released.take()).flatten());
            workers.spawn(move || async move {
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
