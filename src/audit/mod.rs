//! Audit events: their contents, their encoding, and the record of one request.

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
