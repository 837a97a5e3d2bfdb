//! SPDY/3.1 frames, as used by spdystream and Kubernetes.

use std::collections::HashMap;

use crate::Unreadable;
use crate::inflate::{RawInflate, encode_stored};

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const HEADERS: u16 = 8;
const FIN: u8 = 1;
/// Maximum size of a header block, compressed or not. Those of Kubernetes have about 100 bytes.
const MAX_HEADERS: usize = 64 << 10;
/// Maximum number of open streams; exec has 5, port-forward two per connection.
const MAX_STREAMS: usize = 16 << 10;

/// The purpose of a stream: its header `streamtype`, and `port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamType {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The Status at the end of the session.
    Error,
    /// Sizes of the terminal.
    Resize,
    /// A forwarded connection.
    Data,
    /// Any other stream, which Kubernetes ignores.
    Unknown,
}

/// An event of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpdyEvent<'a> {
    /// A stream was opened.
    Opened {
        /// Its number.
        id: u32,
        /// Its purpose.
        stream: StreamType,
        /// The port to connect to.
        port: Option<u16>,
    },
    /// Data of a stream.
    Data {
        /// Its number.
        id: u32,
        /// Its purpose.
        stream: StreamType,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// One side has ended a stream.
    Ended {
        /// Its number.
        id: u32,
        /// Its purpose.
        stream: StreamType,
        /// Whether it ended in both directions.
        is_reset: bool,
    },
    /// A PING frame.
    Ping(u32),
}

/// The streams of a connection, which both directions refer to.
#[derive(Debug, Default)]
pub struct Streams {
    open: HashMap<u32, Open>,
}

#[derive(Debug)]
struct Open {
    stream: StreamType,
    ends: u8,
}

impl Streams {
    /// Returns the number of the stream of this type.
    pub fn id_of(&self, wanted: StreamType) -> Option<u32> {
        self.open.iter().find(|(_, open)| open.stream == wanted).map(|(id, _)| *id)
    }

    fn stream(&self, id: u32) -> StreamType {
        self.open.get(&id).map_or(StreamType::Unknown, |open| open.stream)
    }

    /// Adds a stream. Only the first one with a number counts, because spdystream rejects others.
    fn add(&mut self, id: u32, stream: StreamType) -> Result<(), Unreadable> {
        if self.open.len() >= MAX_STREAMS {
            return Err(Unreadable("a SPDY connection has too many streams"));
        }
        self.open.entry(id).or_insert(Open { stream, ends: 0 });
        Ok(())
    }

    fn ended(&mut self, id: u32, is_reset: bool) {
        let Some(open) = self.open.get_mut(&id) else { return };
        open.ends += if is_reset { 2 } else { 1 };
        // The streams of exec are few, and are needed until the end.
        if open.ends >= 2 && matches!(open.stream, StreamType::Data | StreamType::Unknown) {
            self.open.remove(&id);
        }
    }
}

/// Reads one direction of a SPDY connection.
#[derive(Debug, Default)]
pub struct SpdyReader {
    header: Vec<u8>,
    frame: Option<Frame>,
    headers: HeaderInflate,
}

#[derive(Debug)]
enum Frame {
    Data {
        id: u32,
        is_last: bool,
        remaining: u32,
    },
    /// A control frame whose payload is incomplete.
    Control {
        kind: u16,
        flags: u8,
        remaining: u32,
        payload: Vec<u8>,
    },
    Skipped {
        remaining: u32,
    },
}

impl SpdyReader {
    /// Returns whether the next byte starts a frame.
    pub fn is_between_frames(&self) -> bool {
        self.frame.is_none() && self.header.is_empty()
    }

    /// Reads bytes and passes the events to `on`. Returns the number of bytes up to the last end of
    /// a frame, if there is one.
    ///
    /// # Errors
    /// If this is not SPDY/3.1.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        streams: &mut Streams,
        on: &mut impl FnMut(SpdyEvent<'_>) -> Result<(), Unreadable>,
    ) -> Result<Option<usize>, Unreadable> {
        let all = bytes.len();
        let mut boundary = None;
        while !bytes.is_empty() {
            if self.frame.is_none() {
                let take = (8 - self.header.len()).min(bytes.len());
                let (start, rest) = bytes.split_at(take);
                self.header.extend_from_slice(start);
                bytes = rest;
                if self.header.len() < 8 {
                    break;
                }
                self.start_frame()?;
            }
            bytes = self.push_payload(bytes, streams, on)?;
            if self.frame.is_none() {
                boundary = Some(all - bytes.len());
            }
        }
        Ok(boundary)
    }

    fn start_frame(&mut self) -> Result<(), Unreadable> {
        let header = &self.header;
        let first = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let flags = header[4];
        let remaining = u32::from_be_bytes([0, header[5], header[6], header[7]]);
        let kind = first as u16;
        let frame = if first & (1 << 31) == 0 {
            Frame::Data { id: first, is_last: flags & FIN != 0, remaining }
        } else if matches!(kind, SYN_STREAM | SYN_REPLY | RST_STREAM | PING | HEADERS) {
            if remaining as usize > MAX_HEADERS {
                return Err(Unreadable("a SPDY control frame is too long"));
            }
            Frame::Control { kind, flags, remaining, payload: Vec::new() }
        } else {
            Frame::Skipped { remaining }
        };
        self.frame = Some(frame);
        self.header.clear();
        Ok(())
    }

    /// Handles a part of the frame's payload, and the end of the frame.
    fn push_payload<'a>(
        &mut self,
        bytes: &'a [u8],
        streams: &mut Streams,
        on: &mut impl FnMut(SpdyEvent<'_>) -> Result<(), Unreadable>,
    ) -> Result<&'a [u8], Unreadable> {
        let Some(frame) = &mut self.frame else { return Ok(bytes) };
        let (Frame::Data { remaining, .. }
        | Frame::Control { remaining, .. }
        | Frame::Skipped { remaining }) = frame;
        let take = (*remaining as usize).min(bytes.len());
        *remaining -= take as u32;
        let ended = *remaining == 0;
        let (part, rest) = bytes.split_at(take);
        match frame {
            Frame::Data { id, is_last, .. } => {
                let (id, is_last) = (*id, *is_last);
                if !part.is_empty() {
                    on(SpdyEvent::Data { id, stream: streams.stream(id), bytes: part })?;
                }
                if ended && is_last {
                    let stream = streams.stream(id);
                    streams.ended(id, false);
                    on(SpdyEvent::Ended { id, stream, is_reset: false })?;
                }
            }
            Frame::Control { kind, flags, payload, .. } => {
                payload.extend_from_slice(part);
                if ended {
                    let (kind, flags, payload) = (*kind, *flags, std::mem::take(payload));
                    self.control(kind, flags, &payload, streams, on)?;
                }
            }
            Frame::Skipped { .. } => {}
        }
        if ended {
            self.frame = None;
        }
        Ok(rest)
    }

    fn control(
        &mut self,
        kind: u16,
        flags: u8,
        payload: &[u8],
        streams: &mut Streams,
        on: &mut impl FnMut(SpdyEvent<'_>) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        let short = Unreadable("a SPDY control frame is too short");
        let word = payload.first_chunk::<4>().ok_or(short)?;
        let number = u32::from_be_bytes(*word);
        let id = number & (u32::MAX >> 1);
        match kind {
            PING => return on(SpdyEvent::Ping(number)),
            RST_STREAM => {
                let stream = streams.stream(id);
                streams.ended(id, true);
                return on(SpdyEvent::Ended { id, stream, is_reset: true });
            }
            SYN_STREAM => {
                let block = payload.get(10..).ok_or(short)?;
                let headers = self.headers.push(block)?;
                let (stream, port) = stream_type(&headers)?;
                streams.add(id, stream)?;
                on(SpdyEvent::Opened { id, stream, port })?;
            }
            // Even irrelevant headers must be decompressed, because later ones depend on them.
            _ => drop(self.headers.push(&payload[4..])?),
        }
        if flags & FIN != 0 {
            let stream = streams.stream(id);
            streams.ended(id, false);
            on(SpdyEvent::Ended { id, stream, is_reset: false })?;
        }
        Ok(())
    }
}

/// Decompresses the header blocks of one direction, which are one zlib stream.
#[derive(Debug, Default)]
struct HeaderInflate(Option<RawInflate>);

impl HeaderInflate {
    fn push(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Unreadable> {
        if self.0.is_none() && !block.is_empty() {
            let invalid = Unreadable("SPDY headers are not compressed with zlib");
            let (head, rest) = block.split_first_chunk::<2>().ok_or(invalid)?;
            if head[0] & 0x0f != 8 || u16::from_be_bytes(*head) % 31 != 0 {
                return Err(invalid);
            }
            (block, self.0) = match head[1] & 0x20 {
                0 => (rest, Some(RawInflate::new())),
                _ => (rest.get(4..).ok_or(invalid)?, Some(RawInflate::with_dictionary(DICTIONARY))),
            };
        }
        let mut headers = Vec::new();
        if let Some(inflate) = &mut self.0 {
            inflate.push(block, &mut |bytes| {
                headers.extend_from_slice(bytes);
                match headers.len() > MAX_HEADERS {
                    true => Err(Unreadable("SPDY headers are too long")),
                    false => Ok(()),
                }
            })?;
        }
        Ok(headers)
    }
}

/// Returns the purpose of a stream with these headers. Like in Go's `http.Header.Get`, the first of
/// several values counts.
fn stream_type(headers: &[u8]) -> Result<(StreamType, Option<u16>), Unreadable> {
    let invalid = Unreadable("SPDY headers are invalid");
    let mut rest = headers;
    let word = |rest: &mut &[u8]| -> Result<usize, Unreadable> {
        let (word, after) = rest.split_first_chunk::<4>().ok_or(invalid)?;
        *rest = after;
        Ok(u32::from_be_bytes(*word) as usize)
    };
    let (mut stream, mut port) = (None, None);
    for _ in 0..word(&mut rest)? {
        let text = |rest: &mut &[u8]| -> Result<String, Unreadable> {
            let length = word(rest)?;
            let (text, after) = rest.split_at_checked(length).ok_or(invalid)?;
            *rest = after;
            Ok(String::from_utf8_lossy(text).into_owned())
        };
        let (name, value) = (text(&mut rest)?, text(&mut rest)?);
        let value = value.split('\0').next().unwrap_or_default();
        if name.eq_ignore_ascii_case("streamtype") && stream.is_none() {
            stream = Some(match value {
                "stdin" => StreamType::Stdin,
                "stdout" => StreamType::Stdout,
                "stderr" => StreamType::Stderr,
                "error" => StreamType::Error,
                "resize" => StreamType::Resize,
                "data" => StreamType::Data,
                _ => StreamType::Unknown,
            });
        } else if name.eq_ignore_ascii_case("port") && port.is_none() {
            port = value.parse().ok();
        }
    }
    Ok((stream.unwrap_or(StreamType::Unknown), port))
}

/// Writes SPDY frames. Headers are stored, not compressed.
#[derive(Debug, Default)]
pub struct SpdyWriter {
    has_header: bool,
}

impl SpdyWriter {
    /// Appends a SYN_STREAM frame.
    pub fn syn_stream(&mut self, id: u32, headers: &[(&str, &str)], out: &mut Vec<u8>) {
        let mut payload = id.to_be_bytes().to_vec();
        payload.extend_from_slice(&[0; 6]);
        self.block(headers, &mut payload);
        control(SYN_STREAM, 0, &payload, out);
    }

    /// Appends a SYN_REPLY frame without headers.
    pub fn syn_reply(&mut self, id: u32, out: &mut Vec<u8>) {
        let mut payload = id.to_be_bytes().to_vec();
        self.block(&[], &mut payload);
        control(SYN_REPLY, 0, &payload, out);
    }

    /// Appends the response to a PING frame.
    pub fn ping(&mut self, id: u32, out: &mut Vec<u8>) {
        control(PING, 0, &id.to_be_bytes(), out);
    }

    fn block(&mut self, headers: &[(&str, &str)], payload: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_header, true) {
            // The preset dictionary is identified by its Adler-32.
            payload.extend_from_slice(&[0x78, 0xbb]);
            payload.extend_from_slice(&adler32(DICTIONARY).to_be_bytes());
        }
        let mut block = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&(text.len() as u32).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
        encode_stored(&block, payload);
        // Go's reader returns a block when the next one begins, so an empty one follows.
        encode_stored(b"", payload);
    }
}

/// Appends a data frame, the last one of its stream if `is_last`.
pub fn encode_data(id: u32, bytes: &[u8], is_last: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&((bytes.len() as u32) | (u32::from(is_last) << 24)).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn control(kind: u16, flags: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&0x8003_u16.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&((payload.len() as u32) | (u32::from(flags) << 24)).to_be_bytes());
    out.extend_from_slice(payload);
}

fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    (b << 16) | a
}

/// The preset dictionary of SPDY/3 (section 2.6.10.1 of the specification).
const DICTIONARY: &[u8] = include_bytes!("spdy_dictionary.bin");

#[cfg(test)]
mod tests;
