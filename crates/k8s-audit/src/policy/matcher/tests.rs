use std::collections::HashMap;

use http::Method;
use http::uri::PathAndQuery;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::policy::arbitrary::any_rule;
use crate::policy::{Stage, StageSet, parse_spec};

fn info(method: &str, uri: &str) -> RequestInfo {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    RequestInfo::new(&method, &uri.parse::<PathAndQuery>().unwrap()).unwrap()
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        username: name.into(),
        groups: groups.iter().map(|g| (*g).into()).collect(),
        ..UserInfo::default()
    }
}

fn spec(members: &str, rules: &[&str]) -> PolicySpec {
    let rules: String = rules.iter().map(|rule| format!("- {{{rule}}}\n")).collect();
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{members}\nrules:\n{rules}");
    parse_spec(text.as_bytes(), "test").unwrap().0
}

const RULES: [(&str, &str); 15] = [
    ("default", "level: Metadata"),
    ("create", "level: Request, verbs: [create]"),
    ("tims", "level: Metadata, users: [tim@k8s.io]"),
    ("humans", "level: Metadata, userGroups: [humans]"),
    ("sas", "level: Request, userGroups: ['system:serviceaccounts']"),
    ("getPods", "level: RequestResponse, verbs: [get], resources: [{resources: [pods]}]"),
    ("getPodLogs", "level: Request, verbs: [get], resources: [{resources: [pods/log]}]"),
    ("wild", "level: Request, verbs: [get], resources: [{resources: ['*']}]"),
    ("wildSub", "level: Request, verbs: [get], resources: [{resources: ['*/log']}]"),
    ("subWild", "level: Request, verbs: [get], resources: [{resources: ['pods/*']}]"),
    (
        "getCR",
        "level: RequestResponse, verbs: [get], namespaces: [''], \
         resources: [{group: rbac.authorization.k8s.io, resources: [clusterroles]}]",
    ),
    (
        "grpWild",
        "level: RequestResponse, verbs: [update], resources: [{group: '*', resources: ['*/status']}]",
    ),
    ("getLogs", "level: RequestResponse, verbs: [get], nonResourceURLs: ['/logs*']"),
    ("getMetrics", "level: Request, verbs: [get], nonResourceURLs: [/metrics]"),
    (
        "crEdit",
        "level: Request, resources: [{group: rbac.authorization.k8s.io, \
         resources: [clusterroles], resourceNames: [edit]}]",
    ),
];

#[test]
fn the_first_rule_that_matches_decides() {
    let ns = info("GET", "/api/v1/namespaces/default/pods/busybox");
    let cl = info("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/edit");
    let nr = info("GET", "/logs/kubelet.log");
    let sub = info("GET", "/api/v1/namespaces/default/pods/busybox/log");
    let cru = info("PUT", "/apis/rbac.authorization.k8s.io/v1/clusterroles/somerole/status");
    let tim = user("tim@k8s.io", &["humans", "developers"]);
    let requests: HashMap<&str, (Option<&UserInfo>, &RequestInfo)> = HashMap::from([
        ("ns", (Some(&tim), &ns)),
        ("cl", (Some(&tim), &cl)),
        ("nr", (Some(&tim), &nr)),
        ("sub", (Some(&tim), &sub)),
        ("cru", (Some(&tim), &cru)),
        ("un", (None, &ns)),
    ]);
    use Level::{Metadata as M, None as N, Request as R, RequestResponse as RR};
    let three = |rules, [ns, cl, nr]: [Level; 3]| {
        vec![(rules, "ns", ns), (rules, "cl", cl), (rules, "nr", nr)]
    };
    let cases = [
        three("default", [M, M, M]),
        three("create", [N, N, N]),
        three("tims", [M, M, M]),
        three("humans", [M, M, M]),
        three("sas", [N, N, N]),
        three("getPods", [RR, N, N]),
        three("getCR", [N, RR, N]),
        three("getLogs", [N, N, RR]),
        three("getMetrics", [N, N, N]),
        three("getMetrics sas default", [M, M, M]),
        three("getPodLogs getPods", [RR, N, N]),
        vec![
            ("getMetrics getPods default", "ns", RR),
            ("getMetrics getCR default", "cl", RR),
            ("getLogs getCR default", "nr", RR),
            ("crEdit getCR", "cl", R),
            ("getPodLogs getPods", "sub", R),
            ("wild", "sub", R),
            ("wildSub", "sub", R),
            ("subWild", "sub", R),
            ("tims", "un", N),
            ("humans", "un", N),
            ("tims default", "un", M),
            ("humans default", "un", M),
            ("grpWild", "cru", RR),
        ],
    ];
    let both = StageSet::default().with(Stage::RequestReceived).with(Stage::ResponseStarted);
    let rules: HashMap<&str, &str> = HashMap::from(RULES);
    for (names, request, level) in cases.into_iter().flatten() {
        let chosen: Vec<&str> = names.split(' ').map(|name| rules[name]).collect();
        for (members, stages) in
            [("", StageSet::default()), ("omitStages: [RequestReceived, ResponseStarted]", both)]
        {
            let (user, info) = requests[request];
            let decision = Policy::new(&spec(members, &chosen)).evaluate(user, info);
            assert_eq!(decision.level, level, "{names}: {request}");
            assert_eq!(decision.omit_stages, stages, "{names}: {request}");
        }
    }
}

#[test]
fn stages_are_omitted_by_the_policy_and_the_rule_together() {
    let info = info("GET", "/api/v1/namespaces/default/pods/busybox");
    let omitted = |members: &str, rule: &str| -> Vec<&str> {
        let policy = Policy::new(&spec(members, &[rule, "level: Metadata"]));
        let set = policy.evaluate(None, &info).omit_stages;
        Stage::ALL.into_iter().filter(|s| set.contains(*s)).map(Stage::as_str).collect()
    };
    let received = "level: Request, omitStages: [RequestReceived, RequestReceived]";
    let only_panic =
        "level: Request, omitStages: [RequestReceived, ResponseStarted, ResponseComplete]";
    let wide = "omitStages: [RequestReceived, ResponseStarted]";
    let three = ["RequestReceived", "ResponseStarted", "ResponseComplete"];
    assert_eq!(omitted("", "level: Request"), [""; 0]);
    assert_eq!(omitted("", received), three[..1]);
    assert_eq!(omitted("", only_panic), three);
    assert_eq!(omitted(wide, received), three[..2]);
    assert_eq!(omitted(wide, only_panic), three);
    assert_eq!(omitted(wide, "level: Metadata"), three[..2]);
}

#[test]
fn the_rule_overrides_whether_managed_fields_are_omitted() {
    let info = info("GET", "/version");
    for (wide, rule, expected) in [
        ("false", "", false),
        ("true", "", true),
        ("true", ", omitManagedFields: false", false),
        ("false", ", omitManagedFields: true", true),
        ("true", ", omitManagedFields: null", true),
    ] {
        let members = format!("omitManagedFields: {wide}");
        let policy = Policy::new(&spec(&members, &[&format!("level: Metadata{rule}")]));
        assert_eq!(policy.evaluate(None, &info).omit_managed_fields, expected, "{wide} {rule}");
        let unmatched = spec(&members, &["level: Metadata, verbs: [never]"]);
        let decision = Policy::new(&unmatched).evaluate(None, &info);
        assert_eq!((decision.level, decision.omit_managed_fields), (Level::None, wide == "true"));
    }
}

#[test]
fn corner_cases_match_as_in_kube_apiserver() {
    let pods = "/api/v1/namespaces/ns/pods";
    let cases = [
        ("resources: [{resources: ['pods/*']}]", "GET", "/api/v1/namespaces/ns/pods/x", true),
        ("resources: [{resources: ['pods']}]", "GET", "/api/v1/namespaces/ns/pods/x/log", false),
        ("resources: [{resources: ['pods/']}]", "GET", "/api/v1/namespaces/ns/pods/x", false),
        ("resources: [{resources: ['*/*']}]", "GET", "/api/v1/namespaces/ns/pods/x/log", false),
        ("resources: [{resources: ['*/*']}]", "GET", "/api/v1/namespaces/ns/pods/x", false),
        (
            "resources: [{resources: ['*'], resourceNames: [a]}]",
            "GET",
            "/api/v1/namespaces/ns/pods/a/log",
            true,
        ),
        ("resources: [{resources: ['*'], resourceNames: [a]}]", "POST", pods, false),
        (
            "resources: [{resources: [pods], resourceNames: [a]}]",
            "GET",
            "/api/v1/pods?fieldSelector=metadata.name=a",
            true,
        ),
        ("verbs: ['*']", "GET", pods, false),
        ("verbs: ['']", "OPTIONS", pods, true),
        ("verbs: [get]", "HEAD", "/api/v1/namespaces/ns/pods/x", true),
        ("verbs: [head]", "HEAD", "/healthz", true),
        ("namespaces: ['']", "GET", "/api/v1/pods", true),
        ("namespaces: ['']", "GET", "/healthz", false),
        ("namespaces: [foo]", "GET", "/api/v1/namespaces/foo", true),
        ("resources: [{group: ''}]", "GET", "/apis/apps/v1/deployments", false),
        ("resources: [{group: apps}]", "GET", "/apis/apps/v1/deployments", true),
        ("resources: [{group: '*'}]", "GET", "/apis/apps/v1/deployments/a/scale", true),
        ("nonResourceURLs: ['/apis*']", "GET", "/apis/apps/v1/deployments", false),
        ("nonResourceURLs: ['/apis*']", "GET", "/apis/apps/v1", true),
        ("nonResourceURLs: ['/healthz*']", "GET", "/healthzfoo", true),
        ("nonResourceURLs: ['/healthz']", "GET", "/healthz/", false),
        ("nonResourceURLs: ['/healthz']", "GET", "/health%7A?verbose", true),
        ("nonResourceURLs: ['*']", "GET", "/anything", true),
    ];
    for (members, method, uri, expected) in cases {
        let policy = Policy::new(&spec("", &[&format!("level: Metadata, {members}")]));
        let level = policy.evaluate(None, &info(method, uri)).level;
        assert_eq!(level == Level::Metadata, expected, "{members}: {method} {uri}");
    }
}

/// Evaluates a policy as its documentation describes it, without any compilation.
fn naive(policy: &PolicySpec, user: Option<&UserInfo>, info: &RequestInfo) -> Decision {
    let has = |list: &[String], text: &[u8]| list.iter().any(|l| l.as_bytes() == text);
    let matches = |rule: &PolicyRule| {
        if !rule.users.is_empty() && !user.is_some_and(|u| rule.users.contains(&u.username)) {
            return false;
        }
        let in_group = |u: &UserInfo| u.groups.iter().any(|g| rule.user_groups.contains(g));
        if !rule.user_groups.is_empty() && !user.is_some_and(in_group) {
            return false;
        }
        if !rule.verbs.is_empty() && !has(&rule.verbs, info.verb().as_bytes()) {
            return false;
        }
        if !rule.namespaces.is_empty() || !rule.resources.is_empty() {
            return info.is_resource()
                && (rule.namespaces.is_empty() || has(&rule.namespaces, info.namespace()))
                && (rule.resources.is_empty()
                    || rule.resources.iter().any(|entry| naive_resource(entry, info)));
        }
        if !rule.non_resource_urls.is_empty() {
            return !info.is_resource()
                && rule.non_resource_urls.iter().any(|pattern| {
                    pattern == "*"
                        || pattern.as_bytes() == info.path()
                        || (pattern.ends_with('*')
                            && info.path().starts_with(pattern.trim_end_matches('*').as_bytes()))
                });
        }
        true
    };
    let index = policy.rules.iter().position(matches);
    let rule = index.map(|index| &policy.rules[index]);
    Decision {
        rule: index.map(|index| index as u32),
        level: rule.map_or(Level::None, |rule| rule.level),
        omit_stages: rule
            .map_or(policy.omit_stages, |rule| rule.omit_stages.union(policy.omit_stages)),
        omit_managed_fields: rule
            .and_then(|rule| rule.omit_managed_fields)
            .unwrap_or(policy.omit_managed_fields),
    }
}

fn naive_resource(entry: &GroupResources, info: &RequestInfo) -> bool {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (resource, subresource) = (text(info.resource()), text(info.subresource()));
    let combined =
        if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
    if entry.group != "*" && entry.group.as_bytes() != info.group() {
        return false;
    }
    entry.resources.is_empty()
        || (entry.resource_names.is_empty() || entry.resource_names.contains(&text(info.name())))
            && entry.resources.iter().any(|pattern| {
                pattern == "*"
                    || *pattern == combined
                    || (!subresource.is_empty()
                        && pattern.strip_prefix("*/") == Some(&subresource[..]))
                    || pattern.strip_suffix("/*") == Some(&resource[..])
            })
}

proptest! {
    #[test]
    fn the_compiled_policy_decides_as_a_plain_one(
        rules in vec(any_rule(), 0..150),
        requests in vec((
            proptest::sample::select(&["GET", "POST", "HEAD", "OPTIONS"][..]),
            "(/api/v1|/apis/apps/v1|/apis|/a)?(/namespaces/(n|a))?(/(pods|x|\\*|))?(/(a|log|))?(/(log|\\*|x|))?/?",
            proptest::option::of(("[uv]?", vec("[gh]", 0..3))),
        ), 1..20),
        wide in any::<bool>(),
    ) {
        let spec = PolicySpec {
            rules,
            omit_stages: StageSet::default().with(Stage::Panic),
            omit_managed_fields: wide,
        };
        let policy = Policy::new(&spec);
        for (method, path, user) in requests {
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let info = info(method, &path);
            let user = user.map(|(name, groups)| UserInfo {
                username: name,
                groups,
                ..UserInfo::default()
            });
            let expected = naive(&spec, user.as_ref(), &info);
            prop_assert_eq!(policy.evaluate(user.as_ref(), &info), expected, "{} {}", method, path);
        }
    }
}
