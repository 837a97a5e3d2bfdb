//! The channel protocols of Kubernetes: each WebSocket message starts with the number of its
//! channel.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::websocket::Part;
use crate::{Codec, Unreadable};

/// Splits messages into channels.
#[derive(Debug)]
pub struct ChannelReader {
    codec: Codec,
    /// By RFC 6455, a channel is named at the start of each message.
    message: Lane,
    /// kube-apiserver treats each frame as a message, including continuation frames.
    frame: Option<Lane>,
    reads_frames: bool,
}

/// The state of one interpretation of the bytes: the channel, once it is known, and base64 that is
/// not decoded yet.
#[derive(Debug, Default)]
struct Lane {
    channel: Option<u8>,
    base64: Vec<u8>,
    decoded: Vec<u8>,
    /// The base64 has ended: with padding, or because it is invalid.
    has_ended: bool,
}

impl ChannelReader {
    /// Creates a reader. `reads_frames`: the receiver may treat continuation frames as messages,
    /// like kube-apiserver.
    pub fn new(codec: Codec, reads_frames: bool) -> ChannelReader {
        ChannelReader { codec, message: Lane::default(), frame: None, reads_frames }
    }

    /// Passes the channel and the payload in `part` to `on`; the third argument is `true` if only a
    /// receiver that treats frames as messages sees this payload.
    ///
    /// # Errors
    /// If `on` fails.
    pub fn push(
        &mut self,
        part: Part<'_>,
        on: &mut impl FnMut(u8, &[u8], bool) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        if part.starts_message {
            self.message = Lane::default();
            self.frame = None;
        } else if part.starts_frame && self.reads_frames {
            self.frame = Some(Lane::default());
        }
        let codec = self.codec;
        let main = self.message.push(codec, part.bytes);
        if let Some((channel, bytes)) = main {
            on(channel, bytes, false)?;
        }
        if let Some(lane) = &mut self.frame
            && let Some((channel, bytes)) = lane.push(codec, part.bytes)
            && self.message.channel != Some(channel)
        {
            on(channel, bytes, true)?;
        }
        Ok(())
    }
}

impl Lane {
    /// Returns the channel and the payload.
    fn push<'a>(&'a mut self, codec: Codec, mut bytes: &'a [u8]) -> Option<(u8, &'a [u8])> {
        let channel = match self.channel {
            Some(channel) => channel,
            None => {
                let (first, rest) = bytes.split_first()?;
                bytes = rest;
                let channel = match codec {
                    Codec::Raw => *first,
                    Codec::Base64 => first.wrapping_sub(b'0'),
                };
                *self.channel.insert(channel)
            }
        };
        Some(match codec {
            Codec::Raw => (channel, bytes),
            Codec::Base64 => {
                self.decode(bytes);
                (channel, &self.decoded)
            }
        })
    }

    /// Decodes complete groups of four characters up to the first invalid one; like Go's decoder,
    /// skips line breaks. The result does not depend on how the bytes are divided.
    ///
    /// kube-apiserver ignores a message with invalid base64 and reads the next one, so this is not
    /// an error; otherwise a client could end its recording with such a message. The data before
    /// the invalid group is decoded although the process does not receive it.
    fn decode(&mut self, bytes: &[u8]) {
        self.decoded.clear();
        if self.has_ended {
            return;
        }
        self.base64.extend(bytes.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        let whole = self.base64.len() / 4 * 4;
        if STANDARD.decode_vec(&self.base64[..whole], &mut self.decoded).is_ok() {
            self.has_ended = self.base64[..whole].ends_with(b"=");
        } else {
            self.has_ended = true;
            self.decoded.clear();
            for group in self.base64.chunks_exact(4) {
                let mut bytes = [0; 3];
                let Ok(length) = STANDARD.decode_slice(group, &mut bytes) else { break };
                self.decoded.extend_from_slice(&bytes[..length]);
                if group.ends_with(b"=") {
                    break;
                }
            }
        }
        self.base64.drain(..whole);
    }
}

/// Appends a message of `channel`, as a server sends it.
pub fn encode_message(codec: Codec, channel: u8, payload: &[u8], out: &mut Vec<u8>) {
    let (opcode, message) = match codec {
        Codec::Raw => (2, [&[channel], payload].concat()),
        Codec::Base64 => {
            let mut text = String::with_capacity(payload.len() * 4 / 3 + 5);
            text.push(char::from(b'0'.wrapping_add(channel)));
            STANDARD.encode_string(payload, &mut text);
            (1, text.into_bytes())
        }
    };
    crate::websocket::encode_frame(opcode, &message, None, out);
}
