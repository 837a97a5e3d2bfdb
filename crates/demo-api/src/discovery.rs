//! The discovery of the API: versions, groups, resources, OpenAPI.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::kinds::{Kind, KindCategory};

/// The Kubernetes version that the demo API reports.
pub(crate) const VERSION: &str = "v1.36.0";

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// Returns the response for a discovery path; `None` for other paths.
pub(crate) fn answer(path: &str, kinds: &[Arc<Kind>]) -> Option<Value> {
    match path.trim_end_matches('/') {
        "" => Some(paths(kinds)),
        "/api" => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => Some(groups(kinds)),
        "/version" => Some(version()),
        "/openapi/v2" => Some(json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": {},
            "definitions": {},
        })),
        "/openapi/v3" => Some(openapi_index(kinds)),
        path => {
            if let Some(prefix) = path.strip_prefix("/openapi/v3/") {
                return openapi(prefix, kinds);
            }
            if let Some(group_version) = path.strip_prefix("/api/") {
                return (!group_version.contains('/')).then(|| resources(group_version, kinds))?;
            }
            let rest = path.strip_prefix("/apis/")?;
            if rest.contains('/') { resources(rest, kinds) } else { group(rest, kinds) }
        }
    }
}

/// `/openapi/v2` as protobuf, which kubectl requests: `swagger` and `info` of an empty document.
pub(crate) fn openapi_v2_protobuf() -> Vec<u8> {
    let text = |field: u8, text: &str| {
        let length = u8::try_from(text.len()).expect("the texts below are short");
        let mut bytes = vec![field << 3 | 2, length];
        bytes.extend(text.as_bytes());
        bytes
    };
    let info = [text(1, "Kubernetes"), text(2, VERSION)].concat();
    let mut document = text(1, "2.0");
    document.extend([2 << 3 | 2, u8::try_from(info.len()).expect("the texts above are short")]);
    document.extend(info);
    document
}

fn group_versions(kinds: &[Arc<Kind>]) -> Vec<String> {
    let mut all: Vec<_> = kinds.iter().map(|kind| kind.api_version()).collect();
    all.sort();
    all.dedup();
    all
}

fn paths(kinds: &[Arc<Kind>]) -> Value {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    paths.extend(group_versions(kinds).iter().map(|gv| format!("/{}", url_prefix(gv))));
    paths.extend(
        ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(String::from),
    );
    json!({"paths": paths})
}

fn url_prefix(group_version: &str) -> String {
    let root = if group_version.contains('/') { "apis" } else { "api" };
    format!("{root}/{group_version}")
}

fn groups(kinds: &[Arc<Kind>]) -> Value {
    let mut names: Vec<_> =
        kinds.iter().map(|k| k.group.as_str()).filter(|group| !group.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    let groups = names.iter().filter_map(|name| group(name, kinds)).map(|mut group| {
        if let Some(members) = group.as_object_mut() {
            members.remove("kind");
            members.remove("apiVersion");
        }
        group
    });
    let groups = groups.collect::<Vec<_>>();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group(name: &str, kinds: &[Arc<Kind>]) -> Option<Value> {
    let mut versions: Vec<_> =
        kinds.iter().filter(|k| k.group == name).map(|k| k.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    let versions = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect::<Vec<_>>();
    let preferred = versions.first()?.clone();
    Some(json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": versions,
        "preferredVersion": preferred,
    }))
}

fn resources(group_version: &str, kinds: &[Arc<Kind>]) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.api_version() == group_version) {
        let mut resource = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs(),
        });
        if !kind.short_names.is_empty() {
            resource["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        resources.push(resource);
        for subresource in &kind.subresources {
            resources.push(subresource_entry(kind, subresource));
        }
    }
    (!resources.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version,
            "resources": resources,
        })
    })
}

fn subresource_entry(kind: &Kind, subresource: &str) -> Value {
    let mut entry = json!({
        "name": format!("{}/{subresource}", kind.plural),
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": ["get", "patch", "update"],
    });
    match subresource {
        "scale" => {
            entry["group"] = "autoscaling".into();
            entry["version"] = "v1".into();
            entry["kind"] = "Scale".into();
        }
        "log" => entry["verbs"] = json!(["get"]),
        "attach" | "exec" | "portforward" => entry["verbs"] = json!(["create", "get"]),
        _ => {}
    }
    entry
}

fn openapi_index(kinds: &[Arc<Kind>]) -> Value {
    let paths = group_versions(kinds).into_iter().map(|group_version| {
        let path = url_prefix(&group_version);
        let url = json!({"serverRelativeURL": format!("/openapi/v3/{path}")});
        (path, url)
    });
    json!({"paths": paths.collect::<Map<_, _>>()})
}

/// The OpenAPI document of one group version. It shows kubectl that the server validates fields and
/// supports dry runs, so that kubectl downloads no schemas.
fn openapi(prefix: &str, kinds: &[Arc<Kind>]) -> Option<Value> {
    let mut paths = BTreeMap::new();
    let of_version = |kind: &&Arc<Kind>| url_prefix(&kind.api_version()) == prefix;
    for kind in kinds.iter().filter(of_version) {
        if kind.category == KindCategory::Review {
            continue;
        }
        let scope = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
        let parameters = ["dryRun", "fieldManager", "fieldValidation"]
            .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}));
        let formats = ["application/merge-patch+json", "application/json-patch+json"];
        let content: Map<_, _> =
            formats.iter().map(|format| (format.to_string(), json!({}))).collect();
        let patch = json!({
            "parameters": parameters,
            "requestBody": {"content": content},
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind":
                {"group": kind.group, "version": kind.version, "kind": kind.kind},
        });
        paths.insert(format!("/{prefix}/{scope}{}/{{name}}", kind.plural), json!({"patch": patch}));
    }
    (!paths.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": paths,
            "components": {"schemas": {}},
        })
    })
}
