//! Several addresses of one API server, and which of them are healthy.
//!
//! An [`EndpointSet`] has one [`Member`] for each address: those of the configured servers, and all
//! addresses of a host name that has several. A set with a single member does nothing: no health
//! checks, and connections are opened by the name of the server. From the second member on the set
//! is balanced, for good. Then each member has a task that checks its health (`health`), and host
//! names are resolved again every 10 seconds.

mod health;
mod member;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::member::{AwaitingResponse, Failure, Health, InFlight, Member};
use crate::config::ClientConfig;
use crate::dial::lookup;
use crate::error::ConfigError;
use crate::target::Target;

/// Host names are resolved again after this time.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(10);
/// An address that a host name no longer has is kept for this time: resolvers that rotate return
/// only some of the addresses each time.
const ABSENCE: Duration = Duration::from_secs(60);
/// The most members; further addresses are ignored.
const MAX_MEMBERS: usize = 64;

/// The addresses of an API server.
pub struct EndpointSet {
    /// One for each configured server.
    targets: Vec<Arc<Target>>,
    members: ArcSwap<Vec<Arc<Member>>>,
    /// Held while members are replaced.
    replacing: Mutex<()>,
    is_balanced: AtomicBool,
    is_closed: AtomicBool,
    /// Whether health checks name a user, which a front proxy's certificate does not.
    is_front_proxy: bool,
    next: AtomicUsize,
    came_up: Notify,
    runtime: Handle,
}

impl EndpointSet {
    /// Reads the certificates of `config`, and starts to resolve host names until the set is
    /// dropped. Must be called within a tokio runtime, on which connections of the proxy's own
    /// requests live.
    ///
    /// # Errors
    /// Returns an error for certificates and keys that cannot be used, with file and field.
    pub fn new(config: ClientConfig) -> Result<Arc<EndpointSet>, ConfigError> {
        let is_front_proxy = config.is_front_proxy;
        let targets: Vec<_> = Target::all(config)?.into_iter().map(Arc::new).collect();
        let set = Arc::new(EndpointSet {
            targets,
            members: ArcSwap::default(),
            replacing: Mutex::new(()),
            is_balanced: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            is_front_proxy,
            next: AtomicUsize::new(0),
            came_up: Notify::new(),
            runtime: Handle::current(),
        });
        let fixed = set.targets.iter().flat_map(|target| set.unresolved(target)).collect();
        set.replace_members(fixed);
        if set.targets.iter().any(|target| is_name(target)) {
            tokio::spawn(resolve_names(Arc::downgrade(&set)));
        }
        Ok(set)
    }

    /// Ends health checks and the resolution of names: another set has replaced this one.
    pub fn close(&self) {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_closed.store(true, Ordering::Relaxed);
        self.members().iter().for_each(|member| member.remove());
    }

    /// Returns the first configured server. Its credentials and certificates are those of all.
    pub fn target(&self) -> &Arc<Target> {
        &self.targets[0]
    }

    /// Host and port of the servers, as configured.
    pub fn name(&self) -> Arc<str> {
        match self.targets.as_slice() {
            [one] => Arc::clone(&one.name),
            all => all.iter().map(|target| &*target.name).collect::<Vec<_>>().join(", ").into(),
        }
    }

    /// Returns whether there are several members, or have been.
    pub fn is_balanced(&self) -> bool {
        self.is_balanced.load(Ordering::Relaxed)
    }

    /// Returns the members.
    pub fn members(&self) -> Guard<Arc<Vec<Arc<Member>>>> {
        self.members.load()
    }

    /// Returns the members in the order in which a request should try them: healthy ones first,
    /// then those that may be, and among equals the one with the fewest requests in flight.
    pub fn in_order(&self) -> Vec<Arc<Member>> {
        let members = self.members();
        let mut order: Vec<_> = members.iter().cloned().collect();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % order.len().max(1);
        order.rotate_left(first);
        order.sort_by_key(|member| member.rank());
        order
    }

    /// Waits until a member becomes healthy, at most for `time`.
    pub async fn came_up(&self, time: Duration) {
        let _ = tokio::time::timeout(time, self.came_up.notified()).await;
    }

    /// Describes the members that are not healthy; `Ok` if all are, or there is only one.
    ///
    /// # Errors
    /// Their addresses and what is wrong with each.
    pub fn all_healthy(&self) -> Result<(), String> {
        let members = self.members();
        if !self.is_balanced() {
            return Ok(());
        }
        let faults: Vec<_> = members.iter().filter_map(|member| member.fault()).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }

    /// Returns the members of a server before its name is resolved.
    fn unresolved(&self, target: &Arc<Target>) -> Vec<Arc<Member>> {
        let address = match (&target.proxy, target.endpoint.host.parse::<IpAddr>()) {
            (None, Ok(ip)) => Some(SocketAddr::new(ip, target.endpoint.port)),
            _ => None,
        };
        vec![Arc::new(Member::new(Arc::clone(target), address, &self.runtime))]
    }

    fn replace_members(self: &Arc<Self>, mut all: Vec<Arc<Member>>) {
        let mut seen = Vec::new();
        all.retain(|member| {
            let key = (member.address(), Arc::clone(member.name()));
            let is_new = !seen.contains(&key);
            if is_new {
                seen.push(key);
            }
            is_new
        });
        all.truncate(MAX_MEMBERS);
        if all.len() > 1 {
            self.is_balanced.store(true, Ordering::Relaxed);
        }
        if self.is_balanced() {
            for member in &all {
                if member.start() {
                    let set = Arc::downgrade(self);
                    self.runtime.spawn(health::watch(set, Arc::clone(member)));
                }
            }
        }
        let old = self.members.swap(Arc::new(all));
        let now = self.members();
        for gone in old.iter().filter(|old| !now.iter().any(|new| Arc::ptr_eq(old, new))) {
            gone.remove();
        }
    }

    /// Resolves all names, and replaces the members if there are others.
    async fn resolve(self: &Arc<Self>) {
        let mut found = Vec::new();
        for target in &self.targets {
            let known: Vec<_> = {
                let members = self.members();
                members.iter().filter(|m| Arc::ptr_eq(m.target(), target)).cloned().collect()
            };
            if !is_name(target) {
                found.extend(known);
                continue;
            }
            let (host, port) = (target.endpoint.host.as_str(), target.endpoint.port);
            let addresses = match lookup(host, port).await {
                Ok(addresses) if !addresses.is_empty() => addresses,
                // A resolver that fails does not take addresses away that work.
                _ => {
                    found.extend(known);
                    continue;
                }
            };
            // The only address of the only server stays unresolved: it is found at each connection.
            if addresses.len() == 1 && self.targets.len() == 1 && !self.is_balanced() {
                found.extend(known);
                continue;
            }
            let now = Instant::now();
            for address in addresses {
                match known.iter().find(|member| member.address() == Some(address)) {
                    Some(member) => {
                        member.seen(now);
                        found.push(Arc::clone(member));
                    }
                    None => {
                        let member = Member::new(Arc::clone(target), Some(address), &self.runtime);
                        tracing::info!(server = %target.name, %address, "API server address found");
                        found.push(Arc::new(member));
                    }
                }
            }
            let is_kept = |member: &&Arc<Member>| {
                member.address().is_some() && member.unseen_for(now) < ABSENCE
            };
            let absent: Vec<_> = known.iter().filter(is_kept).cloned().collect();
            for member in absent {
                if !found.iter().any(|known| Arc::ptr_eq(known, &member)) {
                    found.push(member);
                }
            }
        }
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = {
            let members = self.members();
            members.len() == found.len()
                && found.iter().all(|f| members.iter().any(|m| Arc::ptr_eq(m, f)))
        };
        if !is_same && !self.is_closed.load(Ordering::Relaxed) {
            self.replace_members(found);
        }
    }
}

impl Drop for EndpointSet {
    fn drop(&mut self) {
        self.close();
    }
}

/// Returns whether the server's host is a name that the proxy has to resolve.
fn is_name(target: &Target) -> bool {
    target.proxy.is_none() && target.endpoint.host.parse::<IpAddr>().is_err()
}

async fn resolve_names(set: Weak<EndpointSet>) {
    loop {
        let Some(alive) = set.upgrade() else { return };
        if alive.is_closed.load(Ordering::Relaxed) {
            return;
        }
        alive.resolve().await;
        drop(alive);
        tokio::time::sleep(RESOLVE_INTERVAL).await;
    }
}

impl std::fmt::Debug for EndpointSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EndpointSet").field(&self.name()).finish()
    }
}
