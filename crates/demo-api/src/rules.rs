//! Requirements for writes and deletions, and fields that writers cannot change.

use serde_json::Value;

use super::api::Delete;
use super::error::ApiError;
use super::kinds::{Kind, KindCategory};
use super::object;

/// Whether `metadata.generation` counts the changes of this kind's `spec`.
pub(crate) fn counts_generations(kind: &Kind) -> bool {
    kind.has("status") && !matches!(kind.plural.as_str(), "namespaces" | "nodes" | "services")
        || matches!(kind.category, KindCategory::Custom(_))
}

/// Whether deletion has begun.
pub(crate) fn is_being_deleted(object: &Value) -> bool {
    !object::text(object, "/metadata/deletionTimestamp").is_empty()
}

/// Whether its finalizers must be removed before it is deleted.
pub(crate) fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

/// `apiVersion` and `kind` must be those of the endpoint, or absent.
///
/// # Errors
/// 400.
pub(crate) fn check_type(kind: &Kind, object: &Value) -> Result<(), ApiError> {
    let (group_version, of) = (object::text(object, "/apiVersion"), object::text(object, "/kind"));
    let expected = kind.api_version();
    let fits = (of.is_empty() || of == kind.kind)
        && (group_version.is_empty() || group_version == expected);
    if fits && object.is_object() {
        return Ok(());
    }
    let (version, wanted) = (object["apiVersion"].as_str().unwrap_or("v1"), &kind.kind);
    let message = if matches!(kind.category, KindCategory::Custom(_)) {
        format!(
            "the API version in the data ({group_version}, Kind={of}) does not match the expected API version ({expected}, Kind={wanted})"
        )
    } else {
        format!(
            "{of} in version {version:?} cannot be handled as a {wanted}: converting ({}.{of}) to (core.{wanted}): unknown conversion",
            version.rsplit('/').next().unwrap_or(version)
        )
    };
    Err(ApiError::bad_request(message))
}

/// The namespace must be that of the URL, or absent.
///
/// # Errors
/// 400.
pub(crate) fn check_namespace(
    kind: &Kind,
    namespace: &str,
    object: &Value,
) -> Result<(), ApiError> {
    let own = object::namespace(object);
    if kind.namespaced && !own.is_empty() && own != namespace {
        let message = "the namespace of the provided object does not match the namespace sent on \
                       the request";
        return Err(ApiError::bad_request(message));
    }
    Ok(())
}

/// UID and version must match the preconditions of the deletion.
///
/// # Errors
/// 409.
pub(crate) fn check_preconditions(
    kind: &Kind,
    object: &Value,
    options: &Delete,
) -> Result<(), ApiError> {
    let name = object::name(object);
    let checks = [
        ("UID", &options.uid, object::text(object, "/metadata/uid")),
        (
            "ResourceVersion",
            &options.resource_version,
            object::text(object, "/metadata/resourceVersion"),
        ),
    ];
    for (what, wanted, found) in checks {
        if !wanted.is_empty() && wanted != found {
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: /registry/{}/{}/{name}, \
                 ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {what} in \
                 precondition: {wanted}, {what} in object meta: {found}",
                kind.plural,
                object::namespace(object)
            );
            return Err(ApiError::conflict(kind, name, &why));
        }
    }
    Ok(())
}

/// Restores fields that this write cannot change: system fields, and either the status or
/// everything else, depending on the endpoint.
pub(crate) fn keep_what_writers_cannot_change(
    kind: &Kind,
    old: &Value,
    new: &mut Value,
    subresource: &str,
) {
    if subresource == "status" {
        let status = new.get("status").cloned();
        *new = old.clone();
        match status {
            Some(status) => new["status"] = status,
            None => drop(object::entries(new).remove("status")),
        }
        return;
    }
    if kind.has("status") {
        match old.get("status") {
            Some(status) => new["status"] = status.clone(),
            None => drop(object::entries(new).remove("status")),
        }
    }
    new["apiVersion"] = kind.api_version().into();
    new["kind"] = kind.kind.as_str().into();
    let metadata = object::metadata(new);
    for field in [
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "resourceVersion",
    ] {
        match old["metadata"].get(field) {
            Some(value) => drop(metadata.insert(field.into(), value.clone())),
            None => drop(metadata.remove(field)),
        }
    }
}

/// Whether a write would change nothing.
pub(crate) fn same_content(old: &Value, new: &Value) -> bool {
    // The stored form may have another version of the kind.
    let old = old.as_object().expect("stored objects are JSON objects");
    let new = new.as_object().expect("checked to be an object before");
    old.len() == new.len()
        && old.iter().all(|(key, value)| key == "apiVersion" || new.get(key) == Some(value))
}
