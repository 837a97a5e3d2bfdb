//! The text of a suggested policy.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{COMPONENTS, Conditions, Count, Frequencies, GROUPS, PROBING, Rule, text};

const HEADER: &str = "\
# Proposed by \"kube-audit-proxy policy suggest\" from the requests of a log.
#
# The first rule that matches a request decides. Rules with level None leave out frequent reads of
# system components. They are proposed only for conditions under which the log has no write, no request
# by a person, no request for Secrets, ConfigMaps, tokens, RBAC, certificates or admission, no exec,
# attach, port-forward, proxy or log, no impersonation, and no failed request.
#
# A policy does not see response codes: a request that matches a rule with level None is not recorded,
# even if it fails. To keep failures, use a PolicyExtension of kube-audit-proxy.
";

const PREAMBLE: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages:
  - RequestReceived
rules:
";

impl Frequencies {
    pub(super) fn yaml(&self, rules: &[Rule<'_>], kept: &[(&Conditions, Count)]) -> String {
        let days = self.period.map(|(first, last)| (last - first) as f64 / 86_400e6);
        let days = days.filter(|days| *days > 1e-5);
        let saving = |count: &Count| {
            let share = 100.0 * count.bytes as f64 / self.total.bytes.max(1) as f64;
            let requests = 100.0 * count.requests as f64 / self.total.requests.max(1) as f64;
            let daily = days.map(|days| {
                let (requests, bytes) = (count.requests as f64 / days, count.bytes as f64 / days);
                format!(", {requests:.0} requests and {:.1} MB a day", bytes / 1e6)
            });
            format!(
                "{share:.1} % of the bytes, {requests:.1} % of the requests{}",
                daily.unwrap_or_default()
            )
        };
        let mut out = String::from(HEADER);
        if self.overflowed {
            out.push_str(
                "# The log has too many different resources, so no rules are proposed. Is it the log of \
                 one cluster?\n",
            );
        }
        out.push_str(PREAMBLE);
        for rule in rules {
            let reads = rule.resources.iter().map(|(group, resource)| name(group, resource));
            let reads = reads.collect::<Vec<_>>().join(", ");
            let verbs = rule.verbs.iter().cloned().collect::<Vec<_>>().join(", ");
            out.push('\n');
            comment(&mut out, &format!("Saves {}.", saving(&rule.count)));
            let evidence = match rule.actor {
                PROBING => {
                    "who checks health or reads the version, when, and from where".to_owned()
                }
                actor => format!(
                    "when {} read {reads} ({verbs}), and from where, including anyone who uses stolen \
                     credentials of theirs",
                    described(actor)
                ),
            };
            comment(
                &mut out,
                &format!("Gives up: {evidence}. None of these requests failed in the log."),
            );
            out.push_str("  - level: None\n");
            rule.push_conditions(&mut out, &verbs);
        }
        out.push('\n');
        comment(&mut out, "Everything else: who, what, when, and from where, without bodies.");
        out.push_str("  - level: Metadata\n");
        if !kept.is_empty() {
            out.push_str("\n# Frequent, and not left out:\n");
        }
        for (conditions, count) in kept.iter().take(20) {
            let why = match count.failed {
                0 if !matches!(&conditions.verb[..], b"get" | b"list" | b"watch") => {
                    "these are writes".to_owned()
                }
                0 => "protected requests are among them".to_owned(),
                failed => format!("{failed} of them failed"),
            };
            let what = name(&conditions.group, &conditions.resource);
            let _ = writeln!(
                out,
                "#   {} by {}: {}; {why}",
                one_line(&format!("{} {what}", text(&conditions.verb))),
                described(conditions.actor),
                saving(count)
            );
        }
        out
    }
}

impl Rule<'_> {
    fn push_conditions(&self, out: &mut String, verbs: &str) {
        let actor = usize::from(self.actor);
        if actor < GROUPS.len() {
            let _ = writeln!(out, "    userGroups: [{}]", GROUPS[actor].0);
        } else if self.actor < PROBING {
            let _ = writeln!(out, "    users: [{}]", COMPONENTS[actor - GROUPS.len()]);
        }
        let _ = writeln!(out, "    verbs: [{verbs}]");
        if self.actor == PROBING {
            out.push_str("    nonResourceURLs:\n");
            for (_, path) in &self.resources {
                let path = text(path);
                let _ = writeln!(out, "      - {path}");
                let _ = writeln!(out, "      - {path}/*");
            }
            return;
        }
        let mut by_group = BTreeMap::<&[u8], Vec<String>>::new();
        for (group, resource) in &self.resources {
            by_group.entry(group).or_default().push(quoted(&text(resource)));
        }
        out.push_str("    resources:\n");
        for (group, resources) in by_group {
            let _ = writeln!(out, "      - group: {}", quoted(&text(group)));
            let _ = writeln!(out, "        resources: [{}]", resources.join(", "));
        }
    }
}

fn described(actor: u8) -> String {
    match usize::from(actor) {
        _ if actor == PROBING => "anyone".to_owned(),
        group if group < GROUPS.len() => GROUPS[group].1.to_owned(),
        component => format!("user {}", COMPONENTS[component - GROUPS.len()]),
    }
}

fn name(group: &[u8], resource: &[u8]) -> String {
    let (resource, group) = (text(resource), text(group));
    if group.is_empty() { resource } else { format!("{group}/{resource}") }
}

/// A YAML string: JSON is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The text without line breaks and other control characters: names in a log are chosen by clients.
fn one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

/// Appends a comment, wrapped.
fn comment(out: &mut String, text: &str) {
    let mut line = String::new();
    for word in one_line(text).split(' ') {
        if !line.is_empty() && line.len() + word.len() > 92 {
            let _ = writeln!(out, "  # {line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "  # {line}");
}
