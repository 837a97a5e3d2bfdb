use http::Method;
use http::uri::PathAndQuery;

use k8s_audit::{RequestInfo, UserInfo};

use super::*;
use crate::policy::Authenticated;

const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";

fn file(rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|rule| format!("- {{{rule}}}\n")).collect();
    format!("{POLICY}---\napiVersion: {API_VERSION}\nkind: {KIND}\nrules:\n{rules}")
}

fn extension(rules: &[&str]) -> Extension {
    parse(file(rules).as_bytes(), "p.yaml").unwrap().unwrap()
}

fn decide<'e>(
    extension: &'e Extension,
    method: &str,
    target: &str,
    outcome: Outcome,
) -> Verdict<'e> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let info = RequestInfo::new(&method, &target.parse::<PathAndQuery>().unwrap()).unwrap();
    let user = UserInfo { username: "alice".into(), ..UserInfo::default() };
    extension.decide(&Authenticated { user: Some(&user), info: &info }, outcome)
}

fn code(code: u16) -> Outcome {
    Outcome { code, unchanged: false }
}

const POD: &str = "/api/v1/namespaces/a/pods/b";

#[test]
fn writes_and_failures_are_kept_unless_a_rule_names_them() {
    let all = extension(&["action: Drop"]);
    assert_eq!(decide(&all, "GET", POD, code(200)), Verdict::Drop(0));
    assert_eq!(decide(&all, "GET", "/healthz", code(200)), Verdict::Drop(0));
    for (method, status) in [("PUT", 200), ("POST", 201), ("DELETE", 200), ("GET", 404), ("GET", 0)]
    {
        assert_eq!(decide(&all, method, POD, code(status)), Verdict::Keep, "{method} {status}");
    }
    let named =
        extension(&["verbs: [update], action: Drop", "responseCodes: [404, 5xx], action: Drop"]);
    assert_eq!(decide(&named, "PUT", POD, code(200)), Verdict::Drop(0));
    assert_eq!(decide(&named, "PUT", POD, code(404)), Verdict::Keep);
    assert_eq!(decide(&named, "GET", POD, code(404)), Verdict::Drop(1));
    assert_eq!(decide(&named, "GET", POD, code(503)), Verdict::Drop(1));
    assert_eq!(decide(&named, "GET", POD, code(403)), Verdict::Keep);
    assert_eq!(decide(&named, "GET", POD, code(200)), Verdict::Keep);
}

#[test]
fn the_first_rule_whose_conditions_are_met_decides() {
    let rules = extension(&[
        "resources: [{group: '', resources: [secrets]}], action: Keep",
        "users: [bob], action: Drop",
        "namespaces: [a], action: Drop",
    ]);
    assert_eq!(decide(&rules, "GET", "/api/v1/namespaces/a/secrets/s", code(200)), Verdict::Keep);
    assert_eq!(decide(&rules, "GET", POD, code(200)), Verdict::Drop(2));
    assert_eq!(decide(&rules, "GET", "/api/v1/namespaces/b/pods/b", code(200)), Verdict::Keep);
}

#[test]
fn updates_that_change_nothing_are_dropped() {
    let rules = extension(&["unchanged: true, action: Drop"]);
    let unchanged = Outcome { code: 200, unchanged: true };
    assert_eq!(decide(&rules, "PUT", POD, unchanged), Verdict::Drop(0));
    assert_eq!(decide(&rules, "PUT", POD, code(200)), Verdict::Keep);
    assert_eq!(decide(&rules, "GET", POD, unchanged), Verdict::Keep);
}

#[test]
fn a_sample_is_about_as_large_as_its_rate() {
    let rules = extension(&["rate: 0.25, action: Sample"]);
    let sampled =
        (0..4000).filter(|_| decide(&rules, "GET", POD, code(200)) == Verdict::Sampled("0.25"));
    let sampled = sampled.count();
    assert!((800..1200).contains(&sampled), "{sampled}");
}

#[test]
fn other_documents_are_ignored_and_positions_are_those_of_the_file() {
    let none = |text: &str| parse(text.as_bytes(), "p.yaml").unwrap().is_none();
    assert!(none(POLICY));
    assert!(none(&format!("---\n{POLICY}")));
    assert!(none(&format!("# c\n---\n{POLICY}---\nkind: Other\n---\n- [broken")));
    // Not a document of its own.
    assert!(none(&format!("{POLICY}# --- {API_VERSION}\n")));
    let text = format!("--- # first\n{}", file(&["name: x, action: Drop"]));
    let extension = parse(text.as_bytes(), "p.yaml").unwrap().unwrap();
    assert_eq!(extension.position(0), Position { line: 9, column: 3 });
    assert_eq!(extension.rules().collect::<Vec<_>>(), [("x", "drop")]);
}

#[test]
fn faults_are_reported_with_their_place() {
    let fault = |rule: &str| {
        let problems = parse(file(&["action: Keep", rule]).as_bytes(), "p.yaml").unwrap_err();
        problems[0].to_string()
    };
    for (rule, expected) in [
        (
            "action: Dorp",
            "p.yaml:9:3: rules[1]: action \"Dorp\": accepted are Keep, Drop, Sample, RateLimit",
        ),
        ("action: Sample", "p.yaml:9:3: rules[1]: Sample needs a rate, such as \"rate: 0.01\""),
        (
            "action: Sample, rate: 1.5",
            "p.yaml:9:3: rules[1]: rate 1.5: accepted is a number between 0 and 1",
        ),
        ("action: Drop, rate: 0.5", "p.yaml:9:3: rules[1]: rate is only for \"action: Sample\""),
        (
            "action: RateLimit, limit: 1, window: 2d",
            "p.yaml:9:3: rules[1]: window \"2d\": accepted are 1s to 1h, such as 30s, 5m, or 1h",
        ),
        (
            "action: Drop, responseCodes: [6xx]",
            "p.yaml:9:3: rules[1]: responseCodes \"6xx\": write a code such as 404, or 4xx",
        ),
        (
            "action: Drop, unchanged: true, verbs: [get]",
            "p.yaml:9:3: rules[1]: unchanged is only for the verbs update and patch",
        ),
        (
            "action: Drop, name: 'a\"b'",
            "p.yaml:9:3: rules[1]: name \"a\\\"b\": accepted are 1 to 64 letters, digits, -, _, and .",
        ),
        ("action: Drop, name: '0'", "p.yaml:9:3: rules[1]: name \"0\": another rule has it, too"),
    ] {
        assert_eq!(fault(rule), expected);
    }
    assert!(
        fault("action: Drop, verb: [get]").starts_with("p.yaml:9:"),
        "{}",
        fault("action: Drop, verb: [get]")
    );
    let other = format!("{POLICY}---\napiVersion: audit.kube-audit-proxy.io/v1\nkind: {KIND}\n");
    let problems = parse(other.as_bytes(), "p.yaml").unwrap_err();
    assert!(problems[0].to_string().starts_with("p.yaml:5:1: no kind"), "{}", problems[0]);
}
