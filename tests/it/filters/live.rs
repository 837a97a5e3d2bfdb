//! Compares the recordings with a real kube-apiserver, and with the proxy in front of it.
//!
//! Needs `KUBEBUILDER_ASSETS`, the directory with `etcd` and `kube-apiserver`; skipped without it.

use tokio::net::TcpListener;

use super::recorded::Recorded;
use super::{CORS, HSTS, LIST, POLICY};
use crate::support::audit_log::AuditLog;
use crate::support::cluster::Cluster;
use crate::support::proxy::Builder;
use crate::support::{TempDir, http1};

const FLAGS: [&str; 6] = [
    CORS,
    HSTS,
    "--enable-priority-and-fairness=false",
    "--max-requests-inflight=1",
    "--max-mutating-requests-inflight=1",
    "--request-timeout=5s",
];
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

async fn create(cluster: &Cluster, path: &str, object: &serde_json::Value) {
    let json = ["Content-Type: application/json"];
    let request = http1::request("POST", path, &json, object.to_string().as_bytes());
    let created = http1::exchange(cluster.addr, Some("admin"), &request).await.unwrap();
    assert_eq!(created.head.status, 201, "{}", String::from_utf8_lossy(&created.body));
}

/// Allows everyone everything, and makes requests that create ConfigMaps hang.
async fn prepare(cluster: &Cluster) -> TcpListener {
    let group = "rbac.authorization.k8s.io";
    let user = |name: &str| serde_json::json!({"apiGroup": group, "kind": "User", "name": name});
    let binding = serde_json::json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": "everyone"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [user("carol"), user("dave"), user("alice"), user("audit-proxy")],
    });
    create(cluster, BINDINGS, &binding).await;
    // Accepts connections, and never responds.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhook = serde_json::json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "silent"},
        "webhooks": [{
            "name": "silent.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "timeoutSeconds": 30,
            "clientConfig": {"url": format!("https://{}/", silent.local_addr().unwrap())},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                       "resources": ["configmaps"]}],
        }],
    });
    create(cluster, GROUP, &webhook).await;
    // Until it is in effect, ConfigMaps are created.
    let body = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"probe"}}"#;
    let json = ["Content-Type: application/json"];
    let probe = http1::request("POST", &format!("{LIST}?dryRun=All&timeout=500ms"), &json, body);
    for _ in 0..100 {
        // When a request times out, kube-apiserver sometimes closes the connection.
        let probed = http1::exchange(cluster.addr, Some("admin"), &probe).await;
        if probed.is_ok_and(|response| response.head.status != 504) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        }
        return silent;
    }
    panic!("the webhook does not take effect");
}

/// Sends all recorded requests; those for rejections are sent while another one hangs.
async fn replay(addr: std::net::SocketAddr, log: &mut AuditLog) {
    let all = Recorded::all();
    for case in all.iter().filter(|case| !matches!(case.status, 429 | 504)) {
        let response = case.send(addr).await;
        case.check_response(&response);
        case.check_events(log).await;
    }
    let hanging = all.iter().find(|case| case.status == 504).unwrap();
    let rejected = async {
        // The slot is taken as soon as the event is logged.
        hanging.received(log).await;
        let cases: Vec<_> = all.iter().filter(|case| case.status == 429).collect();
        // Concurrently, because the proxy delays one of them by a second.
        let responses = cases.iter().map(|case| case.send(addr));
        let responses = futures_util::future::join_all(responses).await;
        for (case, response) in cases.iter().zip(&responses) {
            case.check_response(response);
            case.check_events(log).await;
        }
    };
    let (response, ()) = tokio::join!(hanging.try_send(addr), rejected);
    // If the handler of kube-apiserver notices the timeout first, it starts a response, and the
    // connection is closed.
    if let Ok(response) = response {
        hanging.check_response(&response);
    }
    hanging.check_events(log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_and_the_proxy_do_as_recorded() {
    let Some(assets) = Cluster::assets() else {
        return println!(
            "not run: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver"
        );
    };
    let policy = TempDir::new();
    let policy_file = policy.write("policy.yaml", POLICY);
    let mut cluster = Cluster::start_with(&assets, &policy_file, &FLAGS).await;
    let _silent = prepare(&cluster).await;
    let mut log = AuditLog::new(&cluster.log);
    replay(cluster.addr, &mut log).await;

    // A proxy with lower limits in front of it behaves the same.
    let builder = Builder::new(cluster.addr).policy(POLICY).flag(CORS).flag(HSTS);
    let builder = builder.flag("--max-requests-inflight=1").flag("--request-timeout=4s");
    let builder = builder.flag("--max-mutating-requests-inflight=1").front_proxies();
    let mut proxy = builder.start().await;
    let mut log = proxy.audit_log();
    replay(proxy.addr, &mut log).await;
    assert_eq!(proxy.metric("kube_audit_proxy_request_timeouts_total{response=\"none\"}").await, 1);
    assert!(proxy.stop().await.success());
    cluster.stop().await;
}
