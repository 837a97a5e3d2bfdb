//! `/policy` on the admin port: the active policies, with how often each rule matched.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::policy::{ActivePolicy, Level, PolicyHandle, PolicyRule, Stage, StageSet};

#[derive(Serialize)]
struct Page<'p> {
    policies: Vec<PolicyView<'p>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyView<'p> {
    file: String,
    generation: u64,
    backends: &'p [String],
    rules: Vec<Rule>,
    /// Requests that no rule matches; no events are written for them.
    unmatched: Counts,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extension: Vec<ExtensionRule>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    rule: usize,
    position: Option<String>,
    level: &'static str,
    omit_stages: Vec<&'static str>,
    omit_managed_fields: bool,
    #[serde(flatten)]
    conditions: Conditions,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Serialize)]
struct Counts {
    requests: u64,
    /// By backend.
    bytes: BTreeMap<String, u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExtensionRule {
    rule: usize,
    name: String,
    position: String,
    action: &'static str,
    /// By backend.
    dropped: BTreeMap<String, u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    user_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<GroupResources>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    non_resource_urls: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupResources {
    group: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_names: Vec<String>,
}

impl Conditions {
    fn of(rule: &PolicyRule) -> Conditions {
        let resources = rule.resources.iter().map(|entry| GroupResources {
            group: entry.group.clone(),
            resources: entry.resources.clone(),
            resource_names: entry.resource_names.clone(),
        });
        Conditions {
            users: rule.users.clone(),
            user_groups: rule.user_groups.clone(),
            verbs: rule.verbs.clone(),
            resources: resources.collect(),
            namespaces: rule.namespaces.clone(),
            non_resource_urls: rule.non_resource_urls.clone(),
        }
    }
}

fn stages(set: StageSet) -> Vec<&'static str> {
    Stage::ALL.into_iter().filter(|stage| set.contains(*stage)).map(Stage::as_str).collect()
}

fn view<'p>(handle: &'p PolicyHandle, policy: &ActivePolicy) -> PolicyView<'p> {
    let backends = handle.backends();
    let by_backend = |value: &dyn Fn(usize) -> u64| -> BTreeMap<String, u64> {
        backends.iter().enumerate().map(|(number, name)| (name.clone(), value(number))).collect()
    };
    let counts = |rule: Option<u32>| Counts {
        requests: policy.usage.requests(rule),
        bytes: by_backend(&|backend| policy.usage.bytes(rule, backend)),
    };
    let file = handle.path().display().to_string();
    let rules = policy.spec.rules.iter().enumerate().map(|(index, rule)| {
        let decision = policy.decision_of(Some(index));
        Rule {
            rule: index,
            position: rule.at.map(|at| format!("{file}:{at}")),
            level: rule.level.as_str(),
            omit_stages: stages(decision.omit_stages),
            omit_managed_fields: decision.omit_managed_fields,
            conditions: Conditions::of(rule),
            counts: counts(Some(index as u32)),
        }
    });
    let rules = rules.collect();
    let extension = policy.extension.iter().flat_map(|extension| {
        extension.rules().enumerate().map(|(rule, (name, action))| ExtensionRule {
            rule,
            name: name.to_owned(),
            position: format!("{file}:{}", extension.position(rule)),
            action,
            dropped: by_backend(&|backend| policy.usage.dropped(rule, backend)),
        })
    });
    let extension = extension.collect();
    let (generation, unmatched) = (policy.generation, counts(None));
    PolicyView { file, generation, backends, rules, unmatched, extension }
}

/// Returns the page as JSON.
pub(super) fn json(policies: &[PolicyHandle]) -> String {
    let policies = policies.iter().map(|handle| view(handle, &handle.current()));
    let page = Page { policies: policies.collect() };
    // None of its fields can fail to be encoded.
    serde_json::to_string_pretty(&page).unwrap_or_default() + "\n"
}

/// Returns the page as text.
pub(super) fn text(policies: &[PolicyHandle]) -> String {
    let mut text = String::new();
    for (index, handle) in policies.iter().enumerate() {
        let shown = view(handle, &handle.current());
        let PolicyView { file, generation, backends, rules, unmatched, extension } = shown;
        let separator = if index > 0 { "\n" } else { "" };
        let backends = backends.join(", ");
        let _ =
            writeln!(text, "{separator}{file}, generation {generation}, backends: {backends}\n");
        let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        let _ = writeln!(text, "{:>12} {:>15}  {:<15}  RULE", "REQUESTS", "BYTES", "LEVEL");
        for Rule { rule, position, level, conditions, counts, .. } in rules {
            let at = position.map(|at| format!(" ({at})")).unwrap_or_default();
            let conditions = serde_json::to_string(&conditions).unwrap_or_default();
            let (requests, bytes) = (counts.requests, sum(&counts.bytes));
            let _ =
                writeln!(text, "{requests:>12} {bytes:>15}  {level:<15}  {rule}{at} {conditions}");
        }
        let (requests, level) = (unmatched.requests, Level::None.as_str());
        let _ = writeln!(text, "{requests:>12} {:>15}  {level:<15}  no rule matches", 0);
        if !extension.is_empty() {
            let _ = writeln!(text, "\n{:>12}  {:<15}  EXTENSION RULE", "DROPPED", "ACTION");
        }
        for ExtensionRule { name, position, action, dropped, .. } in extension {
            let dropped = sum(&dropped);
            let _ = writeln!(text, "{dropped:>12}  {action:<15}  {name} ({position})");
        }
    }
    text
}
