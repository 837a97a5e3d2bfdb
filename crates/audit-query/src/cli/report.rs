//! `report`: what happened, counted.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use clap::ValueEnum;
use hashbrown::HashMap;
use jiff::ZonedDateTime;

use super::pager::Output;
use super::progress::ProgressBar;
use super::{Colour, Command, CommandError, InputArgs, report_summary};
use crate::filter::{Filter, FilterArgs, when};
use crate::input;
use crate::output::Field;
use crate::report::group::{GroupBy, Groups, values};
use crate::report::history::{self, History, Target};
use crate::report::kinds::{self, Kind, Measure};
use crate::report::latency::{Latencies, PERCENTILES};
use crate::report::rbac_for::{self, Permissions};
use crate::report::render::{self, Cell, time};
use crate::report::summary::Summary;
use crate::scan::{Progress, Scan, Visitor};

/// How a report is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// {"rows": [...]}
    Json,
    /// Comma-separated values with a header (RFC 4180)
    Csv,
}

/// What all reports take.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ReportOptions {
    /// Which events.
    #[command(flatten)]
    filter: FilterArgs,
    /// Where from.
    #[command(flatten)]
    input: InputArgs,
    /// How the report is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Print at most this many rows
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// When to colour
    #[arg(long, alias = "colour", value_enum, default_value_t, value_name = "WHEN")]
    color: Colour,
    /// Do not start a pager on a terminal
    #[arg(long)]
    no_pager: bool,
}

/// Arguments of `report`.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ReportArgs {
    #[command(subcommand)]
    report: Option<Report>,
    #[command(flatten)]
    summary: ReportOptions,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Report {
    /// Period, events, users, failures, and changes (the default)
    Summary(ReportOptions),
    /// Events counted by fields
    #[command(
        after_help = "Example: kube-audit-proxy log report top --by user,verb,resource,code audit.log"
    )]
    Top {
        /// Fields to count by: user, verb, resource, code, source-ip, user-agent, namespace, ...
        #[arg(
            long,
            value_name = "FIELDS",
            value_delimiter = ',',
            default_value = "user,verb,resource,code"
        )]
        by: Vec<String>,
        #[command(flatten)]
        options: ReportOptions,
    },
    /// Users, their requests, and how many of them failed
    Users(ReportOptions),
    /// Failed requests and why they failed
    Failed(ReportOptions),
    /// Who read or changed which Secret, lists included
    Secrets(ReportOptions),
    /// Who ran commands in pods, or attached or forwarded ports to them
    Exec(ReportOptions),
    /// Requests by system:anonymous
    Anonymous(ReportOptions),
    /// Changes of roles and bindings: who granted what to whom
    Rbac(ReportOptions),
    /// Who impersonated whom
    Impersonation(ReportOptions),
    /// Who requested tokens of service accounts, or reviewed tokens
    Tokens(ReportOptions),
    /// How long requests took, in milliseconds
    Latency {
        /// The field to group by
        #[arg(long, value_name = "FIELD", default_value = "verb")]
        by: String,
        #[command(flatten)]
        options: ReportOptions,
    },
    /// What takes the space in the log
    Volume {
        /// Fields to count by, such as date, user, verb, resource
        #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
        by: Vec<String>,
        #[command(flatten)]
        options: ReportOptions,
    },
    /// Every change of an object: who, when, and from where
    #[command(
        after_help = "Example: kube-audit-proxy log report history deployment/web -n prod --diff audit.log"
    )]
    History {
        /// The object, such as deployment/web
        #[arg(value_name = "KIND/NAME")]
        object: String,
        /// Show how the object changed, where the log has bodies
        #[arg(long)]
        diff: bool,
        #[command(flatten)]
        options: ReportOptions,
    },
    /// Roles and bindings that allow what --user did, as YAML
    ///
    /// Requests that were refused (401, 403) are left out. Verbs that can be limited to a name are.
    #[command(
        after_help = "Example: kube-audit-proxy log report rbac-for --user system:serviceaccount:ci:deployer audit.log"
    )]
    RbacFor {
        #[command(flatten)]
        options: ReportOptions,
    },
    /// User agents, with when they were first and last seen
    Agents {
        /// Only agents first seen at or after this time
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        new_since: Option<String>,
        #[command(flatten)]
        options: ReportOptions,
    },
}

impl Command for ReportArgs {
    fn execute(&self) -> Result<bool, CommandError> {
        let Some(report) = &self.report else { return self.summary.summary() };
        match report {
            Report::Summary(options) => options.summary(),
            Report::Top { by, options } => options.groups(&kinds::top(fields(by)?)),
            Report::Users(options) => options.groups(&kinds::users()),
            Report::Failed(options) => options.groups(&kinds::failed()),
            Report::Secrets(options) => options.groups(&kinds::secrets()),
            Report::Exec(options) => options.groups(&kinds::exec()),
            Report::Anonymous(options) => options.groups(&kinds::anonymous()),
            Report::Rbac(options) => options.groups(&kinds::rbac()),
            Report::Impersonation(options) => options.groups(&kinds::impersonation()),
            Report::Tokens(options) => options.groups(&kinds::tokens()),
            Report::Latency { by, options } => options.latency(field(by)?),
            Report::Volume { by, options } => options.groups(&kinds::volume(fields(by)?)),
            Report::History { object, diff, options } => options.history(object, *diff),
            Report::RbacFor { options } => options.rbac_for(),
            Report::Agents { new_since, options } => options.agents(new_since.as_ref()),
        }
    }
}

fn field(name: &String) -> Result<Field, CommandError> {
    name.parse().map_err(|problem| CommandError::Usage(format!("--by={name}: {problem}")))
}

fn fields(names: &[String]) -> Result<Vec<Field>, CommandError> {
    names.iter().map(field).collect()
}

impl ReportOptions {
    fn scan(&self) -> Result<Scan, CommandError> {
        Ok(Scan {
            filter: Filter::new(&self.filter, &ZonedDateTime::now())?,
            inputs: input::resolve(&self.input.paths()?)?,
            stages: self.input.stages()?,
            reverse: false,
            threads: self.input.threads,
            index: !self.input.no_index,
        })
    }

    fn run<V: Visitor>(
        &self,
        scan: Scan,
        make: impl Fn() -> V + Sync,
    ) -> Result<Vec<V>, CommandError> {
        let progress = Arc::new(Progress::default());
        let bar = ProgressBar::start(&progress, true);
        let (visitors, summary) = scan.run(&progress, make, |_| ControlFlow::Continue(()))?;
        drop(bar);
        report_summary(summary)?;
        Ok(visitors)
    }

    fn group(&self, scan: Scan, kind: &Kind) -> Result<Groups, CommandError> {
        let fields: Arc<[Field]> = kind.fields.clone().into();
        let times = kind.measures.iter().any(|one| matches!(one, Measure::First | Measure::Last))
            || kind.sort == crate::report::group::Sort::First;
        let make = || GroupBy::new(fields.clone(), kind.keep, times);
        let mut groups = GroupBy::merge(self.run(scan, make)?);
        groups.sort(kind.sort);
        if groups.other.count > 0 {
            eprintln!(
                "warning: there are more groups than fit into memory: {} of {} events are in none \
                 of the rows; filter, or count by fewer fields",
                groups.other.count,
                groups.other.count + groups.rows.iter().map(|row| row.measures.count).sum::<u64>()
            );
        }
        Ok(groups)
    }

    fn groups(&self, kind: &Kind) -> Result<bool, CommandError> {
        let groups = self.group(self.scan()?, kind)?;
        self.print_groups(kind, groups)
    }

    fn print_groups(&self, kind: &Kind, groups: Groups) -> Result<bool, CommandError> {
        let mut names: Vec<String> = kind.fields.iter().map(Field::name).collect();
        names.extend(kind.measures.iter().map(|measure| measure.name().to_owned()));
        let rows = groups.rows.into_iter().take(self.limit.unwrap_or(usize::MAX)).map(|row| {
            let values = row.values.into_iter().zip(&kind.fields);
            let mut cells: Vec<_> = values
                .map(|(value, field)| match value {
                    Some(number) if field.is_number() => Cell::Number(number),
                    value => Cell::text(value),
                })
                .collect();
            cells.extend(kind.measures.iter().map(|measure| match measure {
                Measure::Count => Cell::number(row.measures.count),
                Measure::Failed => Cell::number(row.measures.failed),
                Measure::Bytes => Cell::number(row.measures.bytes),
                Measure::First => Cell::text(time(row.measures.first)),
                Measure::Last => Cell::text(time(row.measures.last)),
            }));
            cells
        });
        self.print(&names, &rows.collect::<Vec<_>>())
    }

    fn print(&self, names: &[String], rows: &[Vec<Cell>]) -> Result<bool, CommandError> {
        let colour = self.color.on(io::stdout().is_terminal());
        let mut out = Output::open(!self.no_pager);
        match self.output {
            Format::Json => render::json(names, rows, &mut out)?,
            Format::Csv => render::csv(names, rows, &mut out)?,
            Format::Table if rows.is_empty() => {}
            Format::Table => render::table(names, rows, colour, &mut out)?,
        }
        out.finish()?;
        Ok(!rows.is_empty())
    }

    fn latency(&self, by: Field) -> Result<bool, CommandError> {
        let visitors = self.run(self.scan()?, || Latencies::new(by.clone()))?;
        let (rows, rounded) = Latencies::merge(visitors);
        if rounded {
            eprintln!("note: durations are rounded down by up to 0.2 %, to save memory");
        }
        let mut names = vec![by.name(), "count".to_owned()];
        names.extend(PERCENTILES.iter().map(|(name, _)| (*name).to_owned()));
        let rows = rows.into_iter().take(self.limit.unwrap_or(usize::MAX)).map(|row| {
            let mut cells = vec![Cell::Text(row.value), Cell::number(row.count)];
            let millis = |micros: u64| format!("{}.{:03}", micros / 1000, micros % 1000);
            cells.extend(row.percentiles.iter().map(|micros| Cell::Number(millis(*micros))));
            cells
        });
        self.print(&names, &rows.collect::<Vec<_>>())
    }

    fn agents(&self, new_since: Option<&String>) -> Result<bool, CommandError> {
        let since = |text: &String| {
            when::parse(text, &ZonedDateTime::now()).ok_or_else(|| {
                CommandError::Usage(format!(
                    "--new-since={text}: not a time; accepted are the forms of --since"
                ))
            })
        };
        let since = new_since.map(since).transpose()?;
        let kind = kinds::agents();
        let mut groups = self.group(self.scan()?, &kind)?;
        groups.rows.retain(|row| since.is_none_or(|since| row.measures.first >= since));
        self.print_groups(&kind, groups)
    }

    fn history(&self, object: &str, diff: bool) -> Result<bool, CommandError> {
        let target = Target::parse(object).ok_or_else(|| {
            CommandError::Usage(format!(
                "{object}: not an object; write KIND/NAME, such as deployment/web"
            ))
        })?;
        if diff && self.output != Format::Table {
            return Err(CommandError::Usage("--diff is for -o table".to_owned()));
        }
        let colour = self.color.on(io::stdout().is_terminal());
        let progress = Arc::new(Progress::default());
        let bar = ProgressBar::start(&progress, false);
        let limit = self.limit.unwrap_or(usize::MAX);
        let mut rows = Vec::new();
        let mut before: HashMap<String, Vec<String>> = HashMap::new();
        let make = || History { target: target.clone(), bodies: diff };
        let (_, summary) = self.scan()?.run(&progress, make, |record| {
            let mut values = values(record);
            let body = values.pop().flatten();
            let mut shown = None;
            if let Some(lines) = body.as_deref().and_then(history::lines) {
                // Objects of the same name in several namespaces each have a past of their own.
                let key = format!("{:?} {:?}", values[3], values[4]);
                let old = before.entry(key).or_default();
                shown = Some(history::diff(old, &lines, colour));
                *old = lines;
            }
            rows.push((values, shown));
            if rows.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        drop(bar);
        report_summary(summary)?;
        let names: Vec<_> = history::FIELDS.iter().map(Field::name).collect();
        let cells = |values: &[Option<String>]| {
            let fields = values.iter().zip(&history::FIELDS);
            fields
                .map(|(value, field)| match value {
                    Some(number) if field.is_number() => Cell::Number(number.clone()),
                    value => Cell::text(value.clone()),
                })
                .collect::<Vec<_>>()
        };
        if !diff {
            return self
                .print(&names, &rows.iter().map(|(values, _)| cells(values)).collect::<Vec<_>>());
        }
        let mut out = Output::open(!self.no_pager);
        for (values, shown) in &rows {
            render::table(&names, &[cells(values)], colour, &mut out)?;
            match shown {
                Some(shown) if shown.is_empty() => writeln!(out, "  (no difference)")?,
                Some(shown) => out.write_all(shown.as_bytes())?,
                None => writeln!(out, "  (no object in the log)")?,
            }
        }
        out.finish()?;
        Ok(!rows.is_empty())
    }

    fn rbac_for(&self) -> Result<bool, CommandError> {
        let [user] = &self.filter.user[..] else {
            return Err(CommandError::Usage("rbac-for needs one user: --user NAME".to_owned()));
        };
        if user.contains('*') || user.starts_with('!') {
            return Err(CommandError::Usage(format!(
                "--user={user}: rbac-for takes the name of one user"
            )));
        }
        let (permissions, truncated) =
            Permissions::merge(self.run(self.scan()?, Permissions::default)?);
        if truncated {
            eprintln!(
                "warning: the user needed more permissions than are listed; limit --since or -n"
            );
        }
        let mut out = Output::open(!self.no_pager);
        out.write_all(rbac_for::yaml(user, &permissions).as_bytes())?;
        out.finish()?;
        Ok(!permissions.is_empty())
    }

    fn summary(&self) -> Result<bool, CommandError> {
        let scan = self.scan()?;
        let files = scan.inputs.len();
        let groups = self.group(scan, &kinds::summary())?;
        let summary = Summary::new(&groups, files);
        let mut out = Output::open(!self.no_pager);
        match self.output {
            Format::Table => out.write_all(summary.text().as_bytes())?,
            Format::Json => writeln!(out, "{:#}", summary.json())?,
            Format::Csv => {
                out.finish()?;
                return Err(CommandError::Usage(
                    "a summary has no CSV form; use report top --by user,verb,code".to_owned(),
                ));
            }
        }
        out.finish()?;
        Ok(summary.count() > 0)
    }
}
