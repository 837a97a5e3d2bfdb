//! Bodies in audit events: `requestObject` and `responseObject`, made while the bodies stream by.
//!
//! [`Compactor`] is the way of a JSON body: one pass that validates, compacts, leaves out
//! `managedFields`, redacts what [`Redaction`] names, and cuts what is too long. A body that is no
//! JSON becomes a JSON string, by [`as_string`], or [`redacted_whole`] where it may hold
//! secrets. Nothing here does I/O or waits.

mod budget;
mod capture;
mod compact;
mod convert;
mod decode;
mod escape;
mod managed_fields;
mod paths;
mod query;
mod redact;
mod redacted;
mod text;
mod tidy;
mod truncate;

#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod reference;

pub(super) use k8s_audit::json::scan;

pub use budget::{Account, Budget, Reservation};
pub(super) use capture::heavy_from;
pub use capture::{Capture, Cut, Plan, Recorded};
pub use compact::{Compacted, Compactor, NotJson, Options, Problem, Text};
pub use convert::{delete_options, protobuf_to_json, yaml_to_json};
pub(super) use decode::Decoder;
pub use decode::Encoding;
pub use paths::{MAX_NAME, Path, PathError, PathProblem};
pub use query::redact_query;
pub use redact::{CompiledPaths, Redaction, RuleError, RuleProblem};
pub use redacted::{hex, redacted_whole};
pub use text::{StringForm, as_string};
