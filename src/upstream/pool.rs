//! The connections to the API server: with HTTP/2 one for each worker, and more if its streams are
//! used up; with HTTP/1.1 one for each request in flight.
//!
//! Workers do not share connections: no other thread has to be woken, the requests of one worker
//! are written together, and a connection waits only for the events of its own worker
//! ([`CommitSequence`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::connect::{Connector, Purpose};
use super::error::SendError;
use super::http1::{self, Http1Idle, Http1Lease};
use super::http2::{Http2Connection, Http2Lease};
use audit_log::CommitSequence;

/// After one HTTP/1.1 connection was lost, others that were idle for this long are dropped: a load
/// balancer that has dropped one idle connection has probably dropped the others, too.
const DISTRUSTED: Duration = Duration::from_secs(1);
/// Number of sweeps after which an unused connection is closed, unless it is the only one.
const IDLE_SWEEPS: u32 = 3;

/// What a request holds of its connection until its response has ended.
pub(super) enum Lease {
    Http2(Http2Lease),
    Http1(Http1Lease),
}

/// The owner of a connection, whose requests it accepts.
#[derive(Clone)]
pub(super) enum Owner {
    /// Requests that a worker forwards: bytes wait for the events of this sequence.
    Worker(CommitSequence),
    /// The proxy's own requests on one thread.
    Thread(ThreadId),
}

impl Owner {
    pub(super) fn of(sequence: &CommitSequence) -> Owner {
        match sequence.is_detached() {
            true => Owner::Thread(thread::current().id()),
            false => Owner::Worker(sequence.clone()),
        }
    }

    /// Returns whether a request with this sequence may use the connection.
    pub(super) fn takes(&self, sequence: &CommitSequence) -> bool {
        match self {
            Owner::Worker(own) => own.is_same(sequence),
            Owner::Thread(own) => sequence.is_detached() && *own == thread::current().id(),
        }
    }
}

/// All pooled connections.
pub(super) struct Pool {
    pub(super) connector: Connector,
    http2: ArcSwap<Vec<Arc<Http2Connection>>>,
    http1: Arc<Http1Idle>,
    /// Whether the last connection used HTTP/1.1, so that each request needs its own connection.
    speaks_http1: AtomicBool,
    /// Held by the task that opens a connection while others wait for it.
    opening: Mutex<Option<Failure>>,
}

/// The failure of the last attempt, which is returned to all requests that waited for it.
struct Failure {
    at: Instant,
    error: SendError,
}

impl Pool {
    pub(super) fn new(connector: Connector) -> Pool {
        Pool {
            connector,
            http2: ArcSwap::default(),
            http1: Arc::default(),
            speaks_http1: AtomicBool::new(false),
            opening: Mutex::new(None),
        }
    }

    /// Leases a place on an open connection, unless one was `lost`: the others may be, too.
    pub(super) fn existing_unless(
        &self,
        lost: Option<Instant>,
        sequence: &CommitSequence,
    ) -> Option<Lease> {
        if lost.is_none() { self.existing(None, sequence) } else { None }
    }

    /// Returns whether the last connection used HTTP/1.1, so that each request needs its own one.
    pub(super) fn speaks_http1(&self) -> bool {
        self.speaks_http1.load(Ordering::Relaxed)
    }

    /// Leases a place for one request. Costs a few atomics, unless a connection has to be opened.
    pub(super) async fn lease(&self, sequence: &CommitSequence) -> Result<Lease, SendError> {
        match self.existing(None, sequence) {
            Some(lease) => Ok(lease),
            // Rare, and too large to be a part of every request's future.
            None => Box::pin(self.open(None, sequence)).await,
        }
    }

    /// Leases a place on a connection that was opened after `lost`, when another one broke: older
    /// ones may have been lost, too.
    pub(super) async fn lease_newer(
        &self,
        lost: Instant,
        sequence: &CommitSequence,
    ) -> Result<Lease, SendError> {
        self.http1.drop_unused_for(DISTRUSTED);
        match self.existing(Some(lost), sequence) {
            Some(lease) => Ok(lease),
            None => self.open(Some(lost), sequence).await,
        }
    }

    /// Checks that there is a connection; opens one if there is none.
    pub(super) async fn check(&self) -> Result<(), SendError> {
        if self.http2.load().iter().any(|c| !c.is_closed()) || self.http1.has_open() {
            return Ok(());
        }
        if let Lease::Http1(lease) = self.lease(&CommitSequence::detached()).await? {
            lease.give_back();
        }
        Ok(())
    }

    /// Sends no more requests on `connection`.
    pub(super) fn retire(&self, connection: &Http2Connection) {
        connection.close();
        self.http2.rcu(|all| all.iter().filter(|c| !c.is_closed()).cloned().collect::<Vec<_>>());
    }

    /// Sends no more requests on connections that are open now.
    pub(super) fn retire_all(&self) {
        for connection in self.http2.swap(Arc::default()).iter() {
            connection.close();
        }
        self.http1.clear();
    }

    /// Drops closed connections, and those that have been unused for long.
    pub(super) fn sweep(&self) {
        self.http1.sweep();
        let mut idle = Vec::new();
        let mut used = Vec::new();
        for connection in self.http2.load().iter().filter(|c| !c.is_closed()) {
            match connection.count_idle_sweep() >= IDLE_SWEEPS {
                true => idle.push(Arc::clone(connection)),
                false => used.push(Arc::clone(connection)),
            }
        }
        if used.is_empty() {
            idle.pop();
        }
        for connection in idle {
            connection.close();
        }
        self.http2.rcu(|all| all.iter().filter(|c| !c.is_closed()).cloned().collect::<Vec<_>>());
    }

    /// Leases a place on an open connection, which is newer than `newer_than` if given.
    fn existing(&self, newer_than: Option<Instant>, sequence: &CommitSequence) -> Option<Lease> {
        let all = self.http2.load();
        let own = all.iter().filter(|c| c.owner().takes(sequence) && !c.is_closed());
        let own = own.filter(|c| newer_than.is_none_or(|lost| c.opened() > lost));
        if let Some(stream) = least_used(own) {
            return Some(Lease::Http2(stream));
        }
        if newer_than.is_none() && self.speaks_http1.load(Ordering::Relaxed) {
            return self.http1.take(&self.connector, sequence).map(Lease::Http1);
        }
        None
    }

    async fn open(
        &self,
        newer_than: Option<Instant>,
        sequence: &CommitSequence,
    ) -> Result<Lease, SendError> {
        if self.speaks_http1.load(Ordering::Relaxed) {
            return self.connect(sequence).await;
        }
        let arrived = Instant::now();
        let mut failure = self.opening.lock().await;
        if let Some(lease) = self.existing(newer_than, sequence) {
            return Ok(lease);
        }
        if self.speaks_http1.load(Ordering::Relaxed) {
            drop(failure);
            return self.connect(sequence).await;
        }
        if let Some(failure) = failure.as_ref().filter(|failure| failure.at >= arrived) {
            return Err(failure.error.clone());
        }
        let opened = self.connect(sequence).await;
        *failure = opened.as_ref().err().map(|e| Failure { at: Instant::now(), error: e.clone() });
        opened
    }

    /// Opens a connection and leases a place on it.
    async fn connect(&self, sequence: &CommitSequence) -> Result<Lease, SendError> {
        let (stream, http2) = self.connector.connect(Purpose::Pool, sequence).await?;
        let owner = Owner::of(sequence);
        self.speaks_http1.store(!http2, Ordering::Relaxed);
        if !http2 {
            return http1::open(&self.connector, &self.http1, stream, owner)
                .await
                .map(Lease::Http1);
        }
        let connection = Http2Connection::open(&self.connector, stream, owner).await?;
        let stream = connection.lease().ok_or(SendError::Timeout {
            waiting_for: "a stream on a new connection, of which the API server allows none",
            sent: false,
        })?;
        self.http2.rcu(|all| {
            let open = all.iter().filter(|c| !c.is_closed()).cloned();
            open.chain([Arc::clone(&connection)]).collect::<Vec<_>>()
        });
        Ok(Lease::Http2(stream))
    }
}

fn least_used<'a>(
    connections: impl Iterator<Item = &'a Arc<Http2Connection>> + Clone,
) -> Option<Http2Lease> {
    let best = connections.clone().min_by_key(|connection| connection.streams())?;
    // The connection is full only if other requests were faster; then any other one is used.
    best.lease().or_else(|| connections.into_iter().find_map(Http2Connection::lease))
}
