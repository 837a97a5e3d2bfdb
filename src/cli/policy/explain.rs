//! `policy explain`: the rule that matches a request, and why earlier ones do not.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::anyhow;
use clap::ValueEnum;
use serde::Serialize;

use super::events;
use super::flags::RequestFlags;
use super::request::RequestError;
use crate::cli::output;
use crate::policy::{Attributes, Loaded, Stage};
use audit_query::policy::event::EventRequest;

/// How a result is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Human-readable text
    #[default]
    Text,
    /// JSON
    Json,
}

/// Arguments of `policy explain`.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// The audit policy
    #[arg(value_name = "POLICY")]
    policy: PathBuf,
    #[command(flatten)]
    request: RequestFlags,
    /// Explain recorded events instead; - is standard input
    ///
    /// One event per line, like in an audit log, or an EventList; plain, gzip, or zstd.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "group", "verb", "resource", "namespace", "name", "url"])]
    event: Option<PathBuf>,
    /// Output format; json prints one object per request
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// What `-o json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    level: &'static str,
    rule: Option<u32>,
    position: Option<String>,
    omit_stages: Vec<&'static str>,
    not_matched: Vec<NotMatched>,
}

#[derive(Serialize)]
struct NotMatched {
    rule: usize,
    because: String,
}

impl ExplainArgs {
    /// Runs the command; returns whether all events could be explained.
    pub(super) fn run(&self) -> anyhow::Result<bool> {
        let loaded = super::load(&self.policy)?;
        let mut out = BufWriter::new(io::stdout().lock());
        let Some(path) = &self.event else {
            let request = self.request.spec().resolve().map_err(|error| match error {
                RequestError::NoTarget => anyhow!("use --resource or --url, or --event: {error}"),
                error => error.into(),
            })?;
            self.explain(&loaded, &request, &mut out)?;
            out.flush()?;
            return Ok(true);
        };
        let mut all = true;
        let error_line = |line: usize, problem: &dyn std::fmt::Display| {
            output::error_line(format_args!("{}:{line}: {problem}", path.display()));
        };
        let mut first = true;
        events::for_each(path, |event, line| {
            let event = match event {
                Ok(event) => event,
                Err(no_event) => {
                    error_line(no_event.line, &no_event.problem);
                    all = false;
                    return Ok(());
                }
            };
            match EventRequest::new(event) {
                Ok(request) => {
                    if self.output == Format::Text {
                        let separator = if first { "" } else { "\n" };
                        first = false;
                        let (verb, uri) = (event.verb.decode(), event.request_uri.decode());
                        writeln!(out, "{separator}{line}: {} {uri}", verb.escape_debug())?;
                    }
                    self.explain(&loaded, &request, &mut out)?;
                }
                Err(incomplete) => {
                    error_line(line, &incomplete);
                    all = false;
                }
            }
            Ok(())
        })?;
        out.flush()?;
        Ok(all)
    }

    fn position(&self, loaded: &Loaded, rule: usize) -> Option<String> {
        let at = loaded.spec.rules[rule].at?;
        Some(format!("{}:{at}", self.policy.display()))
    }

    fn explain(
        &self,
        loaded: &Loaded,
        request: &impl Attributes,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let explanation = loaded.policy.explain(&loaded.spec, request);
        let decision = explanation.decision;
        let position = decision.rule.and_then(|rule| self.position(loaded, rule as usize));
        let omitted = Stage::ALL.into_iter().filter(|stage| decision.omit_stages.contains(*stage));
        let omit_stages: Vec<&str> = omitted.map(Stage::as_str).collect();
        if self.output == Format::Json {
            let not_matched = explanation.not_matched.into_iter();
            let explained = Explained {
                level: decision.level.as_str(),
                rule: decision.rule,
                position,
                omit_stages,
                not_matched: not_matched
                    .map(|not| NotMatched { rule: not.rule, because: not.because })
                    .collect(),
            };
            serde_json::to_writer(&mut *out, &explained)?;
            out.write_all(b"\n")?;
            return Ok(());
        }
        writeln!(out, "level:          {}", decision.level.as_str())?;
        match (decision.rule, position) {
            (Some(rule), Some(position)) => writeln!(out, "rule:           {rule} ({position})")?,
            (Some(rule), None) => writeln!(out, "rule:           {rule}")?,
            (None, _) => writeln!(out, "rule:           none matches, so nothing is recorded")?,
        }
        let stages = if omit_stages.is_empty() { "none".into() } else { omit_stages.join(", ") };
        writeln!(out, "omitted stages: {stages}")?;
        let managed = if decision.omit_managed_fields { "omitted" } else { "recorded" };
        writeln!(out, "managed fields: {managed}")?;
        if !explanation.not_matched.is_empty() {
            writeln!(out, "not matched:")?;
        }
        for not in &explanation.not_matched {
            let at = loaded.spec.rules[not.rule].at.map(|at| format!(" ({at})"));
            writeln!(out, "  rule {}{}: {}", not.rule, at.unwrap_or_default(), not.because)?;
        }
        Ok(())
    }
}
