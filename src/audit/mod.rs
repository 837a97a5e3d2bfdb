//! Audit events: their contents, their encoding, and the record of one request.

mod backend;
mod converter;
mod head;
pub mod id;
mod legacy;
pub(crate) mod metrics;
pub(crate) mod panic_message;
pub mod record;
mod recorder;
pub mod recording;
pub(crate) mod summary;
mod view;
