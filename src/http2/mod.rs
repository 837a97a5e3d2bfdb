//! What both sides of HTTP/2 have in common: clients' connections and those to the API server, both
//! spoken with the `h2` crate itself.

mod coalescing;
mod keep_alive;
mod receive_body;
mod request_stream;
mod send_body;

pub(crate) use coalescing::{CoalescedWrites, CoalescingIo, coalesce};
pub(crate) use keep_alive::KeepAlive;
pub(crate) use receive_body::ReceiveBody;
pub(crate) use request_stream::{RequestStream, Responding};
pub(crate) use send_body::SendBody;
