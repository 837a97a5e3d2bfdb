//! Reads Kubernetes audit logs: searches them, summarizes them, follows them.

pub mod event;
