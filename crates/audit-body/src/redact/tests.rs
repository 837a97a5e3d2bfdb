use super::*;
use crate::paths::PathProblem;
use crate::{Compactor, Options};

fn redacted(redaction: &Redaction, resource: [&str; 3], text: &str) -> String {
    let [group, resource, subresource] = resource.map(str::as_bytes);
    let redact = redaction.for_request(group, resource, subresource).cloned();
    let mut compactor = Compactor::new(Options { redact, ..Options::default() });
    compactor.push(text.as_bytes());
    String::from_utf8(compactor.finish().text.unwrap().json).unwrap()
}

#[test]
fn secrets_are_redacted_in_each_form_they_come_in() {
    let secrets = |text: &str| redacted(&Redaction::default(), ["", "secrets", ""], text);
    for (given, expected) in [
        (r#"{"data":{"a":"YQ=="}}"#, r#"{"data":{"a":"REDACTED(4 bytes)"}}"#),
        (r#"{"stringdata":{"a":"\u00e9\n"}}"#, r#"{"stringdata":{"a":"REDACTED(3 bytes)"}}"#),
        (r#"{"data":{"a":null}}"#, r#"{"data":{"a":null}}"#),
        (r#"{"data":"YQ=="}"#, r#"{"data":"REDACTED(4 bytes)"}"#),
        (r#"{"data":{"a":{"b": [1, 2]}}}"#, r#"{"data":{"a":"REDACTED(11 bytes)"}}"#),
        (r#"{"items":[{"data":{"a":7}}]}"#, r#"{"items":[{"data":{"a":"REDACTED(1 bytes)"}}]}"#),
        (
            r#"{"rows":[{"cells":["s"],"object":{"data":{"a":"b"}}}]}"#,
            r#"{"rows":[{"cells":["s"],"object":{"data":{"a":"REDACTED(1 bytes)"}}}]}"#,
        ),
        (
            r#"[{"op":"add","path":"/data/a","value":"b"},{"op":"test","path":"/x","value":{}}]"#,
            r#"[{"op":"add","path":"/data/a","value":"REDACTED(1 bytes)"},{"op":"test","path":"/x","value":"REDACTED(2 bytes)"}]"#,
        ),
        (
            r#"{"metadata":{"annotations":{"a":"b","kubectl.kubernetes.io/last-applied-configuration":"{}"}}}"#,
            r#"{"metadata":{"annotations":{"a":"b","kubectl.kubernetes.io/last-applied-configuration":"REDACTED(2 bytes)"}}}"#,
        ),
        (r#" "{\"data\":7}" "#, r#""REDACTED(10 bytes)""#),
        (r#"{"kind":"Secret","type":"data"}"#, r#"{"kind":"Secret","type":"data"}"#),
    ] {
        assert_eq!(secrets(given), expected);
    }
}

#[test]
fn long_secrets_show_the_digest_of_what_they_stand_for() {
    let secrets = |text: &str| redacted(&Redaction::default(), ["", "secrets", ""], text);
    // printf 'a<b/0123456789abcdef' | sha256sum
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"a<b/0123456789abcdef");
    let digest = crate::redacted::hex(digest.as_ref());
    let expected = format!(r#"{{"data":{{"a":"REDACTED(sha256:{digest}, 20 bytes)"}}}}"#);
    for spelling in ["a<b/0123456789abcdef", r"a\u003cb\/0123456789\u0061bcdef"] {
        assert_eq!(secrets(&format!(r#"{{"data":{{"a":"{spelling}"}}}}"#)), expected);
    }
}

#[test]
fn rules_are_for_their_resource() {
    let redaction = Redaction::new([
        "apps/deployments:spec.template.spec.containers[*].env[*].value",
        "configmaps:data.password",
        "pods/ephemeralcontainers:spec.x",
        "core/pods:spec.y",
    ])
    .unwrap();
    let spec =
        r#"{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"A","value":"b"}]}]}}}}"#;
    let answer = spec.replace("\"b\"", "\"REDACTED(1 bytes)\"");
    assert_eq!(redacted(&redaction, ["apps", "deployments", ""], spec), answer);
    assert_eq!(redacted(&redaction, ["apps", "deployments", "status"], spec), answer);
    assert_eq!(redacted(&redaction, ["apps", "daemonsets", ""], spec), spec);
    assert_eq!(redacted(&redaction, ["", "deployments", ""], spec), spec);
    let config = r#"{"data":{"password":true,"a":"b"}}"#;
    assert_eq!(
        redacted(&redaction, ["", "configmaps", ""], config),
        r#"{"data":{"password":"REDACTED(4 bytes)","a":"b"}}"#
    );
    let token = r#"{"spec":{"token":"t"},"status":{"token":"t"}}"#;
    assert_eq!(
        redacted(&redaction, ["", "serviceaccounts", "token"], token),
        r#"{"spec":{"token":"t"},"status":{"token":"REDACTED(1 bytes)"}}"#
    );
    assert_eq!(redacted(&redaction, ["", "serviceaccounts", ""], token), token);
    assert_eq!(
        redacted(&redaction, ["authentication.k8s.io", "tokenreviews", ""], token),
        r#"{"spec":{"token":"REDACTED(1 bytes)"},"status":{"token":"t"}}"#
    );
    assert!(redaction.for_request(b"", b"nodes", b"").is_none());
    assert!(Redaction::none().for_request(b"", b"secrets", b"").is_none());
}

#[test]
fn a_subresource_has_its_own_paths_and_the_resources() {
    let redaction = Redaction::new(["core/pods/x:spec.x", "core/pods:spec.y"]).unwrap();
    let spec = r#"{"spec":{"x":1,"y":2}}"#;
    let y = r#"{"spec":{"x":1,"y":"REDACTED(1 bytes)"}}"#;
    let both = r#"{"spec":{"x":"REDACTED(1 bytes)","y":"REDACTED(1 bytes)"}}"#;
    assert_eq!(redacted(&redaction, ["", "pods", ""], spec), y);
    assert_eq!(redacted(&redaction, ["", "pods", "status"], spec), y);
    assert_eq!(redacted(&redaction, ["", "pods", "x"], spec), both);
}

#[test]
fn wrong_rules_say_what_would_be_right() {
    let problem = |rule: &str| Redaction::new([rule]).unwrap_err().problem;
    assert_eq!(problem("secrets"), RuleProblem::NoColon);
    assert_eq!(problem("a/b/c/d:x"), RuleProblem::Resource("a/b/c/d".into()));
    assert_eq!(problem("apps/:x"), RuleProblem::Resource("apps/".into()));
    assert_eq!(problem("apps/v1/deployments:x"), RuleProblem::Version("v1".into()));
    assert_eq!(problem("v1beta2/x:x"), RuleProblem::Version("v1beta2".into()));
    assert_eq!(problem("apps/Deployment:x"), RuleProblem::Spelling("Deployment".into()));
    let RuleProblem::Path(path) = problem("apps/deployments: spec.a[0]") else { panic!() };
    assert_eq!((path.column, path.problem), (7, PathProblem::Bracket));
    assert_eq!(
        Redaction::new(["configmaps:"]).unwrap_err().to_string(),
        "redaction rule \"configmaps:\": character 1 of path \"\": the name of a member is \
         expected here, as in metadata.name; the path has no $ and no dot before it"
    );
}

#[test]
fn versions_are_distinguished_from_names() {
    for version in ["v1", "v2beta1", "v10alpha3"] {
        assert!(is_version(version), "{version}");
    }
    for name in ["v", "volumes", "v1x", "vbeta1", "v1beta", "nodes"] {
        assert!(!is_version(name), "{name}");
    }
}
