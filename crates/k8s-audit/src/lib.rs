//! Kubernetes audit policies and audit events.
//!
//! Contains the types that all parts of auditing share: the user ([`UserInfo`]), the attributes of
//! a request ([`RequestInfo`]), the policy that selects the audit level ([`Policy`]), and the event
//! ([`Event`]). Names, results, error messages and encodings are those of kube-apiserver.
//!
//! | module | contents |
//! |---|---|
//! | [`user`] | [`UserInfo`], group names |
//! | [`request`] | [`RequestInfo`], query strings, selectors, content negotiation |
//! | [`authorizer`] | the input of an authorizer, and kube-apiserver's 403 |
//! | [`policy`] | [`Policy`]: load, validate, evaluate; [`Level`] and [`Stage`] |
//! | [`document`] | YAML and JSON files parsed like in kube-apiserver, with line and column |
//! | [`event`] | [`Event`] and its encodings |
//! | [`status`] | [`Status`] (`metav1.Status`) |
//! | [`timestamp`] | [`Timestamp`](timestamp::Timestamp): Kubernetes' `MicroTime` |
//! | [`network`] | networks in CIDR notation |
//! | [`json`], [`go`] | JSON and quoted text in the format of Go's standard library |
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
