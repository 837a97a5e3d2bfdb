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
    /// kube-apiserver takes each frame for a message, continuation frames, too.
    frame: Option<Lane>,
    reads_frames: bool,
}

/// A reading of the bytes: the channel, once it is known, and base64 that is not decoded yet.
#[derive(Debug, Default)]
struct Lane {
    channel: Option<u8>,
    base64: Vec<u8>,
    decoded: Vec<u8>,
}

impl ChannelReader {
    /// Creates a reader. `reads_frames`: whether the receiver may take continuation frames for
    /// messages, like kube-apiserver does.
    pub fn new(codec: Codec, reads_frames: bool) -> ChannelReader {
        ChannelReader { codec, message: Lane::default(), frame: None, reads_frames }
    }

    /// Gives the channel and the payload in `part` to `on`; the third argument is `true` if only a
    /// receiver that takes frames for messages reads it like this.
    ///
    /// # Errors
    /// If base64 is invalid, or `on` fails.
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
        let main = self.message.push(codec, part.bytes, part.ends_message);
        let result = match main {
            Some((channel, bytes)) => on(channel, bytes?, false),
            None => Ok(()),
        };
        // What is invalid in this reading was not meant like this.
        if let Some(lane) = &mut self.frame
            && let Some((channel, Ok(bytes))) = lane.push(codec, part.bytes, part.ends_message)
            && self.message.channel != Some(channel)
        {
            on(channel, bytes, true)?;
        }
        result
    }
}

impl Lane {
    fn push<'a>(
        &'a mut self,
        codec: Codec,
        mut bytes: &'a [u8],
        ends: bool,
    ) -> Option<(u8, Result<&'a [u8], Unreadable>)> {
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
            Codec::Raw => (channel, Ok(bytes)),
            Codec::Base64 => (channel, self.decode(bytes, ends)),
        })
    }

    /// Decodes what can be decoded; like Go's decoder, skips line breaks.
    fn decode(&mut self, bytes: &[u8], ends: bool) -> Result<&[u8], Unreadable> {
        self.base64.extend(bytes.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        let whole = if ends { self.base64.len() } else { self.base64.len() / 4 * 4 };
        self.decoded.clear();
        STANDARD
            .decode_vec(&self.base64[..whole], &mut self.decoded)
            .map_err(|_| Unreadable("base64 of a channel is invalid"))?;
        self.base64.drain(..whole);
        Ok(&self.decoded)
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
