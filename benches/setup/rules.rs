//! Policies with any number of rules.

use kube_audit_proxy::policy::{self, Policy};

/// A policy of `rules` typical rules; the last one matches everything.
pub fn policy_of(rules: usize) -> Policy {
    let mut text = String::from("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n");
    for number in 1..rules {
        text.push_str(&match number % 5 {
            0 => format!("- {{level: None, users: ['system:user-{number}'], verbs: [watch]}}\n"),
            1 => format!(
                "- {{level: Request, verbs: [create, patch], \
                 resources: [{{group: g{number}.io, resources: [kinds{number}, '*/status']}}]}}\n"
            ),
            2 => format!("- {{level: Metadata, namespaces: [team-{number}, staging]}}\n"),
            3 => format!("- {{level: None, nonResourceURLs: ['/metrics-{number}*', /readyz]}}\n"),
            _ => format!(
                "- {{level: RequestResponse, userGroups: [group-{number}], \
                 resources: [{{resources: [secrets, configmaps]}}]}}\n"
            ),
        });
    }
    text.push_str("- level: Metadata\n");
    policy::parse(text.as_bytes(), "bench").expect("the policy is valid").policy
}
