use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::policy::arbitrary::{any_request, any_rule};
use crate::policy::{PolicyRule, parse};

fn reach_of_rules(rules: &[&str]) -> Vec<String> {
    let rules: String = rules.iter().map(|rule| format!("- {{{rule}}}\n")).collect();
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}");
    let loaded = parse(text.as_bytes(), "test").unwrap();
    let described = reach(&loaded.spec, &loaded.policy).into_iter().map(|reach| match reach {
        Reach::By(witness) => witness.to_string(),
        Reach::Never { covered_by } => format!("{covered_by:?}"),
        Reach::Unknown => "unknown".to_owned(),
    });
    described.collect()
}

/// Returns the rules that are proved to cover the last one, if it is unreachable.
fn covered(rules: &[&str]) -> Option<String> {
    reach_of_rules(rules).pop().filter(|text| text.starts_with('['))
}

#[test]
fn an_earlier_rule_covers_a_later_one() {
    let all = "level: None";
    assert_eq!(reach_of_rules(&[all, "level: Metadata, users: [a]"])[1], "[0]");
    let nodes = "level: None, userGroups: ['system:nodes'], verbs: [get, list]";
    let node_gets = "level: Metadata, users: [m], userGroups: ['system:nodes'], verbs: [get]";
    assert_eq!(covered(&[nodes, node_gets]).unwrap(), "[0]");
    // The user may be in another group.
    assert_eq!(covered(&[nodes, "level: Metadata, users: [m], verbs: [get]"]), None);
    let pods = "level: None, resources: [{group: '', resources: ['pods/*']}]";
    let log =
        "level: Request, namespaces: [a], resources: [{group: '', resources: [pods/log, pods]}]";
    assert_eq!(covered(&[pods, log]).unwrap(), "[0]");
    assert_eq!(covered(&["level: None, resources: [{group: '', resources: [pods]}]", log]), None);
    let health = "level: None, nonResourceURLs: ['/healthz*']";
    assert_eq!(
        covered(&[health, "level: Request, nonResourceURLs: [/healthz/etcd]"]).unwrap(),
        "[0]"
    );
    assert_eq!(covered(&[health, "level: Request, nonResourceURLs: ['/health*']"]), None);
    assert_eq!(
        covered(&[
            "level: None, namespaces: [a]",
            "level: Metadata, verbs: [get], namespaces: [a]"
        ])
        .unwrap(),
        "[0]"
    );
    assert_eq!(
        covered(&[
            "level: None, nonResourceURLs: ['/a*', '/e*']",
            "level: Metadata, nonResourceURLs: ['*']"
        ]),
        None
    );
    // Resource requests are still matched by the second rule.
    assert_eq!(covered(&["level: None, nonResourceURLs: ['*']", "level: Metadata"]), None);
    assert_eq!(covered(&["level: None, resources: [{group: '*'}]", "level: Metadata"]), None);
}

#[test]
fn earlier_rules_cover_a_later_one_together() {
    let both = ["level: None, nonResourceURLs: ['*']", "level: Request, resources: [{group: '*'}]"];
    let superfluous = "level: None, users: [a]";
    assert_eq!(covered(&[both[0], superfluous, both[1], "level: Metadata"]).unwrap(), "[0, 2]");
    let verbs = ["level: None, verbs: [get, list]", "level: None, verbs: [watch]"];
    assert_eq!(
        covered(&[verbs[0], verbs[1], "level: Metadata, verbs: [list, watch]"]).unwrap(),
        "[0, 1]"
    );
    assert_eq!(covered(&[verbs[0], verbs[1], "level: Metadata, verbs: [list, create]"]), None);
    let split = [
        "level: None, users: [a], resources: [{group: '', resources: [pods]}]",
        "level: None, users: [a], nonResourceURLs: ['*']",
        "level: None, resources: [{group: '', resources: ['*']}]",
        "level: None, userGroups: [g]",
    ];
    let last =
        "level: Metadata, users: [a], resources: [{group: '', resources: [pods, secrets/x]}]";
    assert_eq!(covered(&[split[0], split[1], split[2], split[3], last]).unwrap(), "[2]");
}

#[test]
fn conditions_that_no_request_meets_need_no_earlier_rule() {
    for never in [
        "resources: [{group: '', resources: ['pods/', a/b/c]}]",
        "verbs: [frobnicate], resources: [{group: ''}]",
        "verbs: [deletecollection], resources: [{group: '', resources: [pods], resourceNames: [a]}]",
        "verbs: [GET]",
        "nonResourceURLs: [/api/v1/pods]",
        "resources: [{group: '', resources: [pods], resourceNames: [a/b]}]",
    ] {
        assert_eq!(
            covered(&[&format!("level: Metadata, {never}")]).as_deref(),
            Some("[]"),
            "{never}"
        );
    }
}

#[test]
fn witnesses_are_methods_and_urls() {
    let witnesses = reach_of_rules(&[
        "level: None, users: ['system:kube-proxy'], verbs: [watch], resources: [{group: '', resources: [endpoints]}]",
        "level: Metadata, resources: [{group: '', resources: [secrets], resourceNames: [root]}], verbs: [list]",
        "level: Request, verbs: [get], resources: [{group: apps, resources: [deployments/scale]}], namespaces: [prod]",
        "level: None, nonResourceURLs: ['/healthz*', /version]",
        "level: Metadata",
    ]);
    assert_eq!(
        witnesses,
        [
            "GET /api/v1/namespaces/elsewhere/endpoints?watch=true&fieldSelector=metadata.name%3Dsomething by \"system:kube-proxy\"",
            "GET /api/v1/namespaces/elsewhere/secrets?fieldSelector=metadata.name%3Droot by \"someone\"",
            "GET /apis/apps/v1/namespaces/prod/deployments/something/scale by \"someone\"",
            "HEAD /healthza by \"someone\"",
            "GET /apis/example.com/v1/namespaces/elsewhere/things//part?fieldSelector=metadata.name%3Dsomething by \"someone\"",
        ]
    );
}

/// Returns a rule with few conditions, so that rules often cover others.
fn plain_rule() -> impl Strategy<Value = PolicyRule> {
    any_rule().prop_map(|rule| {
        let PolicyRule { level, verbs, namespaces, .. } = rule;
        PolicyRule { verbs, namespaces, ..PolicyRule::new(level) }
    })
}

/// Sends 1,000 requests to each of 120 policies built from a few words, so that many rules are
/// covered.
#[test]
fn no_request_reaches_an_unreachable_rule_and_each_other_one_has_a_witness() {
    let mut runner = TestRunner::deterministic();
    let requests = vec(any_request(), 1000).new_tree(&mut runner).unwrap().current();
    let (mut never, mut by_several, mut reached) = (0, 0, 0);
    for number in 0..120 {
        let rules = match number % 3 {
            0 => vec(any_rule(), 1..7).new_tree(&mut runner).unwrap().current(),
            _ => vec(plain_rule(), 1..9).new_tree(&mut runner).unwrap().current(),
        };
        let spec = PolicySpec { rules, ..PolicySpec::default() };
        let policy = Policy::new(&spec);
        let reaches = reach(&spec, &policy);
        for (rule, reach) in reaches.iter().enumerate() {
            match reach {
                Reach::By(witness) => {
                    reached += 1;
                    let decision = policy.evaluate(Some(&witness.user), &witness.info());
                    assert_eq!(decision.rule, Some(rule as u32), "{witness}: {spec:?}");
                }
                Reach::Never { covered_by } => {
                    never += 1;
                    by_several += usize::from(covered_by.len() > 1);
                    assert!(covered_by.iter().all(|earlier| *earlier < rule));
                }
                Reach::Unknown => panic!("rule {rule} of {spec:?}"),
            }
        }
        for (user, info) in &requests {
            if let Some(rule) = policy.evaluate(user.as_ref(), info).rule {
                let reach = &reaches[rule as usize];
                let is_reached = matches!(reach, Reach::By(_));
                assert!(is_reached, "{user:?} {info:?} reaches {rule}: {spec:?}");
            }
        }
    }
    assert!(never > 50 && by_several > 3 && reached > 150, "{never} {by_several} {reached}");
}
