//! The state that all requests share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::record::AuditPipeline;
use crate::authorization::AuthorizationReviews;
use crate::filters::Filters;
use crate::impersonation::ImpersonationAuthorizer;
use crate::request::source::TrustedProxies;
use crate::upstream::Upstream;
use crate::upstream::identity::{Identity, OriginalUserExtra};
use kube_authn::Authenticator;

/// All that requests share.
pub struct Proxy {
    /// Who is calling.
    pub authenticator: Authenticator,
    /// How much to record, and where events go.
    pub recorder: Arc<AuditPipeline>,
    /// The networks from which `X-Forwarded-For` is trusted.
    pub trusted_proxies: TrustedProxies,
    /// How the API server learns who is calling.
    pub identity: Identity,
    /// The extra that names the client to the API server, for [`Identity::Impersonate`].
    pub original_user_extra: Option<OriginalUserExtra>,
    /// Whether callers may impersonate, for [`Identity::Impersonate`].
    pub impersonation_authorizer: ImpersonationAuthorizer,
    /// Determines why the API server allows requests, for annotations.
    pub authorization: Option<AuthorizationReviews>,
    /// The API server.
    pub upstream: Upstream,
    /// Limits, timeouts, CORS and the like.
    pub filters: Filters,
    /// Long-running requests, and how to end them.
    pub long_running: LongRunning,
    /// Records what happens in sessions.
    pub sessions: Option<Arc<session_recording::Recorder>>,
}

/// Long-running requests, as far as the end of the process must know of them.
#[derive(Default)]
pub struct LongRunning {
    pub(super) ending: CancellationToken,
    pub(super) upgraded: TaskTracker,
}

impl Proxy {
    /// Ends watches, followed logs and upgraded connections; called once, at shutdown.
    pub fn end_long_running(&self) {
        self.long_running.ending.cancel();
        self.long_running.upgraded.close();
    }

    /// Waits until upgraded connections have ended; only after [`Proxy::end_long_running`].
    pub async fn upgraded_ended(&self) {
        self.long_running.upgraded.wait().await;
    }
}
