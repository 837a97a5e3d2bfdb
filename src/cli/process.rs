//! Starts all parts of the proxy, and shuts them down in order.

mod admin;
mod audit;
mod authentication;
mod follow;
mod upstream;

#[cfg(feature = "demo")]
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) use follow::Follow;

use super::{backends, sessions};
use crate::audit::record::AuditPipeline;
use crate::audit::summary::Summaries;
use crate::authorization::AuthorizationReviews;
use crate::config::{CertificateSource, Config, Serving};
use crate::file_watch::{POLL_INTERVAL, Reloaded};
use crate::filters::Filters;
use crate::impersonation::ImpersonationAuthorizer;
use crate::metrics::Metrics;
use crate::pipeline::Proxy;
use crate::server::certificates::ServingCertificate;
use crate::server::shutdown::{Shutdown, Timetable};
use crate::server::workers::Workers;
use crate::server::{limits, listener, self_signed, tls};
use crate::upstream::identity::Identity;

/// While another process listens on the same port: how long requests are accepted after the
/// listening socket was closed.
const CLOSING: Duration = Duration::from_millis(500);
/// Maximum time for dropped tasks to end, and for their records to be closed.
const ENDING: Duration = Duration::from_secs(2);
/// Maximum time for responses of the admin port to end.
const ADMIN_ENDING: Duration = Duration::from_millis(50);
/// Maximum time for an immediate shutdown.
pub(super) const AT_ONCE: Duration = Duration::from_millis(800);

/// A running proxy.
pub(crate) struct Process {
    #[cfg(feature = "demo")]
    addr: SocketAddr,
    #[cfg(feature = "demo")]
    admin_addr: SocketAddr,
    proxy: Arc<Proxy>,
    shutdown: Arc<Shutdown>,
    admin_shutdown: Shutdown,
    shutdown_delay: Duration,
    shutdown_timeout: Duration,
    /// Whether another process may listen on the same port.
    shares_port: bool,
    force_reload: watch::Sender<()>,
    workers: Arc<Workers>,
    summaries: Arc<Mutex<Summaries>>,
}

impl Process {
    /// Loads all files that `config` refers to, listens, and serves. `observer`, if there is one,
    /// also receives each audit event as a line. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Describes why the proxy cannot start, with the file or address and usually the remedy.
    pub(crate) async fn start(
        config: Config,
        observer: Option<UnboundedSender<Vec<u8>>>,
    ) -> anyhow::Result<Process> {
        pki::install_crypto_provider();
        let backend_names = config.audit.sinks.iter().map(|sink| sink.name.as_str());
        let metrics = Arc::new(Metrics::new(backend_names));
        let (force_reload, forced) = watch::channel(());
        let follow = Follow { metrics: metrics.clone(), forced };

        let policies = audit::policies(&config.audit.sinks, &follow)?;
        let as_front_proxy = config.upstream.identity == Identity::RequestHeader;
        let upstream = upstream::upstream(&config.upstream, &follow)?;
        let authenticator = authentication::authenticator(
            &config.authentication,
            &upstream,
            as_front_proxy,
            &follow,
        )?;
        let certificate = serving_certificate(&config.serving, &follow)?;
        let tls = tls::server_config(&config.serving.tls, certificate).context("TLS")?;
        let share_port = config.serving.share_port;
        let listener = listener::bind(config.serving.addr, share_port).context("--secure-port")?;
        let admin_listener = listener::bind(config.operation.admin_addr, share_port)
            .context("--admin-bind-address")?;
        let (addr, admin_addr) = (listener.local_addr()?, admin_listener.local_addr()?);

        let authorization = config.audit.authorization.map(|settings| {
            let metrics = metrics.authorization.clone();
            AuthorizationReviews::new(upstream.clone(), settings, metrics)
        });
        let sessions = sessions::recorder(config.sessions, &follow)?;
        let recorder = audit::recorder(config.audit, policies, observer, &follow)?;
        let filters = Filters::new(config.filters, metrics.filters.clone());
        filters.watch_deadlines();
        let proxy = Arc::new(Proxy {
            authenticator,
            recorder: Arc::new(recorder),
            trusted_proxies: config.authentication.trusted_proxies,
            identity: config.upstream.identity,
            original_user_extra: config.upstream.original_user_extra,
            impersonation_authorizer: ImpersonationAuthorizer::new(
                upstream.clone(),
                config.upstream.constrained_impersonation,
            ),
            authorization,
            upstream,
            filters,
            long_running: Default::default(),
            sessions,
        });

        let (shutdown, running) = Shutdown::new();
        let (admin_shutdown, admin_running) = Shutdown::new();
        let shutdown = Arc::new(shutdown);
        backends::spawn_monitor(&proxy.recorder, &metrics.backends);
        let summaries = spawn_summaries(proxy.recorder.clone());
        admin::serve(admin_listener, &proxy, &shutdown, metrics.clone(), admin_running);
        let sequence = |thread, runtime| proxy.recorder.commit_sequence(thread, runtime);
        let workers = Arc::new(Workers::start(sequence).context("threads for clients")?);
        let max_connections = limits::max_connections(config.serving.max_connections);
        let clients = listener::Clients::new(max_connections, config.serving.proxy_protocol);
        let (threads, handler) = (workers.clone(), proxy.clone());
        let metrics = metrics.server.clone();
        tokio::spawn(listener::serve(listener, clients, threads, tls, handler, metrics, running));
        tracing::info!(addr = %admin_addr, "admin");
        tracing::info!(%addr, upstream = &*proxy.upstream.authority(), "serving");
        let shutdown_delay = config.operation.shutdown_delay;
        let shutdown_timeout = config.operation.shutdown_timeout;
        Ok(Process {
            #[cfg(feature = "demo")]
            addr,
            #[cfg(feature = "demo")]
            admin_addr,
            proxy,
            shutdown,
            admin_shutdown,
            shutdown_delay,
            shutdown_timeout,
            shares_port: share_port,
            force_reload,
            workers,
            summaries,
        })
    }

    /// The address for clients.
    #[cfg(feature = "demo")]
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address for health checks and metrics.
    #[cfg(feature = "demo")]
    pub(crate) fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Reloads all watched files, and reopens log files.
    pub(crate) fn reload(&self) {
        tracing::info!("reloading all files");
        self.force_reload.send_replace(());
        self.proxy.recorder.sinks().iter().for_each(|sink| sink.backend.reopen());
    }

    /// Fails `/readyz` for `--shutdown-delay-duration` while requests are still accepted, then
    /// calls [`Process::shutdown`]. When `at_once` is ready, both are cut short.
    pub(crate) async fn leave(self, at_once: impl Future<Output = ()>) {
        self.shutdown.leave();
        let mut at_once = std::pin::pin!(at_once);
        if !self.shutdown_delay.is_zero() {
            tracing::info!(delay = ?self.shutdown_delay, "shutting down after the delay; until then /readyz fails and requests are accepted");
            tokio::select! {
                () = tokio::time::sleep(self.shutdown_delay) => {}
                () = at_once.as_mut() => return self.shutdown(std::future::ready(())).await,
            }
        }
        self.shutdown(at_once).await;
    }

    /// Shuts down within `--shutdown-timeout`: accepts no new requests, lets requests in flight
    /// finish, then lets the backends deliver queued events. What does not finish in its part of
    /// the time ([`Timetable`]) is dropped; undelivered events are counted and logged for each
    /// backend. When `at_once` is ready, the shutdown takes at most [`AT_ONCE`].
    pub(crate) async fn shutdown(self, at_once: impl Future<Output = ()>) {
        let mut timetable = Timetable::new(Instant::now(), self.shutdown_timeout);
        let mut at_once = std::pin::pin!(at_once);
        let mut is_hurried = false;
        if self.shares_port {
            // New connections go to the other process; the last accepted ones get a response.
            self.shutdown.close();
            let closing = CLOSING.min(self.shutdown_timeout / 10);
            tokio::select! {
                () = tokio::time::sleep(closing) => {}
                () = &mut at_once => {
                    is_hurried = true;
                    timetable = timetable.hurried(Instant::now(), AT_ONCE);
                }
            }
        }
        self.shutdown.drain();
        self.proxy.end_long_running();
        tokio::select! {
            () = self.all_ended() => {}
            () = tokio::time::sleep_until(timetable.requests) => {
                tracing::warn!(
                    timeout = ?self.shutdown_timeout,
                    "requests in flight are aborted because --shutdown-timeout is almost over"
                );
            }
            () = &mut at_once, if !is_hurried => {
                tracing::warn!("shutting down immediately, requests in flight are aborted");
                is_hurried = true;
                timetable = timetable.hurried(Instant::now(), AT_ONCE);
            }
        }
        self.shutdown.end();
        // Dropping requests closes their records; after that, no more events are submitted.
        let left = timetable.backends.saturating_duration_since(Instant::now());
        if tokio::time::timeout(ENDING.min(left / 2), self.all_ended()).await.is_err() {
            tracing::error!("requests did not end in time, their last events may be missing");
        }
        drop(self.workers);
        if tokio::time::timeout(ENDING, self.proxy.recorder.converted()).await.is_err() {
            tracing::error!(
                "bodies are still being converted, the events of their requests may be missing"
            );
        }
        // Events that rate limits have suppressed so far.
        lock(&self.summaries).write(&self.proxy.recorder, true);
        let give_up = CancellationToken::new();
        let sinks = self.proxy.recorder.sinks().iter();
        let sinks = sinks.map(|sink| sink.backend.shutdown(&give_up));
        let mut sinks = std::pin::pin!(futures_util::future::join_all(sinks));
        loop {
            tokio::select! {
                biased;
                _ = &mut sinks => break,
                () = tokio::time::sleep_until(timetable.backends), if !give_up.is_cancelled() => {
                    tracing::warn!("backends have not delivered everything in time");
                    give_up.cancel();
                }
                () = tokio::time::sleep_until(timetable.end) => break,
                () = &mut at_once, if !is_hurried => {
                    is_hurried = true;
                    timetable = timetable.hurried(Instant::now(), AT_ONCE);
                }
            }
        }
        // Including events that were submitted after their backend had shut down.
        self.proxy.recorder.sinks().iter().for_each(|sink| sink.backend.flush_losses());
        self.admin_shutdown.end();
        let _ = tokio::time::timeout(ADMIN_ENDING, self.admin_shutdown.all_ended()).await;
        tracing::info!("shutdown complete");
    }

    async fn all_ended(&self) {
        self.shutdown.all_ended().await;
        self.proxy.upgraded_ended().await;
    }
}

/// Writes summaries of suppressed events when the windows of rate limits end.
fn spawn_summaries(recorder: Arc<AuditPipeline>) -> Arc<Mutex<Summaries>> {
    let summaries = Arc::new(Mutex::new(Summaries::default()));
    let shared = Arc::downgrade(&summaries);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let Some(summaries) = shared.upgrade() else { return };
            lock(&summaries).write(&recorder, false);
        }
    });
    summaries
}

fn lock(summaries: &Mutex<Summaries>) -> MutexGuard<'_, Summaries> {
    summaries.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serving_certificate(
    serving: &Serving,
    follow: &Follow,
) -> anyhow::Result<Arc<ServingCertificate>> {
    let (certificate, key) = match &serving.certificate {
        CertificateSource::Files { certificate, key } => (certificate.clone(), key.clone()),
        CertificateSource::SelfSigned(dir) => self_signed::ensure(dir, serving.addr.ip())?,
    };
    let watcher = ServingCertificate::watcher(&certificate, &key);
    let serving = ServingCertificate::load(&certificate, &key).context("--tls-cert-file")?;
    let serving = Arc::new(serving);
    let followed = serving.clone();
    follow.spawn(Reloaded::ServingCertificate, watcher, move || followed.reload());
    Ok(serving)
}
