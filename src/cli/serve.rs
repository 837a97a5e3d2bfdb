//! `kube-audit-proxy serve`: runs the proxy until a signal.

use std::ffi::OsString;

use super::notify::notify;
use super::process::Process;
use super::signals::{ProcessSignal, Signals};
use super::{Failure, logging};
use crate::audit::panic_message;
use crate::config::{self, Config};
use crate::server::limits;

/// Runs the proxy until a signal. `arguments` are those after `serve`.
pub(super) fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let flags = config::file::parse(arguments)
        .map_err(|error| Failure::Usage(usage(&error)))?
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let config = Config::new(flags).map_err(|error| Failure::Usage(error.to_string()))?;
    logging::init(config.operation.log_level, config.operation.log_format);
    panic_message::install();
    // The runtime panics if there are not enough threads or file descriptors.
    limits::prepare()?;
    // Before anything else: until then, a signal ends the process without a log line.
    let signals = Signals::new(config.operation.shutdown_limit())?;
    // Connections of clients are served by other threads.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(serve(config, signals));
    // Not dropped, because that would wait for blocked file system calls.
    runtime.shutdown_background();
    served
}

fn usage(error: &clap::Error) -> String {
    error.to_string().trim_start_matches("error: ").to_owned()
}

async fn serve(config: Config, mut signals: Signals) -> Result<(), Failure> {
    let process = Process::start(config, None).await?;
    signals.serves();
    notify("READY=1");
    loop {
        match signals.next().await {
            ProcessSignal::Reload => {
                notify("RELOADING=1");
                process.reload();
                notify("READY=1");
            }
            ProcessSignal::End(name) => {
                tracing::info!(signal = name, "shutting down");
                notify("STOPPING=1");
                break;
            }
        }
    }
    let at_once = async { while let ProcessSignal::Reload = signals.next().await {} };
    process.leave(at_once).await;
    Ok(())
}
