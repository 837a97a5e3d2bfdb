//! The parts of a request, each measured separately.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, header};
use k8s_audit::request::RequestInfo;
use kube_audit_proxy::audit::id::audit_id;
use kube_audit_proxy::audit::record::{AuditPipeline, Format};
use kube_audit_proxy::request::headers::{self, AUDIT_ID};
use kube_audit_proxy::request::source::{Peer, TrustedProxies};
use kube_audit_proxy::upstream::identity::Identity;
use kube_authn::{TokenCache, TokenFile, UnionTokenAuthenticator, User};

use crate::counter::Counter;
use crate::rules::policy_of;
use crate::sample::Sample;
use crate::sinks::{policy, sink};
use crate::user::user;

const TOKEN: &str = "c29tZS1jbGllbnQtb2YtdGhlLWNvbXBhcmlzb24";
const TARGETS: [&str; 3] = [
    "/api/v1/namespaces/shop/pods/web-0",
    "/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn1&resourceVersion=7",
    "/api/v1/namespaces/shop/pods/web%2D0/log",
];

pub fn run(counter: &Counter<'_>) {
    for (what, target) in ["one object", "a watch", "an escaped path"].into_iter().zip(TARGETS) {
        let target = PathAndQuery::from_static(target);
        counter.each(&format!("request info of {what}"), || {
            black_box(RequestInfo::new(&Method::GET, black_box(&target)).ok());
        });
    }
    evaluation(counter);
    encoding(counter);
    tokens(counter);
    counter.each("audit ID", || {
        black_box(audit_id(None));
    });
    outgoing_headers(counter);
}

fn evaluation(counter: &Counter<'_>) {
    let user = user();
    let target = PathAndQuery::from_static(TARGETS[0]);
    let info = RequestInfo::new(&Method::GET, &target).expect("a resource");
    for rules in [1, 200] {
        let policy = policy_of(rules);
        counter.each(&format!("policy of {rules} rules"), || {
            black_box(policy.evaluate(Some(black_box(&user)), black_box(&info)));
        });
    }
}

fn encoding(counter: &Counter<'_>) {
    let sample = Sample::new();
    let event = sample.event();
    let mut line = Vec::with_capacity(2048);
    counter.each("event encoded", || {
        line.clear();
        event.push_json(black_box(&mut line));
    });
    let sinks = vec![sink(&policy("rules: [{level: Metadata}]"), Format::Json)];
    let recorder = Arc::new(AuditPipeline::new(sinks, Arc::default(), None));
    counter.each("record of two events", || sample.record(black_box(&recorder)));
}

fn tokens(counter: &Counter<'_>) {
    let tokens = file_tokens();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let peer = std::net::IpAddr::from([203, 0, 113, 7]);
    counter.many("token looked up", |times| {
        runtime.block_on(async {
            for _ in 0..times {
                let user = tokens.user(black_box(TOKEN.as_bytes()), peer.into()).await;
                black_box(user.expect("a token of the file"));
            }
        });
    });
}

/// Token file authentication with [`TOKEN`] for the usual user.
pub fn file_tokens() -> UnionTokenAuthenticator {
    let name = format!("tokens-{}.csv", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let user = user();
    let groups = user.groups.join(",");
    let line = format!("{TOKEN},{},{},\"{groups}\"\n", user.username, user.uid);
    std::fs::write(&path, line).expect("a disk with room");
    let cache = Arc::new(TokenCache::with_random_key(Arc::default()));
    let file = TokenFile::load(&path, &cache).expect("a token file");
    let _ = std::fs::remove_file(&path);
    UnionTokenAuthenticator {
        file: Some(file),
        service_accounts: None,
        oidc: None,
        review: None,
        cache,
    }
}

/// The headers that kubectl sends.
pub fn client_headers() -> HeaderMap {
    let agent = "kubectl/v1.36.2 (linux/amd64) kubernetes/abcdef0";
    HeaderMap::from_iter([
        (header::ACCEPT, HeaderValue::from_static("application/json")),
        (header::ACCEPT_ENCODING, HeaderValue::from_static("gzip")),
        (header::AUTHORIZATION, format!("Bearer {TOKEN}").parse().expect("a header")),
        (header::USER_AGENT, HeaderValue::from_static(agent)),
    ])
}

/// The header processing of `pipeline::outgoing`.
fn outgoing_headers(counter: &Counter<'_>) {
    let client = client_headers();
    let user = User::from(user());
    let id = audit_id(None);
    let own = HeaderValue::from_static("Bearer own");
    let peer = Peer::new(([203, 0, 113, 7], 443).into());
    counter.each("headers copied, for comparison", || {
        black_box(client.clone());
    });
    for (how, identity) in
        [("impersonate", Identity::Impersonate), ("request-header", Identity::RequestHeader)]
    {
        counter.each(&format!("headers copied, stripped, stamped: {how}"), || {
            let mut headers = client.clone();
            headers::strip(&mut headers).expect("usual headers");
            TrustedProxies::Everyone.forward(&mut headers, &peer);
            headers.insert(AUDIT_ID, id.clone());
            identity.stamp(&mut headers, &user, Some(own.clone())).expect("a usual user");
            black_box(headers);
        });
    }
}
