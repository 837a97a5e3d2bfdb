//! One HTTP/2 connection, and the count of its streams.
//!
//! If the server's stream limit is reached, h2 queues a request until another stream ends, which
//! may be a watch and take hours. So streams are counted here, and no more are opened than allowed.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use api_client::endpoint_set::{InFlight, Member};
use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};

use super::connect::{CONNECT_TIMEOUT, Connector, Stream};
use super::error::{ConnectionError, SendError};
use super::pool::Owner;
use crate::http2::{CoalescedWrites, CoalescingIo, KeepAlive, coalesce};

/// Bytes of one response that may be received and unread.
const STREAM_WINDOW: u32 = 128 << 10;
/// Maximum number of streams on one connection, even if the server allows more (kube-apiserver: 100
/// or 250).
const MAX_STREAMS: usize = 250;
/// Twice the sum of all streams' windows, so that unread responses never block the others.
const CONNECTION_WINDOW: u32 = 2 * MAX_STREAMS as u32 * STREAM_WINDOW;
const MAX_FRAME: u32 = 256 << 10;
/// Maximum size of a response's headers: 1 MiB, and the tolerance that Go adds.
const MAX_HEADER_LIST: u32 = (1 << 20) + (4 << 10);
/// Bytes of one request's body that may wait to be written.
const SEND_BUFFER: usize = 1 << 20;
/// client-go's values (`ReadIdleTimeout`, `PingTimeout`).
const KEEP_ALIVE: KeepAlive =
    KeepAlive { interval: Duration::from_secs(30), timeout: Duration::from_secs(15) };
/// Shorter intervals if other addresses are healthy, so that clients need not wait as long.
const MEMBER_KEEP_ALIVE: KeepAlive =
    KeepAlive { interval: Duration::from_secs(5), timeout: Duration::from_secs(10) };
/// h2's stream limit before the server has sent its own; no server sends this value.
const UNKNOWN_LIMIT: usize = usize::MAX / 2;

/// A connection in the pool. After it is dropped, the connection closes with its last stream.
pub(super) struct Http2Connection {
    sender: SendRequest<Bytes>,
    state: Arc<State>,
    owner: Owner,
    /// The address of the connection, if the API server has several.
    member: Option<Arc<Member>>,
    opened: Instant,
    /// Number of consecutive sweeps of the pool that found the connection unused.
    idle_sweeps: AtomicU32,
}

#[derive(Default)]
struct State {
    streams: AtomicUsize,
    limit: AtomicUsize,
    closed: AtomicBool,
    /// Whether the connection was abandoned because the server did not respond to a PING.
    silent: AtomicBool,
}

/// The right to one stream, until the end of its response.
pub(super) struct Http2Lease {
    connection: Arc<Http2Connection>,
    /// Counts the request, if the API server has several addresses.
    _in_flight: Option<InFlight>,
}

impl Http2Connection {
    /// Starts HTTP/2 on `stream`; returns when the server's settings have arrived.
    pub(super) async fn open(
        connector: &Connector,
        stream: Stream,
        owner: Owner,
    ) -> Result<Arc<Http2Connection>, SendError> {
        let (stream, writes) = coalesce(stream);
        let activity = writes.activity();
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, handshake(stream, &writes)).await;
        let (sender, mut connection) = opened.unwrap_or(Err(SendError::Timeout {
            waiting_for: "the API server's HTTP/2 settings",
            sent: false,
        }))?;

        let pings = connection.ping_pong().expect("it is taken only here");
        let state = Arc::new(State::default());
        state.update_limit(connection.max_concurrent_send_streams());
        let shared = Arc::clone(&state);
        let upstream = Arc::clone(&connector.target.name);
        let driver = tokio::spawn(async move {
            let ended = poll_fn(|context| {
                let ended = Pin::new(&mut connection).poll(context);
                writes.send(context);
                shared.update_limit(connection.max_concurrent_send_streams());
                ended
            })
            .await;
            shared.closed.store(true, Ordering::Release);
            if let Err(error) = ended {
                tracing::debug!(%upstream, %error, "upstream connection ended");
            }
        });
        // A separate task, since the one above runs at every request, and timers have a cost.
        let shared = Arc::clone(&state);
        let upstream = Arc::clone(&connector.target.name);
        let member = connector.member.clone();
        let keep_alive = if member.is_some() { MEMBER_KEEP_ALIVE } else { KEEP_ALIVE };
        tokio::spawn(async move {
            if keep_alive.is_silent(pings, &activity).await {
                tracing::debug!(%upstream, "upstream connection closed: no response to a PING");
                shared.silent.store(true, Ordering::Release);
                shared.closed.store(true, Ordering::Release);
                driver.abort();
            }
        });
        let (opened, idle_sweeps) = (Instant::now(), AtomicU32::new(0));
        Ok(Arc::new(Http2Connection { sender, state, owner, member, opened, idle_sweeps }))
    }

    /// Leases a stream, if one is available.
    pub(super) fn lease(self: &Arc<Self>) -> Option<Http2Lease> {
        let limit = self.state.limit.load(Ordering::Relaxed);
        self.state
            .streams
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |streams| {
                (streams < limit).then_some(streams + 1)
            })
            .ok()
            .map(|_| Http2Lease {
                connection: Arc::clone(self),
                _in_flight: self.member.as_ref().map(Member::start_request),
            })
    }

    /// Returns the owner, whose requests the connection accepts.
    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Returns when the connection was opened.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// Returns the number of streams in use.
    pub(super) fn streams(&self) -> usize {
        self.state.streams.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::Acquire)
    }

    /// Returns whether the connection was abandoned because the server did not respond to a PING.
    pub(super) fn is_silent(&self) -> bool {
        self.state.silent.load(Ordering::Acquire)
    }

    /// Opens no more streams here: the server is shutting down.
    pub(super) fn close(&self) {
        self.state.closed.store(true, Ordering::Release);
    }

    /// Counts a sweep that found the connection unused. Returns the number of consecutive ones.
    pub(super) fn count_idle_sweep(&self) -> u32 {
        if self.streams() > 0 {
            self.idle_sweeps.store(0, Ordering::Relaxed);
            return 0;
        }
        self.idle_sweeps.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the meaning of `error`, which the connection or a stream reported.
    pub(super) fn explain(&self, error: h2::Error) -> ConnectionError {
        match self.is_silent() {
            true => ConnectionError::KeepAliveTimeout,
            false => ConnectionError::Http2(error),
        }
    }
}

impl Http2Lease {
    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.connection.sender.clone()
    }

    pub(super) fn connection(&self) -> &Arc<Http2Connection> {
        &self.connection
    }

    /// Returns a second lease of the same stream, for a part that may outlast this one.
    pub(super) fn again(&self) -> Http2Lease {
        self.connection.state.streams.fetch_add(1, Ordering::AcqRel);
        Http2Lease { connection: Arc::clone(&self.connection), _in_flight: None }
    }
}

impl Drop for Http2Lease {
    fn drop(&mut self) {
        self.connection.state.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

impl State {
    fn update_limit(&self, allowed: usize) {
        self.limit.store(allowed.min(MAX_STREAMS), Ordering::Relaxed);
    }
}

/// Performs the handshake; returns when the server's settings have arrived.
async fn handshake(
    stream: CoalescingIo<Stream>,
    writes: &CoalescedWrites<Stream>,
) -> Result<(SendRequest<Bytes>, Connection<CoalescingIo<Stream>, Bytes>), SendError> {
    let failed = |error: h2::Error| SendError::NotProcessed { source: Arc::new(error.into()) };
    let mut builder = Builder::new();
    let handshake = builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(UNKNOWN_LIMIT)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_push(false)
        .handshake(stream);
    // Writes only what has been collected.
    let (sender, mut connection) = handshake.await.map_err(failed)?;
    let settled = poll_fn(|context| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(context) {
            return Poll::Ready(ended.map(|()| false));
        }
        writes.send(context);
        match connection.max_concurrent_send_streams() {
            UNKNOWN_LIMIT => Poll::Pending,
            _ => Poll::Ready(Ok(true)),
        }
    })
    .await;
    match settled {
        Ok(true) => Ok((sender, connection)),
        Ok(false) => Err(SendError::Timeout {
            waiting_for: "the API server's HTTP/2 settings, and it closed the connection",
            sent: false,
        }),
        Err(error) => Err(failed(error)),
    }
}
