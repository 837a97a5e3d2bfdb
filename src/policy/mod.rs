//! The audit policy: loading, matching, live reload.
//!
//! | file | what it does |
//! |---|---|
//! | `model` | levels, stages, decisions |
//! | `spec` | a policy as it was written |
//! | `matcher`, `index` | a policy compiled, and which rule applies to a request |
//! | `load` | from a file to a policy, by way of the next three |
//! | `version`, `schema` | `apiVersion` and `kind`; types and unknown members |
//! | `validate` | values |
//! | `reload` | following the file while running |

mod index;
mod load;
mod matcher;
mod metrics;
mod model;
mod reload;
mod schema;
mod spec;
mod validate;
mod version;

pub use crate::document::{Position, Problem};
pub use load::{LoadError, Loaded, load, parse, parse_spec};
pub use matcher::Policy;
pub use metrics::{PolicyFamilies, PolicyMetrics};
pub use model::{Decision, Level, Stage, StageSet};
pub use reload::{PolicyFile, PolicyHandle};
pub use spec::{GroupResources, PolicyRule, PolicySpec};
