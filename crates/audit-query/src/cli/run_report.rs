//! Runs reports and prints them.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use hashbrown::HashMap;
use jiff::ZonedDateTime;

use super::pager::Output;
use super::progress::ProgressBar;
use super::report::{Format, ReportOptions};
use super::{CommandError, report_summary};
use crate::filter::{Filter, when};
use crate::output::Field;
use crate::proof::Seals;
use crate::report::gaps::Gaps;
use crate::report::group::{GroupBy, Groups, Measured, Sort, threads, values};
use crate::report::history::{self, History, Target};
use crate::report::html::{Page, short_time};
use crate::report::kinds::{self, Kind, Measure};
use crate::report::latency::{Latencies, PERCENTILES};
use crate::report::rbac_for::{self, Permissions};
use crate::report::render::{self, Cell, time};
use crate::report::summary::{Overview, Summary};
use crate::scan::{Progress, Scan, Stages, Visitor};

impl ReportOptions {
    pub(super) fn scan(&self) -> Result<Scan, CommandError> {
        let filter = Filter::new(&self.filter, &ZonedDateTime::now())?;
        Ok(Scan {
            inputs: self.input.inputs(&filter)?,
            filter,
            stages: self.input.stages()?,
            reverse: false,
            threads: self.input.threads,
            index: !self.input.no_index,
        })
    }

    /// Scans the log. The inner result is an error if a file could not be read to its end; callers
    /// return it after they have printed the report.
    fn run<V: Visitor>(
        &self,
        scan: Scan,
        make: impl Fn() -> V + Sync,
    ) -> Result<(Vec<V>, Result<(), CommandError>), CommandError> {
        let progress = Arc::new(Progress::default());
        let bar = ProgressBar::start(&progress, true);
        let (visitors, summary) = scan.run(&progress, make, |_| ControlFlow::Continue(()))?;
        drop(bar);
        Ok((visitors, report_summary(summary)))
    }

    fn grouping(&self, kind: &Kind) -> impl Fn() -> GroupBy + Sync + use<> {
        let fields: Arc<[Field]> = kind.fields.clone().into();
        let times = kind.measures.iter().any(|one| matches!(one, Measure::First | Measure::Last))
            || kind.sort == Sort::First;
        let measures = |measure| kind.measures.contains(&measure);
        let measured =
            Measured { times, failed: measures(Measure::Failed), bytes: measures(Measure::Bytes) };
        let (keep, threads) = (kind.keep, threads(self.input.threads));
        move || GroupBy::new(fields.clone(), keep, measured, threads)
    }

    fn group(&self, kind: &Kind) -> Result<(Groups, Result<(), CommandError>), CommandError> {
        let (visitors, end) = self.run(self.scan()?, self.grouping(kind))?;
        let mut groups = GroupBy::merge(visitors);
        groups.sort(kind.sort);
        warn_of_others(&groups);
        Ok((groups, end))
    }

    pub(super) fn groups(&self, title: &str, kind: &Kind) -> Result<bool, CommandError> {
        let (groups, end) = self.group(kind)?;
        let found = self.print_groups(title, kind, groups)?;
        end.map(|()| found)
    }

    /// Prints a report that needs annotations of kube-apiserver.
    pub(super) fn annotated(
        &self,
        title: &str,
        kind: &Kind,
        name: &str,
    ) -> Result<bool, CommandError> {
        let (groups, end) = self.group(kind)?;
        if groups.rows.is_empty() {
            eprintln!(
                "note: no event has the annotation {name}, which kube-apiserver adds only to its own \
                 audit log; logs of other programs, such as kube-audit-proxy, do not have it"
            );
        }
        let found = self.print_groups(title, kind, groups)?;
        end.map(|()| found)
    }

    fn print_groups(&self, title: &str, kind: &Kind, groups: Groups) -> Result<bool, CommandError> {
        let mut names: Vec<String> = kind.fields.iter().map(Field::name).collect();
        names.extend(kind.measures.iter().map(|measure| measure.name().to_owned()));
        let rows = groups.rows.into_iter().take(self.limit.unwrap_or(usize::MAX)).map(|row| {
            let mut cells = cells(&row.values, &kind.fields);
            cells.extend(kind.measures.iter().map(|measure| match measure {
                Measure::Count => Cell::number(row.measures.count),
                Measure::Failed => Cell::number(row.measures.failed),
                Measure::Bytes => Cell::number(row.measures.bytes),
                Measure::First => Cell::text(time(row.measures.first)),
                Measure::Last => Cell::text(time(row.measures.last)),
            }));
            cells
        });
        self.print(title, &names, &rows.collect::<Vec<_>>())
    }

    fn print(
        &self,
        title: &str,
        names: &[String],
        rows: &[Vec<Cell>],
    ) -> Result<bool, CommandError> {
        let colour = self.color.on(io::stdout().is_terminal());
        let mut out = Output::open(!self.no_pager && self.output != Format::Html);
        match self.output {
            Format::Json => render::json(names, rows, &mut out)?,
            Format::Csv => render::csv(names, rows, &mut out)?,
            Format::Table if rows.is_empty() => {}
            Format::Table => render::table(names, rows, colour, &mut out)?,
            Format::Html => {
                let mut page = self.page(title)?;
                page.chart(names, rows);
                page.table("", names, rows);
                page.write(&mut out)?;
            }
        }
        out.finish()?;
        Ok(!rows.is_empty())
    }

    fn page(&self, title: &str) -> Result<Page, CommandError> {
        let mut page = Page::new(title);
        let paths = self.input.paths()?;
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        page.fact("Log", paths.join(", "));
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        page.fact("Command", arguments.join(" "));
        page.fact("Made", short_time(jiff::Timestamp::now().as_microsecond()));
        Ok(page)
    }

    pub(super) fn latency(&self, by: Field) -> Result<bool, CommandError> {
        let threads = threads(self.input.threads);
        let (visitors, end) = self.run(self.scan()?, || Latencies::new(by.clone(), threads))?;
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
        let title = "How long requests took, in milliseconds";
        let found = self.print(title, &names, &rows.collect::<Vec<_>>())?;
        end.map(|()| found)
    }

    pub(super) fn agents(&self, new_since: Option<&String>) -> Result<bool, CommandError> {
        let since = |text: &String| {
            when::parse(text, &ZonedDateTime::now()).ok_or_else(|| {
                CommandError::Usage(format!(
                    "--new-since={text}: not a time; accepted are the forms of --since"
                ))
            })
        };
        let since = new_since.map(since).transpose()?;
        let kind = kinds::agents();
        let (mut groups, end) = self.group(&kind)?;
        groups.rows.retain(|row| since.is_none_or(|since| row.measures.first >= since));
        let found = self.print_groups("User agents", &kind, groups)?;
        end.map(|()| found)
    }

    pub(super) fn history(&self, object: &str, diff: bool) -> Result<bool, CommandError> {
        let target = Target::parse(object).ok_or_else(|| {
            CommandError::Usage(format!(
                "{object}: not an object; write KIND/NAME, such as deployment/web"
            ))
        })?;
        let colour = self.color.on(io::stdout().is_terminal()) && self.output == Format::Table;
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
                // Objects of the same name in several namespaces have separate histories.
                let key = format!("{:?} {:?}", values[3], values[4]);
                let old = before.entry(key).or_default();
                shown = Some(history::diff(old, &lines, colour));
                *old = lines;
            }
            rows.push((values, shown));
            if rows.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        drop(bar);
        let end = report_summary(summary);
        let mut names: Vec<_> = history::FIELDS.iter().map(Field::name).collect();
        let title = format!("History of {object}");
        if diff && self.output == Format::Table {
            self.print_differences(&names, &rows, colour)?;
        } else if diff && self.output == Format::Html {
            let mut page = self.page(&title)?;
            for (values, shown) in &rows {
                let heading: Vec<_> = values.iter().flatten().map(String::as_str).collect();
                page.text(&heading.join("  \u{b7}  "), difference(shown.as_deref()), true);
            }
            let mut out = Output::open(false);
            page.write(&mut out)?;
            out.finish()?;
        } else {
            names.extend(diff.then(|| "diff".to_owned()));
            let row = |(values, shown): &(Vec<Option<String>>, Option<String>)| {
                let mut cells = cells(values, &history::FIELDS);
                cells.extend(diff.then(|| Cell::text(shown.clone())));
                cells
            };
            self.print(&title, &names, &rows.iter().map(row).collect::<Vec<_>>())?;
        }
        end.map(|()| !rows.is_empty())
    }

    fn print_differences(
        &self,
        names: &[String],
        rows: &[(Vec<Option<String>>, Option<String>)],
        colour: bool,
    ) -> Result<(), CommandError> {
        let mut out = Output::open(!self.no_pager);
        for (values, shown) in rows {
            render::table(names, &[cells(values, &history::FIELDS)], colour, &mut out)?;
            out.write_all(difference(shown.as_deref()).as_bytes())?;
        }
        Ok(out.finish()?)
    }

    pub(super) fn rbac_for(&self) -> Result<bool, CommandError> {
        let [user] = &self.filter.user[..] else {
            return Err(CommandError::Usage("rbac-for needs one user: --user NAME".to_owned()));
        };
        if user.contains('*') || user.starts_with('!') {
            return Err(CommandError::Usage(format!(
                "--user={user}: rbac-for takes the name of one user"
            )));
        }
        let (visitors, end) = self.run(self.scan()?, Permissions::default)?;
        let (permissions, truncated) = Permissions::merge(visitors);
        if truncated {
            eprintln!(
                "warning: the user needed more permissions than are listed; limit --since or -n"
            );
        }
        let yaml = rbac_for::yaml(user, &permissions);
        match self.output {
            Format::Table => {
                let mut out = Output::open(!self.no_pager);
                out.write_all(yaml.as_bytes())?;
                out.finish()?;
            }
            Format::Html => {
                let mut page = self.page(&format!("Permissions that {user} used"))?;
                let (names, rows) = rbac_for::rows(&permissions);
                page.table("", &names, &rows);
                page.text("Roles and bindings that allow them", &yaml, false);
                let mut out = Output::open(false);
                page.write(&mut out)?;
                out.finish()?;
            }
            Format::Json | Format::Csv => {
                let (names, mut rows) = rbac_for::rows(&permissions);
                rows.truncate(self.limit.unwrap_or(usize::MAX));
                self.print("", &names, &rows)?;
            }
        }
        end.map(|()| !permissions.is_empty())
    }

    pub(super) fn summary(&self, seals: &dyn Seals) -> Result<bool, CommandError> {
        let scan = self.scan()?;
        let files: Vec<_> = scan.inputs.iter().map(|input| input.path.clone()).collect();
        let whole = scan.filter.is_only_time() && matches!(scan.stages, Stages::Last | Stages::All);
        let progress = Arc::new(Progress::default());
        let bar = ProgressBar::start(&progress, true);
        let groups = self.grouping(&kinds::summary());
        let (visitors, scanned) =
            scan.run(&progress, || Overview::new(groups()), |_| ControlFlow::Continue(()))?;
        drop(bar);
        let (groups, timeline, unfinished) = Overview::merge(visitors);
        warn_of_others(&groups);
        let holes = if whole { timeline.holes() } else { Vec::new() };
        let gaps = Gaps::find(&files, &scanned, whole.then(|| holes.clone()), unfinished, seals);
        let summary = Summary::new(&groups, timeline, holes, gaps, files.len());
        let mut out = Output::open(!self.no_pager && self.output != Format::Html);
        match self.output {
            Format::Table => out.write_all(summary.text().as_bytes())?,
            Format::Json => writeln!(out, "{:#}", summary.json())?,
            Format::Csv => {
                let (names, rows) = summary.rows();
                render::csv(&names, &rows, &mut out)?;
            }
            Format::Html => {
                let mut page = self.page("Audit log summary")?;
                summary.html(&mut page);
                page.write(&mut out)?;
            }
        }
        out.finish()?;
        report_summary(scanned)?;
        Ok(summary.count() > 0)
    }
}

fn difference(shown: Option<&str>) -> &str {
    match shown {
        Some("") => "  (no difference)\n",
        Some(shown) => shown,
        None => "  (no object in the log)\n",
    }
}

fn cells(values: &[Option<String>], fields: &[Field]) -> Vec<Cell> {
    let cell = |(value, field): (&Option<String>, &Field)| match value {
        Some(number) if field.is_number() => Cell::Number(number.clone()),
        value => Cell::text(value.clone()),
    };
    values.iter().zip(fields).map(cell).collect()
}

fn warn_of_others(groups: &Groups) {
    let others = groups.other.count;
    if others > 0 {
        let all = others + groups.rows.iter().map(|row| row.measures.count).sum::<u64>();
        eprintln!(
            "warning: there are more groups than fit into memory: {others} of {all} events are in \
             none of the rows; filter, or count by fewer fields"
        );
    }
}
