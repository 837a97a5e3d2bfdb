//! The columns of index files and of exported Parquet files.

use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::errors::Result;
use parquet::schema::types::{Type, TypePtr};

use crate::event::{Event, Text};

/// A column. The variants of an index are in the order of its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    StageTime,
    Received,
    AuditId,
    Level,
    Stage,
    Verb,
    Code,
    User,
    Groups,
    Impersonated,
    SourceIps,
    UserAgent,
    ApiGroup,
    ApiVersion,
    Resource,
    Subresource,
    Namespace,
    Name,
    Uri,
    Reason,
    Annotations,
    /// The offset of the event in the decompressed log; null if the event directly follows the line
    /// of the previous row in the same row group.
    Offset,
    /// The length of the event in bytes, without its newline.
    Length,
    /// Whether the row represents the event completely, as far as its members have columns.
    Exact,
    /// Only in exported files: audit IDs that may have any form, and members that an index does not
    /// contain.
    AnyAuditId,
    Uid,
    Message,
    RequestObject,
    ResponseObject,
    /// The complete event as it is in the log.
    Event,
}

/// How the values of a column are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Time,
    Uuid,
    Text,
    Json,
    Code,
    List,
    Map,
    Offset,
    /// Required.
    Length,
    Flag,
}

impl Column {
    /// The columns of an index file.
    pub(crate) const INDEX: [Column; 24] = [
        Column::StageTime,
        Column::Received,
        Column::AuditId,
        Column::Level,
        Column::Stage,
        Column::Verb,
        Column::Code,
        Column::User,
        Column::Groups,
        Column::Impersonated,
        Column::SourceIps,
        Column::UserAgent,
        Column::ApiGroup,
        Column::ApiVersion,
        Column::Resource,
        Column::Subresource,
        Column::Namespace,
        Column::Name,
        Column::Uri,
        Column::Reason,
        Column::Annotations,
        Column::Offset,
        Column::Length,
        Column::Exact,
    ];

    /// The columns of an exported file, without bodies.
    pub(crate) const EXPORT: [Column; 23] = [
        Column::StageTime,
        Column::Received,
        Column::AnyAuditId,
        Column::Level,
        Column::Stage,
        Column::Verb,
        Column::Code,
        Column::User,
        Column::Uid,
        Column::Groups,
        Column::Impersonated,
        Column::SourceIps,
        Column::UserAgent,
        Column::ApiGroup,
        Column::ApiVersion,
        Column::Resource,
        Column::Subresource,
        Column::Namespace,
        Column::Name,
        Column::Uri,
        Column::Reason,
        Column::Message,
        Column::Annotations,
    ];
    /// The columns of bodies.
    pub(crate) const BODIES: [Column; 2] = [Column::RequestObject, Column::ResponseObject];

    /// Returns the name of the column in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Column::StageTime => "stage_timestamp",
            Column::Received => "request_received_timestamp",
            Column::AuditId | Column::AnyAuditId => "audit_id",
            Column::Level => "level",
            Column::Stage => "stage",
            Column::Verb => "verb",
            Column::Code => "code",
            Column::User => "username",
            Column::Groups => "groups",
            Column::Impersonated => "impersonated_user",
            Column::SourceIps => "source_ips",
            Column::UserAgent => "user_agent",
            Column::ApiGroup => "api_group",
            Column::ApiVersion => "api_version",
            Column::Resource => "resource",
            Column::Subresource => "subresource",
            Column::Namespace => "namespace",
            Column::Name => "name",
            Column::Uri => "request_uri",
            Column::Reason => "reason",
            Column::Annotations => "annotations",
            Column::Offset => "line_offset",
            Column::Length => "line_length",
            Column::Exact => "exact",
            Column::Uid => "user_uid",
            Column::Message => "message",
            Column::RequestObject => "request_object",
            Column::ResponseObject => "response_object",
            Column::Event => "event",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Column::StageTime | Column::Received => Kind::Time,
            Column::AuditId => Kind::Uuid,
            Column::Code => Kind::Code,
            Column::Groups | Column::SourceIps => Kind::List,
            Column::Annotations => Kind::Map,
            Column::Offset => Kind::Offset,
            Column::Length => Kind::Length,
            Column::Exact => Kind::Flag,
            Column::RequestObject | Column::ResponseObject | Column::Event => Kind::Json,
            _ => Kind::Text,
        }
    }

    /// Returns the value of a text column.
    pub(crate) fn text<'a>(self, event: &Event<'a>) -> Text<'a> {
        match self {
            Column::Level => event.level,
            Column::Stage => event.stage,
            Column::Verb => event.verb,
            Column::User => event.user.name,
            Column::Impersonated => event.impersonated_user.unwrap_or_default().name,
            Column::UserAgent => event.user_agent,
            Column::ApiGroup => event.object.api_group,
            Column::ApiVersion => event.object.api_version,
            Column::Resource => event.object.resource,
            Column::Subresource => event.object.subresource,
            Column::Namespace => event.object.namespace,
            Column::Name => event.object.name,
            Column::Uri => event.request_uri,
            Column::Reason => event.status.reason,
            Column::AnyAuditId => event.audit_id,
            Column::Uid => event.user.uid,
            Column::Message => event.status.message,
            _ => Text::default(),
        }
    }

    fn field(self) -> Result<TypePtr> {
        let name = self.name();
        let primitive = |physical, repetition, logical: Option<LogicalType>, length| {
            Type::primitive_type_builder(name, physical)
                .with_repetition(repetition)
                .with_logical_type(logical)
                .with_length(length)
                .build()
                .map(Arc::new)
        };
        let (optional, required) = (Repetition::OPTIONAL, Repetition::REQUIRED);
        match self.kind() {
            Kind::Time => {
                let time = LogicalType::timestamp(true, TimeUnit::MICROS);
                primitive(Physical::INT64, optional, Some(time), -1)
            }
            Kind::Uuid => {
                primitive(Physical::FIXED_LEN_BYTE_ARRAY, optional, Some(LogicalType::Uuid), 16)
            }
            Kind::Text => primitive(Physical::BYTE_ARRAY, optional, Some(LogicalType::String), -1),
            // Seals prove the bytes of events, so programs must not reformat them: a string, not
            // JSON.
            Kind::Json if self == Column::Event => {
                primitive(Physical::BYTE_ARRAY, optional, Some(LogicalType::String), -1)
            }
            Kind::Json => primitive(Physical::BYTE_ARRAY, optional, Some(LogicalType::Json), -1),
            Kind::Code => primitive(Physical::INT32, optional, None, -1),
            Kind::Offset => primitive(Physical::INT64, optional, None, -1),
            Kind::Length => primitive(Physical::INT32, required, None, -1),
            Kind::Flag => primitive(Physical::BOOLEAN, required, None, -1),
            Kind::List => {
                group(name, LogicalType::List, ConvertedType::LIST, "list", vec![text("element")?])
            }
            Kind::Map => group(
                name,
                LogicalType::Map,
                ConvertedType::MAP,
                "key_value",
                vec![text("key")?, text("value")?],
            ),
        }
    }
}

fn text(name: &str) -> Result<TypePtr> {
    Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
        .with_repetition(Repetition::REQUIRED)
        .with_logical_type(Some(LogicalType::String))
        .build()
        .map(Arc::new)
}

/// Returns an optional list or map, with the repeated group that Parquet requires.
fn group(
    name: &str,
    logical: LogicalType,
    converted: ConvertedType,
    repeated: &str,
    fields: Vec<TypePtr>,
) -> Result<TypePtr> {
    let repeated = Type::group_type_builder(repeated)
        .with_repetition(Repetition::REPEATED)
        .with_fields(fields)
        .build()?;
    Type::group_type_builder(name)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(Some(logical))
        .with_converted_type(converted)
        .with_fields(vec![Arc::new(repeated)])
        .build()
        .map(Arc::new)
}

/// Returns the schema of a file with these columns.
pub(crate) fn schema(columns: &[Column]) -> Result<TypePtr> {
    let fields = columns.iter().map(|column| column.field()).collect::<Result<_>>()?;
    Type::group_type_builder("event").with_fields(fields).build().map(Arc::new)
}

/// Returns the index of a column's first leaf in an index file. A map has two leaves.
pub(crate) fn leaf(column: Column) -> usize {
    column as usize + usize::from(column > Column::Annotations)
}

/// A set of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Columns(u32);

impl Columns {
    pub(crate) fn of(columns: &[Column]) -> Columns {
        Columns(columns.iter().fold(0, |set, column| set | 1 << *column as u32))
    }

    /// Returns the union of both sets.
    pub fn and(self, other: Columns) -> Columns {
        Columns(self.0 | other.0)
    }

    pub(crate) fn has(self, column: Column) -> bool {
        self.0 & 1 << column as u32 != 0
    }
}
