//! Helpers that the unit tests of several crates share. Only used as a development dependency.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

mod kubectl;
mod revocation_list;
pub mod servers;
mod temp_dir;
mod x509_v1;

pub use kubectl::has_kubectl;
pub use revocation_list::revocation_list;
pub use temp_dir::TempDir;
pub use x509_v1::as_v1;
