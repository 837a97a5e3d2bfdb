//! Audit events: what they hold, how they are encoded, and the record of one request.

pub mod go_quote;
pub mod json;
