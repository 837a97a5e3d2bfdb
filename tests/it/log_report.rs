//! The output of reports: HTML, notes about missing information, and gaps in the record.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value as Json, json};

use crate::support::TempDir;
use crate::support::proxy::BINARY;

const HOSTILE: &str = "<script>alert('x')</script>\u{202e}\u{1b}[2J";

fn event(second: u32, user: &str, agent: &str, annotations: Json) -> String {
    let time = format!(
        "2026-11-23T{:02}:{:02}:{:02}.000000Z",
        5 + second / 3600,
        second / 60 % 60,
        second % 60
    );
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
        "auditID": format!("id-{second}"), "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/a/pods/p/exec?command=ls", "verb": "create",
        "user": {"username": user}, "impersonatedUser": {"username": user},
        "sourceIPs": ["10.0.0.1"], "userAgent": agent,
        "objectRef": {"resource": "pods", "namespace": "a", "name": user, "subresource": "exec", "apiVersion": "v1"},
        "responseStatus": {"code": 403, "reason": user},
        "requestReceivedTimestamp": time, "stageTimestamp": time, "annotations": annotations,
    })
    .to_string()
}

fn report(log: &Path, arguments: &[&str]) -> Output {
    Command::new(BINARY).args(["log", "report"]).args(arguments).arg(log).output().unwrap()
}

#[test]
fn html_reports_are_whole_and_hostile_values_are_text() {
    let dir = TempDir::new();
    let lines: Vec<_> = (0..9).map(|second| event(second, HOSTILE, HOSTILE, json!({}))).collect();
    let log = dir.write("audit.log", &(lines.join("\n") + "\n"));
    let hostile = ["--user", HOSTILE];
    for arguments in [
        &[][..],
        &["summary"],
        &["users"],
        &["failed"],
        &["exec"],
        &["impersonation"],
        &["latency"],
        &["volume"],
        &["agents"],
        &["secrets"],
        &["anonymous"],
        &["rbac"],
        &["tokens"],
        &["deprecated"],
        &["psa"],
        &["top", "--by", "user-agent,name"],
        &["history", "pods/*", "-n", "a"],
        &["history", "pods/*", "--diff"],
        &["rbac-for", hostile[0], hostile[1]],
    ] {
        let output = report(&log, &[arguments, &["-o", "html"]].concat());
        assert_ne!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        let page = String::from_utf8(output.stdout).unwrap();
        assert!(
            page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"),
            "{arguments:?}"
        );
        let is_harmful = ["<script", "\u{202e}", "\u{1b}", "http:", "https:", "src="]
            .into_iter()
            .find(|text| page.contains(text));
        assert_eq!(is_harmful, None, "{arguments:?}");
        let shows = page.contains("&lt;script&gt;");
        let found = output.status.success();
        assert_eq!(
            shows,
            found && arguments != ["latency"] || arguments.contains(&"rbac-for"),
            "{arguments:?}"
        );
    }
}

#[test]
fn annotations_of_kube_apiserver_are_reported_where_they_are() {
    let dir = TempDir::new();
    let plain = dir.write("plain.log", &(event(1, "alice", "kubectl", json!({})) + "\n"));
    let annotations = json!({
        "k8s.io/deprecated": "true", "k8s.io/removed-release": "1.38",
        "pod-security.kubernetes.io/audit-violations": "would violate PodSecurity",
        "pod-security.kubernetes.io/enforce-policy": "baseline:latest",
    });
    let both = format!(
        "{}\n{}\n",
        event(1, "alice", "kubectl", annotations),
        event(2, "bob", "k", json!({}))
    );
    let both = dir.write("both.log", &both);
    for (name, key, value) in [
        ("deprecated", "annotations.k8s.io/removed-release", "1.38"),
        ("psa", "annotations.pod-security.kubernetes.io/enforce-policy", "baseline:latest"),
    ] {
        let output = report(&plain, &[name]);
        let note = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert!(
            note.contains("no event has the annotation") && note.contains("kube-apiserver"),
            "{note}"
        );
        let output = report(&both, &[name, "-o", "json"]);
        let rows: Json = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(rows["rows"].as_array().unwrap().len(), 1, "{rows}");
        assert_eq!(
            (rows["rows"][0][key].as_str(), &rows["rows"][0]["user"]),
            (Some(value), &json!("alice"))
        );
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn a_summary_reports_unusual_gaps() {
    let dir = TempDir::new();
    let seconds = (0..600).filter(|second| !(200..300).contains(second));
    let mut text: String =
        seconds.map(|second| event(second, "a", "k", json!({})) + "\n").collect();
    text += "no event\n{\"kind\":\"Event\",\"auditID\":\"torn";
    let log = dir.write("audit.log", &text);
    let output = report(&log, &["-o", "json"]);
    let summary: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["skippedLines"], &summary["tornFiles"]), (&json!(2), &json!(1)));
    let gaps: Vec<_> = summary["gaps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gap| format!("{}: {}", gap["kind"].as_str().unwrap(), gap["text"].as_str().unwrap()))
        .collect();
    let has = |start: &str, part: &str| {
        gaps.iter().any(|gap| gap.starts_with(start) && gap.contains(part))
    };
    assert!(has("unusual: no events for 1 min 41 s", "from 2026-11-23T05:03:19"), "{gaps:#?}");
    assert!(has("unusual: ", "1 line is not an audit event"), "{gaps:#?}");
    assert!(has("note: ", "ends in the middle of a line"), "{gaps:#?}");
    assert!(has("note: ", "is not sealed"), "{gaps:#?}");
    // Filtered events have pauses that do not count as gaps.
    let output = report(&log, &["--human"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("were not looked for") && !text.contains("no events for"), "{text}");
    let output = report(&log, &["-o", "csv"]);
    let rows = String::from_utf8(output.stdout).unwrap();
    assert!(
        rows.starts_with("section,name,value\n") && rows.contains("total,events,500\n"),
        "{rows}"
    );
}

#[test]
fn a_report_that_does_not_exist_is_named() {
    let output = Command::new(BINARY).args(["log", "report", "secret"]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        message.contains("secret: neither a log nor a report; reports are summary, top, "),
        "{message}"
    );
}
