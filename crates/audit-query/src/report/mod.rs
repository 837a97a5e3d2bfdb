//! Summaries of many events.

pub(crate) mod grants;
pub(crate) mod group;
pub(crate) mod history;
pub(crate) mod kinds;
pub(crate) mod latency;
pub(crate) mod rbac_for;
pub(crate) mod render;
pub(crate) mod summary;
