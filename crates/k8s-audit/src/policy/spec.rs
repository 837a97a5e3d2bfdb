//! A valid policy before it is compiled.

use super::{Level, Position, StageSet};

/// audit.k8s.io/v1 `Policy`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySpec {
    /// The rules in order. The first match decides.
    pub rules: Vec<PolicyRule>,
    /// Stages that are never recorded.
    pub omit_stages: StageSet,
    /// Whether `metadata.managedFields` is omitted if the rule does not specify it.
    pub omit_managed_fields: bool,
}

/// audit.k8s.io/v1 `PolicyRule`. An empty list matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// The audit level of matching requests.
    pub level: Level,
    /// User names.
    pub users: Vec<String>,
    /// Groups; the user must have one of them.
    pub user_groups: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Resources.
    pub resources: Vec<GroupResources>,
    /// Namespaces; the empty string matches cluster-scoped objects and requests for all namespaces.
    pub namespaces: Vec<String>,
    /// Paths of non-resource requests; a `*` at the end matches any suffix.
    pub non_resource_urls: Vec<String>,
    /// Stages that are not recorded, in addition to those of the policy.
    pub omit_stages: StageSet,
    /// Overrides the setting of the policy.
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
    /// `pods`, `pods/log`, `*`, `pods/*`, `*/scale`; if empty, all of the group.
    pub resources: Vec<String>,
    /// Names of objects; if empty, all.
    pub resource_names: Vec<String>,
}
