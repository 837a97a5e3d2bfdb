//! The frames of a session, read and written by a server.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use session_recording::channel::{ChannelReader, encode_message};
use session_recording::spdy::{
    SpdyEvent, SpdyReader, SpdyWriter, StreamType, Streams, encode_data,
};
use session_recording::websocket::{WebSocketReader, encode_frame};
use session_recording::{Codec, Protocol, Stream, Unreadable};

use super::is_set;

/// Maximum size of a frame in bytes.
const FRAME: usize = 16 << 10;

/// A message from the client.
pub(super) enum ClientMessage {
    Input(Vec<u8>),
    InputEnded,
    Resized(u16, u16),
    Forwarded {
        id: u32,
        bytes: Vec<u8>,
    },
    ForwardEnded(u32),
    /// The client's error stream, on which it never sends anything, has ended.
    ErrorsEnded(u32),
}

/// The frames of a session.
pub(super) enum Wire {
    Channels { socket: Box<WebSocketReader>, channels: Box<ChannelReader>, codec: Codec },
    Spdy(Box<SpdyWire>),
}

pub(super) struct SpdyWire {
    /// Set if the SPDY frames are in WebSocket messages.
    socket: Option<WebSocketReader>,
    reader: SpdyReader,
    streams: Streams,
    writer: SpdyWriter,
    /// Streams that must be open before the command starts.
    awaited: Vec<StreamType>,
}

/// Returns the value of `Sec-WebSocket-Accept`.
pub(super) fn websocket_accept(key: &[u8]) -> String {
    let text = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text))
}

impl Wire {
    pub(super) fn new(protocol: Protocol, query: &str) -> Wire {
        let socket = || WebSocketReader::new(None).collecting_pings();
        let spdy = |socket| {
            let mut awaited = vec![StreamType::Error];
            for (name, stream) in [
                ("stdin", StreamType::Stdin),
                ("stdout", StreamType::Stdout),
                ("stderr", StreamType::Stderr),
                ("tty", StreamType::Resize),
            ] {
                let is_awaited = is_set(query, name) && !(name == "stderr" && is_set(query, "tty"));
                awaited.extend(is_awaited.then_some(stream));
            }
            Wire::Spdy(Box::new(SpdyWire {
                socket,
                reader: SpdyReader::default(),
                streams: Streams::default(),
                writer: SpdyWriter::default(),
                awaited,
            }))
        };
        match protocol {
            Protocol::Channels { codec, .. } => Wire::Channels {
                socket: Box::new(socket()),
                channels: Box::new(ChannelReader::new(codec, false)),
                codec,
            },
            Protocol::Spdy => spdy(None),
            Protocol::SpdyInWebSocket { .. } => spdy(Some(socket())),
        }
    }

    /// Returns whether the client has opened all streams of the command.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Wire::Channels { .. } => true,
            Wire::Spdy(spdy) => spdy.awaited.iter().all(|s| spdy.streams.id_of(*s).is_some()),
        }
    }

    /// Reads bytes; appends protocol replies to `out`.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Vec<ClientMessage>, Unreadable> {
        let mut arrived = Vec::new();
        match self {
            Wire::Channels { socket, channels, .. } => {
                socket.push(bytes, &mut |part| {
                    channels.push(part, &mut |channel, bytes, _| {
                        match (channel, bytes) {
                            (0, bytes) if !bytes.is_empty() => {
                                arrived.push(ClientMessage::Input(bytes.to_vec()));
                            }
                            (4, bytes) => arrived.extend(size(bytes)),
                            (255, [0]) => arrived.push(ClientMessage::InputEnded),
                            _ => {}
                        }
                        Ok(())
                    })
                })?;
                pongs(socket, out);
            }
            Wire::Spdy(spdy) => spdy.receive(bytes, &mut arrived, out)?,
        }
        Ok(arrived)
    }

    /// Appends output.
    pub(super) fn output(&mut self, stream: Stream, bytes: &[u8], out: &mut Vec<u8>) {
        for bytes in bytes.chunks(FRAME) {
            match self {
                Wire::Channels { codec, .. } => {
                    let channel = if stream == Stream::Stderr { 2 } else { 1 };
                    encode_message(*codec, channel, bytes, out);
                }
                Wire::Spdy(spdy) => {
                    let stream = match stream {
                        Stream::Stderr => StreamType::Stderr,
                        _ => StreamType::Stdout,
                    };
                    if let Some(id) = spdy.streams.id_of(stream) {
                        spdy.data(id, bytes, false, out);
                    }
                }
            }
        }
    }

    /// Appends data of a forwarded connection.
    pub(super) fn forwarded(&mut self, id: u32, bytes: &[u8], is_last: bool, out: &mut Vec<u8>) {
        if let Wire::Spdy(spdy) = self {
            spdy.data(id, bytes, is_last, out);
        }
    }

    /// Appends the end of the session.
    pub(super) fn exited(&mut self, code: i32, out: &mut Vec<u8>) {
        let status = match code {
            0 => serde_json::json!({"metadata": {}, "status": "Success"}),
            _ => serde_json::json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: exit code {code}"),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
        };
        let status = status.to_string();
        match self {
            Wire::Channels { codec, .. } => {
                encode_message(*codec, 3, status.as_bytes(), out);
                encode_frame(8, &1000_u16.to_be_bytes(), None, out);
            }
            Wire::Spdy(spdy) => {
                for stream in [StreamType::Stdout, StreamType::Stderr] {
                    if let Some(id) = spdy.streams.id_of(stream) {
                        spdy.data(id, b"", true, out);
                    }
                }
                if let Some(id) = spdy.streams.id_of(StreamType::Error) {
                    spdy.data(id, status.as_bytes(), true, out);
                }
            }
        }
    }
}

impl SpdyWire {
    fn receive(
        &mut self,
        bytes: &[u8],
        arrived: &mut Vec<ClientMessage>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unreadable> {
        let SpdyWire { socket, reader, streams, writer, .. } = self;
        let mut replies = Vec::new();
        let mut on = |event: SpdyEvent<'_>| {
            match event {
                SpdyEvent::Opened { id, .. } => writer.syn_reply(id, &mut replies),
                SpdyEvent::Ping(id) => writer.ping(id, &mut replies),
                SpdyEvent::Data { id, stream, bytes } => match stream {
                    StreamType::Stdin => arrived.push(ClientMessage::Input(bytes.to_vec())),
                    StreamType::Resize => arrived.extend(size(bytes)),
                    StreamType::Data => {
                        arrived.push(ClientMessage::Forwarded { id, bytes: bytes.to_vec() });
                    }
                    _ => {}
                },
                SpdyEvent::Ended { id, stream, .. } => match stream {
                    StreamType::Stdin => arrived.push(ClientMessage::InputEnded),
                    StreamType::Data => arrived.push(ClientMessage::ForwardEnded(id)),
                    StreamType::Error => arrived.push(ClientMessage::ErrorsEnded(id)),
                    _ => {}
                },
            }
            Ok(())
        };
        match socket {
            None => drop(reader.push(bytes, streams, &mut on)?),
            Some(socket) => {
                socket
                    .push(bytes, &mut |part| reader.push(part.bytes, streams, &mut on).map(drop))?;
                pongs(socket, out);
            }
        }
        self.send(&replies, out);
        Ok(())
    }

    fn data(&self, id: u32, bytes: &[u8], is_last: bool, out: &mut Vec<u8>) {
        let mut frame = Vec::new();
        encode_data(id, bytes, is_last, &mut frame);
        self.send(&frame, out);
    }

    fn send(&self, frames: &[u8], out: &mut Vec<u8>) {
        match &self.socket {
            Some(_) if !frames.is_empty() => encode_frame(2, frames, None, out),
            _ => out.extend_from_slice(frames),
        }
    }
}

fn pongs(socket: &mut WebSocketReader, out: &mut Vec<u8>) {
    for ping in socket.take_pings() {
        encode_frame(10, &ping, None, out);
    }
}

/// Parses the size of a terminal; each message contains one.
fn size(bytes: &[u8]) -> Option<ClientMessage> {
    let size: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let number = |name| size[name].as_u64().and_then(|number| u16::try_from(number).ok());
    Some(ClientMessage::Resized(number("Width")?, number("Height")?))
}
