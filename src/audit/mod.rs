//! Audit events: what they hold, how they are encoded, and the record of one request.

mod backend;
mod converter;
mod head;
pub mod id;
mod legacy;
pub mod metrics;
pub mod panic_message;
pub mod record;
mod recorder;
pub mod recording;
pub mod summary;
mod view;

pub use k8s_audit::{event, go as go_quote, json, timestamp};
