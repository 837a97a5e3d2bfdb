//! The file of `--authentication-config`: an `AuthenticationConfiguration` of
//! `apiserver.config.k8s.io`, with kube-apiserver's verdict on it, and followed while running.
//!
//! | file | what it does |
//! |---|---|
//! | `load` | from a file to settings, strictly |
//! | `schema` | its members and their types |
//! | `validate`, `mappings` | their values |
//! | `reload` | following the file while running |

mod load;
mod mappings;
mod reload;
mod schema;
mod validate;

pub use load::LoadError;
#[cfg(test)]
pub(super) use load::parse as parse_configuration;
pub use reload::{AuthenticationConfigFile, ConfigFileError};
