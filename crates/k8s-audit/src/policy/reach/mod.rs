//! Determines which rules can be reached by a request, given the earlier rules.
//!
//! A rule can be reached if a request matches it and no earlier rule. Conditions compare a value
//! with constants, so all values that no rule names are equivalent. Therefore it is sufficient to
//! try the constants and one other value in each dimension (user and group, verb, namespace,
//! resource and name, or path). Only values that one request can have are combined: a `get` has a
//! name, a `deletecollection` has none. If there is no combination, the rule is proved to be
//! unreachable. A combination is converted to a method, a URL and a user, and only counts if the
//! matcher confirms it.

mod bits;
mod candidates;
mod witness;

use self::bits::Bits;
use self::candidates::{Candidates, Path, Resource, Valued};
pub use self::witness::Witness;
use super::matcher::Policy;
use super::spec::PolicySpec;

/// Whether a request can reach a rule.
#[derive(Debug, Clone)]
pub enum Reach {
    /// A request reaches the rule; contains an example.
    By(Box<Witness>),
    /// No request can reach the rule.
    Never {
        /// A minimal set of earlier rules that match all requests which the rule matches. Empty if
        /// the rule matches no request at all.
        covered_by: Vec<usize>,
    },
    /// The policy is too large to try all combinations.
    Unknown,
}

/// Maximum number of combinations that are tried for one rule.
const BUDGET: usize = 4_000_000;

/// Determines for each rule whether a request can reach it. `policy` is the compiled `spec`.
pub fn reach(spec: &PolicySpec, policy: &Policy) -> Vec<Reach> {
    (0..spec.rules.len()).map(|rule| reach_of(spec, policy, rule)).collect()
}

pub(super) fn reach_of(spec: &PolicySpec, policy: &Policy, rule: usize) -> Reach {
    let Some(candidates) = Candidates::new(spec, policy, rule) else { return Reach::Unknown };
    let mut search =
        Search { policy, rule, candidates: &candidates, budget: BUDGET, doubts: false };
    if let Some(witness) = search.find(&Bits::first(rule)) {
        return Reach::By(witness);
    }
    if search.budget == 0 || search.doubts {
        return Reach::Unknown;
    }
    let mut covered_by: Vec<usize> = (0..rule).collect();
    // Later rules are tried first, so earlier ones are kept if possible.
    for earlier in (0..rule).rev() {
        let without: Vec<usize> = covered_by.iter().copied().filter(|i| *i != earlier).collect();
        let covers = |search: &mut Search<'_>| {
            search.budget = BUDGET / 16;
            search.is_covered(&without.iter().copied().collect())
        };
        if covers(&mut search) {
            covered_by = without;
        }
    }
    Reach::Never { covered_by }
}

struct Search<'s> {
    policy: &'s Policy,
    rule: usize,
    candidates: &'s Candidates,
    budget: usize,
    /// Whether a combination was found that could not be converted to a request.
    doubts: bool,
}

impl Search<'_> {
    /// Returns whether the rules in `earlier` match all requests that the rule matches.
    fn is_covered(&mut self, earlier: &Bits) -> bool {
        let mut found = false;
        self.combine(earlier, &mut |_| {
            found = true;
            true
        });
        !found && self.budget > 0
    }

    /// Returns a request that matches the rule and none of `earlier`.
    fn find(&mut self, earlier: &Bits) -> Option<Box<Witness>> {
        let (policy, rule, mut doubts, mut found) = (self.policy, self.rule, false, None);
        self.combine(earlier, &mut |chosen| {
            match Witness::new(chosen, policy, rule) {
                Some(witness) => found = Some(Box::new(witness)),
                None => doubts = true,
            }
            found.is_some()
        });
        self.doubts |= doubts;
        found
    }

    /// Calls `each` with combinations that no rule in `earlier` matches, until it returns `true`.
    fn combine(&mut self, earlier: &Bits, each: &mut dyn FnMut(Assignment<'_>) -> bool) {
        let all = self.candidates;
        for user in &all.users {
            let by_user = earlier.and(&user.rules);
            for verb in &all.resource_verbs {
                let by_verb = by_user.and(&verb.rules);
                for namespace in &all.namespaces {
                    let by_namespace = by_verb.and(&namespace.rules);
                    for resource in &all.resources {
                        if self.budget == 0 {
                            return;
                        }
                        self.budget -= 1;
                        if by_namespace.meets(&resource.rules)
                            || !can_be(&verb.value, &namespace.value, &resource.value)
                        {
                            continue;
                        }
                        let target = Target::Resource(&namespace.value, &resource.value);
                        let chosen = Assignment { user: &user.value, verb: &verb.value, target };
                        if each(chosen) {
                            return;
                        }
                    }
                }
            }
            for verb in &all.path_verbs {
                let by_verb = by_user.and(&verb.rules);
                for path in &all.paths {
                    if self.budget == 0 {
                        return;
                    }
                    self.budget -= 1;
                    if by_verb.meets(&path.rules) {
                        continue;
                    }
                    let target = Target::Path(&path.value);
                    if each(Assignment { user: &user.value, verb: &verb.value, target }) {
                        return;
                    }
                }
            }
        }
    }
}

/// One value in each dimension.
struct Assignment<'c> {
    user: &'c candidates::User,
    verb: &'c String,
    target: Target<'c>,
}

enum Target<'c> {
    Resource(&'c String, &'c Resource),
    Path(&'c Path),
}

/// Returns whether kube-apiserver can derive this verb, namespace, and resource from a URL.
fn can_be(verb: &str, namespace: &str, resource: &Resource) -> bool {
    let Resource { resource, subresource, name, .. } = resource;
    let of_verb = match verb {
        "get" | "delete" => !name.is_empty(),
        "deletecollection" => name.is_empty(),
        // The name comes from a field selector.
        "list" => name.is_empty() || !matches!(&name[..], "." | "..") && !name.contains('%'),
        "proxy" => subresource.is_empty(),
        _ => true,
    };
    // `/namespaces/x/status` is the status of a namespace.
    let is_part_of_namespace =
        !namespace.is_empty() && matches!(&resource[..], "status" | "finalize");
    let has_name_in_path = !name.is_empty() && verb != "list";
    // Trailing slashes are ignored.
    let is_trimmed = resource.is_empty() && !has_name_in_path && subresource.is_empty();
    of_verb && !is_part_of_namespace && !is_trimmed
}

/// Removes redundant values: among values that are equivalent for [`can_be`], keeps those that a
/// minimal set of earlier rules matches. If a removed value reaches the rule, a kept one does, too.
fn distinct<T, K: Eq + std::hash::Hash>(
    values: Vec<Valued<T>>,
    class: impl Fn(&T) -> K,
) -> Vec<Valued<T>> {
    let mut by_class = std::collections::HashMap::<K, Vec<Bits>>::new();
    for Valued { value, rules } in &values {
        let least = by_class.entry(class(value)).or_default();
        if !least.iter().any(|known| known.is_subset(rules)) {
            least.retain(|known| !rules.is_subset(known));
            least.push(rules.clone());
        }
    }
    let mut values = values;
    // Keeps the first value of each set.
    values.retain(|Valued { value, rules }| {
        let Some(least) = by_class.get_mut(&class(value)) else { return false };
        match least.iter().position(|known| known == rules) {
            Some(at) => {
                least.swap_remove(at);
                true
            }
            None => false,
        }
    });
    values
}

#[cfg(test)]
mod tests;
