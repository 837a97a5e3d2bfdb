use std::path::Path;

use super::*;
use k8s_audit::policy::{Level, parse};

#[path = "../../../benches/policy/cluster_day.rs"]
mod cluster_day;

fn suggest(lines: &[String], min_share: f64) -> Suggestion {
    let mut frequencies = Frequencies::default();
    for line in lines {
        let event = Event::parse(line.as_bytes()).unwrap();
        frequencies.visit(&event, place(), &mut Records::default());
    }
    frequencies.suggest(min_share)
}

fn place() -> Place<'static> {
    Place { path: Path::new("audit.log"), offset: 0 }
}

/// An independent implementation, on JSON: which requests must stay recorded.
fn is_protected(event: &serde_json::Value) -> bool {
    let text = |pointer: &str| event.pointer(pointer).and_then(|v| v.as_str()).unwrap_or("");
    let user = text("/user/username");
    let is_write = !matches!(text("/verb"), "get" | "list" | "watch" | "head");
    let is_person = !user.starts_with("system:");
    let resource = text("/objectRef/resource");
    let is_path = event.get("objectRef").is_none();
    event["responseStatus"]["code"].as_u64().unwrap() >= 400
        || event.get("impersonatedUser").is_some()
        || is_write
        || resource == "secrets"
        || text("/objectRef/apiGroup") == "rbac.authorization.k8s.io"
        || text("/objectRef/subresource") == "exec"
        || is_person && !is_path
}

#[test]
fn a_cluster_of_100_nodes_loses_no_protected_request() {
    let mut lines = Vec::new();
    cluster_day::events(100, 600, |line| lines.push(line.to_owned()));
    let suggestion = suggest(&lines, 0.01);
    let loaded = parse(suggestion.yaml.as_bytes(), "suggested").unwrap();
    assert!(loaded.warnings.is_empty());
    let (mut lost, mut saved, mut protected) = (Vec::new(), 0, 0);
    for line in &lines {
        let event = Event::parse(line.as_bytes()).unwrap();
        let level = loaded.policy.decide(&EventRequest::new(&event).unwrap()).level;
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        let is_protected = is_protected(&json);
        protected += usize::from(is_protected);
        match level {
            Level::None if is_protected => lost.push(line),
            Level::None => saved += line.len(),
            _ => {}
        }
    }
    let all: usize = lines.iter().map(String::len).sum();
    println!("{} rules save {saved} of {all} bytes", suggestion.rules);
    assert_eq!(lost, Vec::<&String>::new());
    assert!(protected > 4000, "{protected}");
    assert!(saved * 100 > all * 40, "{saved} of {all}");
    assert_eq!(suggestion.bytes.1, saved as u64, "the printed saving is the real one");
}

#[test]
fn conditions_under_which_a_request_failed_give_no_rule() {
    let mut lines = Vec::new();
    cluster_day::events(100, 600, |line| lines.push(line.to_owned()));
    let suggestion = suggest(&lines, 0.0001);
    assert!(!rules_of(&suggestion.yaml).contains("csinodes"), "{}", suggestion.yaml);
    assert!(
        suggestion.yaml.contains("get storage.k8s.io/csinodes by nodes"),
        "{}",
        suggestion.yaml
    );
    for never in ["secrets", "configmaps", "rolebindings", "exec", "token"] {
        assert!(!rules_of(&suggestion.yaml).contains(never), "{never}: {}", suggestion.yaml);
    }
    assert!(rules_of(&suggestion.yaml).contains("/healthz/*"), "{}", suggestion.yaml);
}

/// Without comments.
fn rules_of(yaml: &str) -> String {
    let lines = yaml.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn names_from_a_log_cannot_break_out_of_the_policy() {
    let hostile = "x\\\"]}\\n  - level: None\\n#";
    let lines: Vec<String> = (0..50)
        .map(|_| {
            format!(
                "{{\"auditID\":\"a\",\"stage\":\"ResponseComplete\",\"verb\":\"get\",\"requestURI\":\"/api/v1/x\",\
                 \"user\":{{\"username\":\"system:node:a\",\"groups\":[\"system:nodes\"]}},\
                 \"objectRef\":{{\"resource\":\"{hostile}\",\"apiGroup\":\"{hostile}\"}},\
                 \"responseStatus\":{{\"code\":200}}}}"
            )
        })
        .collect();
    let suggestion = suggest(&lines, 0.01);
    let loaded = parse(suggestion.yaml.as_bytes(), "suggested").unwrap();
    assert_eq!(loaded.spec.rules.len(), 1, "{}", suggestion.yaml);
}
