//! Parses requests: verb and object from method and URL, query strings, selectors.

pub mod accept;
pub mod duration;
pub mod extra_key;
pub mod field_selector;
pub mod info;
pub mod label_selector;
pub mod query;
mod upgrade;
pub mod uri;

pub use info::{InfoError, RequestInfo};
pub use upgrade::requested_protocol;
