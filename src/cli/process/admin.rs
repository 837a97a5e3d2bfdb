//! The admin port: health checks, metrics and policies.

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::cli::backends;
use crate::metrics::Metrics;
use crate::pipeline::Proxy;
use crate::server::admin::{self, Admin, Check};
use crate::server::shutdown::{Phase, Running, Shutdown};
use crate::upstream::access::Access;

pub(super) fn serve(
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
