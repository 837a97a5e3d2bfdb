//! `policy explain`, `replay`, `suggest`, and `test`, as a user runs them.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value as Json, json};

use crate::support::proxy::BINARY;
use crate::support::{TempDir, corpus};

/// Runs `policy` with this standard input.
fn policy(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("policy").args(arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // The program need not read all of it.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Returns the standard output of a command that succeeds.
fn succeeds(arguments: &[&str], input: &str) -> String {
    let output = policy(arguments, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns exit code and standard error of a command that fails.
fn fails(arguments: &[&str], input: &str) -> (i32, String) {
    let output = policy(arguments, input);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn objects(lines: &str) -> Vec<Json> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Takes the event that kube-apiserver wrote for each request of the corpus under a policy that
/// records everything, and explains it under each policy: the level must be that of
/// kube-apiserver's decision under that policy.
#[test]
fn the_decision_corpus_is_explained_as_kube_apiserver_decided() {
    let recorded: HashMap<String, String> = corpus::exchanges("all-metadata.jsonl")
        .into_iter()
        .filter_map(|exchange| Some((exchange.name, exchange.events.last()?.clone())))
        .collect();
    let mut by_policy = HashMap::<String, Vec<corpus::Verdict>>::new();
    for verdict in corpus::verdicts() {
        by_policy.entry(verdict.policy.clone()).or_default().push(verdict);
    }
    let (mut compared, mut logged) = (0, 0);
    for (name, mut verdicts) in by_policy {
        verdicts.retain(|verdict| recorded.contains_key(&verdict.name));
        let lines: String =
            verdicts.iter().flat_map(|verdict| [&recorded[&verdict.name][..], "\n"]).collect();
        let file = corpus::path("policies").join(&name).display().to_string();
        let explained = succeeds(&["explain", &file, "--event", "-", "-o", "json"], &lines);
        let explained = objects(&explained);
        assert_eq!(explained.len(), verdicts.len(), "{name}");
        for (verdict, explained) in verdicts.iter().zip(&explained) {
            compared += 1;
            let about = format!("{name}: {}: {explained}", verdict.name);
            let omitted = explained["omitStages"].as_array().unwrap();
            for event in &verdict.events {
                logged += 1;
                assert_eq!(event.level, explained["level"], "{about}");
                assert!(!omitted.iter().any(|stage| *stage == event.stage), "{about}");
            }
            // kube-apiserver may lose events, but writes none that it should not write.
            if verdict.events.is_empty() && omitted.is_empty() && verdict.name != "patch bad" {
                assert_eq!(explained["level"], "None", "{about}");
            }
            let is_none = explained["rule"].is_null();
            assert_eq!(explained["position"].is_null(), is_none, "{about}");
            let before = explained["notMatched"].as_array().unwrap().iter();
            let before: Vec<u64> = before.map(|rule| rule["rule"].as_u64().unwrap()).collect();
            let wanted = explained["rule"].as_u64().unwrap_or(before.len() as u64);
            assert_eq!(before, (0..wanted).collect::<Vec<_>>(), "{about}");
        }
    }
    assert!(compared > 2900 && logged > 2500, "{compared} {logged}");
}

const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ['system:kube-proxy']
  verbs: [watch]
  resources: [{group: '', resources: [endpoints, services]}]
- level: None
  nonResourceURLs: ['/healthz*']
- level: RequestResponse
  verbs: [create, update]
  resources: [{group: apps, resources: ['*/scale'], resourceNames: [web]}]
  omitManagedFields: true
- level: Metadata
  userGroups: [dev]
";

#[test]
fn a_request_is_described_by_flags() {
    let dir = TempDir::new();
    let file = dir.write("policy.yaml", POLICY).display().to_string();
    let explain = |flags: &[&str]| {
        let arguments = [&["explain", &file, "-o", "json"], flags].concat();
        objects(&succeeds(&arguments, "")).pop().unwrap()
    };
    let scale =
        ["--user=a", "--verb=update", "--resource=deployments.apps/scale", "-n=p", "--name=web"];
    assert_eq!(
        explain(&scale),
        json!({
            "level": "RequestResponse",
            "rule": 2,
            "position": format!("{file}:11:3"),
            "omitStages": ["RequestReceived"],
            "notMatched": [
                {"rule": 0, "because": "verbs: \"update\" is not \"watch\""},
                {"rule": 1, "because": "nonResourceURLs: the request is for a resource (deployments/scale)"},
            ],
        })
    );
    let none = explain(&["--user=a", "--verb=get", "--resource=pods", "--name=x"]);
    assert_eq!((&none["level"], &none["rule"]), (&json!("None"), &json!(null)));
    assert_eq!(
        none["notMatched"][3]["because"],
        "userGroups: the user is in \"system:authenticated\", and not in \"dev\""
    );
    // Explicit groups replace those that kube-apiserver adds.
    assert_eq!(explain(&["--user=a", "--group=dev", "--resource=pods"])["rule"], 3);
    let url = explain(&["--url=/healthz/etcd"]);
    assert_eq!((&url["level"], &url["rule"]), (&json!("None"), &json!(1)));
    // A URL may also name a resource.
    let list = explain(&["--user=system:kube-proxy", "--url=/api/v1/endpoints?watch=1"]);
    assert_eq!(list["rule"], 0);
    let text = succeeds(&[&["explain", &file], &scale[..]].concat(), "");
    assert_eq!(
        text,
        format!(
            "level:          RequestResponse\nrule:           2 ({file}:11:3)\n\
             omitted stages: RequestReceived\nmanaged fields: omitted\nnot matched:\n  \
             rule 0 (5:3): verbs: \"update\" is not \"watch\"\n  \
             rule 1 (9:3): nonResourceURLs: the request is for a resource (deployments/scale)\n"
        )
    );
}

#[test]
fn events_are_explained_in_order_and_bad_ones_are_named() {
    let dir = TempDir::new();
    let file = dir.write("policy.yaml", POLICY).display().to_string();
    // Written by hand, in a list, and on several lines.
    let hand = r#"{"verb":"get","requestURI":"/healthz","user":{}}"#;
    let list = format!("{{\"kind\":\"EventList\",\"items\":[{hand},{hand}]}}");
    let events = format!("{hand}\nno event\n{{\"verb\":\"get\"}}\n\n{list}\n");
    let arguments = ["explain", &file, "--event", "-", "-o", "json"];
    let output = policy(&arguments, &events);
    assert_eq!(output.status.code(), Some(1));
    let explained = objects(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(explained.len(), 3);
    assert!(explained.iter().all(|object| object["rule"] == 1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr,
        "-:2: not an audit event\n-:3: the event has neither requestURI nor objectRef.resource\n"
    );
    let pretty =
        serde_json::to_string_pretty(&serde_json::from_str::<Json>(hand).unwrap()).unwrap();
    assert_eq!(objects(&succeeds(&arguments, &pretty)).len(), 1);
    assert_eq!(objects(&succeeds(&arguments, &format!("{pretty}\n{pretty}\n"))).len(), 2);
    assert_eq!(succeeds(&arguments, ""), "");
}

#[test]
fn a_name_from_the_body_does_not_count() {
    let dir = TempDir::new();
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Request\n  resources: \
                [{group: '', resources: [pods, namespaces], resourceNames: [a]}]\n- level: Metadata\n  \
                namespaces: [m]\n";
    let file = dir.write("policy.yaml", text).display().to_string();
    let event = |uri: &str, resource: &str| {
        json!({
            "verb": "create", "requestURI": uri, "user": {"username": "u"},
            "objectRef": {"resource": resource, "namespace": "m", "name": "a", "apiVersion": "v1"},
        })
    };
    let events = [
        event("/api/v1/namespaces/m/pods", "pods"),
        event("/api/v1/namespaces", "namespaces"),
        event("/api/v1/namespaces/m/pods/a/binding", "pods"),
    ];
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    let explained = objects(&succeeds(&["explain", &file, "--event=-", "-o=json"], &lines));
    let rules: Vec<&Json> = explained.iter().map(|object| &object["rule"]).collect();
    // With a subresource, the resource in the rule is different.
    assert_eq!(rules, [&json!(1), &json!(null), &json!(1)]);
}

#[test]
fn wrong_input_is_named_with_its_remedy() {
    let dir = TempDir::new();
    let file = dir.write("policy.yaml", POLICY).display().to_string();
    let bad = dir
        .write("bad.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Nope}]\n");
    let bad = bad.display().to_string();
    let (code, stderr) = fails(&["explain", &bad, "--url=/"], "");
    assert_eq!(code, 2);
    assert!(stderr.contains("bad.yaml:3:17: rules[0].level: Unsupported value"), "{stderr}");
    for (flags, expected) in [
        (&["explain", &file][..], "use --resource or --url, or --event: the request has neither"),
        (&["explain", &file, "--resource=.apps"], "resource \".apps\": write it like pods"),
        (&["explain", &file, "--url=healthz"], "url \"healthz\": not the path of a URL"),
        (&["explain", &file, "--url=/a", "--name=x"], "either a url or a resource"),
        (&["explain", &file, "--event=/nowhere/events"], "/nowhere/events: No such file"),
        (&["explain", &file, "--event=-", "--user=x"], "cannot be used with"),
        (&["replay", &file, "/nowhere/audit.log"], "/nowhere/audit.log: no such file"),
        (&["replay", "/nowhere/policy.yaml", "-"], "/nowhere/policy.yaml"),
        (&["suggest", "/nowhere/audit.log"], "no such file"),
        (&["suggest", "-", "--min-share=101"], "a percentage is between 0 and 100"),
        (&["suggest", "-"], "the log has no events"),
        (&["test", "/nowhere/tests.yaml"], "/nowhere/tests.yaml: No such file"),
    ] {
        let (code, stderr) = fails(flags, "");
        assert_eq!(code, 2, "{flags:?}: {stderr}");
        assert!(stderr.contains(expected), "{flags:?}: {stderr}");
    }
}

/// Returns all recorded events under a policy that records everything.
fn recorded_log(dir: &TempDir) -> String {
    let events = corpus::exchanges("all-requestresponse.jsonl").into_iter();
    let lines: String =
        events.flat_map(|exchange| exchange.events).map(|line| line + "\n").collect();
    dir.write("audit.log", &lines).display().to_string()
}

#[test]
fn replay_counts_what_explain_decides() {
    let dir = TempDir::new();
    let log = recorded_log(&dir);
    let file = corpus::path("policies").join("mixed.yaml").display().to_string();
    let replayed: Json =
        serde_json::from_str(&succeeds(&["replay", &file, &log, "-o=json"], "")).unwrap();
    // The last event of each request, as the log has no request twice.
    let mut last = HashMap::new();
    for line in std::fs::read_to_string(&log).unwrap().lines() {
        let event: Json = serde_json::from_str(line).unwrap();
        let key = (event["auditID"].to_string(), event["requestReceivedTimestamp"].to_string());
        last.insert(key, line.to_owned());
    }
    let lines: String = last.values().flat_map(|line| [&line[..], "\n"]).collect();
    let mut counts = HashMap::<Json, u64>::new();
    for explained in objects(&succeeds(&["explain", &file, "--event=-", "-o=json"], &lines)) {
        *counts.entry(explained["rule"].clone()).or_default() += 1;
    }
    assert_eq!(replayed["requests"], last.len());
    let rules = replayed["rules"].as_array().unwrap();
    for rule in rules {
        let wanted = counts.get(&rule["rule"]).copied().unwrap_or_default();
        assert_eq!(rule["requests"], wanted, "{rule}");
        assert!(rule["position"].as_str().unwrap().contains("mixed.yaml:"), "{rule}");
    }
    assert_eq!(
        replayed["unmatched"]["requests"],
        counts.get(&Json::Null).copied().unwrap_or_default()
    );
    assert!(rules.iter().filter(|rule| rule["requests"] != 0).count() > 2);
}

#[test]
fn replay_shows_what_a_change_loses_and_which_rules_are_useless() {
    let dir = TempDir::new();
    let log = recorded_log(&dir);
    let header = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n";
    let old = dir.write("old.yaml", &format!("{header}- level: Metadata\n"));
    let new = format!(
        "{header}- level: None\n  resources: [{{group: '', resources: [secrets, pods]}}]\n- level: None\n  \
         users: [nobody]\n- level: Metadata\n- level: Request\n  verbs: [get]\n"
    );
    let new = dir.write("new.yaml", &new);
    let [old, new] = [old, new].map(|path| path.display().to_string());
    let arguments = ["replay", &new, "--against", &old, &log];
    let replayed: Json =
        serde_json::from_str(&succeeds(&[&arguments[..], &["-o=json"]].concat(), "")).unwrap();
    let changes = replayed["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(
        (&changes[0]["change"], changes[0]["samples"].as_array().unwrap().len()),
        (&json!("lost"), 3)
    );
    assert!(changes[0]["bytesPerDay"].as_f64().unwrap() < 0.0, "{changes:?}");
    assert_eq!(replayed["rules"][3]["unreachable"], json!([2]));
    assert!(replayed["rules"][1].get("unreachable").is_none());
    let text = succeeds(&arguments, "");
    for expected in [
        format!("lost: Metadata ({old}:4:3) -> None ({new}:4:3)"),
        format!("Rules that can never match:\n  rule 3 ({new}:9:3): rule 2 before it matches all"),
        format!("Rules that match no request in the log:\n  rule 1 ({new}:6:3)"),
    ] {
        assert!(text.contains(&expected), "{expected}\n{text}");
    }
    assert_eq!(text.matches("  e.g. ").count(), 3, "{text}");
    let same = succeeds(&["replay", &old, "--against", &old, &log], "");
    assert!(
        same.contains("Both policies record all requests in the log in the same way"),
        "{same}"
    );
}

#[test]
fn a_suggestion_is_a_policy() {
    let dir = TempDir::new();
    let log = recorded_log(&dir);
    let suggested = succeeds(&["suggest", &log, "--min-share=0.1"], "");
    let file = dir.write("suggested.yaml", &suggested).display().to_string();
    let checked = succeeds(&["check", &file], "");
    assert!(checked.contains("suggested.yaml: ok"), "{checked}\n{suggested}");
}

const TESTS: &str = "\
apiVersion: audit.kube-audit-proxy.io/v1alpha1
kind: PolicyTest
policy: policy.yaml
cases:
- name: health checks are not recorded
  request: {url: /healthz}
  expect: {level: None, rule: 1}
- name: scaling <web> is recorded
  request: {user: a, verb: update, resource: deployments.apps/scale, namespace: p, name: web}
  expect: {level: RequestResponse, omitStages: [RequestReceived], omitManagedFields: true}
";

#[test]
fn tests_of_a_policy_fail_with_a_diff() {
    let dir = TempDir::new();
    dir.write("policy.yaml", POLICY);
    let tests = dir.write("tests.yaml", TESTS).display().to_string();
    assert_eq!(succeeds(&["test", &tests], ""), "2 passed, 0 failed\n");
    let changed = POLICY.replace("level: RequestResponse", "level: Request");
    let changed = dir.write("changed.yaml", &changed).display().to_string();
    let junit = dir.path("junit.xml").display().to_string();
    let output = policy(&["test", &tests, "--policy", &changed, "--junit", &junit], "");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = format!(
        "FAIL {tests}:8:3: scaling <web> is recorded\n  - level: RequestResponse\n  + level: Request\n  \
         rule 2 ({changed}:11:3) matches\n  rule 0 does not: verbs: \"update\" is not \"watch\"\n"
    );
    assert!(text.starts_with(&expected) && text.ends_with("1 passed, 1 failed\n"), "{text}");
    let xml = std::fs::read_to_string(junit).unwrap();
    assert!(xml.contains("tests=\"2\" failures=\"1\""), "{xml}");
    assert!(
        xml.contains("name=\"scaling &lt;web&gt; is recorded\">\n      <failure message="),
        "{xml}"
    );
    for (from, to, expected) in [
        (
            "level: None, rule",
            "level: Nine, rule",
            "tests.yaml:5:3: expect.level \"Nine\": accepted are None",
        ),
        ("{url: /healthz}", "{user: x}", "tests.yaml:5:3: request: the request has neither"),
        ("kind: PolicyTest", "kind: Policy", "tests.yaml:2:7: kind \"Policy\": write"),
        ("rule: 1", "rules: 1", "tests.yaml:7:25: unknown field `rules`"),
        ("scaling <web> is", "health checks are not", "another case has it"),
        ("policy: policy.yaml", "policy: other.yaml", "other.yaml"),
    ] {
        let tests = dir.write("tests.yaml", &TESTS.replace(from, to)).display().to_string();
        let (code, stderr) = fails(&["test", &tests], "");
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn the_policies_in_config_are_valid() {
    for name in ["policy-minimal.yaml", "policy-recommended.yaml", "policy-extension.yaml"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
        let output = policy(&["check", &file.display().to_string()], "");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.is_empty(), "{name}: {stderr}");
    }
}

#[test]
fn the_recommended_policy_passes_its_tests() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/policy-recommended-test.yaml");
    let output = policy(&["test", &tests.display().to_string()], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
