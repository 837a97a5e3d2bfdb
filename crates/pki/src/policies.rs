//! Certificate policies along a chain (RFC 5280, 6.1, with the graph of RFC 9618).
//!
//! Any policy satisfies a user of this proxy, so the only possible refusal is that an authority
//! requires some explicit policy and none is valid along the chain. Nodes of one depth are
//! unique by policy, so their number is bounded by what the certificates name.

use super::certificate::Certificate;

/// `anyPolicy`, 2.5.29.32.0
const ANY: &[u8] = &[0x55, 0x1d, 0x20, 0x00];

/// A valid policy at the current depth. Only these are needed: without qualifiers or a set of
/// policies that the user requires, the path by which a policy is valid does not matter.
struct Node<'a> {
    policy: &'a [u8],
    /// The policies of the next certificate that continue this one.
    expected: Vec<&'a [u8]>,
}

/// Returns whether the policies along `chain` are valid: the end entity first, the trust anchor
/// last.
pub(super) fn are_valid(chain: &[&Certificate<'_>]) -> bool {
    let Some((_, below_anchor)) = chain.split_last() else { return true };
    let length = u32::try_from(below_anchor.len()).unwrap_or(u32::MAX);
    if length == 0 {
        return true;
    }
    let mut explicit = length + 1;
    let mut mapping = length + 1;
    let mut inhibit_any = length + 1;
    let mut valid = Some(vec![Node { policy: ANY, expected: vec![ANY] }]);

    for (index, certificate) in below_anchor.iter().enumerate().rev() {
        let extensions = &certificate.extensions;
        let is_end_entity = index == 0;
        if extensions.policies.is_empty() {
            valid = None;
        }
        if explicit == 0 && valid.is_none() {
            return false;
        }
        if let Some(parents) = valid.take() {
            let any_counts = inhibit_any > 0 || (!is_end_entity && certificate.is_self_issued());
            let mut nodes = continued(&parents, &extensions.policies, any_counts);
            if !is_end_entity && !map(&mut nodes, &extensions.policy_mappings, mapping > 0) {
                return false;
            }
            valid = (!nodes.is_empty()).then_some(nodes);
        }
        if is_end_entity {
            break;
        }
        if !certificate.is_self_issued() {
            for counter in [&mut explicit, &mut mapping, &mut inhibit_any] {
                *counter = counter.saturating_sub(1);
            }
        }
        let lower = |counter: &mut u32, limit: Option<u32>| {
            *counter = limit.map_or(*counter, |limit| limit.min(*counter));
        };
        lower(&mut explicit, extensions.require_explicit_policy);
        lower(&mut mapping, extensions.inhibit_policy_mapping);
        lower(&mut inhibit_any, extensions.inhibit_any_policy);
    }
    explicit = explicit.saturating_sub(1);
    if below_anchor[0].extensions.require_explicit_policy == Some(0) {
        explicit = 0;
    }
    explicit > 0 || valid.is_some()
}

/// Returns the nodes of the next depth (RFC 9618, 6.1.3 (d)).
fn continued<'a>(parents: &[Node<'a>], policies: &[&'a [u8]], any_counts: bool) -> Vec<Node<'a>> {
    let expects = |policy: &[u8]| parents.iter().any(|parent| parent.expected.contains(&policy));
    let any_parent = parents.iter().any(|parent| parent.policy == ANY);
    let node = |policy| Node { policy, expected: vec![policy] };
    let mut nodes: Vec<Node<'a>> = policies
        .iter()
        .filter(|policy| **policy != ANY && (expects(policy) || any_parent))
        .map(|policy| node(*policy))
        .collect();
    if policies.contains(&ANY) && any_counts {
        for policy in parents.iter().flat_map(|parent| &parent.expected) {
            if nodes.iter().all(|known| known.policy != *policy) {
                nodes.push(node(*policy));
            }
        }
    }
    nodes
}

/// Applies policy mappings (RFC 9618, 6.1.4 (a) and (b)). Whether they are valid.
fn map<'a>(nodes: &mut Vec<Node<'a>>, mappings: &[(&'a [u8], &'a [u8])], allowed: bool) -> bool {
    if mappings.iter().any(|(issuer, subject)| *issuer == ANY || *subject == ANY) {
        return false;
    }
    for (index, (issuer, _)) in mappings.iter().enumerate() {
        if !allowed {
            nodes.retain(|node| node.policy != *issuer);
            continue;
        }
        if mappings[..index].iter().any(|(before, _)| before == issuer) {
            continue;
        }
        let all = mappings.iter().filter(|(other, _)| other == issuer);
        let expected: Vec<&[u8]> = all.map(|(_, subject)| *subject).collect();
        if let Some(node) = nodes.iter_mut().find(|node| node.policy == *issuer) {
            node.expected = expected;
        } else if nodes.iter().any(|node| node.policy == ANY) {
            nodes.push(Node { policy: issuer, expected });
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Extensions;

    const ONE: &[u8] = &[1];
    const TWO: &[u8] = &[2];

    fn certificate<'a>(extensions: Extensions<'a>, name: &'a [u8]) -> Certificate<'a> {
        Certificate {
            der: &[],
            signed: &[],
            algorithm: &[],
            signature: &[],
            version: 3,
            serial: &[1],
            issuer: b"issuer",
            subject: name,
            validity: (0, 0),
            public_key: &[],
            extensions,
        }
    }

    fn with<'a>(policies: &[&'a [u8]]) -> Extensions<'a> {
        Extensions { policies: policies.to_vec(), ..Extensions::default() }
    }

    /// From the authority below the anchor to the end entity.
    fn valid(chain: Vec<Extensions<'_>>) -> bool {
        let anchor = certificate(Extensions::default(), b"anchor");
        let mut all: Vec<_> = chain.into_iter().rev().map(|e| certificate(e, b"x")).collect();
        all.push(anchor);
        are_valid(&all.iter().collect::<Vec<_>>())
    }

    fn requiring(limit: u32, policies: &[&'static [u8]]) -> Extensions<'static> {
        Extensions { require_explicit_policy: Some(limit), ..with(policies) }
    }

    #[test]
    fn policies_matter_only_where_one_is_required() {
        assert!(valid(vec![with(&[ONE]), with(&[TWO])]));
        assert!(valid(vec![with(&[]), with(&[TWO])]));
        assert!(valid(vec![requiring(0, &[ONE]), with(&[ONE])]));
        assert!(!valid(vec![requiring(0, &[ONE]), with(&[TWO])]));
        assert!(!valid(vec![requiring(0, &[ONE]), with(&[])]));
        assert!(!valid(vec![requiring(0, &[]), with(&[ONE])]));
        assert!(valid(vec![requiring(5, &[ONE]), with(&[TWO])]), "further down only");
        assert!(!valid(vec![with(&[]), requiring(0, &[ONE])]), "the end entity's own demand");
    }

    #[test]
    fn any_policy_and_its_inhibition() {
        assert!(valid(vec![requiring(0, &[ANY]), with(&[ONE])]));
        assert!(valid(vec![requiring(0, &[ONE]), with(&[ANY])]));
        let mut inhibiting = requiring(0, &[ONE]);
        inhibiting.inhibit_any_policy = Some(0);
        assert!(!valid(vec![inhibiting.clone(), with(&[ANY])]));
        assert!(valid(vec![inhibiting, with(&[ONE])]));
    }

    #[test]
    fn mappings_and_their_inhibition() {
        let mapping = |issuer, subject| Extensions {
            policy_mappings: vec![(issuer, subject)],
            ..requiring(0, &[ONE])
        };
        assert!(valid(vec![mapping(ONE, TWO), with(&[TWO])]));
        assert!(!valid(vec![mapping(ONE, TWO), with(&[ONE])]));
        assert!(!valid(vec![mapping(ONE, ANY), with(&[ONE])]));
        let mut inhibiting = requiring(0, &[ONE]);
        inhibiting.inhibit_policy_mapping = Some(0);
        assert!(!valid(vec![inhibiting, mapping(ONE, TWO), with(&[TWO])]));
    }
}
