//! What a response other than 200 means for the batch.

use std::time::{Duration, SystemTime};

use audit_log::DeliveryError;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

/// Returns the error that a response with this status is.
pub(super) fn error(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> DeliveryError {
    let unavailable =
        |reason: String, retry_after| DeliveryError::Unavailable { reason, retry_after };
    match status.as_u16() {
        429 | 502 | 503 | 504 => {
            unavailable(format!("it responded {status}"), retry_after(headers, now))
        }
        413 => DeliveryError::TooLarge(format!("it responded {status}")),
        401 | 403 => unavailable(
            format!("it responded {status}; check headers-file and the client certificate"),
            None,
        ),
        404 | 405 => unavailable(
            format!("it responded {status}; check that `endpoint` accepts OTLP over HTTP"),
            None,
        ),
        300..=399 => unavailable(
            format!("it redirects ({status}); set `endpoint` to the URL that accepts events"),
            None,
        ),
        _ => DeliveryError::Final(format!("it responded {status}")),
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn responses_are_retried_by_the_table_of_the_specification() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let outcome = |status: u16, retry_after: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(retry_after.map(|v| (RETRY_AFTER, HeaderValue::from_static(v))));
            match error(StatusCode::from_u16(status).unwrap(), &headers, now) {
                DeliveryError::Unavailable { retry_after, .. } => ("retried", retry_after),
                DeliveryError::TooLarge(_) => ("halved", None),
                DeliveryError::Final(_) => ("rejected", None),
                error @ DeliveryError::Rejected(_) => panic!("{error}"),
            }
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for status in [429, 502, 503, 504] {
            assert_eq!(outcome(status, None), ("retried", None), "{status}");
            assert_eq!(outcome(status, Some("7")), ("retried", seconds(7)), "{status}");
            let date = Some("Sun, 06 Nov 1994 08:50:07 GMT");
            assert_eq!(outcome(status, date), ("retried", seconds(30)), "{status}");
            assert_eq!(outcome(status, Some("soon")), ("retried", None), "{status}");
        }
        for status in [400, 402, 406, 408, 409, 410, 415, 422, 431, 500, 501, 505] {
            assert_eq!(outcome(status, Some("7")), ("rejected", None), "{status}");
        }
        assert_eq!(outcome(413, None), ("halved", None));
        for status in [301, 302, 307, 308, 401, 403, 404, 405] {
            assert_eq!(outcome(status, Some("7")), ("retried", None), "{status}");
        }
    }
}
