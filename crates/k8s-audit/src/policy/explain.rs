//! The decision of a policy on one request, with the reasons.

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
    /// The rules before it; all rules if none matches.
    pub not_matched: Vec<NotMatched>,
}

/// A rule that does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotMatched {
    /// Counted from 0.
    pub rule: usize,
    /// The first condition that the request does not meet.
    pub mismatch: Mismatch,
    /// The reason as a sentence.
    pub because: String,
}

impl Policy {
    /// Decides like [`Policy::decide`], and gives the reasons. `spec` is what this policy was
    /// compiled from.
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
