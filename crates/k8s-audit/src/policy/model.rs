//! The terms of Kubernetes audit policies: levels, stages, and decisions.

/// The audit level of a request, in increasing order from `None` (audit.k8s.io/v1 `Level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing is recorded.
    None,
    /// Everything except bodies.
    Metadata,
    /// Metadata and the request body.
    Request,
    /// Metadata and both bodies.
    RequestResponse,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Level; 4] =
        [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];

    /// Returns the name in policies and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }

    /// Returns the level with exactly this name (case-sensitive, like in kube-apiserver).
    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|l| l.as_str() == name)
    }
}

/// A point in the processing of a request at which an event can be written (audit.k8s.io/v1
/// `Stage`), in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The request was authenticated, and nothing else was done yet.
    RequestReceived,
    /// The response headers are about to be sent; only for long-running requests.
    ResponseStarted,
    /// The response has been sent completely.
    ResponseComplete,
    /// The handler panicked.
    Panic,
}

impl Stage {
    /// All stages, in the order in which kube-apiserver lists them.
    pub const ALL: [Stage; 4] =
        [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];

    /// Returns the name in policies and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }

    /// Returns the stage with exactly this name (case-sensitive, like in kube-apiserver).
    pub fn from_name(name: &str) -> Option<Stage> {
        Stage::ALL.into_iter().find(|s| s.as_str() == name)
    }
}

/// A set of stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageSet(u8);

impl StageSet {
    /// Returns the set with `stage` added.
    #[must_use]
    pub const fn with(self, stage: Stage) -> StageSet {
        StageSet(self.0 | 1 << stage as u8)
    }

    /// Returns the union of both sets.
    #[must_use]
    pub const fn union(self, other: StageSet) -> StageSet {
        StageSet(self.0 | other.0)
    }

    /// Returns whether `stage` is in the set.
    pub const fn contains(self, stage: Stage) -> bool {
        self.0 & (1 << stage as u8) != 0
    }
}

impl FromIterator<Stage> for StageSet {
    fn from_iter<I: IntoIterator<Item = Stage>>(stages: I) -> StageSet {
        stages.into_iter().fold(StageSet::default(), StageSet::with)
    }
}

/// The decision of a policy about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The audit level.
    pub level: Level,
    /// Stages for which no event is written, by the policy or the rule.
    pub omit_stages: StageSet,
    /// Whether `metadata.managedFields` is omitted from recorded bodies.
    pub omit_managed_fields: bool,
    /// The index of the rule that decided, from 0; `None` if no rule matches.
    pub rule: Option<u32>,
}
