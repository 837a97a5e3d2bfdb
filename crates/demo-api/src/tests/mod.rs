//! Tests of the whole API: its objects, HTTP, and kubectl.

mod api;
mod kubectl;
