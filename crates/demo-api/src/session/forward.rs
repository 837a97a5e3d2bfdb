//! Forwarded ports of the demo: a web server that responds to every request with a line of text.

use std::collections::HashMap;

use super::wire::Wire;

/// Maximum size of a request's head.
const MAX_HEAD: usize = 16 << 10;

/// The connections of a session.
pub(super) struct Forward {
    pod: String,
    heads: HashMap<u32, Vec<u8>>,
}

impl Forward {
    pub(super) fn new(pod: String) -> Forward {
        Forward { pod, heads: HashMap::new() }
    }

    /// Responds to a request when its head is complete.
    pub(super) fn received(&mut self, id: u32, bytes: &[u8], wire: &mut Wire, out: &mut Vec<u8>) {
        let head = self.heads.entry(id).or_default();
        head.extend_from_slice(bytes);
        let is_complete = head.windows(4).any(|window| window == b"\r\n\r\n");
        if is_complete || head.len() > MAX_HEAD {
            head.clear();
            let body = format!("hello from {}\n", self.pod);
            let length = body.len();
            let response = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{body}"
            );
            wire.forwarded(id, response.as_bytes(), true, out);
        }
    }

    /// Handles the end of a connection by the client.
    pub(super) fn ended(&mut self, id: u32, wire: &mut Wire, out: &mut Vec<u8>) {
        // A response was sent or not; nothing follows.
        if self.heads.remove(&id).is_some_and(|head| !head.is_empty()) {
            wire.forwarded(id, b"", true, out);
        }
    }
}
