//! A small Kubernetes API that lives in memory, for `kube-audit-proxy demo` and for tests.
//!
//! It serves discovery, the usual built-in kinds and custom ones, reads, writes, patches, watches,
//! tables, logs and sessions with a toy shell: enough for kubectl. It trusts a front proxy's
//! `X-Remote-*` headers and honours impersonation, so that the audit proxy can stand before it in
//! either way. Nothing is validated but names, and nothing runs: pods are `Running` the moment they
//! are created.
//!
//! [`Api`] holds the objects, [`serve()`] answers requests, [`pki::Pki`] makes certificates,
//! [`Demo`] is the whole set-up in a folder, [`line`](mod@line) shows audit events to people.

mod admit;
mod api;
mod authorize;
mod discovery;
mod error;
mod handler;
mod identity;
mod kinds;
pub mod line;
mod managed_fields;
mod object;
mod patch;
pub mod pki;
mod protobuf;
mod resource;
mod rules;
mod scale;
mod seed;
mod selector;
mod serve;
mod session;
mod setup;
mod store;
mod streams;
mod table;
mod watch;

pub use api::{Api, Delete, Write};
pub use error::ApiError;
pub use kinds::{Kind, Nature};
pub use selector::Selector;
pub use serve::serve;
pub use setup::{Demo, SetupError, UpstreamIdentity};
pub use watch::{Event, Watch};

#[cfg(test)]
#[path = "api_tests.rs"]
mod api_tests;
#[cfg(test)]
#[path = "kubectl_tests.rs"]
mod kubectl_tests;
