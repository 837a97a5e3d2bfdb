//! `policy suggest`: a policy that leaves out frequent reads of system components.

use std::io::{self, Write};
use std::ops::ControlFlow;

use anyhow::bail;
use audit_query::filter::Filter;
use audit_query::input;
use audit_query::scan::{Progress, Scan, Stages};

use super::replay::{Logs, report_unread};
use super::table::bytes;
use crate::cli::output;
use audit_query::policy::suggest::{Frequencies, Suggestion};

/// Arguments of `policy suggest`.
#[derive(Debug, clap::Args)]
pub(super) struct SuggestArgs {
    #[command(flatten)]
    input: Logs,
    /// Propose only rules that save at least this share of the bytes, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    min_share: f64,
}

impl SuggestArgs {
    /// Runs the command; returns whether all logs could be read.
    pub(super) fn run(&self) -> anyhow::Result<bool> {
        if !(0.0..=100.0).contains(&self.min_share) {
            bail!("--min-share={}: a percentage is between 0 and 100", self.min_share);
        }
        let scan = Scan {
            inputs: input::resolve(&self.input.paths)?,
            filter: Filter::default(),
            stages: Stages::Last,
            reverse: false,
            threads: self.input.threads,
            index: false,
        };
        let (threads, summary) =
            scan.run(&Progress::default(), Frequencies::default, |_| ControlFlow::Continue(()))?;
        let is_whole = report_unread(&summary);
        let mut all = Frequencies::default();
        threads.into_iter().for_each(|frequencies| all.add(frequencies));
        if all.is_empty() {
            bail!("the log has no events, so there is nothing to propose");
        }
        let Suggestion { yaml, rules, requests, bytes: (all_bytes, saved) } =
            all.suggest(self.min_share / 100.0);
        io::stdout().lock().write_all(yaml.as_bytes())?;
        output::error_line(format_args!(
            "{rules} rules leave out {} of {} requests and {} of {} at level Metadata; check them with \
             \"policy replay\" before use",
            requests.1,
            requests.0,
            bytes(saved as f64),
            bytes(all_bytes as f64),
        ));
        Ok(is_whole)
    }
}
