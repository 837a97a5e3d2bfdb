//! The connections to one server, with the TLS settings of now.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioTimer;
use tokio::runtime::Handle;

use super::connect::Connector;
use crate::target::Target;

/// Like client-go: a PING after so long without a frame, and the wait for its acknowledgement.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));
/// Connections without a request are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// The client of hyper-util, which has the connections.
pub(super) type Http = Client<Connector, Full<Bytes>>;

/// Connections to a server, all to the same address if there is one, and the state of the TLS
/// settings that they were made with.
pub(super) struct HttpPool {
    target: Arc<Target>,
    address: Option<SocketAddr>,
    http: ArcSwap<Http>,
    tls_generation: AtomicU64,
}

/// Runs a client's connections on one runtime.
#[derive(Clone)]
struct Executor(Handle);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Waits with the clock of one runtime. A [`TokioTimer`] belongs to the runtime that it is used on:
/// a connection that a request of a worker thread opened would panic when the thread has ended.
#[derive(Clone)]
struct Timer(Handle);

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        let _runtime = self.0.enter();
        TokioTimer::new().sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        let _runtime = self.0.enter();
        TokioTimer::new().sleep_until(deadline)
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: Instant) {
        let _runtime = self.0.enter();
        TokioTimer::new().reset(sleep, deadline);
    }

    fn now(&self) -> Instant {
        TokioTimer::new().now()
    }
}

impl HttpPool {
    pub(super) fn new(
        target: Arc<Target>,
        address: Option<SocketAddr>,
        runtime: &Handle,
    ) -> HttpPool {
        let tls_generation = AtomicU64::new(tls_generation(&target));
        let http = ArcSwap::from_pointee(new_http(Arc::clone(&target), address, runtime));
        HttpPool { target, address, http, tls_generation }
    }

    /// Returns the client. After certificates have changed it is a new one without connections.
    pub(super) fn client(&self, runtime: &Handle) -> Arc<Http> {
        let generation = tls_generation(&self.target);
        if self.tls_generation.swap(generation, Ordering::AcqRel) != generation {
            self.reset(runtime);
        }
        self.http.load_full()
    }

    /// Sends no more requests on connections that are open now.
    pub(super) fn reset(&self, runtime: &Handle) {
        self.http.store(Arc::new(new_http(Arc::clone(&self.target), self.address, runtime)));
    }
}

fn tls_generation(target: &Target) -> u64 {
    target.tls.as_ref().map_or(0, |tls| tls.generation())
}

fn new_http(target: Arc<Target>, address: Option<SocketAddr>, runtime: &Handle) -> Http {
    let (interval, timeout) = KEEP_ALIVE;
    Client::builder(Executor(runtime.clone()))
        .timer(Timer(runtime.clone()))
        .pool_timer(Timer(runtime.clone()))
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http2_keep_alive_interval(interval)
        .http2_keep_alive_timeout(timeout)
        .http2_keep_alive_while_idle(true)
        .build(Connector { target, address, runtime: runtime.clone() })
}

#[cfg(test)]
mod tests {
    use hyper::rt::Timer as _;
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_connection_may_outlive_the_thread_that_opened_it() {
        let runtime = |mut builder: Builder| builder.enable_all().build().unwrap();
        let lasting = runtime(Builder::new_multi_thread());
        let ended = runtime(Builder::new_current_thread());
        let timer = Timer(lasting.handle().clone());
        let set = async {
            let later = Instant::now() + Duration::from_millis(1);
            let mut again = timer.sleep(Duration::from_secs(60));
            timer.reset(&mut again, later);
            [timer.sleep(Duration::from_millis(1)), timer.sleep_until(later), again]
        };
        let waits = ended.block_on(set);
        drop(ended);
        for wait in waits {
            lasting.block_on(wait);
        }
    }
}
