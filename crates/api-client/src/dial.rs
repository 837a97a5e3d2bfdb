//! TCP connections to a host that may have several addresses (RFC 8305, "Happy Eyeballs").
//!
//! All control-plane and data-plane connections are opened here: to the API server, webhooks, and
//! OIDC issuers. The address that accepted a connection is cached for the whole process, so that a
//! dead first address delays one connection and not one on each thread.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// The delay before the next address is tried while the previous attempts are pending (RFC 8305,
/// section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The shortest such delay, for hosts with so many addresses that the deadline has to be divided.
const MIN_ATTEMPT_DELAY: Duration = Duration::from_millis(20);
/// How long the address that accepted a connection is tried first. After that, the resolver's order
/// applies again, so that traffic returns to a preferred address that has recovered.
const WINNER_TTL: Duration = Duration::from_secs(60);

/// An idle connection is probed after this time, and then at this interval.
const KEEPALIVE_TIME: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// How long sent data may stay unacknowledged before the kernel closes the connection. As long as
/// client-go waits for a dead HTTP/2 connection: 30 s until the PING, 15 s for its response.
const USER_TIMEOUT: Duration = Duration::from_secs(45);

/// The last address that accepted a connection, by host and port.
static WINNERS: LazyLock<Mutex<Winners>> = LazyLock::new(Mutex::default);

type Winners = HashMap<(Box<str>, u16), Winner>;

#[derive(Clone, Copy)]
struct Winner {
    address: SocketAddr,
    since: Instant,
}

/// The addresses of a host in the order in which they are tried.
pub struct Addresses {
    host: Box<str>,
    port: u16,
    list: Vec<SocketAddr>,
    /// Whether there was a choice.
    are_several: bool,
}

impl Addresses {
    /// Resolves `host`. The address that last accepted a connection comes first, the others
    /// alternate between IPv6 and IPv4.
    ///
    /// # Errors
    /// Returns the resolver's error, or `NotFound` if the host has no address.
    pub async fn resolve(host: &str, port: u16) -> io::Result<Addresses> {
        let mut list = interleaved(lookup(host, port).await?.into_iter());
        if list.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no addresses"));
        }
        let host: Box<str> = host.into();
        let known = winners().get(&(host.clone(), port)).copied();
        if let Some(winner) = known.filter(|winner| winner.since.elapsed() < WINNER_TTL)
            && let Some(at) = list.iter().position(|address| *address == winner.address)
        {
            list[..=at].rotate_right(1);
        }
        let are_several = list.len() > 1;
        Ok(Addresses { host, port, list, are_several })
    }

    /// Exactly this address.
    pub fn fixed(address: SocketAddr) -> Addresses {
        let (host, list) = (Box::default(), vec![address]);
        Addresses { host, port: address.port(), list, are_several: false }
    }

    /// Returns the number of addresses that have not been ruled out.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Connects to the first address that accepts a connection.
    ///
    /// # Errors
    /// If all addresses fail: the error of the one that was tried first. `TimedOut` at the
    /// `deadline`.
    pub async fn connect(&self, deadline: Instant) -> io::Result<(TcpStream, SocketAddr)> {
        let connected = race(&self.list, deadline, TcpStream::connect).await;
        let (tcp, address) = connected?;
        tcp.set_nodelay(true)?;
        keep_alive(&tcp);
        Ok((tcp, address))
    }

    /// Remembers that the server at `address` works.
    pub fn succeeded(&self, address: SocketAddr) {
        if !self.are_several {
            return;
        }
        let key = (self.host.clone(), self.port);
        let mut winners = winners();
        // A winner that is still in use keeps its age: the others are to be tried again one day.
        let since = match winners.get(&key) {
            Some(known) if known.address == address && known.since.elapsed() < WINNER_TTL => return,
            _ => Instant::now(),
        };
        winners.insert(key, Winner { address, since });
    }

    /// Rules out `address`, which accepts TCP connections and nothing more.
    pub fn rule_out(&mut self, address: SocketAddr) {
        self.list.retain(|known| *known != address);
        let key = (self.host.clone(), self.port);
        let mut winners = winners();
        if winners.get(&key).is_some_and(|winner| winner.address == address) {
            winners.remove(&key);
        }
    }
}

/// Connects to `host` within `timeout`.
///
/// # Errors
/// See [`Addresses::resolve`] and [`Addresses::connect`].
pub async fn dial(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + timeout;
    let connecting = async {
        let addresses = Addresses::resolve(host, port).await?;
        let (tcp, address) = addresses.connect(deadline).await?;
        addresses.succeeded(address);
        Ok(tcp)
    };
    match tokio::time::timeout_at(deadline, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Returns all addresses of `host`.
///
/// # Errors
/// Returns the resolver's error.
pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    #[cfg(any(test, feature = "testing"))]
    if let Some(addresses) = overrides::of(host) {
        return Ok(addresses);
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

fn winners() -> MutexGuard<'static, Winners> {
    WINNERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Alternates between the address families, beginning with that of the first address; the
/// resolver's order is kept within each (RFC 8305, section 4).
fn interleaved(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    let first_is_ipv6 = all.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (VecDeque<_>, VecDeque<_>) =
        all.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let (mut first, mut second) = (first, second);
    let mut list = Vec::with_capacity(first.len() + second.len());
    while !first.is_empty() || !second.is_empty() {
        list.extend(first.pop_front());
        list.extend(second.pop_front());
    }
    list
}

/// Starts one attempt after the other, without waiting for the previous one longer than the attempt
/// delay; a failed attempt starts the next at once. The first success ends all others.
async fn race<T, F>(
    addresses: &[SocketAddr],
    deadline: Instant,
    attempt: impl Fn(SocketAddr) -> F,
) -> io::Result<(T, SocketAddr)>
where
    F: Future<Output = io::Result<T>>,
{
    let left = deadline.saturating_duration_since(Instant::now());
    let share = left / u32::try_from(addresses.len() + 1).unwrap_or(u32::MAX);
    let delay = share.clamp(MIN_ATTEMPT_DELAY, ATTEMPT_DELAY);
    let mut waiting = addresses.iter().copied();
    let mut running = FuturesUnordered::new();
    let mut first_error: Option<(SocketAddr, io::Error)> = None;
    let mut next_at = Instant::now();
    loop {
        if (running.is_empty() || next_at <= Instant::now())
            && let Some(address) = waiting.next()
        {
            let connecting = attempt(address);
            running.push(async move { (address, connecting.await) });
            next_at = Instant::now() + delay;
        }
        let wake_at = if waiting.len() > 0 { next_at.min(deadline) } else { deadline };
        tokio::select! {
            biased;
            ended = running.next() => match ended {
                Some((address, Ok(connected))) => return Ok((connected, address)),
                Some((address, Err(error))) => {
                    let is_first = address == addresses[0];
                    if first_error.is_none() || is_first {
                        first_error = Some((address, error));
                    }
                    next_at = Instant::now();
                }
                None => return Err(all_failed(addresses, first_error)),
            },
            () = tokio::time::sleep_until(wake_at) => {
                if Instant::now() >= deadline {
                    return Err(timed_out(addresses, first_error));
                }
            }
        }
    }
}

fn all_failed(addresses: &[SocketAddr], error: Option<(SocketAddr, io::Error)>) -> io::Error {
    match error {
        Some((_, error)) if addresses.len() == 1 => error,
        Some((address, error)) => {
            let text = format!("{error} ({address}; {} addresses failed)", addresses.len());
            io::Error::new(error.kind(), text)
        }
        None => io::ErrorKind::NotFound.into(),
    }
}

fn timed_out(addresses: &[SocketAddr], error: Option<(SocketAddr, io::Error)>) -> io::Error {
    let text = match (addresses, error) {
        ([address], _) => format!("{address} does not respond"),
        (all, None) => format!("none of {} addresses responds", all.len()),
        (all, Some((address, error))) => {
            format!("none of {} addresses responds; {address}: {error}", all.len())
        }
    };
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// Makes the kernel close the connection when the peer is unreachable. Failures are ignored.
fn keep_alive(tcp: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let socket = SockRef::from(tcp);
    if let Err(error) = socket.set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "TCP keepalive is not available");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = socket.set_tcp_user_timeout(Some(USER_TIMEOUT)) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT is not available");
    }
}

/// Hosts that tests give addresses to.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
#[allow(clippy::unwrap_used, reason = "only for tests")]
pub mod overrides {
    use super::*;

    static HOSTS: Mutex<Vec<(String, Vec<SocketAddr>)>> = Mutex::new(Vec::new());

    /// Makes `host` resolve to `addresses`.
    pub fn resolve(host: &str, addresses: Vec<SocketAddr>) {
        HOSTS.lock().unwrap().push((host.to_owned(), addresses));
    }

    /// Returns the address of `host` that is tried first now.
    pub async fn first(host: &str) -> SocketAddr {
        let port = of(host).unwrap()[0].port();
        Addresses::resolve(host, port).await.unwrap().list[0]
    }

    pub fn of(host: &str) -> Option<Vec<SocketAddr>> {
        let hosts = HOSTS.lock().unwrap();
        hosts.iter().find(|(known, _)| known == host).map(|(_, addresses)| addresses.clone())
    }
}

#[cfg(test)]
mod tests;
