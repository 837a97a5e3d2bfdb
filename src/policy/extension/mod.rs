//! `PolicyExtension`: leaves out events that a policy records.
//!
//! An audit policy is evaluated before a request is forwarded, so it cannot depend on the response.
//! A `PolicyExtension`, a second document in the policy's file, decides about the last event of a
//! request, `ResponseComplete`, when the response is known. It does not change the meaning of the
//! policy: it can only leave out events, each of which is counted, and only those of requests that
//! have no other event yet. Writes and failed requests are left out only if a rule names their
//! verbs and codes.

mod limit;
mod parse;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::limit::Limiter;
pub(crate) use self::limit::Suppressed;
pub(crate) use self::parse::{parse, yaml_message};
use super::load::{self, LoadError};
use super::{
    Attributes, Diagnostic, InvalidPolicy, Level, Loaded, Policy, PolicyRule, PolicySpec, Position,
    Stage, parse as parse_policy,
};

/// The `apiVersion` of extensions.
pub(crate) const API_VERSION: &str = "audit.kube-audit-proxy.io/v1alpha1";
/// Their `kind`.
pub(crate) const KIND: &str = "PolicyExtension";

/// A `PolicyExtension`.
#[derive(Debug)]
pub struct Extension {
    rules: Vec<ExtensionRule>,
    /// The conditions of the rules on the request.
    conditions: Policy,
    random: std::hash::RandomState,
    drawn: AtomicU64,
}

/// What a rule does with events that meet its conditions.
#[derive(Debug)]
enum Action {
    Keep,
    Drop,
    Sample { rate: f64, shown: String },
    RateLimit(Limiter),
}

#[derive(Debug)]
struct ExtensionRule {
    name: String,
    at: Position,
    codes: Vec<Codes>,
    unchanged: bool,
    action: Action,
}

/// A range of response codes, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Codes(u16, u16);

/// Codes for rules without codes.
const SUCCESSFUL: Codes = Codes(100, 399);
/// Verbs for rules without verbs.
const READS: [&str; 4] = ["get", "list", "watch", "head"];
/// Verbs for rules about updates without a change.
const UPDATES: [&str; 2] = ["update", "patch"];

/// The decision about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'e> {
    /// The event is written.
    Keep,
    /// The event is written with this rate in an annotation: similar ones are not.
    Sampled(&'e str),
    /// The event is left out by the rule with this index.
    Drop(usize),
}

/// The parts of the response that rules use.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The code; 0 if there was no response.
    pub code: u16,
    /// Whether the object's `resourceVersion` is the one that the request has; `false` if unknown.
    pub unchanged: bool,
}

/// Loads a policy file with its extension, if it has one.
///
/// # Errors
/// Returns an error if either of them is invalid, or the file cannot be read.
pub(crate) fn load_with_extension(path: &Path) -> Result<(Loaded, Option<Extension>), LoadError> {
    let text = load::read_once(path)?;
    parse_with_extension(&text, &path.display().to_string())
}

/// Like [`load_with_extension`], from text. Messages refer to it as `source`.
///
/// # Errors
/// Returns an error if either of them is invalid.
pub(crate) fn parse_with_extension(
    text: &[u8],
    source: &str,
) -> Result<(Loaded, Option<Extension>), LoadError> {
    let mut loaded = parse_policy(text, source)?;
    match parse(text, source) {
        Ok(None) => Ok((loaded, None)),
        Ok(Some(extension)) => {
            loaded.warnings.extend(warning(&loaded.spec, source));
            Ok((loaded, Some(extension)))
        }
        Err(errors) => Err(InvalidPolicy { errors, warnings: loaded.warnings }.into()),
    }
}

/// Returns a warning if the policy writes events before the end of a request, where an extension
/// has no effect.
fn warning(spec: &PolicySpec, source: &str) -> Option<Diagnostic> {
    let begins = |rule: &&PolicyRule| {
        let omitted = spec.omit_stages.union(rule.omit_stages);
        rule.level > Level::None && !omitted.contains(Stage::RequestReceived)
    };
    let at = spec.rules.iter().find(begins)?.at;
    Some(Diagnostic {
        source: source.to_owned(),
        at,
        message:
            "the PolicyExtension has no effect on requests that this rule matches, because their \
                  RequestReceived event is written before the response is known"
                .to_owned(),
        help: Some("add RequestReceived to omitStages".to_owned()),
    })
}

impl Extension {
    fn new(rules: Vec<ExtensionRule>, conditions: &PolicySpec) -> Extension {
        Extension {
            conditions: Policy::new(conditions),
            rules,
            random: std::hash::RandomState::new(),
            drawn: AtomicU64::new(0),
        }
    }

    /// Decides about the last event of a request.
    pub fn decide(&self, request: &impl Attributes, outcome: Outcome) -> Verdict<'_> {
        let Some(rule) = (0..self.rules.len()).find(|rule| self.applies(*rule, request, outcome))
        else {
            return Verdict::Keep;
        };
        match &self.rules[rule].action {
            Action::Keep => Verdict::Keep,
            Action::Drop => Verdict::Drop(rule),
            Action::Sample { rate, shown } => match self.draw() < *rate {
                true => Verdict::Sampled(shown),
                false => Verdict::Drop(rule),
            },
            Action::RateLimit(limiter) => {
                let user = request.user().unwrap_or_default();
                match limiter.admits(user, request.verb()) {
                    true => Verdict::Keep,
                    false => Verdict::Drop(rule),
                }
            }
        }
    }

    fn applies(&self, rule: usize, request: &impl Attributes, outcome: Outcome) -> bool {
        let ExtensionRule { codes, unchanged, .. } = &self.rules[rule];
        codes.iter().any(|codes| (codes.0..=codes.1).contains(&outcome.code))
            && (!unchanged || outcome.unchanged)
            && self.conditions.mismatch(rule, request).is_none()
    }

    /// Returns whether [`Outcome::unchanged`] matters for the request.
    pub fn compares_versions(&self, request: &impl Attributes) -> bool {
        let mut rules = self.rules.iter().enumerate().filter(|(_, rule)| rule.unchanged);
        rules.any(|(rule, _)| self.conditions.mismatch(rule, request).is_none())
    }

    /// Returns a random number in [0, 1) that clients cannot predict.
    fn draw(&self) -> f64 {
        use std::hash::BuildHasher;
        let number = self.random.hash_one(self.drawn.fetch_add(1, Ordering::Relaxed));
        (number >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns the names of the rules and their actions: `drop`, `sample`, or `rate_limit`.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = (&str, &'static str)> {
        self.rules.iter().map(|rule| {
            let action = match rule.action {
                Action::Keep => "keep",
                Action::Drop if rule.unchanged => "drop_unchanged",
                Action::Drop => "drop",
                Action::Sample { .. } => "sample",
                Action::RateLimit(_) => "rate_limit",
            };
            (&rule.name[..], action)
        })
    }

    /// Returns the position of a rule in its file.
    pub fn position(&self, rule: usize) -> Position {
        self.rules[rule].at
    }

    /// Returns the counts of suppressed events of windows that have ended; with `all`, of all
    /// windows.
    pub fn take_suppressed(&self, all: bool) -> Vec<(usize, Suppressed)> {
        let mut taken = Vec::new();
        for (rule, ExtensionRule { action, .. }) in self.rules.iter().enumerate() {
            if let Action::RateLimit(limiter) = action {
                taken.extend(limiter.take_suppressed(all).into_iter().map(|s| (rule, s)));
            }
        }
        taken
    }

    /// Returns the shortest window of a rate limit.
    pub fn shortest_window(&self) -> Option<Duration> {
        let windows = self.rules.iter().filter_map(|rule| match &rule.action {
            Action::RateLimit(limiter) => Some(limiter.window()),
            _ => None,
        });
        windows.min()
    }
}

#[cfg(test)]
mod tests;
