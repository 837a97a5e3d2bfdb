//! Request targets, and how Go prints them as `requestURI`.

use std::borrow::Cow;

use bytes::Bytes;
use http::uri::PathAndQuery;

use super::query::{self, Plus};

/// Returns path and query like kube-apiserver writes them into an event's `requestURI`.
///
/// The query is unchanged. So is the path if Go accepts its encoding; otherwise it is decoded and
/// encoded again (Go `net/url`, `URL.EscapedPath`). A path with invalid percent-encoding, which Go
/// rejects, is unchanged, too.
pub fn request_uri(target: &PathAndQuery) -> Cow<'_, str> {
    let path = target.path();
    if path.bytes().all(is_accepted_in_path) {
        return Cow::Borrowed(target.as_str());
    }
    let Some(decoded) = query::decode(path, Plus::IsPlus) else {
        return Cow::Borrowed(target.as_str());
    };
    let mut text = String::with_capacity(target.as_str().len() + 16);
    for &byte in decoded.iter() {
        if is_kept_when_encoding(byte) {
            text.push(byte as char);
        } else {
            push_escaped(&mut text, byte);
        }
    }
    if let Some(query) = target.query() {
        text.push('?');
        text.push_str(query);
    }
    Cow::Owned(text)
}

/// Returns the target in the form in which it is forwarded and recorded: a path and query that
/// begin with `/`, or `*` (RFC 9112, 3.2).
///
/// The HTTP library writes a missing `/` only when it sends the request, so that `https://host?q`
/// would be forwarded as `/?q` and recorded as `?q`.
pub fn origin_form(target: &PathAndQuery) -> PathAndQuery {
    match target.as_str().as_bytes() {
        [b'/' | b'*', ..] => target.clone(),
        _ => PathAndQuery::from_maybe_shared(Bytes::from(format!(
            "/{target}",
            target = target.as_str()
        )))
        .expect("a target after a slash is a target"),
    }
}

/// Appends `%XX` with upper-case digits.
pub fn push_escaped(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(DIGITS[usize::from(byte >> 4)] as char);
    text.push(DIGITS[usize::from(byte & 15)] as char);
}

fn is_accepted_in_path(byte: u8) -> bool {
    ACCEPTED_IN_PATH[usize::from(byte)]
}

const ACCEPTED_IN_PATH: [bool; 256] = {
    let mut accepted = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        accepted[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~/!$&'()*+,;=:@[]%";
    let mut index = 0;
    while index < others.len() {
        accepted[others[index] as usize] = true;
        index += 1;
    }
    accepted
};

fn is_kept_when_encoding(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~$&+,/:;=@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_slash_is_added() {
        let forwarded = |uri: &str| {
            let uri: http::Uri = uri.parse().unwrap();
            origin_form(uri.path_and_query().unwrap()).as_str().to_owned()
        };
        for (uri, expected) in [
            ("https://h?q", "/?q"),
            ("https://h", "/"),
            ("https://h/", "/"),
            ("https://h/a?q", "/a?q"),
            ("/a", "/a"),
            ("//h/a", "//h/a"),
            ("*", "*"),
        ] {
            assert_eq!(forwarded(uri), expected, "{uri}");
        }
        let in_http2 = PathAndQuery::try_from("?q").unwrap();
        assert_eq!(origin_form(&in_http2).as_str(), "/?q");
    }

    #[test]
    fn paths_are_printed_as_go_prints_them() {
        let cases = [
            ("/a%2Fb?x=%zz;&", "/a%2Fb?x=%zz;&"),
            ("/a\"b", "/a%22b"),
            ("/a\"b%2Fc!(*)", "/a%22b/c%21%28%2A%29"),
            ("/a|b?q|r", "/a%7Cb?q|r"),
            ("/a?", "/a?"),
            ("//api/../v1/", "//api/../v1/"),
            ("/é", "/%C3%A9"),
            ("/%zz", "/%zz"),
            ("*", "*"),
        ];
        for (given, expected) in cases {
            let target = PathAndQuery::try_from(given).unwrap();
            assert_eq!(request_uri(&target), expected, "{given}");
        }
    }
}
