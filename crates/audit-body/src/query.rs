//! Redacts tokens in query strings.

use std::borrow::Cow;

use k8s_audit::request::query::{self, Plus};

/// Parameters that contain credentials; their names are compared case-insensitively.
const TOKENS: [&[u8]; 5] = [b"access_token", b"token", b"id_token", b"refresh_token", b"bearer"];

/// Replaces the values of parameters that contain credentials with `REDACTED` in a request URI;
/// everything else is unchanged.
pub fn redact_query(uri: &str) -> Cow<'_, str> {
    let Some((path, query)) = uri.split_once('?') else { return Cow::Borrowed(uri) };
    if !pairs(query).any(|pair| secret_name(pair).is_some()) {
        return Cow::Borrowed(uri);
    }
    let mut redacted = String::with_capacity(uri.len() + 16);
    redacted.push_str(path);
    redacted.push('?');
    for pair in pairs(query) {
        match secret_name(pair) {
            Some(name) => {
                redacted.push_str(name);
                redacted.push_str("=REDACTED");
                redacted.extend(pair.chars().next_back().filter(is_separator));
            }
            None => redacted.push_str(pair),
        }
    }
    Cow::Owned(redacted)
}

/// Splits a query string into pairs, each including the separator that ends it. Some programs use
/// `;`.
fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split_inclusive(|c| is_separator(&c))
}

fn is_separator(character: &char) -> bool {
    matches!(character, '&' | ';')
}

/// Returns the name, as spelled, of a parameter that contains credentials.
fn secret_name(pair: &str) -> Option<&str> {
    let (name, _) = pair.split_once('=')?;
    let decoded = query::decode(name, Plus::IsSpace)?;
    TOKENS.iter().any(|token| decoded.trim_ascii().eq_ignore_ascii_case(token)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_and_the_rest_stays() {
        for (given, expected) in [
            ("/api/v1/pods?watch=1&Token=abc&x=%3d", "/api/v1/pods?watch=1&Token=REDACTED&x=%3d"),
            ("/x?access_token=a=b&id_token=&t=1", "/x?access_token=REDACTED&id_token=REDACTED&t=1"),
            ("/x?a=1;bearer=s;b=2", "/x?a=1;bearer=REDACTED;b=2"),
            ("/x?%74oken=s", "/x?%74oken=REDACTED"),
            ("/x?refresh_token=s#f&token=t?u", "/x?refresh_token=REDACTED&token=REDACTED"),
            ("/x??token=s", "/x??token=s"),
        ] {
            assert_eq!(redact_query(given), expected);
        }
    }

    #[test]
    fn without_tokens_nothing_is_copied() {
        for uri in ["/token=1", "/x?", "/x?token", "/x?mytoken=1&tokens=2", "*", "/x?%=1"] {
            assert!(matches!(redact_query(uri), Cow::Borrowed(same) if same == uri));
        }
    }
}
