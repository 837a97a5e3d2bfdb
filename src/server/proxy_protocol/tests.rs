use super::*;

fn v1(line: &str) -> Result<Option<String>, String> {
    said(parse(format!("{line}\r\n").as_bytes()))
}

fn said(parsed: Result<Option<SocketAddr>, HeaderError>) -> Result<Option<String>, String> {
    parsed.map(|address| address.map(|address| address.to_string())).map_err(|e| e.to_string())
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb];

#[test]
fn version_1() {
    let ok = |address: &str| Ok(Some(address.to_owned()));
    assert_eq!(v1("PROXY TCP4 192.0.2.7 10.0.0.1 4660 443"), ok("192.0.2.7:4660"));
    assert_eq!(v1("PROXY TCP6 2001:db8::7 ::1 1 443"), ok("[2001:db8::7]:1"));
    assert_eq!(v1("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 443"), ok("192.0.2.7:1"));
    assert_eq!(v1("PROXY UNKNOWN"), Ok(None));
    assert_eq!(v1("PROXY UNKNOWN ffff:f...f:ffff whatever"), Ok(None));
    for wrong in [
        "PROXY TCP4 192.0.2.7 10.0.0.1 4660",
        "PROXY TCP4 192.0.2.7 10.0.0.1 4660 443 1",
        "PROXY TCP4  192.0.2.7 10.0.0.1 4660 443",
        "PROXY TCP4 2001:db8::7 ::1 4660 443",
        "PROXY TCP4 192.0.2.07 10.0.0.1 4660 443",
        "PROXY TCP6 192.0.2.7 10.0.0.1 4660 443",
        "PROXY TCP4 192.0.2.7 10.0.0.1 65536 443",
        "PROXY TCP4 192.0.2.7 10.0.0.1 +466 443",
        "PROXY TCP4 192.0.2.7 10.0.0.1 0466 443",
        "PROXY UDP4 192.0.2.7 10.0.0.1 4660 443",
        "PROXY TCP4 192.0.2.7\t10.0.0.1 4660 443",
        "PROXY unknown x",
        "PROXY ffff \u{fc}",
    ] {
        assert!(v1(wrong).is_err(), "{wrong}");
    }
    let line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 16));
    assert_eq!(line.len(), MAX_V1);
    assert!(parse(line.as_bytes()).is_ok());
    assert!(parse(format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 15)).as_bytes()).is_err());
    assert!(parse(b"PROXY UNKNOWN\n").is_err());
    assert!(parse(b"GET / HTTP/1.1\r\n").is_err());
}

#[test]
fn version_2() {
    let ok = |header: &[u8]| parse(header).unwrap().map(|address| address.to_string());
    let err = |header: &[u8]| parse(header).unwrap_err().to_string();
    assert_eq!(ok(&v2(0x21, 0x11, &V4)).as_deref(), Some("192.0.2.7:4660"));
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    v6[15] = 7;
    v6[33] = 9;
    assert_eq!(ok(&v2(0x21, 0x21, &v6)).as_deref(), Some("[2001:db8::7]:9"));
    assert_eq!(ok(&v2(0x20, 0x11, &V4)), None, "LOCAL");
    assert_eq!(ok(&v2(0x20, 0x00, &[])), None, "LOCAL");
    assert_eq!(ok(&v2(0x20, 0x11, &[])), None, "LOCAL without addresses");
    assert_eq!(ok(&v2(0x21, 0x00, &[1, 2, 3])), None, "UNSPEC");
    assert_eq!(ok(&v2(0x21, 0x31, &[b'/'; 216])), None, "AF_UNIX");
    assert_eq!(ok(&v2(0x21, 0x12, &V4)), None, "UDP");

    assert!(err(&v2(0x11, 0x11, &V4)).contains("version"));
    assert!(err(&v2(0x22, 0x11, &V4)).contains("command"));
    assert!(err(&v2(0x21, 0x41, &V4)).contains("family"));
    assert!(err(&v2(0x21, 0x13, &V4)).contains("protocol"));
    assert!(err(&v2(0x21, 0x11, &V4[..11])).contains("shorter"));
    assert!(err(&v2(0x21, 0x21, &V4)).contains("shorter"));
    assert!(err(&v2(0x21, 0x31, &[0; 215])).contains("shorter"));
    assert!(err(&v2(0x21, 0x11, &[0; MAX_V2 + 1])).contains("longer"));
    let whole = v2(0x21, 0x11, &V4);
    for end in 0..whole.len() {
        assert!(parse(&whole[..end]).is_err(), "{end} bytes");
    }
    assert!(parse(&[&whole[..], &[0]].concat()).is_err(), "trailing bytes");
}

#[test]
fn extensions_are_whole_and_the_checksum_is_right() {
    assert_eq!(crc32c(b"123456789", 0..0), 0xe306_9283);
    let with = |extensions: &[u8]| v2(0x21, 0x11, &[&V4[..], extensions].concat());
    assert!(parse(&with(&[0x01, 0, 2, b'h', b'2', 0x04, 0, 0])).is_ok());
    for wrong in [&[0x01][..], &[0x01, 0], &[0x01, 0, 1], &[0x01, 0xff, 0xff, 0]] {
        assert!(parse(&with(wrong)).unwrap_err().to_string().contains("truncated"), "{wrong:?}");
    }
    let mut summed = with(&[0x01, 0, 1, b'x', CRC32C, 0, 4, 0, 0, 0, 0]);
    let at = summed.len() - 4;
    assert!(parse(&summed).unwrap_err().to_string().contains("checksum is wrong"));
    let sum = crc32c(&summed, at..at + 4).to_be_bytes();
    summed[at..].copy_from_slice(&sum);
    assert!(parse(&summed).is_ok());
    summed[17] ^= 1;
    assert!(parse(&summed).is_err());
    assert!(parse(&with(&[CRC32C, 0, 3, 0, 0, 0])).is_err());
}
