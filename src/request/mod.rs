//! Parts of a request that concern only the proxy: headers to remove, and source addresses. For
//! verb and object see [`k8s_audit::request`].

pub mod headers;
pub mod source;
