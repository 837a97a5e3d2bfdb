//! What a request contains that only the proxy cares about: headers to strip, source addresses.
//! What it asks for is in [`k8s_audit::request`].

pub mod headers;
pub mod source;
