//! Session protocols: no bytes, in whatever pieces, make the decoder panic, and the pieces do not
//! change what is decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use session_recording::{
    Activity, Codec, Decoder, Deflate, Direction, Protocol, SessionEvent, Stream,
};

fn decode(protocol: Protocol, bytes: &[u8], size: usize) -> (Vec<u8>, Vec<u8>, bool) {
    let mut decoder = Decoder::new(Activity::Exec, protocol);
    let (mut stdin, mut stdout) = (Vec::new(), Vec::new());
    for direction in [Direction::FromClient, Direction::FromServer] {
        for chunk in bytes.chunks(size) {
            let pushed = decoder.push(direction, chunk, &mut |event| match event {
                SessionEvent::Data(Stream::Stdin, bytes) => stdin.extend_from_slice(bytes),
                SessionEvent::Data(_, bytes) => stdout.extend_from_slice(bytes),
                _ => {}
            });
            if pushed.is_err() {
                return (stdin, stdout, false);
            }
            let _ = decoder.farewell("over", pushed == Ok(Some(chunk.len())));
        }
    }
    (stdin, stdout, true)
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (which, size, bytes) = input;
    let deflate = Deflate { resets_context: which & 1 == 1 };
    let protocol = match which % 5 {
        0 => Protocol::Channels { codec: Codec::Raw, deflate: None },
        1 => Protocol::Channels { codec: Codec::Base64, deflate: None },
        2 => Protocol::Channels { codec: Codec::Raw, deflate: Some((deflate, deflate)) },
        3 => Protocol::Spdy,
        _ => Protocol::SpdyInWebSocket { deflate: None },
    };
    let (whole, cut) = (
        decode(protocol, bytes, bytes.len().max(1)),
        decode(protocol, bytes, usize::from(size) + 1),
    );
    // What is invalid is noticed sooner or later.
    if whole.2 && cut.2 {
        assert_eq!(whole, cut);
    }
});
