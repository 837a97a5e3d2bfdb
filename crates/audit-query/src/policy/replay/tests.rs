use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use super::*;
use k8s_audit::policy::parse;

fn policy(name: &str) -> Policy {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/policies").join(name);
    parse(&std::fs::read(path).unwrap(), name).unwrap().policy
}

/// The last event of each recorded request that has a final one.
fn recorded() -> Vec<String> {
    let mut last = Vec::new();
    for file in ["all-requestresponse.jsonl", "mixed.jsonl", "all-metadata.jsonl"] {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/exchanges").join(file);
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let exchange: Json = serde_json::from_str(line).unwrap();
            let event = exchange["events"].as_array().unwrap().last();
            last.extend(event.and_then(Json::as_str).map(str::to_owned));
        }
    }
    last
}

fn tally(policies: Policies, lines: &[String]) -> Tally {
    let policies = Arc::new(policies);
    // Two threads.
    let mut tallies = [Tally::new(policies.clone()), Tally::new(policies)];
    for (index, line) in lines.iter().enumerate() {
        let event = Event::parse(line.as_bytes()).unwrap();
        let place = Place { path: Path::new("audit.log"), offset: index as u64 };
        tallies[index % 2].count(&event, place);
    }
    let [mut one, other] = tallies;
    one.add(other);
    one
}

#[test]
fn counts_and_bytes_are_those_of_a_recount() {
    let lines = recorded();
    let all = policy("all-requestresponse.yaml");
    let tally_all = tally(Policies { policy: all, against: None }, &lines);
    assert_eq!(tally_all.requests, lines.len() as u64);
    for name in ["mixed.yaml", "d01-users-groups.yaml", "d05-names.yaml"] {
        let compiled = policy(name);
        let mut expected = BTreeMap::<Option<u32>, u64>::new();
        for line in &lines {
            let event = Event::parse(line.as_bytes()).unwrap();
            let rule = compiled.decide(&EventRequest::new(&event).unwrap()).rule;
            *expected.entry(rule).or_default() += 1;
        }
        let counted = tally(Policies { policy: compiled, against: None }, &lines);
        for (rule, tally) in counted.rules.iter().enumerate() {
            let wanted = expected.get(&Some(rule as u32)).copied().unwrap_or_default();
            assert_eq!(tally.requests, wanted, "{name} {rule}");
            let users: u64 = tally.users.highest(usize::MAX).iter().map(|(_, count)| count).sum();
            assert_eq!(users, wanted, "{name} {rule}");
        }
        assert_eq!(counted.unmatched.requests, expected.get(&None).copied().unwrap_or_default());
    }
}

/// A log recorded under a policy has the volume that is computed for the same policy.
#[test]
fn the_volume_of_a_log_under_its_own_policy_is_its_size() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/corpus/exchanges/all-metadata.jsonl");
    let (mut lines, mut bytes) = (Vec::new(), 0);
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let exchange: Json = serde_json::from_str(line).unwrap();
        let event = exchange["events"].as_array().unwrap().last().and_then(Json::as_str);
        // One event per request, so that nothing is estimated.
        if let Some(event) = event.filter(|event| event.contains("\"stage\":\"ResponseComplete\""))
        {
            bytes += event.len() as u64 + 1;
            lines.push(event.to_owned());
        }
    }
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\n\
                rules: [{level: Metadata}]\n";
    let policy = parse(text.as_bytes(), "p").unwrap().policy;
    let counted = tally(Policies { policy, against: None }, &lines);
    let rule = &counted.rules[0];
    assert_eq!(
        (rule.volume.events, rule.volume.bytes(&counted.bodies)),
        (lines.len() as u64, bytes)
    );
    assert!(!rule.volume.is_estimate());
}

#[test]
fn bodies_that_are_not_in_the_log_are_estimated() {
    let event = |verb: &str, level: &str, bodies: &str| {
        format!(
            "{{\"level\":\"{level}\",\"auditID\":\"a\",\"stage\":\"ResponseComplete\",\"verb\":\"{verb}\",\
             \"requestURI\":\"/api/v1/namespaces/a/pods/b\",\"user\":{{\"username\":\"u\"}},\
             \"objectRef\":{{\"resource\":\"pods\",\"namespace\":\"a\",\"name\":\"b\"}},\
             \"responseStatus\":{{\"code\":200}}{bodies}}}"
        )
    };
    let policy = || {
        let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n\
                    rules: [{level: RequestResponse}]\n";
        parse(text.as_bytes(), "p").unwrap().policy
    };
    let metadata = event("update", "Metadata", "");
    let size = |lines: &[String]| {
        let counted = tally(Policies { policy: policy(), against: None }, lines);
        let volume = &counted.rules[0].volume;
        (volume.bytes(&counted.bodies), volume.is_estimate())
    };
    let base = metadata.len() as u64 + 1 + ("RequestResponse".len() - "Metadata".len()) as u64;
    let members = (",\"requestObject\":".len() + ",\"responseObject\":".len()) as u64;
    let guess = base + members + volume::REQUEST_BODY + volume::RESPONSE_BODY;
    assert_eq!(size(std::slice::from_ref(&metadata)), (guess, true));
    // The estimate is the size of the bodies of a similar request in the log.
    let known =
        event("update", "RequestResponse", ",\"requestObject\":{},\"responseObject\":{\"a\":1}");
    let exact = known.len() as u64 + 1;
    assert_eq!(size(std::slice::from_ref(&known)), (exact, false));
    assert_eq!(size(&[metadata, known]), (exact + base + members + 2 + 7, true));
    // There is no body to estimate.
    assert!(!size(&[event("watch", "Metadata", "")]).1);
}

#[test]
fn changes_are_grouped_by_the_rules_of_both_policies() {
    let text = |rules: &str| {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{rules}]\n");
        parse(text.as_bytes(), "p").unwrap().policy
    };
    let lines = recorded();
    let before = text("{level: None, nonResourceURLs: ['*']}, {level: Metadata}");
    let after = text("{level: None, verbs: [get]}, {level: Metadata}");
    let mut expected = BTreeMap::<(Option<u32>, Option<u32>), u64>::new();
    for line in &lines {
        let event = Event::parse(line.as_bytes()).unwrap();
        let request = EventRequest::new(&event).unwrap();
        let (before, after) = (before.decide(&request), after.decide(&request));
        if before.level != after.level {
            *expected.entry((before.rule, after.rule)).or_default() += 1;
        }
    }
    let counted = tally(Policies { policy: after, against: Some(before) }, &lines);
    let changes = counted.changes.into_sorted();
    let found = changes.iter().map(|c| ((c.before.rule, c.after.rule), c.requests)).collect();
    assert_eq!(expected, found);
    assert!(expected.len() >= 2, "{expected:?}");
    for change in &changes {
        assert_eq!(change.samples.len(), 3.min(change.requests as usize));
        assert!(change.volume_before.events > 0 || change.volume_after.events > 0);
    }
}
