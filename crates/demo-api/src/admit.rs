//! Defaults and status that kube-apiserver and the controllers of a cluster would set.

use serde_json::{Value, json};

use super::kinds::{CRD_GROUP, Kind};
use super::object;

/// Sets the defaults of a new object, and the status that controllers would soon write.
pub(crate) fn created(kind: &Kind, object: &mut Value) {
    let core = kind.group.is_empty();
    match kind.plural.as_str() {
        "namespaces" if core => namespace(object),
        "pods" if core => pod(object),
        "services" if core => service(object),
        "secrets" if core => secret(object),
        "customresourcedefinitions" if kind.group == CRD_GROUP => definition(object),
        _ => updated(kind, object),
    }
}

/// Updates fields that depend on an object's new content.
pub(crate) fn updated(kind: &Kind, object: &mut Value) {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "secrets") => secret(object),
        ("apps", "deployments" | "replicasets" | "statefulsets") => replicas(kind, object),
        _ => {}
    }
}

fn namespace(object: &mut Value) {
    let name = object::name(object).to_owned();
    let labels = object::metadata(object).entry("labels").or_insert(Value::Null);
    object::entries(labels).insert("kubernetes.io/metadata.name".into(), name.into());
    object::child(object, "spec").insert("finalizers".into(), json!(["kubernetes"]));
    object["status"] = json!({"phase": "Active"});
}

fn pod(object: &mut Value) {
    let spec = object::child(object, "spec");
    for (field, default) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("serviceAccountName", json!("default")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("nodeName", json!("demo-node")),
    ] {
        spec.entry(field).or_insert(default);
    }
    let now = object::now();
    let containers = object["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let statuses = containers.iter().map(|container| {
        json!({
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "containerID": format!("demo://{}", object::text(container, "/name")),
            "ready": true,
            "started": true,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        })
    });
    let statuses = statuses.collect::<Vec<_>>();
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .map(|name| json!({"type": name, "status": "True", "lastTransitionTime": now}));
    object["status"] = json!({
        "phase": "Running",
        "conditions": conditions,
        "containerStatuses": statuses,
        "hostIP": "192.0.2.1",
        "podIP": address("10.244", object),
        "qosClass": "BestEffort",
        "startTime": now,
    });
}

fn service(object: &mut Value) {
    let address = address("10.96", object);
    let spec = object::child(object, "spec");
    spec.entry("type").or_insert(json!("ClusterIP"));
    spec.entry("sessionAffinity").or_insert(json!("None"));
    if spec["type"] != "ExternalName" {
        let address = spec.entry("clusterIP").or_insert(address.into()).clone();
        spec.entry("clusterIPs").or_insert(json!([address]));
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let number = port["port"].clone();
        let port = object::entries(port);
        port.entry("protocol").or_insert(json!("TCP"));
        port.entry("targetPort").or_insert(number);
    }
    object["status"] = json!({"loadBalancer": {}});
}

/// An address derived from the object's name, so that every run has the same ones.
fn address(network: &str, object: &Value) -> String {
    let place = |hash: u32, byte: u8| hash.wrapping_mul(31).wrapping_add(byte.into());
    let text = format!("{}/{}", object::namespace(object), object::name(object));
    let hash = text.bytes().fold(7, place);
    format!("{network}.{}.{}", hash / 254 % 254 + 1, hash % 254 + 1)
}

/// Moves `stringData` to `data`.
fn secret(object: &mut Value) {
    let plain = object::entries(object).remove("stringData");
    for (key, value) in plain.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let encoded = object::base64(value.as_str().unwrap_or("").as_bytes());
        object::child(object, "data").insert(key.clone(), encoded.into());
    }
    object::entries(object).entry("type").or_insert(json!("Opaque"));
}

/// Reports all requested replicas as ready.
fn replicas(kind: &Kind, object: &mut Value) {
    let spec = object::child(object, "spec");
    let wanted = spec.entry("replicas").or_insert(json!(1)).clone();
    let generation = object["metadata"]["generation"].clone();
    let mut status = json!({
        "observedGeneration": generation,
        "replicas": wanted,
        "readyReplicas": wanted,
        "availableReplicas": wanted,
    });
    if kind.plural != "replicasets" {
        status["updatedReplicas"] = wanted;
    }
    if kind.plural == "deployments" {
        let since = object["metadata"]["creationTimestamp"].clone();
        status["conditions"] = json!([{
            "type": "Available",
            "status": "True",
            "reason": "MinimumReplicasAvailable",
            "message": "Deployment has minimum availability.",
            "lastUpdateTime": since,
            "lastTransitionTime": since,
        }]);
    }
    object["status"] = status;
}

fn definition(object: &mut Value) {
    let now = object::now();
    let names = object["spec"]["names"].clone();
    let versions = object["spec"]["versions"].as_array().into_iter().flatten();
    let stored: Vec<_> = versions
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    let condition = |name: &str, reason: &str, message: &str| {
        json!({
            "type": name,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": now,
        })
    };
    object["status"] = json!({
        "acceptedNames": names,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition(
                "Established",
                "InitialNamesAccepted",
                "the initial names have been accepted",
            ),
        ],
        "storedVersions": stored,
    });
}
