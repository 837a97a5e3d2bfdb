//! The reports that count events by fields: which events, which fields, which order.

use super::group::Sort;
use crate::event::Event;
use crate::index::Column;
use crate::output::Field;

/// A number or time in addition to the fields of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    Count,
    Failed,
    Bytes,
    First,
    Last,
}

impl Measure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Measure::Count => "count",
            Measure::Failed => "failed",
            Measure::Bytes => "bytes",
            Measure::First => "first",
            Measure::Last => "last",
        }
    }
}

/// Which events a report counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventFilter {
    pub(crate) matches: fn(&Event<'_>) -> bool,
    /// The index columns that it depends on.
    pub(crate) by: &'static [Column],
}

impl EventFilter {
    /// All events.
    pub(crate) const ALL: EventFilter = EventFilter { matches: |_| true, by: &[] };
}

/// A report.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) fields: Vec<Field>,
    pub(crate) keep: EventFilter,
    pub(crate) measures: &'static [Measure],
    pub(crate) sort: Sort,
}

const COUNT: &[Measure] = &[Measure::Count];
const SEEN: &[Measure] = &[Measure::Count, Measure::Failed, Measure::First, Measure::Last];

/// `top --by`
pub(crate) fn top(fields: Vec<Field>) -> Kind {
    Kind { fields, keep: EventFilter::ALL, measures: COUNT, sort: Sort::Count }
}

/// Users and their failed requests.
pub(crate) fn users() -> Kind {
    let fields = vec![Field::User];
    Kind { fields, keep: EventFilter::ALL, measures: SEEN, sort: Sort::Count }
}

/// Failed requests, and why they failed.
pub(crate) fn failed() -> Kind {
    let fields =
        vec![Field::User, Field::Verb, Field::Object, Field::Namespace, Field::Code, Field::Reason];
    let measures = &[Measure::Count, Measure::First, Measure::Last];
    let matches = |event: &Event<'_>| event.status.code.is_some_and(|code| code >= 400);
    let keep = EventFilter { matches, by: &[Column::Code] };
    Kind { fields, keep, measures, sort: Sort::Count }
}

/// Access to Secrets; lists and watches read all of a namespace or of the cluster.
pub(crate) fn secrets() -> Kind {
    let fields = vec![Field::Who, Field::Verb, Field::Namespace, Field::Name];
    let matches = |event: &Event<'_>| {
        event.object.resource.is(b"secrets") && !event.object.api_group.is_some()
    };
    let keep = EventFilter { matches, by: &[Column::Resource, Column::ApiGroup] };
    Kind { fields, keep, measures: SEEN, sort: Sort::Count }
}

/// Commands in pods, and connections to them.
pub(crate) fn exec() -> Kind {
    let fields = vec![
        Field::Who,
        Field::Subresource,
        Field::Namespace,
        Field::Name,
        Field::Command,
        Field::Code,
        Field::SourceIp,
    ];
    let matches = |event: &Event<'_>| {
        let object = &event.object;
        ["exec", "attach", "portforward", "ephemeralcontainers", "proxy"]
            .iter()
            .any(|subresource| object.subresource.is(subresource.as_bytes()))
            && ["pods", "nodes", "services"]
                .iter()
                .any(|resource| object.resource.is(resource.as_bytes()))
    };
    let measures = &[Measure::Count, Measure::First, Measure::Last];
    let keep = EventFilter { matches, by: &[Column::Resource, Column::Subresource] };
    Kind { fields, keep, measures, sort: Sort::First }
}

/// Unauthenticated requests.
pub(crate) fn anonymous() -> Kind {
    let fields = vec![Field::Verb, Field::Path, Field::Code, Field::SourceIp, Field::UserAgent];
    let matches = |event: &Event<'_>| event.user.name.is(b"system:anonymous");
    let measures = &[Measure::Count, Measure::First, Measure::Last];
    let keep = EventFilter { matches, by: &[Column::User] };
    Kind { fields, keep, measures, sort: Sort::Count }
}

/// Changes of RBAC.
pub(crate) fn rbac() -> Kind {
    let fields = vec![
        Field::Time,
        Field::Who,
        Field::Verb,
        Field::Resource,
        Field::Namespace,
        Field::Name,
        Field::Grants,
        Field::Code,
    ];
    let matches = |event: &Event<'_>| {
        event.object.api_group.is(b"rbac.authorization.k8s.io") && is_write(event)
    };
    let keep = EventFilter { matches, by: &[Column::ApiGroup, Column::Verb] };
    Kind { fields, keep, measures: &[], sort: Sort::First }
}

/// Impersonation.
pub(crate) fn impersonation() -> Kind {
    let fields = vec![Field::User, Field::Impersonated, Field::Verb, Field::Object];
    let matches = |event: &Event<'_>| event.impersonated_user.is_some();
    let keep = EventFilter { matches, by: &[Column::Impersonated] };
    Kind { fields, keep, measures: SEEN, sort: Sort::Count }
}

/// Requests for tokens of service accounts, and TokenReviews.
pub(crate) fn tokens() -> Kind {
    let fields = vec![
        Field::Who,
        Field::Verb,
        Field::Object,
        Field::Namespace,
        Field::Name,
        Field::SourceIp,
    ];
    let matches = |event: &Event<'_>| {
        let object = &event.object;
        object.resource.is(b"serviceaccounts") && object.subresource.is(b"token")
            || object.resource.is(b"tokenreviews")
            || object.resource.is(b"tokenrequests")
    };
    let keep = EventFilter { matches, by: &[Column::Resource, Column::Subresource] };
    Kind { fields, keep, measures: SEEN, sort: Sort::Count }
}

/// Use of deprecated APIs, by annotations of kube-apiserver.
pub(crate) fn deprecated() -> Kind {
    let fields = vec![
        Field::Annotation("k8s.io/removed-release".to_owned()),
        Field::ApiGroup,
        Field::ApiVersion,
        Field::Resource,
        Field::Verb,
        Field::User,
        Field::UserAgent,
    ];
    let matches = |event: &Event<'_>| event.annotation(b"k8s.io/deprecated").is(b"true");
    let keep = EventFilter { matches, by: &[Column::Annotations] };
    Kind { fields, keep, measures: SEEN, sort: Sort::Count }
}

/// Decisions of Pod Security, by annotations of kube-apiserver.
pub(crate) fn pod_security() -> Kind {
    let annotation = |name: &str| Field::Annotation(format!("pod-security.kubernetes.io/{name}"));
    let fields = vec![
        Field::Namespace,
        Field::Object,
        Field::User,
        annotation("enforce-policy"),
        annotation("audit-violations"),
        annotation("exempt"),
        annotation("error"),
        Field::Code,
    ];
    let matches = |event: &Event<'_>| {
        let mut found = false;
        event
            .annotations(|key, _| found |= key.bytes().starts_with(b"pod-security.kubernetes.io/"));
        found
    };
    let keep = EventFilter { matches, by: &[Column::Annotations] };
    Kind { fields, keep, measures: SEEN, sort: Sort::Count }
}

/// What uses the space in the log.
pub(crate) fn volume(by: Vec<Field>) -> Kind {
    let fields = match by.is_empty() {
        true => vec![Field::User, Field::Verb, Field::Resource],
        false => by,
    };
    let measures = &[Measure::Count, Measure::Bytes];
    Kind { fields, keep: EventFilter::ALL, measures, sort: Sort::Bytes }
}

/// User agents, by when they were first seen.
pub(crate) fn agents() -> Kind {
    let fields = vec![Field::UserAgent, Field::User];
    Kind { fields, keep: EventFilter::ALL, measures: SEEN, sort: Sort::First }
}

/// The groups of the summary.
pub(crate) fn summary() -> Kind {
    let fields = vec![Field::User, Field::Verb, Field::Code];
    let measures =
        &[Measure::Count, Measure::Failed, Measure::Bytes, Measure::First, Measure::Last];
    Kind { fields, keep: EventFilter::ALL, measures, sort: Sort::Count }
}

/// Whether the request changes something, by its verb.
pub(crate) fn is_write(event: &Event<'_>) -> bool {
    is_write_verb(&event.verb.bytes())
}

/// See [`is_write`].
pub(crate) fn is_write_verb(verb: &[u8]) -> bool {
    matches!(verb, b"create" | b"update" | b"patch" | b"delete" | b"deletecollection")
}
