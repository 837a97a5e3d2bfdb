//! Keys of a user's `extra`: domain-prefixed paths such as `acme.io/scopes`.

use crate::go::quote;
use crate::request::label_selector::is_dns_subdomain;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const PATH_BYTES: &[u8] = b"/-._~%!$&'()*+,;=:";

/// Checks that `key` is a domain-prefixed path (`validation.IsDomainPrefixedPath`).
///
/// # Errors
/// Returns kube-apiserver's error message.
pub fn domain_prefixed_path(key: &str) -> Result<(), String> {
    let (host, path) = match key.split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => (host, path),
        _ => {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            return Err(invalid(key, why));
        }
    };
    let mut errors = Vec::new();
    if host.len() > 253 {
        errors.push(invalid(host, "must be no more than 253 bytes"));
    }
    if !host.split('.').all(is_dns_subdomain) {
        let why = format!(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{LABEL}(\\.{LABEL})*')"
        );
        errors.push(invalid(host, &why));
    }
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || PATH_BYTES.contains(&b)) {
        let why = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        errors.push(invalid(path, why));
    }
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

fn invalid(value: &str, why: &str) -> String {
    format!("extra.key: Invalid value: {}: {why}", quote(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_validated_like_by_kube_apiserver() {
        for good in ["a/b", "acme.io/foo", "acme.io/Foo/bar%2f", "authentication.kubernetes.io/x"] {
            assert_eq!(domain_prefixed_path(good), Ok(()), "{good}");
        }
        for bad in ["", "a", "/b", "a/", "A/b", "a..b/c", "-a/b", "a/b c", "a/é"] {
            assert!(domain_prefixed_path(bad).is_err(), "{bad}");
        }
        assert_eq!(
            domain_prefixed_path("scopes").unwrap_err(),
            r#"extra.key: Invalid value: "scopes": must be a domain-prefixed path (such as "acme.io/foo")"#
        );
        let both = domain_prefixed_path("A/b c").unwrap_err();
        assert!(
            both.starts_with(r#"[extra.key: Invalid value: "A": a lowercase RFC 1123"#),
            "{both}"
        );
        assert!(
            both.contains(r#", extra.key: Invalid value: "b c": Invalid path (regex"#),
            "{both}"
        );
    }
}
