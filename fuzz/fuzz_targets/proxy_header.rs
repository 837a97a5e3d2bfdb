//! Any bytes as a PROXY header: no panic, and a valid header is one only as a whole.

#![no_main]

use kube_audit_proxy::server::proxy_protocol::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if parse(input).is_ok() {
        assert!(parse(&input[..input.len() - 1]).is_err());
        assert!(parse(&[input, b"x"].concat()).is_err());
    }
    // Deeper than chance gets: version 2 with the right length.
    if let [command, family, rest @ ..] = input
        && let Ok(length) = u16::try_from(rest.len())
    {
        let head = [b"\r\n\r\n\0\r\nQUIT\n", &[*command, *family][..]].concat();
        let _ = parse(&[&head, &length.to_be_bytes()[..], rest].concat());
    }
});
