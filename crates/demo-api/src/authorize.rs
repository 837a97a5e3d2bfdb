//! Authorization in the demo API, and access reviews.
//!
//! Members of the group `system:masters` and the user `demo-admin` may do everything, the user
//! `viewer` may read, authenticated users may discover the API and review their own access, and
//! everyone may request health and version.

use serde_json::{Value, json};

use super::error::ApiError;
use super::identity;
use super::kinds::Kind;
use super::object::{self, text};
use k8s_audit::authorizer::{Attributes, Object, Resource};
use k8s_audit::user::{AUTHENTICATED, UserInfo};

/// Returns whether the user is authorized.
pub(crate) fn allowed(attributes: &Attributes<'_>) -> bool {
    let Attributes { user, verb, object } = attributes;
    let in_group = |group: &str| user.groups.iter().any(|g| g == group);
    if user.username == "demo-admin" || in_group("system:masters") {
        return true;
    }
    let reading = matches!(*verb, "get" | "list" | "watch" | "head");
    let path = match object {
        Object::Path(path) => path,
        Object::Resource(object) => {
            let about_oneself = matches!(
                object.resource,
                "selfsubjectaccessreviews" | "selfsubjectreviews" | "selfsubjectrulesreviews"
            );
            return user.username == "viewer" && reading
                || about_oneself && *verb == "create" && in_group(AUTHENTICATED);
        }
    };
    let under = |roots: &[&str]| {
        roots.iter().any(|root| {
            let rest = path.strip_prefix(root);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    reading
        && (under(&["/healthz", "/livez", "/readyz", "/version"])
            || in_group(AUTHENTICATED) && under(&["/api", "/apis", "/openapi"]))
}

/// Checks that the user is authorized.
///
/// # Errors
/// kube-apiserver's 403.
pub(crate) fn check(attributes: &Attributes<'_>) -> Result<(), ApiError> {
    match allowed(attributes) {
        true => Ok(()),
        false => Err(ApiError::forbidden(attributes.forbidden(""))),
    }
}

/// Returns the result of an access review or a `SelfSubjectReview`.
///
/// # Errors
/// 400 for a review without attributes.
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
    let (verb, object) = if spec["resourceAttributes"].is_object() {
        let own = at("/resourceAttributes/namespace");
        let resource = Resource {
            group: at("/resourceAttributes/group"),
            resource: at("/resourceAttributes/resource"),
            subresource: at("/resourceAttributes/subresource"),
            namespace: if own.is_empty() { namespace } else { own },
            name: at("/resourceAttributes/name"),
            ..Resource::default()
        };
        (at("/resourceAttributes/verb"), Object::Resource(resource))
    } else if spec["nonResourceAttributes"].is_object() {
        (at("/nonResourceAttributes/verb"), Object::Path(at("/nonResourceAttributes/path")))
    } else {
        let of = (kind.group.as_str(), kind.kind.as_str());
        let cause = "Invalid value: null: exactly one of nonResourceAttributes or \
                     resourceAttributes must be specified";
        return Err(ApiError::invalid(of, "", "spec.resourceAttributes", cause));
    };
    review["status"] = match allowed(&Attributes { user: &subject, verb, object }) {
        true => json!({"allowed": true, "reason": "the demo API's rules allow it"}),
        false => json!({"allowed": false}),
    };
    Ok(review)
}

/// Returns the rules for `user`, as far as lists of rules can represent them.
fn rules(user: &UserInfo) -> Value {
    let mut resource_rules = Vec::new();
    let mut path_rules = Vec::new();
    for verb in ["delete", "get", "list", "watch"] {
        let object = Object::Resource(Resource { resource: "*", ..Resource::default() });
        if allowed(&Attributes { user, verb, object }) {
            // Users who may delete may do everything.
            let verb = if verb == "delete" { "*" } else { verb };
            let rule = json!({"verbs": [verb], "apiGroups": ["*"], "resources": ["*"]});
            resource_rules.push(rule);
        }
    }
    for path in ["/", "/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version"] {
        if allowed(&Attributes { user, verb: "get", object: Object::Path(path) }) {
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

    fn on<'a>(verb: &'a str, resource: &'a str, namespace: &'a str) -> (&'a str, Object<'a>) {
        (verb, Object::Resource(Resource { resource, namespace, ..Resource::default() }))
    }

    fn path(path: &str) -> (&str, Object<'_>) {
        ("get", Object::Path(path))
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
        for (user, (verb, object), expected) in cases {
            let attributes = Attributes { user: &user, verb, object };
            assert_eq!(allowed(&attributes), expected, "{attributes:?}");
        }
    }

    #[test]
    fn refusals_in_the_words_of_kubernetes() {
        let viewer = user("viewer");
        let error =
            |(verb, object)| check(&Attributes { user: &viewer, verb, object }).unwrap_err();
        assert_eq!(
            error(on("create", "configmaps", "default")).message,
            "configmaps is forbidden: User \"viewer\" cannot create resource \"configmaps\" in \
             API group \"\" in the namespace \"default\""
        );
        let scale = Resource {
            group: "apps",
            resource: "deployments",
            subresource: "scale",
            name: "web",
            ..Resource::default()
        };
        let denied = error(("patch", Object::Resource(scale)));
        assert_eq!(denied.details, json!({"name": "web", "group": "apps", "kind": "deployments"}));
        assert_eq!(
            denied.message,
            "deployments.apps \"web\" is forbidden: User \"viewer\" cannot patch resource \
             \"deployments/scale\" in API group \"apps\" at the cluster scope"
        );
        let denied = error(path("/metrics"));
        assert_eq!(denied.details, json!({}));
        assert_eq!(denied.message, "forbidden: User \"viewer\" cannot get path \"/metrics\"");
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
