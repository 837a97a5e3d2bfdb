//! What both sides of HTTP/2 have in common: clients' connections and those to the API server, both
//! spoken with the `h2` crate itself.

mod batched;
mod keep_alive;
mod receive_body;
mod request_stream;
mod send_body;

pub(crate) use batched::{Batched, Writes, batched};
pub(crate) use keep_alive::KeepAlive;
pub(crate) use receive_body::ReceiveBody;
pub(crate) use request_stream::{RequestStream, Responding};
pub(crate) use send_body::SendBody;
