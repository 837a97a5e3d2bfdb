//! Whether a caller may impersonate: asked of the API server, one SubjectAccessReview for the
//! user, the UID, each group and each extra value, as the API server itself would ask.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::service_account;
use crate::authn::UserInfo;
use crate::status::{Attributes, Status};
use crate::upstream::Upstream;

const PATH: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// How long a permission is remembered; refusals never are.
const REMEMBERED: Duration = Duration::from_secs(10);
/// How many permissions are remembered.
const CAPACITY: usize = 10_000;

/// Asks the API server for permissions, and remembers them briefly.
pub struct Reviewer {
    upstream: Upstream,
    /// Reviews that were allowed, by their JSON, and until when.
    allowed: Mutex<HashMap<Vec<u8>, Instant>>,
}

/// Why a request is not done as somebody else.
#[derive(Debug)]
pub enum Refusal {
    /// The caller may not: the API server's 403.
    Forbidden(Status),
    /// The API server could not be asked.
    Unavailable(Status),
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
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    extra: &'a std::collections::BTreeMap<String, Vec<String>>,
    resource_attributes: ResourceAttributes<'a>,
}

#[derive(Serialize)]
struct ResourceAttributes<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    verb: &'a str,
    group: &'a str,
    version: &'static str,
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
    name: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    status: AnswerStatus,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct AnswerStatus {
    allowed: bool,
    reason: String,
    evaluation_error: String,
}

impl Reviewer {
    /// Asks `upstream`, with the proxy's own credentials.
    pub fn new(upstream: Upstream) -> Reviewer {
        Reviewer { upstream, allowed: Mutex::default() }
    }

    /// Whether `caller` may become `wanted`. The first refusal ends it.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn authorize(&self, caller: &UserInfo, wanted: &UserInfo) -> Result<(), Refusal> {
        for attributes in checks(caller, wanted) {
            self.check(caller, &attributes).await?;
        }
        Ok(())
    }

    async fn check(&self, caller: &UserInfo, asked: &Attributes<'_>) -> Result<(), Refusal> {
        let review = Review {
            api_version: "authorization.k8s.io/v1",
            kind: "SubjectAccessReview",
            spec: Spec {
                user: &caller.username,
                uid: &caller.uid,
                groups: &caller.groups,
                extra: &caller.extra,
                resource_attributes: ResourceAttributes {
                    namespace: asked.namespace,
                    verb: asked.verb,
                    group: asked.group,
                    version: "v1",
                    resource: asked.resource,
                    subresource: asked.subresource,
                    name: asked.name,
                },
            },
        };
        let review = serde_json::to_vec(&review).expect("strings and maps of strings");
        if self.remembers(&review) {
            return Ok(());
        }
        let unavailable = |message| Refusal::Unavailable(Status::service_unavailable(message));
        let (code, answer) =
            self.upstream.post_json(PATH, review.clone().into()).await.map_err(|error| {
                tracing::warn!(%error, "cannot ask whether impersonation is allowed");
                unavailable("the API server cannot be asked whether impersonation is allowed")
            })?;
        if code != StatusCode::CREATED && code != StatusCode::OK {
            tracing::warn!(
                code = code.as_u16(),
                "the API server refuses to say whether impersonation is allowed; this proxy's user needs the verb create on subjectaccessreviews.authorization.k8s.io"
            );
            return Err(unavailable("the proxy may not ask whether impersonation is allowed"));
        }
        let answer: Answer = serde_json::from_slice(&answer).map_err(|error| {
            tracing::warn!(%error, "unreadable SubjectAccessReview");
            unavailable("the API server's answer about impersonation is unreadable")
        })?;
        let status = answer.status;
        if status.allowed {
            self.remember(review);
            return Ok(());
        }
        let reason = match (status.evaluation_error.as_str(), status.reason.as_str()) {
            ("", reason) => reason.to_owned(),
            (error, "") => error.to_owned(),
            (error, reason) => format!("{error}: {reason}"),
        };
        Err(Refusal::Forbidden(asked.forbidden(&reason)))
    }

    fn remembers(&self, review: &[u8]) -> bool {
        let allowed = self.allowed.lock().expect("nothing panics while holding the lock");
        allowed.get(review).is_some_and(|until| *until > Instant::now())
    }

    fn remember(&self, review: Vec<u8>) {
        let now = Instant::now();
        let mut allowed = self.allowed.lock().expect("nothing panics while holding the lock");
        if allowed.len() >= CAPACITY {
            allowed.retain(|_, until| *until > now);
        }
        if allowed.len() < CAPACITY {
            allowed.insert(review, now + REMEMBERED);
        }
    }
}

/// What is asked about, in kube-apiserver's order: user, UID, groups, extra.
fn checks<'a>(caller: &'a UserInfo, wanted: &'a UserInfo) -> Vec<Attributes<'a>> {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    let base = Attributes { user: &caller.username, verb: "impersonate", ..Attributes::default() };
    let user = match service_account(&wanted.username) {
        Some((namespace, name)) => {
            Attributes { resource: "serviceaccounts", namespace, name, ..base }
        }
        None => Attributes { resource: "users", name: &wanted.username, ..base },
    };
    let uid = (!wanted.uid.is_empty()).then_some(Attributes {
        group: AUTHENTICATION,
        resource: "uids",
        name: &wanted.uid,
        ..base
    });
    let groups = wanted.groups.iter().map(|name| Attributes { resource: "groups", name, ..base });
    let extra = wanted.extra.iter().flat_map(|(key, values)| {
        values.iter().map(move |name| Attributes {
            group: AUTHENTICATION,
            resource: "userextras",
            subresource: key,
            name,
            ..base
        })
    });
    std::iter::once(user).chain(uid).chain(groups).chain(extra).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_asked_about_in_order() {
        let caller = UserInfo { username: "ops".into(), ..UserInfo::default() };
        let wanted = UserInfo {
            username: "system:serviceaccount:prod:app".into(),
            uid: "u1".into(),
            groups: vec!["a".into(), "b".into()],
            extra: [("scopes".into(), vec!["read".into(), "write".into()])].into(),
        };
        let asked: Vec<String> =
            checks(&caller, &wanted).iter().map(|asked| asked.forbidden("").message).collect();
        let expected = [
            r#"serviceaccounts "app" is forbidden: User "ops" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "prod""#,
            r#"uids.authentication.k8s.io "u1" is forbidden: User "ops" cannot impersonate resource "uids" in API group "authentication.k8s.io" at the cluster scope"#,
            r#"groups "a" is forbidden: User "ops" cannot impersonate resource "groups" in API group "" at the cluster scope"#,
            r#"groups "b" is forbidden: User "ops" cannot impersonate resource "groups" in API group "" at the cluster scope"#,
            r#"userextras.authentication.k8s.io "read" is forbidden: User "ops" cannot impersonate resource "userextras/scopes" in API group "authentication.k8s.io" at the cluster scope"#,
            r#"userextras.authentication.k8s.io "write" is forbidden: User "ops" cannot impersonate resource "userextras/scopes" in API group "authentication.k8s.io" at the cluster scope"#,
        ];
        assert_eq!(asked, expected);
    }
}
