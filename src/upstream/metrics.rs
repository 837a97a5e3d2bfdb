//! Metrics of connections and requests to the API server.

use std::sync::{Arc, Weak};

use api_client::EndpointSet;
use api_client::endpoint_set::{Failure, Health, Member};
use arc_swap::ArcSwapOption;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::access::Access;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AccessLabel {
    access: &'static str,
}

/// The metrics of connections and requests to the API server. The label `access` has one value per
/// variant of [`Access`].
#[derive(Debug)]
pub struct UpstreamMetrics {
    /// Open connections.
    pub connections: Gauge,
    /// Requests without a response from the API server.
    pub errors: Counter,
    access_denied: [Counter; Access::ALL.len()],
    access_denied_family: Family<AccessLabel, Counter>,
    endpoints: EndpointCollector,
}

impl Default for UpstreamMetrics {
    fn default() -> UpstreamMetrics {
        let family = Family::<AccessLabel, Counter>::default();
        UpstreamMetrics {
            connections: Gauge::default(),
            errors: Counter::default(),
            access_denied: Access::ALL
                .map(|(_, access)| family.get_or_create_owned(&AccessLabel { access })),
            access_denied_family: family,
            endpoints: EndpointCollector::default(),
        }
    }
}

impl UpstreamMetrics {
    /// Registers the metrics in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_upstream_connections",
            "Open connections to the API server",
            self.connections.clone(),
        );
        registry.register(
            "kube_audit_proxy_upstream_errors",
            "Requests that failed because the API server could not be reached or did not respond",
            self.errors.clone(),
        );
        registry.register(
            "kube_audit_proxy_upstream_access_denied",
            "Responses of the API server that denied the proxy's own access (401 or 403)",
            self.access_denied_family.clone(),
        );
        registry.register_collector(Box::new(self.endpoints.clone()));
    }

    /// Exposes the state of these addresses from now on.
    pub(super) fn watch(&self, endpoints: &Arc<EndpointSet>) {
        self.endpoints.0.store(Some(Arc::new(Arc::downgrade(endpoints))));
    }

    /// Returns the counter of responses that denied the proxy's own access.
    pub fn access_denied(&self, access: Access) -> &Counter {
        &self.access_denied[access as usize]
    }
}

/// The metrics of the addresses of an API server that has several, read where they are counted. The
/// label `endpoint` has one value for each address.
#[derive(Clone, Default)]
struct EndpointCollector(Arc<ArcSwapOption<Weak<EndpointSet>>>);

impl std::fmt::Debug for EndpointCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndpointCollector")
    }
}

impl Collector for EndpointCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let endpoints = self.0.load().as_ref().and_then(|endpoints| endpoints.upgrade());
        let endpoints = endpoints.filter(|endpoints| endpoints.is_balanced());
        let members = endpoints.map(|endpoints| Arc::clone(&endpoints.members()));
        let members = members.as_deref().map_or(&[][..], Vec::as_slice);
        type Gauge = (&'static str, &'static str, fn(&Member) -> i64);
        let gauges: [Gauge; 2] = [
            (
                "kube_audit_proxy_upstream_endpoint_healthy",
                "Whether requests are sent to this address of the API server (1) or it is down or not ready (0).",
                |member| i64::from(member.health() == Health::Healthy),
            ),
            (
                "kube_audit_proxy_upstream_endpoint_requests_in_flight",
                "Requests in flight at this address of the API server, upgraded connections included.",
                |member| i64::try_from(member.in_flight()).unwrap_or(i64::MAX),
            ),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for member in members {
                let label = [("endpoint", &**member.name())];
                family.encode_family(&label)?.encode_gauge(&value(member))?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "kube_audit_proxy_upstream_endpoint_failures",
            "Failures of this address of the API server.",
            None,
            MetricType::Counter,
        )?;
        for member in members {
            for (failure, reason) in Failure::ALL {
                let labels = [("endpoint", &**member.name()), ("reason", reason)];
                let count = member.failures(failure);
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }
}
