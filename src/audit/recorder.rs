//! The state that all records share: the sinks, and which events and bodies each of them receives.

use std::sync::Arc;
use std::thread::ThreadId;

use clap::ValueEnum;
use serde::Deserialize;
use tokio::runtime::Handle;

use super::backend::Backend;
use super::converter::Converter;
use super::metrics::AuditMetrics;
use super::recording::BodySettings;
use super::view::{EventVariant, OneOrMore, annotate};
use crate::policy::{Decision, Level, PolicyHandle};
use audit_log::{Commit, CommitSequence, Line};
use k8s_audit::request::RequestInfo;
use kube_authn::UserInfo;

/// The format of events (`--audit-log-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One JSON object per line
    Json,
    /// One line of key="value" pairs, without bodies
    Legacy,
}

/// What happens to a request whose body decoders read differently (`--audit-ambiguous-bodies`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AmbiguousBodies {
    /// Forward it; an annotation of the event names what is ambiguous
    Record,
    /// Reject it with 400 before it is forwarded; the event has the body as it was received
    Reject,
}

/// How the events of a sink are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// JSON, or the legacy text format.
    pub format: Format,
    /// Maximum length of an event; longer ones lose bodies.
    pub max_event: Option<usize>,
}

/// A destination of events, and the settings for what it receives.
pub struct AuditSink {
    /// The name in metrics, health checks and errors.
    pub name: String,
    /// The backend that stores the events.
    pub backend: Backend,
    /// The policy that selects requests and levels.
    pub policy: PolicyHandle,
    /// How bodies are recorded.
    pub bodies: BodySettings,
    /// How events are encoded.
    pub encoding: Encoding,
}

/// Annotation of all events with `--audit-annotate-rule`.
const RULE: &str = "kube-audit-proxy/policy-rule";

/// The decision of a policy about a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct PolicyDecision {
    /// The matching rule; `None` if none matched.
    pub(super) rule: Option<u32>,
    /// The generation of the policy.
    pub(super) generation: u64,
}

impl PolicyDecision {
    /// A decision of no policy: no policy has this generation.
    const NONE: PolicyDecision = PolicyDecision { rule: None, generation: 0 };
}

/// A set of sinks, by their index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SinkSet(u32);

impl SinkSet {
    pub(super) fn insert(&mut self, sink: usize) {
        self.0 |= 1 << sink;
    }

    fn first(self) -> Option<usize> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as usize)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn is_one(self) -> bool {
        self.0.is_power_of_two()
    }

    fn and(self, other: SinkSet) -> SinkSet {
        SinkSet(self.0 & other.0)
    }

    pub(super) fn or(self, other: SinkSet) -> SinkSet {
        SinkSet(self.0 | other.0)
    }

    pub(super) fn without(self, other: SinkSet) -> SinkSet {
        SinkSet(self.0 & !other.0)
    }

    pub(super) fn iter(mut self) -> impl Iterator<Item = usize> {
        std::iter::from_fn(move || {
            let first = self.first()?;
            self.0 &= self.0 - 1;
            Some(first)
        })
    }
}

/// The state that all records share.
pub struct AuditPipeline {
    sinks: Box<[AuditSink]>,
    /// Each policy once, with the sinks that use it.
    policies: Box<[(PolicyHandle, SinkSet)]>,
    /// For each sink, the index of its policy, and its number in the policy's counts.
    policy_of: Box<[(usize, usize)]>,
    annotates_rule: bool,
    /// For each sink, the sinks whose events are encoded in the same way.
    encoded_alike: Box<[SinkSet]>,
    strict: SinkSet,
    converter: Arc<Converter>,
    ambiguous: Option<AmbiguousBodies>,
    /// The metrics.
    pub metrics: Arc<AuditMetrics>,
    /// `--audit-node-name`, which is added to all events.
    pub node_name: Option<String>,
}

/// Maximum number of sinks.
pub const MAX_SINKS: usize = u32::BITS as usize;

impl AuditPipeline {
    /// Creates a recorder for `sinks`, of which there must be 1 to [`MAX_SINKS`].
    pub fn new(
        mut sinks: Vec<AuditSink>,
        metrics: Arc<AuditMetrics>,
        node_name: Option<String>,
    ) -> AuditPipeline {
        assert!((1..=MAX_SINKS).contains(&sinks.len()), "the configuration sees to it");
        // Sinks that may block come after those that do not.
        sinks.sort_by_key(|sink| sink.backend.is_awaited());
        let mut policies: Vec<(PolicyHandle, SinkSet)> = Vec::new();
        let mut strict = SinkSet::default();
        for (index, sink) in sinks.iter().enumerate() {
            if sink.backend.is_strict() {
                strict.insert(index);
            }
            match policies.iter_mut().find(|(policy, _)| policy.is_same(&sink.policy)) {
                Some((_, sinks)) => sinks.insert(index),
                None => {
                    let mut of = SinkSet::default();
                    of.insert(index);
                    policies.push((sink.policy.clone(), of));
                }
            }
        }
        let alike = |sink: &AuditSink| {
            let mut alike = SinkSet::default();
            let same = sinks.iter().enumerate().filter(|(_, s)| s.encoding == sink.encoding);
            same.for_each(|(index, _)| alike.insert(index));
            alike
        };
        let encoded_alike = sinks.iter().map(alike).collect();
        let policy_of = sinks.iter().map(|sink: &AuditSink| {
            let policy = policies.iter().position(|(policy, _)| policy.is_same(&sink.policy));
            (policy.unwrap_or_default(), sink.policy.backend(&sink.name))
        });
        let policy_of = policy_of.collect();
        let (sinks, policies) = (sinks.into(), policies.into());
        AuditPipeline {
            sinks,
            policies,
            policy_of,
            annotates_rule: false,
            encoded_alike,
            strict,
            converter: Arc::new(Converter::new()),
            ambiguous: None,
            metrics,
            node_name,
        }
    }

    /// Sets whether events are annotated with the rule of the policy that decided about them.
    pub fn annotating_rule(self, annotates_rule: bool) -> AuditPipeline {
        AuditPipeline { annotates_rule, ..self }
    }

    /// Returns the policies, each once.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyHandle> {
        self.policies.iter().map(|(policy, _)| policy)
    }

    /// Sets what happens to requests whose body is ambiguous. `None`, the default, refuses them if
    /// a sink is strict.
    pub fn with_ambiguous_bodies(self, ambiguous: Option<AmbiguousBodies>) -> AuditPipeline {
        AuditPipeline { ambiguous, ..self }
    }

    /// Returns whether requests with an ambiguous body are refused.
    pub(super) fn refuses_ambiguous(&self) -> bool {
        match self.ambiguous {
            Some(ambiguous) => ambiguous == AmbiguousBodies::Reject,
            None => self.is_strict(),
        }
    }

    /// Returns the converter of large bodies.
    pub(super) fn converter(&self) -> &Arc<Converter> {
        &self.converter
    }

    /// Returns when no large body is being converted: the last events of these requests have been
    /// submitted.
    pub async fn converted(&self) {
        self.converter.finished().await;
    }

    /// Returns all sinks.
    pub fn sinks(&self) -> &[AuditSink] {
        &self.sinks
    }

    /// Returns the commit sequence of a worker thread, whose tasks run on `runtime`.
    pub fn commit_sequence(&self, thread: ThreadId, runtime: Handle) -> CommitSequence {
        let logs = self.sinks.iter().filter_map(|sink| sink.backend.log());
        CommitSequence::of_worker(thread, runtime, logs)
    }

    /// Returns whether a sink is strict: without its events no request is forwarded.
    pub(super) fn is_strict(&self) -> bool {
        !self.strict.is_empty()
    }

    /// Returns how the bodies of a view are recorded.
    pub(super) fn bodies(&self, view: &EventVariant) -> &BodySettings {
        &self.sinks[view.sink].bodies
    }

    /// Evaluates the policies for a request: returns the views of the sinks, and the decision of
    /// each policy.
    pub(super) fn views(
        &self,
        user: Option<&UserInfo>,
        info: &RequestInfo,
    ) -> (OneOrMore<EventVariant>, OneOrMore<PolicyDecision>, bool) {
        let mut views: Option<OneOrMore<EventVariant>> = None;
        let mut all_decided: Option<OneOrMore<PolicyDecision>> = None;
        let mut is_extended = false;
        for (number, (policy, sinks)) in self.policies.iter().enumerate() {
            let policy = policy.borrow();
            let decision = policy.evaluate(user, info);
            policy.usage.count_request(decision.rule);
            let decided = PolicyDecision { rule: decision.rule, generation: policy.generation };
            match &mut all_decided {
                None => all_decided = Some(OneOrMore::one(decided)),
                Some(all) => all.push(decided),
            }
            let has_extension = policy.extension.is_some();
            is_extended |= has_extension;
            for sink in sinks.iter() {
                let shown = |view: &EventVariant| self.is_shown_as(view, sink, number, &decision);
                let is_there = views.as_ref().is_some_and(|views| views.iter().any(shown));
                if !is_there {
                    let mut view = EventVariant::new(sink, number, &decision);
                    view.is_of_one_policy = has_extension || self.annotates_rule;
                    if self.annotates_rule {
                        let rule = policy.annotation(decision.rule).to_owned();
                        annotate(&mut view.annotations, RULE, rule);
                    }
                    match &mut views {
                        None => views = Some(OneOrMore::one(view)),
                        Some(views) => views.push(view),
                    }
                }
                let mut views = views.iter_mut().flat_map(OneOrMore::iter_mut);
                let view = views.find(|view| self.is_shown_as(view, sink, number, &decision));
                view.expect("there is one by now").show(sink, &decision);
            }
        }
        let views = views.expect("there is a sink");
        (views, all_decided.expect("it has a policy"), is_extended)
    }

    /// Returns whether the sink's settings and decision result in `view`.
    fn is_shown_as(
        &self,
        view: &EventVariant,
        sink: usize,
        policy: usize,
        decision: &Decision,
    ) -> bool {
        let (of_view, of_sink) = (self.bodies(view), &self.sinks[sink].bodies);
        view.sink == sink
            || (view.policy == policy
                || !view.is_of_one_policy && self.sinks[sink].policy.borrow().extension.is_none())
                && view.level == decision.level
                && if view.level <= Level::Metadata {
                    // Redaction also applies to the URL.
                    of_view.redaction.is_some() == of_sink.redaction.is_some()
                } else {
                    view.omit_managed_fields == decision.omit_managed_fields
                        && of_view.records_as(of_sink)
                }
    }

    /// Submits an event to its takers, encoded once for those with the same encoding. Returns a
    /// commit that waits for `before` and for all of them.
    pub(super) fn store(
        &self,
        takers: SinkSet,
        decided: &OneOrMore<PolicyDecision>,
        encode: impl Fn(Encoding) -> Vec<u8>,
        sequence: &CommitSequence,
        before: Commit,
    ) -> Commit {
        let mut commit = before;
        let mut rest = takers;
        while let Some(first) = rest.first() {
            let alike = rest.and(self.encoded_alike[first]);
            rest = rest.without(alike);
            let line = encode(self.sinks[first].encoding);
            alike.iter().for_each(|sink| self.count_bytes(sink, decided, line.len()));
            let submit = |sink: usize, line| self.sinks[sink].backend.submit(line, sequence);
            if alike.is_one() {
                commit = commit.and(submit(first, Line::Own(line)));
                continue;
            }
            let line = Line::Shared(Arc::new(line));
            commit = alike.iter().fold(commit, |all, sink| all.and(submit(sink, line.clone())));
        }
        commit
    }

    /// Returns the number of a sink in the counts of its policy.
    pub(super) fn number(&self, sink: usize) -> usize {
        self.policy_of[sink].1
    }

    /// Writes an event that concerns no single request to all sinks with the policy of this index.
    pub(super) fn write_summary(&self, policy: usize, encode: impl Fn(Encoding) -> Vec<u8>) {
        let (_, takers) = self.policies[policy];
        let (decided, sequence) =
            (OneOrMore::one(PolicyDecision::NONE), CommitSequence::detached());
        // Nothing waits for the commit.
        drop(self.store(takers, &decided, encode, &sequence, Commit::DONE));
        self.count_event();
    }

    /// Counts the bytes of an event for the rule that matched. A policy that was loaded since then
    /// has its own counts.
    fn count_bytes(&self, sink: usize, decided: &OneOrMore<PolicyDecision>, bytes: usize) {
        let (policy, number) = self.policy_of[sink];
        let Some(decided) = decided.iter().nth(policy) else { return };
        let policy = self.policies[policy].0.borrow();
        if policy.generation == decided.generation {
            policy.usage.count_bytes(decided.rule, number, bytes);
        }
    }

    /// Counts an event that one or more sinks received. A single sink counts its events itself.
    pub(super) fn count_event(&self) {
        if self.sinks.len() > 1 {
            self.metrics.events.inc();
        }
    }

    /// Returns whether the strict sinks in `to_come`, which will receive events of a request, could
    /// store them now; those in `known` have just stored one. Waits for a webhook that is being
    /// probed.
    pub(super) async fn is_writable(&self, to_come: SinkSet, known: SinkSet) -> bool {
        for sink in to_come.and(self.strict).without(known).iter() {
            if !self.sinks[sink].backend.is_writable().await {
                return false;
            }
        }
        true
    }

    /// Returns the takers of all views.
    pub(super) fn takers(
        views: &OneOrMore<EventVariant>,
        of: impl Fn(&EventVariant) -> SinkSet,
    ) -> SinkSet {
        views.iter().fold(SinkSet::default(), |all, view| all.or(of(view)))
    }
}
