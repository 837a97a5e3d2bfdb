//! The objects of a new demo cluster.

use serde_json::{Value, json};

use super::api::{Api, Write};
use super::object;
use super::store::{Key, Store};

/// Creates the objects in an empty API.
pub(crate) fn create_objects(api: &Api) {
    for object in objects() {
        let version = object::text(&object, "/apiVersion");
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let of = object::text(&object, "/kind");
        let kinds = api.kinds();
        let mut served = kinds.iter();
        let kind = served
            .find(|kind| kind.group == group && kind.version == version && kind.kind == of)
            .expect("the seeds are of built-in kinds");
        let namespace = object::namespace(&object).to_owned();
        let write = Write { manager: "kube-audit-proxy".into(), ..Write::default() };
        api.create(kind, &namespace, object.clone(), &write).expect("the seeds are valid");
    }
}

/// Creates the objects that controllers create in each new namespace.
pub(crate) fn in_namespace(store: &mut Store, namespace: &str) {
    let mut account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": namespace},
    });
    let metadata = object::metadata(&mut account);
    metadata.insert("uid".into(), object::uid().into());
    metadata.insert("creationTimestamp".into(), object::now().into());
    let key = Key {
        resource: "serviceaccounts".into(),
        namespace: namespace.into(),
        name: "default".into(),
    };
    store.put(key, account);
}

fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = ["default", "kube-node-lease", "kube-public", "kube-system"]
        .iter()
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .collect();
    let labels = json!({"app": "hello"});
    let container = json!({"name": "hello", "image": "registry.k8s.io/echoserver:1.10"});
    objects.extend([
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": "demo-node",
                "labels": {
                    "kubernetes.io/hostname": "demo-node",
                    "node-role.kubernetes.io/control-plane": "",
                },
            },
            "spec": {"podCIDR": "10.244.0.0/24"},
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {
                "clusterIP": "10.96.0.1",
                "ports": [{"name": "https", "port": 443, "targetPort": 6443}],
            },
        }),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "welcome", "namespace": "default"},
            "data": {"text": "This API lives in memory. Every request to it is audited."},
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "password", "namespace": "default"},
            "stringData": {"password": "not-in-the-audit-log"},
        }),
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "hello", "namespace": "default", "labels": labels},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "hello-0", "namespace": "default", "labels": labels},
            "spec": {"containers": [container]},
        }),
    ]);
    for (name, verbs) in
        [("cluster-admin", json!(["*"])), ("view", json!(["get", "list", "watch"]))]
    {
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}],
        }));
    }
    objects
}
