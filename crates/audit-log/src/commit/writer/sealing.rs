//! Seals the written lines once a second, concurrently with writes.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::Writer;
use crate::error::WriteError;
use crate::seal::Chain;

/// Lines are sealed within this time.
const SEAL_INTERVAL: Duration = Duration::from_secs(1);

/// The chain. It is locked before the output, so that blocks are sealed in their order.
pub(super) struct Sealing {
    chain: Mutex<Chain>,
    ended: Mutex<bool>,
    end: Condvar,
}

impl Writer {
    /// Sets the chain that seals the log.
    pub(in crate::commit) fn sealing(self, chain: Chain) -> Writer {
        let chain = Mutex::new(chain);
        let sealing = Sealing { chain, ended: Mutex::new(false), end: Condvar::new() };
        Writer { sealing: Some(sealing), ..self }
    }

    /// Runs the sealing thread until the writer thread ends.
    pub(in crate::commit) fn run_sealing(&self) {
        let Some(sealing) = &self.sealing else { return };
        loop {
            let ended = sealing.ended.lock().expect("nothing panics that holds it");
            let (ended, _) = sealing
                .end
                .wait_timeout_while(ended, SEAL_INTERVAL, |ended| !*ended)
                .expect("nothing panics that holds it");
            if *ended {
                return;
            }
            drop(ended);
            self.seal(false);
        }
    }

    /// Seals the lines written so far, while other threads may write. `stopped` means that no lines
    /// follow.
    pub(super) fn seal(&self, stopped: bool) {
        let Some(sealing) = &self.sealing else { return };
        let mut chain = sealing.chain.lock().expect("nothing panics that holds it");
        let mut blocks = {
            let mut held = self.hold();
            // If the file was moved or truncated, the following lines belong to another seal.
            self.check(&mut held);
            held.output.unsealed(stopped)
        };
        let result = chain.seal(&mut blocks);
        let mut held = self.hold();
        held.output.sealed(blocks, result.as_ref().err().map(ToString::to_string));
        match result {
            Ok(()) => {
                if held.seal_failed.take().is_some() {
                    tracing::info!("the seal of the audit log {} is writable again", self.name);
                    // The next check also determines whether the log is healthy.
                    held.failed = Some(Instant::now());
                }
            }
            Err(source) => {
                self.metrics.seal.failures.inc();
                let source = Arc::new(source);
                let error = WriteError::Seal { log: self.name.clone(), source };
                if held.seal_failed.is_none() {
                    tracing::error!("{error}; lines wait in memory to be sealed");
                }
                held.seal_failed = Some(error.clone());
                self.outcome(&mut held, Err(error));
            }
        }
    }

    /// Makes the sealing thread end.
    pub(super) fn end_sealing(&self) {
        if let Some(sealing) = &self.sealing {
            *sealing.ended.lock().expect("nothing panics that holds it") = true;
            sealing.end.notify_one();
        }
    }
}
