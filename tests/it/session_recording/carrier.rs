//! The protocols of sessions, and the bytes that client and server send with each.

use flate2::{Compress, Compression, FlushCompress};
use session_recording::channel::encode_message;
use session_recording::spdy::{SpdyWriter, encode_data};
use session_recording::websocket::encode_frame;
use session_recording::{Codec, Stream};

const EXITED: &[u8] = br#"{"metadata":{},"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
const MASK: Option<[u8; 4]> = Some([7, 1, 9, 3]);

/// The protocol of a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Carrier {
    WebSocket(&'static str, Codec),
    /// With permessage-deflate, in fragments.
    Deflate,
    Spdy,
}

pub const CARRIERS: [Carrier; 7] = [
    Carrier::WebSocket("v5.channel.k8s.io", Codec::Raw),
    Carrier::WebSocket("v4.channel.k8s.io", Codec::Raw),
    Carrier::WebSocket("channel.k8s.io", Codec::Raw),
    Carrier::WebSocket("base64.channel.k8s.io", Codec::Base64),
    Carrier::WebSocket("v4.base64.channel.k8s.io", Codec::Base64),
    Carrier::Deflate,
    Carrier::Spdy,
];

impl Carrier {
    /// Returns the request's headers.
    pub fn request(self) -> Vec<String> {
        let text = match self {
            Carrier::WebSocket(name, _) => websocket(name),
            Carrier::Deflate => format!(
                "{}\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
                websocket("v5.channel.k8s.io")
            ),
            Carrier::Spdy => "Connection: Upgrade\nUpgrade: SPDY/3.1\n\
                X-Stream-Protocol-Version: v4.channel.k8s.io\nContent-Length: 0"
                .to_owned(),
        };
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// Returns what the server sends: these streams, and then an exit code of 7.
    pub fn server(self, output: &[(Stream, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut deflate = Compress::new(Compression::default(), false);
        let mut writer = SpdyWriter::default();
        if self == Carrier::Spdy {
            [1, 3, 5, 7, 9].iter().for_each(|id| writer.syn_reply(*id, &mut out));
        }
        let status = std::iter::once((3, EXITED));
        let channel = |stream: &Stream| if *stream == Stream::Stderr { 2 } else { 1 };
        for (channel, bytes) in output.iter().map(|(s, b)| (channel(s), *b)).chain(status) {
            match self {
                Carrier::WebSocket(_, codec) => encode_message(codec, channel, bytes, &mut out),
                Carrier::Deflate => {
                    let message = [&[channel], bytes].concat();
                    let mut packed = Vec::with_capacity(message.len() * 2 + 100);
                    deflate.compress_vec(&message, &mut packed, FlushCompress::Sync).unwrap();
                    packed.truncate(packed.len() - 4);
                    let (first, second) = packed.split_at(packed.len() / 2);
                    let at = out.len();
                    encode_frame(2, first, None, &mut out);
                    out[at] = 0x42;
                    encode_frame(9, b"", None, &mut out);
                    encode_frame(0, second, None, &mut out);
                }
                Carrier::Spdy => {
                    // Opened below: error 1, stdin 3, stdout 5, stderr 7, resize 9.
                    let id = [0, 5, 7, 1][usize::from(channel)];
                    encode_data(id, bytes, channel == 3, &mut out);
                }
            }
        }
        out
    }

    /// Returns what the client sends: its terminal's size, and some input.
    pub fn client(self, typed: &[u8]) -> Vec<u8> {
        let (mut out, size) = (Vec::new(), br#"{"Width":132,"Height":43}"#);
        match self {
            Carrier::WebSocket(_, Codec::Base64) => {
                let mut plain = Vec::new();
                encode_message(Codec::Base64, 4, size, &mut plain);
                encode_frame(1, &plain[2..], MASK, &mut out);
                plain.clear();
                encode_message(Codec::Base64, 0, typed, &mut plain);
                encode_frame(1, &plain[2..], MASK, &mut out);
            }
            Carrier::WebSocket(..) | Carrier::Deflate => {
                encode_frame(2, &[&[4], &size[..]].concat(), MASK, &mut out);
                encode_frame(2, &[&[0], typed].concat(), MASK, &mut out);
            }
            Carrier::Spdy => {
                let mut writer = SpdyWriter::default();
                let streams =
                    [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr"), (9, "resize")];
                for (id, name) in streams {
                    writer.syn_stream(id, &[("streamtype", name)], &mut out);
                }
                encode_data(9, size, false, &mut out);
                encode_data(3, typed, false, &mut out);
            }
        }
        out
    }
}

fn websocket(protocol: &str) -> String {
    format!(
        "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Protocol: {protocol}"
    )
}
