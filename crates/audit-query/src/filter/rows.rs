//! Filters over an index: which columns they need, and which row groups may match.

use super::Filter;
use super::pattern::{Pattern, Set};
use crate::event::{Event, Text};
use crate::index::{Column, Columns, Probe, parse_uuid};

impl Filter {
    /// The columns that tell whether an event matches, but for expressions.
    pub(crate) fn columns(&self) -> Columns {
        const TIMES: &[Column] = &[Column::StageTime, Column::Received];
        let has_code = !self.code.is_empty() || self.failed || self.forbidden;
        let has_user = !self.user.is_empty()
            || !self.service_account.is_empty()
            || self.anonymous
            || self.human;
        [
            (self.since.is_some() || self.until.is_some(), TIMES),
            (self.min_latency.is_some(), TIMES),
            (self.min_latency.is_some(), &[Column::Stage]),
            (has_user, &[Column::User]),
            (!self.group.is_empty(), &[Column::Groups]),
            (!self.impersonated.is_empty(), &[Column::Impersonated]),
            (!self.verb.is_empty(), &[Column::Verb]),
            (!self.resource.is_empty(), &[Column::Resource, Column::ApiGroup, Column::Subresource]),
            (!self.namespace.is_empty(), &[Column::Namespace]),
            (!self.name.is_empty(), &[Column::Name]),
            (!self.uri.is_empty() || !self.field_manager.is_empty(), &[Column::Uri]),
            (has_code, &[Column::Code]),
            (!self.audit_id.is_empty(), &[Column::AuditId]),
            (!self.source_ip.is_empty(), &[Column::SourceIps]),
            (!self.user_agent.is_empty(), &[Column::UserAgent]),
            (!self.level.is_empty(), &[Column::Level]),
            (!self.annotation.is_empty(), &[Column::Annotations]),
        ]
        .into_iter()
        .filter(|(used, _)| *used)
        .fold(Columns::default(), |all, (_, columns)| all.and(Columns::of(columns)))
    }

    /// The audit IDs of which a row must have one, where none has a star. Other texts than UUIDs
    /// are none of them.
    pub(crate) fn audit_ids(&self) -> Option<Vec<[u8; 16]>> {
        let ids = exact(&self.audit_id).filter(|_| self.audit_id.unwanted.is_empty())?;
        Some(ids.into_iter().filter_map(parse_uuid).collect())
    }

    /// Whether there are expressions, which need the whole event.
    pub(crate) fn has_condition(&self) -> bool {
        !self.condition.is_empty()
    }

    /// Whether the columns of an event match, whatever expressions say.
    pub(crate) fn columns_match(&self, event: &Event<'_>) -> bool {
        self.matches_members(event)
    }

    /// Whether all events of a row group are outside of the period wanted.
    pub(crate) fn is_outside(&self, probe: &Probe<'_>) -> bool {
        let Some((first, last)) = probe.times().filter(|_| probe.is_exact()) else { return false };
        self.since.is_some_and(|since| last < since)
            || self.until.is_some_and(|until| first >= until)
    }

    /// Whether an event of a row group may match. Rows that do not say all are not left out.
    pub(crate) fn may_match(&self, probe: &Probe<'_>) -> bool {
        if !probe.is_exact() {
            return true;
        }
        if self.is_outside(probe) {
            return false;
        }
        if self.failed && !probe.has_code(400, i64::MAX)
            || self.forbidden && !probe.has_code(403, 403)
            || !self.code.wanted.is_empty()
                && !self
                    .code
                    .wanted
                    .iter()
                    .any(|range| probe.has_code(*range.start(), *range.end()))
        {
            return false;
        }
        self.may_have_texts(probe) && self.may_have_lists(probe)
    }

    fn may_have_texts(&self, probe: &Probe<'_>) -> bool {
        if let Some(ids) = exact(&self.audit_id)
            && !probe.may_have_audit_id(ids.into_iter())
        {
            return false;
        }
        if let Some(names) = exact(&self.name)
            && !names.iter().any(|name| name.is_empty())
            && !probe.may_have(Column::Name, names.iter().map(|name| name.to_vec()))
        {
            return false;
        }
        let anonymous =
            || Set { wanted: vec![Pattern::new("system:anonymous")], unwanted: Vec::new() };
        let resource = self.resource.wanted.iter().map(|one| one.resource.clone()).collect();
        let resource = Set { wanted: resource, unwanted: Vec::new() };
        let may = |set: &Set<Pattern>, column| {
            // What an event does not have matches an empty pattern.
            set.wanted.is_empty()
                || set.wanted.iter().any(|one| one.matches(Text::default()))
                || probe.any(column, |value| set.wanted.iter().any(|one| one.matches_bytes(value)))
        };
        may(&self.user, Column::User)
            && may(&self.service_account, Column::User)
            && (!self.anonymous || may(&anonymous(), Column::User))
            && may(&resource, Column::Resource)
            && may(&self.verb, Column::Verb)
            && may(&self.namespace, Column::Namespace)
            && may(&self.level, Column::Level)
            && may(&self.user_agent, Column::UserAgent)
            && may(&self.name, Column::Name)
            && may(&self.uri, Column::Uri)
    }

    fn may_have_lists(&self, probe: &Probe<'_>) -> bool {
        let of = |set: &Set<Pattern>, column| {
            set.wanted.is_empty()
                || probe.any(column, |value| set.wanted.iter().any(|one| one.matches_bytes(value)))
        };
        of(&self.group, Column::Groups)
            && of(&self.impersonated, Column::Impersonated)
            && (self.annotation.wanted.is_empty()
                || probe.any(Column::Annotations, |key| {
                    self.annotation.wanted.iter().any(|(wanted, _)| wanted == key)
                }))
            && (self.source_ip.wanted.is_empty()
                || probe.any(Column::SourceIps, |address| {
                    let address = String::from_utf8_lossy(address);
                    self.source_ip.wanted.iter().any(|network| super::contains(network, &address))
                }))
    }
}

/// The values wanted, if none of them has a star.
fn exact(set: &Set<Pattern>) -> Option<Vec<&[u8]>> {
    let values = set.wanted.iter().map(|pattern| match pattern {
        Pattern::Exact(value) => Some(&value[..]),
        Pattern::Glob(_) => None,
    });
    values.collect::<Option<Vec<_>>>().filter(|values| !values.is_empty())
}
