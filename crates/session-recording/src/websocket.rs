//! WebSocket frames (RFC 6455) and messages, with permessage-deflate (RFC 7692).
//!
//! If receivers differ, the reader accepts what the most lenient one accepts: kube-apiserver
//! (golang.org/x/net/websocket) treats frames with reserved opcodes as data, and ignores reserved
//! bits and non-minimal lengths.

use crate::inflate::RawInflate;
use crate::{Deflate, Unreadable};

const CONTINUATION: u8 = 0;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Maximum number of Ping frames without a reply.
const MAX_PINGS: usize = 16;
/// Two bytes, a length of 8 bytes, and a masking key.
const MAX_HEADER: usize = 14;

/// A piece of a message, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// Whether a message starts with this piece.
    pub starts_message: bool,
    /// Whether a frame starts with this piece.
    pub starts_frame: bool,
    /// Whether the message ends with this piece.
    pub ends_message: bool,
    /// The payload, unmasked and decompressed.
    pub bytes: &'a [u8],
}

/// Reads one direction of a WebSocket connection.
#[derive(Debug, Default)]
pub struct WebSocketReader {
    header: Vec<u8>,
    frame: Option<Frame>,
    /// Whether a message has begun and not ended.
    in_message: bool,
    inflate: Option<MessageInflate>,
    starts: Starts,
    closed: bool,
    scratch: Vec<u8>,
    collects_pings: bool,
    ping: Vec<u8>,
    pings: Vec<Vec<u8>>,
}

/// What begins with the next piece.
#[derive(Debug, Default)]
struct Starts {
    message: bool,
    frame: bool,
}

#[derive(Debug)]
struct Frame {
    remaining: u64,
    mask: Option<[u8; 4]>,
    position: usize,
    is_data: bool,
    is_ping: bool,
    is_final: bool,
    starts_message: bool,
    starts_frame: bool,
}

#[derive(Debug)]
struct MessageInflate {
    settings: Deflate,
    inflate: RawInflate,
    /// Whether the current message is compressed.
    is_active: bool,
}

impl WebSocketReader {
    /// Creates a reader for a connection with this negotiated compression.
    pub fn new(deflate: Option<Deflate>) -> WebSocketReader {
        let inflate = deflate.map(|settings| MessageInflate {
            settings,
            inflate: RawInflate::new(),
            is_active: false,
        });
        WebSocketReader { inflate, ..WebSocketReader::default() }
    }

    /// Collects the payloads of Ping frames, for a reader that replies to them.
    pub fn collecting_pings(mut self) -> WebSocketReader {
        self.collects_pings = true;
        self
    }

    /// Returns the payloads of the Ping frames since the last call.
    pub fn take_pings(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.pings)
    }

    /// Returns whether the next byte starts a message, so that a frame could be inserted here.
    pub fn is_between_messages(&self) -> bool {
        self.closed || (self.frame.is_none() && self.header.is_empty() && !self.in_message)
    }

    /// Returns whether a Close frame has been read. Later data is not part of a message.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Reads bytes and passes the pieces of messages to `on`. Returns the number of bytes up to the
    /// last end of a message or control frame, if there is one.
    ///
    /// # Errors
    /// If compressed data is invalid, or `on` fails.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        on: &mut impl FnMut(Part<'_>) -> Result<(), Unreadable>,
    ) -> Result<Option<usize>, Unreadable> {
        let all = bytes.len();
        let mut boundary = None;
        while !bytes.is_empty() && !self.closed {
            if self.frame.is_none() {
                bytes = self.push_header(bytes)?;
            }
            let Some(frame) = &mut self.frame else { break };
            let take = usize::try_from(frame.remaining).unwrap_or(usize::MAX).min(bytes.len());
            let (payload, rest) = bytes.split_at(take);
            bytes = rest;
            frame.remaining -= take as u64;
            let ended = frame.remaining == 0;
            let collects = self.collects_pings && frame.is_ping;
            if frame.is_data && (take > 0 || ended) {
                self.payload(payload, ended, on)?;
            } else if collects {
                self.ping(payload, ended);
            }
            if ended {
                self.frame = None;
                if self.is_between_messages() {
                    boundary = Some(all - bytes.len());
                }
            }
        }
        Ok(boundary)
    }

    fn ping(&mut self, payload: &[u8], ended: bool) {
        let Some(Frame { mask, position, .. }) = &mut self.frame else { return };
        let at = self.ping.len();
        self.ping.extend_from_slice(payload);
        unmask(&mut self.ping[at..], mask.unwrap_or_default(), *position);
        *position = (*position + payload.len()) % 4;
        // The maximum in RFC 6455.
        self.ping.truncate(125);
        if ended && self.pings.len() < MAX_PINGS {
            self.pings.push(std::mem::take(&mut self.ping));
        }
    }

    fn push_header<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Unreadable> {
        let mut at = 0;
        while at < bytes.len() {
            self.header.push(bytes[at]);
            at += 1;
            if self.header.len() == header_length(&self.header) {
                self.start_frame()?;
                break;
            }
        }
        Ok(&bytes[at..])
    }

    fn start_frame(&mut self) -> Result<(), Unreadable> {
        let header = std::mem::take(&mut self.header);
        debug_assert!(header.len() <= MAX_HEADER);
        let (opcode, is_final) = (header[0] & 0x0f, header[0] & 0x80 != 0);
        let (length, at) = match header[1] & 0x7f {
            126 => (u64::from(u16::from_be_bytes([header[2], header[3]])), 4),
            127 => {
                let mut length = [0; 8];
                length.copy_from_slice(&header[2..10]);
                (u64::from_be_bytes(length) & (u64::MAX >> 1), 10)
            }
            length => (u64::from(length), 2),
        };
        let mask = (header[1] & 0x80 != 0)
            .then(|| [header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let is_data = !matches!(opcode, CLOSE | PING | PONG);
        if opcode == CLOSE {
            self.closed = true;
        }
        // A data frame within an incomplete message starts a new message.
        let starts_message = is_data && (opcode != CONTINUATION || !self.in_message);
        if let Some(inflate) = self.inflate.as_mut().filter(|_| starts_message) {
            if inflate.is_active {
                return Err(Unreadable("a compressed message was not finished"));
            }
            inflate.is_active = header[0] & 0x40 != 0;
        }
        if is_data {
            self.in_message = !is_final;
        }
        self.frame = Some(Frame {
            remaining: length,
            mask,
            position: 0,
            is_data,
            is_ping: opcode == PING,
            is_final,
            starts_message,
            starts_frame: true,
        });
        self.header = header;
        self.header.clear();
        Ok(())
    }

    fn payload(
        &mut self,
        payload: &[u8],
        frame_ended: bool,
        on: &mut impl FnMut(Part<'_>) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        let Some(frame) = &mut self.frame else { return Ok(()) };
        let ends_message = frame_ended && frame.is_final;
        let bytes = match frame.mask {
            Some(mask) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(payload);
                unmask(&mut self.scratch, mask, frame.position);
                frame.position = (frame.position + payload.len()) % 4;
                &self.scratch[..]
            }
            None => payload,
        };
        // The flags belong to the first piece, which comes from a later chunk if this one
        // decompresses to nothing.
        let starts = &mut self.starts;
        starts.message |= std::mem::take(&mut frame.starts_message);
        starts.frame |= std::mem::take(&mut frame.starts_frame);
        let mut part = |bytes: &[u8], ends_message| {
            let Starts { message: starts_message, frame: starts_frame } = std::mem::take(starts);
            on(Part { starts_message, starts_frame, ends_message, bytes })
        };
        let Some(inflate) = self.inflate.as_mut().filter(|inflate| inflate.is_active) else {
            return part(bytes, ends_message);
        };
        inflate.inflate.push(bytes, &mut |bytes| part(bytes, false))?;
        if ends_message {
            inflate.inflate.push(&[0, 0, 0xff, 0xff], &mut |bytes| part(bytes, false))?;
            inflate.is_active = false;
            if inflate.settings.resets_context {
                inflate.inflate.reset();
            }
            part(&[], true)?;
        }
        Ok(())
    }
}

/// Returns the length of the header that starts with these bytes, as far as they determine it.
fn header_length(header: &[u8]) -> usize {
    let Some(second) = header.get(1) else { return 2 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 != 0 { 4 } else { 0 }
}

fn unmask(bytes: &mut [u8], mut mask: [u8; 4], position: usize) {
    mask.rotate_left(position);
    let mut words = bytes.chunks_exact_mut(4);
    let key = u32::from_ne_bytes(mask);
    for word in &mut words {
        let value = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]) ^ key;
        word.copy_from_slice(&value.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// Appends one final frame, as a server sends it, or masked, as a client does.
pub fn encode_frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        length @ 0..=125 => out.push(masked | length as u8),
        length @ 126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(mask.as_ref().map_or(&[], |mask| mask.as_slice()));
    let at = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        unmask(&mut out[at..], mask, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(reader: &mut WebSocketReader, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut messages: Vec<Vec<u8>> = Vec::new();
        let mut on = |part: Part<'_>| {
            if part.starts_message {
                messages.push(Vec::new());
            }
            messages.last_mut().unwrap().extend_from_slice(part.bytes);
            Ok(())
        };
        reader.push(bytes, &mut on).unwrap();
        messages
    }

    #[test]
    fn the_examples_of_rfc_6455_are_read() {
        let mut reader = WebSocketReader::new(None);
        let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(messages(&mut reader, &masked), [b"Hello"]);
        let fragmented = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x89, 0x01, 0x21, 0x80, 0x02, 0x6c, 0x6f];
        assert_eq!(messages(&mut reader, &fragmented), [b"Hello"]);
        assert!(reader.is_between_messages());
    }

    #[test]
    fn the_examples_of_rfc_7692_are_read() {
        let deflate = Deflate { resets_context: false };
        let mut reader = WebSocketReader::new(Some(deflate));
        let first = [0xc1, 0x07, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(messages(&mut reader, &first), [b"Hello"]);
        // The second message refers to the first one.
        let second = [0xc1, 0x05, 0xf2, 0x00, 0x11, 0x00, 0x00];
        assert_eq!(messages(&mut reader, &second), [b"Hello"]);
        let fragmented = [0x41, 0x03, 0xf2, 0x48, 0xcd, 0x80, 0x04, 0xc9, 0xc9, 0x07, 0x00];
        let mut reader = WebSocketReader::new(Some(Deflate { resets_context: true }));
        assert_eq!(messages(&mut reader, &fragmented), [b"Hello"]);
        assert_eq!(messages(&mut reader, &first), [b"Hello"]);
        assert_eq!(messages(&mut reader, &[0x81, 0x02, b'h', b'i']), [b"hi"]);
    }

    #[test]
    fn nothing_is_read_after_close() {
        let mut reader = WebSocketReader::new(None);
        let mut bytes = vec![0x88, 0x00];
        encode_frame(2, b"late", None, &mut bytes);
        assert!(messages(&mut reader, &bytes).is_empty());
        assert!(reader.is_closed());
    }

    #[test]
    fn reserved_opcodes_and_long_lengths_are_data() {
        let mut reader = WebSocketReader::new(None);
        let bytes = [0xf3, 0x7e, 0, 2, b'o', b'k', 0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 1, b'!'];
        assert_eq!(messages(&mut reader, &bytes), [&b"ok"[..], b"!"]);
    }
}
