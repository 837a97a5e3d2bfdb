//! What all records share: the sinks, what each of them is to have, and how they are told apart.

use std::sync::Arc;
use std::thread::ThreadId;

use tokio::runtime::Handle;

use super::backend::Backend;
use super::converter::Converter;
use super::metrics::AuditMetrics;
use super::recording::BodySettings;
use super::view::{Each, View};
use crate::authn::UserInfo;
use crate::policy::{Decision, Level, PolicyHandle};
use crate::request::RequestInfo;
use audit_log::{Commit, CommitSequence, Line};

/// How events are written (`--audit-log-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// kube-apiserver's older text line.
    Legacy,
}

/// What happens to a request whose body means different things to different decoders
/// (`--audit-ambiguous-bodies`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmbiguousBodies {
    /// It is forwarded, and its event has an annotation.
    Record,
    /// It is refused with 400 before anything of it is forwarded.
    Reject,
}

/// How a sink has its events encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// JSON, or the older text.
    pub format: Format,
    /// The longest event, if longer ones are to lose bodies.
    pub max_event: Option<usize>,
}

/// One place where events go, and what it is to have of each request.
pub struct AuditSink {
    /// What metrics, health and errors call it.
    pub name: String,
    /// Where they go.
    pub backend: Backend,
    /// How much of which requests.
    pub policy: PolicyHandle,
    /// How bodies are recorded.
    pub bodies: BodySettings,
    /// How events are encoded.
    pub encoding: Encoding,
}

/// Some of the sinks, by their place in the list.
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

    fn without(self, other: SinkSet) -> SinkSet {
        SinkSet(self.0 & !other.0)
    }

    fn iter(mut self) -> impl Iterator<Item = usize> {
        std::iter::from_fn(move || {
            let first = self.first()?;
            self.0 &= self.0 - 1;
            Some(first)
        })
    }
}

/// What all records share.
pub struct Recorder {
    sinks: Box<[AuditSink]>,
    /// Each policy once, with the sinks whose policy it is.
    policies: Box<[(PolicyHandle, SinkSet)]>,
    /// For each sink, those whose events are encoded as its own are.
    encoded_alike: Box<[SinkSet]>,
    strict: SinkSet,
    converter: Arc<Converter>,
    ambiguous: Option<AmbiguousBodies>,
    /// What is counted.
    pub metrics: Arc<AuditMetrics>,
    /// `--audit-node-name`, which is noted in all events.
    pub node_name: Option<String>,
}

/// So many sinks there can be.
pub const MAX_SINKS: usize = u32::BITS as usize;

impl Recorder {
    /// Records to `sinks`, of which there are 1 to [`MAX_SINKS`].
    pub fn new(
        mut sinks: Vec<AuditSink>,
        metrics: Arc<AuditMetrics>,
        node_name: Option<String>,
    ) -> Recorder {
        assert!((1..=MAX_SINKS).contains(&sinks.len()), "the configuration sees to it");
        // Those that may take long to take an event come after those that do not.
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
        let (sinks, policies) = (sinks.into(), policies.into());
        Recorder {
            sinks,
            policies,
            encoded_alike,
            strict,
            converter: Arc::new(Converter::new()),
            ambiguous: None,
            metrics,
            node_name,
        }
    }

    /// Sets what happens to requests whose body is ambiguous. `None`, the default, refuses them if a
    /// sink is strict.
    pub fn with_ambiguous_bodies(self, ambiguous: Option<AmbiguousBodies>) -> Recorder {
        Recorder { ambiguous, ..self }
    }

    /// Whether requests whose body is ambiguous are refused.
    pub(super) fn refuses_ambiguous(&self) -> bool {
        match self.ambiguous {
            Some(ambiguous) => ambiguous == AmbiguousBodies::Reject,
            None => self.is_strict(),
        }
    }

    /// Where large bodies are converted.
    pub(super) fn converter(&self) -> &Arc<Converter> {
        &self.converter
    }

    /// Returns when no large body is being converted: the last events of its requests have been handed
    /// to the sinks.
    pub async fn converted(&self) {
        self.converter.finished().await;
    }

    /// All sinks.
    pub fn sinks(&self) -> &[AuditSink] {
        &self.sinks
    }

    /// Returns the commit sequence of a worker thread, whose tasks run on `runtime`.
    pub fn commit_sequence(&self, thread: ThreadId, runtime: Handle) -> CommitSequence {
        let logs = self.sinks.iter().filter_map(|sink| sink.backend.log());
        CommitSequence::of_worker(thread, runtime, logs)
    }

    /// Whether there is a sink without whose events nothing may pass.
    pub(super) fn is_strict(&self) -> bool {
        !self.strict.is_empty()
    }

    /// How the bodies of a view are recorded.
    pub(super) fn bodies(&self, view: &View) -> &BodySettings {
        &self.sinks[view.sink].bodies
    }

    /// What each sink is shown of a request, by its policy.
    pub(super) fn views(&self, user: Option<&UserInfo>, info: &RequestInfo) -> Each<View> {
        let mut views: Option<Each<View>> = None;
        for (policy, sinks) in &self.policies {
            let decision = policy.borrow().evaluate(user, info);
            for sink in sinks.iter() {
                let views = match &mut views {
                    None => views.insert(Each::one(View::new(sink, &decision))),
                    Some(views) => {
                        if !views.iter().any(|view| self.is_shown_as(view, sink, &decision)) {
                            views.push(View::new(sink, &decision));
                        }
                        views
                    }
                };
                let view = views.iter_mut().find(|view| self.is_shown_as(view, sink, &decision));
                view.expect("there is one by now").show(sink, &decision);
            }
        }
        views.expect("there is a sink")
    }

    /// Whether `view` is what the sink is to see.
    fn is_shown_as(&self, view: &View, sink: usize, decision: &Decision) -> bool {
        let (of_view, of_sink) = (self.bodies(view), &self.sinks[sink].bodies);
        view.sink == sink
            || view.level == decision.level
                && if view.level <= Level::Metadata {
                    // Redaction is in the URL, too.
                    of_view.redaction.is_some() == of_sink.redaction.is_some()
                } else {
                    view.omit_managed_fields == decision.omit_managed_fields
                        && of_view.records_as(of_sink)
                }
    }

    /// Submits an event to its takers, encoded once for all that have it alike. Returns a commit that
    /// waits for `before` and for all of them.
    pub(super) fn store(
        &self,
        takers: SinkSet,
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

    /// Counts an event, which one or more sinks have got. One that is alone counts for itself.
    pub(super) fn count_event(&self) {
        if self.sinks.len() > 1 {
            self.metrics.events.inc();
        }
    }

    /// Whether the strict ones of `to_come`, the sinks that are to get events of a request, could
    /// store them now; those of `known` have just shown it. Waits for a webhook that is being tried.
    pub(super) async fn is_writable(&self, to_come: SinkSet, known: SinkSet) -> bool {
        for sink in to_come.and(self.strict).without(known).iter() {
            if !self.sinks[sink].backend.is_writable().await {
                return false;
            }
        }
        true
    }

    /// The takers of all views together.
    pub(super) fn takers(views: &Each<View>, of: impl Fn(&View) -> SinkSet) -> SinkSet {
        views.iter().fold(SinkSet::default(), |all, view| all.or(of(view)))
    }
}
