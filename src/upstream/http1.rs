//! HTTP/1.1 connections, for an API server that offers nothing else: one request at a time each,
//! kept for the next one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;

use super::connect::{Connector, Stream};
use super::error::SendError;
use super::request_body::Outgoing;

/// Connections that wait for a request are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// And no more than these wait.
const MAX_IDLE: usize = 100;

/// Connections that wait for their next request, the last used at the end.
#[derive(Default)]
pub(super) struct Http1Idle {
    waiting: Mutex<Vec<Waiting>>,
    /// Grows when all connections of before are to go; those in use then do not come back.
    generation: AtomicU64,
}

struct Waiting {
    sender: SendRequest<Outgoing>,
    thread: ThreadId,
    since: Instant,
}

/// A connection in use by one request.
pub(super) struct Http1Lease {
    pub(super) sender: SendRequest<Outgoing>,
    /// Where it was opened, and where alone it is used.
    thread: ThreadId,
    idle: Arc<Http1Idle>,
    generation: u64,
}

/// Speaks HTTP/1.1 on `stream`.
pub(super) async fn open(
    connector: &Connector,
    idle: &Arc<Http1Idle>,
    stream: Stream,
) -> Result<Http1Lease, SendError> {
    let generation = idle.generation();
    let (sender, connection) = Builder::new()
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| SendError::NotProcessed { source: Arc::new(error.into()) })?;
    let upstream = Arc::clone(&connector.name);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%upstream, %error, "upstream connection ended");
        }
    });
    let (thread, idle) = (thread::current().id(), Arc::clone(idle));
    Ok(Http1Lease { sender, thread, idle, generation })
}

impl Http1Idle {
    /// A connection of this thread's that can take a request now. One whose last request is still being sent, though
    /// its answer has come, stays where it is.
    pub(super) fn take(self: &Arc<Self>) -> Option<Http1Lease> {
        let thread = thread::current().id();
        let mut waiting = self.lock();
        let ready = waiting.iter().rposition(|w| w.thread == thread && w.sender.is_ready())?;
        let sender = waiting.remove(ready).sender;
        Some(Http1Lease { sender, thread, idle: Arc::clone(self), generation: self.generation() })
    }

    /// Drops those that are closed or have waited too long.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.lock().retain(|waiting| {
            !waiting.sender.is_closed() && now.duration_since(waiting.since) < IDLE_TIMEOUT
        });
    }

    /// Drops all, those in use when their answer has ended.
    pub(super) fn clear(&self) {
        let mut waiting = self.lock();
        self.generation.fetch_add(1, Ordering::Relaxed);
        waiting.clear();
    }

    /// Whether one is open.
    pub(super) fn has_open(&self) -> bool {
        self.lock().iter().any(|waiting| !waiting.sender.is_closed())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }
}

impl Http1Lease {
    /// The answer has ended: lets the connection wait for the next request.
    pub(super) fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut waiting = self.idle.lock();
        if waiting.len() < MAX_IDLE && self.generation == self.idle.generation() {
            let (sender, thread) = (self.sender, self.thread);
            waiting.push(Waiting { sender, thread, since: Instant::now() });
        }
    }
}
