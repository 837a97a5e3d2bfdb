//! The audit events of a cluster at level Metadata: nodes, control plane, add-ons, users, CI,
//! failures.
//!
//! The same arguments result in the same events.

use std::fmt::Write;

/// A request in the audit log.
struct Request<'r> {
    user: &'r str,
    groups: &'r [&'r str],
    verb: &'r str,
    group: &'r str,
    resource: &'r str,
    namespace: &'r str,
    name: &'r str,
    code: u16,
    impersonated: Option<&'r str>,
}

const GET: Request<'static> = Request {
    user: "",
    groups: &["system:authenticated"],
    verb: "get",
    group: "",
    resource: "",
    namespace: "",
    name: "",
    code: 200,
    impersonated: None,
};
const NODE_GROUPS: [&str; 2] = ["system:nodes", "system:authenticated"];
const ADD_ON_GROUPS: [&str; 3] =
    ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
const KCM: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";

/// Calls `each` with the lines of `seconds` seconds; a day has 86,400.
pub(super) fn events(nodes: usize, seconds: usize, mut each: impl FnMut(&str)) {
    let mut line = String::new();
    let mut number = 0;
    let mut emit = |second: usize, request: &Request<'_>, line: &mut String| {
        line.clear();
        push(line, number, second, request);
        number += 1;
        each(line);
    };
    for second in 0..seconds {
        for node in (0..nodes).filter(|node| (second + node).is_multiple_of(10)) {
            of_node(node, second, &mut |request| emit(second, request, &mut line));
        }
        of_control_plane(second, &mut |request| emit(second, request, &mut line));
        if second.is_multiple_of(7) {
            of_people(second / 7, &mut |request| emit(second, request, &mut line));
        }
    }
}

/// The requests of a node, every ten seconds.
fn of_node(node: usize, second: usize, emit: &mut dyn FnMut(&Request<'_>)) {
    let (name, turn) = (format!("node-{node:03}"), second / 10 + node);
    let user = format!("system:node:{name}");
    let request = Request { user: &user, groups: &NODE_GROUPS, ..GET };
    emit(&Request {
        verb: "update",
        group: "coordination.k8s.io",
        resource: "leases",
        namespace: "kube-node-lease",
        name: &name,
        ..request
    });
    emit(&Request { resource: "nodes", name: &name, ..request });
    let pod = format!("web-{:04x}", turn % 4096);
    emit(&Request { resource: "pods", namespace: "prod", name: &pod, ..request });
    if turn.is_multiple_of(6) {
        for resource in ["pods", "services", "nodes"] {
            emit(&Request { verb: "watch", resource, ..request });
        }
        emit(&Request {
            verb: "watch",
            group: "node.k8s.io",
            resource: "runtimeclasses",
            ..request
        });
        emit(&Request {
            verb: "watch",
            resource: "secrets",
            namespace: "prod",
            name: "tls",
            ..request
        });
        emit(&Request {
            verb: "watch",
            resource: "configmaps",
            namespace: "prod",
            name: "web",
            ..request
        });
    }
    if turn.is_multiple_of(30) {
        emit(&Request { verb: "patch", resource: "nodes/status", name: &name, ..request });
        emit(&Request {
            verb: "create",
            resource: "serviceaccounts/token",
            namespace: "prod",
            name: "web",
            ..request
        });
        // Nodes that are not ready yet request these without success.
        let code = if turn.is_multiple_of(90) { 404 } else { 200 };
        emit(&Request {
            group: "storage.k8s.io",
            resource: "csinodes",
            name: &name,
            code,
            ..request
        });
    }
}

/// The requests of the control plane, every second.
fn of_control_plane(second: usize, emit: &mut dyn FnMut(&Request<'_>)) {
    for user in [KCM, SCHEDULER] {
        let lease = Request {
            user,
            group: "coordination.k8s.io",
            resource: "leases",
            namespace: "kube-system",
            name: &user["system:".len()..],
            ..GET
        };
        emit(&lease);
        emit(&Request { verb: "update", ..lease });
        if second.is_multiple_of(20) {
            for resource in ["pods", "nodes", "services", "persistentvolumeclaims"] {
                emit(&Request { user, verb: "watch", resource, ..GET });
            }
            emit(&Request {
                user,
                verb: "list",
                group: "discovery.k8s.io",
                resource: "endpointslices",
                ..GET
            });
            emit(&Request { user, verb: "list", resource: "secrets", ..GET });
        }
    }
    for path in ["/readyz", "/livez", "/healthz"] {
        emit(&Request {
            user: "system:anonymous",
            groups: &["system:unauthenticated"],
            resource: path,
            ..GET
        });
    }
    for add_on in ["coredns", "metrics-server", "kube-proxy"] {
        let user = format!("system:serviceaccount:kube-system:{add_on}");
        let request = Request { user: &user, groups: &ADD_ON_GROUPS, ..GET };
        emit(&Request { verb: "list", resource: "endpoints", ..request });
        if second.is_multiple_of(10) {
            emit(&Request {
                verb: "watch",
                group: "discovery.k8s.io",
                resource: "endpointslices",
                ..request
            });
        }
    }
    if second.is_multiple_of(3) {
        emit(&Request {
            user: "system:apiserver",
            verb: "update",
            resource: "endpoints",
            namespace: "default",
            name: "kubernetes",
            ..GET
        });
    }
}

fn of_people(turn: usize, emit: &mut dyn FnMut(&Request<'_>)) {
    let user = ["alice@example.com", "bob@example.com", "carol@example.com"][turn % 3];
    let groups = ["dev", "system:authenticated"];
    let request = Request { user, groups: &groups, namespace: "prod", name: "web", ..GET };
    let code = if turn.is_multiple_of(11) { 403 } else { 200 };
    emit(&match turn % 8 {
        0 => Request { verb: "list", resource: "pods", name: "", ..request },
        1 => Request { verb: "patch", group: "apps", resource: "deployments", code, ..request },
        2 => Request { verb: "create", resource: "pods/exec", code: 101, ..request },
        3 => Request { resource: "secrets", code, ..request },
        4 => Request {
            verb: "create",
            group: "rbac.authorization.k8s.io",
            resource: "rolebindings",
            name: "",
            code: 201,
            ..request
        },
        5 => Request {
            verb: "delete",
            resource: "pods",
            impersonated: Some("system:node:node-001"),
            ..request
        },
        6 => Request { verb: "list", resource: "nodes", namespace: "", name: "", ..request },
        _ => Request { resource: "/version", namespace: "", name: "", ..request },
    });
    if turn.is_multiple_of(5) {
        emit(&Request {
            user: "system:serviceaccount:ci:deployer",
            groups: &[
                "system:serviceaccounts",
                "system:serviceaccounts:ci",
                "system:authenticated",
            ],
            verb: "patch",
            group: "apps",
            resource: "deployments",
            namespace: "prod",
            name: "web",
            ..GET
        });
    }
}

fn push(line: &mut String, number: usize, second: usize, request: &Request<'_>) {
    let (resource, subresource) = match request.resource.split_once('/') {
        Some((resource, subresource)) if !resource.is_empty() => (resource, subresource),
        _ => (request.resource, ""),
    };
    let mut uri = match request.group {
        _ if resource.starts_with('/') => String::new(),
        "" => "/api/v1/".to_owned(),
        group => format!("/apis/{group}/v1/"),
    };
    if !request.namespace.is_empty() {
        uri = format!("{uri}namespaces/{}/", request.namespace);
    }
    uri.push_str(resource);
    let by_name = matches!(request.verb, "list" | "watch");
    for part in [if by_name { "" } else { request.name }, subresource] {
        if !part.is_empty() {
            uri = format!("{uri}/{part}");
        }
    }
    if by_name {
        let watch = if request.verb == "watch" { "watch=true&" } else { "" };
        let name = match request.name {
            "" => String::new(),
            name => format!("fieldSelector=metadata.name%3D{name}&"),
        };
        uri = format!("{uri}?{watch}{name}resourceVersion={number}");
    }
    let _ = write!(
        line,
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\
         \"auditID\":\"{number:08x}-0000-4000-a000-{second:012x}\",\"stage\":\"ResponseComplete\",\
         \"requestURI\":\"{uri}\",\"verb\":\"{}\",\"user\":{{\"username\":\"{}\",\"groups\":[",
        request.verb, request.user
    );
    for (index, group) in request.groups.iter().enumerate() {
        let _ = write!(line, "{}\"{group}\"", if index > 0 { "," } else { "" });
    }
    line.push_str("]}");
    if let Some(user) = request.impersonated {
        let _ = write!(line, ",\"impersonatedUser\":{{\"username\":\"{user}\"}}");
    }
    line.push_str(",\"sourceIPs\":[\"10.0.0.1\"],\"userAgent\":\"kubelet/v1.36.0 (linux/amd64) kubernetes/abcdef0\"");
    if !resource.starts_with('/') {
        let _ = write!(line, ",\"objectRef\":{{\"resource\":\"{resource}\"");
        for (member, value) in [
            ("namespace", request.namespace),
            ("name", request.name),
            ("apiGroup", request.group),
            ("apiVersion", "v1"),
            ("subresource", subresource),
        ] {
            if !value.is_empty() {
                let _ = write!(line, ",\"{member}\":\"{value}\"");
            }
        }
        line.push('}');
    }
    let (hour, minute) = (second / 3600 % 24, second / 60 % 60);
    let time =
        format!("2026-11-23T{hour:02}:{minute:02}:{:02}.{:06}Z", second % 60, number % 1_000_000);
    let _ = writeln!(
        line,
        ",\"responseStatus\":{{\"metadata\":{{}},\"code\":{}}},\"requestReceivedTimestamp\":\"{time}\",\
         \"stageTimestamp\":\"{time}\",\"annotations\":{{\"authorization.k8s.io/decision\":\"allow\",\
         \"authorization.k8s.io/reason\":\"\"}}}}",
        request.code
    );
}
