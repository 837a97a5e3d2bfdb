use super::*;

fn read(reader: &mut SpdyReader, streams: &mut Streams, bytes: &[u8]) -> Vec<String> {
    let mut events = Vec::new();
    let mut on = |event: SpdyEvent<'_>| {
        events.push(format!("{event:?}"));
        Ok(())
    };
    reader.push(bytes, streams, &mut on).unwrap();
    events
}

/// A SYN_STREAM frame with headers that zlib compressed.
fn syn_stream(id: u32, block: &[u8]) -> Vec<u8> {
    let mut payload = id.to_be_bytes().to_vec();
    payload.extend_from_slice(&[0; 6]);
    payload.extend_from_slice(block);
    let mut frame = Vec::new();
    control(SYN_STREAM, 0, &payload, &mut frame);
    frame
}

#[test]
fn headers_compressed_by_zlib_are_read_across_frames() {
    // `streamtype: stdin`, and then `port: 8080, requestid: 0, streamtype: data`.
    let first = b"\x78\xf9\xe3\xc6\xa7\xc2\x02\xa6\x23\x46\x70\x3a\x2b\x29\x4a\x4d\xcc\x85\x16\x25\
                  \xac\xc5\x25\xc0\x3c\x01\x00\x00\x00\xff\xff";
    let second =
        b"\x02\xa5\x47\x48\xd1\x5c\x04\xce\x05\x16\x06\x16\x06\x40\x9a\xb3\x08\x12\x95\x99\
                   \xa0\x24\xce\x68\x80\xa1\x19\x54\x0e\x25\x02\x00\x00\x00\xff\xff";
    let (mut reader, mut streams) = (SpdyReader::default(), Streams::default());
    let bytes = [syn_stream(1, first), syn_stream(3, second)].concat();
    let events = read(&mut reader, &mut streams, &bytes);
    assert_eq!(
        events,
        [
            "Opened { id: 1, stream: Stdin, port: None }",
            "Opened { id: 3, stream: Data, port: Some(8080) }"
        ]
    );
    assert!(reader.is_between_frames());
}

#[test]
fn what_the_writer_writes_is_read() {
    let (mut reader, mut streams) = (SpdyReader::default(), Streams::default());
    let (mut writer, mut bytes) = (SpdyWriter::default(), Vec::new());
    writer.syn_stream(1, &[("streamtype", "error")], &mut bytes);
    writer.syn_stream(3, &[("streamtype", "stdout")], &mut bytes);
    writer.syn_reply(3, &mut bytes);
    encode_data(3, b"hi", true, &mut bytes);
    writer.ping(7, &mut bytes);
    let events = read(&mut reader, &mut streams, &bytes);
    assert_eq!(events.len(), 5, "{events:?}");
    assert_eq!(events[2], "Data { id: 3, stream: Stdout, bytes: [104, 105] }");
    assert_eq!(events[3..], ["Ended { id: 3, stream: Stdout, is_reset: false }", "Ping(7)"]);
    assert_eq!(streams.id_of(StreamType::Error), Some(1));
}

#[test]
fn the_first_type_of_a_stream_and_the_first_of_its_values_count() {
    let (mut reader, mut streams) = (SpdyReader::default(), Streams::default());
    let (mut writer, mut bytes) = (SpdyWriter::default(), Vec::new());
    writer.syn_stream(1, &[("StreamType", "stdin\0stdout")], &mut bytes);
    writer.syn_stream(1, &[("streamtype", "stdout")], &mut bytes);
    encode_data(1, b"ls", false, &mut bytes);
    let events = read(&mut reader, &mut streams, &bytes);
    assert_eq!(events.last().unwrap(), "Data { id: 1, stream: Stdin, bytes: [108, 115] }");
}

#[test]
fn what_is_no_zlib_is_refused() {
    let (mut reader, mut streams) = (SpdyReader::default(), Streams::default());
    let frame = syn_stream(1, b"plain headers");
    assert!(reader.push(&frame, &mut streams, &mut |_| Ok(())).is_err());
}
