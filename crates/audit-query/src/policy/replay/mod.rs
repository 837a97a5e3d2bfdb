//! Evaluates a policy for the requests of a log.
//!
//! A [`Tally`] counts the requests of one thread; [`Tally::add`] combines those of all threads.
//! What a rule would write is computed from the sizes of the recorded events, see [`volume`].

mod changes;
mod top;
pub mod volume;

use std::sync::Arc;

use crate::event::Event;
use crate::scan::{Place, Records, Visitor};

pub use self::changes::{Change, Changes, Sample};
pub use self::top::Top;
use self::volume::{BodySizes, Sizes, Volume};
use super::event::EventRequest;
use k8s_audit::policy::{Attributes, Decision, Level, Policy};

/// The policies to evaluate.
#[derive(Debug)]
pub struct Policies {
    /// The policy to evaluate.
    pub policy: Policy,
    /// The policy to compare it with.
    pub against: Option<Policy>,
}

/// The effect of one rule.
#[derive(Debug, Clone, Default)]
pub struct RuleTally {
    /// The number of requests that it matches.
    pub requests: u64,
    /// What is written for them.
    pub volume: Volume,
    /// Their users.
    pub users: Top,
    /// Their verbs with resource or path.
    pub resources: Top,
}

/// The effect of the rules on the requests of a log.
#[derive(Debug)]
pub struct Tally {
    policies: Arc<Policies>,
    /// By rule.
    pub rules: Vec<RuleTally>,
    /// Requests that match no rule.
    pub unmatched: RuleTally,
    /// Requests for which the two policies decide differently.
    pub changes: Changes,
    /// Sizes of recorded bodies.
    pub bodies: BodySizes,
    /// Time of the first and of the last event, in microseconds since 1970.
    pub period: Option<(i64, i64)>,
    /// The number of requests.
    pub requests: u64,
    /// Events that do not contain what was requested.
    pub incomplete: u64,
    asked: Vec<u8>,
}

impl Tally {
    /// Creates an empty tally.
    pub fn new(policies: Arc<Policies>) -> Tally {
        Tally {
            rules: vec![RuleTally::default(); policies.policy.rule_count()],
            policies,
            unmatched: RuleTally::default(),
            changes: Changes::default(),
            bodies: BodySizes::default(),
            period: None,
            requests: 0,
            incomplete: 0,
            asked: Vec::new(),
        }
    }

    /// Counts a request by its last event.
    pub fn count(&mut self, event: &Event<'_>, place: Place<'_>) {
        let Ok(request) = EventRequest::new(event) else {
            self.incomplete += 1;
            return;
        };
        self.requests += 1;
        if let Some(time) = event.time() {
            let (first, last) = self.period.unwrap_or((time, time));
            self.period = Some((first.min(time), last.max(time)));
        }
        asked(&mut self.asked, &request);
        let sizes = Sizes::of(event, &request);
        self.bodies.learn(&sizes, &self.asked);
        let decision = self.policies.policy.decide(&request);
        let rule = match decision.rule {
            Some(rule) => &mut self.rules[rule as usize],
            None => &mut self.unmatched,
        };
        rule.requests += 1;
        rule.volume.count(&sizes, decision, &self.asked);
        rule.users.count(request.user().unwrap_or(b""));
        rule.resources.count(&self.asked);
        let Some(against) = &self.policies.against else { return };
        let before = against.decide(&request);
        if differs(before, decision) {
            self.changes.count((before, decision), &sizes, &self.asked, event, place);
        }
    }

    /// Adds the counts of another thread.
    pub fn add(&mut self, other: Tally) {
        for (rule, other) in self.rules.iter_mut().zip(other.rules) {
            rule.add(other);
        }
        self.unmatched.add(other.unmatched);
        self.changes.add(other.changes);
        self.bodies.add(other.bodies);
        self.period = match (self.period, other.period) {
            (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
            (one, other) => one.or(other),
        };
        self.requests += other.requests;
        self.incomplete += other.incomplete;
    }

    /// Returns the period in days; `None` if it is shorter than a second.
    pub fn days(&self) -> Option<f64> {
        let (first, last) = self.period?;
        let micros = last - first;
        (micros >= 1_000_000).then(|| micros as f64 / 86_400e6)
    }
}

impl RuleTally {
    fn add(&mut self, other: RuleTally) {
        self.requests += other.requests;
        self.volume.add(other.volume);
        self.users.add(other.users);
        self.resources.add(other.resources);
    }
}

impl Visitor for Tally {
    fn visit(&mut self, event: &Event<'_>, place: Place<'_>, _: &mut Records) {
        self.count(event, place);
    }
}

/// Whether the decisions result in different events, or events with different members.
fn differs(one: Decision, other: Decision) -> bool {
    (one.level, one.omit_stages, one.omit_managed_fields)
        != (other.level, other.omit_stages, other.omit_managed_fields)
        && (one.level, other.level) != (Level::None, Level::None)
}

/// Writes verb and resource or path: `get pods`, `patch deployments.apps/scale`, `get /healthz`.
fn asked(out: &mut Vec<u8>, request: &impl Attributes) {
    out.clear();
    out.extend_from_slice(request.verb());
    out.push(b' ');
    if !request.is_resource() {
        out.extend_from_slice(request.path());
        return;
    }
    out.extend_from_slice(request.resource());
    for (separator, part) in [(b'.', request.group()), (b'/', request.subresource())] {
        if !part.is_empty() {
            out.push(separator);
            out.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests;
