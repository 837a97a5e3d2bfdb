//! The `scale` subresource.

use serde_json::{Value, json};

use super::error::ApiError;
use super::object::{self, text};

/// The `Scale` of an object with `spec.replicas`.
pub(crate) fn of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let labels = object["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
    let selector = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")));
    let selector = selector.collect::<Vec<_>>().join(",");
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": object["spec"]["replicas"]},
        "status": {"replicas": object["status"]["replicas"], "selector": selector},
    })
}

/// Returns the object with the replicas in a `Scale`.
///
/// # Errors
/// 422 for an invalid number.
pub(crate) fn onto(object: &Value, scale: &Value) -> Result<Value, ApiError> {
    let replicas = scale["spec"]["replicas"].as_u64().ok_or_else(|| {
        let cause =
            format!("Invalid value: {}: must be a number from 0", scale["spec"]["replicas"]);
        let of = ("autoscaling", "Scale");
        ApiError::invalid(of, object::name(object), "spec.replicas", &cause)
    })?;
    let mut object = object.clone();
    let version = text(scale, "/metadata/resourceVersion");
    object::metadata(&mut object).insert("resourceVersion".into(), version.into());
    object::child(&mut object, "spec").insert("replicas".into(), replicas.into());
    Ok(object)
}
