//! Who may do what in the demo API, and the reviews that ask.
//!
//! Group `system:masters` and user `demo-admin` may do everything, user `viewer` may read, everyone
//! who is authenticated may discover the API and ask about themselves, everyone may ask for health
//! and version.

use serde_json::{Value, json};

use super::error::ApiError;
use super::identity;
use super::kinds::{self, Kind};
use super::object::{self, text};
use k8s_audit::user::AUTHENTICATED;
use k8s_audit::user::UserInfo;

/// What someone wants to do. Either `resource` or `path` is set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Question<'q> {
    /// Kubernetes verb.
    pub verb: &'q str,
    /// API group.
    pub group: &'q str,
    /// Resource.
    pub resource: &'q str,
    /// Subresource.
    pub subresource: &'q str,
    /// Namespace.
    pub namespace: &'q str,
    /// Object.
    pub name: &'q str,
    /// Path of a non-resource request.
    pub path: &'q str,
}

/// Whether `user` may.
pub(crate) fn allowed(user: &UserInfo, question: &Question<'_>) -> bool {
    let in_group = |group: &str| user.groups.iter().any(|g| g == group);
    if user.username == "demo-admin" || in_group("system:masters") {
        return true;
    }
    let reading = matches!(question.verb, "get" | "list" | "watch" | "head");
    if !question.resource.is_empty() {
        let about_oneself = matches!(
            question.resource,
            "selfsubjectaccessreviews" | "selfsubjectreviews" | "selfsubjectrulesreviews"
        );
        return user.username == "viewer" && reading
            || about_oneself && question.verb == "create" && in_group(AUTHENTICATED);
    }
    let under = |roots: &[&str]| {
        roots.iter().any(|root| {
            let rest = question.path.strip_prefix(root);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    reading
        && (under(&["/healthz", "/livez", "/readyz", "/version"])
            || in_group(AUTHENTICATED) && under(&["/api", "/apis", "/openapi"]))
}

/// Refuses what [`allowed`] does not allow.
///
/// # Errors
/// 403 in kube-apiserver's words.
pub(crate) fn check(user: &UserInfo, question: &Question<'_>) -> Result<(), ApiError> {
    if allowed(user, question) {
        return Ok(());
    }
    let Question { verb, group, resource, subresource, namespace, name, path } = question;
    let username = &user.username;
    if resource.is_empty() {
        let message = format!("forbidden: User {username:?} cannot {verb} path {path:?}");
        return Err(ApiError::forbidden(message, json!({})));
    }
    let mut subject = kinds::qualified(resource, group);
    let mut details = json!({"kind": resource});
    if !name.is_empty() {
        subject = format!("{subject} {name:?}");
        details["name"] = (*name).into();
    }
    if !group.is_empty() {
        details["group"] = (*group).into();
    }
    let mut what = resource.to_string();
    if !subresource.is_empty() {
        what = format!("{what}/{subresource}");
    }
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let message = format!(
        "{subject} is forbidden: User {username:?} cannot {verb} resource {what:?} in API group \
         {group:?} {place}"
    );
    Err(ApiError::forbidden(message, details))
}

/// Answers an access review or a `SelfSubjectReview`.
///
/// # Errors
/// 400 for a review that asks nothing.
pub(crate) fn review(
    kind: &Kind,
    user: &UserInfo,
    namespace: &str,
    mut review: Value,
) -> Result<Value, ApiError> {
    review["apiVersion"] = kind.api_version().into();
    review["kind"] = kind.kind.as_str().into();
    if kind.kind == "SelfSubjectReview" {
        object::metadata(&mut review).insert("creationTimestamp".into(), object::now().into());
        review["status"] = json!({"userInfo": identity::user_info(user)});
        return Ok(review);
    }
    if kind.kind == "SelfSubjectRulesReview" {
        review["status"] = rules(user);
        return Ok(review);
    }
    let spec = review["spec"].clone();
    let subject = match kind.kind.as_str() {
        "SelfSubjectAccessReview" => user.clone(),
        _ => subject_of(&spec),
    };
    let at = |pointer: &str| text(&spec, pointer);
    let question = if spec["resourceAttributes"].is_object() {
        let own = at("/resourceAttributes/namespace");
        Question {
            verb: at("/resourceAttributes/verb"),
            group: at("/resourceAttributes/group"),
            resource: at("/resourceAttributes/resource"),
            subresource: at("/resourceAttributes/subresource"),
            namespace: if own.is_empty() { namespace } else { own },
            name: at("/resourceAttributes/name"),
            path: "",
        }
    } else if spec["nonResourceAttributes"].is_object() {
        Question {
            verb: at("/nonResourceAttributes/verb"),
            path: at("/nonResourceAttributes/path"),
            ..Question::default()
        }
    } else {
        let of = (kind.group.as_str(), kind.kind.as_str());
        let cause = "Invalid value: null: exactly one of nonResourceAttributes or \
                     resourceAttributes must be specified";
        return Err(ApiError::invalid(of, "", "spec.resourceAttributes", cause));
    };
    review["status"] = match allowed(&subject, &question) {
        true => json!({"allowed": true, "reason": "the demo API's rules allow it"}),
        false => json!({"allowed": false}),
    };
    Ok(review)
}

/// What `user` may, as far as lists of rules can say it.
fn rules(user: &UserInfo) -> Value {
    let mut resource_rules = Vec::new();
    let mut path_rules = Vec::new();
    for verb in ["delete", "get", "list", "watch"] {
        if allowed(user, &Question { verb, resource: "*", ..Question::default() }) {
            // Who may delete may do all.
            let verb = if verb == "delete" { "*" } else { verb };
            let rule = json!({"verbs": [verb], "apiGroups": ["*"], "resources": ["*"]});
            resource_rules.push(rule);
        }
    }
    for path in ["/", "/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version"] {
        if allowed(user, &Question { verb: "get", path, ..Question::default() }) {
            path_rules.push(json!({"verbs": ["get"], "nonResourceURLs": [path]}));
        }
    }
    json!({
        "resourceRules": resource_rules,
        "nonResourceRules": path_rules,
        "incomplete": false,
    })
}

fn subject_of(spec: &Value) -> UserInfo {
    let groups = spec["groups"].as_array().into_iter().flatten();
    UserInfo {
        username: text(spec, "/user").into(),
        uid: text(spec, "/uid").into(),
        groups: groups.filter_map(Value::as_str).map(String::from).collect(),
        ..UserInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::BUILT_IN;

    fn user(name: &str) -> UserInfo {
        UserInfo { username: name.into(), ..UserInfo::default() }.into_authenticated()
    }

    fn on<'q>(verb: &'q str, resource: &'q str, namespace: &'q str) -> Question<'q> {
        Question { verb, resource, namespace, ..Question::default() }
    }

    fn path<'q>(path: &'q str) -> Question<'q> {
        Question { verb: "get", path, ..Question::default() }
    }

    #[test]
    fn rules() {
        let anonymous = UserInfo::anonymous();
        let cases = [
            (user("demo-admin"), on("delete", "nodes", ""), true),
            (user("viewer"), on("list", "configmaps", "x"), true),
            (user("viewer"), on("create", "configmaps", "x"), false),
            (user("jane"), on("get", "configmaps", "x"), false),
            (user("jane"), on("create", "selfsubjectreviews", ""), true),
            (user("jane"), path("/apis/apps/v1"), true),
            (user("jane"), path("/metrics"), false),
            (anonymous.clone(), path("/healthz"), true),
            (anonymous.clone(), path("/readyz/ping"), true),
            (anonymous.clone(), path("/api"), false),
            (anonymous, path("/versions"), false),
        ];
        for (user, question, expected) in cases {
            assert_eq!(allowed(&user, &question), expected, "{user:?} {question:?}");
        }
    }

    #[test]
    fn refusals_in_the_words_of_kubernetes() {
        let message = |question| check(&user("viewer"), &question).unwrap_err().message;
        assert_eq!(
            message(on("create", "configmaps", "default")),
            "configmaps is forbidden: User \"viewer\" cannot create resource \"configmaps\" in \
             API group \"\" in the namespace \"default\""
        );
        let question = Question {
            verb: "patch",
            group: "apps",
            resource: "deployments",
            subresource: "scale",
            name: "web",
            ..Question::default()
        };
        assert_eq!(
            message(question),
            "deployments.apps \"web\" is forbidden: User \"viewer\" cannot patch resource \
             \"deployments/scale\" in API group \"apps\" at the cluster scope"
        );
        assert_eq!(
            message(path("/metrics")),
            "forbidden: User \"viewer\" cannot get path \"/metrics\""
        );
    }

    #[test]
    fn reviews_follow_the_same_rules() {
        let kind = |name: &str| BUILT_IN.iter().find(|kind| kind.kind == name).unwrap();
        let asked = json!({"spec": {
            "user": "viewer",
            "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "x"},
        }});
        let subject = kind("SubjectAccessReview");
        let admin = user("demo-admin");
        let answer = review(subject, &admin, "", asked.clone()).unwrap();
        assert_eq!(answer["status"]["allowed"], true);
        let own = kind("SelfSubjectAccessReview");
        let answer = review(own, &user("jane"), "", asked).unwrap();
        assert_eq!(answer["status"]["allowed"], false);
        assert!(review(own, &admin, "", json!({"spec": {}})).is_err());
        let me = review(kind("SelfSubjectReview"), &user("jane"), "", json!({})).unwrap();
        assert_eq!(me["status"]["userInfo"]["username"], "jane");
    }
}
