//! Impersonation by the verb `impersonate`: for each case the reviews, the response, the forwarded
//! identity and the event; and the extra that names the client to the API server.

use serde_json::{Value, json};

use crate::support::access::AccessServer;
use crate::support::audit_log::Event;
use crate::support::http1::{self, Answer};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::Seen;

const ONE: &str = "/api/v1/namespaces/team-a/configmaps/one";

/// The permissions of all callers except those in this list.
const RIGHTS: &[(&str, &str)] = &[
    ("alice", "impersonate users /..."),
    ("alice", "impersonate groups /some-group"),
    ("alice", "impersonate groups /system:authenticated"),
    ("alice", "impersonate groups /system:unauthenticated"),
    ("alice", "impersonate userextras.authentication.k8s.io/scopes /scope-a"),
    ("alice", "impersonate userextras.authentication.k8s.io/example.com/escapedᛄscopes /v"),
    ("alice", "impersonate userextras.authentication.k8s.io/almost%zzpercent%xxencoded /v"),
    ("alice", "impersonate serviceaccounts foo/default"),
    ("carol", "impersonate..."),
];

struct Case {
    headers: &'static [&'static str],
    expected: Expected,
}

enum Expected {
    /// The caller itself.
    Caller,
    /// This status code, and this text in the message.
    Refused(u16, &'static str),
    /// Another user.
    User(Value),
}

use Expected::{Caller, Refused, User};

fn cases() -> Vec<Case> {
    let case = |headers, expected| Case { headers, expected };
    let unnamed = "without impersonating a user";
    let user = |user: Value| User(user);
    vec![
        case(&[], Caller),
        case(&["Impersonate-User:"], Caller),
        case(&["Impersonate-Group: g"], Refused(400, unnamed)),
        case(&["Impersonate-Extra-Scopes: s"], Refused(400, unnamed)),
        case(&["Impersonate-Uid: u"], Refused(400, unnamed)),
        case(
            &["Impersonate-User: u", "Impersonate-Group: extra-groups"],
            Refused(
                403,
                r#"groups "extra-groups" is forbidden: User "alice" cannot impersonate resource "groups" in API group "" at the cluster scope"#,
            ),
        ),
        case(
            &["Impersonate-User: u", "Impersonate-Group: some-group"],
            user(json!({"username": "u", "groups": ["some-group", "system:authenticated"]})),
        ),
        case(
            &["Impersonate-User: u", "Impersonate-Extra-Scopes: scope-a"],
            user(json!({
                "username": "u", "groups": ["system:authenticated"],
                "extra": {"scopes": ["scope-a"]},
            })),
        ),
        case(
            &[
                "Impersonate-User: u",
                "Impersonate-Extra-Scopes: scope-a",
                "Impersonate-Extra-Scopes: scope-b",
            ],
            Refused(403, r#"userextras.authentication.k8s.io "scope-b" is forbidden"#),
        ),
        case(
            &["Impersonate-User: u", "Impersonate-Extra-example.com%2fescaped%e1%9b%84scopes: v"],
            user(json!({
                "username": "u", "groups": ["system:authenticated"],
                "extra": {"example.com/escapedᛄscopes": ["v"]},
            })),
        ),
        case(
            &["Impersonate-User: u", "Impersonate-Extra-almost%zzpercent%xxencoded: v"],
            user(json!({
                "username": "u", "groups": ["system:authenticated"],
                "extra": {"almost%zzpercent%xxencoded": ["v"]},
            })),
        ),
        case(
            &["Impersonate-User: system:serviceaccount:foo:default"],
            user(json!({
                "username": "system:serviceaccount:foo:default",
                "groups": [
                    "system:serviceaccounts", "system:serviceaccounts:foo", "system:authenticated",
                ],
            })),
        ),
        case(
            &["Impersonate-User: system:serviceaccount:foo:other"],
            Refused(
                403,
                r#"serviceaccounts "other" is forbidden: User "alice" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "foo""#,
            ),
        ),
        case(
            &[
                "Impersonate-User: system:serviceaccount:foo:default",
                "Impersonate-Group: some-group",
            ],
            user(json!({
                "username": "system:serviceaccount:foo:default",
                "groups": ["some-group", "system:authenticated"],
            })),
        ),
        case(
            &["Impersonate-User: system:anonymous"],
            user(json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]})),
        ),
        case(
            &["Impersonate-User: unknown", "Impersonate-Group: system:unauthenticated"],
            user(json!({"username": "unknown", "groups": ["system:unauthenticated"]})),
        ),
        case(
            &["Impersonate-User: unknown", "Impersonate-Group: system:authenticated"],
            user(json!({"username": "unknown", "groups": ["system:authenticated"]})),
        ),
        case(
            &["Impersonate-User: u", "Impersonate-Uid: u1"],
            Refused(403, r#"uids.authentication.k8s.io "u1" is forbidden"#),
        ),
    ]
}

/// Returns all headers of a request that identify the user.
fn stamped(seen: &Seen) -> Value {
    let first = |name| seen.all(name).first().map(ToString::to_string);
    let mut extra = serde_json::Map::new();
    for (name, value) in &seen.headers {
        if let Some(key) = name.strip_prefix("impersonate-extra-") {
            let values = extra.entry(key.to_owned()).or_insert(json!([]));
            values.as_array_mut().unwrap().push(json!(value));
        }
    }
    json!({
        "username": first("impersonate-user"), "uid": first("impersonate-uid"),
        "groups": seen.all("impersonate-group"), "extra": extra,
    })
}

/// Sends a request with this certificate or, if the name ends in `-token`, token.
async fn call(proxy: &Proxy, caller: &str, headers: &[&str]) -> (Answer, Event) {
    let token = format!("Authorization: Bearer {caller}");
    let (certificate, lines) = match caller.ends_with("-token") {
        true => (None, [&[token.as_str()], headers].concat()),
        false => (Some(caller), headers.to_vec()),
    };
    let answer = http1::get(proxy.addr, certificate, ONE, &lines).await.unwrap();
    let id = answer.head.get("audit-id").to_owned();
    let events = proxy.audit_log().wait_end(&id).await;
    (answer, events.last().unwrap().clone())
}

/// Uses both of kube-apiserver's implementations. Where the newer one checks the constrained modes
/// first, only `carol` has permissions for these.
#[tokio::test]
async fn case_by_case() {
    for version in ["1.35", "1.36"] {
        let server = AccessServer::start(version, RIGHTS).await;
        let proxy = Builder::new(server.upstream.addr).identity("impersonate").start().await;
        // From now on the newer one has cached that alice impersonates by the verb `impersonate`.
        call(&proxy, "alice", &["Impersonate-User: u"]).await;
        server.take_forwarded();
        for Case { headers, expected } in cases() {
            let what = format!("{version} {headers:?}");
            let (answer, event) = call(&proxy, "alice", headers).await;
            let sent = server.take_forwarded();
            assert_eq!(event.text("/user/username"), "alice");
            assert_eq!(event.at("/authenticationMetadata"), None, "{what}");
            match expected {
                Refused(code, message) => {
                    assert_eq!(
                        (answer.head.status, event.code()),
                        (code, u64::from(code)),
                        "{what}"
                    );
                    let said = answer.json()["message"].as_str().unwrap().to_owned();
                    assert!(said.contains(message), "{what}: {said}");
                    assert_eq!(event.text("/responseStatus/message"), said, "{what}");
                    assert_eq!(event.at("/impersonatedUser"), None, "{what}");
                    assert!(sent.is_empty(), "{what}");
                }
                Caller => {
                    assert_eq!(answer.head.status, 200, "{what}");
                    assert_eq!(event.at("/impersonatedUser"), None, "{what}");
                    assert_eq!(sent[0].all("impersonate-user"), ["alice"], "{what}");
                }
                User(user) => {
                    assert_eq!(answer.head.status, 200, "{what}: {:?}", answer.json());
                    assert_eq!(event.at("/impersonatedUser"), Some(&user), "{what}");
                    let stamped = stamped(&sent[0]);
                    assert_eq!(stamped["username"], user["username"], "{what}");
                    assert_eq!(stamped["groups"], user["groups"], "{what}");
                    let values = |extra: &Value| -> Vec<Value> {
                        extra.as_object().into_iter().flatten().map(|(_, v)| v.clone()).collect()
                    };
                    assert_eq!(values(&stamped["extra"]), values(&user["extra"]), "{what}");
                }
            }
        }
        let (answer, _) = call(&proxy, "bob", &["Impersonate-User: system:admin"]).await;
        assert_eq!(answer.head.status, 403);
    }
}

/// The proxy impersonates the user whom the client impersonates: the API server receives the
/// complete resulting user and nothing about the caller.
#[tokio::test]
async fn an_impersonation_within_an_impersonation_is_complete() {
    let server = AccessServer::start("1.35", RIGHTS).await;
    let proxy = Builder::new(server.upstream.addr).identity("impersonate").start().await;
    let headers = [
        "Impersonate-User: jane",
        "Impersonate-Uid: 42",
        "Impersonate-Group: dev",
        "Impersonate-Group: qa",
        "Impersonate-Extra-Acme.io%2fScopes: read",
        "Impersonate-Extra-Acme.io%2fScopes: write",
        "X-Remote-User: root",
    ];
    let (answer, event) = call(&proxy, "carol-token", &headers).await;
    assert_eq!(answer.head.status, 200);
    let sent = server.take_forwarded();
    let expected = json!({
        "username": "jane", "uid": "42", "groups": ["dev", "qa", "system:authenticated"],
        "extra": {"acme.io%2fscopes": ["read", "write"]},
    });
    assert_eq!(stamped(&sent[0]), expected);
    assert!(sent[0].all("authorization").is_empty() && sent[0].all("x-remote-user").is_empty());
    let carol = json!({
        "username": "carol", "uid": "uid-carol", "groups": ["dev", "team-b", "system:authenticated"],
    });
    assert_eq!(event.at("/user"), Some(&carol));
    let jane = json!({
        "username": "jane", "uid": "42", "groups": ["dev", "qa", "system:authenticated"],
        "extra": {"acme.io/scopes": ["read", "write"]},
    });
    assert_eq!(event.at("/impersonatedUser"), Some(&jane));
    // The review was about carol with all of her attributes.
    for question in server.take_questions() {
        let mut spec = question.spec;
        spec.as_object_mut().unwrap().remove("resourceAttributes");
        let carol = json!({"user": "carol", "uid": carol["uid"], "groups": carol["groups"]});
        assert_eq!(spec, carol);
    }
}

/// `--upstream-original-user-extra`
#[tokio::test]
async fn the_api_server_receives_the_original_user() {
    const KEY: &str = "impersonate-extra-acme.io%2fcalled-by";
    let server = AccessServer::start("1.35", RIGHTS).await;
    let proxy = Builder::new(server.upstream.addr)
        .identity("impersonate")
        .front_proxies()
        .flag("--upstream-original-user-extra=acme.io/called-by")
        .start()
        .await;
    let (_, event) = call(&proxy, "carol-token", &["Impersonate-User: jane"]).await;
    let sent = server.take_forwarded();
    assert_eq!(sent[0].all("impersonate-user"), ["jane"]);
    assert_eq!(sent[0].all(KEY), ["carol"]);
    // It is not a part of the review.
    let jane = json!({"username": "jane", "groups": ["system:authenticated"]});
    assert_eq!(event.at("/impersonatedUser"), Some(&jane));
    assert!(server.take_questions().iter().all(|asked| !asked.about.contains("acme.io")));

    call(&proxy, "alice", &[]).await;
    let sent = server.take_forwarded();
    assert_eq!((sent[0].all("impersonate-user"), sent[0].all(KEY)), (vec!["alice"], vec!["alice"]));

    // A client cannot set it, in any spelling and with any permissions.
    for key in ["Acme.io%2fCalled-By", "acme.io%2Fcalled-by", "%61cme.io%2f%63alled-by"] {
        let line = format!("Impersonate-Extra-{key}: root");
        let (answer, _) =
            call(&proxy, "carol-token", &["Impersonate-User: jane", line.as_str()]).await;
        assert_eq!(answer.head.status, 403, "{key}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("\"acme.io/called-by\" is not allowed"), "{message}");
        assert!(server.take_forwarded().is_empty(), "{key}");
    }

    // A value from a front proxy does not count either.
    let lines = ["X-Remote-User: erin", "X-Remote-Extra-Acme.io%2fCalled-By: root"];
    let (_, event) = call(&proxy, "front-proxy-client", &lines).await;
    assert_eq!(server.take_forwarded()[0].all(KEY), ["erin"]);
    let extra = json!({"acme.io/called-by": ["root"]});
    assert_eq!(event.at("/user/extra"), Some(&extra), "the event says what was said");
}
