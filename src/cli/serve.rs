//! `kube-audit-proxy serve`: from the flags to the last audit event.

use std::ffi::OsString;

use super::notify::notify;
use super::process::Process;
use super::signals::{ProcessSignal, Signals};
use super::{Failure, logging};
use crate::audit::panic_message;
use crate::config::{self, Config};
use crate::server::limits;

/// Serves until a signal ends it. `arguments` are those behind `serve`.
pub(super) fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let flags = config::file::parse(arguments)
        .map_err(|error| Failure::Usage(usage(&error)))?
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let config = Config::new(flags).map_err(|error| Failure::Usage(error.to_string()))?;
    logging::init(config.operation.log_level, config.operation.log_format);
    panic_message::install();
    // Without enough threads and descriptors the runtime would panic.
    limits::prepare()?;
    // Before anything starts, so that no signal finds the default: ending without a word.
    let signals = Signals::new(config.operation.shutdown_limit())?;
    // Clients have threads of their own.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(serve(config, signals));
    // Not dropped, which would wait for file system calls that hang.
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
