//! Kubernetes audit policies and audit events.
//!
//! The types that all parts of auditing share: the user ([`UserInfo`]), the attributes of a request
//! ([`RequestInfo`]), the policy that selects the audit level ([`Policy`]), and the event
//! ([`Event`]). Names, results, error messages and encodings are those of kube-apiserver.
//!
//! | module | contents |
//! |---|---|
//! | [`user`] | [`UserInfo`], group names |
//! | [`request`] | [`RequestInfo`], query strings, selectors, content negotiation |
//! | [`authorizer`] | what an authorizer decides on, and the 403 that follows |
//! | [`policy`] | [`Policy`]: load, validate, evaluate; [`Level`] and [`Stage`] |
//! | [`document`] | YAML and JSON files read like kube-apiserver reads them, with line and column |
//! | [`event`] | [`Event`] and its encodings |
//! | [`status`] | [`Status`] (`metav1.Status`) |
//! | [`timestamp`] | [`Timestamp`](timestamp::Timestamp): Kubernetes' `MicroTime` |
//! | [`network`] | networks in CIDR notation |
//! | [`json`], [`go`] | JSON and quoted text like Go's standard library writes them |
//!
//! The crate performs no I/O: callers read files and clocks.

pub mod authorizer;
pub mod document;
pub mod event;
pub mod go;
pub mod json;
pub mod network;
pub mod policy;
pub mod request;
pub mod status;
pub mod timestamp;
pub mod user;

pub use event::Event;
pub use policy::{Level, Policy, Stage};
pub use request::RequestInfo;
pub use status::Status;
pub use user::{User, UserInfo};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
