//! The file of `--authentication-config`: an `AuthenticationConfiguration` of
//! `apiserver.config.k8s.io`, validated like in kube-apiserver, and reloaded when it changes.
//!
//! | file | contents |
//! |---|---|
//! | `load` | loads a file strictly |
//! | `schema` | its members and their types |
//! | `validate`, `mappings` | validates values |
//! | `reload` | reloads the file |

mod load;
mod mappings;
mod reload;
mod schema;
mod validate;

pub use load::LoadError;
#[cfg(test)]
pub(super) use load::parse as parse_configuration;
pub use reload::{AuthenticationConfigFile, ConfigFileError};
