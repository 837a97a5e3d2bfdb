//! Applies the extensions of policies when the response is known.

use crate::audit::view::annotate;
use serde::Deserialize;

use super::{AuditContext, Level};
use crate::audit::recorder::AuditPipeline;
use crate::policy::Authenticated;
use crate::policy::extension::{Outcome, Verdict};

/// Annotation of a sampled event: the rate.
const SAMPLED: &str = "kube-audit-proxy/sampled";

#[derive(Deserialize)]
struct Versioned {
    #[serde(default)]
    metadata: Version,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Version {
    resource_version: String,
}

impl AuditContext {
    /// Returns whether a response is captured to compare its object's version with that of the
    /// request.
    pub(super) fn compares_versions(&self) -> bool {
        if !self.is_extended {
            return false;
        }
        let request =
            Authenticated { user: self.user.as_deref().map(|u| &**u), info: &self.facts.info };
        self.recorder.policies().any(|policy| {
            let policy = policy.borrow();
            policy.extension.as_ref().is_some_and(|extension| extension.compares_versions(&request))
        })
    }

    /// Stores the version of the object in a response, as JSON.
    pub(super) fn response_versioned(&mut self, object: &[u8]) {
        let version = serde_json::from_slice::<Versioned>(object);
        self.response_version = version.ok().map(|object| object.metadata.resource_version);
    }

    /// Withholds the last event from backends whose policy has an extension that leaves it out.
    /// Other backends, and backends that have another event of the request, get it.
    pub(super) fn apply_extensions(&mut self) {
        if !self.is_extended {
            return;
        }
        let recorder = self.recorder.clone();
        let unchanged = match (&self.metadata, &self.response_version) {
            (Some(sent), Some(version)) => !version.is_empty() && sent.resource_version == *version,
            _ => false,
        };
        let outcome = Outcome { code: self.code(), unchanged };
        for (number, (handle, decided)) in recorder.policies().zip(self.decided.iter()).enumerate()
        {
            let policy = handle.borrow();
            // A policy that was loaded since then did not decide about the request.
            let Some(extension) =
                policy.extension.as_ref().filter(|_| policy.generation == decided.generation)
            else {
                continue;
            };
            let is_long = self.long_running;
            let mut views = self.views.iter_mut().filter(|view| view.policy == number);
            let Some(view) =
                views.find(|view| view.level > Level::None && view.can_withhold(is_long))
            else {
                continue;
            };
            let user = self.user.as_deref().map(|user| &**user);
            let request = Authenticated { user, info: &self.facts.info };
            match extension.decide(&request, outcome) {
                Verdict::Keep => {}
                Verdict::Sampled(rate) => {
                    let rate = rate.to_owned();
                    annotate(&mut view.annotations, SAMPLED, rate.clone());
                    for view in views {
                        annotate(&mut view.annotations, SAMPLED, rate.clone());
                    }
                }
                Verdict::Drop(rule) => {
                    let mut withheld = view.withhold(is_long);
                    for view in views {
                        withheld = withheld.or(view.withhold(is_long));
                    }
                    let numbers =
                        withheld.iter().map(|sink| AuditPipeline::number(&recorder, sink));
                    numbers.for_each(|number| policy.usage.count_dropped(rule, number));
                }
            }
        }
    }
}
