//! What a change of RBAC grants, read from the request's body.

use serde_json::Value as Json;

/// Appends the role and the subjects of a binding, or the rules of a role. Returns `false` if no
/// body was recorded, or it contains neither.
pub(crate) fn push(body: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    let Some(body) = body else { return false };
    let Ok(body) = serde_json::from_str::<Json>(&String::from_utf8_lossy(body)) else {
        return false;
    };
    let mut parts = Vec::new();
    let text = |value: &Json, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    if body["roleRef"].is_object() {
        parts.push(format!(
            "{}/{}",
            text(&body["roleRef"], "kind"),
            text(&body["roleRef"], "name")
        ));
    }
    let subjects = list(&body["subjects"], |subject| {
        let namespace = text(subject, "namespace");
        let separator = if namespace.is_empty() { "" } else { ":" };
        format!("{}/{namespace}{separator}{}", text(subject, "kind"), text(subject, "name"))
    });
    if !subjects.is_empty() {
        parts.push(format!("to {}", subjects.join(", ")));
    }
    let words =
        |value: &Json| list(value, |word| word.as_str().unwrap_or_default().to_owned()).join(",");
    let rules = list(&body["rules"], |rule| {
        let objects = [words(&rule["resources"]), words(&rule["nonResourceURLs"])].join("");
        format!("{} {objects}", words(&rule["verbs"]))
    });
    if !rules.is_empty() {
        parts.push(rules.join("; "));
    }
    out.extend_from_slice(parts.join(" ").as_bytes());
    !parts.is_empty()
}

fn list(values: &Json, each: impl Fn(&Json) -> String) -> Vec<String> {
    values.as_array().map_or(Vec::new(), |values| values.iter().map(each).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_and_roles_are_put_into_words() {
        for (body, expected) in [
            (
                r#"{"roleRef":{"kind":"ClusterRole","name":"edit"},"subjects":[{"kind":"User","name":"bob"},{"kind":"ServiceAccount","name":"d","namespace":"ci"}]}"#,
                "ClusterRole/edit to User/bob, ServiceAccount/ci:d",
            ),
            (
                r#"{"rules":[{"verbs":["get","list"],"resources":["secrets"]},{"verbs":["*"],"nonResourceURLs":["/metrics"]}]}"#,
                "get,list secrets; * /metrics",
            ),
            (r#"{"metadata":{}}"#, ""),
            ("not JSON", ""),
        ] {
            let mut out = Vec::new();
            assert_eq!(push(Some(body.as_bytes()), &mut out), !expected.is_empty(), "{body}");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        assert!(!push(None, &mut Vec::new()));
    }
}
