//! A 401 of the API server to a request that carries the proxy's own credentials.

use super::Proxy;
use crate::audit::record::RequestFacts;
use crate::request::RequestInfo;
use crate::upstream::access::Access;
use crate::upstream::identity::Identity;

/// Subresources for which the API server passes on what a kubelet or a pod responds.
const RELAYED: [&[u8]; 5] = [b"attach", b"exec", b"log", b"portforward", b"proxy"];

/// Returns whether the API server rejected the proxy's credentials. In `pass-through` mode the
/// credentials are the client's.
pub(super) async fn are_rejected(proxy: &Proxy, facts: &RequestFacts) -> bool {
    let as_front_proxy = match proxy.identity {
        Identity::PassThrough => return false,
        Identity::RequestHeader => true,
        Identity::Impersonate => false,
    };
    let count = proxy.upstream.metrics().access_denied(Access::Forward);
    let may_be_relayed = may_be_relayed(&facts.info);
    proxy.upstream.are_credentials_rejected(may_be_relayed, as_front_proxy, count).await
}

/// Returns whether another server than the API server may have responded: an aggregated API, whose
/// group always has a dot, or what is behind a kubelet.
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
