//! The audit policy: loading, matching, live reload.
//!
//! | file | what it does |
//! |---|---|
//! | `model` | levels, stages, decisions |
//! | `spec` | a policy as it was written |
//! | `matcher`, `index` | a policy compiled, and which rule applies to a request |
//! | `load` | from a file to a policy, by way of the next four |
//! | `text`, `yaml`, `yaml_1_1`, `scalar`, `json`, `tree` | from bytes to a tree that knows lines and columns |
//! | `version`, `schema` | `apiVersion` and `kind`; types and unknown members |
//! | `validate`, `problem` | values; messages |
//! | `reload` | following the file while running |

mod index;
mod json;
mod load;
mod matcher;
mod model;
mod problem;
mod reload;
mod scalar;
mod schema;
mod spec;
mod text;
mod tree;
mod validate;
mod version;
mod yaml;
mod yaml_1_1;

pub use load::{LoadError, Loaded, load, parse, parse_spec};
pub use matcher::Policy;
pub use model::{Decision, Level, Stage, StageSet};
pub use problem::Problem;
pub use reload::{PolicyFile, PolicyHandle};
pub use spec::{GroupResources, PolicyRule, PolicySpec};
pub use tree::Position;
