//! What is asked: the verb and object named by method and URL, the headers, the source addresses.

pub mod accept;
pub mod duration;
pub mod field_selector;
pub mod headers;
pub mod info;
pub mod label_selector;
pub mod query;
pub mod source;
pub mod uri;

pub use info::{InfoError, RequestInfo};
