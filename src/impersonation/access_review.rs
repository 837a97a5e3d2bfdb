//! Authorizes an action of a user with a SubjectAccessReview.

use std::collections::BTreeMap;

use api_client::{ApiRequest, RequestError};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use k8s_audit::authorizer::{Attributes, Object, Resource};
use serde::{Deserialize, Serialize};

use super::Rules;
use crate::upstream::access::{Access, Denial, Probe};
use crate::upstream::{Upstream, UpstreamMetrics};
use k8s_audit::status::Status;

const PATH: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// An empty review, to probe whether the proxy may create reviews.
const EMPTY_REVIEW: &[u8] =
    br#"{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{}}"#;

/// Why an impersonation is refused.
#[derive(Debug)]
pub enum Refusal {
    /// The API server denied it with this 403.
    Forbidden(Status),
    /// The API server could not be reached.
    Unavailable(Status),
    /// The API server denied the proxy's own access.
    Denied(Denial),
}

impl From<Refusal> for Box<Status> {
    fn from(refusal: Refusal) -> Box<Status> {
        match refusal {
            Refusal::Forbidden(status) | Refusal::Unavailable(status) => Box::new(status),
            Refusal::Denied(denial) => {
                let message = denial.message(Access::SubjectAccessReview);
                Box::new(Status::service_unavailable(message))
            }
        }
    }
}

impl Refusal {
    pub(super) fn unavailable(message: &str) -> Refusal {
        Refusal::Unavailable(Status::service_unavailable(message))
    }
}

/// Sends SubjectAccessReviews with the proxy's own credentials. Nothing is cached here.
pub(super) struct AccessReviews {
    upstream: Upstream,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_attributes: Option<ResourceAttributes<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    non_resource_attributes: Option<NonResourceAttributes<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceAttributes<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    verb: &'a str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field_selector: Option<Selector<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label_selector: Option<Selector<'a>>,
}

#[derive(Serialize)]
struct NonResourceAttributes<'a> {
    path: &'a str,
    verb: &'a str,
}

/// The unparsed selector; the API server parses it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Selector<'a> {
    raw_selector: &'a str,
}

#[derive(Deserialize)]
struct ReviewResponse {
    #[serde(default)]
    status: ReviewStatus,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ReviewStatus {
    allowed: bool,
    reason: String,
    evaluation_error: String,
}

/// Creates a SubjectAccessReview with the proxy's own credentials, and returns the response.
///
/// # Errors
/// Returns an error if there is no response.
pub(crate) async fn review_access(
    upstream: &Upstream,
    as_front_proxy: bool,
    action: &Attributes<'_>,
) -> Result<Response<Bytes>, RequestError> {
    let review = serde_json::to_vec(&Review::of(action)).expect("strings and maps of strings");
    let mut request = ApiRequest::post(PATH, review.into());
    if as_front_proxy {
        request.headers.insert("x-remote-user", HeaderValue::from_static("kube-audit-proxy"));
    }
    upstream.api().request(&request).await
}

impl AccessReviews {
    pub(super) fn new(upstream: Upstream) -> AccessReviews {
        AccessReviews { upstream }
    }

    fn metrics(&self) -> &UpstreamMetrics {
        self.upstream.metrics()
    }

    /// Authorizes an action.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(super) async fn review(
        &self,
        rules: Rules,
        action: &Attributes<'_>,
    ) -> Result<(), Refusal> {
        let response = review_access(&self.upstream, false, action).await.map_err(|error| {
            tracing::warn!(%error, "SubjectAccessReview failed");
            Refusal::unavailable("the SubjectAccessReview that authorizes impersonation failed")
        })?;
        let (code, body) = (response.status(), response.into_body());
        if let Some(denial) = Denial::of(code) {
            let probe = Probe::post(PATH, HeaderMap::new(), EMPTY_REVIEW);
            let access = Access::SubjectAccessReview;
            self.metrics().access_denied(access).inc();
            self.upstream.access().denied(access, denial, probe);
            return Err(Refusal::Denied(denial));
        }
        if code != StatusCode::CREATED && code != StatusCode::OK {
            tracing::warn!(
                code = code.as_u16(),
                "the API server did not process a SubjectAccessReview"
            );
            let message = "the API server did not process the SubjectAccessReview that authorizes impersonation";
            return Err(Refusal::unavailable(message));
        }
        self.upstream.access().granted(Access::SubjectAccessReview);
        let response: ReviewResponse = serde_json::from_slice(&body).map_err(|error| {
            tracing::warn!(%error, "cannot decode the SubjectAccessReview response");
            Refusal::unavailable(
                "the API server's response to the SubjectAccessReview cannot be decoded",
            )
        })?;
        response.status.decide(rules, action)
    }
}

impl ReviewStatus {
    fn decide(&self, rules: Rules, action: &Attributes<'_>) -> Result<(), Refusal> {
        let (error, reason) = (self.evaluation_error.as_str(), self.reason.as_str());
        let (allowed, reason) = match rules {
            // An allowed review counts, even if there is an evaluation error.
            Rules::Constrained => {
                let both = || format!("{error}: {reason}");
                let one = if error.is_empty() { reason } else { error };
                let has_both = !error.is_empty() && !reason.is_empty();
                (self.allowed, if has_both { both() } else { one.to_owned() })
            }
            Rules::LegacyOnly => (self.allowed && error.is_empty(), reason.to_owned()),
        };
        if allowed { Ok(()) } else { Err(Refusal::Forbidden(action.forbidden(&reason))) }
    }
}

impl<'a> Review<'a> {
    fn of(action: &'a Attributes<'a>) -> Review<'a> {
        let verb = action.verb;
        let (resource, path) = match action.object {
            Object::Resource(resource) => (Some(ResourceAttributes::of(verb, resource)), None),
            Object::Path(path) => (None, Some(NonResourceAttributes { path, verb })),
        };
        Review {
            api_version: "authorization.k8s.io/v1",
            kind: "SubjectAccessReview",
            spec: Spec {
                user: &action.user.username,
                uid: &action.user.uid,
                groups: &action.user.groups,
                extra: &action.user.extra,
                resource_attributes: resource,
                non_resource_attributes: path,
            },
        }
    }
}

impl<'a> ResourceAttributes<'a> {
    fn of(verb: &'a str, action: Resource<'a>) -> ResourceAttributes<'a> {
        let selector =
            |text: &'a str| (!text.is_empty()).then_some(Selector { raw_selector: text });
        ResourceAttributes {
            namespace: action.namespace,
            verb,
            group: action.group,
            version: action.version,
            resource: action.resource,
            subresource: action.subresource,
            name: action.name,
            field_selector: selector(action.field_selector),
            label_selector: selector(action.label_selector),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube_authn::UserInfo;

    #[test]
    fn an_error_beside_a_yes_counts_for_the_old_rules_only() {
        let user = UserInfo { username: "ops".into(), ..UserInfo::default() };
        let object = Object::Path("/x");
        let action = Attributes { user: &user, verb: "impersonate", object };
        let decide = |allowed, reason: &str, error: &str, rules| {
            let evaluation_error = error.to_owned();
            let response = ReviewStatus { allowed, reason: reason.to_owned(), evaluation_error };
            match response.decide(rules, &action) {
                Ok(()) => "yes".to_owned(),
                Err(Refusal::Forbidden(status)) => {
                    status.message.split_once("\"/x\"").unwrap().1.to_owned()
                }
                Err(refusal) => panic!("{refusal:?}"),
            }
        };
        assert_eq!(decide(true, "r", "e", Rules::Constrained), "yes");
        assert_eq!(decide(true, "r", "e", Rules::LegacyOnly), ": r");
        assert_eq!(decide(true, "r", "", Rules::LegacyOnly), "yes");
        assert_eq!(decide(false, "r", "e", Rules::Constrained), ": e: r");
        assert_eq!(decide(false, "", "e", Rules::Constrained), ": e");
        assert_eq!(decide(false, "r", "", Rules::Constrained), ": r");
        assert_eq!(decide(false, "", "", Rules::Constrained), "");
    }
}
