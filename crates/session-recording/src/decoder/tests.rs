use proptest::prelude::*;

use super::*;
use crate::spdy::SpdyWriter;
use crate::{Deflate, spdy};

/// Events as text, data of a stream joined.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    stdin: Vec<u8>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Vec<u8>,
    sizes: Vec<(u16, u16)>,
    ports: Vec<u16>,
    forwarded: u64,
}

impl Seen {
    fn add(&mut self, event: SessionEvent<'_>) {
        match event {
            SessionEvent::Data(Stream::Stdin, bytes) => self.stdin.extend_from_slice(bytes),
            SessionEvent::Data(Stream::Stdout, bytes) => self.stdout.extend_from_slice(bytes),
            SessionEvent::Data(Stream::Stderr, bytes) => self.stderr.extend_from_slice(bytes),
            SessionEvent::Status(bytes) => self.status.extend_from_slice(bytes),
            SessionEvent::Resize(columns, rows) => self.sizes.push((columns, rows)),
            SessionEvent::Port(port) => self.ports.push(port),
            SessionEvent::Forwarded(bytes) => self.forwarded += bytes,
        }
    }
}

/// Decodes what the client and the server send, each cut at these places.
fn decode(
    (activity, protocol): (Activity, Protocol),
    client: &[u8],
    server: &[u8],
    cuts: &[usize],
) -> Seen {
    let mut decoder = Decoder::new(activity, protocol);
    let mut seen = Seen::default();
    for (direction, mut bytes) in [(Direction::FromClient, client), (Direction::FromServer, server)]
    {
        let mut cuts = cuts.iter().cycle();
        while !bytes.is_empty() {
            let size = cuts.next().map_or(bytes.len(), |cut| cut % bytes.len() + 1);
            let (chunk, rest) = bytes.split_at(size);
            bytes = rest;
            decoder.push(direction, chunk, &mut |event| seen.add(event)).unwrap();
        }
    }
    seen
}

fn raw() -> Protocol {
    Protocol::Channels { codec: Codec::Raw, deflate: None }
}

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

/// Messages of a channel, as a client sends them.
fn from_client(codec: Codec, channel: u8, payload: &[u8], out: &mut Vec<u8>) {
    let mut plain = Vec::new();
    encode_message(codec, channel, payload, &mut plain);
    let at = if plain[1] == 126 { 4 } else { 2 };
    encode_frame(plain[0] & 0x0f, &plain[at..], MASK, out);
}

/// Splits a payload into frames of one message.
fn fragmented(opcode: u8, payload: &[u8], size: usize, rsv: u8, out: &mut Vec<u8>) {
    let pieces: Vec<&[u8]> = payload.chunks(size.max(1)).collect();
    let last = pieces.len() - 1;
    for (index, piece) in pieces.into_iter().enumerate() {
        let at = out.len();
        encode_frame(if index == 0 { opcode } else { 0 }, piece, None, out);
        out[at] &= if index == last { 0xff } else { 0x7f };
        out[at] |= if index == 0 { rsv } else { 0 };
        if index == 0 {
            // Control frames may come in between.
            encode_frame(9, b"ping", None, out);
        }
    }
}

fn deflated(payloads: &[Vec<u8>], resets: bool) -> Vec<Vec<u8>> {
    use flate2::{Compress, Compression, FlushCompress};
    let mut state = Compress::new(Compression::default(), false);
    let message = |payload: &Vec<u8>| {
        let mut out = Vec::with_capacity(payload.len() * 2 + 1000);
        state.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
        if resets {
            state.reset();
        }
        out.truncate(out.len() - 4);
        out
    };
    payloads.iter().map(message).collect()
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8)
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0_usize..400, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn channels_are_parsed_in_arbitrary_chunks(
        payloads in payloads(), cuts in cuts(), base64 in any::<bool>(),
    ) {
        let codec = if base64 { Codec::Base64 } else { Codec::Raw };
        let (mut client, mut server, mut expected) = (Vec::new(), Vec::new(), Seen::default());
        for payload in &payloads {
            from_client(codec, 0, payload, &mut client);
            encode_message(codec, 1, payload, &mut server);
            encode_message(codec, 2, &[payload.as_slice(), b"!"].concat(), &mut server);
            expected.stdin.extend_from_slice(payload);
            expected.stdout.extend_from_slice(payload);
            expected.stderr.extend_from_slice(&[payload.as_slice(), b"!"].concat());
        }
        from_client(codec, 4, br#"{"Width":120,"Height":40}"#, &mut client);
        encode_message(codec, 3, b"done", &mut server);
        expected.sizes.push((120, 40));
        expected.status.extend_from_slice(b"done");
        let protocol = Protocol::Channels { codec, deflate: None };
        let seen = decode((Activity::Exec, protocol), &client, &server, &cuts);
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn fragments_and_compression_hide_nothing(
        payloads in payloads(), cuts in cuts(), size in 1_usize..50, resets in any::<bool>(),
    ) {
        let with_channel: Vec<Vec<u8>> =
            payloads.iter().map(|payload| [&[1], payload.as_slice()].concat()).collect();
        let (mut plain, mut compressed) = (Vec::new(), Vec::new());
        for message in &with_channel {
            fragmented(2, message, size, 0, &mut plain);
        }
        for message in deflated(&with_channel, resets) {
            fragmented(2, &message, size, 0x40, &mut compressed);
        }
        let expected = Seen { stdout: payloads.concat(), ..Seen::default() };
        let seen = decode((Activity::Exec, raw()), b"", &plain, &cuts);
        prop_assert_eq!(&seen, &expected);
        let of = Deflate { resets_context: resets };
        let protocol = Protocol::Channels { codec: Codec::Raw, deflate: Some((of, of)) };
        let seen = decode((Activity::Exec, protocol), b"", &compressed, &cuts);
        prop_assert_eq!(&seen, &expected);
    }

    #[test]
    fn spdy_streams_are_parsed_in_arbitrary_interleaved_chunks(
        payloads in payloads(), cuts in cuts(), tunnel in any::<bool>(),
    ) {
        let (mut writer, mut client, mut server) = (SpdyWriter::default(), Vec::new(), Vec::new());
        for (id, name) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr"), (9, "resize")] {
            writer.syn_stream(id, &[("streamtype", name)], &mut client);
        }
        let mut expected = Seen::default();
        for payload in &payloads {
            spdy::encode_data(3, payload, false, &mut client);
            spdy::encode_data(5, payload, false, &mut server);
            spdy::encode_data(7, payload, false, &mut server);
            for out in [&mut expected.stdin, &mut expected.stdout, &mut expected.stderr] {
                out.extend_from_slice(payload);
            }
        }
        spdy::encode_data(9, b"{\"Width\":9,\"Height\":8}\n", false, &mut client);
        spdy::encode_data(1, b"done", true, &mut server);
        expected.sizes.push((9, 8));
        expected.status.extend_from_slice(b"done");
        let mut protocol = Protocol::Spdy;
        if tunnel {
            protocol = Protocol::SpdyInWebSocket { deflate: None };
            for bytes in [&mut client, &mut server] {
                let inner = std::mem::take(bytes);
                inner.chunks(37).for_each(|chunk| encode_frame(2, chunk, MASK, bytes));
            }
        }
        let seen = decode((Activity::Exec, protocol), &client, &server, &cuts);
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn arbitrary_bytes_in_arbitrary_chunks_do_not_panic(
        client in prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(&b"\x00\x01\x02\x04\x810A="[..])], 0..400,
        ),
        cuts in cuts(),
        which in 0_u8..5,
    ) {
        let of = Deflate { resets_context: false };
        let protocol = match which {
            0 => raw(),
            1 => Protocol::Channels { codec: Codec::Base64, deflate: Some((of, of)) },
            2 => Protocol::Channels { codec: Codec::Base64, deflate: None },
            3 => Protocol::Spdy,
            _ => Protocol::SpdyInWebSocket { deflate: None },
        };
        let read = |cuts: &[usize]| {
            let mut decoder = Decoder::new(Activity::Exec, protocol);
            let (mut seen, mut rest) = (Seen::default(), &client[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at(cut % rest.len() + 1);
                rest = after;
                decoder.push(Direction::FromClient, chunk, &mut |event| seen.add(event)).ok()?;
                let _ = decoder.farewell("over", false);
            }
            Some(seen)
        };
        let whole = read(&[client.len().saturating_sub(1)]);
        if let (Some(whole), Some(cut)) = (whole, read(&cuts)) {
            prop_assert_eq!(whole, cut);
        }
    }
}

/// kube-apiserver ignores a message with invalid base64 and reads on, so the recording goes on.
#[test]
fn invalid_base64_in_arbitrary_chunks_does_not_end_a_recording() {
    for (payload, expected) in [
        (&b"0bHMK"[..], &b"ls\nps\n"[..]),
        (b"0bHMK?", b"ls\nps\n"),
        (b"0bHMK????", b"ls\nps\n"),
        (b"0bHM=bHMK", b"lsps\n"),
        (b"0bH\r\nMKb", b"ls\nps\n"),
        (b"0?", b"ps\n"),
    ] {
        // A message of its own, and a frame that only kube-apiserver takes for a message.
        for is_message in [true, false] {
            let mut client = Vec::new();
            if !is_message {
                encode_frame(1, b"4AAAA", MASK, &mut client);
                client[0] &= 0x7f;
            }
            encode_frame(u8::from(is_message), payload, MASK, &mut client);
            encode_frame(1, b"0cHMK", MASK, &mut client);
            let protocol = Protocol::Channels { codec: Codec::Base64, deflate: None };
            for size in 1..=client.len() {
                let cuts = vec![size - 1; client.len()];
                let seen = decode((Activity::Exec, protocol), &client, b"", &cuts);
                let payload = String::from_utf8_lossy(payload);
                assert_eq!(seen.stdin, expected, "{payload:?} in pieces of {size} bytes");
            }
        }
    }
}

/// kube-apiserver takes a continuation frame for a message: its first byte is a channel.
#[test]
fn input_that_only_kube_apiserver_accepts_is_recorded() {
    let mut client = Vec::new();
    encode_frame(2, &[4, b'{'], MASK, &mut client);
    client[0] &= 0x7f;
    encode_frame(0, b"\0rm -rf /\n", MASK, &mut client);
    let seen = decode((Activity::Exec, raw()), &client, b"", &[3]);
    assert_eq!(seen.stdin, b"rm -rf /\n");
    // By RFC 6455 it is all input.
    let mut client = Vec::new();
    encode_frame(2, b"\0l", MASK, &mut client);
    client[0] &= 0x7f;
    encode_frame(0, b"s\n", MASK, &mut client);
    let seen = decode((Activity::Exec, raw()), &client, b"", &[3]);
    assert_eq!(seen.stdin, b"ls\n");
}

#[test]
fn ports_and_sizes_of_a_port_forward_are_seen() {
    let mut server = Vec::new();
    encode_message(Codec::Raw, 0, &8080_u16.to_le_bytes(), &mut server);
    encode_message(Codec::Raw, 1, &8080_u16.to_le_bytes(), &mut server);
    encode_message(Codec::Raw, 0, b"hello", &mut server);
    let seen = decode((Activity::PortForward, raw()), b"", &server, &[1]);
    assert_eq!((seen.ports, seen.forwarded), (vec![8080], 5));
    let (mut writer, mut client) = (SpdyWriter::default(), Vec::new());
    writer.syn_stream(
        1,
        &[("streamtype", "data"), ("port", "443"), ("requestid", "0")],
        &mut client,
    );
    spdy::encode_data(1, b"GET /", false, &mut client);
    let seen = decode((Activity::PortForward, Protocol::Spdy), &client, b"", &[1]);
    assert_eq!((seen.ports, seen.forwarded), (vec![443], 5));
}

#[test]
fn a_closing_message_is_sent_between_messages_only() {
    let mut decoder = Decoder::new(Activity::Exec, raw());
    let mut server = Vec::new();
    encode_message(Codec::Raw, 1, b"output", &mut server);
    let (start, end) = server.split_at(4);
    assert_eq!(decoder.push(Direction::FromServer, start, &mut |_| {}), Ok(None));
    assert_eq!(decoder.farewell("disk full", false), None);
    assert_eq!(decoder.push(Direction::FromServer, end, &mut |_| {}), Ok(Some(end.len())));
    let farewell = decoder.farewell("disk full", false).unwrap();
    let seen = decode((Activity::Exec, raw()), b"", &farewell, &[5]);
    assert_eq!(seen.stdout, b"\r\ndisk full\r\n");
    assert!(seen.status.starts_with(b"{"));
}
