//! What a policy does with requests that were recorded: the parts of `policy explain`, `policy replay`,
//! `policy suggest`, and `policy test` that are not about flags and output.
//!
//! The matcher knows nothing of logs, and the log reader nothing of policies; this module joins them.

pub mod cases;
pub mod event;
pub mod replay;
pub mod request;
pub mod suggest;
