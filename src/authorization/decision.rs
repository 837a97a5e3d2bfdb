//! The response to a SubjectAccessReview.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Deserialize;

/// The decision of the API server's authorizers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Decision {
    pub(super) allowed: bool,
    pub(super) reason: String,
    pub(super) evaluation_error: String,
}

#[derive(Deserialize)]
struct Review {
    status: Decision,
}

impl Decision {
    /// Reads a response.
    ///
    /// # Errors
    /// If the API server did not process the review.
    pub(super) fn parse(response: &Response<Bytes>) -> Result<Decision, String> {
        match response.status() {
            StatusCode::CREATED | StatusCode::OK => {
                serde_json::from_slice::<Review>(response.body())
                    .map(|review| review.status)
                    .map_err(|error| format!("the response cannot be parsed: {error}"))
            }
            code => Err(format!("the API server returned {}", code.as_u16())),
        }
    }
}
