//! Constrained impersonation (KEP-5284), authorized by the proxy.

use serde_json::{Value, json};

use crate::support::access::AccessServer;
use crate::support::audit_log::Event;
use crate::support::http1::{self, Answer};
use crate::support::proxy::{Builder, Proxy};
use crate::support::wait_for;

const ONE: &str = "/api/v1/namespaces/team-a/configmaps/one";

/// Returns a proxy that accepts the caller's name from a front proxy, so that tests can use any
/// user.
async fn proxy(server: &AccessServer, constrained: &str) -> Proxy {
    let flag = format!("--constrained-impersonation={constrained}");
    let builder = Builder::new(server.upstream.addr).identity("impersonate").front_proxies();
    builder.flag(&flag).start().await
}

/// Sends a request as `caller` with these headers; returns the response and the last event.
async fn call(
    proxy: &Proxy,
    caller: &str,
    (method, target): (&str, &str),
    headers: &[&str],
) -> (Answer, Event) {
    let user = format!("X-Remote-User: {caller}");
    let lines = [&[user.as_str()], headers].concat();
    let request = http1::request(method, target, &lines, b"");
    let answer = http1::exchange(proxy.addr, Some("front-proxy-client"), &request).await.unwrap();
    let id = answer.head.get("audit-id").to_owned();
    let events = proxy.audit_log().wait_end(&id).await;
    let is_told = |event: &Event, name: &str| event.value.get(name).is_some();
    for name in ["impersonatedUser", "authenticationMetadata"] {
        assert!(!is_told(&events[0], name), "too early: {}", events[0].line);
    }
    (answer, events.last().unwrap().clone())
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or("").to_owned()
}

/// `impersonationConstraint`, or `""`.
fn constraint(event: &Event) -> &str {
    match event.at("/authenticationMetadata/impersonationConstraint") {
        Some(constraint) => constraint.as_str().unwrap(),
        None => "",
    }
}

fn groups(event: &Event) -> Vec<String> {
    let groups = event.at("/impersonatedUser/groups").cloned().unwrap_or_default();
    serde_json::from_value(groups).unwrap_or_default()
}

const AUTHN: &str = "authentication.k8s.io";

/// Permissions, by user name.
const RIGHTS: &[(&str, &str)] = &[
    ("action-only", "impersonate-on:user-info:get configmaps team-a/one"),
    ("getter", "impersonate-on:user-info:get configmaps team-a/one"),
    ("getter", "impersonate:user-info users.authentication.k8s.io /anyone"),
    ("prober", "impersonate-on:user-info:get /healthz"),
    ("prober", "impersonate:user-info users.authentication.k8s.io /anyone"),
    ("for-accounts", "impersonate-on:serviceaccount:..."),
    ("for-accounts", "impersonate:serviceaccount serviceaccounts.authentication.k8s.io ns/app"),
    ("for-node-a", "impersonate-on:arbitrary-node:..."),
    ("for-node-a", "impersonate:arbitrary-node nodes.authentication.k8s.io /a"),
    ("system:serviceaccount:ns:agent", "impersonate-on:associated-node:..."),
    (
        "system:serviceaccount:ns:agent",
        "impersonate:associated-node nodes.authentication.k8s.io /*",
    ),
    ("all-groups", "impersonate-on:user-info:..."),
    ("all-groups", "impersonate:user-info users.authentication.k8s.io /jane"),
    ("all-groups", "impersonate:user-info groups.authentication.k8s.io /*"),
    ("each-group", "impersonate-on:user-info:..."),
    ("each-group", "impersonate:user-info users.authentication.k8s.io /jane"),
    ("each-group", "impersonate:user-info groups.authentication.k8s.io /a"),
    ("each-group", "impersonate:user-info groups.authentication.k8s.io /b"),
    ("each-group", "impersonate:user-info groups.authentication.k8s.io /c"),
    ("each-group", "impersonate:user-info groups.authentication.k8s.io /d"),
    ("all-extra", "impersonate-on:user-info:..."),
    ("all-extra", "impersonate:user-info users.authentication.k8s.io /jane"),
    ("all-extra", "impersonate:user-info userextras.authentication.k8s.io/* /*"),
    ("classic", "impersonate users /..."),
    ("classic", "impersonate groups /..."),
    ("admin", "impersonate..."),
];

async fn server() -> AccessServer {
    AccessServer::start("1.36", RIGHTS).await
}

#[tokio::test]
async fn both_the_request_and_the_identity_must_be_allowed() {
    let server = server().await;
    let proxy = proxy(&server, "auto").await;
    let anyone = ["Impersonate-User: anyone"];
    let (answer, event) = call(&proxy, "action-only", ("GET", ONE), &anyone).await;
    assert_eq!(answer.head.status, 403);
    assert_eq!(
        message(&answer),
        r#"users.authentication.k8s.io "anyone" is forbidden: User "action-only" cannot impersonate:user-info resource "users" in API group "authentication.k8s.io" at the cluster scope"#
    );
    assert_eq!(event.code(), 403);
    assert_eq!(event.at("/impersonatedUser"), None);
    assert_eq!(event.at("/authenticationMetadata"), None);
    assert_eq!(event.at("/annotations"), None);
    assert!(server.take_forwarded().is_empty());
    server.take_asked();

    let (answer, event) = call(&proxy, "getter", ("GET", ONE), &anyone).await;
    assert_eq!(answer.head.status, 200);
    assert_eq!(constraint(&event), "impersonate:user-info");
    assert_eq!(groups(&event), ["system:authenticated"]);
    // In kube-apiserver's order: between the user and the addresses.
    let in_place = r#""impersonatedUser":{"username":"anyone","groups":["system:authenticated"]},"authenticationMetadata":{"impersonationConstraint":"impersonate:user-info"},"sourceIPs":"#;
    assert!(event.line.contains(in_place), "{}", event.line);
    let asked = server.take_questions();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(
        asked[0].spec["resourceAttributes"],
        json!({"namespace": "team-a", "verb": "impersonate-on:user-info:get", "group": "", "version": "v1", "resource": "configmaps", "name": "one"})
    );
    assert_eq!(
        asked[1].spec["resourceAttributes"],
        json!({"verb": "impersonate:user-info", "group": AUTHN, "version": "v1", "resource": "users", "name": "anyone"})
    );

    let create = ("POST", "/api/v1/namespaces/team-a/configmaps");
    let (answer, _) = call(&proxy, "getter", create, &anyone).await;
    assert_eq!(answer.head.status, 403);
    assert_eq!(
        message(&answer),
        r#"configmaps is forbidden: User "getter" cannot impersonate-on:user-info:create resource "configmaps" in API group "" in the namespace "team-a""#
    );

    let (answer, _) = call(&proxy, "prober", ("GET", "/healthz"), &anyone).await;
    assert_eq!(answer.head.status, 200);
    let (answer, _) = call(&proxy, "prober", ("GET", "/metrics"), &anyone).await;
    assert_eq!(
        message(&answer),
        r#"forbidden: User "prober" cannot impersonate-on:user-info:get path "/metrics""#
    );
}

#[tokio::test]
async fn service_accounts_and_nodes_have_modes_of_their_own() {
    let server = server().await;
    let proxy = proxy(&server, "auto").await;
    let account = ["Impersonate-User: system:serviceaccount:ns:app"];
    let (_, event) = call(&proxy, "for-accounts", ("GET", ONE), &account).await;
    assert_eq!(constraint(&event), "impersonate:serviceaccount");
    let expected = ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"];
    assert_eq!(groups(&event), expected);

    let (_, event) =
        call(&proxy, "for-node-a", ("GET", ONE), &["Impersonate-User: system:node:a"]).await;
    assert_eq!(constraint(&event), "impersonate:arbitrary-node");
    assert_eq!(groups(&event), ["system:nodes", "system:authenticated"]);
    let sent = server.take_forwarded();
    assert_eq!(sent[1].all("impersonate-user"), ["system:node:a"]);
    assert_eq!(sent[1].all("impersonate-group"), ["system:nodes", "system:authenticated"]);
    let (answer, _) =
        call(&proxy, "for-node-a", ("GET", ONE), &["Impersonate-User: system:node:b"]).await;
    assert_eq!(answer.head.status, 403);
    assert_eq!(
        message(&answer),
        r#"nodes.authentication.k8s.io "b" is forbidden: User "for-node-a" cannot impersonate:arbitrary-node resource "nodes" in API group "authentication.k8s.io" at the cluster scope"#
    );

    // If more than the name is requested, only the verb `impersonate` can allow it.
    let lines = ["Impersonate-User: system:node:a", "Impersonate-Group: system:nodes"];
    server.take_asked();
    let (answer, _) = call(&proxy, "stranger", ("GET", ONE), &lines).await;
    assert_eq!(answer.head.status, 403);
    assert!(server.take_asked().iter().all(|asked| asked.starts_with("no impersonate ")));
    let (_, event) = call(&proxy, "classic", ("GET", ONE), &lines).await;
    assert_eq!((event.code(), constraint(&event)), (200, ""));
}

#[tokio::test]
async fn a_pod_may_become_the_node_that_it_runs_on() {
    const AGENT: &str = "system:serviceaccount:ns:agent";
    let server = server().await;
    let proxy = proxy(&server, "auto").await;
    let key = "X-Remote-Extra-Authentication.kubernetes.io%2fNode-Name";
    let pod_on = |node: &str| format!("{key}: {node}");
    let pod = "X-Remote-Extra-Authentication.kubernetes.io%2fPod-Name: agent-x";

    let lines = [&pod_on("node1"), pod, "Impersonate-User: system:node:node1"];
    let (answer, event) = call(&proxy, AGENT, ("GET", ONE), &lines).await;
    assert_eq!(answer.head.status, 200, "{}", message(&answer));
    assert_eq!(constraint(&event), "impersonate:associated-node");
    assert_eq!(groups(&event), ["system:nodes", "system:authenticated"]);
    let extra = event.at("/user/extra").unwrap();
    assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["node1"]));
    let asked = server.take_questions();
    let about: Vec<_> = asked.iter().map(|asked| asked.about.as_str()).collect();
    let expected = [
        "impersonate-on:associated-node:get configmaps team-a/one",
        "impersonate:associated-node nodes.authentication.k8s.io /*",
    ];
    assert_eq!(about, expected);
    let keys = json!({"authentication.kubernetes.io/associated-node-keys": [
        "authentication.kubernetes.io/node-name", "authentication.kubernetes.io/pod-name",
    ]});
    assert!(asked.iter().all(|asked| asked.spec["extra"] == keys), "{asked:?}");

    // The same account on another node: the result is cached, and the user is the other node.
    let lines = [&pod_on("node2"), pod, "Impersonate-User: system:node:node2"];
    let (_, event) = call(&proxy, AGENT, ("GET", ONE), &lines).await;
    assert_eq!(constraint(&event), "impersonate:associated-node");
    assert_eq!(event.text("/impersonatedUser/username"), "system:node:node2");
    assert_eq!(server.take_asked(), Vec::<String>::new());

    // A node that the account does not run on is denied.
    let lines = [&pod_on("node2"), pod, "Impersonate-User: system:node:node1"];
    let (answer, event) = call(&proxy, AGENT, ("GET", ONE), &lines).await;
    assert_eq!((answer.head.status, event.at("/impersonatedUser")), (403, None));
    assert!(message(&answer).contains("impersonate-on:arbitrary-node:get"), "{}", message(&answer));
}

#[tokio::test]
async fn a_wildcard_review_covers_many_groups_and_extras() {
    let server = server().await;
    let proxy = proxy(&server, "true").await;
    let four = [
        "Impersonate-User: jane",
        "Impersonate-Group: a",
        "Impersonate-Group: b",
        "Impersonate-Group: c",
        "Impersonate-Group: d",
    ];
    let (answer, _) = call(&proxy, "all-groups", ("GET", ONE), &four).await;
    assert_eq!(answer.head.status, 200);
    let expected = [
        "yes impersonate-on:user-info:get configmaps team-a/one",
        "yes impersonate:user-info groups.authentication.k8s.io /*",
        "yes impersonate:user-info users.authentication.k8s.io /jane",
    ];
    assert_eq!(server.take_asked(), expected);

    let (answer, event) = call(&proxy, "each-group", ("GET", ONE), &four).await;
    assert_eq!(answer.head.status, 200);
    assert_eq!(groups(&event), ["a", "b", "c", "d", "system:authenticated"]);
    let expected = [
        "no impersonate:user-info groups.authentication.k8s.io /*",
        "yes impersonate-on:user-info:get configmaps team-a/one",
        "yes impersonate:user-info groups.authentication.k8s.io /a",
        "yes impersonate:user-info groups.authentication.k8s.io /b",
        "yes impersonate:user-info groups.authentication.k8s.io /c",
        "yes impersonate:user-info groups.authentication.k8s.io /d",
        "yes impersonate:user-info users.authentication.k8s.io /jane",
    ];
    assert_eq!(server.take_asked(), expected);

    let extra = [
        "Impersonate-User: jane",
        "Impersonate-Extra-Acme.io%2fScopes: a",
        "Impersonate-Extra-Acme.io%2fScopes: b",
        "Impersonate-Extra-Acme.io%2fScopes: c",
        "Impersonate-Extra-Acme.io%2fProject: p",
    ];
    let (answer, event) = call(&proxy, "all-extra", ("GET", ONE), &extra).await;
    assert_eq!(answer.head.status, 200);
    let expected = json!({"acme.io/project": ["p"], "acme.io/scopes": ["a", "b", "c"]});
    assert_eq!(event.at("/impersonatedUser/extra"), Some(&expected));
    let expected = [
        "yes impersonate-on:user-info:get configmaps team-a/one",
        "yes impersonate:user-info userextras.authentication.k8s.io/* /*",
        "yes impersonate:user-info users.authentication.k8s.io /jane",
    ];
    assert_eq!(server.take_asked(), expected);
}

#[tokio::test]
async fn the_group_of_masters_is_never_within_bounds() {
    let server = server().await;
    let proxy = proxy(&server, "auto").await;
    let lines = ["Impersonate-User: jane", "Impersonate-Group: system:masters"];
    let (answer, _) = call(&proxy, "all-groups", ("GET", ONE), &lines).await;
    assert_eq!(answer.head.status, 403);
    assert_eq!(
        message(&answer),
        r#"groups.authentication.k8s.io "system:masters" is forbidden: User "all-groups" cannot impersonate:user-info resource "groups" in API group "authentication.k8s.io" at the cluster scope: impersonating the system:masters group is not allowed"#
    );
    // A user with all permissions is allowed by the verb `impersonate`, and the result is cached.
    let jane = ["Impersonate-User: jane"];
    let (_, event) = call(&proxy, "admin", ("GET", ONE), &jane).await;
    assert_eq!(constraint(&event), "impersonate:user-info");
    let (_, event) = call(&proxy, "admin", ("GET", ONE), &lines).await;
    assert_eq!((event.code(), constraint(&event)), (200, ""));
    let (_, event) = call(&proxy, "admin", ("GET", ONE), &jane).await;
    assert_eq!((event.code(), constraint(&event)), (200, ""));
    // Other users are denied.
    let (_, event) = call(&proxy, "all-groups", ("GET", ONE), &jane).await;
    assert_eq!(constraint(&event), "impersonate:user-info");
}

#[tokio::test]
async fn the_mode_that_a_caller_used_last_is_tried_first() {
    let server = server().await;
    let proxy = proxy(&server, "auto").await;
    let (_, event) = call(&proxy, "classic", ("GET", ONE), &["Impersonate-User: bob"]).await;
    assert_eq!((event.code(), constraint(&event)), (200, ""));
    let expected =
        ["no impersonate-on:user-info:get configmaps team-a/one", "yes impersonate users /bob"];
    assert_eq!(server.take_asked(), expected);
    let (_, event) = call(&proxy, "classic", ("GET", ONE), &["Impersonate-User: carl"]).await;
    assert_eq!((event.code(), constraint(&event)), (200, ""));
    assert_eq!(server.take_asked(), ["yes impersonate users /carl"]);
    // If impersonation is denied, the client receives the denial of the mode that it used last.
    let lines = ["Impersonate-User: carl", "Impersonate-Uid: 7"];
    let (answer, _) = call(&proxy, "classic", ("GET", ONE), &lines).await;
    assert_eq!(
        message(&answer),
        r#"uids.authentication.k8s.io "7" is forbidden: User "classic" cannot impersonate resource "uids" in API group "authentication.k8s.io" at the cluster scope"#
    );
    // A client that never succeeded receives the denial of the first mode.
    let (answer, _) = call(&proxy, "stranger", ("GET", ONE), &lines).await;
    assert!(message(&answer).contains("cannot impersonate-on:user-info:get"), "{answer:?}");
}

#[tokio::test]
async fn allowed_impersonations_are_cached() {
    let server = server().await;
    let proxy = proxy(&server, "auto").await;
    let jane = ["Impersonate-User: jane"];
    let asked = async |target: &'static str, jane: &[&str]| {
        let (answer, _) = call(&proxy, "all-groups", ("GET", target), jane).await;
        (answer.head.status, server.take_asked().len())
    };
    assert_eq!(asked(ONE, &jane).await, (200, 2));
    assert_eq!(asked(ONE, &jane).await, (200, 0));
    let other = "/api/v1/namespaces/team-a/configmaps/two";
    assert_eq!(asked(other, &jane).await, (200, 1), "the identity is known, the request is not");
    let list = "/api/v1/pods?labelSelector=a%3Db";
    assert_eq!(asked(list, &jane).await, (200, 1));
    assert_eq!(asked(list, &jane).await, (200, 0));
    assert_eq!(asked("/api/v1/pods?labelSelector=a%3Dc", &jane).await, (200, 1));
    let unclear = "/api/v1/pods?fieldSelector=a";
    assert_eq!(asked(unclear, &jane).await, (200, 1));
    assert_eq!(
        asked(unclear, &jane).await,
        (200, 1),
        "a response that cannot be decoded is not cached"
    );

    // Denials are not cached. How many of the other concurrent reviews still arrive after a denial
    // is not deterministic.
    let with_group = ["Impersonate-User: jane", "Impersonate-Group: g"];
    for _ in 0..2 {
        call(&proxy, "all-groups", ("GET", ONE), &with_group).await;
        let refused = "no impersonate:user-info groups.authentication.k8s.io /g";
        let asked = server.take_asked();
        assert!(asked.iter().any(|asked| asked == refused), "{asked:?}");
    }
}

#[tokio::test]
async fn selectors_are_part_of_the_review() {
    let server = server().await;
    let proxy = proxy(&server, "auto").await;
    let target = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&labelSelector=app%20in%20(a,b)";
    call(&proxy, "admin", ("GET", target), &["Impersonate-User: jane"]).await;
    let asked = server.take_questions();
    let asked = &asked[0].spec["resourceAttributes"];
    assert_eq!(asked["verb"], "impersonate-on:user-info:list");
    assert_eq!(asked["fieldSelector"], json!({"rawSelector": "spec.nodeName=n1"}));
    assert_eq!(asked["labelSelector"], json!({"rawSelector": "app in (a,b)"}));
    assert_eq!(asked.get("name"), None::<&Value>);
}

#[tokio::test]
async fn the_rules_are_those_of_the_api_servers_version() {
    let of_admin = async |version: &'static str, flag: &str| {
        let server = AccessServer::start(version, RIGHTS).await;
        let proxy = proxy(&server, flag).await;
        let (_, event) = call(&proxy, "admin", ("GET", ONE), &["Impersonate-User: bob"]).await;
        assert_eq!(event.code(), 200);
        let (answer, _) = call(&proxy, "admin", ("GET", ONE), &["Impersonate-Group: g"]).await;
        assert_eq!(answer.head.status, 400);
        if version.is_empty() {
            let says_how = || proxy.process.stderr().contains("to true or false").then_some(());
            wait_for("a hint at what to do", says_how).await;
        }
        (constraint(&event).to_owned(), message(&answer), proxy.process.stderr())
    };
    let old = "requested [{Group  g    }] without impersonating a user";
    let new = r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, Extra:map[string][]string(nil)} without impersonating a user name"#;
    for (version, flag, is_new) in [
        ("1.36", "auto", true),
        ("1.36+", "auto", true),
        ("1.35", "auto", false),
        ("1.35", "true", true),
        ("1.36", "false", false),
        ("", "auto", false),
    ] {
        let (constraint, message, stderr) = of_admin(version, flag).await;
        let expected = if is_new { ("impersonate:user-info", new) } else { ("", old) };
        assert_eq!((constraint.as_str(), message.as_str()), expected, "{version:?} {flag}");
        let warns = stderr.contains("--constrained-impersonation to true or false");
        assert_eq!(warns, version.is_empty(), "{version:?} {flag}: {stderr}");
    }
}

#[tokio::test]
async fn constrained_impersonation_requires_that_the_proxy_authorizes() {
    let server = server().await;
    for (identity, flag) in [
        ("request-header", "--constrained-impersonation=true"),
        ("pass-through", "--constrained-impersonation=false"),
        ("request-header", "--upstream-original-user-extra=acme.io/called-by"),
        ("impersonate", "--upstream-original-user-extra=called-by"),
    ] {
        let builder = Builder::new(server.upstream.addr).identity(identity);
        let (code, stderr) = builder.flag(flag).run_to_end().await;
        assert_eq!(code, Some(2), "{identity} {flag}");
        let flag = flag.split('=').next().unwrap();
        assert!(stderr.contains(flag), "{stderr}");
    }
}
