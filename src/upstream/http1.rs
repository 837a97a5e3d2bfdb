//! HTTP/1.1 connections, for API servers that support nothing else: one request at a time on each,
//! then kept for the next one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api_client::endpoint_set::{InFlight, Member};
use hyper::client::conn::http1::{Builder, Parts, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use super::connect::{Connector, Stream};
use super::error::SendError;
use super::pool::Owner;
use super::request_body::Outgoing;
use audit_log::CommitSequence;

/// Connections without a request are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Maximum time for closing TLS.
const CLOSING: Duration = Duration::from_secs(1);
/// Maximum size of a response's head: 1 MiB, and the tolerance that Go adds.
pub(super) const MAX_HEADER_BYTES: usize = (1 << 20) + (4 << 10);
/// Maximum number of connections that wait for a request.
const MAX_IDLE: usize = 100;

/// Connections that wait for their next request; the last used one is at the end.
#[derive(Default)]
pub(super) struct Http1Idle {
    waiting: Mutex<Vec<Waiting>>,
    /// Incremented when all earlier connections must be closed; those in use are then not returned.
    generation: AtomicU64,
}

/// What remains of a connection after hyper failed to parse its response.
pub(super) type UnparsedResponse = Parts<TokioIo<Stream>>;

struct Waiting {
    sender: SendRequest<Outgoing>,
    remains: oneshot::Receiver<UnparsedResponse>,
    owner: Owner,
    since: Instant,
}

/// A connection that one request uses.
pub(super) struct Http1Lease {
    pub(super) sender: SendRequest<Outgoing>,
    remains: oneshot::Receiver<UnparsedResponse>,
    owner: Owner,
    idle: Arc<Http1Idle>,
    generation: u64,
    /// Counts the request, if the API server has several addresses.
    in_flight: Option<InFlight>,
}

/// Starts HTTP/1.1 on `stream`.
pub(super) async fn open(
    connector: &Connector,
    idle: &Arc<Http1Idle>,
    stream: Stream,
    owner: Owner,
) -> Result<Http1Lease, SendError> {
    let generation = idle.generation();
    let (sender, connection) = Builder::new()
        .max_buf_size(MAX_HEADER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| SendError::NotProcessed { source: Arc::new(error.into()) })?;
    let upstream = Arc::clone(&connector.target.name);
    let (give, remains) = oneshot::channel();
    tokio::spawn(async move {
        match connection.without_shutdown().await {
            Ok(parts) => {
                // A waiting request may use these bytes; if none does, the connection is closed.
                let unread = match parts.read_buf.is_empty() {
                    true => Err(parts),
                    false => give.send(parts),
                };
                if let Err(parts) = unread {
                    let mut stream = parts.io.into_inner();
                    let _ = tokio::time::timeout(CLOSING, stream.shutdown()).await;
                }
            }
            Err(error) => tracing::debug!(%upstream, %error, "upstream connection ended"),
        }
    });
    let in_flight = connector.member.as_ref().map(Member::start_request);
    Ok(Http1Lease { sender, remains, owner, idle: Arc::clone(idle), generation, in_flight })
}

impl Http1Idle {
    /// Takes a connection that can send a request with this sequence now. A connection whose last
    /// request is still being sent, although its response has arrived, is left in place.
    pub(super) fn take(
        self: &Arc<Self>,
        connector: &Connector,
        sequence: &CommitSequence,
    ) -> Option<Http1Lease> {
        let mut waiting = self.lock();
        let is_ready = |w: &Waiting| w.owner.takes(sequence) && w.sender.is_ready();
        let ready = waiting.iter().rposition(is_ready)?;
        let Waiting { sender, remains, owner, .. } = waiting.remove(ready);
        let (idle, generation) = (Arc::clone(self), self.generation());
        let in_flight = connector.member.as_ref().map(Member::start_request);
        Some(Http1Lease { sender, remains, owner, idle, generation, in_flight })
    }

    /// Drops closed connections, and those that have waited too long.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.lock().retain(|waiting| {
            !waiting.sender.is_closed() && now.duration_since(waiting.since) < IDLE_TIMEOUT
        });
    }

    /// Drops connections that have not been used for `time`.
    pub(super) fn drop_unused_for(&self, time: Duration) {
        let now = Instant::now();
        self.lock().retain(|waiting| now.duration_since(waiting.since) < time);
    }

    /// Drops all connections, those in use when their response has ended.
    pub(super) fn clear(&self) {
        let mut waiting = self.lock();
        self.generation.fetch_add(1, Ordering::Relaxed);
        waiting.clear();
    }

    /// Returns whether a connection is open.
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
    /// Returns the connection to the pool after the end of a response.
    pub(super) fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut waiting = self.idle.lock();
        if waiting.len() < MAX_IDLE && self.generation == self.idle.generation() {
            let Http1Lease { sender, remains, owner, in_flight, .. } = self;
            drop(in_flight);
            waiting.push(Waiting { sender, remains, owner, since: Instant::now() });
        }
    }

    /// Returns the connection's bytes after hyper failed to parse the response on it.
    pub(super) async fn into_remains(self) -> Option<UnparsedResponse> {
        let Http1Lease { sender, remains, .. } = self;
        drop(sender);
        remains.await.ok()
    }
}
