//! The audit policy: loading, matching, live reload.

mod model;

pub use model::{Decision, Level, Stage, StageSet};
/// STUB
pub struct Policy;
impl Policy {
    /// x
    pub fn evaluate(
        &self,
        _u: Option<&crate::authn::UserInfo>,
        _i: &crate::request::RequestInfo,
    ) -> Decision {
        Decision {
            level: Level::Metadata,
            omit_stages: StageSet::default(),
            omit_managed_fields: false,
        }
    }
}
/// STUB
pub struct PolicyHandle;
impl PolicyHandle {
    /// x
    pub fn current(&self) -> std::sync::Arc<Policy> {
        std::sync::Arc::new(Policy)
    }
}
