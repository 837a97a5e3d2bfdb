//! A small in-memory Kubernetes API, for `kube-audit-proxy demo` and for tests.
//!
//! It supports discovery, the usual built-in kinds and custom ones, reads, writes, patches,
//! watches, tables, logs and sessions with a toy shell: enough for kubectl. It trusts the
//! `X-Remote-*` headers of a front proxy and supports impersonation, so the audit proxy can forward
//! to it in both modes. Only names are validated, and nothing runs: pods are `Running` immediately.
//!
//! [`Demo`] starts the API and writes certificates, a policy and a kubeconfig to a directory. The
//! module `api` contains the objects, `handler` responds to requests, and [`Pki`] issues
//! certificates. Responses are JSON, like those of kube-apiserver for custom resources.

mod admit;
mod api;
mod authorize;
mod discovery;
mod error;
mod handler;
mod identity;
mod kinds;
mod managed_fields;
mod object;
mod patch;
mod pki;
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

pub use pki::{Authority, Issued, Pki, PkiError, write_private};
pub use setup::{Demo, SetupError, UpstreamIdentity};

#[cfg(test)]
mod tests;
