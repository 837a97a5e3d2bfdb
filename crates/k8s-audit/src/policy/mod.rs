//! The audit policy: loading and evaluation.
//!
//! | file | what it does |
//! |---|---|
//! | `model` | levels, stages, decisions |
//! | `spec` | a policy as it was written |
//! | `matcher`, `index` | a policy compiled, and which rule applies to a request |
//! | `load` | from a file to a policy, by way of the next three |
//! | `version`, `schema` | `apiVersion` and `kind`; types and unknown members |
//! | `validate` | values |

mod index;
mod load;
mod matcher;
mod model;
mod schema;
mod spec;
mod validate;
mod version;

pub use crate::document::{Diagnostic, Position};
pub use load::{InvalidPolicy, Loaded, parse, parse_spec};
pub use matcher::Policy;
pub use model::{Decision, Level, Stage, StageSet};
pub use spec::{GroupResources, PolicyRule, PolicySpec};
