//! Reads Kubernetes audit logs: searches them, summarizes them, follows them.
//!
//! It reads what kube-apiserver and kube-audit-proxy write: one event a line, `EventList`s, rotated
//! files, plain, gzip, or zstd. See [`scan::Scan`] for the way of a scan and [`event::Event`] for
//! how events are read, and [`index`] for the files that make a search of closed logs quicker.

pub mod cli;
pub mod event;
pub mod export;
pub mod filter;
mod follow;
pub mod index;
pub mod input;
pub mod objects;
pub mod output;
pub mod policy;
pub mod proof;
mod report;
pub mod scan;
#[cfg(test)]
mod test_folder;
