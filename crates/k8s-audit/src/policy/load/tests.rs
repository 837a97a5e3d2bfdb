use proptest::prelude::*;

use super::*;
use crate::policy::{Level, Stage, StageSet};

/// Returns the errors and the warnings, as text.
fn outcome(text: &str) -> (Option<String>, String) {
    match parse_spec(text.as_bytes(), "policy.yaml") {
        Ok((_, warnings)) => (None, lines(&warnings)),
        Err(InvalidPolicy { errors, warnings }) => (Some(lines(&errors)), lines(&warnings)),
    }
}

/// Returns a policy of one rule with these members, the first without indentation.
fn with_rule(members: &str) -> String {
    format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n  {members}\n")
}

#[test]
fn messages_name_file_line_column_and_remedy() {
    let header = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
    let cases = [
        (
            "rules:\n- level: Metdata",
            "policy.yaml:4:10: rules[0].level: Unsupported value: \"Metdata\": supported values: \
             \"None\", \"Metadata\", \"Request\", \"RequestResponse\"; did you mean \"Metadata\"?",
        ),
        (
            "rules:\n- level: None\n  verbs: [get, on]",
            "policy.yaml:5:16: rules[0].verbs[1]: failed decoding: json: cannot unmarshal bool \
             into Go struct field PolicyRule.rules.verbs of type string; quote it: without quotes \
             YAML reads on as a boolean, write \"on\"",
        ),
        (
            "rules:\n- level: None\n  verbs: get",
            "policy.yaml:5:10: rules[0].verbs: failed decoding: json: cannot unmarshal string into \
             Go struct field PolicyRule.rules.verbs of type []string; write a list: [\"get\"]",
        ),
        (
            "rules:\n- level: None\n  resources:\n  - group: rbac.authorization.k8s.io/v1",
            "leave the version out: \"rbac.authorization.k8s.io\"",
        ),
        ("rules:\n- level: None\n  nonResourceURLs: [/a/*/b]", "; write \"/a/*\""),
        (
            "rules: []",
            "policy.yaml:3:8: loaded illegal policy with 0 rules; add at least one rule, such as \
             \"rules: [{level: Metadata}]\"",
        ),
        ("rules:\n- level: None\n  verbs: [*]", "; quote values that begin with '*'"),
        ("rules:\n\t- level: None", "; indent with spaces: YAML allows no tabs there"),
    ];
    for (rest, expected) in cases {
        let (error, _) = outcome(&format!("{header}{rest}\n"));
        let error = error.unwrap();
        assert!(error.contains(expected), "{error}\nhas not\n{expected}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let (error, _) = outcome("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: []\n");
    let expected = "policy.yaml:1:13: failed decoding: no kind \"Policy\" is registered for version \
                    \"audit.k8s.io/v1beta1\"; use \"apiVersion: audit.k8s.io/v1\"";
    assert_eq!(error.unwrap(), expected);
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file() {
    let (error, _) = outcome(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [X]\nrules:\n- level: Q\n  \
         omitStages: [Z]\n  nonResourceURLs: [q, '', /a*b*]\n  namespaces: [m]\n- users: [a]\n",
    );
    let error = error.unwrap();
    let places: Vec<&str> = error.lines().map(|l| l.split(": ").next().unwrap()).collect();
    let expected = ["3:14", "5:10", "6:16", "7:20", "7:21", "7:24", "7:28", "9:3"]
        .map(|place| format!("policy.yaml:{place}"));
    assert_eq!(places, expected, "{error}");
}

#[test]
fn warnings_name_the_place_and_what_becomes_of_it() {
    let (error, warnings) = outcome(&with_rule("resources:\n  - group: ''\n    verbs: [get]"));
    assert_eq!(error, None);
    let expected = "policy.yaml:7:5: unknown field \"rules[0].resources[0].verbs\"; it is ignored, \
                    it belongs to the rule: indent it as far as \"resources:\"";
    assert_eq!(warnings, expected);
    let (_, warnings) = outcome(&with_rule("level: None"));
    let expected = "policy.yaml:5:3: key \"level\" already set in map; the one at 4:3 is ignored, \
                    remove one of them";
    assert_eq!(warnings, expected);
}

#[test]
fn further_documents_have_the_verdict_that_kube_apiserver_s_decoder_gives() {
    let v1 = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
    let rules = "rules: [{level: Metadata}]\n";
    let json =
        r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "None"}]"#;
    let (accepted, warned, refused) = ((true, false), (true, true), (false, false));
    let refused_and_warned = (false, true);
    let cases: Vec<(String, (bool, bool))> = vec![
        (format!("kind: Policy\n{rules}"), refused_and_warned),
        ("kind: Policy\n".into(), refused),
        ("# nothing\n".into(), refused),
        ("null".into(), refused),
        ("---\n".into(), refused),
        (format!("apiVersion: audit.k8s.io/__internal\n{rules}"), refused_and_warned),
        (format!("apiVersion: v1\nkind: Policy\n{rules}"), refused),
        (format!("apiVersion: a/b/c\nkind: Policy\n{rules}"), refused),
        (format!("apiVersion: 1\nkind: Policy\n{rules}"), refused),
        (format!("APIVersion: audit.k8s.io/v1\nKIND: Policy\n{rules}"), warned),
        (format!("kind: Foo\n{rules}"), refused),
        (format!("%YAML 1.2\n---\n{v1}{rules}"), refused),
        (format!("%YAML 1.1\n---\n{v1}{rules}"), accepted),
        (format!("---\n{v1}{rules}...\n"), accepted),
        (format!("{v1}{rules}---\n[unfinished"), accepted),
        (format!("{v1}{rules}metadata: {{generation: 1.0, creationTimestamp: null}}\n"), accepted),
        (format!("{v1}{rules}metadata: {{generation: 1.5}}\n"), refused),
        (format!("{v1}{rules}metadata: {{labels: {{a: 1}}}}\n"), refused),
        (format!("{v1}{rules}metadata: {{creationTimestamp: yesterday}}\n"), refused),
        (format!("{v1}{rules}metadata: {{labels: {{a: b, a: c}}}}\n"), warned),
        (format!("{v1}{rules}on: 1\n"), warned),
        (format!("{v1}{rules}~: 1\n"), refused),
        (format!("{v1}{rules}[a]: 1\n"), refused),
        (format!("{v1}{rules}junk: .nan\n"), refused),
        (format!("{v1}{rules}junk: !!int x\n"), refused),
        (format!("{v1}rules: [null]\n"), refused),
        (format!("{v1}rules: {{level: None}}\n"), refused),
        (format!("{v1}rules: *nowhere\n"), refused),
        (format!("{v1}rules: &a [*a]\n"), refused),
        (format!("{v1}{rules}x: \u{1}\n"), refused),
        (with_rule("users: [~]"), accepted),
        (with_rule("users: [2001-01-01, 1.2.3, 12:30, system:x, 1e999]"), accepted),
        (with_rule("users: [!!str 5, \"7\", 'no', !local 5]"), accepted),
        (with_rule("users: [0o7]"), refused),
        (with_rule("users: [.5]"), refused),
        (with_rule("users: [[a]]"), refused),
        (with_rule("namespaces: [n]"), refused),
        (with_rule("omitManagedFields: yes"), accepted),
        (with_rule("omitManagedFields: 1"), refused),
        (with_rule("verbs: {}"), refused),
        (with_rule("resources: [{group: '*'}]"), accepted),
        (with_rule("resources: [{group: 'a.b', resourceNames: [x]}]"), refused),
        (with_rule("resources: [pods]"), refused),
        (with_rule("verbs: [\"*\", get]"), accepted),
        (with_rule("nonResourceURLs: [/a, \"*\", /]"), accepted),
        (with_rule("nonResourceURLs: [\"*/a\"]"), refused),
        (with_rule("<<: {verbs: [get]}\n  users: [a]"), accepted),
        (with_rule("<<: {level: None}"), warned),
        (with_rule("<<: [{verbs: [get]}, {users: [a]}]"), accepted),
        (with_rule("<<: [a]"), refused),
        (with_rule("\"<<\": {verbs: [get]}"), warned),
        (with_rule("users: [a?b]"), refused),
        (with_rule("users: [:a]"), refused),
        (with_rule("users: ['a?b', a#b, a:b]"), accepted),
        (with_rule("users: [\n\ta,\n\t\tb]"), accepted),
        (with_rule("users: [a\n\t]"), refused),
        (with_rule("users: [\n\t# note\n\ta]"), accepted),
        (with_rule("users:\t[a]\t# note"), accepted),
        (with_rule("users:\n  -\ta"), refused),
        (with_rule("users: [a]\n\t\n  verbs: [get]"), refused),
        (with_rule("users: [a]\n\t# note\n  verbs: [get]"), refused),
        (with_rule("users:\n  - |\n    a\n\n    \tb"), accepted),
        (format!("%FOO\n---\n{v1}{rules}"), refused),
        (format!("{json}}}"), accepted),
        (format!("\n \t{json}}}\n"), accepted),
        (format!("\u{feff}{json}}}"), accepted),
        (format!("{json},}}"), refused),
        (json.into(), refused),
        (format!("{json}, \"rules\": [{{\"level\": \"Request\"}}]}}"), warned),
        (format!("{json}, \"nope\": [1, -2.5e3, true, null, \"\\ud83d\\ude00\\n\"]}}"), warned),
        (format!("{json}, \"omitManagedFields\": \"x\"}}"), refused),
        ("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None}]}".into(), refused),
        ("--- {apiVersion: audit.k8s.io/v1, rules: [{level: None}]}".into(), accepted),
    ];
    for (text, expected) in cases {
        let (error, warnings) = outcome(&text);
        assert_eq!(
            (error.is_none(), !warnings.is_empty()),
            expected,
            "{text}\n{error:?}\n{warnings}"
        );
    }
}

#[test]
fn the_last_of_duplicate_keys_wins_and_merged_ones_give_way() {
    let level = |text: &str| parse_spec(text.as_bytes(), "p").unwrap().0.rules[0].level;
    assert_eq!(level(&with_rule("level: Request")), Level::Request);
    assert_eq!(level(&with_rule("<<: {level: None}")), Level::None);
    assert_eq!(level(&with_rule("<<: {level: None}\n  level: Request")), Level::Request);
    let list = "<<: [{level: None}, {level: RequestResponse}]";
    assert_eq!(level(&with_rule(list)), Level::None);
}

#[test]
fn utf_16_with_a_byte_order_mark_is_read() {
    let text = with_rule("users: [jürgen]");
    let units = || "\u{feff}".encode_utf16().chain(text.encode_utf16());
    let little: Vec<u8> = units().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = units().flat_map(u16::to_be_bytes).collect();
    for bytes in [little, big] {
        assert_eq!(parse_spec(&bytes, "p").unwrap().0.rules[0].users, ["jürgen"]);
    }
}

#[test]
fn everything_written_arrives() {
    let (spec, warnings) = parse_spec(
        br#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  nonResourceURLs: [/healthz*, /version]
- level: RequestResponse
  users: [u]
  userGroups: [g]
  verbs: [get, patch]
  namespaces: ["", ns]
  resources:
  - {group: apps, resources: [deployments, "*/scale"], resourceNames: [a]}
  - group: ""
  omitStages: [Panic]
  omitManagedFields: false
"#,
        "p",
    )
    .unwrap();
    assert_eq!(warnings, []);
    assert_eq!(spec.omit_stages, StageSet::default().with(Stage::RequestReceived));
    assert!(spec.omit_managed_fields);
    assert_eq!(spec.rules[0].non_resource_urls, ["/healthz*", "/version"]);
    let rule = &spec.rules[1];
    assert_eq!(rule.level, Level::RequestResponse);
    assert_eq!((&rule.users[0][..], &rule.user_groups[0][..]), ("u", "g"));
    assert_eq!(rule.verbs, ["get", "patch"]);
    assert_eq!(rule.namespaces, ["", "ns"]);
    assert_eq!(rule.resources[0].group, "apps");
    assert_eq!(rule.resources[0].resources, ["deployments", "*/scale"]);
    assert_eq!(rule.resources[0].resource_names, ["a"]);
    assert_eq!(rule.resources[1], crate::policy::GroupResources::default());
    assert_eq!(rule.omit_stages, StageSet::default().with(Stage::Panic));
    assert_eq!(rule.omit_managed_fields, Some(false));
}

#[test]
fn documents_that_unfold_into_something_huge_are_refused_quickly() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let alias = format!("*a{}, ", level - 1).repeat(9);
        text.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
    }
    let (error, _) = outcome(&text);
    assert!(error.unwrap().contains("excessive aliasing"));
    for deep in ["[".repeat(100_000), "{\"a\":".repeat(100_000), "- ".repeat(100_000)] {
        assert!(outcome(&deep).0.is_some());
    }
    let mut chain = String::from("a0: &a0 []\n");
    (1..5000).for_each(|n| chain.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1)));
    assert!(outcome(&chain).0.unwrap().contains("nested too deeply"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_spec(&bytes, "p");
    }

    #[test]
    fn any_yaml_like_text_is_read_without_panic(text in "[-a-f\\[\\]{}:,&*!<|>'\"#%?\n\t 0-9~.]{0,80}") {
        let _ = parse_spec(text.as_bytes(), "p");
        let _ = parse_spec(format!("{{{text}").as_bytes(), "p");
    }

    #[test]
    fn any_damage_to_a_policy_is_read_without_panic(
        at in 0..400usize,
        damage in "[-a-f\\[\\]{}:,&*!<|>'\"#\n\t ]{0,4}",
    ) {
        let mut text = with_rule("users: [a, &b 'c', *b]\n  resources: [{group: '', resources: [x]}]");
        let at = at % text.len();
        text.replace_range(at..(at + damage.len()).min(text.len()), &damage);
        let _ = parse_spec(text.as_bytes(), "p");
    }
}
