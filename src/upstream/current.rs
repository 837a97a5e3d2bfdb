//! The settings and connections in use, which a reload replaces as a whole.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api_client::access::OwnAccess;
use api_client::exec::{CredentialError, OwnCredential};
use api_client::{ApiClient, EndpointSet, FollowedFiles, Target, risks};
use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use super::balance::Balancer;
use super::connect::Connector;
use super::forward::Upstream;
use super::metrics::UpstreamMetrics;
use super::pool::Pool;
use super::{ConfigError, UpstreamConfig};

/// The name of the API server in warnings.
const API_SERVER: &str = "the API server";

/// The state that all clones of an [`Upstream`] share.
pub(super) struct Shared {
    /// The settings at start. Until the first reload, requests use them without a reference count.
    first: Arc<Inner>,
    is_replaced: AtomicBool,
    current: ArcSwap<Inner>,
    /// The client for the proxy's own requests; it uses the current settings.
    pub(super) api: ApiClient,
    /// Whether the proxy's own credentials are accepted. A reload does not reset it.
    pub(super) access: OwnAccess,
    /// The files that the current settings refer to.
    files: Mutex<FollowedFiles>,
}

/// One version of the settings, and the connections made with them.
pub(super) struct Inner {
    /// The connections to an API server with one address.
    pub(super) pool: Arc<Pool>,
    /// The connections to an API server with several addresses.
    pub(super) balancer: Arc<Balancer>,
}

/// The settings that a request starts with and keeps until its end.
pub(super) enum Now<'a> {
    First(&'a Inner),
    Later(Arc<Inner>),
}

impl Deref for Now<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        match self {
            Now::First(inner) => inner,
            Now::Later(inner) => inner,
        }
    }
}

impl Shared {
    pub(super) fn new(
        config: UpstreamConfig,
        metrics: Arc<UpstreamMetrics>,
    ) -> Result<Shared, ConfigError> {
        let first = Arc::new(Inner::new(config, metrics)?);
        let files = Mutex::new(first.follow_files());
        let api = ApiClient::over_endpoints(Arc::clone(first.endpoints()), API_SERVER);
        let (current, access) = (ArcSwap::new(Arc::clone(&first)), OwnAccess::new(api.clone()));
        let is_replaced = AtomicBool::new(false);
        Ok(Shared { first, is_replaced, current, api, access, files })
    }

    /// Returns the metrics of the connections, which a reload keeps.
    pub(super) fn metrics(&self) -> &UpstreamMetrics {
        &self.first.pool.connector.metrics
    }

    pub(super) fn now(&self) -> Now<'_> {
        match self.later() {
            None => Now::First(&self.first),
            Some(later) => Now::Later(later),
        }
    }

    /// Returns the current settings if they are not those at start. Requests hold this instead of
    /// [`Now`], since it has half the size.
    pub(super) fn later(&self) -> Option<Arc<Inner>> {
        self.is_replaced.load(Ordering::Acquire).then(|| self.current.load_full())
    }

    /// Returns the settings that `later` stands for.
    pub(super) fn inner<'a>(&'a self, later: &'a Option<Arc<Inner>>) -> &'a Inner {
        later.as_deref().unwrap_or(&self.first)
    }

    /// Returns the pool of the settings that `later` stands for.
    pub(super) fn pool<'a>(&'a self, later: &'a Option<Arc<Inner>>) -> &'a Pool {
        &self.inner(later).pool
    }
}

impl Inner {
    fn new(config: UpstreamConfig, metrics: Arc<UpstreamMetrics>) -> Result<Inner, ConfigError> {
        risks::warn(&config, API_SERVER);
        let endpoints = EndpointSet::new(config)?;
        metrics.watch(&endpoints);
        let target = Arc::clone(endpoints.target());
        let balancer = Arc::new(Balancer::new(endpoints, Arc::clone(&metrics)));
        let connector = Connector { target, metrics, member: None };
        let pool = Arc::new(Pool::new(connector));
        Ok(Inner { pool, balancer })
    }

    /// Follows the files that the settings refer to. If certificates have changed, open connections
    /// accept no more requests, since the API server verifies a client certificate's expiry at
    /// every request.
    fn follow_files(&self) -> FollowedFiles {
        let weak = (Arc::downgrade(&self.pool), Arc::downgrade(&self.balancer));
        self.target().follow(&Handle::current(), move || {
            if let (Some(pool), Some(balancer)) = (weak.0.upgrade(), weak.1.upgrade()) {
                pool.retire_all();
                balancer.retire_all();
            }
        })
    }

    /// Returns the addresses of the API server.
    pub(super) fn endpoints(&self) -> &Arc<EndpointSet> {
        self.balancer.endpoints()
    }

    /// Returns the API server.
    pub(super) fn target(&self) -> &Arc<Target> {
        &self.pool.connector.target
    }
}

impl Upstream {
    /// Replaces address, certificates and credentials. New requests use the new ones; requests in
    /// flight finish on their connections.
    ///
    /// # Errors
    /// Returns an error for certificates and keys that cannot be used, with file and field. The
    /// former settings stay active.
    pub fn replace(&self, mut config: UpstreamConfig) -> Result<(), ConfigError> {
        let now = self.now();
        if let Some(plugin) = now.target().plugin() {
            config.adopt_plugin(plugin);
        }
        let metrics = Arc::clone(&now.pool.connector.metrics);
        let new = Arc::new(Inner::new(config, metrics)?);
        let shared = self.shared();
        *lock(&shared.files) = new.follow_files();
        shared.api.replace_endpoints(Arc::clone(new.endpoints()));
        let old = shared.current.swap(new);
        shared.is_replaced.store(true, Ordering::Release);
        old.pool.retire_all();
        old.balancer.retire_all();
        old.endpoints().close();
        Ok(())
    }

    /// Checks that all addresses are healthy; always `Ok` if there is only one.
    ///
    /// # Errors
    /// Describes the unhealthy addresses.
    pub fn all_healthy(&self) -> Result<(), String> {
        self.now().endpoints().all_healthy()
    }

    /// Returns the proxy's own credential for a request that starts now; `None` if the caller must
    /// wait for it ([`Upstream::valid_credential`]).
    pub fn credential(&self) -> Option<OwnCredential> {
        self.now().target().credential()
    }

    /// Returns the proxy's own credential; waits for the credential plugin if there is none.
    ///
    /// # Errors
    /// If the plugin fails.
    pub async fn valid_credential(&self) -> Result<OwnCredential, CredentialError> {
        let target = Arc::clone(self.now().target());
        target.valid_credential().await
    }

    /// Has the token and the certificates that the settings refer to reloaded now.
    pub fn refresh(&self) {
        lock(&self.shared().files).reload();
    }
}

fn lock(files: &Mutex<FollowedFiles>) -> MutexGuard<'_, FollowedFiles> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}
