//! `--authentication-config`: several issuers, mappings and rules, anonymous access by path, and
//! reloads of the file.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::jwt::{Signer, now};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{client, corpus, http1, wait_for};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";

/// An issuer with one key, and a handler for other requests.
struct Issuer {
    server: FakeUpstream,
    key: Arc<Signer>,
}

impl Issuer {
    async fn start() -> Issuer {
        Issuer::with(|_, _, _| None).await
    }

    /// Starts an issuer. `more` handles requests to other paths, by host, path and `Authorization`.
    async fn with(
        more: impl Fn(&str, &str, &str) -> Option<String> + Send + Sync + 'static,
    ) -> Issuer {
        let key = Arc::new(Signer::ec());
        let (web_key, more) = (key.web_key("k"), Arc::new(more));
        let server = FakeUpstream::start(Protocols::Http1, move |request| {
            let (web_key, more) = (web_key.clone(), more.clone());
            async move {
                let text = |name: &str| {
                    let value = request.headers().get(name);
                    value.map_or("", |value| value.to_str().unwrap()).to_owned()
                };
                let host = text("host");
                match request.uri().path() {
                    "/.well-known/openid-configuration" | "/elsewhere" => {
                        let url = format!("https://{host}");
                        let keys = format!("{url}/keys");
                        json(200, json!({"issuer": url, "jwks_uri": keys}).to_string())
                    }
                    "/keys" => json(200, json!({"keys": [web_key]}).to_string()),
                    path => match more(&host, path, &text("authorization")) {
                        Some(answer) => json(200, answer),
                        None => json(404, "{}"),
                    },
                }
            }
        })
        .await;
        Issuer { server, key }
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr
    }

    /// Returns a token of `jane`; `changes` replace claims.
    fn token(&self, changes: Value) -> String {
        let mut claims = json!({
            "iss": format!("https://{}", self.addr()), "aud": "kubernetes", "sub": "jane",
            "exp": now() + 600, "jti": "j",
        });
        for (key, value) in changes.as_object().unwrap() {
            claims[key] = value.clone();
        }
        self.key.token(&json!({"alg": "ES256", "kid": "k"}), &claims)
    }

    /// Returns its entry in `jwt`, with additional members of `issuer` and additional members of
    /// the entry.
    fn entry(&self, issuer: Value, rest: Value) -> Value {
        let mut entry = json!({
            "issuer": {
                "url": format!("https://{}", self.addr()), "audiences": ["kubernetes"],
                "certificateAuthority": std::fs::read_to_string(corpus::pki("ca.crt")).unwrap(),
            },
            "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}},
        });
        for (key, value) in issuer.as_object().unwrap() {
            entry["issuer"][key] = value.clone();
        }
        for (key, value) in rest.as_object().unwrap() {
            entry[key] = value.clone();
        }
        entry
    }
}

fn file(members: Value) -> String {
    let mut file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
    });
    for (key, value) in members.as_object().unwrap() {
        file[key] = value.clone();
    }
    file.to_string()
}

/// Returns a proxy with this file.
async fn proxy(upstream: &FakeUpstream, members: Value) -> Proxy {
    builder(upstream, &file(members)).start().await
}

fn builder(upstream: &FakeUpstream, text: &str) -> Builder {
    let builder = Builder::new(upstream.addr);
    let path = builder.dir().write("authentication.json", text);
    builder.flag(&format!("--authentication-config={}", path.display()))
}

async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

async fn get(proxy: &Proxy, token: Option<&str>, target: &str, id: &str) -> u16 {
    let token = token.map(|token| format!("Authorization: Bearer {token}"));
    let id = format!("Audit-ID: {id}");
    let lines: Vec<&str> = token.iter().map(String::as_str).chain([id.as_str()]).collect();
    http1::get(proxy.addr, None, target, &lines).await.unwrap().head.status
}

/// Returns the status code, and the user in the event.
async fn who(proxy: &Proxy, token: &str, id: &str) -> (u16, Value) {
    let code = get(proxy, Some(token), TARGET, id).await;
    (code, user_of(proxy, id).await)
}

/// Returns the user in the event; rejected requests have one event, others two.
async fn user_of(proxy: &Proxy, id: &str) -> Value {
    proxy.audit_log().wait(id, 1).await.last().unwrap().value["user"].clone()
}

#[tokio::test]
async fn several_issuers_make_users_by_claims_and_expressions() {
    let (people, jobs, stranger) =
        (Issuer::start().await, Issuer::start().await, Issuer::start().await);
    let upstream = upstream().await;
    let jwt = [
        people.entry(
            json!({"audiences": ["kubernetes", "web"], "audienceMatchPolicy": "MatchAny"}),
            json!({
                "claimMappings": {
                    "username": {"claim": "email", "prefix": ""},
                    "groups": {"claim": "groups", "prefix": "oidc:"},
                    "uid": {"claim": "sub"},
                },
                "claimValidationRules": [{"claim": "hd", "requiredValue": "example.com"}],
            }),
        ),
        jobs.entry(
            json!({"discoveryURL": format!("https://{}/elsewhere", jobs.addr())}),
            json!({
                "claimMappings": {
                    "username": {"expression": "'ci:' + claims.project.replace('/', '.')"},
                    "groups": {"expression": "dyn(claims.?roles.orValue([])).map(r, r.lowerAscii())"},
                    "extra": [
                        {"key": "ci.example.com/ref", "valueExpression": "claims.ref"},
                        {"key": "ci.example.com/none", "valueExpression": "''"},
                    ],
                },
                "claimValidationRules": [{
                    "expression": "claims.protected == true", "message": "protected branches only",
                }],
                "userValidationRules": [{
                    "expression": "!user.groups.exists(g, g == 'evil')", "message": "no evil",
                }],
            }),
        ),
    ];
    let proxy = proxy(&upstream, json!({"jwt": jwt})).await;
    let mail = json!({"email": "j@example.com", "hd": "example.com", "groups": ["a", "system:b"]});
    let job = json!({"project": "team/app", "ref": "main", "protected": true, "roles": ["DEV"]});
    let changed = |base: &Value, changes: Value| {
        let mut claims = base.clone();
        for (key, value) in changes.as_object().unwrap() {
            claims[key] = value.clone();
        }
        claims
    };
    let jti = json!(["JTI=j"]);
    let person = json!({
        "username": "j@example.com", "uid": "jane",
        "groups": ["oidc:a", "oidc:system:b", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/credential-id": jti},
    });
    let runner = json!({
        "username": "ci:team.app", "groups": ["dev", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/credential-id": jti, "ci.example.com/ref": ["main"]},
    });
    let nobody = || (401, json!({}));
    let cases = [
        ("person", people.token(mail.clone()), (200, person.clone())),
        (
            "other audience",
            people.token(changed(&mail, json!({"aud": ["x", "web"]}))),
            (200, person),
        ),
        ("job", jobs.token(job.clone()), (200, runner)),
        ("wrong audience", people.token(changed(&mail, json!({"aud": "x"}))), nobody()),
        (
            "audience of the other issuer",
            jobs.token(changed(&job, json!({"aud": "web"}))),
            nobody(),
        ),
        ("required claim differs", people.token(changed(&mail, json!({"hd": "x"}))), nobody()),
        (
            "mail not verified",
            people.token(changed(&mail, json!({"email_verified": false}))),
            nobody(),
        ),
        ("rule is false", jobs.token(changed(&job, json!({"protected": false}))), nobody()),
        ("rule fails", jobs.token(changed(&job, json!({"protected": null, "ref": 1}))), nobody()),
        (
            "claim of the expression is no text",
            jobs.token(changed(&job, json!({"project": 7}))),
            nobody(),
        ),
        ("user rule", jobs.token(changed(&job, json!({"roles": ["EVIL"]}))), nobody()),
        (
            "signed by the other issuer",
            people.token(changed(&job, json!({"iss": format!("https://{}", jobs.addr())}))),
            nobody(),
        ),
        ("an issuer that is not configured", stranger.token(mail.clone()), nobody()),
        (
            "a stranger who says to be an issuer",
            stranger.token(changed(&mail, json!({"iss": format!("https://{}", people.addr())}))),
            nobody(),
        ),
    ];
    for (index, (what, token, expected)) in cases.iter().enumerate() {
        assert_eq!(who(&proxy, token, &format!("case-{index}")).await, *expected, "{what}");
    }
    assert_eq!(stranger.server.seen().len(), 0, "an unknown issuer receives no request");
    // Expressions yield groups of Kubernetes itself only if they contain them literally.
    let masters = jobs.token(changed(&job, json!({"roles": ["system:masters", "a"]})));
    let (code, user) = who(&proxy, &masters, "masters").await;
    assert_eq!((code, &user["groups"]), (200, &json!(["a", "system:authenticated"])));
    let (_, metrics) = client::admin(proxy.admin, "/metrics").await.unwrap();
    let count = "\nkube_audit_proxy_reserved_names_total 1\n";
    assert!(metrics.contains(count), "{metrics}");
}

#[tokio::test]
async fn distributed_groups_are_fetched() {
    // The issuer of the groups. Its tokens must be known to its own handler first.
    let slot = Arc::new(std::sync::Mutex::new(String::new()));
    let answer = slot.clone();
    let groups = Issuer::with(move |_, path, token| match (path, token) {
        ("/groups", "Bearer secret") => Some(answer.lock().unwrap().clone()),
        _ => None,
    })
    .await;
    let people = Issuer::start().await;
    let upstream = upstream().await;
    let mappings = json!({
        "username": {"claim": "sub", "prefix": ""}, "groups": {"claim": "groups", "prefix": "g:"},
    });
    let entry = people.entry(json!({}), json!({"claimMappings": mappings}));
    let proxy = proxy(&upstream, json!({"jwt": [entry]})).await;
    let token = |n: u32, path: &str, secret: &str| {
        let source = json!({
            "endpoint": format!("https://{}{path}", groups.addr()), "access_token": secret,
        });
        people.token(json!({
            "n": n, "_claim_names": {"groups": "src"}, "_claim_sources": {"src": source},
        }))
    };
    *slot.lock().unwrap() = groups.token(json!({"groups": ["dev", "ops"]}));
    // Like in kube-apiserver, the keys of another issuer are fetched when a token first needs them.
    let first = get(&proxy, Some(&token(0, "/groups", "secret")), TARGET, "first").await;
    assert_eq!(first, 503);
    let found = "fetched the keys of the OIDC issuer";
    wait_for("the other issuer's keys", || {
        (proxy.process.stderr().matches(found).count() > 1).then_some(())
    })
    .await;
    let (code, user) = who(&proxy, &token(1, "/groups", "secret"), "fetched").await;
    assert_eq!((code, &user["groups"]), (200, &json!(["g:dev", "g:ops", "system:authenticated"])));
    for (n, (what, answer, expected)) in [
        ("for others", groups.token(json!({"groups": ["a"], "aud": "x"})), 401),
        ("expired", groups.token(json!({"groups": ["a"], "exp": now() - 1})), 401),
        ("without the claim", groups.token(json!({})), 401),
        ("no token", "{}".to_owned(), 401),
    ]
    .into_iter()
    .enumerate()
    {
        *slot.lock().unwrap() = answer;
        let id = format!("bad-{n}");
        let token = token(10 + n as u32, "/groups", "secret");
        assert_eq!(get(&proxy, Some(&token), TARGET, &id).await, expected, "{what}");
    }
    let forged = json!({"groups": ["a"], "iss": format!("https://{}", people.addr())});
    *slot.lock().unwrap() = groups.token(forged);
    let by_other = |n| token(n, "/groups", "secret");
    assert_eq!(get(&proxy, Some(&by_other(18)), TARGET, "forged-1").await, 503);
    wait_for("the keys of the issuer that the token names", || {
        (proxy.process.stderr().matches(found).count() > 2).then_some(())
    })
    .await;
    assert_eq!(get(&proxy, Some(&by_other(19)), TARGET, "forged-2").await, 401);
    let refused = token(20, "/groups", "other");
    assert_eq!(get(&proxy, Some(&refused), TARGET, "refused").await, 503);
    assert!(!proxy.process.stderr().contains("Bearer"), "{}", proxy.process.stderr());
}

#[tokio::test]
async fn the_file_is_reloaded_and_an_invalid_one_is_rejected() {
    let (one, other) = (Issuer::start().await, Issuer::start().await);
    let upstream = upstream().await;
    let entry = |issuer: &Issuer| issuer.entry(json!({}), json!({}));
    let proxy = proxy(&upstream, json!({"jwt": [entry(&one)]})).await;
    let path = proxy.dir.path("authentication.json");
    let (jane, joe) = (one.token(json!({})), other.token(json!({"sub": "joe"})));
    assert_eq!(who(&proxy, &jane, "jane-1").await.1["username"], "oidc:jane");
    assert_eq!(get(&proxy, Some(&joe), TARGET, "joe-1").await, 401);
    assert_eq!(get(&proxy, None, TARGET, "anonymous-1").await, 200);

    // Issuers, and anonymous access, change with the file. Cached tokens are dropped.
    let known = one.server.seen().len();
    let both = json!({"jwt": [entry(&one), entry(&other)], "anonymous": {"enabled": false}});
    let write = |text: String| {
        let new = proxy.dir.write("new.json", &text);
        std::fs::rename(new, &path).unwrap();
    };
    write(file(both));
    reloads(&proxy, "success", 1).await;
    assert_eq!(who(&proxy, &joe, "joe-2").await, who_is("oidc:joe"));
    assert_eq!(who(&proxy, &jane, "jane-2").await.0, 200);
    assert_eq!(get(&proxy, None, TARGET, "anonymous-2").await, 401);
    assert_eq!(one.server.seen().len(), known, "keys that are known are not fetched again");

    // An invalid file: the previous one stays active, and the error names the problem and its
    // position.
    write(file(json!({"jwt": [entry(&one), {"issuer": {"url": "http://x"}}]})));
    reloads(&proxy, "failure", 1).await;
    assert_eq!(get(&proxy, Some(&joe), TARGET, "joe-3").await, 200);
    assert_eq!(get(&proxy, None, TARGET, "anonymous-3").await, 401);
    let said = proxy.process.logs("the previous content stays active").await;
    assert!(said.contains("jwt[1].issuer.url: Invalid value: \"http://x\": URL scheme"), "{said}");

    // A removed issuer no longer authenticates tokens.
    write(file(json!({"jwt": [entry(&other)]})));
    reloads(&proxy, "success", 2).await;
    assert_eq!(get(&proxy, Some(&jane), TARGET, "jane-4").await, 401);
    assert_eq!(get(&proxy, Some(&joe), TARGET, "joe-4").await, 200);
    assert_eq!(get(&proxy, None, TARGET, "anonymous-4").await, 200);
    write(file(json!({"jwt": []})));
    reloads(&proxy, "success", 3).await;
    assert_eq!(get(&proxy, Some(&joe), TARGET, "joe-5").await, 401);
    assert_eq!(get(&proxy, Some("carol-token"), TARGET, "carol").await, 200);
}

fn who_is(name: &str) -> (u16, Value) {
    let extra = json!({"authentication.kubernetes.io/credential-id": ["JTI=j"]});
    (200, json!({"username": name, "groups": ["system:authenticated"], "extra": extra}))
}

/// Waits until the file was reloaded this often, by kube-apiserver's own metric.
async fn reloads(proxy: &Proxy, status: &str, count: u32) {
    let name = "apiserver_authentication_config_controller_automatic_reload";
    let line = format!("{name}s_total{{status=\"{status}\"}} {count}\n");
    let time = format!("{name}_last_timestamp_seconds{{status=\"{status}\"}} ");
    for _ in 0..500 {
        let (_, metrics) = client::admin(proxy.admin, "/metrics").await.unwrap();
        if metrics.contains(&line) {
            assert!(metrics.contains(&time), "{metrics}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("never: {line}");
}

#[tokio::test]
async fn anonymous_requests_are_allowed_where_the_file_allows_them() {
    let upstream = upstream().await;
    let paths = json!([{"path": "/livez"}, {"path": "/readyz"}]);
    let proxy =
        proxy(&upstream, json!({"anonymous": {"enabled": true, "conditions": paths}})).await;
    for (n, (target, expected)) in [
        ("/livez", 200),
        ("/readyz?verbose", 200),
        ("/live%7a", 200),
        ("/livez/ping", 401),
        ("/livez/", 401),
        ("//livez", 401),
        ("/livez/../api", 401),
        ("/", 401),
        (TARGET, 401),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("anonymous-{n}");
        assert_eq!(get(&proxy, None, target, &id).await, expected, "{target}");
        let user = match expected {
            200 => json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]}),
            _ => json!({}),
        };
        assert_eq!(user_of(&proxy, &id).await, user, "{target}");
    }
    assert_eq!(get(&proxy, Some("carol-token"), TARGET, "carol").await, 200);
    assert_eq!(get(&proxy, Some("wrong"), "/livez", "wrong").await, 401);
}

#[tokio::test]
async fn errors_in_the_file_are_reported_at_startup() {
    let upstream = upstream().await;
    let anonymous = file(json!({"anonymous": {"enabled": true}}));
    let url = "--oidc-issuer-url=https://a";
    let cases: [(&str, &[&str], i32, &str); 5] = [
        ("", &[], 1, "authentication.json:1:1: empty config data; begin with"),
        ("{\"apiVersion\": 1}", &[], 1, "Object 'apiVersion' is missing"),
        (&anonymous, &["--anonymous-auth=true"], 1, "remove the flag or the member"),
        (&anonymous, &[url, "--oidc-client-id=a"], 2, "--oidc-* are mutually exclusive"),
        (
            &file(json!({"jwt": [{"issuer": {"url": "https://a", "audiences": ["k"]}}]})),
            &[],
            1,
            "jwt[0].claimMappings.username: Required value: claim or expression is required",
        ),
    ];
    for (text, flags, expected_code, expected) in cases {
        let builder = flags.iter().fold(builder(&upstream, text), |b, flag| b.flag(flag));
        let (code, said) = builder.run_to_end().await;
        assert_eq!(code, Some(expected_code), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    let missing = Builder::new(upstream.addr).flag("--authentication-config=/no/such/file");
    let (code, said) = missing.run_to_end().await;
    assert!(code == Some(1) && said.contains("/no/such/file: No such file"), "{said}");
}

#[tokio::test]
async fn the_sample_starts() {
    let upstream = upstream().await;
    let sample =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/authentication.yaml");
    let proxy = Builder::new(upstream.addr)
        .flag(&format!("--authentication-config={}", sample.display()))
        .start()
        .await;
    wait_for("the word of it", || {
        proxy.process.stderr().contains("authentication configuration loaded").then_some(())
    })
    .await;
    assert_eq!(get(&proxy, None, "/livez", "livez").await, 200);
    assert_eq!(get(&proxy, None, "/version", "version").await, 401);
    // The issuers do not exist.
    let signer = Signer::ec();
    let claims = json!({
        "iss": "https://login.example.com", "aud": "kubernetes", "exp": now() + 600,
        "email": "j@example.com", "hd": "example.com",
    });
    let token = signer.token(&json!({"alg": "ES256"}), &claims);
    let other = signer.token(&json!({"alg": "ES256"}), &json!({"iss": "https://x"}));
    assert_eq!(get(&proxy, Some(&other), TARGET, "other").await, 401);
    assert_eq!(get(&proxy, Some(&token), TARGET, "not-ready").await, 503);
}
