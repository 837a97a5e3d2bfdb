//! Bodies in Kubernetes audit events: `requestObject` and `responseObject`.
//!
//! A body is captured while it streams by ([`Capture`], within a [`Budget`] of memory) and becomes
//! the JSON that kube-apiserver records:
//!
//! 1. [`content_encoding`](Encoding) decompresses it.
//! 2. [`decode`](mod@decode) converts JSON, YAML, CBOR and [`protobuf`] like kube-apiserver's
//!    decoders do, and finds constructs whose meaning depends on the decoder.
//! 3. [`Compactor`] validates and compacts JSON in one pass, removes `managedFields`, redacts the
//!    paths of a [`Redaction`], and truncates what is too long.
//! 4. A body that is not JSON becomes a JSON string, or its length and digest where it may contain
//!    secrets.
//!
//! Two more parts read responses: [`StatusTap`] finds a `Status`, and [`CreatedTap`] the name of a
//! created object.
//!
//! The crate performs no I/O and never waits. Callers convert bodies that are longer than
//! [`heavy_from`] returns on threads of their own.

mod budget;
mod capture;
mod compact;
mod content_encoding;
mod created;
pub mod decode;
mod delete_options;
mod escape;
mod managed_fields;
mod object;
mod paths;
pub mod protobuf;
mod query;
mod redact;
mod redacted;
mod request_kind;
mod response;
mod text;
mod tidy;
mod truncate;

#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod reference;

pub use budget::{Account, Budget, Reservation};
pub use capture::{Capture, Cut, Plan, Recorded, heavy_from};
pub use compact::{Compacted, Compactor, NotJson, Options, Problem, Text};
pub use content_encoding::Encoding;
pub use created::{Created, CreatedResponse, CreatedTap};
pub use delete_options::delete_options;
pub use object::MediaType;
pub use query::redact_query;
pub use redact::{CompiledPaths, Redaction, RuleError, RuleProblem};
pub use request_kind::RequestBodyKind;
pub use response::{ParsedStatus, StatusTap, wants_pretty};
