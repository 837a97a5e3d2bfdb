//! Compares two events of one request, and returns differences that are not documented.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

/// Returns whether kube-apiserver's defaulting sets the member if the client omits it.
fn is_defaulted(key: &str, value: &Value) -> bool {
    let is_default = |(key, value): (&String, &Value)| is_empty(value) || is_defaulted(key, value);
    match value {
        Value::Object(members) => key == "roleRef" && members.iter().all(is_default),
        _ => matches!(key, "apiGroup" | "type"),
    }
}

/// Returns whether a name is a member's name in another case, as the generator writes it. Unknown
/// members are kept, because the API server may be newer than the proxy, but not these, because
/// many parsers ignore the case.
fn is_variant(name: &str) -> bool {
    let is_upper = name.len() > 2 && name.chars().all(|c| c.is_ascii_uppercase());
    is_upper || name.contains(['\u{17f}', '\u{212a}'])
}

/// Returns the differences in `objectRef`, `requestObject` and the code.
pub(super) fn events(kube: &Value, proxy: &Value) -> Vec<String> {
    let mut differences = Vec::new();
    for pointer in ["/responseStatus/code", "/responseStatus/reason", "/objectRef"] {
        let (theirs, ours) = (kube.pointer(pointer), proxy.pointer(pointer));
        if theirs != ours {
            differences.push(format!("{pointer}: {theirs:?}, here {ours:?}"));
        }
    }
    let (theirs, ours) = (&kube["requestObject"], &proxy["requestObject"]);
    let is_pod = kube["objectRef"]["resource"] == "pods";
    // A patch is recorded unchanged.
    let ours = if kube["verb"] == "patch" { ours.clone() } else { with_string_data(ours) };
    objects("", theirs, &ours, is_pod, &mut differences);
    differences
}

/// Returns a Secret with `stringData` moved to `data`, like kube-apiserver converts it.
fn with_string_data(object: &Value) -> Value {
    let mut object = object.clone();
    let Some(Value::Object(texts)) = object.get("stringData").cloned() else { return object };
    if object["kind"] == "Secret" {
        for (key, text) in texts {
            let bytes = text.as_str().unwrap_or_default();
            object["data"][key] = BASE64_STANDARD.encode(bytes).into();
        }
        object.as_object_mut().expect("it is one").remove("stringData");
    }
    object
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.values().all(is_empty),
    }
}

fn objects(
    path: &str,
    theirs: &Value,
    ours: &Value,
    has_defaults: bool,
    differences: &mut Vec<String>,
) {
    match (theirs, ours) {
        (Value::Object(kube), Value::Object(proxy)) => {
            for (key, value) in kube {
                let path = format!("{path}/{key}");
                match proxy.get(key) {
                    Some(own) => objects(&path, value, own, has_defaults, differences),
                    None => {
                        let is_default = has_defaults || is_defaulted(key, value);
                        if !is_default && !is_empty(value) {
                            differences.push(format!("{path}: {value}, here absent"));
                        }
                    }
                }
            }
            for (key, value) in proxy {
                let is_kept = !is_variant(key) || is_empty(value);
                if !kube.contains_key(key) && !is_kept {
                    differences.push(format!("{path}/{key}: absent, here {value}"));
                }
            }
        }
        (Value::Array(kube), Value::Array(proxy)) if kube.len() == proxy.len() => {
            for (index, (value, own)) in kube.iter().zip(proxy).enumerate() {
                objects(&format!("{path}/{index}"), value, own, has_defaults, differences);
            }
        }
        (Value::Number(kube), Value::Number(proxy)) if kube.as_f64() == proxy.as_f64() => {}
        _ if theirs == ours || is_empty(theirs) && is_empty(ours) => {}
        // An empty member is equivalent to a missing one.
        _ if (has_defaults || is_defaulted(path.rsplit('/').next().unwrap_or(""), theirs))
            && is_empty(ours) => {}
        // Quantities are recorded as they were sent.
        (Value::String(text), Value::Number(number)) if *text == number.to_string() => {}
        _ => differences.push(format!("{path}: {theirs}, here {ours}")),
    }
}

/// Returns the proxy's annotations about the request, in one line.
pub(super) fn marks(event: &Value) -> String {
    let annotations = event["annotations"].as_object();
    let own = |(key, value): (&String, &Value)| {
        let key = key.strip_prefix("kube-audit-proxy/")?;
        Some(format!("{key}: {}", value.as_str()?))
    };
    annotations.into_iter().flatten().filter_map(own).collect::<Vec<_>>().join("; ")
}
