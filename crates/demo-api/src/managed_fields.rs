//! `metadata.managedFields`: which manager wrote which fields.

use serde_json::{Map, Value, json};

use super::api::Write;
use super::kinds::Kind;
use super::object;

/// Records that the manager of this write submitted these fields.
///
/// Simpler than Kubernetes': ownership is never taken from others, and lists count as one field.
pub(crate) fn record(kind: &Kind, object: &mut Value, submitted: &Value, write: &Write) {
    if write.manager.is_empty() {
        return;
    }
    let operation = if write.apply { "Apply" } else { "Update" };
    let mut entry = json!({
        "manager": write.manager,
        "operation": operation,
        "apiVersion": kind.api_version(),
        "time": object::now(),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields_of(submitted, &write.subresource),
    });
    if !write.subresource.is_empty() {
        entry["subresource"] = write.subresource.as_str().into();
    }
    let entries = object::metadata(object).entry("managedFields").or_insert(json!([]));
    let Some(entries) = entries.as_array_mut() else { return };
    let same = |other: &Value| {
        ["manager", "operation", "subresource"].iter().all(|f| other.get(f) == entry.get(f))
    };
    entries.retain(|other| !same(other));
    entries.push(entry);
}

fn fields_of(object: &Value, subresource: &str) -> Value {
    let mut fields = Map::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "status" if subresource != "status" => {}
            "metadata" => {
                let kept: Map<String, Value> = ["labels", "annotations", "finalizers"]
                    .iter()
                    .filter_map(|f| Some((format!("f:{f}"), leaves(value.get(f)?))))
                    .collect();
                if !kept.is_empty() {
                    fields.insert("f:metadata".into(), kept.into());
                }
            }
            _ => drop(fields.insert(format!("f:{key}"), leaves(value))),
        }
    }
    fields.into()
}

fn leaves(value: &Value) -> Value {
    let members = value.as_object().into_iter().flatten();
    members.map(|(key, value)| (format!("f:{key}"), leaves(value))).collect::<Map<_, _>>().into()
}
