//! Which events are wanted.

mod args;
mod code;
mod condition;
mod needle;
pub(crate) mod pattern;
mod resource;
mod rows;
pub(crate) mod when;

use std::net::IpAddr;
use std::ops::RangeInclusive;

use jiff::ZonedDateTime;
use k8s_audit::network::Cidr;

pub use self::args::FilterArgs;
use self::condition::Condition;
pub(crate) use self::needle::Needle;
use self::pattern::{Pattern, Set};
use self::resource::ResourcePattern;
use crate::event::{Event, Text, User};

/// A filter, parsed. The default matches every event.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    since: Option<i64>,
    until: Option<i64>,
    user: Set<Pattern>,
    group: Set<Pattern>,
    service_account: Set<Pattern>,
    impersonated: Set<Pattern>,
    anonymous: bool,
    human: bool,
    verb: Set<Pattern>,
    resource: Set<ResourcePattern>,
    namespace: Set<Pattern>,
    name: Set<Pattern>,
    uri: Set<Pattern>,
    code: Set<RangeInclusive<i64>>,
    failed: bool,
    forbidden: bool,
    audit_id: Set<Pattern>,
    source_ip: Set<Cidr>,
    user_agent: Set<Pattern>,
    level: Set<Pattern>,
    field_manager: Set<Pattern>,
    min_latency: Option<i64>,
    annotation: Set<(Vec<u8>, Option<Pattern>)>,
    condition: Vec<Condition>,
}

/// Why a value of a flag is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}={value}: {problem}")]
pub struct FilterError {
    flag: &'static str,
    value: String,
    problem: String,
}

impl Filter {
    /// Parses the flags; times are relative to `now`, and in its time zone unless they name
    /// another.
    ///
    /// # Errors
    /// A value is not of the form that its flag takes.
    pub fn new(args: &FilterArgs, now: &ZonedDateTime) -> Result<Filter, FilterError> {
        let time = |flag, value: &Option<String>| {
            let parse = |value: &String| {
                when::parse(value, now).ok_or_else(|| {
                    error(flag, value, "not a time; accepted are RFC 3339, 2026-11-23, '2026-11-23 14:00', 14:00, -2h, today, 'yesterday 14:00', and now")
                })
            };
            value.as_ref().map(parse).transpose()
        };
        let account = |value: &str| match value.split_once(':') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Ok(Pattern::new(&format!("system:serviceaccount:{namespace}:{name}")))
            }
            _ => Err(error("service-account", value, "not of the form NAMESPACE:NAME")),
        };
        let level = |value: &str| {
            let levels = ["Metadata", "Request", "RequestResponse"];
            let found = levels.into_iter().find(|level| level.eq_ignore_ascii_case(value));
            found.map(Pattern::new).ok_or_else(|| {
                error(
                    "level",
                    value,
                    "not an audit level; accepted are Metadata, Request, and RequestResponse",
                )
            })
        };
        let latency = |value: &String| {
            let duration = when::duration(value).ok_or_else(|| {
                error("min-latency", value, "not a duration; accepted are 1s, 250ms, 1m30s")
            })?;
            Ok(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
        };
        let condition = |source: &String| {
            Condition::compile(source).map_err(|problem| error("where", source, &problem))
        };
        Ok(Filter {
            since: time("since", &args.since)?,
            until: time("until", &args.until)?,
            user: Set::patterns(&args.user),
            group: Set::patterns(&args.group),
            service_account: Set::parse(&args.service_account, account)?,
            impersonated: Set::patterns(&args.impersonated),
            anonymous: args.anonymous,
            human: args.human,
            verb: Set::patterns(&args.verb),
            resource: Set::parse(&args.resource, |value| Ok(ResourcePattern::new(value)))?,
            namespace: Set::patterns(&args.namespace),
            name: Set::patterns(&args.name),
            uri: Set::patterns(&args.uri),
            code: Set::parse(&args.code, |value| {
                code::parse(value).ok_or_else(|| {
                    error(
                        "code",
                        value,
                        "not a status code; accepted are 403, 4xx, '>=500', 400-404",
                    )
                })
            })?,
            failed: args.failed,
            forbidden: args.forbidden,
            audit_id: Set::patterns(&args.audit_id),
            source_ip: Set::parse(&args.source_ip, |value| {
                value.parse().map_err(|_| {
                    error(
                        "source-ip",
                        value,
                        "not an IP address or a CIDR block such as 10.0.0.0/8",
                    )
                })
            })?,
            user_agent: Set::patterns(&args.user_agent),
            level: Set::parse(&args.level, level)?,
            field_manager: Set::patterns(&args.field_manager),
            min_latency: args.min_latency.as_ref().map(latency).transpose()?,
            annotation: Set::parse(&args.annotation, |value| {
                Ok(match value.split_once('=') {
                    Some((key, value)) => (key.as_bytes().to_vec(), Some(Pattern::new(value))),
                    None => (value.as_bytes().to_vec(), None),
                })
            })?,
            condition: args.condition.iter().map(condition).collect::<Result<_, _>>()?,
        })
    }

    /// Whether every event within the times is wanted.
    pub(crate) fn is_only_time(&self) -> bool {
        let sets = [
            &self.user,
            &self.group,
            &self.service_account,
            &self.impersonated,
            &self.verb,
            &self.namespace,
            &self.name,
            &self.uri,
            &self.audit_id,
            &self.user_agent,
            &self.level,
            &self.field_manager,
        ];
        sets.iter().all(|set| set.is_empty())
            && !(self.anonymous || self.human || self.failed || self.forbidden)
            && self.resource.is_empty()
            && self.code.is_empty()
            && self.source_ip.is_empty()
            && self.annotation.is_empty()
            && self.min_latency.is_none()
            && self.condition.is_empty()
    }

    /// Whether there are filters by time.
    pub(crate) fn has_time(&self) -> bool {
        self.since.is_some() || self.until.is_some() || self.min_latency.is_some()
    }

    /// From when and until when events are wanted, in microseconds since 1970.
    pub(crate) fn period(&self) -> (Option<i64>, Option<i64>) {
        (self.since, self.until)
    }

    /// The time from which events are wanted, in microseconds since 1970.
    pub fn since(&self) -> Option<i64> {
        self.since
    }

    /// Whether the event is wanted.
    pub fn matches(&self, event: &Event<'_>) -> bool {
        self.matches_members(event) && self.condition.iter().all(|one| one.matches(event))
    }

    fn matches_members(&self, event: &Event<'_>) -> bool {
        self.matches_audit_id(event.audit_id)
            && self.matches_values(event)
            && self.matches_time(|| event.time(), || event.latency())
    }

    /// Whether an audit ID matches.
    pub(crate) fn matches_audit_id(&self, id: Text<'_>) -> bool {
        self.audit_id.is_empty() || self.audit_id.matches(|one| one.matches(id))
    }

    /// Whether an event matches, whatever its audit ID and times are and expressions return.
    pub(crate) fn matches_values(&self, event: &Event<'_>) -> bool {
        let set = |set: &Set<Pattern>, text| set.is_empty() || set.matches(|one| one.matches(text));
        set(&self.verb, event.verb)
            && self.matches_code(event)
            && (self.resource.is_empty() || self.resource.matches(|one| one.matches(&event.object)))
            && set(&self.namespace, event.object.namespace)
            && set(&self.name, event.object.name)
            && self.matches_user(event)
            && set(&self.uri, event.request_uri)
            && set(&self.user_agent, event.user_agent)
            && set(&self.level, event.level)
            && self.matches_address(event)
            && self.matches_field_manager(event)
            && self.matches_annotation(event)
    }

    fn matches_code(&self, event: &Event<'_>) -> bool {
        if self.code.is_empty() && !self.failed && !self.forbidden {
            return true;
        }
        // Without a response there is no outcome, also no other than one that is not wanted.
        let Some(code) = event.status.code else { return false };
        (!self.failed || code >= 400)
            && (!self.forbidden || code == 403)
            && self.code.matches(|range| range.contains(&code))
    }

    fn matches_user(&self, event: &Event<'_>) -> bool {
        let set = |set: &Set<Pattern>, text| set.is_empty() || set.matches(|one| one.matches(text));
        let name = event.user.name;
        set(&self.user, name)
            && set(&self.service_account, name)
            && (!self.anonymous || name.is(b"system:anonymous"))
            && (!self.human || name.is_some() && !name.bytes().starts_with(b"system:"))
            && (self.group.is_empty() || self.group.matches(|one| has_group(&event.user, one)))
            && (self.impersonated.is_empty()
                || self.impersonated.matches(|one| {
                    event.impersonated_user.is_some_and(|user| one.matches(user.name))
                }))
    }

    /// Whether times match.
    pub(crate) fn matches_time(
        &self,
        time: impl FnOnce() -> Option<i64>,
        latency: impl FnOnce() -> Option<i64>,
    ) -> bool {
        if self.since.is_some() || self.until.is_some() {
            let Some(time) = time() else { return false };
            if self.since.is_some_and(|since| time < since)
                || self.until.is_some_and(|until| time >= until)
            {
                return false;
            }
        }
        self.min_latency.is_none_or(|least| latency().is_some_and(|latency| latency >= least))
    }

    fn matches_address(&self, event: &Event<'_>) -> bool {
        self.source_ip.is_empty()
            || self.source_ip.matches(|network| {
                let mut found = false;
                event.source_ips(|address| found |= contains(network, &address.decode()));
                found
            })
    }

    fn matches_field_manager(&self, event: &Event<'_>) -> bool {
        self.field_manager.is_empty() || {
            let uri = event.request_uri.bytes();
            let manager = field_manager(&uri);
            self.field_manager
                .matches(|one| manager.as_ref().is_some_and(|manager| one.matches_bytes(manager)))
        }
    }

    fn matches_annotation(&self, event: &Event<'_>) -> bool {
        self.annotation.is_empty()
            || self.annotation.matches(|(key, pattern)| {
                let value = event.annotation(key);
                value.is_present() && pattern.as_ref().is_none_or(|pattern| pattern.matches(value))
            })
    }

    /// Whether a request's first event may match although its last one does not.
    pub(crate) fn depends_on_stage(&self) -> bool {
        !self.name.is_empty()
            || !self.annotation.is_empty()
            || !self.condition.is_empty()
            || !self.code.is_empty()
            || self.failed
            || self.forbidden
            || self.min_latency.is_some()
            || !self.impersonated.is_empty()
    }

    /// What every line with a matching event contains; the value that is likely the rarest.
    pub(crate) fn needle(&self) -> Option<Needle> {
        let single = |set: &Set<Pattern>| set.single().and_then(Needle::of);
        single(&self.audit_id)
            .or_else(|| single(&self.name))
            .or_else(|| single(&self.user))
            .or_else(|| single(&self.service_account))
            .or_else(|| single(&self.impersonated))
            .or_else(|| single(&self.uri))
            .or_else(|| {
                self.anonymous.then(|| Needle::of(&Pattern::new("system:anonymous"))).flatten()
            })
            .or_else(|| match &self.resource.wanted[..] {
                [resource] => Needle::of(&resource.resource),
                _ => None,
            })
            .or_else(|| single(&self.namespace))
            .or_else(|| single(&self.group))
            .or_else(|| single(&self.user_agent))
            .or_else(|| match self.verb.single() {
                Some(verb @ Pattern::Exact(name)) if name.starts_with(b"delete") => {
                    Needle::of(verb)
                }
                _ => None,
            })
    }
}

fn error(flag: &'static str, value: &str, problem: &str) -> FilterError {
    FilterError { flag, value: value.to_owned(), problem: problem.to_owned() }
}

/// Whether a network contains an address of an event.
fn contains(network: &Cidr, address: &str) -> bool {
    address.parse::<IpAddr>().is_ok_and(|address| network.contains(address))
}

fn has_group(user: &User<'_>, pattern: &Pattern) -> bool {
    let mut found = false;
    user.groups(|group| found |= pattern.matches(group));
    found
}

/// The `fieldManager` parameter of a URI, decoded.
fn field_manager(uri: &[u8]) -> Option<Vec<u8>> {
    let query = &uri[uri.iter().position(|byte| *byte == b'?')? + 1..];
    let value =
        query.split(|byte| *byte == b'&').find_map(|pair| pair.strip_prefix(b"fieldManager="))?;
    Some(percent_decode(value))
}

/// Decodes a value of a URI's query.
pub(crate) fn percent_decode(value: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let hex = || u8::from_str_radix(std::str::from_utf8(tail.get(..2)?).ok()?, 16).ok();
        match (first, hex()) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => decoded.push(b' '),
            (other, _) => decoded.push(*other),
        }
    }
    decoded
}

#[cfg(test)]
mod tests;
