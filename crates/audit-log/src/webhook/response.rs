//! Interprets error responses of the endpoint.

use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, LOCATION, RETRY_AFTER};
use http::{StatusCode, Uri};

/// Describes an error response, for logs.
pub(super) fn describe(status: StatusCode, headers: &HeaderMap) -> String {
    let lasting = match status {
        StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT => "permanently ",
        StatusCode::FOUND | StatusCode::SEE_OTHER | StatusCode::TEMPORARY_REDIRECT => "",
        _ => return format!("it responded with {status}"),
    };
    let to = match headers.get(LOCATION).and_then(|location| location.to_str().ok()) {
        Some(location) => format!(" to {}", without_secrets(location)),
        None => String::new(),
    };
    format!(
        "it redirects {lasting}({status}){to}; redirects are not followed, so set `server` in the \
         webhook's kubeconfig to the address that accepts events"
    )
}

/// Returns a URL without its query and user info, which may contain secrets.
fn without_secrets(location: &str) -> String {
    let Ok(uri) = location.parse::<Uri>() else { return "an address that is not a URL".to_owned() };
    let host = uri.authority().map(|authority| {
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        format!("{}://{host}", uri.scheme_str().unwrap_or("https"))
    });
    format!("{}{}", host.unwrap_or_default(), uri.path())
}

/// Parses the `Retry-After` header: seconds, or a date.
pub(super) fn retry_after(
    status: StatusCode,
    headers: &HeaderMap,
    now: SystemTime,
) -> Option<Duration> {
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return None;
    }
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // A date in the past means no delay.
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_redirect_is_described_with_its_remedy_and_without_secrets() {
        let headers = with(LOCATION, "https://user:pass@new.example:8443/events?token=secret");
        let text = describe(StatusCode::PERMANENT_REDIRECT, &headers);
        assert!(text.starts_with(
            "it redirects permanently (308 Permanent Redirect) to https://new.example:8443/events;"
        ));
        assert!(text.contains("set `server` in the webhook's kubeconfig"), "{text}");
        assert!(!text.contains("pass") && !text.contains("secret"), "{text}");
        let text = describe(StatusCode::FOUND, &with(LOCATION, "/login"));
        assert!(text.starts_with("it redirects (302 Found) to /login;"), "{text}");
        let text = describe(StatusCode::BAD_GATEWAY, &HeaderMap::new());
        assert_eq!(text, "it responded with 502 Bad Gateway");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let wait = |status, value| retry_after(status, &with(RETRY_AFTER, value), now);
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(wait(busy, "7"), Some(Duration::from_secs(7)));
        let late = wait(busy, "Sun, 06 Nov 1994 08:50:07 GMT");
        assert_eq!(late, Some(Duration::from_secs(30)));
        // Obsolete date formats of RFC 9110.
        assert_eq!(wait(busy, "Sunday, 06-Nov-94 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(wait(busy, "Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait(busy, "soon"), None);
        assert_eq!(wait(StatusCode::BAD_REQUEST, "7"), None);
    }
}
