//! Metrics of the backends' audit policies.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::active::ActivePolicy;
use super::reload::PolicyHandle;
use audit_log::BackendLabel;

/// The metric families of policies, with one series per backend.
#[derive(Debug, Default)]
pub struct PolicyFamilies {
    generation: Family<BackendLabel, Gauge>,
    reload_failures: Family<BackendLabel, Counter>,
    rules: RuleCollector,
}

impl PolicyFamilies {
    /// Registers the families in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kube_audit_proxy_policy_generation",
            "Audit policies that were active since start, the current one included",
            self.generation.clone(),
        );
        registry.register(
            "kube_audit_proxy_policy_reload_failures",
            "Rejected versions of the backend's audit policy file; the current policy stayed active",
            self.reload_failures.clone(),
        );
        registry.register_collector(Box::new(self.rules.clone()));
    }

    /// Exposes the counts of the rules of these policies. Only the first call has an effect.
    pub fn expose_rules(&self, policies: Vec<PolicyHandle>) {
        let _ = self.rules.0.set(policies);
    }

    /// Returns the metrics of the policy of the backend `name`.
    pub fn policy(&self, name: &str) -> PolicyMetrics {
        let label = BackendLabel::new(name);
        PolicyMetrics {
            backend: name.to_owned(),
            generation: self.generation.get_or_create_owned(&label),
            reload_failures: self.reload_failures.get_or_create_owned(&label),
        }
    }
}

/// The metrics of one backend's policy.
#[derive(Debug, Clone, Default)]
pub struct PolicyMetrics {
    /// The backend's name.
    pub backend: String,
    /// Policies that were active since start; 1 is the one loaded at start.
    pub generation: Gauge,
    /// Rejected versions of the file.
    pub reload_failures: Counter,
}

/// Rules that have series of their own; those of longer policies are counted together.
const MOST: usize = 1000;

/// Reads the counts of the active policies at each scrape.
#[derive(Debug, Clone, Default)]
struct RuleCollector(Arc<OnceLock<Vec<PolicyHandle>>>);

/// Counts of one rule, of which requests do not depend on the backend.
struct RuleCounts<'r> {
    rule: &'r str,
    level: &'static str,
    requests: u64,
    bytes: &'r dyn Fn(usize) -> u64,
}

fn each_rule(
    policy: &ActivePolicy,
    mut each: impl FnMut(RuleCounts<'_>) -> fmt::Result,
) -> fmt::Result {
    let (usage, rules) = (&policy.usage, policy.spec.rules.len());
    for index in 0..rules.min(MOST) {
        let number = Some(index as u32);
        each(RuleCounts {
            rule: &index.to_string(),
            level: policy.decision_of(Some(index)).level.as_str(),
            requests: usage.requests(number),
            bytes: &|backend| usage.bytes(number, backend),
        })?;
    }
    if rules > MOST {
        let others = || (MOST..rules).map(|rule| Some(rule as u32));
        each(RuleCounts {
            rule: "other",
            level: "",
            requests: others().map(|rule| usage.requests(rule)).sum(),
            bytes: &|backend| others().map(|rule| usage.bytes(rule, backend)).sum(),
        })?;
    }
    each(RuleCounts {
        rule: "none",
        level: "None",
        requests: usage.requests(None),
        bytes: &|backend| usage.bytes(None, backend),
    })
}

impl RuleCollector {
    fn policies(&self) -> &[PolicyHandle] {
        self.0.get().map_or(&[], Vec::as_slice)
    }

    /// Encodes one number of each rule and backend.
    fn encode_rules(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        value: impl Fn(&RuleCounts<'_>, usize) -> u64,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for handle in self.policies() {
            each_rule(&handle.current(), |counts| {
                for (number, backend) in handle.backends().iter().enumerate() {
                    let labels =
                        [("backend", &backend[..]), ("rule", counts.rule), ("level", counts.level)];
                    let value = value(&counts, number);
                    metric
                        .encode_family(&labels)?
                        .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl Collector for RuleCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let requests = (
            "kube_audit_proxy_policy_rule_requests",
            "Requests that the rule of the active audit policy matched since the policy was loaded.",
        );
        self.encode_rules(&mut encoder, requests, |counts, _| counts.requests)?;
        let bytes = (
            "kube_audit_proxy_policy_rule_bytes",
            "Bytes of audit events by the rule of the active audit policy since the policy was loaded.",
        );
        self.encode_rules(&mut encoder, bytes, |counts, backend| (counts.bytes)(backend))?;
        let mut dropped = encoder.encode_descriptor(
            "kube_audit_proxy_policy_dropped_events",
            "Audit events that the rule of the PolicyExtension dropped since it was loaded.",
            None,
            MetricType::Counter,
        )?;
        for handle in self.policies() {
            let policy = handle.current();
            let rules = policy.extension.iter().flat_map(|extension| extension.rules());
            for (rule, (name, action)) in rules.enumerate() {
                for (number, backend) in handle.backends().iter().enumerate() {
                    let labels = [("backend", &backend[..]), ("rule", name), ("action", action)];
                    let value = policy.usage.dropped(rule, number);
                    dropped
                        .encode_family(&labels)?
                        .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
                }
            }
        }
        Ok(())
    }
}
