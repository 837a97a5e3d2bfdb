//! `kube-audit-proxy demo`: the proxy in front of an in-memory API, and its events as they happen.

mod line;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use demo_api::{Demo, UpstreamIdentity};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use self::line::Style;
use super::process::Process;
use super::{Failure, logging};
use crate::config::{self, Config, LogFormat};
use crate::server::limits;

/// Flags of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct DemoFlags {
    /// Port of the proxy on the loopback address; 0 selects a free port
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Directory for certificates, kubeconfig, policy and audit log, kept after the demo
    /// [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Audit policy; can be edited while the demo runs [default: the recommended one]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// How the API server identifies the user
    #[arg(long, value_name = "MODE", value_enum, default_value = "request-header")]
    upstream_identity: UpstreamIdentity,
    /// Also show RequestReceived events, if the policy has them
    #[arg(long)]
    all_stages: bool,
}

/// Runs the demo until it receives a signal.
pub(super) fn run(flags: &DemoFlags) -> Result<(), Failure> {
    logging::init(tracing::Level::WARN, LogFormat::Text);
    limits::prepare()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(demo(flags))
}

async fn demo(flags: &DemoFlags) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let (demo, process, mut events) = start(flags).await?;
    let style = Style::for_stdout(flags.all_stages);
    let mut stdout = io::stdout();
    let introduction = introduction(&demo, &process);
    let mut told = stdout.write_all(introduction.as_bytes());
    while told.is_ok() {
        tokio::select! {
            () = signals.next() => break,
            Some(event) = events.recv() => told = show(style, &event),
        }
    }
    process.shutdown(signals.next()).await;
    // The last events arrive while the proxy shuts down and drops their sender.
    while told.is_ok()
        && let Some(event) = events.recv().await
    {
        told = show(style, &event);
    }
    demo.stop().await;
    match told {
        // A closed pipe is not an error, for example with `head`.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Starts API and proxy, and writes the kubeconfig.
async fn start(flags: &DemoFlags) -> Result<(Demo, Process, UnboundedReceiver<Vec<u8>>), Failure> {
    let identity = flags.upstream_identity;
    let demo = Demo::start(flags.dir.as_deref(), flags.policy.as_deref(), identity).await?;
    let arguments: Vec<OsString> =
        demo.serve_args(flags.port).into_iter().skip(1).map(OsString::from).collect();
    let serve = config::file::parse(&arguments)
        .map_err(|error| Failure::Usage(error.to_string()))?
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let config = Config::new(serve).map_err(|error| Failure::Usage(error.to_string()))?;
    let (observer, events) = mpsc::unbounded_channel();
    let process = Process::start(config, Some(observer)).await?;
    demo.write_kubeconfig(process.addr())?;
    Ok((demo, process, events))
}

fn show(style: Style, event: &[u8]) -> io::Result<()> {
    match style.line(event) {
        Some(line) => writeln!(io::stdout(), "{line}"),
        None => Ok(()),
    }
}

fn introduction(demo: &Demo, process: &Process) -> String {
    format!(
        "kube-audit-proxy on https://{proxy}, in front of an in-memory Kubernetes API.\n\
         \n  audit policy  {policy}  (edit it while the demo runs)\
         \n  audit log     {log}\
         \n  recordings    {sessions}\
         \n  metrics       http://{admin}/metrics\n\
         \nRun in another terminal:\n\
         \n  export KUBECONFIG={kubeconfig}\
         \n  kubectl create configmap hello --from-literal=to=world\
         \n  kubectl get configmaps --as viewer\
         \n  kube-audit-proxy log query --verb create --resource configmaps {log}\
         \n  kubectl exec -it {pod} -- sh\
         \n  kube-audit-proxy session list {sessions}\n\
         \nAudit events, until Ctrl-C:\n\n",
        proxy = process.addr(),
        policy = demo.policy().display(),
        log = demo.audit_log().display(),
        sessions = demo.sessions().display(),
        pod = "hello-0",
        admin = process.admin_addr(),
        kubeconfig = demo.kubeconfig().display(),
    )
}

/// The signals that end the demo: SIGINT (Ctrl-C) and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::Value;

    use super::*;

    fn flags(upstream_identity: UpstreamIdentity) -> DemoFlags {
        DemoFlags { port: 0, dir: None, policy: None, upstream_identity, all_stages: false }
    }

    /// kubectl through the proxy: every request is an event.
    async fn kubectl_is_audited(identity: UpstreamIdentity) {
        if !test_support::has_kubectl() {
            return;
        }
        let (demo, process, mut events) = start(&flags(identity)).await.unwrap();
        let (kubeconfig, home) = (demo.kubeconfig(), demo.folder().to_owned());
        let run = move |args: &'static [&'static str]| {
            let mut command = Command::new("kubectl");
            command.args(args).env("KUBECONFIG", &kubeconfig).env("HOME", &home);
            async move { tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap() }
        };
        let created = run(&["create", "configmap", "hello", "--from-literal=to=world"]).await;
        assert!(created.status.success(), "{created:?}");
        assert!(created.stderr.is_empty(), "{created:?}");
        let listed = run(&["get", "configmaps", "--as", "viewer"]).await;
        assert!(listed.status.success(), "{listed:?}");
        let refused = run(&["create", "configmap", "more", "--as", "viewer"]).await;
        assert!(!refused.status.success(), "{refused:?}");
        let deleted = run(&["delete", "configmap", "hello"]).await;
        assert!(deleted.status.success(), "{deleted:?}");
        process.shutdown(std::future::pending()).await;

        let mut seen = Vec::new();
        while let Some(event) = events.recv().await {
            let event: Value = serde_json::from_slice(&event).unwrap();
            if event["objectRef"]["resource"] == "configmaps"
                && event["stage"] == "ResponseComplete"
            {
                let text = |pointer| event.pointer(pointer).and_then(Value::as_str).unwrap_or("-");
                let (user, other) = (text("/user/username"), text("/impersonatedUser/username"));
                let code = &event["responseStatus"]["code"];
                seen.push(format!("{user} {other} {} {code}", text("/verb")));
            }
        }
        let expected = [
            "demo-admin - create 201",
            "demo-admin viewer list 200",
            "demo-admin viewer create 403",
            "demo-admin - delete 200",
        ];
        for line in expected {
            assert!(seen.iter().any(|s| s == line), "{line} not in {seen:#?}");
        }
        demo.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn kubectl_is_audited_with_request_headers() {
        kubectl_is_audited(UpstreamIdentity::RequestHeader).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn kubectl_is_audited_with_impersonation() {
        kubectl_is_audited(UpstreamIdentity::Impersonate).await;
    }
}
