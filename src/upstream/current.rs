//! The settings and connections in use, which a reload replaces as a whole.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use super::access::OwnAccess;
use super::config::UpstreamConfig;
use super::credentials::Credentials;
use super::error::ConfigError;
use super::forward::{Upstream, connector};
use super::metrics::UpstreamMetrics;
use super::pool::Pool;
use super::risks;

/// What all clones of an [`Upstream`] share.
pub(super) struct Shared {
    /// The settings of the start. Requests use them without counting references until the first reload.
    first: Arc<Inner>,
    is_replaced: AtomicBool,
    current: ArcSwap<Inner>,
    /// What a webhook is called in warnings. The path of a webhook's URL is the target of every
    /// request. `None`: the API server.
    webhook: Option<&'static str>,
    /// Whether the proxy's own credentials are accepted. A reload does not reset it.
    pub(super) access: OwnAccess,
}

/// One state of the settings, and the connections made with them.
pub(super) struct Inner {
    pub(super) pool: Arc<Pool>,
    pub(super) credentials: Option<Credentials>,
    /// The target of every request, where that is fixed.
    pub(super) path: Arc<str>,
}

/// The settings that a request begins with, and keeps until its end.
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
    pub(super) fn new(inner: Inner, webhook: Option<&'static str>) -> Shared {
        let first = Arc::new(inner);
        let current = ArcSwap::new(Arc::clone(&first));
        let (is_replaced, access) = (AtomicBool::new(false), OwnAccess::default());
        Shared { first, is_replaced, current, webhook, access }
    }

    /// The metrics of the connections, which a reload keeps.
    pub(super) fn metrics(&self) -> &UpstreamMetrics {
        &self.first.pool.connector.metrics
    }

    pub(super) fn now(&self) -> Now<'_> {
        match self.later() {
            None => Now::First(&self.first),
            Some(later) => Now::Later(later),
        }
    }

    /// The settings in use, if they are not those of the start. What a request holds on to: half the
    /// size of [`Now`].
    pub(super) fn later(&self) -> Option<Arc<Inner>> {
        self.is_replaced.load(Ordering::Acquire).then(|| self.current.load_full())
    }

    /// The pool of the settings that `later` means.
    pub(super) fn pool<'a>(&'a self, later: &'a Option<Arc<Inner>>) -> &'a Pool {
        &later.as_deref().unwrap_or(&self.first).pool
    }
}

impl Inner {
    /// Makes the target of every request of the URL's path if this is a webhook.
    pub(super) fn new(
        mut config: UpstreamConfig,
        webhook: Option<&'static str>,
        connector: impl FnOnce(
            UpstreamConfig,
        )
            -> Result<(super::connect::Connector, Option<Credentials>), ConfigError>,
    ) -> Result<Inner, ConfigError> {
        risks::warn(&config, webhook.unwrap_or("the API server"));
        let path = match webhook {
            Some(_) => std::mem::take(&mut config.server.path_prefix),
            None => String::new(),
        };
        let path = if path.is_empty() { "/".into() } else { path.into() };
        let (connector, credentials) = connector(config)?;
        Ok(Inner { pool: Arc::new(Pool::new(connector)), credentials, path })
    }
}

impl Upstream {
    /// Replaces address, certificates and credentials. New requests use the new ones; those under way
    /// finish on the connections that they have.
    ///
    /// # Errors
    /// Certificates and keys that cannot be used, with file and field. The former settings stay active.
    pub fn replace(&self, config: UpstreamConfig) -> Result<(), ConfigError> {
        let now = self.now();
        let metrics = Arc::clone(&now.pool.connector.metrics);
        let shared = self.shared();
        let new = Inner::new(config, shared.webhook, |config| connector(config, metrics))?;
        let old = shared.current.swap(Arc::new(new));
        shared.is_replaced.store(true, Ordering::Release);
        old.pool.retire_all();
        Ok(())
    }

    /// Reads the token and the certificates again that the settings name.
    pub fn refresh(&self) {
        self.now().refresh();
    }
}
