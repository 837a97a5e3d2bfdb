//! Validates the values of a policy whose types are correct.

use super::spec::{GroupResources, PolicyRule, PolicySpec};
use super::{Level, Stage, StageSet};
use crate::document::diagnostic::{Diagnostics, Help, did_you_mean};
use crate::document::tree::{Node, Value};
use crate::go::quote;
use crate::request::label_selector::is_dns_subdomain;

/// Builds the policy, and collects all errors. If there are any, the result is invalid.
pub(super) fn build(root: &Node, errors: &mut Diagnostics) -> PolicySpec {
    let mut spec = PolicySpec {
        omit_stages: stages(root, "", errors),
        omit_managed_fields: flag(root).unwrap_or(false),
        rules: Vec::new(),
    };
    let rules = root.member("rules");
    for (index, node) in rules.map(Node::elements).unwrap_or_default().iter().enumerate() {
        spec.rules.push(rule(node, &format!("rules[{index}]"), errors));
    }
    if spec.rules.is_empty() {
        let help = "add at least one rule, such as \"rules: [{level: Metadata}]\"".to_owned();
        let message = "loaded illegal policy with 0 rules".to_owned();
        errors.add(rules.map(|node| node.at), message, Some(help));
    }
    spec
}

fn rule(node: &Node, path: &str, errors: &mut Diagnostics) -> PolicyRule {
    let rule = PolicyRule {
        level: level(node, path, errors),
        users: strings(node, "users"),
        user_groups: strings(node, "userGroups"),
        verbs: strings(node, "verbs"),
        resources: elements(node, "resources")
            .iter()
            .map(|entry| group_resources(entry, path, errors))
            .collect(),
        namespaces: strings(node, "namespaces"),
        non_resource_urls: strings(node, "nonResourceURLs"),
        omit_stages: stages(node, path, errors),
        omit_managed_fields: flag(node),
        at: Some(node.at),
    };
    check_urls(node, &rule, path, errors);
    rule
}

fn level(rule: &Node, path: &str, errors: &mut Diagnostics) -> Level {
    let node = rule.member("level");
    let written = node.map(Node::text).unwrap_or_default();
    if let Some(level) = Level::from_name(written) {
        return level;
    }
    let at = node.map_or(rule.at, |node| node.at);
    let names = Level::ALL.map(Level::as_str);
    let list = names.map(|name| format!("\"{name}\"")).join(", ");
    if written.is_empty() {
        let message = format!("{path}.level: Required value");
        errors.add(at, message, Some(format!("add \"level:\" with one of {list}")));
    } else {
        let message = format!(
            "{path}.level: Unsupported value: {}: supported values: {list}",
            quote(written.as_bytes())
        );
        errors.add(at, message, did_you_mean(written, names.into_iter()));
    }
    Level::None
}

fn stages(parent: &Node, path: &str, errors: &mut Diagnostics) -> StageSet {
    let mut set = StageSet::default();
    for (index, node) in elements(parent, "omitStages").iter().enumerate() {
        let written = node.text();
        match Stage::from_name(written) {
            Some(stage) => set = set.with(stage),
            None => {
                let names = Stage::ALL.map(Stage::as_str);
                let dot = if path.is_empty() { "" } else { "." };
                let message = format!(
                    "{path}{dot}omitStages[{index}]: Invalid value: {}: allowed stages are {}",
                    quote(written.as_bytes()),
                    names.join(",")
                );
                errors.add(node.at, message, did_you_mean(written, names.into_iter()));
            }
        }
    }
    set
}

fn group_resources(node: &Node, rule: &str, errors: &mut Diagnostics) -> GroupResources {
    let entry = GroupResources {
        group: node.member("group").map(Node::text).unwrap_or_default().to_owned(),
        resources: strings(node, "resources"),
        resource_names: strings(node, "resourceNames"),
    };
    let group = &entry.group;
    if !group.is_empty() && group != "*" && !is_dns_subdomain(group) {
        let message = format!(
            "{rule}.resources.group: Invalid value: {}: {}",
            quote(group.as_bytes()),
            suggest_subdomain(group)
        );
        let at = node.member("group").map_or(node.at, |group| group.at);
        errors.add(at, message, suggest_group(group));
    }
    if !entry.resource_names.is_empty() && entry.resources.is_empty() {
        let message = format!(
            "{rule}.resources.resourceNames: Invalid value: {}: \
             using resourceNames requires at least one resource",
            quoted_list(&entry.resource_names)
        );
        let at = node.member("resourceNames").map_or(node.at, |names| names.at);
        let help = "add \"resources:\" to this entry; \"*\" is all of the group";
        errors.add(at, message, Some(help.into()));
    }
    entry
}

/// Returns Kubernetes' own error message.
fn suggest_subdomain(group: &str) -> String {
    let too_long = (group.len() > 253).then_some("must be no more than 253 bytes");
    let labels_fit = group.split('.').all(|label| is_dns_subdomain(label) || label.len() > 253);
    let malformed = (group.len() <= 253 || !labels_fit).then_some(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
         or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex \
         used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    );
    [too_long, malformed].into_iter().flatten().collect::<Vec<_>>().join(",")
}

fn suggest_group(written: &str) -> Help {
    if let Some((group, _)) = written.split_once('/') {
        return Some(if is_dns_subdomain(group) {
            format!("leave the version out: \"{group}\"")
        } else {
            "name the group only, without a version".to_owned()
        });
    }
    if written.contains('*') {
        return Some("write \"*\" alone for all groups, or name one".to_owned());
    }
    let lower = written.to_lowercase();
    is_dns_subdomain(&lower).then(|| format!("write \"{lower}\""))
}

fn check_urls(node: &Node, rule: &PolicyRule, path: &str, errors: &mut Diagnostics) {
    for (index, node) in elements(node, "nonResourceURLs").iter().enumerate() {
        let url = node.text();
        if url == "*" {
            continue;
        }
        let begin = format!(
            "{path}.nonResourceURLs[{index}]: Invalid value: {}: non-resource URL",
            quote(url.as_bytes())
        );
        if !url.starts_with('/') {
            let message = format!("{begin} rules must begin with a '/' character");
            errors.add(node.at, message, Some(format!("write \"/{url}\"")));
        }
        let before_star = &url[..url.find('*').unwrap_or(url.len())];
        if url.len() > before_star.len() + 1 {
            let message = format!("{begin} wildcards '*' must be the final character of the rule");
            errors.add(node.at, message, Some(format!("write \"{before_star}*\"")));
        }
    }
    let about_objects = !rule.resources.is_empty() || !rule.namespaces.is_empty();
    if !rule.non_resource_urls.is_empty() && about_objects {
        let message = format!(
            "{path}.nonResourceURLs: Invalid value: {}: \
             rules cannot apply to both regular resources and non-resource URLs",
            quoted_list(&rule.non_resource_urls)
        );
        let at = node.member("nonResourceURLs").map_or(node.at, |urls| urls.at);
        errors.add(at, message, Some("make two rules of it".into()));
    }
}

fn quoted_list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quote(text.as_bytes())).collect();
    format!("[{}]", quoted.join(","))
}

fn elements<'n>(parent: &'n Node, name: &str) -> &'n [Node] {
    parent.member(name).map(Node::elements).unwrap_or_default()
}

/// Returns the strings of a list. Like in Go, null is an empty string.
fn strings(parent: &Node, name: &str) -> Vec<String> {
    elements(parent, name).iter().map(|node| node.text().to_owned()).collect()
}

fn flag(parent: &Node) -> Option<bool> {
    match parent.member("omitManagedFields")?.value {
        Value::Bool(value) => Some(value),
        _ => None,
    }
}
