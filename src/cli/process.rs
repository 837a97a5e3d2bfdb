//! All rooms put together, running; and their end in the right order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{backends, sessions};
use crate::audit::record::{AuditSink, Backend, Encoding, Format, Recorder};
use crate::audit::recording::BodySettings;
use crate::audit::summary::Summaries;
use crate::authn::{
    Anonymous, AuthenticationConfigFile, Authenticator, ClientCa, ClientCaError, JwtAuthenticators,
    JwtSettings, RequestHeader, ServiceAccounts, TokenCache, TokenFile, TokenReview, Tokens,
    UserInfo, issuers_or_usual, upstream_keys,
};
use crate::authorization::AuthorizationReviews;
use crate::config::{
    Audit, Authentication, BackendSettings, Bodies, CertificateSource, Config, Issuers, Serving,
    SinkSettings,
};
use crate::file_watch::Reloaded;
use crate::file_watch::{FileWatcher, POLL_INTERVAL};
use crate::filters::Filters;
use crate::impersonation::Reviewer;
use crate::metrics::Metrics;
use crate::pipeline::Proxy;
use crate::policy::{PolicyFile, PolicyHandle};
use crate::server::admin::{Admin, Check};
use crate::server::certificates::ServingCertificate;
use crate::server::shutdown::{Phase, Running, Shutdown, Timetable};
use crate::server::workers::Workers;
use crate::server::{admin, limits, listener, reload, self_signed, tls};
use crate::upstream::access::Access;
use crate::upstream::identity::Identity;
use crate::upstream::{
    ConfigError, KubeconfigFile, ReloadTarget, Upstream, UpstreamConfig, UpstreamSource,
    WebhookEndpoint,
};
use api_client::ApiClient;
use audit_body::Budget;
use audit_log::LogBackend;
use audit_log::stream::StreamBackend;
use audit_log::webhook::WebhookBackend;
use audit_stream::s3::S3Destination;

/// How long requests on open connections are still accepted after the last connection was, while
/// another process listens on the same port.
const CLOSING: Duration = Duration::from_millis(500);
/// For tasks to notice that they were dropped, and for records to be closed.
const ENDING: Duration = Duration::from_secs(2);
/// For the responses of the admin port.
const ADMIN_ENDING: Duration = Duration::from_millis(50);
/// How long a process that is to end at once may take to close its records.
pub(super) const AT_ONCE: Duration = Duration::from_millis(800);

/// A proxy that serves.
pub struct Process {
    addr: SocketAddr,
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
    /// Reads what `config` names, listens, and serves from then on. `observer`, if there is one,
    /// gets each audit event as a line, too. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Whatever stands in the way, with the file or address and mostly the remedy.
    pub async fn start(
        config: Config,
        observer: Option<UnboundedSender<Vec<u8>>>,
    ) -> anyhow::Result<Process> {
        let backend_names = config.audit.sinks.iter().map(|sink| sink.name.as_str());
        let metrics = Arc::new(Metrics::new(backend_names));
        let (force_reload, forced) = watch::channel(());
        let follow = Follow { metrics: metrics.clone(), forced };

        let policies = policies(&config.audit.sinks, &follow)?;
        let as_front_proxy = config.upstream.identity == Identity::RequestHeader;
        let upstream = upstream(&config.upstream, &follow)?;
        let authenticator =
            authenticator(&config.authentication, &upstream, as_front_proxy, &follow)?;
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
        let recorder = recorder(config.audit, policies, observer, &follow)?;
        let filters = Filters::new(config.filters, metrics.filters.clone());
        filters.watch_deadlines();
        let proxy = Arc::new(Proxy {
            authenticator,
            recorder: Arc::new(recorder),
            trusted_proxies: config.authentication.trusted_proxies,
            identity: config.upstream.identity,
            original_user_extra: config.upstream.original_user_extra,
            reviewer: Reviewer::new(upstream.clone(), config.upstream.constrained_impersonation),
            authorization,
            upstream,
            filters,
            long_running: Default::default(),
            sessions,
        });

        let (shutdown, running) = Shutdown::new();
        let (admin_shutdown, admin_running) = Shutdown::new();
        let shutdown = Arc::new(shutdown);
        backends::look_after(&proxy.recorder, &metrics.backends);
        let summaries = spawn_summaries(proxy.recorder.clone());
        serve_admin(admin_listener, &proxy, &shutdown, metrics.clone(), admin_running);
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
            addr,
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

    /// Where clients are listened to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where health and metrics are.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Reads all files that are followed again, and opens the log file again.
    pub fn reload(&self) {
        tracing::info!("reloading all files");
        self.force_reload.send_replace(());
        self.proxy.recorder.sinks().iter().for_each(|sink| sink.backend.reopen());
    }

    /// Waits out `--shutdown-delay-duration`, not ready but still accepting, then ends by
    /// [`Process::shutdown`]. With `at_once` both are cut short.
    pub async fn leave(self, at_once: impl Future<Output = ()>) {
        self.shutdown.leave();
        let mut at_once = std::pin::pin!(at_once);
        if !self.shutdown_delay.is_zero() {
            tracing::info!(delay = ?self.shutdown_delay, "not ready, and still serving");
            tokio::select! {
                () = tokio::time::sleep(self.shutdown_delay) => {}
                () = at_once.as_mut() => return self.shutdown(std::future::ready(())).await,
            }
        }
        self.shutdown(at_once).await;
    }

    /// Shuts down within `--shutdown-timeout`: accepts nothing new, lets requests under way finish,
    /// then has backends deliver what waits. What does not finish in its share of the time
    /// ([`Timetable`]) is dropped; events that are not delivered are counted and logged by backend.
    /// With `at_once` all of it is cut short.
    pub async fn shutdown(self, at_once: impl Future<Output = ()>) {
        let mut timetable = Timetable::new(Instant::now(), self.shutdown_timeout);
        let mut at_once = std::pin::pin!(at_once);
        let mut is_hurried = false;
        if self.shares_port {
            // New connections go to the other process, and those accepted last get a response.
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
        // Their records are closed as they are dropped; then nothing comes to the backends any
        // more.
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
        // What rate limits have suppressed until now.
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
        // Also of events that came after their backend had ended.
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

/// Writes what rate limits of policy extensions have suppressed, when their windows end.
fn spawn_summaries(recorder: Arc<Recorder>) -> Arc<Mutex<Summaries>> {
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

/// The API server, by flags and a kubeconfig, which is followed.
fn upstream(settings: &crate::config::Upstream, follow: &Follow) -> anyhow::Result<Upstream> {
    let settings = settings.clone();
    let (kubeconfig, context) = (settings.kubeconfig.as_deref(), settings.context.as_deref());
    let source = UpstreamSource::find(kubeconfig, context, &settings.flags)?;
    let kubeconfigs = source.kubeconfigs().to_vec();
    let resolve = move || {
        let flags = &settings.flags;
        let mut config =
            source.resolve(settings.context.as_deref(), flags, settings.plugin_timeout)?;
        config.is_front_proxy = settings.identity == Identity::RequestHeader;
        Ok(config)
    };
    let first = resolve.clone();
    let file = KubeconfigFile::new(Reloaded::Kubeconfig, &kubeconfigs, Box::new(resolve));
    let upstream = Upstream::new(first()?, follow.metrics.upstream.clone())?;
    if !kubeconfigs.is_empty() {
        tracing::info!(files = ?kubeconfigs, "using the kubeconfig");
        follow.spawn_kubeconfig(file, &upstream);
    }
    Ok(upstream)
}

/// Opens each policy file once and follows it; gives the policy of each sink.
fn policies(sinks: &[SinkSettings], follow: &Follow) -> anyhow::Result<Vec<PolicyHandle>> {
    let mut open: Vec<(&Path, PolicyHandle)> = Vec::new();
    for sink in sinks {
        let path = sink.policy_file.as_path();
        if open.iter().any(|(known, _)| *known == path) {
            continue;
        }
        let (file, warnings) =
            PolicyFile::open(path).map_err(|error| anyhow::Error::msg(sink.says(error)))?;
        for warning in warnings {
            tracing::warn!("audit policy: {warning}");
        }
        let of_it =
            sinks.iter().zip(&follow.metrics.backends).filter(|(sink, _)| sink.policy_file == path);
        let file =
            file.of_sinks(of_it.map(|(_, backend)| follow.metrics.policy(backend)).collect());
        open.push((path, file.handle()));
        let forced = follow.forced.clone();
        tokio::spawn(file.watch(follow.metrics.reloads.clone(), forced, POLL_INTERVAL));
    }
    let of = |sink: &SinkSettings| {
        let known = open.iter().find(|(path, _)| *path == sink.policy_file);
        known.expect("it was opened just now").1.clone()
    };
    Ok(sinks.iter().map(of).collect())
}

/// Opens all sinks: webhooks first, so that a start that fails leaves no log file behind. An
/// `observer` gets the events of the first log.
fn recorder(
    audit: Audit,
    policies: Vec<PolicyHandle>,
    mut observer: Option<UnboundedSender<Vec<u8>>>,
    follow: &Follow,
) -> anyhow::Result<Recorder> {
    let budget = Budget::new(audit.total_body_bytes);
    let backends = follow.metrics.backends.iter().cloned();
    let mut settings: Vec<_> = audit.sinks.into_iter().zip(policies).zip(backends).collect();
    settings.sort_by_key(|((sink, _), _)| matches!(sink.backend, BackendSettings::Log { .. }));
    let mut sinks = Vec::new();
    for ((sink, policy), metrics) in settings {
        let (format, backend) = match &sink.backend {
            BackendSettings::Log { config, format } => {
                let log = LogBackend::open(config.clone(), follow.metrics.log(metrics));
                let mut log = log.map_err(|error| anyhow::Error::msg(sink.says(error)))?;
                if let Some(observer) = observer.take() {
                    log = log.with_observer(observer);
                }
                (*format, Backend::Log(log))
            }
            BackendSettings::Webhook { file, config } => {
                let client = webhook_client(file, follow).map_err(|error| {
                    let error = format!("--audit-webhook-config-file: {error}");
                    anyhow::Error::msg(sink.says(error))
                })?;
                let webhook = WebhookBackend::start(
                    config.clone(),
                    Arc::new(client),
                    follow.metrics.delivery(metrics),
                );
                let webhook = webhook.map_err(|error| anyhow::Error::msg(sink.says(error)))?;
                (Format::Json, Backend::Webhook(Box::new(webhook)))
            }
            BackendSettings::S3 { config, store } => {
                let bucket = S3Destination::new((**store).clone());
                let bucket = bucket.map_err(|error| anyhow::Error::msg(sink.says(error)))?;
                let metrics = follow.metrics.delivery(metrics);
                let stream = StreamBackend::start(config.clone(), Arc::new(bucket), metrics);
                let stream = stream.map_err(|error| anyhow::Error::msg(sink.says(error)))?;
                (Format::Json, Backend::Stream(Box::new(stream)))
            }
        };
        let Bodies { max_request, max_response, redaction } = sink.bodies;
        let bodies = BodySettings { max_request, max_response, budget: budget.clone(), redaction };
        let encoding = Encoding { format, max_event: sink.max_event };
        sinks.push(AuditSink { name: sink.name, backend, policy, bodies, encoding });
    }
    let recorder = Recorder::new(sinks, follow.metrics.audit.clone(), audit.node_name);
    let recorder = recorder.annotating_rule(audit.annotates_rule);
    Ok(recorder.with_ambiguous_bodies(audit.ambiguous_bodies))
}

/// A client of the webhook endpoint that a kubeconfig describes, which is followed.
fn webhook_client(path: &Path, follow: &Follow) -> Result<WebhookEndpoint, ConfigError> {
    // Its connections are not those to the API server.
    let client = ApiClient::new(UpstreamConfig::of_webhook(path)?, "the audit webhook")?;
    let owned = path.to_owned();
    let resolve = move || UpstreamConfig::of_webhook(&owned);
    let paths = [path.to_owned()];
    let file = KubeconfigFile::new(Reloaded::AuditWebhookConfig, &paths, Box::new(resolve));
    follow.spawn_kubeconfig(file, &client);
    Ok(WebhookEndpoint(client))
}

/// What is needed to follow files.
pub(super) struct Follow {
    pub(super) metrics: Arc<Metrics>,
    forced: watch::Receiver<()>,
}

impl Follow {
    fn spawn_kubeconfig(&self, file: KubeconfigFile, target: &impl ReloadTarget) {
        let (metrics, forced) = (self.metrics.reloads.clone(), self.forced.clone());
        tokio::spawn(file.follow(target.clone(), metrics, forced, POLL_INTERVAL));
    }

    pub(super) fn spawn<E: std::fmt::Display + Send + 'static>(
        &self,
        what: Reloaded,
        watcher: FileWatcher,
        reload: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) {
        let (forced, metrics) = (self.forced.clone(), self.metrics.reloads.clone());
        tokio::spawn(reload::follow(what, watcher, forced, metrics, reload));
    }
}

fn authenticator(
    settings: &Authentication,
    upstream: &Upstream,
    as_front_proxy: bool,
    follow: &Follow,
) -> anyhow::Result<Authenticator> {
    let client_ca = match &settings.client_ca_file {
        Some(path) => Some(
            follow_ca(path, Some(settings), Reloaded::ClientCa, follow)
                .context("--client-ca-file")?,
        ),
        None => None,
    };
    let request_header = match &settings.request_header {
        Some(proxies) => {
            let path = &proxies.client_ca_file;
            let ca = follow_ca(path, None, Reloaded::FrontProxyCa, follow)
                .context("--requestheader-client-ca-file")?;
            let (allowed, names) = (proxies.allowed_names.clone(), proxies.names.clone());
            Some(RequestHeader::new(ca, allowed, names))
        }
        None => None,
    };
    let cache = Arc::new(TokenCache::with_random_key(follow.metrics.authentication.clone()));
    let Configured { oidc, anonymous } = configured(settings, &cache, follow)?;
    Ok(Authenticator {
        request_header,
        client_ca,
        tokens: tokens(settings, upstream, as_front_proxy, cache, oidc, follow)?,
        anonymous,
        anonymous_user: Arc::new(UserInfo::anonymous().into()),
    })
}

/// The result of an authentication configuration, from a file or from flags.
struct Configured {
    /// The issuers, if there may be any.
    oidc: Option<Arc<JwtAuthenticators>>,
    /// Where requests may be anonymous.
    anonymous: Arc<ArcSwap<Anonymous>>,
}

fn configured(
    settings: &Authentication,
    cache: &Arc<TokenCache>,
    follow: &Follow,
) -> anyhow::Result<Configured> {
    let by_flag = Anonymous::from(settings.anonymous_auth.unwrap_or(true));
    let anonymous = Arc::new(ArcSwap::from_pointee(by_flag));
    match &settings.issuers {
        Issuers::None => Ok(Configured { oidc: None, anonymous }),
        Issuers::Flags(issuer) => {
            let issuers = vec![JwtSettings::clone(issuer)];
            let issuers = JwtAuthenticators::new(issuers, follow.metrics.authentication.clone())
                .context("--oidc-ca-file")?;
            Ok(Configured { oidc: Some(Arc::new(issuers)), anonymous })
        }
        Issuers::File(path) => {
            let watcher = FileWatcher::new(vec![path.clone()]);
            let accounts = settings.service_accounts.as_ref();
            let file = AuthenticationConfigFile::open(
                path,
                issuers_or_usual(accounts.map_or(&[], |accounts| &accounts.issuers)),
                settings.anonymous_auth,
                cache.clone(),
                follow.metrics.authentication.clone(),
            )
            .context("--authentication-config")?;
            let (oidc, anonymous) = (Some(file.authenticators()), file.anonymous());
            let metrics = follow.metrics.authentication.clone();
            follow.spawn(Reloaded::AuthenticationConfig, watcher, move || {
                let reloaded = file.reload();
                metrics.config_reloaded(reloaded.is_ok());
                reloaded
            });
            Ok(Configured { oidc, anonymous })
        }
    }
}

fn tokens(
    settings: &Authentication,
    upstream: &Upstream,
    as_front_proxy: bool,
    cache: Arc<TokenCache>,
    oidc: Option<Arc<JwtAuthenticators>>,
    follow: &Follow,
) -> anyhow::Result<Tokens> {
    let file = settings.token_auth_file.as_deref().map(|path| TokenFile::load(path, &cache));
    let file = file.transpose().context("--token-auth-file")?;
    let service_accounts = match &settings.service_accounts {
        Some(tokens) => {
            let watcher = FileWatcher::new(tokens.key_files.clone());
            let (files, issuers) = (tokens.key_files.clone(), tokens.issuers.clone());
            let fetched = tokens
                .keys_from_upstream
                .then(|| upstream_keys(upstream.api().clone(), as_front_proxy));
            let audiences = settings.audiences.clone();
            let accounts = ServiceAccounts::load(files, fetched, issuers, audiences)
                .context("--service-account-key-file")?;
            let accounts = Arc::new(accounts);
            let (followed, cache) = (accounts.clone(), cache.clone());
            follow.spawn(Reloaded::ServiceAccountKeys, watcher, move || {
                followed.reload().map(|()| cache.clear())
            });
            Some(accounts)
        }
        None => None,
    };
    let review = settings
        .token_review
        .clone()
        .map(|settings| {
            TokenReview::new(upstream.api(), upstream.access(), settings, cache.clone())
                .map(Arc::new)
        })
        .transpose()
        .context("--authentication-token-webhook-config-file")?;
    if let Some((webhook, path)) = review.as_deref().and_then(TokenReview::webhook) {
        let owned = path.to_owned();
        let paths = [owned.clone()];
        let resolve = move || UpstreamConfig::of_webhook(&owned);
        let file = KubeconfigFile::new(Reloaded::TokenWebhookConfig, &paths, Box::new(resolve));
        follow.spawn_kubeconfig(file, webhook);
    }
    Ok(Tokens { file, service_accounts, oidc, review, cache })
}

/// Reads a CA file and follows it; `of_users` are the further settings of `--client-ca-file`.
fn follow_ca(
    path: &Path,
    of_users: Option<&Authentication>,
    what: Reloaded,
    follow: &Follow,
) -> Result<Arc<ClientCa>, ClientCaError> {
    let crl = of_users.and_then(|settings| settings.client_crl_file.as_deref());
    let allow_v1 = of_users.is_some_and(|settings| settings.client_ca_allow_x509_v1);
    let watcher =
        FileWatcher::new([Some(path), crl].into_iter().flatten().map(Path::to_owned).collect());
    let ca = Arc::new(ClientCa::load(path, crl)?.allowing_x509_v1(allow_v1));
    let followed = ca.clone();
    follow.spawn(what, watcher, move || followed.reload());
    Ok(ca)
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

fn serve_admin(
    listener: TcpListener,
    proxy: &Arc<Proxy>,
    shutdown: &Arc<Shutdown>,
    metrics: Arc<Metrics>,
    running: Running,
) {
    let (upstream, phase) = (proxy.upstream.clone(), shutdown.clone());
    let endpoints = upstream.clone();
    let access = proxy.clone();
    let mut checks = backends::checks(&proxy.recorder);
    checks.extend([
        Check::new("upstream", move || {
            let upstream = upstream.clone();
            async move { upstream.check().await.map_err(|error| error.to_string()) }
        }),
        Check::informational("upstream-endpoints", "other addresses are healthy", move || {
            let healthy = endpoints.all_healthy();
            async move { healthy }
        }),
        Check::new("upstream-access", move || {
            let review = access.authenticator.token_review_denial();
            let review =
                review.map_or(Ok(()), |denial| Err(denial.message(Access::TokenReview).to_owned()));
            let checked = access.upstream.access().check().and(review);
            async move { checked }
        }),
        Check::new("shutdown", move || {
            let phase = phase.phase();
            async move {
                match phase {
                    Phase::Serving => Ok(()),
                    Phase::Leaving | Phase::Closing | Phase::Draining | Phase::Ending => {
                        Err("process is shutting down".to_owned())
                    }
                }
            }
        }),
    ]);
    let policies: Vec<_> = proxy.recorder.policies().cloned().collect();
    metrics.expose_rules(policies.clone());
    let admin = Admin::new(metrics, checks).with_policies(policies);
    tokio::spawn(admin::serve(listener, Arc::new(admin), running));
}
