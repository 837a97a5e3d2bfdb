//! Rules for frequent reads of system components.
//!
//! Requests are counted by the conditions that a rule could have: a group or a user, a verb, and a
//! resource. A count with a protected request in it (see [`protection`]) gives no rule, so a policy
//! made of these rules loses none of the protected requests of the log.

mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Event;
use crate::scan::{Place, Records, Visitor};
use hashbrown::HashMap;

use super::event::EventRequest;
use k8s_audit::policy::Attributes;

/// Users of the control plane.
const COMPONENTS: [&str; 5] = [
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:kube-proxy",
    "system:cloud-controller-manager",
];
/// Groups of system components.
const GROUPS: [(&str, &str); 2] = [
    ("system:nodes", "nodes"),
    ("system:serviceaccounts:kube-system", "service accounts in kube-system"),
];
/// Health checks and versions, whoever asks.
const PROBES: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
/// Actors: groups, then components, then probes.
const PROBING: u8 = (GROUPS.len() + COMPONENTS.len()) as u8;

/// Conditions that are counted; a log with more is not of a usual cluster.
const MOST: usize = 8192;

/// Why requests are never left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protection {
    /// By a user that is not a system component.
    Person,
    /// It changes something.
    Write,
    /// Secrets, tokens, ConfigMaps.
    Secret,
    /// Roles, bindings, certificates, and admission.
    AccessControl,
    /// Into a pod, or through the API server.
    Connection,
    /// As another user.
    Impersonation,
    /// The response's code is 400 or higher, or unknown.
    Failed,
}

/// Why the request is protected; `None` if it is not. The response's code counts, although a policy
/// does not see it.
pub fn protection(event: &Event<'_>, request: &impl Attributes) -> Option<Protection> {
    if event.impersonated_user.is_some() {
        return Some(Protection::Impersonation);
    }
    if !event.status.code.is_some_and(|code| (100..400).contains(&code)) {
        return Some(Protection::Failed);
    }
    if !request.is_resource() {
        let is_probe = request.verb() == b"get" && probe(request.path()).is_some();
        return (!is_probe).then_some(Protection::Person);
    }
    match (request.group(), request.resource(), request.subresource()) {
        (_, _, b"exec" | b"attach" | b"portforward" | b"proxy" | b"log") => {
            return Some(Protection::Connection);
        }
        (b"", b"secrets" | b"configmaps", _)
        | (_, _, b"token")
        | (b"authentication.k8s.io", ..) => {
            return Some(Protection::Secret);
        }
        (
            b"rbac.authorization.k8s.io"
            | b"authorization.k8s.io"
            | b"certificates.k8s.io"
            | b"admissionregistration.k8s.io",
            ..,
        ) => return Some(Protection::AccessControl),
        _ => {}
    }
    if !matches!(request.verb(), b"get" | b"list" | b"watch") {
        return Some(Protection::Write);
    }
    let user = request.user().unwrap_or_default();
    let is_component = COMPONENTS.iter().any(|name| name.as_bytes() == user)
        || user.starts_with(b"system:node:")
        || user.starts_with(b"system:serviceaccount:kube-system:");
    (!is_component).then_some(Protection::Person)
}

fn probe(path: &[u8]) -> Option<&'static str> {
    let of = |probe: &&str| {
        let rest = path.strip_prefix(probe.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    PROBES.into_iter().find(of)
}

/// What a rule could match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Conditions {
    actor: u8,
    verb: Vec<u8>,
    group: Vec<u8>,
    /// With the subresource, or the path.
    resource: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    requests: u64,
    bytes: u64,
    protected: u64,
    /// Of the protected ones.
    failed: u64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.protected += other.protected;
        self.failed += other.failed;
    }
}

/// Counts of one thread.
#[derive(Debug, Default)]
pub struct Frequencies {
    counts: HashMap<Conditions, Count>,
    total: Count,
    period: Option<(i64, i64)>,
    /// There are more conditions than are counted.
    overflowed: bool,
}

impl Visitor for Frequencies {
    fn visit(&mut self, event: &Event<'_>, _: Place<'_>, _: &mut Records) {
        let Ok(request) = EventRequest::new(event) else { return };
        if let Some(time) = event.time() {
            let (first, last) = self.period.unwrap_or((time, time));
            self.period = Some((first.min(time), last.max(time)));
        }
        let bodies = [event.request_object, event.response_object];
        let bodies: usize = bodies.into_iter().flatten().map(<[u8]>::len).sum();
        let protection = protection(event, &request);
        let count = Count {
            requests: 1,
            bytes: (event.raw.len() + 1 - bodies) as u64,
            protected: protection.is_some().into(),
            failed: (protection == Some(Protection::Failed)).into(),
        };
        self.total.add(count);
        if !request.is_resource() {
            if let Some(probe) = probe(request.path()) {
                self.count(PROBING, &request, probe.as_bytes(), count);
            }
            return;
        }
        let mut resource = request.resource().to_vec();
        if !request.subresource().is_empty() {
            resource.push(b'/');
            resource.extend_from_slice(request.subresource());
        }
        // Others are not those of a Kubernetes API, and need not be ones that a policy can name.
        let is_plain =
            |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-./".contains(byte);
        if !resource.iter().chain(request.group()).all(is_plain) {
            return;
        }
        let user = request.user();
        let component = COMPONENTS.iter().position(|name| Some(name.as_bytes()) == user);
        if let Some(component) = component {
            self.count((GROUPS.len() + component) as u8, &request, &resource, count);
        }
        for (index, (name, _)) in GROUPS.iter().enumerate() {
            if request.any_group(|group| group == name.as_bytes()) {
                self.count(index as u8, &request, &resource, count);
            }
        }
    }
}

/// A policy that was put together, and what it saves.
#[derive(Debug)]
pub struct Suggestion {
    /// The policy file.
    pub yaml: String,
    /// Rules that leave requests out.
    pub rules: usize,
    /// Requests in the log, and how many of them are left out.
    pub requests: (u64, u64),
    /// Bytes in the log at level Metadata, and how many of them are left out.
    pub bytes: (u64, u64),
}

impl Frequencies {
    fn count(&mut self, actor: u8, request: &impl Attributes, resource: &[u8], count: Count) {
        let conditions = Conditions {
            actor,
            verb: request.verb().to_vec(),
            group: request.group().to_vec(),
            resource: resource.to_vec(),
        };
        self.add_count(conditions, count);
    }

    fn add_count(&mut self, conditions: Conditions, count: Count) {
        if self.counts.len() >= MOST && !self.counts.contains_key(&conditions) {
            self.overflowed = true;
            return;
        }
        self.counts.entry(conditions).or_default().add(count);
    }

    /// Adds the counts of another thread.
    pub fn add(&mut self, other: Frequencies) {
        for (conditions, count) in other.counts {
            self.add_count(conditions, count);
        }
        self.total.add(other.total);
        self.overflowed |= other.overflowed;
        self.period = match (self.period, other.period) {
            (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
            (one, other) => one.or(other),
        };
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.total.requests == 0
    }

    /// Puts rules together that each save at least this share of the bytes.
    pub fn suggest(&self, min_share: f64) -> Suggestion {
        let least = self.total.bytes as f64 * min_share;
        let (mut rules, mut kept) = (Vec::new(), Vec::new());
        // Resources by actor that are read with the same verbs.
        let mut by_actor = BTreeMap::<u8, BTreeMap<(&[u8], &[u8]), Reads>>::new();
        if !self.overflowed {
            let counts: BTreeMap<&Conditions, &Count> = self.counts.iter().collect();
            for (conditions, count) in counts {
                let is_read = matches!(&conditions.verb[..], b"get" | b"list" | b"watch");
                if count.protected == 0 && is_read {
                    let of_actor = by_actor.entry(conditions.actor).or_default();
                    let reads =
                        of_actor.entry((&conditions.group, &conditions.resource)).or_default();
                    reads.verbs.insert(text(&conditions.verb));
                    reads.count.add(*count);
                } else if count.bytes as f64 >= least {
                    kept.push((conditions, *count));
                }
            }
        }
        for (actor, reads) in by_actor {
            let mut by_verbs = BTreeMap::<BTreeSet<String>, Vec<(&[u8], &[u8])>>::new();
            let mut counts = HashMap::<BTreeSet<String>, Count>::new();
            for ((group, resource), Reads { verbs, count }) in reads {
                // Rare ones are not worth the evidence.
                if (count.bytes as f64) < least / 4.0 {
                    continue;
                }
                counts.entry(verbs.clone()).or_default().add(count);
                by_verbs.entry(verbs).or_default().push((group, resource));
            }
            for (verbs, resources) in by_verbs {
                let count = counts[&verbs];
                if count.bytes as f64 >= least {
                    rules.push(Rule { actor, verbs, resources, count });
                }
            }
        }
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.count.bytes));
        kept.sort_by_key(|(_, count)| std::cmp::Reverse(count.bytes));
        let yaml = self.yaml(&rules, &kept);
        // A service account can be in both groups; then this counts it twice, but not beyond the
        // whole.
        let sum = |of: fn(&Count) -> u64, whole: u64| {
            rules.iter().map(|rule| of(&rule.count)).sum::<u64>().min(whole)
        };
        Suggestion {
            yaml,
            rules: rules.len(),
            requests: (self.total.requests, sum(|count| count.requests, self.total.requests)),
            bytes: (self.total.bytes, sum(|count| count.bytes, self.total.bytes)),
        }
    }
}

#[derive(Debug, Default)]
struct Reads {
    verbs: BTreeSet<String>,
    count: Count,
}

struct Rule<'c> {
    actor: u8,
    verbs: BTreeSet<String>,
    resources: Vec<(&'c [u8], &'c [u8])>,
    count: Count,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
