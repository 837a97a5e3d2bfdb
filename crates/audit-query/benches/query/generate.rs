//! A realistic audit log of a cluster: nodes, controllers, users, and a few suspicious events.
//!
//! The same size and seed result in the same bytes.

use std::fmt::Write as _;
use std::io::{self, Write};

/// A simple random number generator (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % limit as u64) as usize
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

const NAMESPACES: [&str; 12] = [
    "prod",
    "staging",
    "dev",
    "kube-system",
    "monitoring",
    "ci",
    "payments",
    "shop",
    "search",
    "team-a",
    "team-b",
    "ingress",
];
const PEOPLE: [&str; 10] = [
    "alice@example.com",
    "bob@example.com",
    "carol@example.com",
    "dave@example.com",
    "erin@example.com",
    "frank@example.com",
    "grace@example.com",
    "heidi@example.com",
    "ivan@example.com",
    "judy@example.com",
];
const CONTROLLERS: [&str; 6] = [
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:serviceaccount:kube-system:replicaset-controller",
    "system:serviceaccount:kube-system:deployment-controller",
    "system:serviceaccount:monitoring:prometheus",
    "system:serviceaccount:ci:deployer",
];

/// Writes events until there are `size` bytes. Returns the number of events.
pub(crate) fn generate(out: &mut impl Write, size: u64, seed: u64) -> io::Result<u64> {
    let mut random = Random::new(seed);
    let (mut written, mut events, mut micros) = (0_u64, 0_u64, 0_u64);
    let mut line = String::new();
    while written < size {
        line.clear();
        micros += 1000 + random.below(9000) as u64;
        push(&mut line, &mut random, events, micros);
        out.write_all(line.as_bytes())?;
        written += line.len() as u64;
        events += 1;
    }
    Ok(events)
}

fn time(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    format!(
        "2026-11-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        1 + seconds / 86_400 % 28,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        micros % 1_000_000
    )
}

struct Request<'a> {
    user: String,
    groups: &'a str,
    agent: &'a str,
    verb: &'a str,
    group: &'a str,
    resource: &'a str,
    namespace: &'a str,
    name: String,
    subresource: &'a str,
    bodies: bool,
}

fn push(line: &mut String, random: &mut Random, index: u64, micros: u64) {
    let request = match index {
        // The event to search for: one user deletes one Secret.
        index if index % 500_000 == 100_003 => Request {
            user: "mallory@example.com".to_owned(),
            groups: "\"dev\",\"system:authenticated\"",
            agent: "kubectl/v1.36.0 (linux/amd64) kubernetes/abcdef0",
            verb: "delete",
            group: "",
            resource: "secrets",
            namespace: "payments",
            name: "stripe-signing-key".to_owned(),
            subresource: "",
            bodies: false,
        },
        _ => request(random),
    };
    let latency = match random.below(100) {
        0..=89 => 800 + random.below(9_000),
        90..=98 => 10_000 + random.below(90_000),
        _ => 100_000 + random.below(4_000_000),
    } as u64;
    let code = match random.below(200) {
        0..=1 => 403,
        2..=4 => 404,
        5 => 409,
        6 => 500,
        _ if request.verb == "create" => 201,
        _ => 200,
    };
    push_event(line, random, &request, code, (index, micros, latency));
}

fn request(random: &mut Random) -> Request<'static> {
    let namespace = random.of(&NAMESPACES);
    let pod = format!("web-{:x}-{:05x}", random.below(1 << 16), random.below(1 << 20));
    let make = |user: String, groups, agent, verb, group, resource, name| Request {
        user,
        groups,
        agent,
        verb,
        group,
        resource,
        namespace,
        name,
        subresource: "",
        bodies: false,
    };
    match random.below(100) {
        0..=44 => {
            let node = format!("node-{:04}", random.below(500));
            let agent = "kubelet/v1.36.0 (linux/amd64) kubernetes/abcdef0";
            let groups = "\"system:nodes\",\"system:authenticated\"";
            let user = format!("system:node:{node}");
            match random.below(4) {
                0 | 1 => Request {
                    namespace: "kube-node-lease",
                    ..make(user, groups, agent, "update", "coordination.k8s.io", "leases", node)
                },
                2 => Request {
                    subresource: "status",
                    bodies: true,
                    ..make(user, groups, agent, "patch", "", "pods", pod)
                },
                _ => make(
                    user,
                    groups,
                    agent,
                    "get",
                    "",
                    "configmaps",
                    "kube-root-ca.crt".to_owned(),
                ),
            }
        }
        45..=84 => {
            let user = random.of(&CONTROLLERS).to_owned();
            let groups = "\"system:serviceaccounts\",\"system:authenticated\"";
            let agent =
                "kube-controller-manager/v1.36.0 (linux/amd64) kubernetes/abcdef0/shared-informers";
            let (verb, group, resource) = [
                ("get", "coordination.k8s.io", "leases"),
                ("update", "apps", "replicasets"),
                ("list", "", "pods"),
                ("watch", "", "services"),
                ("create", "", "events"),
                ("get", "", "secrets"),
                ("patch", "apps", "deployments"),
            ][random.below(7)];
            let name =
                if matches!(verb, "list" | "watch" | "create") { String::new() } else { pod };
            Request {
                bodies: matches!(verb, "update" | "create" | "patch"),
                ..make(user, groups, agent, verb, group, resource, name)
            }
        }
        _ => {
            let user = random.of(&PEOPLE).to_owned();
            let agent = "kubectl/v1.36.0 (linux/amd64) kubernetes/abcdef0";
            let (verb, group, resource, subresource) = [
                ("get", "", "pods", ""),
                ("list", "", "pods", ""),
                ("get", "", "pods", "log"),
                ("create", "", "pods", "exec"),
                ("delete", "", "pods", ""),
                ("patch", "apps", "deployments", ""),
                ("get", "", "secrets", ""),
            ][random.below(7)];
            let name = if verb == "list" { String::new() } else { pod };
            Request {
                subresource,
                bodies: verb == "patch",
                ..make(
                    user,
                    "\"dev\",\"oncall\",\"system:authenticated\"",
                    agent,
                    verb,
                    group,
                    resource,
                    name,
                )
            }
        }
    }
}

fn push_event(
    line: &mut String,
    random: &mut Random,
    request: &Request<'_>,
    code: u16,
    (index, micros, latency): (u64, u64, u64),
) {
    let prefix = match request.group {
        "" => "/api/v1".to_owned(),
        group => format!("/apis/{group}/v1"),
    };
    let mut uri = format!("{prefix}/namespaces/{}/{}", request.namespace, request.resource);
    for part in [&request.name, request.subresource] {
        if !part.is_empty() {
            uri = uri + "/" + part;
        }
    }
    match request.verb {
        "watch" => {
            uri += "?allowWatchBookmarks=true\\u0026resourceVersion=123456\\u0026timeoutSeconds=412\\u0026watch=true"
        }
        "list" => uri += "?limit=500",
        "patch" => uri += "?fieldManager=kubectl-client-side-apply\\u0026fieldValidation=Strict",
        _ => {}
    }
    let level = if request.bodies { "RequestResponse" } else { "Metadata" };
    let _ = write!(
        line,
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"{level}\",\
         \"auditID\":\"{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}\",\"stage\":\"ResponseComplete\",\
         \"requestURI\":\"{uri}\",\"verb\":\"{}\",\"user\":{{\"username\":\"{}\",\"groups\":[{}],\
         \"extra\":{{\"authentication.kubernetes.io/credential-id\":[\"X509SHA256={:064x}\"]}}}},\
         \"sourceIPs\":[\"10.{}.{}.{}\"],\"userAgent\":\"{}\",\"objectRef\":{{\"resource\":\"{}\",\
         \"namespace\":\"{}\"",
        random.below(1 << 32),
        random.below(1 << 16),
        random.below(1 << 12),
        random.below(1 << 12),
        index,
        request.verb,
        request.user,
        request.groups,
        request.user.len() * 7919,
        random.below(4),
        random.below(256),
        random.below(256),
        request.agent,
        request.resource,
        request.namespace,
    );
    if !request.name.is_empty() {
        let _ = write!(line, ",\"name\":\"{}\"", request.name);
    }
    if !request.group.is_empty() {
        let _ = write!(line, ",\"apiGroup\":\"{}\"", request.group);
    }
    line.push_str(",\"apiVersion\":\"v1\"");
    if !request.subresource.is_empty() {
        let _ = write!(line, ",\"subresource\":\"{}\"", request.subresource);
    }
    line.push_str("},\"responseStatus\":{\"metadata\":{}");
    if code >= 400 {
        let _ = write!(
            line,
            ",\"status\":\"Failure\",\"message\":\"{} \\\"{}\\\" failed\",\"reason\":\"Failed\",\"details\":{{\"name\":\"{}\",\"kind\":\"{}\"}}",
            request.resource, request.name, request.name, request.resource
        );
    }
    let _ = write!(line, ",\"code\":{code}}}");
    if request.bodies {
        for body in ["requestObject", "responseObject"] {
            let _ = write!(
                line,
                ",\"{body}\":{{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{{\"name\":\"{}\",\"namespace\":\"{}\",\"labels\":{{\"app\":\"web\"}},\"annotations\":{{\"kubectl.kubernetes.io/last-applied-configuration\":\"{{\\\"kind\\\":\\\"Pod\\\"}}\"}}}},\"spec\":{{\"containers\":[",
                request.name, request.namespace
            );
            for container in 0..1 + random.below(3) {
                let comma = if container > 0 { "," } else { "" };
                let _ = write!(
                    line,
                    "{comma}{{\"name\":\"c{container}\",\"image\":\"registry.example.com/web:{}\",\"env\":[{{\"name\":\"A\",\"value\":\"{}\"}}],\"resources\":{{\"limits\":{{\"cpu\":\"1\",\"memory\":\"512Mi\"}}}}}}",
                    random.below(100),
                    random.below(1 << 30)
                );
            }
            line.push_str("]},\"status\":{\"phase\":\"Running\",\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}");
        }
    }
    let _ = writeln!(
        line,
        ",\"requestReceivedTimestamp\":\"{}\",\"stageTimestamp\":\"{}\",\"annotations\":{{\"authorization.k8s.io/decision\":\"{}\",\"authorization.k8s.io/reason\":\"RBAC: allowed by ClusterRoleBinding \\\"edit\\\" of ClusterRole \\\"edit\\\"\"}}}}",
        time(micros),
        time(micros + latency),
        if code == 403 { "forbid" } else { "allow" },
    );
}
