//! Reading, writing and watching objects; and the API over HTTP/1.1 with each kind of client.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::api::{Api, Delete, Write};
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::pki::{Issued, Pki};
use crate::selector::Selector;
use crate::serve::serve;
use crate::watch::Event;

fn kind(api: &Api, plural: &str) -> Arc<Kind> {
    api.kinds().iter().find(|kind| kind.plural == plural).unwrap().clone()
}

fn create(api: &Api, plural: &str, object: Value) -> Result<Arc<Value>, ApiError> {
    api.create(&kind(api, plural), "default", object, &Write::default())
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[test]
fn creation_fills_metadata_and_refuses_doubles() {
    let api = Api::new();
    let made = create(&api, "configmaps", json!({"metadata": {"generateName": "a-"}})).unwrap();
    let metadata = &made["metadata"];
    assert!(metadata["name"].as_str().unwrap().starts_with("a-"));
    assert_eq!(metadata["namespace"], "default");
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(metadata[field].is_string(), "{field}");
    }
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));

    let named = json!({"metadata": {"name": "welcome"}});
    let error = create(&api, "configmaps", named).unwrap_err();
    assert_eq!(error.message, "configmaps \"welcome\" already exists");
    assert_eq!(error.details, json!({"name": "welcome", "kind": "configmaps"}));
    let cases = [
        (json!({"metadata": {}}), 422),
        (json!({"metadata": {"name": "A"}}), 422),
        (json!({"metadata": {"name": "a", "namespace": "other"}}), 400),
        (json!({"metadata": {"name": "a", "resourceVersion": "1"}}), 400),
        (json!({"kind": "Secret", "metadata": {"name": "a"}}), 400),
        (json!("text"), 400),
    ];
    for (object, code) in cases {
        assert_eq!(create(&api, "configmaps", object.clone()).unwrap_err().code, code, "{object}");
    }
}

#[test]
fn updates_keep_what_is_not_the_writers() {
    let api = Api::new();
    let deployments = kind(&api, "deployments");
    let before = api.get(&deployments, "default", "hello").unwrap();
    let update = |object: Value| {
        api.modify(&deployments, "default", "hello", &Write::default(), |_| Ok(object))
    };
    let mut new = Value::clone(&before);
    new["spec"]["replicas"] = 3.into();
    new["metadata"]["uid"] = "other".into();
    let after = update(new.clone()).unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["metadata"]["generation"], 2);
    assert_eq!(after["status"]["readyReplicas"], 3);
    let error = update(new).unwrap_err();
    assert_eq!(
        error.message,
        "Operation cannot be fulfilled on deployments.apps \"hello\": the object has been \
         modified; please apply your changes to the latest version and try again"
    );
    let same = update(Value::clone(&after)).unwrap();
    assert_eq!(version(&same), version(&after), "an update that changes nothing writes nothing");
}

#[test]
fn dry_runs_store_nothing() {
    let api = Api::new();
    let configmaps = kind(&api, "configmaps");
    let dry = Write { dry_run: true, ..Write::default() };
    let object = json!({"metadata": {"name": "dry"}});
    api.create(&configmaps, "default", object, &dry).unwrap();
    assert_eq!(api.get(&configmaps, "default", "dry").unwrap_err().code, 404);
    let delete = Delete { dry_run: true, ..Delete::default() };
    api.delete(&configmaps, "default", "welcome", &delete).unwrap();
    api.get(&configmaps, "default", "welcome").unwrap();
}

#[test]
fn deletion_waits_for_finalizers() {
    let api = Api::new();
    let configmaps = kind(&api, "configmaps");
    let object = json!({"metadata": {"name": "kept", "finalizers": ["example.com/f"]}});
    create(&api, "configmaps", object).unwrap();
    let answer = api.delete(&configmaps, "default", "kept", &Delete::default()).unwrap();
    assert_eq!(answer["kind"], "ConfigMap");
    let dying = api.get(&configmaps, "default", "kept").unwrap();
    assert!(dying["metadata"]["deletionTimestamp"].is_string());
    api.modify(&configmaps, "default", "kept", &Write::default(), |old| {
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!([]);
        Ok(new)
    })
    .unwrap();
    assert_eq!(api.get(&configmaps, "default", "kept").unwrap_err().code, 404);
}

#[test]
fn deletion_checks_preconditions_and_empties_namespaces() {
    let api = Api::new();
    let configmaps = kind(&api, "configmaps");
    let wrong = Delete { uid: "other".into(), ..Delete::default() };
    let error = api.delete(&configmaps, "default", "welcome", &wrong).unwrap_err();
    assert!(error.message.contains("Precondition failed: UID in precondition: other"), "{error}");
    let answer = api.delete(&configmaps, "default", "welcome", &Delete::default()).unwrap();
    assert_eq!(answer["status"], "Success");
    assert_eq!(answer["details"]["kind"], "configmaps");

    let namespaces = kind(&api, "namespaces");
    let answer = api.delete(&namespaces, "", "default", &Delete::default()).unwrap();
    assert_eq!(answer["status"]["phase"], "Terminating");
    let (left, _) = api.list(&kind(&api, "pods"), "default", &Selector::default());
    assert!(left.is_empty());
}

#[test]
fn secrets_hold_base64() {
    let api = Api::new();
    let object = json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}});
    let secret = create(&api, "secrets", object).unwrap();
    assert_eq!(secret["data"], json!({"k": "dg=="}));
    assert_eq!(secret["stringData"], Value::Null);
}

#[tokio::test]
async fn watches_report_missed_and_new_changes() {
    let api = Api::new();
    let configmaps = kind(&api, "configmaps");
    let labelled = Selector::new("app=x", "").unwrap();
    let (_, start) = api.list(&configmaps, "", &labelled);
    let named = |name: &str, app: &str| json!({"metadata": {"name": name, "labels": {"app": app}}});
    create(&api, "configmaps", named("a", "x")).unwrap();
    create(&api, "configmaps", named("b", "y")).unwrap();
    create(&api, "secrets", named("s", "x")).unwrap();

    let mut watch = api.watch(&configmaps, "default", labelled, Some(start)).unwrap();
    let name = |event: &Event| match event {
        Event::Added(o) | Event::Modified(o) | Event::Deleted(o) => {
            o["metadata"]["name"].as_str().unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    };
    let event = watch.next().await;
    assert_eq!((event.name(), name(&event).as_str()), ("ADDED", "a"));

    let relabel = |object: &str, app: &'static str| {
        api.modify(&configmaps, "default", object, &Write::default(), move |old| {
            let mut new = old.clone();
            new["metadata"]["labels"]["app"] = app.into();
            Ok(new)
        })
        .unwrap()
    };
    let (event, _) = tokio::join!(watch.next(), async {
        tokio::task::yield_now().await;
        relabel("b", "x")
    });
    assert_eq!((event.name(), name(&event).as_str()), ("ADDED", "b"));
    relabel("a", "z");
    let event = watch.next().await;
    assert_eq!((event.name(), name(&event).as_str()), ("DELETED", "a"));
    api.delete(&configmaps, "default", "b", &Delete::default()).unwrap();
    let event = watch.next().await;
    assert_eq!((event.name(), name(&event).as_str()), ("DELETED", "b"));
}

#[tokio::test]
async fn watches_without_a_version_begin_with_what_is_there() {
    let api = Api::new();
    let namespaces = kind(&api, "namespaces");
    let mut watch = api.watch(&namespaces, "", Selector::default(), None).unwrap();
    watch.push_bookmark();
    for expected in ["ADDED", "ADDED", "ADDED", "ADDED", "BOOKMARK"] {
        assert_eq!(watch.next().await.name(), expected);
    }
}

/// The API behind TLS, and clients of it.
struct Server {
    pki: Pki,
    address: std::net::SocketAddr,
}

impl Server {
    async fn start() -> Server {
        let pki = Pki::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = pki.server_config().unwrap();
        tokio::spawn(serve(listener, tls, Api::new(), std::future::pending()));
        Server { pki, address }
    }

    async fn ask(
        &self,
        client: Option<&Issued>,
        request: http::request::Builder,
        body: &str,
    ) -> (u16, Value) {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.pki.ca.certificate().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            Some(issued) => builder
                .with_client_auth_cert(vec![issued.certificate.clone()], issued.key())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let body: Full<Bytes> = Full::from(body.to_owned());
        let request = request.header("host", "localhost").body(body);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(request.unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }
}

#[tokio::test]
async fn identities_over_tls() {
    let server = Server::start().await;
    let alice = server.pki.issue_client("alice", &["demo", "ops"]).unwrap();
    let proxy = server.pki.issue_front_proxy().unwrap();
    let whoami = || Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews");

    let (code, answer) = server.ask(Some(&alice), whoami(), "{}").await;
    assert_eq!(code, 201);
    let groups = json!(["demo", "ops", "system:authenticated"]);
    assert_eq!(answer["status"]["userInfo"], json!({"username": "alice", "groups": groups}));

    let named = whoami().header("X-Remote-User", "jane");
    let (_, answer) = server.ask(Some(&proxy), named, "{}").await;
    assert_eq!(answer["status"]["userInfo"]["username"], "jane");
    let claimed = whoami().header("X-Remote-User", "root");
    let (_, answer) = server.ask(Some(&alice), claimed, "{}").await;
    assert_eq!(answer["status"]["userInfo"]["username"], "alice");

    let (code, answer) = server.ask(None, Request::get("/api/v1/pods"), "").await;
    assert_eq!(code, 403);
    assert_eq!(
        answer["message"],
        "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \
         \"\" at the cluster scope"
    );
    let (code, _) = server.ask(None, Request::get("/readyz"), "").await;
    assert_eq!(code, 200);
    let token = Request::get("/api").header("authorization", "Bearer wrong");
    let (code, answer) = server.ask(None, token, "").await;
    assert_eq!((code, &answer["reason"]), (401, &json!("Unauthorized")));
}

#[tokio::test]
async fn media_types_and_shapes() {
    let server = Server::start().await;
    let admin = server.pki.issue_client("demo-admin", &[]).unwrap();
    let configmaps = "/api/v1/namespaces/default/configmaps";
    let typed = |builder: http::request::Builder, kind: &str| builder.header("content-type", kind);

    let yaml = "metadata: {name: zz}\ndata: {k: v}\n";
    let request = typed(Request::post(configmaps), "application/yaml");
    assert_eq!(server.ask(Some(&admin), request, yaml).await.0, 201);
    let request = typed(Request::post(configmaps), "text/plain");
    assert_eq!(server.ask(Some(&admin), request, yaml).await.0, 415);
    let one = format!("{configmaps}/zz");
    let request = typed(Request::patch(&one), "application/json");
    let (code, answer) = server.ask(Some(&admin), request, "{}").await;
    assert_eq!(code, 415, "{answer}");
    let request = typed(Request::patch(&one), "application/apply-patch+yaml");
    let (code, answer) = server.ask(Some(&admin), request, yaml).await;
    assert_eq!(code, 422);
    assert!(answer["message"].as_str().unwrap().contains("fieldManager: Required value"));

    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let request = Request::get(configmaps).header("accept", table);
    let (_, answer) = server.ask(Some(&admin), request, "").await;
    assert_eq!(answer["kind"], "Table");
    let cells = &answer["rows"][1]["cells"];
    assert_eq!((&cells[0], &cells[1]), (&json!("zz"), &json!(1)));
    let request = Request::get(configmaps)
        .header("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    let (_, answer) = server.ask(Some(&admin), request, "").await;
    assert_eq!(answer["kind"], "PartialObjectMetadataList");
    assert_eq!(answer["items"][0].get("data"), None);

    let watch = format!("{configmaps}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dzz");
    let (code, event) = server.ask(Some(&admin), Request::get(&watch), "").await;
    assert_eq!((code, &event["type"]), (200, &json!("ADDED")));
    let unknown = Request::get("/apis/none/v1/things");
    let (code, answer) = server.ask(Some(&admin), unknown, "").await;
    assert_eq!(code, 404);
    assert_eq!(answer["message"], "the server could not find the requested resource");
    let exec = "/api/v1/namespaces/default/pods/hello-0/exec?command=sh";
    let (code, answer) = server.ask(Some(&admin), Request::post(exec), "").await;
    assert_eq!((code, &answer["message"]), (400, &json!("Upgrade request required")));
}
