//! The connections to the API server: in HTTP/2 one for each worker, and more where its streams are
//! used up; in HTTP/1.1 one per request in progress.
//!
//! No worker uses another's connections: no other thread has to be woken, the requests of one
//! worker are written together, and a connection waits for the events of its own worker only
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

/// HTTP/1.1 connections that were idle for this long are dropped when another one was lost: a load
/// balancer that forgets one idle connection has forgotten the others, too.
const DISTRUSTED: Duration = Duration::from_secs(1);
/// Sweeps after which an unused connection is closed, if it is not the only one.
const IDLE_SWEEPS: u32 = 3;

/// What a request holds of its connection until its answer has ended.
pub(super) enum Lease {
    Http2(Http2Lease),
    Http1(Http1Lease),
}

/// Whose requests a connection takes.
#[derive(Clone)]
pub(super) enum Owner {
    /// Those that a worker forwards: its bytes wait for the events of this sequence.
    Worker(CommitSequence),
    /// The proxy's own, made on one thread.
    Thread(ThreadId),
}

impl Owner {
    pub(super) fn of(sequence: &CommitSequence) -> Owner {
        match sequence.is_detached() {
            true => Owner::Thread(thread::current().id()),
            false => Owner::Worker(sequence.clone()),
        }
    }

    /// Whether a request with this sequence may use the connection.
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
    /// The last connection used HTTP/1.1, so each request needs its own connection.
    speaks_http1: AtomicBool,
    /// Held by the one who opens a connection while others wait for it.
    opening: Mutex<Option<Failure>>,
}

/// The last attempt's failure, which is also that of all who waited for it.
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

    /// A place on a connection that is open, unless one was `lost`: the others may be, too.
    pub(super) fn existing_unless(
        &self,
        lost: Option<Instant>,
        sequence: &CommitSequence,
    ) -> Option<Lease> {
        if lost.is_none() { self.existing(None, sequence) } else { None }
    }

    /// Whether the last connection spoke HTTP/1.1, so that each request needs one of its own.
    pub(super) fn speaks_http1(&self) -> bool {
        self.speaks_http1.load(Ordering::Relaxed)
    }

    /// A place for one request. A few atomics, except where a connection has to be opened.
    pub(super) async fn lease(&self, sequence: &CommitSequence) -> Result<Lease, SendError> {
        match self.existing(None, sequence) {
            Some(lease) => Ok(lease),
            // Rare, and too large to be a part of every request's future.
            None => Box::pin(self.open(None, sequence)).await,
        }
    }

    /// Returns a place on a connection that was opened after `lost`, when another one broke: the
    /// older ones may have been lost with it.
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

    /// Whether a connection can be had; opens one if there is none.
    pub(super) async fn check(&self) -> Result<(), SendError> {
        if self.http2.load().iter().any(|c| !c.is_closed()) || self.http1.has_open() {
            return Ok(());
        }
        if let Lease::Http1(lease) = self.lease(&CommitSequence::detached()).await? {
            lease.give_back();
        }
        Ok(())
    }

    /// No more requests on `connection`.
    pub(super) fn retire(&self, connection: &Http2Connection) {
        connection.close();
        self.http2.rcu(|all| all.iter().filter(|c| !c.is_closed()).cloned().collect::<Vec<_>>());
    }

    /// Reloads certificates. If one has changed, open connections take no more requests: the API
    /// server verifies a client certificate's expiry at every request. Returns whether one has.
    pub(super) fn refresh_tls(&self) -> bool {
        let changed = self.connector.target.tls.as_ref().is_some_and(|tls| tls.refresh());
        if changed {
            self.retire_all();
        }
        changed
    }

    /// No more requests on any connection that is open now.
    pub(super) fn retire_all(&self) {
        for connection in self.http2.swap(Arc::default()).iter() {
            connection.close();
        }
        self.http1.clear();
    }

    /// Drops closed connections, and those that have long been unused.
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

    /// A place on a connection that is open, and newer than that if need be.
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

    /// Opens a connection, and takes a place on it.
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
    // It can only be full by now if others were as quick; any will do then.
    best.lease().or_else(|| connections.into_iter().find_map(Http2Connection::lease))
}
