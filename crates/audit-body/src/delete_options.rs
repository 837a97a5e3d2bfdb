//! `DeleteOptions` as kube-apiserver logs them.

use serde::Deserialize;

use k8s_audit::json::push_string;

/// `DeleteOptions` in the order and with the internal version that kube-apiserver logs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    orphan_dependents: Option<bool>,
    propagation_policy: Option<String>,
    #[serde(default)]
    dry_run: Option<Vec<String>>,
    ignore_store_read_error_with_cluster_breaking_potential: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// Converts `DeleteOptions` in JSON to what kube-apiserver logs; `None` if kube-apiserver could not
/// decode them.
pub fn delete_options(json: &[u8]) -> Option<Vec<u8>> {
    let options: DeleteOptions = serde_json::from_slice(json).ok()?;
    let mut out = Vec::with_capacity(128);
    let member = |out: &mut Vec<u8>, name: &str, value: Option<Vec<u8>>| {
        if let Some(value) = value {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(&value);
        }
    };
    let string = |text: String| {
        let mut out = Vec::new();
        push_string(&mut out, text.as_bytes());
        out
    };
    let plain = |value: &dyn ToString| value.to_string().into_bytes();
    out.extend_from_slice(b"{\"kind\":\"DeleteOptions\",\"apiVersion\":\"meta.k8s.io/__internal\"");
    let grace = options.grace_period_seconds.map(|seconds| plain(&seconds));
    member(&mut out, "gracePeriodSeconds", grace);
    let preconditions = options.preconditions.map(|preconditions| {
        let mut inner = Vec::new();
        member(&mut inner, "uid", preconditions.uid.map(string));
        member(&mut inner, "resourceVersion", preconditions.resource_version.map(string));
        match inner.first_mut() {
            Some(first) => *first = b'{',
            None => inner.push(b'{'),
        }
        inner.push(b'}');
        inner
    });
    member(&mut out, "preconditions", preconditions);
    member(&mut out, "orphanDependents", options.orphan_dependents.map(|orphan| plain(&orphan)));
    member(&mut out, "propagationPolicy", options.propagation_policy.map(string));
    let dry_run = options.dry_run.filter(|stages| !stages.is_empty()).map(|stages| {
        let stages: Vec<Vec<u8>> = stages.into_iter().map(string).collect();
        [&b"["[..], &stages.join(&b","[..]), b"]"].concat()
    });
    member(&mut out, "dryRun", dry_run);
    let ignore = options.ignore_store_read_error_with_cluster_breaking_potential;
    let name = "ignoreStoreReadErrorWithClusterBreakingPotential";
    member(&mut out, name, ignore.map(|ignore| plain(&ignore)));
    out.push(b'}');
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delete_options_are_printed_as_kube_apiserver_does() {
        let given = br#"{"dryRun":["All"],"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Foreground","preconditions":{"resourceVersion":"7","uid":"u"},"gracePeriodSeconds":0,"orphanDependents":false}"#;
        let expected = r#"{"kind":"DeleteOptions","apiVersion":"meta.k8s.io/__internal","gracePeriodSeconds":0,"preconditions":{"uid":"u","resourceVersion":"7"},"orphanDependents":false,"propagationPolicy":"Foreground","dryRun":["All"]}"#;
        assert_eq!(delete_options(given).unwrap(), expected.as_bytes());
        let empty = r#"{"kind":"DeleteOptions","apiVersion":"meta.k8s.io/__internal"}"#;
        assert_eq!(delete_options(b"{}").unwrap(), empty.as_bytes());
        assert!(delete_options(b"{\"gracePeriodSeconds\":\"x\"}").is_none());
        assert!(delete_options(b"[]").is_none());
    }
}
