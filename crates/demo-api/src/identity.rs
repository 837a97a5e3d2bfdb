//! The user of a request to the demo API: certificates, front proxies, tokens, impersonation.

use http::HeaderMap;
use rustls_pki_types::CertificateDer;
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::api::Api;
use super::authorize;
use super::error::ApiError;
use super::pki::FRONT_PROXY_CA;
use k8s_audit::authorizer::{Attributes, Object, Resource};
use k8s_audit::request::query::{self, Plus};
use k8s_audit::user::UserInfo;

/// The identity in a connection's verified certificate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Peer {
    /// No certificate.
    Unknown,
    /// A user.
    User(UserInfo),
    /// A front proxy, which sends the user in headers.
    FrontProxy,
}

impl Peer {
    /// Reads the certificates of a connection. The handshake has verified them against the client
    /// CA and the front-proxy CA. These have different names, so the issuer shows which one it was.
    pub(crate) fn new(certificates: Option<&[CertificateDer<'_>]>) -> Peer {
        let first = certificates.and_then(<[_]>::first);
        let parsed = first.and_then(|der| X509Certificate::from_der(der).ok());
        let Some((_, certificate)) = parsed else { return Peer::Unknown };
        if common_name(certificate.issuer()) == FRONT_PROXY_CA {
            return Peer::FrontProxy;
        }
        let organizations = certificate.subject().iter_organization();
        Peer::User(UserInfo {
            username: common_name(certificate.subject()).into(),
            groups: organizations.filter_map(|o| o.as_str().ok()).map(String::from).collect(),
            ..UserInfo::default()
        })
    }
}

fn common_name<'n>(name: &'n X509Name<'_>) -> &'n str {
    name.iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or("")
}

/// Returns the user of a request before impersonation.
///
/// # Errors
/// 401 for an unknown token.
pub(crate) fn authenticate(
    api: &Api,
    peer: &Peer,
    headers: &HeaderMap,
) -> Result<UserInfo, ApiError> {
    if *peer == Peer::FrontProxy
        && let Some(user) = user_in_headers(headers, "x-remote-")
    {
        return Ok(user.into_authenticated());
    }
    if let Peer::User(user) = peer {
        return Ok(user.clone().into_authenticated());
    }
    let Some(authorization) = headers.get("authorization") else {
        return Ok(UserInfo::anonymous());
    };
    let token = authorization.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
    let user = token.and_then(|token| api.user_of_token(token.trim()));
    user.map(UserInfo::into_authenticated).ok_or_else(ApiError::unauthorized)
}

/// Returns the user in the `Impersonate-*` headers, if there are any; each part is authorized.
///
/// # Errors
/// 400 without a user name, 403 if the impersonation is not authorized.
pub(crate) fn impersonate(
    caller: &UserInfo,
    headers: &HeaderMap,
) -> Result<Option<UserInfo>, ApiError> {
    let Some(mut user) = user_in_headers(headers, "impersonate-") else {
        let stray = headers.keys().any(|name| name.as_str().starts_with("impersonate-"));
        return match stray {
            true => Err(ApiError::bad_request("requested to impersonate without a user name")),
            false => Ok(None),
        };
    };
    let username = user.username.clone();
    let account = service_account(&username);
    let mut wanted = vec![match account {
        Some((namespace, name)) => ("", "serviceaccounts", "", namespace, name),
        None => ("", "users", "", "", user.username.as_str()),
    }];
    if !user.uid.is_empty() {
        wanted.push(("authentication.k8s.io", "uids", "", "", &user.uid));
    }
    wanted.extend(user.groups.iter().map(|group| ("", "groups", "", "", group.as_str())));
    for (key, values) in &user.extra {
        let one = |value| ("authentication.k8s.io", "userextras", key.as_str(), "", value);
        wanted.extend(values.iter().map(String::as_str).map(one));
    }
    for (group, resource, subresource, namespace, name) in wanted {
        let object = Object::Resource(Resource {
            group,
            resource,
            subresource,
            namespace,
            name,
            ..Resource::default()
        });
        authorize::check(&Attributes { user: caller, verb: "impersonate", object })?;
    }
    if let (Some((namespace, _)), true) = (account, user.groups.is_empty()) {
        let all = "system:serviceaccounts";
        user.groups = vec![all.into(), format!("{all}:{namespace}")];
    }
    if user.username == k8s_audit::user::ANONYMOUS {
        let group = k8s_audit::user::UNAUTHENTICATED;
        if !user.groups.iter().any(|g| g == group) {
            user.groups.push(group.into());
        }
    }
    Ok(Some(user.into_authenticated()))
}

fn service_account(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let whole = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
    whole.then_some((namespace, name))
}

/// Parses `<prefix>user`, `-group`, `-uid` and `-extra-*`; `None` without a user.
fn user_in_headers(headers: &HeaderMap, prefix: &str) -> Option<UserInfo> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let first = |name: &str| headers.get(format!("{prefix}{name}")).map(text).unwrap_or_default();
    let username = first("user");
    if username.is_empty() {
        return None;
    }
    let mut user = UserInfo { username, uid: first("uid"), ..UserInfo::default() };
    user.groups = headers.get_all(format!("{prefix}group")).iter().map(text).collect();
    let extra = format!("{prefix}extra-");
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(&extra) {
            let key = query::decode(key, Plus::IsPlus).unwrap_or(key.as_bytes().into());
            let key = String::from_utf8_lossy(&key).to_lowercase();
            user.extra.entry(key).or_default().push(text(value));
        }
    }
    Some(user)
}

/// A user in the format of `authentication.k8s.io`.
pub(crate) fn user_info(user: &UserInfo) -> serde_json::Value {
    let mut info = json!({"username": user.username, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        map
    }

    fn master() -> UserInfo {
        UserInfo {
            username: "root".into(),
            groups: vec!["system:masters".into()],
            ..UserInfo::default()
        }
    }

    #[test]
    fn a_front_proxy_names_the_user() {
        let headers = headers(&[
            ("x-remote-user", "jane"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "ops"),
            ("x-remote-uid", "7"),
            ("x-remote-extra-example.com%2fscope", "a"),
        ]);
        let api = Api::new();
        let user = authenticate(&api, &Peer::FrontProxy, &headers).unwrap();
        assert_eq!(user.username, "jane");
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(user.uid, "7");
        assert_eq!(user.extra["example.com/scope"], ["a"]);
        let unproven = authenticate(&api, &Peer::Unknown, &headers).unwrap();
        assert_eq!(unproven, UserInfo::anonymous());
    }

    #[test]
    fn tokens_are_known_or_refused() {
        let api = Api::new();
        api.accept_token("t", UserInfo { username: "bot".into(), ..UserInfo::default() });
        let ask = |text| authenticate(&api, &Peer::Unknown, &headers(&[("authorization", text)]));
        assert_eq!(ask("Bearer t").unwrap().username, "bot");
        assert_eq!(ask("Bearer x").unwrap_err().code, 401);
    }

    #[test]
    fn masters_may_impersonate_and_others_may_not() {
        let jane = headers(&[("impersonate-user", "jane"), ("impersonate-group", "dev")]);
        let user = impersonate(&master(), &jane).unwrap().unwrap();
        assert_eq!(user.groups, ["dev", "system:authenticated"]);
        let viewer = UserInfo { username: "viewer".into(), ..UserInfo::default() };
        let error = impersonate(&viewer, &jane).unwrap_err();
        assert_eq!(
            error.message,
            "users \"jane\" is forbidden: User \"viewer\" cannot impersonate resource \"users\" \
             in API group \"\" at the cluster scope"
        );
        let nameless = headers(&[("impersonate-group", "dev")]);
        assert_eq!(impersonate(&master(), &nameless).unwrap_err().code, 400);
        assert_eq!(impersonate(&viewer, &headers(&[])).unwrap(), None);
    }

    #[test]
    fn service_accounts_get_their_groups() {
        let account = headers(&[("impersonate-user", "system:serviceaccount:ns:app")]);
        let user = impersonate(&master(), &account).unwrap().unwrap();
        let expected =
            ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"];
        assert_eq!(user.groups, expected);
    }
}
