//! The report of `policy replay`, as text and JSON.

use std::io::{self, Write};

use audit_query::policy::replay::{Change, RuleTally, Sample, Tally, Top};
use serde::Serialize;

use crate::cli::policy::table::{Table, bytes, count, printable};
use crate::policy::{Decision, Level, Stage};

/// Users and resources that are shown of each rule.
const TOP: usize = 3;

/// What `-o json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) from: Option<String>,
    pub(super) until: Option<String>,
    pub(super) days: Option<f64>,
    pub(super) requests: u64,
    pub(super) rules: Vec<RuleReport>,
    /// Requests that no rule matches.
    pub(super) unmatched: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) changes: Option<Vec<ChangeReport>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuleReport {
    pub(super) rule: Option<usize>,
    pub(super) position: Option<String>,
    pub(super) level: &'static str,
    /// Present if no request can reach the rule: the rules that match all requests that it matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unreachable: Option<Vec<usize>>,
    #[serde(flatten)]
    pub(super) usage: Usage,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Usage {
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
pub(super) struct ChangeReport {
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

/// The counts that numbers of the report come from.
pub(super) struct View<'t> {
    pub(super) tally: &'t Tally,
    pub(super) days: Option<f64>,
}

impl View<'_> {
    pub(super) fn usage(&self, rule: &RuleTally) -> Usage {
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

    pub(super) fn change(
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
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
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
