//! Server-side tables, which `kubectl get` prints.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::kinds::{Kind, KindCategory};
use super::object::{self, text};

/// What each row contains of its object (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

/// A column: name, type, whether only `-o wide` shows it, and the function for its cells.
struct Column {
    name: String,
    kind: String,
    wide: bool,
    cell: Cell,
}

type Named = (&'static str, fn(&Value) -> Value);

enum Cell {
    Of(fn(&Value) -> Value),
    /// A column of a custom kind, with its path as a JSON pointer.
    At(String),
}

/// Returns a `meta.k8s.io/v1` Table of these objects; without column definitions for later frames
/// of a watch.
pub(crate) fn table<'o>(
    kind: &Kind,
    objects: impl IntoIterator<Item = &'o Value>,
    include: Include,
    with_columns: bool,
) -> Value {
    let columns = columns(kind);
    let rows = objects.into_iter().map(|object| {
        let cells: Vec<Value> = columns.iter().map(|column| column.cell(object)).collect();
        match include {
            Include::None => json!({"cells": cells}),
            Include::Metadata => json!({"cells": cells, "object": partial(object)}),
            Include::Object => json!({"cells": cells, "object": object}),
        }
    });
    let rows = rows.collect::<Vec<_>>();
    let definitions = columns.iter().filter(|_| with_columns).map(|column| {
        let format = if column.name == "Name" { "name" } else { "" };
        json!({
            "name": column.name,
            "type": column.kind,
            "format": format,
            "description": "",
            "priority": u8::from(column.wide),
        })
    });
    let definitions = definitions.collect::<Vec<_>>();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// Returns an object reduced to its metadata.
pub(crate) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

impl Column {
    fn cell(&self, object: &Value) -> Value {
        match &self.cell {
            Cell::Of(cell) => cell(object),
            Cell::At(pointer) => {
                let value = object.pointer(pointer).cloned().unwrap_or(Value::Null);
                match (self.kind.as_str(), value) {
                    ("date", Value::String(time)) => age_of(&time).into(),
                    (_, value @ (Value::Array(_) | Value::Object(_))) => value.to_string().into(),
                    (_, value) => value,
                }
            }
        }
    }
}

fn columns(kind: &Kind) -> Vec<Column> {
    let column = |name: &str, kind: &str, wide, cell| Column {
        name: name.into(),
        kind: kind.into(),
        wide,
        cell: Cell::Of(cell),
    };
    let mut columns = vec![column("Name", "string", false, |o| object::name(o).into())];
    let mut add = |list: &[Named]| {
        for (name, cell) in list {
            // Columns of `-o wide` have names in lower case.
            let wide = name.starts_with(char::is_lowercase);
            columns.push(column(&name.replacen("ip", "IP", 1), "string", wide, *cell));
        }
    };
    let age: Named = ("Age", age);
    if let KindCategory::Custom(definitions) = &kind.category {
        for definition in definitions {
            columns.push(Column {
                name: text(definition, "/name").into(),
                kind: text(definition, "/type").into(),
                wide: definition["priority"].as_u64().unwrap_or(0) > 0,
                cell: Cell::At(
                    text(definition, "/jsonPath").replace(['.', '['], "/").replace(']', ""),
                ),
            });
        }
        if definitions.is_empty() {
            columns.push(column("Age", "string", false, age.1));
        }
        return columns;
    }
    match kind.plural.as_str() {
        "pods" => add(&[
            ("Ready", pod_ready),
            ("Status", |o| at(o, "/status/phase")),
            ("Restarts", pod_restarts),
            age,
            ("ip", |o| at(o, "/status/podIP")),
            ("node", |o| at(o, "/spec/nodeName")),
        ]),
        "deployments" => add(&[
            ("Ready", ready_replicas),
            ("Up-to-date", |o| at(o, "/status/updatedReplicas")),
            ("Available", |o| at(o, "/status/availableReplicas")),
            age,
        ]),
        "statefulsets" => add(&[("Ready", ready_replicas), age]),
        "replicasets" => add(&[
            ("Desired", |o| at(o, "/spec/replicas")),
            ("Current", |o| at(o, "/status/replicas")),
            ("Ready", |o| at(o, "/status/readyReplicas")),
            age,
        ]),
        "services" => add(&[
            ("Type", |o| at(o, "/spec/type")),
            ("Cluster-IP", |o| at(o, "/spec/clusterIP")),
            ("External-IP", |_| "<none>".into()),
            ("Port(s)", service_ports),
            age,
        ]),
        "configmaps" => add(&[("Data", data_items), age]),
        "secrets" => add(&[("Type", |o| at(o, "/type")), ("Data", data_items), age]),
        "namespaces" => add(&[("Status", |o| at(o, "/status/phase")), age]),
        "nodes" => add(&[
            ("Status", |_| "Ready".into()),
            ("Roles", |_| "control-plane".into()),
            age,
            ("Version", |_| super::discovery::VERSION.into()),
        ]),
        "serviceaccounts" => add(&[("Secrets", |_| 0.into()), age]),
        "events" => add(&[
            ("Type", |o| at(o, "/type")),
            ("Reason", |o| at(o, "/reason")),
            ("Message", |o| at(o, "/message")),
            age,
        ]),
        "rolebindings" | "clusterrolebindings" => add(&[
            ("Role", |o| {
                format!("{}/{}", text(o, "/roleRef/kind"), text(o, "/roleRef/name")).into()
            }),
            age,
        ]),
        "roles" | "clusterroles" | "customresourcedefinitions" => {
            add(&[("Created At", |o| at(o, "/metadata/creationTimestamp"))]);
        }
        _ => add(&[age]),
    }
    columns
}

fn at(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).cloned().unwrap_or_else(|| "<none>".into())
}

fn pod_ready(pod: &Value) -> Value {
    let statuses = pod["status"]["containerStatuses"].as_array();
    let statuses = statuses.map_or(&[] as &[Value], Vec::as_slice);
    let ready = statuses.iter().filter(|s| s["ready"] == true).count();
    format!("{ready}/{}", statuses.len()).into()
}

fn pod_restarts(pod: &Value) -> Value {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let restarts = statuses.filter_map(|s| s["restartCount"].as_u64()).sum::<u64>();
    restarts.to_string().into()
}

fn ready_replicas(object: &Value) -> Value {
    let number = |pointer| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    format!("{}/{}", number("/status/readyReplicas"), number("/spec/replicas")).into()
}

fn service_ports(service: &Value) -> Value {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let ports = ports.map(|port| format!("{}/{}", port["port"], text(port, "/protocol")));
    ports.collect::<Vec<_>>().join(",").into()
}

fn data_items(object: &Value) -> Value {
    let count = |field: &str| object[field].as_object().map_or(0, serde_json::Map::len);
    (count("data") + count("binaryData")).into()
}

fn age(object: &Value) -> Value {
    age_of(text(object, "/metadata/creationTimestamp")).into()
}

fn age_of(time: &str) -> String {
    let Ok(then) = OffsetDateTime::parse(time, &Rfc3339) else { return "<unknown>".into() };
    human_duration((OffsetDateTime::now_utc() - then).whole_seconds())
}

/// Kubernetes' `HumanDuration`.
fn human_duration(seconds: i64) -> String {
    let two = |big: i64, small: i64, names: (&str, &str)| match small {
        0 => format!("{big}{}", names.0),
        _ => format!("{big}{}{small}{}", names.0, names.1),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..0 => "<invalid>".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, seconds % 60, ("m", "s")),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, minutes % 60, ("h", "m")),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, hours % 24, ("d", "h")),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, days % 365, ("y", "d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::BUILT_IN;

    #[test]
    fn every_row_has_a_cell_for_every_column() {
        for kind in BUILT_IN.iter() {
            let object = json!({"metadata": {"name": "a"}});
            let table = table(kind, [&object], Include::Metadata, true);
            let columns = table["columnDefinitions"].as_array().unwrap();
            let cells = table["rows"][0]["cells"].as_array().unwrap();
            assert_eq!(columns.len(), cells.len(), "{}", kind.kind);
            assert_eq!(cells[0], "a");
            assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        }
    }

    #[test]
    fn durations_read_as_in_kubectl() {
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (190, "3m10s"),
            (3600, "60m"),
            (11_400, "3h10m"),
            (90_000, "25h"),
            (176_400, "2d1h"),
            (864_000, "10d"),
            (-5, "<invalid>"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text);
        }
    }
}
