//! Random policies and requests, for property tests.

use http::Method;
use http::uri::PathAndQuery;
use proptest::collection::vec;
use proptest::prelude::*;

use super::spec::{GroupResources, PolicyRule};
use super::{Level, Stage};
use crate::RequestInfo;
use crate::UserInfo;

fn some(words: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    vec(proptest::sample::select(words).prop_map(str::to_owned), 0..3)
}

/// Returns a rule built from a few words, including invalid ones.
pub(super) fn any_rule() -> impl Strategy<Value = PolicyRule> {
    let entry = (
        proptest::sample::select(&["", "apps", "*"][..]),
        some(&["pods", "*", "pods/*", "*/log", "pods/log", "*/*", "x/", "/*", "", "a/b/c", "*x"]),
        some(&["", "a", "log"]),
    );
    let entry = entry.prop_map(|(group, resources, resource_names)| GroupResources {
        group: group.to_owned(),
        resources,
        resource_names,
    });
    let words = (
        some(&["u", "v", ""]),
        some(&["g", "h"]),
        some(&["get", "list", "", "*", "create", "head"]),
        some(&["", "n", "a"]),
        some(&["/", "*", "/a*", "/api*", "/apis/apps/v1", "/a**"]),
    );
    (
        proptest::sample::select(&Level::ALL[..]),
        words,
        vec(entry, 0..3),
        proptest::option::of(proptest::sample::select(&Stage::ALL[..])),
        any::<Option<bool>>(),
    )
        .prop_map(
            |(level, (users, user_groups, verbs, namespaces, urls), resources, stage, omit)| {
                PolicyRule {
                    level,
                    users,
                    user_groups,
                    verbs,
                    resources,
                    namespaces,
                    non_resource_urls: urls,
                    omit_stages: stage.into_iter().collect(),
                    omit_managed_fields: omit,
                    at: None,
                }
            },
        )
}

/// Returns a request that such rules may match.
pub(super) fn any_request() -> impl Strategy<Value = (Option<UserInfo>, RequestInfo)> {
    let methods = ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH", "PURGE"];
    let request = (
        proptest::sample::select(methods.to_vec()),
        "(/api/v1|/apis/apps/v1|/apis/x/v1|/apis|/a)?(/watch|/proxy)?(/namespaces/(n|a|z|))?(/(pods|x|\\*|))?(/(a|log|z|))?(/(log|\\*|x|z))?/?(\\?watch=1|\\?fieldSelector=metadata\\.name%3Da)?",
        proptest::option::of(("[uvw]?", vec("[ghi]", 0..3))),
    );
    request.prop_map(|(method, target, user)| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let target = if target.starts_with('/') { target } else { format!("/{target}") };
        let target =
            PathAndQuery::try_from(&target[..]).unwrap_or_else(|error| panic!("{target}: {error}"));
        let info = RequestInfo::new(&method, &target);
        let info = info.unwrap_or_else(|_| RequestInfo::unresolved(&method, &target));
        let user =
            user.map(|(username, groups)| UserInfo { username, groups, ..UserInfo::default() });
        (user, info)
    })
}
