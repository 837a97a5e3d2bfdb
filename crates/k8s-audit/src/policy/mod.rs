//! The audit policy: loading and evaluation.
//!
//! | file | contents |
//! |---|---|
//! | `model` | levels, stages, decisions |
//! | `spec` | a policy before compilation |
//! | `matcher`, `index` | a compiled policy, and which rule applies to a request |
//! | `attributes` | the attributes of a request that rules compare |
//! | `mismatch`, `explain` | why a rule does not match |
//! | `reach` | which rules can be reached by a request |
//! | `diff` | differences between two policies |
//! | `load` | loads a policy file, using the next three |
//! | `version`, `schema` | `apiVersion` and `kind`; types and unknown members |
//! | `validate` | values |

#[cfg(test)]
mod arbitrary;
mod attributes;
mod diff;
mod explain;
mod index;
mod load;
mod matcher;
mod mismatch;
mod model;
mod reach;
mod schema;
mod spec;
mod validate;
mod version;

pub use crate::document::{Diagnostic, Position};
pub use attributes::{Attributes, Authenticated};
pub use diff::{Changed, Difference, records_nothing};
pub use explain::{Explanation, NotMatched};
pub use load::{InvalidPolicy, Loaded, parse, parse_spec};
pub use matcher::Policy;
pub use mismatch::Mismatch;
pub use model::{Decision, Level, Stage, StageSet};
pub use reach::{Reach, Witness, reach};
pub use spec::{GroupResources, PolicyRule, PolicySpec};
