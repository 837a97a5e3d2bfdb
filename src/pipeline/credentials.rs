//! The proxy's own credentials: waits for them, and detects that the API server rejects them.

use api_client::exec::OwnCredential;
use http::Request;

use super::Proxy;
use crate::audit::record::{AuditContext, RequestContext};
use crate::upstream::Renewable;
use crate::upstream::access::Access;
use crate::upstream::identity::Identity;
use k8s_audit::request::RequestInfo;
use k8s_audit::status::Status;

const NO_CREDENTIAL: &str = "the proxy has no valid credential for the API server: its credential plugin failed; the administrator of kube-audit-proxy finds the reason in its log and at /readyz";

/// Subresources for which the API server relays the response of a kubelet or a pod.
const RELAYED: [&[u8]; 5] = [b"attach", b"exec", b"log", b"portforward", b"proxy"];

/// Waits for the credential plugin and returns its credential.
///
/// # Errors
/// Returns the response to send if the plugin fails. The cause may describe the host, so it is
/// logged and not sent to the client.
pub(super) async fn wait_for_own(
    proxy: &Proxy,
    record: &mut AuditContext,
) -> Result<OwnCredential, Box<Status>> {
    proxy.upstream.valid_credential().await.map_err(|error| {
        tracing::debug!(%error, "request not sent: the proxy has no valid credential");
        record.access_denied(NO_CREDENTIAL);
        Box::new(Status::service_unavailable(NO_CREDENTIAL))
    })
}

/// Marks a request whose credential can be renewed if the API server rejects it.
pub(super) fn mark<B>(request: &mut Request<B>, generation: Option<u64>, info: &RequestInfo) {
    if let Some(generation) = generation {
        request.extensions_mut().insert(Renewable::new(generation, may_be_relayed(info)));
    }
}

/// Returns whether the API server rejected the proxy's credentials. In `pass-through` mode the
/// credentials are the client's.
pub(super) async fn are_rejected(proxy: &Proxy, facts: &RequestContext) -> bool {
    let as_front_proxy = match proxy.identity {
        Identity::PassThrough => return false,
        Identity::RequestHeader => true,
        Identity::Impersonate => false,
    };
    let count = proxy.upstream.metrics().access_denied(Access::Forward);
    let may_be_relayed = may_be_relayed(&facts.info);
    let access = proxy.upstream.access();
    let is_rejected = access.are_credentials_rejected(may_be_relayed, as_front_proxy).await;
    if is_rejected {
        count.inc();
    }
    is_rejected
}

/// Returns whether the response may come from a server behind the API server: an aggregated API,
/// whose group always has a dot, or a kubelet, pod or service.
fn may_be_relayed(info: &RequestInfo) -> bool {
    if info.is_resource() {
        return info.group().contains(&b'.')
            || info.verb() == "proxy"
            || RELAYED.contains(&info.subresource());
    }
    let group = info.path().strip_prefix(b"/apis/").unwrap_or_default();
    group.split(|byte| *byte == b'/').next().is_some_and(|group| group.contains(&b'.'))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn some_requests_are_relayed_to_other_servers() {
        let relayed = |target: &str| {
            let target = target.parse().unwrap();
            may_be_relayed(&RequestInfo::new(&Method::GET, &target).unwrap())
        };
        for target in [
            "/api/v1/namespaces/a/pods/p/log",
            "/api/v1/namespaces/a/pods/p/exec?command=ls",
            "/api/v1/namespaces/a/services/s/proxy/login",
            "/api/v1/nodes/n/proxy/metrics",
            "/api/v1/proxy/namespaces/a/services/s",
            "/apis/metrics.k8s.io/v1beta1/nodes",
            "/apis/metrics.k8s.io/v1beta1",
        ] {
            assert!(relayed(target), "{target}");
        }
        for target in [
            "/api/v1/pods",
            "/api/v1/namespaces/a/pods/p/status",
            "/apis/apps/v1/deployments",
            "/apis/apps/v1",
            "/apis",
            "/version",
            "/",
        ] {
            assert!(!relayed(target), "{target}");
        }
    }
}
