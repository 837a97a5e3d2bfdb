//! `ExportLogsServiceRequest` in JSON: protobuf's mapping, with numbers of 64 bits as strings.

use serde_json::{Map, Value as Json, json};

use super::record::{LogRecord, Value};
use super::{SCOPE, SCOPE_VERSION};

/// Encodes a request with one resource and one scope.
pub(super) fn encode<'a>(
    resource: &[(String, String)],
    records: impl Iterator<Item = LogRecord<'a>>,
) -> Vec<u8> {
    let resource: Vec<Json> =
        resource.iter().map(|(name, value)| attribute(name, &Value::Text(value.into()))).collect();
    let records: Vec<Json> = records.map(|record| log_record(&record)).collect();
    let request = json!({
        "resourceLogs": [{
            "resource": { "attributes": resource },
            "scopeLogs": [{
                "scope": { "name": SCOPE, "version": SCOPE_VERSION },
                "logRecords": records,
            }],
        }],
    });
    request.to_string().into_bytes()
}

fn log_record(record: &LogRecord<'_>) -> Json {
    let time = record.time.to_string();
    let attributes: Vec<Json> =
        record.attributes.iter().map(|(name, value)| attribute(name, value)).collect();
    json!({
        "timeUnixNano": time,
        "observedTimeUnixNano": time,
        "severityNumber": record.severity as u32,
        "severityText": record.severity.text(),
        "body": { "stringValue": record.body },
        "attributes": attributes,
    })
}

fn attribute(name: &str, value: &Value<'_>) -> Json {
    let value = match value {
        Value::Text(text) => json!({ "stringValue": text }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::Texts(texts) => {
            let values: Vec<Json> =
                texts.iter().map(|text| json!({ "stringValue": text })).collect();
            json!({ "arrayValue": { "values": values } })
        }
    };
    json!({ "key": name, "value": value })
}

/// Reads `partialSuccess` of a response: the number of rejected records and the message.
pub(super) fn partial_success(response: &[u8]) -> Option<(u64, String)> {
    let response: Map<String, Json> = serde_json::from_slice(response).ok()?;
    let partial = response.get("partialSuccess")?.as_object()?;
    let rejected = match partial.get("rejectedLogRecords") {
        Some(Json::String(number)) => number.parse().unwrap_or_default(),
        Some(Json::Number(number)) => number.as_u64().unwrap_or_default(),
        _ => 0,
    };
    let message = partial.get("errorMessage").and_then(Json::as_str).unwrap_or_default();
    Some((rejected, message.to_owned()))
}
