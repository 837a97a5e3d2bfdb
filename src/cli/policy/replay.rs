//! `policy replay`: what a policy would do with the requests of a log.

mod report;

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use audit_query::filter::{Filter, FilterArgs};
use audit_query::input;
use audit_query::scan::{Progress, Scan, Stages, Summary};
use jiff::{Timestamp, ZonedDateTime};

use self::report::{Report, RuleReport, View};
use super::explain::Format;
use crate::cli::output;
use crate::policy::{Loaded, Reach, reach};
use audit_query::policy::replay::{Policies, Tally};

/// Arguments of `policy replay`.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// The audit policy
    #[arg(value_name = "POLICY")]
    policy: PathBuf,
    #[command(flatten)]
    input: Logs,
    /// Compare with this policy: which requests gain or lose events
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Logs to read.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Logs {
    /// Log files, directories, or - for standard input; the files rotated from a log are included
    #[arg(value_name = "LOG", required = true)]
    pub(super) paths: Vec<PathBuf>,
    /// Number of threads; 0 is one per CPU
    #[arg(long, value_name = "N", default_value_t = 0, hide_short_help = true)]
    pub(super) threads: usize,
}

impl Logs {
    /// Evaluates the last event of each request.
    pub(super) fn replay(
        &self,
        policies: Policies,
        filter: &FilterArgs,
    ) -> anyhow::Result<(Tally, bool)> {
        let scan = Scan {
            inputs: input::resolve(&self.paths)?,
            filter: Filter::new(filter, &ZonedDateTime::now())?,
            stages: Stages::Last,
            reverse: false,
            threads: self.threads,
            index: false,
        };
        let policies = Arc::new(policies);
        let make = || Tally::new(policies.clone());
        let (tallies, summary) =
            scan.run(&Progress::default(), make, |_| ControlFlow::Continue(()))?;
        let mut all = make();
        tallies.into_iter().for_each(|tally| all.add(tally));
        let is_whole = report_unread(&summary);
        if all.incomplete > 0 {
            output::error_line(format_args!(
                "warning: {} events have no verb or no URL and are not counted",
                all.incomplete
            ));
        }
        Ok((all, is_whole))
    }
}

/// Prints what could not be read; returns whether everything could.
pub(super) fn report_unread(summary: &Summary) -> bool {
    for skipped in &summary.skipped {
        output::error_line(format_args!(
            "warning: {}: lines that are not audit events and are not counted: {}; the first is at byte {}",
            skipped.path.display(),
            skipped.lines,
            skipped.first
        ));
    }
    for fault in &summary.faults {
        output::error_line(format_args!("error: {fault}"));
    }
    summary.faults.is_empty()
}

impl ReplayArgs {
    /// Runs the command; returns whether all logs could be read.
    pub(super) fn run(&self) -> anyhow::Result<bool> {
        let loaded = super::load(&self.policy)?;
        let old = self.against.as_ref().map(|old| super::load(old)).transpose()?;
        let reaches = reach(&loaded.spec, &loaded.policy);
        let Loaded { policy, spec, .. } = loaded;
        let old_spec = old.as_ref().map(|old| old.spec.clone());
        let policies = Policies { policy, against: old.map(|old| old.policy) };
        let (mut tally, is_whole) = self.input.replay(policies, &self.filter)?;
        let changes = std::mem::take(&mut tally.changes).into_sorted();
        let view = View { tally: &tally, days: tally.days() };
        let position = |file: &PathBuf, at: Option<crate::policy::Position>| {
            at.map(|at| format!("{}:{at}", file.display()))
        };
        let rules = spec.rules.iter().enumerate().map(|(index, rule)| RuleReport {
            rule: Some(index),
            position: position(&self.policy, rule.at),
            level: rule.level.as_str(),
            unreachable: match &reaches[index] {
                Reach::Never { covered_by } => Some(covered_by.clone()),
                Reach::By(_) | Reach::Unknown => None,
            },
            usage: view.usage(&tally.rules[index]),
        });
        let place = |rule: Option<u32>,
                     file: Option<&PathBuf>,
                     spec: Option<&crate::policy::PolicySpec>| {
            let (rule, file) = (rule?, file?);
            position(file, spec?.rules[rule as usize].at)
        };
        let changes = changes.iter().map(|change| {
            let before = place(change.before.rule, self.against.as_ref(), old_spec.as_ref());
            let after = place(change.after.rule, Some(&self.policy), Some(&spec));
            view.change(change, before, after)
        });
        let report = Report {
            from: tally.period.and_then(|(first, _)| time(first)),
            until: tally.period.and_then(|(_, last)| time(last)),
            days: tally.days(),
            requests: tally.requests,
            rules: rules.collect(),
            unmatched: view.usage(&tally.unmatched),
            changes: self.against.as_ref().map(|_| changes.collect()),
        };
        let mut out = BufWriter::new(io::stdout().lock());
        match self.output {
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, &report)?;
                out.write_all(b"\n")?;
            }
            Format::Text => report.print(&mut out)?,
        }
        out.flush()?;
        Ok(is_whole)
    }
}

fn time(micros: i64) -> Option<String> {
    Some(format!("{:.0}", Timestamp::from_microsecond(micros).ok()?))
}
