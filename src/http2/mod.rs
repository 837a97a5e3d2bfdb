//! Parts of HTTP/2 that connections of clients and connections to the API server share; both use
//! the `h2` crate directly.

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
