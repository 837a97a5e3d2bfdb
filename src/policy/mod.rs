//! The audit policy of the running proxy: its file, and live reload. Parsing and evaluation are in
//! [`k8s_audit::policy`].

mod load;
mod metrics;
mod reload;

pub use k8s_audit::policy::*;

pub use load::{LoadError, load};
pub use metrics::{PolicyFamilies, PolicyMetrics};
pub use reload::{PolicyFile, PolicyHandle};
