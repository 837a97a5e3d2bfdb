//! A reverse proxy in front of kube-apiserver that writes Kubernetes audit events.
//!
//! The way of one request is [`pipeline`]; read it first. Each module knows only those below it:
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | arguments, subcommands, exit codes |
//! | [`config`] | flags and files, parsed into one validated `Config` |
//! | [`server`] | listeners, TLS, HTTP/1.1 and HTTP/2, shutdown, the admin port |
//! | [`pipeline`] | one request from its first byte to its last audit event |
//! | [`upstream`] | connections to the API server, forwarding, upgrades, the identity stamped on requests |
//! | [`impersonation`] | `Impersonate-*` headers: parsing, authorization, the resulting user |
//! | [`audit`] | events, their encoding, the record of one request |
//! | [`sink`] | where encoded events go: queue, writer thread, files, rotation |
//! | [`webhook`] | events sent to a receiver over HTTP: batches, retries, the spool |
//! | [`policy`] | the audit `Policy`: loading, matching, live reload |
//! | [`document`] | YAML and JSON files read as kube-apiserver reads them |
//! | [`authn`] | who is calling: certificates, tokens, anonymous |
//! | [`pki`] | X.509 certificates, verified as Go does |
//! | [`request`] | what is asked: verb and object from the URL, headers, source addresses |
//! | [`file_watch`] | notices that a file has changed |
//! | [`status`] | `metav1.Status` answers |
//! | [`body`] | bodies in transit |
//! | [`file_watch`] | noticing changed files |
//! | [`metrics`] | the registry of all metrics, in two formats |
//! | [`demo`] | a small in-memory Kubernetes API for `demo` and the tests |

pub mod audit;
pub mod authn;
pub mod body;
pub mod cli;
pub mod config;
pub mod demo;
pub mod document;
pub mod file_watch;
mod http2;
pub mod impersonation;
mod log_limit;
pub mod metrics;
pub mod pipeline;
pub mod pki;
pub mod policy;
mod regular_file;
pub mod request;
pub mod server;
pub mod status;
#[cfg(test)]
mod test_dir;
pub mod upstream;

pub use audit_log as sink;
pub use audit_log::webhook;
