//! Explains the decision of a policy about one request.

use super::Decision;
use super::attributes::Attributes;
use super::matcher::Policy;
use super::mismatch::Mismatch;
use super::spec::PolicySpec;

/// The decision of a policy about a request, and why earlier rules do not match.
#[derive(Debug)]
pub struct Explanation {
    /// The decision, with the index of the rule.
    pub decision: Decision,
    /// The earlier rules; all rules if none matches.
    pub not_matched: Vec<NotMatched>,
}

/// A rule that does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotMatched {
    /// The index of the rule, from 0.
    pub rule: usize,
    /// The first condition that the request does not meet.
    pub mismatch: Mismatch,
    /// A sentence that explains it.
    pub because: String,
}

impl Policy {
    /// Decides like [`Policy::decide`], and explains the decision. `spec` is the source of this
    /// policy.
    pub fn explain(&self, spec: &PolicySpec, request: &impl Attributes) -> Explanation {
        let decision = self.decide(request);
        let before = decision.rule.map_or(spec.rules.len(), |rule| rule as usize);
        let not_matched = spec.rules[..before].iter().enumerate().filter_map(|(rule, written)| {
            let mismatch = self.mismatch(rule, request)?;
            Some(NotMatched { rule, mismatch, because: mismatch.describe(written, request) })
        });
        Explanation { decision, not_matched: not_matched.collect() }
    }
}
