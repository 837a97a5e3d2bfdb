//! `policy replay`: what a policy would do with the requests of a log.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use audit_query::filter::{Filter, FilterArgs};
use audit_query::input;
use audit_query::scan::{Progress, Scan, Stages, Summary};
use jiff::{Timestamp, ZonedDateTime};
use serde::Serialize;

use super::explain::Format;
use super::table::{Table, bytes, count, printable};
use crate::cli::output;
use crate::policy::{Decision, Level, Loaded, Reach, Stage, reach};
use audit_query::policy::replay::{Change, Policies, RuleTally, Sample, Tally, Top};

/// Users and resources that are shown of each rule.
const TOP: usize = 3;

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
        let is_whole = report(&summary);
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
pub(super) fn report(summary: &Summary) -> bool {
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

/// What `-o json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    from: Option<String>,
    until: Option<String>,
    days: Option<f64>,
    requests: u64,
    rules: Vec<RuleReport>,
    /// Requests that no rule matches.
    unmatched: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<ChangeReport>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleReport {
    rule: Option<usize>,
    position: Option<String>,
    level: &'static str,
    /// Present if no request can reach the rule: the rules that match all requests that it matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<Vec<usize>>,
    #[serde(flatten)]
    usage: Usage,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    requests: u64,
    share: f64,
    events: u64,
    bytes: u64,
    events_per_day: Option<f64>,
    bytes_per_day: Option<f64>,
    /// Whether the bytes include estimates for bodies that are not in the log.
    estimated: bool,
    top_users: Vec<Count>,
    top_resources: Vec<Count>,
}

#[derive(Serialize)]
struct Count {
    value: String,
    requests: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeReport {
    change: &'static str,
    before: Side,
    after: Side,
    requests: u64,
    events_per_day: Option<f64>,
    bytes_per_day: Option<f64>,
    estimated: bool,
    top_users: Vec<Count>,
    top_resources: Vec<Count>,
    samples: Vec<SampleReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    level: &'static str,
    rule: Option<u32>,
    position: Option<String>,
    omit_stages: Vec<&'static str>,
    omit_managed_fields: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SampleReport {
    time: String,
    #[serde(rename = "auditID")]
    audit_id: String,
    user: String,
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    code: Option<i64>,
}

struct View<'t> {
    tally: &'t Tally,
    days: Option<f64>,
}

impl View<'_> {
    fn usage(&self, rule: &RuleTally) -> Usage {
        let bytes = rule.volume.bytes(&self.tally.bodies);
        let events = rule.volume.events;
        Usage {
            requests: rule.requests,
            share: rule.requests as f64 / self.tally.requests.max(1) as f64,
            events,
            bytes,
            events_per_day: self.days.map(|days| events as f64 / days),
            bytes_per_day: self.days.map(|days| bytes as f64 / days),
            estimated: rule.volume.is_estimate(),
            top_users: top(&rule.users),
            top_resources: top(&rule.resources),
        }
    }

    fn change(
        &self,
        change: &Change,
        before: Option<String>,
        after: Option<String>,
    ) -> ChangeReport {
        let difference =
            |before: u64, after: u64| self.days.map(|days| (after as f64 - before as f64) / days);
        let (old, new) = (&change.volume_before, &change.volume_after);
        let bodies = &self.tally.bodies;
        ChangeReport {
            change: kind(change.before, change.after),
            before: side(change.before, before),
            after: side(change.after, after),
            requests: change.requests,
            events_per_day: difference(old.events, new.events),
            bytes_per_day: difference(old.bytes(bodies), new.bytes(bodies)),
            estimated: old.is_estimate() || new.is_estimate(),
            top_users: top(&change.users),
            top_resources: top(&change.resources),
            samples: change.samples.iter().cloned().map(sample).collect(),
        }
    }
}

fn kind(before: Decision, after: Decision) -> &'static str {
    match (before.level, after.level) {
        (Level::None, _) => "gained",
        (_, Level::None) => "lost",
        (before, after) if before < after => "more",
        (before, after) if before > after => "less",
        _ => "other stages or fields",
    }
}

fn side(decision: Decision, position: Option<String>) -> Side {
    let omitted = Stage::ALL.into_iter().filter(|stage| decision.omit_stages.contains(*stage));
    Side {
        level: decision.level.as_str(),
        rule: decision.rule,
        position,
        omit_stages: omitted.map(Stage::as_str).collect(),
        omit_managed_fields: decision.omit_managed_fields,
    }
}

fn sample(sample: Sample) -> SampleReport {
    let Sample { time, audit_id, user, verb, uri, code, .. } = sample;
    SampleReport { time, audit_id, user, verb, uri, code }
}

fn top(top: &Top) -> Vec<Count> {
    let count = |(value, requests)| Count { value, requests };
    top.highest(TOP).into_iter().map(count).collect()
}

impl Report {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let period = match (&self.from, &self.until, self.days) {
            (Some(from), Some(until), Some(days)) => format!("{from} to {until}, {days:.3} days"),
            _ => "of no duration, so there are no daily figures".to_owned(),
        };
        writeln!(out, "{} requests, {period}\n", self.requests)?;
        let header = [
            "RULE",
            "POSITION",
            "LEVEL",
            "REQUESTS",
            "SHARE",
            "EVENTS/DAY",
            "BYTES/DAY",
            "MOST OFTEN",
        ];
        let mut table = Table::new(&header, &[3, 4, 5, 6]);
        for rule in &self.rules {
            let index = rule.rule.map(|rule| rule.to_string()).unwrap_or_default();
            let position = rule.position.clone().unwrap_or_default();
            table.row(rule.usage.cells([index, position, rule.level.to_owned()]));
        }
        if self.unmatched.requests > 0 {
            let name = ["-".to_owned(), "no rule matches".to_owned(), "None".to_owned()];
            table.row(self.unmatched.cells(name));
        }
        let total = |of: fn(&Usage) -> Option<f64>| -> Option<f64> {
            self.rules.iter().map(|rule| of(&rule.usage)).sum()
        };
        let estimated = self.rules.iter().any(|rule| rule.usage.estimated);
        table.row(vec![
            "total".to_owned(),
            String::new(),
            String::new(),
            self.requests.to_string(),
            String::new(),
            total(|usage| usage.events_per_day).map(count).unwrap_or_default(),
            daily(total(|usage| usage.bytes_per_day), estimated),
            String::new(),
        ]);
        table.print(out)?;
        if estimated {
            writeln!(out, "\n~ includes estimates for bodies that the log does not have")?;
        }
        self.print_findings(out)?;
        for change in self.changes.iter().flatten() {
            change.print(out)?;
        }
        if self.changes.as_ref().is_some_and(Vec::is_empty) {
            writeln!(out, "\nBoth policies record all requests in the log in the same way.")?;
        }
        Ok(())
    }

    fn print_findings(&self, out: &mut impl Write) -> io::Result<()> {
        let name = |rule: &RuleReport| {
            let position = rule.position.as_deref().unwrap_or("");
            format!("rule {} ({position})", rule.rule.unwrap_or_default())
        };
        let (mut unreachable, mut unused) = (Vec::new(), Vec::new());
        for rule in self.rules.iter().filter(|rule| rule.usage.requests == 0) {
            match &rule.unreachable {
                None => unused.push(name(rule)),
                Some(earlier) if earlier.is_empty() => unreachable
                    .push(format!("{}: no request meets all of its conditions", name(rule))),
                Some(earlier) => {
                    let rules: Vec<String> = earlier.iter().map(usize::to_string).collect();
                    let (plural, matches) = match rules.len() {
                        1 => ("rule", "matches"),
                        _ => ("rules", "match"),
                    };
                    unreachable.push(format!(
                        "{}: {plural} {} before it {matches} all that it matches",
                        name(rule),
                        rules.join(", ")
                    ));
                }
            }
        }
        for (title, list) in [
            ("Rules that can never match:", unreachable),
            ("Rules that match no request in the log:", unused),
        ] {
            if !list.is_empty() {
                writeln!(out, "\n{title}")?;
                list.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
            }
        }
        if self.unmatched.requests > 0 {
            writeln!(out, "\nRequests that no rule matches, so that nothing is recorded of them:")?;
            for Count { value, requests } in &self.unmatched.top_resources {
                writeln!(out, "  {requests} {}", printable(value))?;
            }
        }
        Ok(())
    }
}

fn daily(bytes_per_day: Option<f64>, estimated: bool) -> String {
    let mark = if estimated { "~" } else { "" };
    bytes_per_day.map(|value| format!("{mark}{}", bytes(value))).unwrap_or_default()
}

impl Usage {
    fn cells(&self, name: [String; 3]) -> Vec<String> {
        let most = match (self.top_users.first(), self.top_resources.first()) {
            (Some(user), Some(resource)) => {
                let user = if user.value.is_empty() { "(no user)" } else { &user.value };
                format!("{}, {}", printable(&resource.value), printable(user))
            }
            _ => String::new(),
        };
        let mut cells = Vec::from(name);
        cells.extend([
            self.requests.to_string(),
            format!("{:.1} %", self.share * 100.0),
            self.events_per_day.map(count).unwrap_or_default(),
            daily(self.bytes_per_day, self.estimated),
            most,
        ]);
        cells
    }
}

impl ChangeReport {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let side = |side: &Side| match (&side.position, side.rule) {
            (Some(position), _) => format!("{} ({position})", side.level),
            (None, Some(rule)) => format!("{} (rule {rule})", side.level),
            (None, None) => format!("{} (no rule)", side.level),
        };
        let mark = if self.estimated { "~" } else { "" };
        let per_day = self.bytes_per_day.map(|value| {
            let sign = if value < 0.0 { "-" } else { "+" };
            format!(", {mark}{sign}{} a day", bytes(value.abs()))
        });
        writeln!(
            out,
            "\n{}: {} -> {}: {} requests{}",
            self.change,
            side(&self.before),
            side(&self.after),
            self.requests,
            per_day.unwrap_or_default()
        )?;
        let list = |counts: &[Count]| {
            let counts = counts.iter();
            let texts = counts.map(|c| format!("{} ({})", printable(&c.value), c.requests));
            texts.collect::<Vec<_>>().join(", ")
        };
        writeln!(out, "  most often: {}", list(&self.top_resources))?;
        writeln!(out, "  users:      {}", list(&self.top_users))?;
        for sample in &self.samples {
            writeln!(
                out,
                "  e.g. {} {} {} {} {}",
                printable(&sample.time),
                printable(&sample.user),
                printable(&sample.verb),
                printable(&sample.uri),
                sample.code.map(|code| code.to_string()).unwrap_or_default()
            )?;
        }
        Ok(())
    }
}
