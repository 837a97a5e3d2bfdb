//! Connections to an API server with several addresses: one pool for each address, and the
//! selection among them.
//!
//! A request goes to the healthy address with the fewest requests in flight. It does not wait for a
//! connection if its worker has one to another healthy address: the missing one is opened in the
//! background. If there is none at all, connections to several addresses are opened at once, each
//! 250 ms after the previous one or when that fails, and the first that opens is used.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api_client::EndpointSet;
use api_client::endpoint_set::{Failure, Health, Member};
use arc_swap::ArcSwap;
use audit_log::CommitSequence;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::connect::Connector;
use super::error::SendError;
use super::metrics::UpstreamMetrics;
use super::pool::{Lease, Owner, Pool};

/// The delay before a connection to the next address is opened as well (RFC 8305, section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// One address, and the connections to it.
pub(super) struct Backend {
    pub(super) member: Arc<Member>,
    pub(super) pool: Pool,
    /// The workers for which a connection is being opened in the background.
    opening: Mutex<Vec<Owner>>,
}

/// The addresses, and the pools of each.
struct Backends {
    members: Arc<Vec<Arc<Member>>>,
    /// In the order of the members.
    list: Vec<Arc<Backend>>,
}

/// All addresses of the API server, with the connections to them.
pub(super) struct Balancer {
    endpoints: Arc<EndpointSet>,
    metrics: Arc<UpstreamMetrics>,
    backends: ArcSwap<Backends>,
    replacing: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_one_of(member: &Arc<Member>, members: &[Arc<Member>]) -> bool {
    members.iter().any(|known| Arc::ptr_eq(known, member))
}

impl Balancer {
    pub(super) fn new(endpoints: Arc<EndpointSet>, metrics: Arc<UpstreamMetrics>) -> Balancer {
        let backends = Backends { members: Arc::default(), list: Vec::new() };
        let (backends, replacing) = (ArcSwap::from_pointee(backends), Mutex::new(()));
        Balancer { endpoints, metrics, backends, replacing }
    }

    pub(super) fn endpoints(&self) -> &Arc<EndpointSet> {
        &self.endpoints
    }

    /// Returns the pools of the current members.
    fn backends(&self) -> Arc<Backends> {
        let known = self.backends.load();
        if Arc::ptr_eq(&known.members, &self.endpoints.members()) {
            return Arc::clone(&known);
        }
        let _replacing = lock(&self.replacing);
        let (known, members) = (self.backends.load_full(), Arc::clone(&self.endpoints.members()));
        let of = |member: &Arc<Member>| {
            let known = known.list.iter().find(|known| Arc::ptr_eq(&known.member, member));
            known.cloned().unwrap_or_else(|| Arc::new(Backend::new(member, &self.metrics)))
        };
        let list: Vec<_> = members.iter().map(of).collect();
        for gone in known.list.iter().filter(|k| !list.iter().any(|b| Arc::ptr_eq(k, b))) {
            gone.pool.retire_all();
        }
        let backends = Arc::new(Backends { members, list });
        self.backends.store(Arc::clone(&backends));
        backends
    }

    /// Returns the pools in the order in which a request should try them; those of members to
    /// `avoid` come last.
    pub(super) fn in_order(&self, avoid: &[Arc<Member>]) -> Vec<Arc<Backend>> {
        let backends = self.backends();
        let mut order = self.endpoints.in_order();
        order.sort_by_key(|member| (member.rank().0, is_one_of(member, avoid)));
        let pool =
            |member: &Arc<Member>| backends.list.iter().find(|b| Arc::ptr_eq(&b.member, member));
        order.iter().filter_map(|member| pool(member).cloned()).collect()
    }

    /// Returns whether another address than `member` is healthy.
    pub(super) fn has_other(&self, member: &Arc<Member>) -> bool {
        let members = self.endpoints.members();
        members.iter().any(|other| other.is_usable() && !Arc::ptr_eq(other, member))
    }

    /// Leases a place for one request; if possible not on the members to `avoid`, and on a
    /// connection that was opened after `lost`.
    pub(super) async fn lease(
        &self,
        avoid: &[Arc<Member>],
        lost: Option<Instant>,
        sequence: &CommitSequence,
    ) -> Result<(Arc<Backend>, Lease), SendError> {
        let order = self.in_order(avoid);
        // Members with the same health as the best one are equally good.
        let best = order.first().map_or(Health::Unknown, |backend| backend.member.rank().0);
        let is_as_good = |backend: &&Arc<Backend>| {
            backend.member.rank().0 == best && !is_one_of(&backend.member, avoid)
        };
        for backend in order.iter().take_while(is_as_good) {
            if let Some(lease) = backend.pool.existing_unless(lost, sequence) {
                return Ok((Arc::clone(backend), lease));
            }
            if lost.is_some() || backend.pool.speaks_http1() {
                break;
            }
            backend.open_in_background(sequence);
        }
        first_of(&order, |backend| async move {
            match lost {
                Some(lost) => backend.pool.lease_newer(lost, sequence).await,
                None => backend.pool.lease(sequence).await,
            }
        })
        .await
    }

    /// Returns whether the API server can be reached.
    pub(super) async fn check(&self) -> Result<(), SendError> {
        if self.endpoints.members().iter().any(|member| member.health() == Health::Healthy) {
            return Ok(());
        }
        let (_, lease) = self.lease(&[], None, &CommitSequence::detached()).await?;
        if let Lease::Http1(lease) = lease {
            lease.give_back();
        }
        Ok(())
    }

    /// Sends no more requests on connections that are open now.
    pub(super) fn retire_all(&self) {
        self.backends.load().list.iter().for_each(|backend| backend.pool.retire_all());
    }

    /// Drops closed connections, and those that have been unused for long.
    pub(super) fn sweep(&self) {
        if self.endpoints.is_balanced() {
            self.backends().list.iter().for_each(|backend| backend.pool.sweep());
        }
    }
}

impl Backend {
    fn new(member: &Arc<Member>, metrics: &Arc<UpstreamMetrics>) -> Backend {
        let (target, metrics) = (Arc::clone(member.target()), Arc::clone(metrics));
        let connector = Connector { target, metrics, member: Some(Arc::clone(member)) };
        let (member, opening) = (Arc::clone(member), Mutex::default());
        Backend { member, pool: Pool::new(connector), opening }
    }

    /// Opens a connection for the worker with this sequence, unless one is being opened already.
    fn open_in_background(self: &Arc<Self>, sequence: &CommitSequence) {
        let mut opening = lock(&self.opening);
        if opening.iter().any(|owner| owner.takes(sequence)) {
            return;
        }
        opening.push(Owner::of(sequence));
        drop(opening);
        let (backend, sequence) = (Arc::clone(self), sequence.clone());
        tokio::spawn(async move {
            match backend.pool.lease(&sequence).await {
                Ok(Lease::Http1(lease)) => lease.give_back(),
                Ok(Lease::Http2(_)) => {}
                Err(error) => backend.not_connected(&error),
            }
            lock(&backend.opening).retain(|owner| !owner.takes(&sequence));
        });
    }

    /// Records that no connection could be opened.
    fn not_connected(&self, error: &SendError) {
        tracing::debug!(endpoint = &**self.member.name(), %error, "cannot connect to the API server");
        self.member.failed(Failure::Connect);
    }
}

/// Returns the first result of `open` for one of `backends`. `open` is called for the first one,
/// and for the next one when the previous call has failed or takes longer than the attempt delay.
pub(super) async fn first_of<T, F>(
    backends: &[Arc<Backend>],
    open: impl Fn(Arc<Backend>) -> F,
) -> Result<(Arc<Backend>, T), SendError>
where
    F: Future<Output = Result<T, SendError>>,
{
    let mut waiting = backends.iter();
    let mut running = FuturesUnordered::new();
    let mut first_error = None;
    let mut next_at = tokio::time::Instant::now();
    loop {
        if (running.is_empty() || next_at <= tokio::time::Instant::now())
            && let Some(backend) = waiting.next()
        {
            let opening = open(Arc::clone(backend));
            running.push(async move { (backend, opening.await) });
            next_at = tokio::time::Instant::now() + ATTEMPT_DELAY;
        }
        tokio::select! {
            biased;
            ended = running.next() => match ended {
                Some((backend, Ok(opened))) => return Ok((Arc::clone(backend), opened)),
                Some((backend, Err(error))) => {
                    backend.not_connected(&error);
                    first_error.get_or_insert(error);
                    next_at = tokio::time::Instant::now();
                }
                None => {
                    return Err(first_error.unwrap_or(SendError::Timeout {
                        waiting_for: "an address of the API server",
                        sent: false,
                    }));
                }
            },
            () = tokio::time::sleep_until(next_at), if waiting.len() > 0 => {}
        }
    }
}
