//! Audit events: what they hold, how they are encoded, and the record of one request.

mod backend;
pub mod body;
mod converter;
mod created;
pub mod decode;
pub mod event;
pub mod go_quote;
mod head;
pub mod id;
pub mod json;
mod legacy;
pub mod metrics;
pub mod object;
pub mod panic_message;
pub mod protobuf;
pub mod record;
mod recorder;
pub mod recording;
pub mod response;
pub mod timestamp;
mod view;
