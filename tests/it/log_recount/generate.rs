//! A generated log with events for every report.

use serde_json::{Value as Json, json};

/// Reproducible pseudo-random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

fn time(micros: usize) -> String {
    format!(
        "2026-11-2{}T{:02}:{:02}:{:02}.{:06}Z",
        2 + micros / 86_400_000_000,
        micros / 3_600_000_000 % 24,
        micros / 60_000_000 % 60,
        micros / 1_000_000 % 60,
        micros % 1_000_000
    )
}

/// Returns lines of events, in the order in which they are written: the last event of a watch comes
/// long after its first.
pub(super) fn lines(requests: usize) -> Vec<String> {
    let mut random = Random(7);
    let mut events: Vec<(usize, String)> = Vec::new();
    for index in 0..requests {
        let started = 3_600_000_000 + index * 23_000_000 + random.below(1_000_000);
        let verb = random.of(&["get", "list", "watch", "create", "update", "patch", "delete"]);
        let latency = match verb {
            "watch" => 60_000_000 * random.below(300),
            _ => random.below(2_000_000),
        };
        let request = request(&mut random, index, verb);
        let mut push = |stage: &str, at: usize| {
            let mut event = request.clone();
            event["stage"] = json!(stage);
            event["requestReceivedTimestamp"] = json!(time(started));
            event["stageTimestamp"] = json!(time(at));
            if stage == "RequestReceived" {
                let members = event.as_object_mut().unwrap();
                members.remove("responseStatus");
                members.remove("responseObject");
                members.remove("annotations");
            }
            events.push((at, event.to_string()));
        };
        if index % 5 == 0 {
            push("RequestReceived", started);
        }
        if verb == "watch" {
            push("ResponseStarted", started + 1000);
        }
        // Some never end.
        if index % 53 != 0 {
            push("ResponseComplete", started + latency);
        }
    }
    events.sort();
    events.into_iter().map(|(_, line)| line).collect()
}

fn request(random: &mut Random, index: usize, verb: &str) -> Json {
    let user = random.of(&[
        "alice",
        "bob",
        "system:anonymous",
        "system:serviceaccount:ci:deployer",
        "CORP\\carol \"x\"",
        "\u{e9}ve\u{1f600}",
    ]);
    let (group, resource, subresource) = [
        ("", "secrets", ""),
        ("", "pods", ""),
        ("", "pods", "exec"),
        ("", "serviceaccounts", "token"),
        ("authentication.k8s.io", "tokenreviews", ""),
        ("rbac.authorization.k8s.io", "rolebindings", ""),
        ("apps", "deployments", ""),
        ("", "namespaces", ""),
        ("", "", ""),
    ][random.below(9)];
    let namespace = random.of(&["prod", "dev", "kube-system"]);
    let name = match resource {
        "deployments" => "web".to_owned(),
        _ => format!("n-{}", random.below(40)),
    };
    let id = match index % 61 {
        // Clients may choose audit IDs.
        7 => format!("client-{index}"),
        _ => format!("{index:08x}-0000-4000-8000-{:012x}", random.below(1 << 30)),
    };
    let code = [200, 200, 200, 201, 403, 404, 409, 500, 401][random.below(9)];
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": random.of(&["Metadata", "Request"]),
        "auditID": id,
        "requestURI": format!("/api/v1/{resource}/{name}?command=ls&command=%2Ftmp"),
        "verb": verb, "user": {"username": user, "groups": ["dev", "system:authenticated"]},
        "sourceIPs": [format!("10.0.0.{}", random.below(20))],
        "userAgent": random.of(&["kubectl/v1.36", "helm \"3\"", "curl\u{202e}"]),
        "responseStatus": {"metadata": {}, "code": code},
    });
    if code >= 400 {
        event["responseStatus"]["reason"] = json!(random.of(&["Forbidden", "NotFound"]));
        event["responseStatus"]["message"] = json!("no");
    }
    if !resource.is_empty() {
        event["objectRef"] =
            json!({"resource": resource, "namespace": namespace, "name": name, "apiVersion": "v1"});
        for (key, value) in [("apiGroup", group), ("subresource", subresource)] {
            if !value.is_empty() {
                event["objectRef"][key] = json!(value);
            }
        }
    }
    match index % 17 {
        3 => event["impersonatedUser"] = json!({"username": "root"}),
        4 => event["impersonatedUser"] = json!({}),
        5 => event["user"] = json!({}),
        _ => {}
    }
    let mut annotations =
        json!({"authorization.k8s.io/decision": if code == 403 { "forbid" } else { "allow" }});
    if index.is_multiple_of(7) {
        annotations["k8s.io/deprecated"] = json!(random.of(&["true", "false"]));
        annotations["k8s.io/removed-release"] = json!("1.40");
    }
    if resource == "pods" && index.is_multiple_of(3) {
        annotations["pod-security.kubernetes.io/enforce-policy"] = json!("restricted:latest");
        annotations["pod-security.kubernetes.io/exempt"] = json!(random.of(&["user", "namespace"]));
    }
    event["annotations"] = annotations;
    if resource == "rolebindings" && verb != "get" {
        event["requestObject"] = json!({
            "roleRef": {"kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "User", "name": "bob"}, {"kind": "ServiceAccount", "name": "d", "namespace": "ci"}],
        });
    }
    if resource == "deployments" {
        event["responseObject"] = json!({
            "kind": "Deployment", "metadata": {"name": "web", "labels": {"n": random.below(5)}},
            "spec": {"replicas": random.below(9), "image": format!("web:{}", random.below(9))},
        });
    }
    event
}
