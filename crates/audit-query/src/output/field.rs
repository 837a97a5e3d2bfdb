//! The values of an event that can be shown: columns of a query, and fields by which reports group.

use crate::event::{Event, Text};
use crate::index::{Column, Columns};
use crate::scan::Place;

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `stageTimestamp`
    Time,
    /// `requestReceivedTimestamp`
    Received,
    /// Audit level.
    Level,
    /// Audit stage.
    Stage,
    /// Audit ID.
    AuditId,
    /// The verb.
    Verb,
    /// The user, and the impersonated user if there is one.
    Who,
    /// User name.
    User,
    /// UID of the user.
    Uid,
    /// Groups of the user, comma-separated.
    Groups,
    /// The impersonated user.
    Impersonated,
    /// First source address.
    SourceIp,
    /// All source addresses, comma-separated.
    SourceIps,
    /// User agent.
    UserAgent,
    /// `RESOURCE[.GROUP][/SUBRESOURCE]`, or the path of a non-resource request.
    Object,
    /// Plural resource name.
    Resource,
    /// API group.
    ApiGroup,
    /// API version, without the group.
    ApiVersion,
    /// Subresource.
    Subresource,
    /// Namespace.
    Namespace,
    /// Object name.
    Name,
    /// Request URI.
    Uri,
    /// URI without its query.
    Path,
    /// `command` parameters of the URI, decoded.
    Command,
    /// Status code.
    Code,
    /// Reason of a failure.
    Reason,
    /// Message of a failure.
    Message,
    /// Milliseconds.
    Latency,
    /// UTC date of the event.
    Date,
    /// UTC date and hour of the event.
    Hour,
    /// What a change of RBAC grants, if its body was recorded.
    Grants,
    /// Log file.
    File,
    /// An annotation.
    Annotation(String),
}

/// Names in the order in which the help lists them.
const NAMES: [(&str, Field); 32] = [
    ("time", Field::Time),
    ("received", Field::Received),
    ("level", Field::Level),
    ("stage", Field::Stage),
    ("audit-id", Field::AuditId),
    ("verb", Field::Verb),
    ("who", Field::Who),
    ("user", Field::User),
    ("uid", Field::Uid),
    ("groups", Field::Groups),
    ("impersonated", Field::Impersonated),
    ("source-ip", Field::SourceIp),
    ("source-ips", Field::SourceIps),
    ("user-agent", Field::UserAgent),
    ("object", Field::Object),
    ("resource", Field::Resource),
    ("api-group", Field::ApiGroup),
    ("api-version", Field::ApiVersion),
    ("subresource", Field::Subresource),
    ("namespace", Field::Namespace),
    ("name", Field::Name),
    ("uri", Field::Uri),
    ("path", Field::Path),
    ("command", Field::Command),
    ("code", Field::Code),
    ("reason", Field::Reason),
    ("message", Field::Message),
    ("latency", Field::Latency),
    ("date", Field::Date),
    ("hour", Field::Hour),
    ("grants", Field::Grants),
    ("file", Field::File),
];

impl std::str::FromStr for Field {
    type Err = String;

    fn from_str(name: &str) -> Result<Field, String> {
        if let Some(key) = name.strip_prefix("annotations.").filter(|key| !key.is_empty()) {
            return Ok(Field::Annotation(key.to_owned()));
        }
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, field)| field.clone()).ok_or_else(|| {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("unknown column; accepted are {}, and annotations.KEY", names.join(", "))
        })
    }
}

impl Field {
    /// Returns the name on the command line.
    pub fn name(&self) -> String {
        match NAMES.iter().find(|(_, field)| field == self) {
            Some((name, _)) => (*name).to_owned(),
            None => match self {
                Field::Annotation(key) => format!("annotations.{key}"),
                _ => String::new(),
            },
        }
    }

    /// Whether the values are numbers.
    pub fn is_number(&self) -> bool {
        matches!(self, Field::Code | Field::Latency)
    }

    /// Appends the value; returns `false` if the event has none.
    pub fn push(&self, event: &Event<'_>, place: Place<'_>, out: &mut Vec<u8>) -> bool {
        let text = |text: Text<'_>, out: &mut Vec<u8>| {
            text.push_to(out);
            text.is_present()
        };
        match self {
            Field::Time => text(event.stage_time, out),
            Field::Received => text(event.received, out),
            Field::Level => text(event.level, out),
            Field::Stage => text(event.stage, out),
            Field::AuditId => text(event.audit_id, out),
            Field::Verb => text(event.verb, out),
            Field::User => text(event.user.name, out),
            Field::Uid => text(event.user.uid, out),
            Field::Impersonated => text(event.impersonated_user.unwrap_or_default().name, out),
            Field::SourceIp => text(event.source_ip(), out),
            Field::UserAgent => text(event.user_agent, out),
            Field::Resource => text(event.object.resource, out),
            Field::ApiGroup => text(event.object.api_group, out),
            Field::ApiVersion => text(event.object.api_version, out),
            Field::Subresource => text(event.object.subresource, out),
            Field::Namespace => text(event.object.namespace, out),
            Field::Name => text(event.object.name, out),
            Field::Uri => text(event.request_uri, out),
            Field::Reason => text(event.status.reason, out),
            Field::Message => text(event.status.message, out),
            Field::Annotation(key) => text(event.annotation(key.as_bytes()), out),
            Field::Who => {
                let user = text(event.user.name, out);
                if let Some(impersonated) = event.impersonated_user {
                    out.extend_from_slice(b" as ");
                    impersonated.name.push_to(out);
                }
                user || event.impersonated_user.is_some()
            }
            Field::Groups => list(out, |each| event.user.groups(each)),
            Field::SourceIps => list(out, |each| event.source_ips(each)),
            Field::Object => object(event, out),
            Field::Path => {
                let uri = event.request_uri.bytes();
                out.extend_from_slice(path(&uri));
                event.request_uri.is_present()
            }
            Field::Command => command(&event.request_uri.bytes(), out),
            Field::Code => number(event.status.code, out),
            Field::Latency => match event.latency() {
                Some(micros) => {
                    out.extend_from_slice(format!("{:.3}", micros as f64 / 1000.0).as_bytes());
                    true
                }
                None => false,
            },
            Field::Date | Field::Hour => {
                let Some(time) = event.time() else { return false };
                let Ok(time) = jiff::Timestamp::from_microsecond(time) else { return false };
                let length = if *self == Field::Date { 10 } else { 13 };
                out.extend_from_slice(&format!("{time:.0}").as_bytes()[..length]);
                true
            }
            Field::Grants => crate::report::grants::push(event.request_object, out),
            Field::File => {
                out.extend_from_slice(place.path.as_os_str().as_encoded_bytes());
                true
            }
        }
    }
}

/// Values that an index contains.
impl Field {
    /// Returns the index columns that the field needs; `None` if it needs the whole event.
    pub fn columns(&self) -> Option<Columns> {
        let columns: &[Column] = match self {
            Field::Uid | Field::Message | Field::Grants => return None,
            Field::Time => &[Column::StageTime],
            Field::Received => &[Column::Received],
            Field::Level => &[Column::Level],
            Field::Stage => &[Column::Stage],
            Field::AuditId => &[Column::AuditId],
            Field::Verb => &[Column::Verb],
            Field::Who => &[Column::User, Column::Impersonated],
            Field::User => &[Column::User],
            Field::Groups => &[Column::Groups],
            Field::Impersonated => &[Column::Impersonated],
            Field::SourceIp | Field::SourceIps => &[Column::SourceIps],
            Field::UserAgent => &[Column::UserAgent],
            Field::Object => {
                &[Column::Resource, Column::ApiGroup, Column::Subresource, Column::Uri]
            }
            Field::Resource => &[Column::Resource],
            Field::ApiGroup => &[Column::ApiGroup],
            Field::ApiVersion => &[Column::ApiVersion],
            Field::Subresource => &[Column::Subresource],
            Field::Namespace => &[Column::Namespace],
            Field::Name => &[Column::Name],
            Field::Uri | Field::Path | Field::Command => &[Column::Uri],
            Field::Code => &[Column::Code],
            Field::Reason => &[Column::Reason],
            Field::Latency => &[Column::Stage, Column::StageTime, Column::Received],
            Field::Date | Field::Hour => &[Column::StageTime, Column::Received],
            Field::Annotation(_) => &[Column::Annotations],
            Field::File => &[],
        };
        Some(Columns::of(columns))
    }
}

fn number(number: Option<i64>, out: &mut Vec<u8>) -> bool {
    match number {
        // All status codes.
        Some(number @ 100..=999) => {
            out.extend(
                [number / 100, number / 10 % 10, number % 10].map(|digit| b'0' + digit as u8),
            );
        }
        Some(number) => out.extend_from_slice(number.to_string().as_bytes()),
        None => {}
    }
    number.is_some()
}

fn list<'a>(out: &mut Vec<u8>, visit: impl FnOnce(&mut dyn FnMut(Text<'a>))) -> bool {
    let start = out.len();
    visit(&mut |text: Text<'a>| {
        if out.len() > start {
            out.push(b',');
        }
        text.push_to(out);
    });
    out.len() > start
}

fn object(event: &Event<'_>, out: &mut Vec<u8>) -> bool {
    let object = &event.object;
    if !object.resource.is_some() {
        out.extend_from_slice(path(&event.request_uri.bytes()));
        return event.request_uri.is_present();
    }
    object.resource.push_to(out);
    for (separator, part) in [(b'.', object.api_group), (b'/', object.subresource)] {
        if part.is_some() {
            out.push(separator);
            part.push_to(out);
        }
    }
    true
}

fn path(uri: &[u8]) -> &[u8] {
    uri.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// Appends all `command` parameters, separated by spaces, without quoting.
fn command(uri: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let query = uri.splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default();
    for word in query.split(|byte| *byte == b'&').filter_map(|pair| pair.strip_prefix(b"command="))
    {
        if out.len() > start {
            out.push(b' ');
        }
        out.extend_from_slice(&crate::filter::percent_decode(word));
    }
    out.len() > start
}
