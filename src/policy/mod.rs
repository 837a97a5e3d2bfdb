//! The audit policy of the running proxy: its file, live reload, counts, and extension. Parsing and
//! evaluation are in [`k8s_audit::policy`].

mod active;
pub(crate) mod extension;
mod load;
mod metrics;
mod reload;
mod usage;

pub use k8s_audit::policy::*;

pub use active::ActivePolicy;
pub use load::{LoadError, load};
pub use metrics::{PolicyFamilies, PolicyMetrics};
pub use reload::{PolicyFile, PolicyHandle};
pub use usage::Usage;
