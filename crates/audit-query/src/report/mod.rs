//! Summaries of many events.

pub(crate) mod gaps;
pub(crate) mod grants;
pub(crate) mod group;
pub(crate) mod history;
pub(crate) mod html;
pub(crate) mod kinds;
pub(crate) mod latency;
pub(crate) mod rbac_for;
pub(crate) mod render;
pub(crate) mod summary;
mod time_chart;
pub(crate) mod timeline;
