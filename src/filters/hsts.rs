//! HTTP Strict Transport Security (RFC 6797).

use http::HeaderValue;

/// Checks the directives of `--strict-transport-security-directives` like kube-apiserver does, and
/// returns the value of the header; `None` if there are no directives.
///
/// # Errors
/// Returns which directive is not valid, and what is accepted.
pub(crate) fn header(directives: &[String]) -> Result<Option<HeaderValue>, String> {
    for directive in directives {
        let is_valid = match directive.as_str() {
            "includeSubDomains" | "preload" => true,
            other => {
                let value = other.strip_prefix("max-age=");
                value.is_some_and(|value| !value.contains('='))
            }
        };
        if !is_valid {
            return Err(format!(
                "{directive:?} is not a directive; allowed values: max-age=SECONDS, \
                 includeSubDomains, preload (RFC 6797, section 6.1)"
            ));
        }
    }
    if directives.is_empty() {
        return Ok(None);
    }
    let value = HeaderValue::from_str(&directives.join("; "));
    value.map(Some).map_err(|_| "the directives contain characters that no header can have".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(directives: &[&str]) -> Result<Option<HeaderValue>, String> {
        header(&directives.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn directives_are_joined_and_checked() {
        let value = of(&["max-age=31536000", "includeSubDomains", "preload"]).unwrap().unwrap();
        assert_eq!(value, "max-age=31536000; includeSubDomains; preload");
        assert_eq!(of(&[]), Ok(None));
        for wrong in
            ["", " ", "max-age", "max-age=1=2", "maxage=1", "includesubdomains", "max-age=\n"]
        {
            assert!(of(&[wrong]).is_err(), "{wrong:?}");
        }
    }
}
