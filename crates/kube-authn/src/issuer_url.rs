//! Validates the URLs of issuers.

use http::Uri;

/// Returns the problems of an issuer URL, in kube-apiserver's words where it has any. The URL is
/// valid if there are none.
pub fn problems(url: &str) -> Vec<&'static str> {
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, after) = rest.split_once("://").unwrap_or(("", ""));
    let authority = after.split('/').next().unwrap_or_default();
    let found = [
        (!scheme.eq_ignore_ascii_case("https"), "URL scheme must be https"),
        (authority.contains('@'), "URL must not contain a username or password"),
        (!query.is_empty(), "URL must not contain a query"),
        (!fragment.is_empty(), "URL must not contain a fragment"),
        (!are_escapes_valid(rest) || !are_escapes_valid(fragment), "invalid URL escape"),
        (!is_port_valid(authority), "invalid port after host"),
    ];
    let problems: Vec<_> =
        found.iter().filter(|(wrong, _)| *wrong).map(|(_, text)| *text).collect();
    let can_be_asked =
        || rest.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    // kube-apiserver accepts some more, such as `https:///x`, but can never connect to them.
    if problems.is_empty() && !can_be_asked() { vec!["not a URL of a server"] } else { problems }
}

/// Returns whether each `%` is followed by two hexadecimal digits.
fn are_escapes_valid(text: &str) -> bool {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let mut escapes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    escapes.all(|(at, _)| is_digit(bytes.get(at + 1)) && is_digit(bytes.get(at + 2)))
}

/// Returns whether the host is followed by nothing, or by a colon and digits.
fn is_port_valid(authority: &str) -> bool {
    let after = match authority.rsplit_once(']') {
        Some((_, after)) => after,
        None => &authority[authority.find(':').unwrap_or(authority.len())..],
    };
    after.is_empty()
        || after.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_validated_like_by_kube_apiserver() {
        for good in [
            "https://a",
            "HTTPS://a.io/x/",
            "https://a:8443/x",
            "https://a.io/%41",
            "https://a.io/x?",
            "https://a.io/x#",
            "https://[::1]:8443/x",
            "https://a.io:",
        ] {
            assert_eq!(problems(good), [""; 0], "{good}");
        }
        for (bad, expected) in [
            ("http://a", "URL scheme must be https"),
            ("a.io", "URL scheme must be https"),
            ("https:a.io", "URL scheme must be https"),
            ("https://u@a", "URL must not contain a username or password"),
            ("https://u:p@a", "URL must not contain a username or password"),
            ("https://a?b", "URL must not contain a query"),
            ("https://a#b", "URL must not contain a fragment"),
            ("https://a/%zz", "invalid URL escape"),
            ("https://a/%4", "invalid URL escape"),
            ("https://a%zz/", "invalid URL escape"),
            ("https://a:b/", "invalid port after host"),
            ("https://a:1:2/", "invalid port after host"),
            ("https://[::1]x/", "invalid port after host"),
            ("https://", "not a URL of a server"),
            ("https:///x", "not a URL of a server"),
            ("https://a.io/<x>", "not a URL of a server"),
            ("https://a b/", "not a URL of a server"),
        ] {
            assert!(problems(bad).contains(&expected), "{bad}: {:?}", problems(bad));
        }
    }
}
