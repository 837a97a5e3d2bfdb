//! Requests with hostile bodies.

use std::fmt;

use serde_json::{Value, json};

use super::{cbor, protobuf, yaml};

/// One request.
pub(super) struct Case {
    pub(super) method: &'static str,
    pub(super) uri: String,
    pub(super) headers: Vec<String>,
    pub(super) body: Vec<u8>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { method, uri, headers, body } = self;
        write!(f, "{method} {uri} {headers:?} {}", body.escape_ascii())
    }
}

/// Deterministic pseudo-random numbers (xorshift).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }

    /// Returns `true` with a probability of one in `times`.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// A resource that requests are sent to.
pub(super) struct Kind {
    pub(super) kind: &'static str,
    api: &'static str,
    api_version: &'static str,
    namespaced: bool,
    plural: &'static str,
    content: &'static str,
}

const fn kind(
    kind: &'static str,
    (api, api_version): (&'static str, &'static str),
    namespaced: bool,
    plural: &'static str,
    content: &'static str,
) -> Kind {
    Kind { kind, api, api_version, namespaced, plural, content }
}

const CORE: (&str, &str) = ("/api/v1", "v1");
const RBAC: (&str, &str) = ("/apis/rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io/v1");

pub(super) const KINDS: [Kind; 6] = [
    kind(
        "ConfigMap",
        CORE,
        true,
        "configmaps",
        r#"{"data":{"a":"1","b":"two"},"binaryData":{"bin":"aGk="},"immutable":false}"#,
    ),
    kind(
        "Secret",
        CORE,
        true,
        "secrets",
        r#"{"data":{"p":"aHVudGVyMg=="},"stringData":{"s":"text"},"type":"Opaque"}"#,
    ),
    kind(
        "ClusterRoleBinding",
        RBAC,
        false,
        "clusterrolebindings",
        r#"{"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"},"subjects":[{"kind":"User","name":"eve","apiGroup":"rbac.authorization.k8s.io"},{"kind":"ServiceAccount","name":"s","namespace":"default"}]}"#,
    ),
    kind(
        "Role",
        RBAC,
        true,
        "roles",
        r#"{"rules":[{"verbs":["get","list"],"apiGroups":[""],"resources":["pods"]},{"verbs":["*"],"apiGroups":["apps"],"resources":["deployments"],"resourceNames":["x"]}]}"#,
    ),
    kind(
        "Pod",
        CORE,
        true,
        "pods",
        r#"{"spec":{"automountServiceAccountToken":false,"containers":[{"name":"c","image":"i:1","command":["sh","-c"],"env":[{"name":"E","value":"v"}],"ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"1"}},"livenessProbe":{"httpGet":{"port":"http","path":"/"}}}],"terminationGracePeriodSeconds":5,"nodeSelector":{"a":"b"},"hostNetwork":true,"tolerations":[{"operator":"Exists"}]}}"#,
    ),
    kind(
        "Widget",
        ("/apis/example.com/v1", "example.com/v1"),
        true,
        "widgets",
        r#"{"spec":{"n":1,"f":1.5,"s":"x","list":[1,"a",null,{"b":true}],"nested":{"deep":{"er":[[]]}}},"top":null}"#,
    ),
];

impl Kind {
    pub(super) fn collection(&self) -> String {
        let namespace = if self.namespaced { "/namespaces/default" } else { "" };
        format!("{}{namespace}/{}", self.api, self.plural)
    }

    pub(super) fn object(&self, name: &str) -> Value {
        let mut object: Value = serde_json::from_str(self.content).unwrap();
        object["kind"] = self.kind.into();
        object["apiVersion"] = self.api_version.into();
        object["metadata"] =
            json!({"name": name, "labels": {"l": "m"}, "annotations": {"note": "x y"}});
        object
    }
}

pub(super) fn case(random: &mut Random) -> Case {
    let kind = random.one(&KINDS);
    match random.below(10) {
        0..=5 => object(random, kind, "POST"),
        6 => object(random, kind, "PUT"),
        7 | 8 => patch(random, kind),
        _ => delete(random, kind),
    }
}

fn object(random: &mut Random, kind: &Kind, method: &'static str) -> Case {
    let name = if method == "PUT" { "base" } else { "made" };
    let mut value = kind.object(name);
    if random.once_in(6) {
        value.as_object_mut().unwrap().remove(*random.one(&["kind", "apiVersion"]));
    }
    if method == "POST" && random.once_in(8) {
        let metadata = value["metadata"].as_object_mut().unwrap();
        metadata.insert("generateName".to_owned(), "gen-".into());
        if random.once_in(2) {
            metadata.remove("name");
        }
    }
    let mut uri = kind.collection();
    if method == "PUT" {
        uri.push_str("/base");
    }
    let (body, mut headers) = encoded(random, kind, &value);
    uri.push_str("?dryRun=All");
    match random.below(12) {
        0 => uri.push_str("&fieldValidation=Strict"),
        1 => uri.push_str("&fieldManager=m"),
        2 => headers.push("Content-Encoding: gzip".to_owned()),
        3 => headers.push("Accept: application/yaml".to_owned()),
        4 => headers.push("Accept: application/vnd.kubernetes.protobuf".to_owned()),
        5 => headers.push("Accept: application/cbor".to_owned()),
        6 => headers.push("Accept: application/json;as=Table;v=v1;g=meta.k8s.io".to_owned()),
        _ => {}
    }
    Case { method, uri, headers, body }
}

fn encoded(random: &mut Random, kind: &Kind, value: &Value) -> (Vec<u8>, Vec<String>) {
    let (body, media_type) = match random.below(10) {
        0..=3 => (super::json::write(random, value), "application/json"),
        4..=6 => (yaml::write(random, value), "application/yaml"),
        7 => (cbor::write(random, value), "application/cbor"),
        _ => match protobuf::write(random, kind.kind, value) {
            Some(body) => (body, "application/vnd.kubernetes.protobuf"),
            None => (super::json::write(random, value), "application/json"),
        },
    };
    const ODD: [&str; 6] = [
        "Content-Type: APPLICATION/JSON",
        "Content-Type: application/yaml;charset=utf-16",
        "Content-Type: application/json; q=1 ;",
        "Content-Type: text/plain",
        "Content-Type: application/yaml",
        "Content-Type:",
    ];
    let header = match random.below(25) {
        0 => (*random.one(&ODD)).to_owned(),
        1 => return (body, Vec::new()),
        _ => format!("Content-Type: {media_type}"),
    };
    (body, vec![header])
}

fn patch(random: &mut Random, kind: &Kind) -> Case {
    let uri = format!("{}/base?dryRun=All", kind.collection());
    let mut value = kind.object("base");
    let members = value.as_object_mut().unwrap();
    let (body, media_type) = match random.below(4) {
        0 => {
            members.retain(|name, _| name == "metadata");
            members["metadata"].as_object_mut().unwrap().remove("name");
            (super::json::write(random, &value), "application/merge-patch+json")
        }
        1 => {
            members.retain(|name, _| name == "metadata");
            (super::json::write(random, &value), "application/strategic-merge-patch+json")
        }
        2 => {
            let operation = json!([
                {"op": "add", "path": "/metadata/labels/n", "value": "v"},
                {"op": "test", "path": "/metadata/name", "value": "base"}
            ]);
            (super::json::write(random, &operation), "application/json-patch+json")
        }
        _ => {
            let body = match random.below(3) {
                0 => yaml::write(random, &value),
                _ => super::json::write(random, &value),
            };
            let uri = format!("{uri}&fieldManager=m&force=true");
            let headers = vec!["Content-Type: application/apply-patch+yaml".to_owned()];
            return Case { method: "PATCH", uri, headers, body };
        }
    };
    let headers = vec![format!("Content-Type: {media_type}")];
    Case { method: "PATCH", uri, headers, body }
}

fn delete(random: &mut Random, kind: &Kind) -> Case {
    let options = json!({
        "kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"],
        "propagationPolicy": "Foreground", "gracePeriodSeconds": 3,
        "preconditions": {"resourceVersion": "7"}
    });
    let mut options = options;
    let removed = *random.one(&["kind", "preconditions", "propagationPolicy", "apiVersion"]);
    options.as_object_mut().unwrap().remove(removed);
    let (body, media_type) = match random.below(3) {
        0 => (yaml::write(random, &options), "application/yaml"),
        1 => (cbor::write(random, &options), "application/cbor"),
        _ => (super::json::write(random, &options), "application/json"),
    };
    let uri = match random.once_in(4) {
        true => format!("{}?dryRun=All", kind.collection()),
        false => format!("{}/base?dryRun=All", kind.collection()),
    };
    let headers = vec![format!("Content-Type: {media_type}")];
    Case { method: "DELETE", uri, headers, body }
}

/// Returns another value for a member that occurs twice.
pub(super) fn other(random: &mut Random, value: &Value) -> Value {
    match (random.below(6), value) {
        (0, _) => Value::Null,
        (1, Value::Object(members)) => {
            let mut members = members.clone();
            let first = members.keys().next().cloned();
            first.and_then(|first| members.remove(&first));
            Value::Object(members)
        }
        (2, Value::Array(elements)) => Value::Array(elements.iter().take(1).cloned().collect()),
        (_, Value::String(_)) => (*random.one(&["decoy", "cluster-admin", "", "ZGVjb3k="])).into(),
        (_, Value::Number(_)) => 7.into(),
        (_, Value::Bool(value)) => (!value).into(),
        (_, Value::Object(_)) => {
            random.one(&[json!({}), json!({"name": "decoy"}), json!({"a": "decoy"})]).clone()
        }
        (_, Value::Array(_)) => random.one(&[json!([]), json!([{}]), json!(["x"])]).clone(),
        (_, Value::Null) => 1.into(),
    }
}
