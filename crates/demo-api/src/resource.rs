//! Requests for API resources.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::api::{Api, Delete, Write};
use super::authorize;
use super::error::ApiError;
use super::handler::{self, Body, Call};
use super::kinds::{Kind, KindCategory};
use super::object::{self, text};
use super::patch;
use super::protobuf;
use super::scale;
use super::selector::Selector;
use super::streams;
use super::table::{self, Include};
use k8s_audit::authorizer::Resource;
use k8s_audit::request::query;

type Answer = Result<Response<Body>, ApiError>;

/// Responds to a request for a resource; `asked` has been authorized.
///
/// # Errors
/// Returns the error, which becomes a `Status`.
pub(crate) fn answer(api: &Api, verb: &str, asked: &Resource<'_>, call: &Call) -> Answer {
    let kind = api.kind(asked.group, asked.version, asked.resource);
    let kind = kind.ok_or_else(ApiError::no_such_resource)?;
    // In RequestInfo, a Namespace object has its own name as namespace.
    let namespace = if kind.namespaced { asked.namespace } else { "" };
    if kind.category == KindCategory::Review {
        return match verb {
            "create" => review(&kind, namespace, call),
            _ => Err(ApiError::method_not_allowed()),
        };
    }
    let at = Place { api, kind, namespace, name: asked.name };
    match asked.subresource {
        "" => at.object(verb, call),
        name if !at.kind.has(name) => Err(ApiError::no_such_resource()),
        "log" => streams::log(api, &at.kind, namespace, at.name, call),
        "attach" | "exec" | "portforward" => Err(ApiError::bad_request("Upgrade request required")),
        subresource => at.part(verb, subresource, call),
    }
}

fn review(kind: &Kind, namespace: &str, call: &Call) -> Answer {
    let review = authorize::review(kind, &call.user, namespace, body(call)?)?;
    Ok(handler::json(StatusCode::CREATED, &review))
}

struct Place<'a> {
    api: &'a Api,
    kind: Arc<Kind>,
    namespace: &'a str,
    name: &'a str,
}

impl Place<'_> {
    fn object(&self, verb: &str, call: &Call) -> Answer {
        let Place { api, kind, namespace, name } = self;
        match verb {
            "get" => {
                let found = api.get(kind, namespace, name)?;
                Ok(self.show(StatusCode::OK, &found, call))
            }
            "list" => {
                let (objects, version) = api.list(kind, namespace, &selector(call)?);
                Ok(self.show_list(&objects, version, call))
            }
            "watch" => streams::watch(api, kind, namespace, selector(call)?, call),
            "create" => {
                let created = api.create(kind, namespace, body(call)?, &write(call, ""))?;
                Ok(self.show(StatusCode::CREATED, &created, call))
            }
            "update" => {
                let new = body(call)?;
                let write = write(call, "");
                let stored = api.modify(kind, namespace, name, &write, |_| Ok(new))?;
                Ok(self.show(StatusCode::OK, &stored, call))
            }
            "patch" if is_apply(call) => self.apply(call),
            "patch" => {
                let change = patch_of(kind, call)?;
                let write = write(call, "");
                let stored = api.modify(kind, namespace, name, &write, change)?;
                Ok(self.show(StatusCode::OK, &stored, call))
            }
            "delete" => {
                let gone = api.delete(kind, namespace, name, &delete_options(call)?)?;
                Ok(handler::json(StatusCode::OK, &gone))
            }
            "deletecollection" => {
                let (objects, version) = api.list(kind, namespace, &selector(call)?);
                for object in &objects {
                    let (namespace, name) = (object::namespace(object), object::name(object));
                    api.delete(kind, namespace, name, &delete_options(call)?)?;
                }
                Ok(self.show_list(&objects, version, call))
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    /// Server-side apply: creates the object, or merges the configuration into it.
    fn apply(&self, call: &Call) -> Answer {
        let Place { api, kind, namespace, name } = self;
        if parameter(call, "fieldManager").is_empty() {
            let of = ("meta.k8s.io", "PatchOptions");
            let cause = "Required value: is required for apply patch";
            return Err(ApiError::invalid(of, "", "fieldManager", cause));
        }
        let mut applied = body(call)?;
        object::metadata(&mut applied).remove("managedFields");
        let write = write(call, "");
        let merged = api.modify(kind, namespace, name, &write, |old| {
            let mut new = old.clone();
            patch::strategic(&mut new, &applied);
            Ok(new)
        });
        match merged {
            Ok(stored) => Ok(self.show(StatusCode::OK, &stored, call)),
            Err(error) if error.code == StatusCode::NOT_FOUND => {
                object::metadata(&mut applied).entry("name").or_insert((*name).into());
                let created = api.create(kind, namespace, applied, &write)?;
                Ok(self.show(StatusCode::CREATED, &created, call))
            }
            Err(error) => Err(error),
        }
    }

    /// Handles subresources that are parts of the object: `status` and `scale`.
    fn part(&self, verb: &str, subresource: &str, call: &Call) -> Answer {
        let Place { api, kind, namespace, name } = self;
        let is_scale = subresource == "scale";
        let shown = |object: &Value| {
            let part = if is_scale { scale::of(object) } else { object.clone() };
            handler::json(StatusCode::OK, &part)
        };
        let write = write(call, subresource);
        let stored = match verb {
            "get" => api.get(kind, namespace, name)?,
            "update" => {
                let new = body(call)?;
                api.modify(kind, namespace, name, &write, |old| {
                    if is_scale { scale::onto(old, &new) } else { Ok(new) }
                })?
            }
            "patch" => {
                let change = patch_of(kind, call)?;
                api.modify(kind, namespace, name, &write, |old| {
                    if is_scale { scale::onto(old, &change(&scale::of(old))?) } else { change(old) }
                })?
            }
            _ => return Err(ApiError::method_not_allowed()),
        };
        Ok(shown(&stored))
    }

    /// Returns an object, its table or its metadata, depending on `Accept`.
    fn show(&self, code: StatusCode, object: &Value, call: &Call) -> Response<Body> {
        let version = &object["metadata"]["resourceVersion"];
        let shown = match Shape::of(call) {
            Shape::Object => in_version(&self.kind, object).into_owned(),
            Shape::Partial => table::partial(object),
            Shape::Table => {
                let mut table = table::table(&self.kind, [object], include(call), true);
                table["metadata"] = json!({"resourceVersion": version});
                table
            }
        };
        handler::json(code, &shown)
    }

    fn show_list(&self, objects: &[Arc<Value>], version: u64, call: &Call) -> Response<Body> {
        let metadata = json!({"resourceVersion": version.to_string()});
        let objects = objects.iter().map(AsRef::as_ref);
        let list = match Shape::of(call) {
            Shape::Object => json!({
                "kind": self.kind.list_kind,
                "apiVersion": self.kind.api_version(),
                "metadata": metadata,
                "items": objects.map(|o| self.item(o)).collect::<Vec<_>>(),
            }),
            Shape::Partial => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": objects.map(table::partial).collect::<Vec<_>>(),
            }),
            Shape::Table => {
                let mut table = table::table(&self.kind, objects, include(call), true);
                table["metadata"] = metadata;
                table
            }
        };
        handler::json(StatusCode::OK, &list)
    }

    /// Returns an object in a list. Items of built-in kinds have no `kind` and `apiVersion`.
    fn item(&self, object: &Value) -> Value {
        let mut item = in_version(&self.kind, object).into_owned();
        if self.kind.category == KindCategory::BuiltIn {
            object::entries(&mut item).remove("kind");
            object::entries(&mut item).remove("apiVersion");
        }
        item
    }
}

/// Returns a stored object in the requested version.
pub(crate) fn in_version<'o>(kind: &Kind, object: &'o Value) -> Cow<'o, Value> {
    let version = kind.api_version();
    if object["apiVersion"] == version {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    object["apiVersion"] = version.into();
    Cow::Owned(object)
}

/// The representation of objects that a client accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    /// The complete objects.
    Object,
    /// Only their metadata.
    Partial,
    /// Rows of a Table.
    Table,
}

impl Shape {
    /// Returns the first representation in the `Accept` header.
    pub(crate) fn of(call: &Call) -> Shape {
        let first = handler::accepts(&call.headers).split(',').next().unwrap_or("");
        if first.contains("as=Table") {
            Shape::Table
        } else if first.contains("as=PartialObjectMetadata") {
            Shape::Partial
        } else {
            Shape::Object
        }
    }
}

/// Returns the first value of a query parameter; empty if there is none.
pub(crate) fn parameter(call: &Call, name: &str) -> String {
    let value = query::first(&call.query, name).unwrap_or_default();
    String::from_utf8_lossy(&value).into_owned()
}

/// Returns what table rows contain.
pub(crate) fn include(call: &Call) -> Include {
    match parameter(call, "includeObject").as_str() {
        "None" => Include::None,
        "Object" => Include::Object,
        _ => Include::Metadata,
    }
}

fn selector(call: &Call) -> Result<Selector, ApiError> {
    Selector::new(&parameter(call, "labelSelector"), &parameter(call, "fieldSelector"))
}

fn write(call: &Call, subresource: &str) -> Write {
    let mut manager = parameter(call, "fieldManager");
    if manager.is_empty() {
        let agent = call.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        manager = agent.unwrap_or("").split('/').next().unwrap_or("").into();
    }
    Write {
        dry_run: parameter(call, "dryRun") == "All",
        manager,
        apply: is_apply(call),
        subresource: subresource.into(),
    }
}

fn media_type(call: &Call) -> &str {
    let value = call.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or("").split(';').next().unwrap_or("").trim()
}

fn is_apply(call: &Call) -> bool {
    call.method == Method::PATCH && media_type(call).starts_with("application/apply-patch")
}

/// Parses the body: JSON, YAML, or protobuf for kinds that kubectl sends in it.
fn body(call: &Call) -> Result<Value, ApiError> {
    let accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let bytes = &call.body[..];
    let unreadable = |error: &dyn std::fmt::Display| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized: couldn't get version/kind; parse error: {error}"
        ))
    };
    match media_type(call) {
        "application/yaml" | "application/apply-patch+yaml" => {
            let text = std::str::from_utf8(bytes).map_err(|error| unreadable(&error))?;
            serde_yaml::from_str(text).map_err(|error| unreadable(&error))
        }
        "" | "application/json" => {
            serde_json::from_slice(bytes).map_err(|error| unreadable(&error))
        }
        "application/vnd.kubernetes.protobuf" => {
            protobuf::object(bytes).map_err(|error| unreadable(&error))
        }
        _ => Err(ApiError::unsupported_media_type(accepted)),
    }
}

fn patch_of(
    kind: &Kind,
    call: &Call,
) -> Result<impl Fn(&Value) -> Result<Value, ApiError>, ApiError> {
    let patch: Value = serde_json::from_slice(&call.body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    let custom = matches!(kind.category, KindCategory::Custom(_));
    let how = match media_type(call) {
        "application/merge-patch+json" => merged,
        "application/strategic-merge-patch+json" if !custom => strategically_merged,
        "application/json-patch+json" => patch::json_patch,
        _ => {
            let strategic = ", application/strategic-merge-patch+json";
            let accepted = format!(
                "application/json-patch+json, application/merge-patch+json{}, \
                 application/apply-patch+yaml",
                if custom { "" } else { strategic }
            );
            return Err(ApiError::unsupported_media_type(&accepted));
        }
    };
    Ok(move |old: &Value| {
        let mut new = old.clone();
        how(&mut new, &patch)?;
        Ok(new)
    })
}

fn merged(target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    patch::merge(target, patch);
    Ok(())
}

fn strategically_merged(target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    patch::strategic(target, patch);
    Ok(())
}

fn delete_options(call: &Call) -> Result<Delete, ApiError> {
    let options = if call.body.is_empty() { Value::Null } else { body(call)? };
    let dry = options["dryRun"].as_array().is_some_and(|list| list.iter().any(|d| d == "All"));
    Ok(Delete {
        dry_run: dry || parameter(call, "dryRun") == "All",
        uid: text(&options, "/preconditions/uid").into(),
        resource_version: text(&options, "/preconditions/resourceVersion").into(),
    })
}
