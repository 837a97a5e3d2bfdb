//! All rooms put together, running; and their end in the right order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::audit::body::Budget;
use crate::audit::record::Recorder;
use crate::audit::recording::BodySettings;
use crate::authn::{
    Anonymous, AuthenticationConfigFile, Authenticator, ClientCa, ClientCaError, JwtAuthenticators,
    JwtSettings, RequestHeader, ServiceAccounts, TokenCache, TokenFile, TokenReview, Tokens,
    UserInfo,
};
use crate::config::{Authentication, Bodies, CertificateSource, Config, Issuers, Serving};
use crate::file_watch::{FileWatcher, POLL_INTERVAL};
use crate::impersonation::Reviewer;
use crate::metrics::{Metrics, Reloaded};
use crate::pipeline::Proxy;
use crate::policy::PolicyFile;
use crate::server::admin::{Admin, Check};
use crate::server::certificates::ServingCertificate;
use crate::server::shutdown::{Phase, Running, Shutdown};
use crate::server::{admin, listener, reload, self_signed, tls};
use crate::sink::{Sink, SinkState};
use crate::upstream::{Upstream, UpstreamConfig};
use crate::webhook::Webhook;

/// For tasks to notice that they were dropped, and for records to be closed.
const ENDING: Duration = Duration::from_secs(2);

/// A proxy that serves.
pub struct Process {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    proxy: Arc<Proxy>,
    shutdown: Arc<Shutdown>,
    admin_shutdown: Shutdown,
    shutdown_timeout: Duration,
    force_reload: watch::Sender<()>,
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
        raise_file_limit();
        let metrics = Arc::new(Metrics::default());
        let (force_reload, forced) = watch::channel(());
        let follow = Follow { metrics: metrics.clone(), forced };

        let (policy_file, warnings) = PolicyFile::open(&config.audit.policy_file)?;
        for warning in warnings {
            tracing::warn!("audit policy: {warning}");
        }
        let policy = policy_file.handle();
        tokio::spawn(policy_file.watch(metrics.clone(), follow.forced.clone(), POLL_INTERVAL));
        let upstream = UpstreamConfig::resolve(
            config.upstream.kubeconfig.as_deref(),
            config.upstream.context.as_deref(),
            &config.upstream.flags,
        )?;
        let upstream = Upstream::new(upstream, metrics.clone())?;
        let authenticator = authenticator(&config.authentication, &upstream, &follow)?;
        let certificate = serving_certificate(&config.serving, &follow)?;
        let tls = tls::server_config(&config.serving.tls, certificate).context("TLS")?;
        let listener = listener::bind(config.serving.addr).await.context("--secure-port")?;
        let admin_listener =
            listener::bind(config.operation.admin_addr).await.context("--admin-bind-address")?;
        let (addr, admin_addr) = (listener.local_addr()?, admin_listener.local_addr()?);

        let webhook = config.audit.webhook.map(|webhook| Webhook::start(webhook, metrics.clone()));
        let webhook = webhook.transpose()?;
        // Last of what can fail, so that a start that fails leaves no log file behind.
        let sink = match config.audit.log {
            Some(log) => Sink::open(log, metrics.clone())?,
            None => Sink::discard(),
        };
        let sink = match observer {
            Some(observer) => sink.with_observer(observer),
            None => sink,
        };
        let Bodies { max_request, max_response, total, redaction, max_event } = config.audit.bodies;
        let budget = Budget::new(total);
        let bodies = BodySettings { max_request, max_response, budget, redaction, max_event };
        let format = config.audit.format;
        let recorder = Recorder { sink, webhook, format, metrics: metrics.clone(), bodies };
        let proxy = Arc::new(Proxy {
            authenticator,
            policy,
            recorder: Arc::new(recorder),
            trusted_proxies: config.authentication.trusted_proxies,
            identity: config.upstream.identity,
            reviewer: Reviewer::new(upstream.clone()),
            upstream,
            long_running: Default::default(),
        });

        let (shutdown, running) = Shutdown::new();
        let (admin_shutdown, admin_running) = Shutdown::new();
        let shutdown = Arc::new(shutdown);
        serve_admin(admin_listener, &proxy, &shutdown, metrics.clone(), admin_running);
        tokio::spawn(listener::serve(listener, tls, proxy.clone(), metrics, running));
        tracing::info!(addr = %admin_addr, "admin");
        tracing::info!(%addr, upstream = proxy.upstream.authority(), "serving");
        let shutdown_timeout = config.operation.shutdown_timeout;
        Ok(Process {
            addr,
            admin_addr,
            proxy,
            shutdown,
            admin_shutdown,
            shutdown_timeout,
            force_reload,
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
        self.proxy.recorder.sink.reopen();
    }

    /// Ends: takes nothing new, lets requests under way finish until `--shutdown-timeout` or
    /// `at_once`, whichever comes first, drops the others, and writes all events out.
    pub async fn shutdown(self, at_once: impl Future<Output = ()>) {
        self.shutdown.drain();
        self.proxy.end_long_running();
        tokio::select! {
            () = self.all_ended() => {}
            () = tokio::time::sleep(self.shutdown_timeout) => {
                tracing::warn!(
                    timeout = ?self.shutdown_timeout,
                    "requests are still under way after --shutdown-timeout, they are dropped"
                );
            }
            () = at_once => tracing::warn!("ending at once, requests under way are dropped"),
        }
        self.shutdown.end();
        // Their records are closed as they are dropped; then nothing comes to the sink any more.
        if tokio::time::timeout(ENDING, self.all_ended()).await.is_err() {
            tracing::error!("requests did not end, their last events may be missing");
        }
        self.proxy.recorder.sink.shutdown().await;
        if let Some(webhook) = &self.proxy.recorder.webhook {
            webhook.shutdown().await;
        }
        self.admin_shutdown.end();
        let _ = tokio::time::timeout(ENDING, self.admin_shutdown.all_ended()).await;
        tracing::info!("ended");
    }

    async fn all_ended(&self) {
        self.shutdown.all_ended().await;
        self.proxy.upgraded_ended().await;
    }
}

/// What is needed to follow files.
struct Follow {
    metrics: Arc<Metrics>,
    forced: watch::Receiver<()>,
}

impl Follow {
    fn spawn<E: std::fmt::Display + Send + 'static>(
        &self,
        what: Reloaded,
        watcher: FileWatcher,
        reload: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) {
        let (forced, metrics) = (self.forced.clone(), self.metrics.clone());
        tokio::spawn(reload::follow(what, watcher, forced, metrics, reload));
    }
}

fn authenticator(
    settings: &Authentication,
    upstream: &Upstream,
    follow: &Follow,
) -> anyhow::Result<Authenticator> {
    let client_ca = match &settings.client_ca_file {
        Some(path) => Some(
            follow_ca(path, settings.client_crl_file.as_deref(), Reloaded::ClientCa, follow)
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
    let cache = Arc::new(TokenCache::with_random_key());
    let Configured { oidc, anonymous } = configured(settings, &cache, follow)?;
    Ok(Authenticator {
        request_header,
        client_ca,
        tokens: tokens(settings, upstream, cache, oidc, follow)?,
        anonymous,
        anonymous_user: Arc::new(UserInfo::anonymous()),
    })
}

/// What an authentication configuration decides, be it a file or flags.
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
            let issuers = JwtAuthenticators::new(issuers, follow.metrics.clone())
                .context("--oidc-ca-file")?;
            Ok(Configured { oidc: Some(Arc::new(issuers)), anonymous })
        }
        Issuers::File(path) => {
            let watcher = FileWatcher::new(vec![path.clone()]);
            let accounts = settings.service_accounts.as_ref();
            let file = AuthenticationConfigFile::open(
                path,
                accounts.map(|accounts| accounts.issuers.clone()).unwrap_or_default(),
                settings.anonymous_auth,
                cache.clone(),
                follow.metrics.clone(),
            )
            .context("--authentication-config")?;
            let (oidc, anonymous) = (Some(file.authenticators()), file.anonymous());
            follow.spawn(Reloaded::AuthenticationConfig, watcher, move || file.reload());
            Ok(Configured { oidc, anonymous })
        }
    }
}

fn tokens(
    settings: &Authentication,
    upstream: &Upstream,
    cache: Arc<TokenCache>,
    oidc: Option<Arc<JwtAuthenticators>>,
    follow: &Follow,
) -> anyhow::Result<Tokens> {
    let file = settings.token_auth_file.as_deref().map(TokenFile::load).transpose();
    let service_accounts = match &settings.service_accounts {
        Some(tokens) => {
            let watcher = FileWatcher::new(tokens.key_files.clone());
            let (files, issuers) = (tokens.key_files.clone(), tokens.issuers.clone());
            let accounts = ServiceAccounts::load(files, issuers, settings.audiences.clone())
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
        .map(|settings| Arc::new(TokenReview::new(upstream.clone(), settings, cache.clone())));
    Ok(Tokens { file: file.context("--token-auth-file")?, service_accounts, oidc, review, cache })
}

fn follow_ca(
    path: &Path,
    crl: Option<&Path>,
    what: Reloaded,
    follow: &Follow,
) -> Result<Arc<ClientCa>, ClientCaError> {
    let watcher =
        FileWatcher::new([Some(path), crl].into_iter().flatten().map(Path::to_owned).collect());
    let ca = Arc::new(ClientCa::load(path, crl)?);
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
    let (log, upstream, phase) = (proxy.clone(), proxy.upstream.clone(), shutdown.clone());
    let checks = vec![
        Check::new("audit-log", move || {
            let state = log.recorder.sink.state();
            async move {
                match state {
                    SinkState::Ok => Ok(()),
                    SinkState::Failing(reason) => Err(reason),
                }
            }
        }),
        Check::new("upstream", move || {
            let upstream = upstream.clone();
            async move { upstream.check().await.map_err(|error| error.to_string()) }
        }),
        Check::new("shutdown", move || {
            let phase = phase.phase();
            async move {
                match phase {
                    Phase::Serving => Ok(()),
                    Phase::Draining | Phase::Ending => Err("process is shutting down".to_owned()),
                }
            }
        }),
    ];
    tokio::spawn(admin::serve(listener, Arc::new(Admin::new(metrics, checks)), running));
}

/// Each client takes a file descriptor, and shells start processes with a soft limit of 1024. As
/// Go does for its programs, the limit is raised to what the process may have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
