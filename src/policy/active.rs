//! The policy that is currently evaluated.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use super::extension::Extension;
use super::usage::Usage;
use super::{Loaded, Policy, PolicyRule, PolicySpec};

/// An active policy with its position in the history, its extension and its counts.
#[derive(Debug)]
pub struct ActivePolicy {
    policy: Policy,
    /// The policy as written; without rules if it does not come from a file.
    pub spec: PolicySpec,
    /// 1 for the policy loaded at start.
    pub generation: u64,
    /// The extension in its file.
    pub extension: Option<Arc<Extension>>,
    /// Counts of its rules.
    pub usage: Usage,
    /// For each rule, the annotation for `--audit-annotate-rule`; the last one is for no rule.
    annotations: Box<[Box<str>]>,
}

impl ActivePolicy {
    pub(super) fn new(
        Loaded { policy, spec, .. }: Loaded,
        extension: Option<Arc<Extension>>,
        file: &Path,
        backends: usize,
        generation: u64,
    ) -> ActivePolicy {
        let extension_rules = extension.as_ref().map_or(0, |extension| extension.rules().len());
        let usage = Usage::new(policy.rule_count(), extension_rules, backends);
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        let annotation = |(index, rule): (usize, &PolicyRule)| match rule.at {
            Some(at) => format!("{index} {file}:{at}").into(),
            None => index.to_string().into(),
        };
        let annotations = spec.rules.iter().enumerate().map(annotation);
        let annotations = annotations.chain(["none".into()]).collect();
        ActivePolicy { policy, spec, generation, extension, usage, annotations }
    }

    /// Returns the name of the rule in an event, such as `3 policy.yaml:12:3`.
    pub fn annotation(&self, rule: Option<u32>) -> &str {
        let rule = rule.map(|rule| rule as usize).and_then(|rule| self.annotations.get(rule));
        rule.or(self.annotations.last()).map_or("", |text| text)
    }
}

impl Deref for ActivePolicy {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.policy
    }
}
