//! Both directions of a connection as one sequence of events.

use std::collections::HashMap;

use crate::channel::{ChannelReader, encode_message};
use crate::spdy::{SpdyEvent, SpdyReader, StreamType, Streams, encode_data};
use crate::websocket::{WebSocketReader, encode_frame};
use crate::{Activity, Codec, Protocol, Unreadable};

/// Maximum length of the JSON with the size of a terminal.
const MAX_RESIZE: usize = 256;

/// The sender of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The client.
    FromClient,
    /// The API server.
    FromServer,
}

/// A stream of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard input.
    Stdin,
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// An event of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent<'a> {
    /// Data of a stream.
    Data(Stream, &'a [u8]),
    /// The number of columns and rows of the client's terminal.
    Resize(u16, u16),
    /// A part of the Status at the end.
    Status(&'a [u8]),
    /// A port is forwarded.
    Port(u16),
    /// The number of bytes that were forwarded.
    Forwarded(u64),
}

/// Decodes a connection.
#[derive(Debug)]
pub struct Decoder {
    client: OneDirection,
    server: OneDirection,
    streams: Streams,
    codec: Option<Codec>,
    activity: Activity,
    resize: Resize,
    /// The port of each channel of a port-forward, until both its bytes are read.
    ports: HashMap<u8, Vec<u8>>,
}

#[derive(Debug)]
enum OneDirection {
    Channels(WebSocketReader, ChannelReader),
    Spdy(SpdyReader),
    Tunnel(WebSocketReader, SpdyReader),
}

impl OneDirection {
    fn new(protocol: Protocol, direction: Direction) -> OneDirection {
        let of = |(client, server)| match direction {
            Direction::FromClient => client,
            Direction::FromServer => server,
        };
        match protocol {
            Protocol::Channels { codec, deflate } => {
                // kube-apiserver treats frames as messages; it does not support compression.
                let reads_frames = direction == Direction::FromClient && deflate.is_none();
                let channels = ChannelReader::new(codec, reads_frames);
                OneDirection::Channels(WebSocketReader::new(deflate.map(of)), channels)
            }
            Protocol::Spdy => OneDirection::Spdy(SpdyReader::default()),
            Protocol::SpdyInWebSocket { deflate } => {
                OneDirection::Tunnel(WebSocketReader::new(deflate.map(of)), SpdyReader::default())
            }
        }
    }
}

impl Decoder {
    /// Creates a decoder for a connection that starts.
    pub fn new(activity: Activity, protocol: Protocol) -> Decoder {
        Decoder {
            client: OneDirection::new(protocol, Direction::FromClient),
            server: OneDirection::new(protocol, Direction::FromServer),
            streams: Streams::default(),
            codec: match protocol {
                Protocol::Channels { codec, .. } => Some(codec),
                _ => None,
            },
            activity,
            resize: Resize::default(),
            ports: HashMap::new(),
        }
    }

    /// Decodes bytes and passes the events to `on`. Returns the number of bytes up to the last
    /// position at which [`Decoder::farewell`] can be inserted, if there is one.
    ///
    /// # Errors
    /// If the bytes are not of the protocol; then none of the rest can be decoded.
    pub fn push(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        on: &mut impl FnMut(SessionEvent<'_>),
    ) -> Result<Option<usize>, Unreadable> {
        let Decoder { client, server, streams, activity, resize, ports, .. } = self;
        let activity = *activity;
        let reader = match direction {
            Direction::FromClient => client,
            Direction::FromServer => server,
        };
        match reader {
            OneDirection::Channels(socket, channels) => socket.push(bytes, &mut |part| {
                channels.push(part, &mut |number, bytes, only_frames| {
                    if activity == Activity::PortForward {
                        forwarded(ports, (number, only_frames), bytes, on);
                    } else {
                        channel_data(resize, direction, (number, only_frames), bytes, on);
                    }
                    Ok(())
                })
            }),
            OneDirection::Spdy(spdy) => spdy.push(bytes, streams, &mut |event| {
                spdy_event(resize, direction, event, on);
                Ok(())
            }),
            OneDirection::Tunnel(socket, spdy) => socket.push(bytes, &mut |part| {
                spdy.push(part.bytes, streams, &mut |event| {
                    spdy_event(resize, direction, event, on);
                    Ok(())
                })
                .map(drop)
            }),
        }
    }

    /// Returns bytes that show `text` on the client's terminal and end the session, to be sent
    /// where the API server's bytes end; `None` if they would be inserted within a message.
    /// `at_boundary`: they are inserted at the place that [`Decoder::push`] last returned.
    pub fn farewell(&self, text: &str, at_boundary: bool) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let line = format!("\r\n{text}\r\n");
        let is_command = self.activity != Activity::PortForward;
        match &self.server {
            OneDirection::Channels(socket, _) if at_boundary || socket.is_between_messages() => {
                if socket.is_closed() {
                    return Some(out);
                }
                if let Some(codec) = self.codec.filter(|_| is_command) {
                    encode_message(codec, 1, line.as_bytes(), &mut out);
                    encode_message(codec, 3, &failure(text), &mut out);
                }
                encode_frame(8, &1011_u16.to_be_bytes(), None, &mut out);
            }
            OneDirection::Tunnel(socket, _) if at_boundary || socket.is_between_messages() => {
                encode_frame(8, &1011_u16.to_be_bytes(), None, &mut out);
            }
            OneDirection::Spdy(spdy) if at_boundary || spdy.is_between_frames() => {
                let mut data = |stream, bytes: &[u8]| {
                    if let Some(id) = self.streams.id_of(stream).filter(|_| is_command) {
                        encode_data(id, bytes, true, &mut out);
                    }
                };
                data(StreamType::Stdout, line.as_bytes());
                data(StreamType::Error, &failure(text));
            }
            _ => return None,
        }
        Some(out)
    }
}

/// Returns the Status of a session that was ended.
fn failure(text: &str) -> Vec<u8> {
    let status = serde_json::json!({
        "metadata": {}, "status": "Failure", "message": text, "reason": "InternalError", "code": 500,
    });
    status.to_string().into_bytes()
}

fn channel_data(
    resize: &mut Resize,
    direction: Direction,
    (number, only_frames): (u8, bool),
    bytes: &[u8],
    on: &mut impl FnMut(SessionEvent<'_>),
) {
    let event = match (direction, number) {
        (Direction::FromClient, 0) => SessionEvent::Data(Stream::Stdin, bytes),
        (Direction::FromClient, 4) if !only_frames => return resize.push(bytes, on),
        (Direction::FromServer, 1) => SessionEvent::Data(Stream::Stdout, bytes),
        (Direction::FromServer, 2) => SessionEvent::Data(Stream::Stderr, bytes),
        (Direction::FromServer, 3) => SessionEvent::Status(bytes),
        // This includes 255, with which `v5.channel.k8s.io` closes channels.
        _ => return,
    };
    if !bytes.is_empty() {
        on(event);
    }
}

/// Handles data of a channel of a port-forward; the data of each channel begins with its port.
fn forwarded(
    ports: &mut HashMap<u8, Vec<u8>>,
    (number, only_frames): (u8, bool),
    mut bytes: &[u8],
    on: &mut impl FnMut(SessionEvent<'_>),
) {
    // Odd channels are for errors.
    if only_frames || number % 2 == 1 {
        return;
    }
    let port = ports.entry(number).or_default();
    if port.len() < 2 {
        let (start, rest) = bytes.split_at(bytes.len().min(2 - port.len()));
        port.extend_from_slice(start);
        bytes = rest;
        if let [low, high] = port[..] {
            on(SessionEvent::Port(u16::from_le_bytes([low, high])));
        }
    }
    if !bytes.is_empty() {
        on(SessionEvent::Forwarded(bytes.len() as u64));
    }
}

fn spdy_event(
    resize: &mut Resize,
    direction: Direction,
    event: SpdyEvent<'_>,
    on: &mut impl FnMut(SessionEvent<'_>),
) {
    match event {
        SpdyEvent::Data { stream, bytes, .. } => match (direction, stream) {
            (Direction::FromClient, StreamType::Stdin) => {
                on(SessionEvent::Data(Stream::Stdin, bytes));
            }
            (Direction::FromClient, StreamType::Resize) => resize.push(bytes, on),
            (Direction::FromServer, StreamType::Stdout) => {
                on(SessionEvent::Data(Stream::Stdout, bytes));
            }
            (Direction::FromServer, StreamType::Stderr) => {
                on(SessionEvent::Data(Stream::Stderr, bytes));
            }
            (Direction::FromServer, StreamType::Error) => on(SessionEvent::Status(bytes)),
            (_, StreamType::Data) => on(SessionEvent::Forwarded(bytes.len() as u64)),
            _ => {}
        },
        SpdyEvent::Opened { stream: StreamType::Data, port: Some(port), .. } => {
            on(SessionEvent::Port(port));
        }
        _ => {}
    }
}

/// Collects sizes of the terminal, each a JSON object.
#[derive(Debug, Default)]
struct Resize(Vec<u8>);

impl Resize {
    fn push(&mut self, bytes: &[u8], on: &mut impl FnMut(SessionEvent<'_>)) {
        for byte in bytes {
            if self.0.len() < MAX_RESIZE {
                self.0.push(*byte);
            }
            if *byte == b'}' {
                #[derive(serde::Deserialize)]
                struct Size {
                    #[serde(alias = "width", alias = "Width", default)]
                    columns: u16,
                    #[serde(alias = "height", alias = "Height", default)]
                    rows: u16,
                }
                if let Ok(size) = serde_json::from_slice::<Size>(&self.0) {
                    on(SessionEvent::Resize(size.columns, size.rows));
                }
                self.0.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests;
