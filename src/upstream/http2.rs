//! One HTTP/2 connection, and the count of its streams.
//!
//! hyper queues a request for which the server allows no stream until another one ends, which may
//! be a watch's, hours later. So streams are counted here, and no more are asked for than allowed.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::connect::{CONNECT_TIMEOUT, Connector, Stream};
use super::error::SendError;
use super::request_body::Outgoing;

/// Unread bytes that one answer may have waiting here.
const STREAM_WINDOW: u32 = 128 << 10;
/// Streams on one connection, even where the server allows more (kube-apiserver: 100 or 250).
const MAX_STREAMS: usize = 250;
/// Twice what all streams together can fill, so that answers nobody reads never stop the others.
const CONNECTION_WINDOW: u32 = 2 * MAX_STREAMS as u32 * STREAM_WINDOW;
const MAX_FRAME: u32 = 256 << 10;
const MAX_HEADER_LIST: u32 = 1 << 20;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// hyper's stream limit before the server has said its own; no server says this one.
const UNKNOWN_LIMIT: usize = usize::MAX / 2;

/// A connection in the pool.
pub(super) struct Http2Connection {
    sender: SendRequest<Outgoing>,
    state: Arc<State>,
    /// Sweeps of the pool that found it unused, in a row.
    idle_sweeps: AtomicU32,
}

#[derive(Default)]
struct State {
    streams: AtomicUsize,
    limit: AtomicUsize,
    closed: AtomicBool,
}

/// The right to one stream, for as long as its answer lasts.
pub(super) struct Http2Lease(Arc<Http2Connection>);

impl Http2Connection {
    /// Speaks HTTP/2 on `stream`; returns when the server's settings have come.
    pub(super) async fn open(
        connector: &Connector,
        stream: Stream,
    ) -> Result<Arc<Http2Connection>, SendError> {
        let failed = |source: Arc<hyper::Error>| SendError::NotProcessed { source };
        let opening = async {
            let (sender, mut connection) = Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .initial_max_send_streams(UNKNOWN_LIMIT)
                .max_frame_size(MAX_FRAME)
                .max_header_list_size(MAX_HEADER_LIST)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(true)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| failed(Arc::new(error)))?;
            settings(&mut connection).await?;
            Ok((sender, connection))
        };
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, opening).await;
        let (sender, mut connection) = opened.unwrap_or(Err(SendError::Timeout {
            waiting_for: "the API server's HTTP/2 settings",
            sent: false,
        }))?;

        let state = Arc::new(State::default());
        state.update_limit(connection.current_max_send_streams());
        let shared = Arc::clone(&state);
        let upstream = Arc::clone(&connector.name);
        tokio::spawn(async move {
            let ended = poll_fn(|context| {
                let ended = Pin::new(&mut connection).poll(context);
                shared.update_limit(connection.current_max_send_streams());
                ended
            })
            .await;
            shared.closed.store(true, Ordering::Release);
            if let Err(error) = ended {
                tracing::debug!(%upstream, %error, "upstream connection ended");
            }
        });
        Ok(Arc::new(Http2Connection { sender, state, idle_sweeps: AtomicU32::new(0) }))
    }

    /// A stream, if one is free.
    pub(super) fn lease(self: &Arc<Self>) -> Option<Http2Lease> {
        let limit = self.state.limit.load(Ordering::Relaxed);
        self.state
            .streams
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |streams| {
                (streams < limit).then_some(streams + 1)
            })
            .ok()
            .map(|_| Http2Lease(Arc::clone(self)))
    }

    /// Streams in use.
    pub(super) fn streams(&self) -> usize {
        self.state.streams.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::Acquire) || self.sender.is_closed()
    }

    /// No more streams here: the server is leaving.
    pub(super) fn close(&self) {
        self.state.closed.store(true, Ordering::Release);
    }

    /// How many sweeps in a row, this one too, have found it unused.
    pub(super) fn count_idle_sweep(&self) -> u32 {
        if self.streams() > 0 {
            self.idle_sweeps.store(0, Ordering::Relaxed);
            return 0;
        }
        self.idle_sweeps.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Http2Lease {
    pub(super) fn sender(&self) -> SendRequest<Outgoing> {
        self.0.sender.clone()
    }

    pub(super) fn connection(&self) -> &Arc<Http2Connection> {
        &self.0
    }
}

impl Drop for Http2Lease {
    fn drop(&mut self) {
        self.0.state.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

impl State {
    fn update_limit(&self, allowed: usize) {
        self.limit.store(allowed.min(MAX_STREAMS), Ordering::Relaxed);
    }
}

/// Waits for the server's settings. There is nothing to be told by, so it is asked every
/// millisecond; this happens once a connection, and takes about one round trip.
async fn settings(
    connection: &mut Connection<TokioIo<Stream>, Outgoing, TokioExecutor>,
) -> Result<(), SendError> {
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let settled: hyper::Result<bool> = poll_fn(|context| {
        if let Poll::Ready(ended) = Pin::new(&mut *connection).poll(context) {
            return Poll::Ready(ended.map(|()| false));
        }
        while connection.current_max_send_streams() == UNKNOWN_LIMIT {
            ready!(tick.poll_tick(context));
        }
        Poll::Ready(Ok(true))
    })
    .await;
    match settled {
        Ok(true) => Ok(()),
        Ok(false) => Err(SendError::Timeout {
            waiting_for: "the API server's HTTP/2 settings, and it closed the connection",
            sent: false,
        }),
        Err(error) => Err(SendError::NotProcessed { source: Arc::new(error) }),
    }
}
