//! The audit policy: loading, matching, live reload.

mod model;

pub use model::{Decision, Level, Stage, StageSet};
