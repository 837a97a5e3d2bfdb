//! `query --proof`: prints each event with the sealed block that proves it.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pager::Output;
use super::progress::ProgressBar;
use super::query::{self, Format, QueryArgs};
use super::{CommandError, report_summary};
use crate::event::Event;
use crate::input::log_of;
use crate::objects::is_url;
use crate::output::Field;
use crate::output::format::{printable, push_compact, push_csv, push_tsv};
use crate::proof::{Proof, Prover, Seals, Verdict};
use crate::scan::{Place, Progress, Records, Visitor};

/// Additional columns of csv and tsv.
const COLUMNS: [&str; 9] =
    ["proof", "reason", "file", "offset", "line", "block", "sha256", "record", "signed-by"];

/// Delivers the location of each event, its line, and its cells.
struct Hits {
    format: Format,
    fields: Arc<[Field]>,
    scratch: Vec<u8>,
}

impl Visitor for Hits {
    fn visit(&mut self, event: &Event<'_>, place: Place<'_>, records: &mut Records) {
        let Hits { format, fields, scratch } = self;
        records.push(|out| {
            push_part(out, place.path.as_os_str().as_bytes());
            push_part(out, &place.offset.to_le_bytes());
            push_part(out, event.raw);
            match format {
                Format::Table | Format::Wide => {
                    query::push_cells(out, fields, event, place, scratch);
                }
                _ => {
                    for field in fields.iter() {
                        scratch.clear();
                        field.push(event, place, scratch);
                        push_part(out, scratch);
                    }
                }
            }
        });
    }
}

fn push_part(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A record of [`Hits`].
struct Hit<'a> {
    path: &'a Path,
    offset: u64,
    raw: &'a [u8],
    cells: &'a [u8],
}

impl<'a> Hit<'a> {
    fn parse(record: &'a [u8]) -> Option<Hit<'a>> {
        let part = |record: &'a [u8]| {
            let (length, rest) = record.split_first_chunk::<4>()?;
            rest.split_at_checked(u32::from_le_bytes(*length) as usize)
        };
        let (path, rest) = part(record)?;
        let (offset, rest) = part(rest)?;
        let (raw, cells) = part(rest)?;
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        Some(Hit { path, offset: u64::from_le_bytes(offset.try_into().ok()?), raw, cells })
    }
}

/// The number of events by verdict.
#[derive(Default)]
struct Tally {
    found: u64,
    late: u64,
    unsealed: u64,
    failed: u64,
    heads: Vec<(PathBuf, String)>,
}

impl Tally {
    fn add(&mut self, log: &Path, proof: &Proof) {
        self.found += 1;
        match proof.verdict {
            Verdict::Verified => {}
            Verdict::Late(_) => self.late += 1,
            Verdict::Unsealed(_) => self.unsealed += 1,
            Verdict::Failed(_) => self.failed += 1,
        }
        if let Some(head) = &proof.head
            && !self.heads.iter().any(|(known, _)| known == log)
        {
            self.heads.push((log.to_owned(), head.clone()));
        }
    }
}

impl QueryArgs {
    /// Runs `query --proof`. Returns whether anything was found.
    pub(super) fn prove(&self, seals: &dyn Seals) -> Result<bool, CommandError> {
        if matches!(self.output, Format::Yaml | Format::Id) {
            return Err(CommandError::Usage(
                "--proof is for -o table, wide, json, csv, and tsv".to_owned(),
            ));
        }
        if self.public_key.is_empty() {
            return Err(CommandError::Usage(
                "--proof needs --public-key FILE: the key that the log is sealed with".to_owned(),
            ));
        }
        let mut prover = seals
            .prover(&self.public_key)
            .map_err(|problem| CommandError::Usage(format!("--public-key: {problem}")))?;
        let fields = query::fields(self.output, &self.columns)?;
        let scan = self.scan()?;
        if scan.inputs.iter().any(crate::input::Input::is_stdin) {
            return Err(CommandError::Usage(
                "--proof reads log files and the seals beside them, not standard input".to_owned(),
            ));
        }
        if let Some(object) = scan.inputs.iter().find(|input| is_url(&input.path)) {
            return Err(CommandError::Usage(format!(
                "{}: --proof reads log files and the seals beside them, not object storage",
                object.path.display()
            )));
        }
        let terminal = io::stdout().is_terminal();
        let mut out = Output::open(!self.no_pager);
        let mut print = Print {
            format: self.output,
            table: query::table(&fields, self.color.on(terminal)),
            colour: self.color.on(terminal),
        };
        print.header(&fields, &mut out)?;
        let progress = Arc::new(Progress::default());
        let bar = ProgressBar::start(&progress, false);
        let (mut tally, mut result) = (Tally::default(), Ok(()));
        let limit = self.limit.unwrap_or(u64::MAX);
        let make = || Hits { format: self.output, fields: fields.clone(), scratch: Vec::new() };
        let (_, summary) = scan.run(&progress, make, |record| {
            if tally.found >= limit {
                return ControlFlow::Break(());
            }
            if let Some(hit) = Hit::parse(record) {
                result = one(&mut *prover, &hit, &mut tally, &mut print, &mut out);
            }
            match result.is_ok() && tally.found < limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        drop(bar);
        result?;
        if tally.found > 0 {
            print.end(&tally, &mut out)?;
        }
        out.finish()?;
        report_summary(summary)?;
        conclude(&tally, &prover.problems())
    }
}

fn one(
    prover: &mut dyn Prover,
    hit: &Hit<'_>,
    tally: &mut Tally,
    print: &mut Print,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let log = log_of(hit.path);
    let proof = prover.prove(&log, hit.path, hit.offset, hit.raw).map_err(CommandError::Proof)?;
    tally.add(&log, &proof);
    if let Verdict::Failed(reason) = &proof.verdict {
        eprintln!(
            "TAMPERED: {}: the event at byte {} is not proved: {reason}",
            hit.path.display(),
            hit.offset
        );
    }
    print.event(hit, &proof, out)?;
    Ok(())
}

/// Reports on standard error what is not proved, and returns the result of the command.
fn conclude(tally: &Tally, problems: &[String]) -> Result<bool, CommandError> {
    if tally.unsealed > 0 {
        eprintln!(
            "warning: {} of {} events are not sealed (yet): nothing proves them",
            tally.unsealed, tally.found
        );
    }
    if tally.late > 0 {
        eprintln!(
            "warning: {} of {} events were sealed later than written: proved only from then on",
            tally.late, tally.found
        );
    }
    for problem in problems {
        eprintln!("TAMPERED: {problem}");
    }
    match tally.failed {
        0 if problems.is_empty() => Ok(tally.found > 0),
        0 => Err(CommandError::Tampered(
            "the chain of seals is not intact; run log verify for all that was changed".to_owned(),
        )),
        failed => Err(CommandError::Tampered(format!(
            "{failed} of {} events do not verify; run log verify for all that was changed",
            tally.found
        ))),
    }
}

struct Print {
    format: Format,
    table: crate::output::table::Table,
    colour: bool,
}

impl Print {
    fn header(&self, fields: &[Field], out: &mut dyn Write) -> io::Result<()> {
        let separator = match self.format {
            Format::Csv => ",",
            Format::Tsv => "\t",
            _ => return Ok(()),
        };
        let names = fields.iter().map(Field::name);
        let names: Vec<_> = names.chain(COLUMNS.map(str::to_owned)).collect();
        writeln!(out, "{}", names.join(separator))
    }

    fn event(&mut self, hit: &Hit<'_>, proof: &Proof, out: &mut dyn Write) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let mut line = b"{\"event\":".to_vec();
                push_compact(&mut line, hit.raw);
                line.extend_from_slice(b",\"proof\":");
                line.extend_from_slice(json(hit, proof).to_string().as_bytes());
                line.extend_from_slice(b"}\n");
                out.write_all(&line)
            }
            Format::Csv | Format::Tsv => {
                let mut line = Vec::new();
                for (index, cell) in query::raw_cells(hit.cells).into_iter().enumerate() {
                    self.push(&mut line, index, cell);
                }
                let block = proof.block.as_ref();
                let number =
                    |number: Option<u64>| number.map_or(String::new(), |it| it.to_string());
                let text = |text: Option<&String>| text.cloned().unwrap_or_default();
                for cell in [
                    proof.verdict.name().to_owned(),
                    proof.verdict.reason().unwrap_or_default().to_owned(),
                    hit.path.display().to_string(),
                    hit.offset.to_string(),
                    number(proof.line),
                    number(block.map(|block| block.number)),
                    proof.sha256.clone(),
                    text(block.map(|block| &block.record)),
                    text(block.filter(|block| block.signature).map(|block| &block.key)),
                ] {
                    self.push(&mut line, 1, cell.as_bytes());
                }
                line.push(b'\n');
                out.write_all(&line)
            }
            _ => {
                self.table.row(query::cells(hit.cells), out)?;
                for note in self.notes(hit, proof) {
                    self.table.note(note, out)?;
                }
                Ok(())
            }
        }
    }

    fn push(&self, line: &mut Vec<u8>, index: usize, cell: &[u8]) {
        match self.format {
            Format::Csv => {
                line.extend((index > 0).then_some(b','));
                push_csv(line, cell);
            }
            _ => {
                line.extend((index > 0).then_some(b'\t'));
                push_tsv(line, cell);
            }
        }
    }

    /// Returns the lines to print below an event's row.
    fn notes(&self, hit: &Hit<'_>, proof: &Proof) -> Vec<String> {
        let (code, word) = match &proof.verdict {
            Verdict::Verified => ("\x1b[32m", "VERIFIED"),
            Verdict::Late(_) => ("\x1b[33m", "VERIFIED, SEALED LATE"),
            Verdict::Unsealed(_) => ("\x1b[33m", "NOT SEALED"),
            Verdict::Failed(_) => ("\x1b[1;31m", "NOT VERIFIED"),
        };
        let (on, off) = if self.colour { (code, "\x1b[0m") } else { ("", "") };
        let reason = proof.verdict.reason().map_or(String::new(), |reason| format!(": {reason}"));
        let line = proof.line.map_or(String::new(), |line| format!("line {line}, "));
        let file = hit.path.as_os_str().as_bytes();
        let mut notes = vec![
            format!("    {on}{word}{off}{reason}"),
            format!("    {}, {line}byte {}, sha256 {}", printable(file), hit.offset, proof.sha256),
        ];
        if let Some(block) = &proof.block {
            let signature = if block.signature { "valid" } else { "NOT VALID" };
            notes.push(format!(
                "    block {} of chain {}: lines {}-{}, bytes {}-{}, sha256 {}",
                block.number,
                block.chain,
                block.lines.0,
                block.lines.1,
                block.bytes.0,
                block.bytes.1,
                block.sha256
            ));
            notes.push(format!(
                "    sealed {} in {}:{}, signature of {} {signature}",
                block.time,
                block.seal.0.display(),
                block.seal.1,
                block.key
            ));
        }
        notes
    }

    fn end(&mut self, tally: &Tally, out: &mut dyn Write) -> io::Result<()> {
        if !matches!(self.format, Format::Table | Format::Wide) {
            return Ok(());
        }
        self.table.flush(out)?;
        let Tally { found, late, unsealed, failed, .. } = tally;
        let verified = found - late - unsealed - failed;
        writeln!(
            out,
            "\n{found} events: {verified} verified, {late} verified but sealed late, {unsealed} not \
             sealed, {failed} NOT VERIFIED"
        )?;
        for (log, head) in &tally.heads {
            writeln!(out, "{}: head={head}", log.display())?;
        }
        Ok(())
    }
}

fn json(hit: &Hit<'_>, proof: &Proof) -> serde_json::Value {
    let mut json = serde_json::json!({
        "status": proof.verdict.name(),
        "reason": proof.verdict.reason(),
        "file": hit.path.display().to_string(),
        "offset": hit.offset,
        "line": proof.line,
        "sha256": proof.sha256,
        "block": null,
        "head": proof.head,
    });
    if let Some(block) = &proof.block {
        json["block"] = serde_json::json!({
            "number": block.number,
            "chain": block.chain,
            "firstLine": block.lines.0,
            "lastLine": block.lines.1,
            "firstByte": block.bytes.0,
            "endByte": block.bytes.1,
            "sha256": block.sha256,
            "recordSha256": block.record,
            "sealedAt": block.time,
            "seal": block.seal.0.display().to_string(),
            "sealLine": block.seal.1,
            "key": block.key,
            "signatureValid": block.signature,
        });
    }
    json
}
