//! A valid policy as it was written, before it is compiled for matching.

use super::{Level, Position, StageSet};

/// audit.k8s.io/v1 `Policy`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySpec {
    /// The rules in order; the first that matches decides.
    pub rules: Vec<PolicyRule>,
    /// Stages never recorded, whatever the rule.
    pub omit_stages: StageSet,
    /// Whether `metadata.managedFields` is left out where the rule does not say.
    pub omit_managed_fields: bool,
}

/// audit.k8s.io/v1 `PolicyRule`. Empty lists do not restrict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// The audit level of requests that match.
    pub level: Level,
    /// User names.
    pub users: Vec<String>,
    /// Groups, of which the user must have one.
    pub user_groups: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Kinds of objects.
    pub resources: Vec<GroupResources>,
    /// Namespaces; the empty one is that of cluster-scoped objects and of requests over all.
    pub namespaces: Vec<String>,
    /// Paths of non-resource requests; a `*` at the end matches any rest.
    pub non_resource_urls: Vec<String>,
    /// Stages not recorded, besides the policy's.
    pub omit_stages: StageSet,
    /// Overrides the policy's.
    pub omit_managed_fields: Option<bool>,
    /// The position in its file; `None` if it does not come from one.
    pub at: Option<Position>,
}

impl PolicyRule {
    /// Returns a rule of this level that matches every request.
    pub fn new(level: Level) -> PolicyRule {
        PolicyRule {
            level,
            users: Vec::new(),
            user_groups: Vec::new(),
            verbs: Vec::new(),
            resources: Vec::new(),
            namespaces: Vec::new(),
            non_resource_urls: Vec::new(),
            omit_stages: StageSet::default(),
            omit_managed_fields: None,
            at: None,
        }
    }
}

/// audit.k8s.io/v1 `GroupResources`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupResources {
    /// API group; empty for the core group, `*` for all.
    pub group: String,
    /// `pods`, `pods/log`, `*`, `pods/*`, `*/scale`; all of the group where empty.
    pub resources: Vec<String>,
    /// Names of objects; all where empty.
    pub resource_names: Vec<String>,
}
