//! The patch formats of the Kubernetes API.

use serde_json::{Map, Value};

use super::error::ApiError;
use super::object;

/// Applies a JSON merge patch (RFC 7386).
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    let target = object::entries(target);
    for (key, value) in members {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

/// Applies a JSON patch (RFC 6902).
///
/// # Errors
/// 400 for an invalid patch, 422 for one that cannot be applied.
pub(crate) fn json_patch(target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let Value::Array(operations) = patch else {
        return Err(ApiError::bad_request("error decoding patch: a JSON patch is an array"));
    };
    for operation in operations {
        apply_operation(target, operation).map_err(|why| {
            let what = object::text(operation, "/op");
            ApiError {
                code: http::StatusCode::UNPROCESSABLE_ENTITY,
                reason: "Invalid",
                message: format!("the server rejected our request due to an error in our request: {what} operation does not apply: {why}"),
                details: Value::Object(Map::new()),
            }
        })?;
    }
    Ok(())
}

fn apply_operation(target: &mut Value, operation: &Value) -> Result<(), String> {
    let path = object::text(operation, "/path");
    let from = object::text(operation, "/from");
    let value = || operation.get("value").cloned().ok_or("it has no value".to_owned());
    let at = |target: &Value, path: &str| {
        target.pointer(path).cloned().ok_or(format!("doc is missing path: {path}"))
    };
    match object::text(operation, "/op") {
        "add" => add(target, path, value()?),
        "remove" => remove(target, path).map(drop),
        "replace" => {
            let value = value()?;
            *target.pointer_mut(path).ok_or(format!("doc is missing key: {path}"))? = value;
            Ok(())
        }
        "move" => {
            let value = remove(target, from)?;
            add(target, path, value)
        }
        "copy" => {
            let value = at(target, from)?;
            add(target, path, value)
        }
        "test" if at(target, path)? == value()? => Ok(()),
        "test" => Err(format!("testing value {path} failed")),
        other => Err(format!("unexpected kind: {other}")),
    }
}

fn parent<'v>(target: &'v mut Value, path: &str) -> Result<(&'v mut Value, String), String> {
    let (parent, key) = path.rsplit_once('/').ok_or(format!("{path:?} is not a JSON pointer"))?;
    let parent = target.pointer_mut(parent).ok_or(format!("doc is missing path: {path}"))?;
    Ok((parent, key.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, key) = parent(target, path)?;
    match parent {
        Value::Object(members) => drop(members.insert(key, value)),
        Value::Array(items) => {
            let at = if key == "-" { Some(items.len()) } else { key.parse().ok() };
            let at = at.filter(|at| *at <= items.len()).ok_or(format!("no such index: {path}"))?;
            items.insert(at, value);
        }
        _ => return Err(format!("doc is missing path: {path}")),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, key) = parent(target, path)?;
    let removed = match parent {
        Value::Object(members) => members.remove(&key),
        Value::Array(items) => {
            key.parse().ok().filter(|at| *at < items.len()).map(|at: usize| items.remove(at))
        }
        _ => None,
    };
    removed.ok_or(format!("unable to remove nonexistent key: {path}"))
}

/// Applies a strategic merge patch, with the merge keys of the built-in kinds.
pub(crate) fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    let target = object::entries(target);
    match members.get("$patch").and_then(Value::as_str) {
        Some("replace") => target.clear(),
        Some("delete") => return target.clear(),
        _ => {}
    }
    if let Some(Value::Array(keep)) = members.get("$retainKeys") {
        target.retain(|key, _| keep.iter().any(|k| k == key));
    }
    for (key, value) in members {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (target.get_mut(list), value) {
                items.retain(|item| !gone.contains(item));
            }
        } else if key.starts_with('$') {
            continue;
        } else if value.is_null() {
            target.remove(key);
        } else {
            let old = target.entry(key.as_str()).or_insert(Value::Null);
            match value {
                Value::Object(_) => strategic(old, value),
                Value::Array(items) => merge_list(old, key, items),
                _ => *old = value.clone(),
            }
        }
    }
    for (key, order) in members {
        let list = key.strip_prefix("$setElementOrder/");
        if let (Some(list), Value::Array(order)) = (list, order)
            && let Some(Value::Array(items)) = target.get_mut(list)
        {
            reorder(list, items, order);
        }
    }
}

fn merge_list(old: &mut Value, field: &str, patch: &[Value]) {
    let replaced = patch.iter().any(|item| item["$patch"] == "replace");
    let key = merge_key(field, patch);
    if !old.is_array() || replaced {
        *old = Value::Array(Vec::new());
    }
    let Value::Array(items) = old else { return };
    match key {
        Merge::Atomic => *items = patch.to_vec(),
        Merge::Set => {
            let new = patch.iter().filter(|item| !items.contains(item)).cloned();
            let new = new.collect::<Vec<_>>();
            items.extend(new);
        }
        Merge::By(key) => {
            for change in patch {
                let same = |item: &Value| item.get(key).is_some() && item[key] == change[key];
                match change["$patch"].as_str() {
                    Some("delete") => items.retain(|item| !same(item)),
                    Some("replace") if change.get(key).is_none() => {}
                    _ => match items.iter_mut().find(|item| same(item)) {
                        Some(item) => strategic(item, change),
                        None => {
                            let mut item = Value::Null;
                            strategic(&mut item, change);
                            items.push(item);
                        }
                    },
                }
            }
        }
    }
}

enum Merge {
    Atomic,
    Set,
    By(&'static str),
}

/// How Kubernetes merges lists of this name (`patchMergeKey` of its types).
fn merge_key(field: &str, items: &[Value]) -> Merge {
    Merge::By(match field {
        "finalizers" => return Merge::Set,
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "resourceClaims" => "name",
        "secrets" if items.iter().any(|item| item.get("name").is_some()) => "name",
        "ports" if items.iter().any(|item| item.get("containerPort").is_some()) => "containerPort",
        "ports" => "port",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "conditions" | "addresses" => "type",
        "ownerReferences" => "uid",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        _ => return Merge::Atomic,
    })
}

/// Sorts the items into the order in the patch; other items come last.
fn reorder(field: &str, items: &mut [Value], order: &[Value]) {
    let key = merge_key(field, order);
    items.sort_by_key(|item| {
        let place = order.iter().position(|wanted| match key {
            Merge::By(key) => wanted[key] == item[key],
            _ => wanted == item,
        });
        place.unwrap_or(usize::MAX)
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_removes_nulls_and_replaces_lists() {
        let mut target = json!({"a": {"b": 1, "c": [1]}, "d": 1});
        merge(&mut target, &json!({"a": {"b": null, "c": [2]}, "e": {"f": {"g": null}}}));
        assert_eq!(target, json!({"a": {"c": [2]}, "d": 1, "e": {"f": {}}}));
    }

    #[test]
    fn json_patch_does_all_six_operations() {
        let mut target = json!({"a": [1, 2], "b": {"x/y": 1}});
        let patch = json!([
            {"op": "test", "path": "/b/x~1y", "value": 1},
            {"op": "add", "path": "/a/1", "value": 9},
            {"op": "add", "path": "/a/-", "value": 3},
            {"op": "remove", "path": "/a/0"},
            {"op": "replace", "path": "/b/x~1y", "value": 2},
            {"op": "copy", "from": "/b", "path": "/c"},
            {"op": "move", "from": "/c/x~1y", "path": "/d"},
        ]);
        json_patch(&mut target, &patch).unwrap();
        assert_eq!(target, json!({"a": [9, 2, 3], "b": {"x/y": 2}, "c": {}, "d": 2}));
        for bad in [
            json!([{"op": "remove", "path": "/none"}]),
            json!([{"op": "test", "path": "/d", "value": 3}]),
            json!([{"op": "frob", "path": "/d"}]),
            json!({}),
        ] {
            assert!(json_patch(&mut target, &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn strategic_merges_lists_by_their_keys() {
        let mut target = json!({"spec": {
            "containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}],
            "args": ["x"],
        }, "metadata": {"finalizers": ["f", "g"]}});
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [
                {"name": "a", "image": "2"},
                {"name": "b", "$patch": "delete"},
                {"name": "c", "ports": [{"containerPort": 80}]},
            ],
            "args": ["y"],
        }, "metadata": {
            "$deleteFromPrimitiveList/finalizers": ["f"],
            "finalizers": ["h"],
        }});
        strategic(&mut target, &patch);
        assert_eq!(
            target,
            json!({"spec": {
                "containers": [
                    {"name": "c", "ports": [{"containerPort": 80}]},
                    {"name": "a", "image": "2"},
                ],
                "args": ["y"],
            }, "metadata": {"finalizers": ["g", "h"]}})
        );
    }

    #[test]
    fn strategic_directives_replace_and_retain() {
        let mut target = json!({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}});
        let patch = json!({"a": {"$patch": "replace", "z": 3}, "b": {"$retainKeys": ["y"]}});
        strategic(&mut target, &patch);
        assert_eq!(target, json!({"a": {"z": 3}, "b": {"y": 2}}));
    }
}
