//! The connection to the API server.

use super::follow::Follow;
use crate::file_watch::Reloaded;
use crate::upstream::identity::Identity;
use crate::upstream::{KubeconfigFile, Upstream, UpstreamSource};

/// The API server, by flags and a kubeconfig, which is followed.
pub(super) fn upstream(
    settings: &crate::config::Upstream,
    follow: &Follow,
) -> anyhow::Result<Upstream> {
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
