//! Measures the cost of recording sessions: CPU time per MB of output, and the delay of a
//! keystroke.
//!
//! `cargo bench --bench sessions`. Starts two proxies, one that records and one that does not, and
//! sends the same sessions through both alternately. Linux only: CPU time is read from `/proc`.

mod peers;
#[path = "../compare/process.rs"]
#[allow(dead_code, reason = "the other benchmark needs more of it")]
mod process;
#[path = "../setup/tls_server.rs"]
mod tls_server;
#[path = "../compare/usage.rs"]
#[allow(dead_code, reason = "the other benchmark needs more of it")]
mod usage;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use demo_api::{Pki, write_private};
use serde_json::json;

use crate::peers::{Client, Kind, TOKEN};
use crate::process::{Process, free_port};
use crate::usage::Usage;

/// The program that cargo has built with this benchmark.
const OWN_PROGRAM: &str = env!("CARGO_BIN_EXE_kube-audit-proxy");
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// Keystrokes before switching to the other proxy.
const KEYSTROKES_IN_A_ROW: usize = 250;

/// Measures what recording sessions costs.
#[derive(Debug, Parser)]
#[command(name = "sessions")]
struct Options {
    /// Size of each session in MB
    #[arg(long, value_name = "MB", default_value_t = 100)]
    size: usize,
    /// Sessions of each kind through each proxy; the median is printed
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    rounds: usize,
    /// Keystrokes through each proxy
    #[arg(long, value_name = "COUNT", default_value_t = 5000)]
    keystrokes: usize,
    /// Measure only these kinds
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    only: Vec<Kind>,
    /// A flag for the proxy that records, for example --flag=--session-recording-compress
    #[arg(long = "flag", value_name = "FLAG", allow_hyphen_values = true)]
    flags: Vec<String>,
    /// Another kube-audit-proxy to measure
    #[arg(long, value_name = "FILE", default_value = OWN_PROGRAM)]
    program: PathBuf,
    /// Directory for recordings, which are written to it as usual
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"))]
    folder: PathBuf,
    /// Ignored; `cargo bench` passes it
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let folder = options.folder.join(format!("sessions-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let measured = measure(&options, &folder);
    let removed = fs::remove_dir_all(&folder);
    measured?;
    Ok(removed?)
}

fn measure(options: &Options, folder: &Path) -> Result<()> {
    let pki = Pki::new()?;
    let server = pki.issue_server("kubernetes")?;
    write_private(&folder.join("ca.crt"), pki.ca.pem())?;
    server.write(folder, "server")?;
    write_private(&folder.join("tokens.csv"), &format!("{TOKEN},jane,1001\n"))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let upstream = runtime.block_on(peers::upstream(&server))?;
    let client = Client::new(&folder.join("ca.crt"))?;
    let plain = Proxy::start("plain", options, folder, upstream)?;
    let recording = Proxy::start("recording", options, folder, upstream)?;
    println!(
        "{:<10} {:>12} {:>12} {:>6}  (CPU ms per MB: not recorded, recorded)",
        "session", "plain", "recorded", "ratio"
    );
    for kind in Kind::ALL {
        if !options.only.is_empty() && !options.only.contains(&kind) {
            continue;
        }
        let mut costs = [Vec::new(), Vec::new()];
        // The first round warms up.
        for round in 0..=options.rounds {
            for (proxy, costs) in [&plain, &recording].into_iter().zip(&mut costs) {
                let before = Usage::of(&proxy.ids)?;
                let passed = runtime
                    .block_on(client.receive(proxy.address, kind, options.size * 1_000_000))
                    .with_context(|| {
                        format!("a session failed; the proxy: {}", proxy.stderr_tail())
                    })?;
                proxy.settle(folder)?;
                let (user, system) = Usage::of(&proxy.ids)?.since(before).micros();
                if round > 0 {
                    costs.push((user + system) / 1e3 / (passed as f64 / 1e6));
                }
            }
        }
        let [plain, recorded] = costs.map(|costs| quantile(costs, 0.5));
        println!("{kind:<10} {plain:>12.3} {recorded:>12.3} {:>5.2}×", recorded / plain);
    }
    floor(folder)?;
    if options.keystrokes > 0 {
        keystrokes(options, &runtime, &client, &plain, &recording)?;
    }
    Ok(())
}

/// Measures hashing and writing without a proxy.
fn floor(folder: &Path) -> Result<()> {
    const BLOCK: usize = 256 << 10;
    const BLOCKS: usize = 400;
    let block = Kind::Log.content()[..BLOCK].to_vec();
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut file = fs::File::create(folder.join("floor"))?;
        let own = [std::process::id()];
        let times = [
            Usage::of(&own)?,
            {
                (0..BLOCKS).for_each(|_| hash.update(&block));
                std::hint::black_box(hash.finish());
                Usage::of(&own)?
            },
            {
                (0..BLOCKS).try_for_each(|_| std::io::Write::write_all(&mut file, &block))?;
                file.sync_data()?;
                Usage::of(&own)?
            },
        ];
        for (costs, pair) in costs.iter_mut().zip(times.windows(2)) {
            let (user, system) = pair[1].since(pair[0]).micros();
            costs.push((user + system) / 1e3 / ((BLOCK * BLOCKS) as f64 / 1e6));
        }
    }
    let [hashing, writing] = costs.map(|costs| quantile(costs, 0.5));
    println!("\nSHA-256 alone: {hashing:.3} ms per MB; write and fdatasync alone: {writing:.3}");
    Ok(())
}

fn keystrokes(
    options: &Options,
    runtime: &tokio::runtime::Runtime,
    client: &Client,
    plain: &Proxy,
    recording: &Proxy,
) -> Result<()> {
    let times = runtime.block_on(async {
        let mut terminals =
            [client.terminal(plain.address).await?, client.terminal(recording.address).await?];
        let mut times = [Vec::new(), Vec::new()];
        while times[1].len() < options.keystrokes {
            for (terminal, times) in terminals.iter_mut().zip(&mut times) {
                for _ in 0..KEYSTROKES_IN_A_ROW {
                    times.push(terminal.keystroke().await?.as_secs_f64() * 1e6);
                }
            }
        }
        anyhow::Ok(times)
    })?;
    println!(
        "\n{:<22} {:>8} {:>8} {:>8}  (µs until the echo)",
        "keystrokes", "p50", "p99", "p99.9"
    );
    for (name, times) in ["not recorded", "recorded"].into_iter().zip(times) {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| quantile(times.clone(), q));
        println!("{name:<22} {p50:>8.0} {p99:>8.0} {p999:>8.0}");
    }
    Ok(())
}

fn quantile(mut values: Vec<f64>, quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * quantile).round() as usize]
}

/// A running proxy.
struct Proxy {
    address: SocketAddr,
    process: Process,
    ids: Vec<u32>,
    records: bool,
}

impl Proxy {
    fn start(name: &str, options: &Options, folder: &Path, upstream: SocketAddr) -> Result<Proxy> {
        let (address, admin) = (free_port()?, free_port()?);
        let file = |name: &str| folder.join(name).display().to_string();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "api",
            "clusters": [{"name": "api", "cluster": {
                "server": format!("https://{upstream}"), "certificate-authority": file("ca.crt"),
            }}],
            "users": [{"name": "proxy", "user": {"token": "dGhlLXByb3h5J3Mtb3duLXRva2Vu"}}],
            "contexts": [{"name": "api", "context": {"cluster": "api", "user": "proxy"}}],
        });
        write_private(&folder.join("kubeconfig"), &kubeconfig.to_string())?;
        let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";
        write_private(&folder.join("policy.yaml"), policy)?;
        let mut command = Command::new(&options.program);
        command.args(["serve", "--bind-address=127.0.0.1", "--log-level=warn"]).args([
            format!("--secure-port={}", address.port()),
            format!("--admin-bind-address={admin}"),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--kubeconfig={}", file("kubeconfig")),
            format!("--audit-policy-file={}", file("policy.yaml")),
            format!("--audit-log-path={}", file(&format!("{name}.log"))),
        ]);
        command.args(["--upstream-identity=impersonate", "--anonymous-auth=false"]);
        command.arg("--shutdown-timeout=1s");
        let records = name == "recording";
        if records {
            command.arg(format!("--session-recording-dir={}", file("recordings")));
            command.args(["--session-recording-max-size=0"]).args(&options.flags);
        }
        let mut process = Process::start(name, command, folder)?;
        process.wait("be ready", READY_DEADLINE, || peers::is_ready(admin).then_some(()))?;
        let ids = process.ids();
        Ok(Proxy { address, process, ids, records })
    }

    fn stderr_tail(&self) -> String {
        self.process.stderr_tail()
    }

    /// Waits until the recording is finished, and deletes it.
    fn settle(&self, folder: &Path) -> Result<()> {
        if !self.records {
            return Ok(());
        }
        let end = Instant::now() + READY_DEADLINE;
        loop {
            let recordings = fs::read_dir(folder.join("recordings"))?;
            let paths: Vec<PathBuf> = recordings.flatten().map(|entry| entry.path()).collect();
            let is_finished = |path: &PathBuf| path.extension().is_some_and(|e| e != "partial");
            if !paths.is_empty() && paths.iter().all(is_finished) {
                return Ok(paths.iter().try_for_each(fs::remove_file)?);
            }
            ensure!(Instant::now() < end, "the recording is not finished: {}", self.stderr_tail());
            process::pause()?;
        }
    }
}
