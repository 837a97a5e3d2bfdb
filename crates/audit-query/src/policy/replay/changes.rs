//! Requests that are recorded differently under two policies.

use crate::event::Event;
use crate::scan::Place;
use hashbrown::HashMap;

use super::top::Top;
use super::volume::{Sizes, Volume};
use k8s_audit::policy::Decision;

/// Number of samples in each group.
const SAMPLES: usize = 3;

/// Requests for which the policies decide differently, grouped by the rules that match them.
#[derive(Debug, Clone, Default)]
pub struct Changes(HashMap<(Option<u32>, Option<u32>), Change>);

/// Requests that match the same rule of the old policy and the same rule of the new one.
#[derive(Debug, Clone)]
pub struct Change {
    /// The old decision.
    pub before: Decision,
    /// The new decision.
    pub after: Decision,
    /// The number of requests.
    pub requests: u64,
    /// What the old policy writes for them.
    pub volume_before: Volume,
    /// What the new policy writes for them.
    pub volume_after: Volume,
    /// Their users.
    pub users: Top,
    /// Their verbs and resources.
    pub resources: Top,
    /// The first of them in the log.
    pub samples: Vec<Sample>,
}

/// An example of such a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// When it arrived.
    pub time: String,
    /// The file.
    path: std::path::PathBuf,
    offset: u64,
    /// The audit ID.
    pub audit_id: String,
    /// The user.
    pub user: String,
    /// The verb.
    pub verb: String,
    /// Path and query.
    pub uri: String,
    /// The response's code.
    pub code: Option<i64>,
}

impl Changes {
    /// Counts a request.
    pub fn count(
        &mut self,
        (before, after): (Decision, Decision),
        sizes: &Sizes,
        asked: &[u8],
        event: &Event<'_>,
        place: Place<'_>,
    ) {
        let change = self.0.entry((before.rule, after.rule)).or_insert_with(|| Change {
            before,
            after,
            requests: 0,
            volume_before: Volume::default(),
            volume_after: Volume::default(),
            users: Top::default(),
            resources: Top::default(),
            samples: Vec::new(),
        });
        change.requests += 1;
        change.volume_before.count(sizes, before, asked);
        change.volume_after.count(sizes, after, asked);
        change.users.count(&event.user.name.bytes());
        change.resources.count(asked);
        if change.samples.len() < SAMPLES {
            change.samples.push(Sample {
                time: event.received.decode().into_owned(),
                path: place.path.to_owned(),
                offset: place.offset,
                audit_id: event.audit_id.decode().into_owned(),
                user: event.user.name.decode().into_owned(),
                verb: event.verb.decode().into_owned(),
                uri: event.request_uri.decode().into_owned(),
                code: event.status.code,
            });
        }
    }

    /// Adds the groups of another thread.
    pub fn add(&mut self, other: Changes) {
        for (rules, change) in other.0 {
            match self.0.get_mut(&rules) {
                None => {
                    self.0.insert(rules, change);
                }
                Some(known) => {
                    known.requests += change.requests;
                    known.volume_before.add(change.volume_before);
                    known.volume_after.add(change.volume_after);
                    known.users.add(change.users);
                    known.resources.add(change.resources);
                    known.samples.extend(change.samples);
                    known.samples.sort();
                    known.samples.truncate(SAMPLES);
                }
            }
        }
    }

    /// Returns all groups: first what the new policy no longer records, then what it additionally
    /// records, sorted by the number of requests.
    pub fn into_sorted(self) -> Vec<Change> {
        let mut changes: Vec<Change> = self.0.into_values().collect();
        changes.sort_by_key(|change| {
            let rules = (change.before.rule, change.after.rule);
            (change.before.level < change.after.level, std::cmp::Reverse(change.requests), rules)
        });
        changes
    }
}
