//! The command `follow`: prints events as they are written.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::ZonedDateTime;

use super::query::{self, Format};
use super::{Colour, Command, CommandError, InputArgs};
use crate::event::Event;
use crate::filter::{Filter, FilterArgs};
use crate::follow::Follower;
use crate::input::InputError;
use crate::objects::is_url;
use crate::output::Field;
use crate::output::format::{push_compact, push_csv, push_tsv, push_yaml};
use crate::output::table::Table;
use crate::scan::{Place, Stages};

/// Polling interval of the files.
const INTERVAL: Duration = Duration::from_millis(100);

/// Arguments of `follow`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FollowArgs {
    /// Which events.
    #[command(flatten)]
    filter: FilterArgs,
    /// Where from.
    #[command(flatten)]
    input: InputArgs,
    /// How events are printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Columns of table, csv, and tsv
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    columns: Vec<String>,
    /// End after this many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// When to colour
    #[arg(long, alias = "colour", value_enum, default_value_t, value_name = "WHEN")]
    color: Colour,
}

impl Command for FollowArgs {
    fn execute(&self) -> Result<bool, CommandError> {
        let filter = Filter::new(&self.filter, &ZonedDateTime::now())?;
        let paths = self.input.paths()?;
        if paths.iter().any(|path| path.as_os_str() == "-") {
            return Err(CommandError::Usage(
                "follow takes log files; events on standard input are for query".to_owned(),
            ));
        }
        let fields = query::fields(self.output, &self.columns)?;
        let mut print = Print::new(self, fields, self.input.stages()?);
        print.header()?;
        // Existing events are only printed on request.
        let mut followers = Vec::new();
        for path in paths {
            if is_url(&path) {
                return Err(InputError::FilesOnly(path.display().to_string()).into());
            }
            followers.push(Follower::new(path, filter.since().is_some())?);
        }
        loop {
            let mut idle = true;
            for follower in &mut followers {
                let path: PathBuf = follower.path().to_owned();
                let mut result = Ok(());
                idle &= !follower.poll(|line| {
                    if result.is_ok() && !print.is_done() {
                        result = print.line(line, &filter, &path);
                    }
                })?;
                result?;
            }
            print.flush()?;
            if print.is_done() {
                return Ok(true);
            }
            if idle {
                std::thread::sleep(INTERVAL);
            }
        }
    }
}

struct Print {
    format: Format,
    fields: Arc<[Field]>,
    stages: Stages,
    table: Table,
    out: io::BufWriter<io::Stdout>,
    left: u64,
}

impl Print {
    fn new(args: &FollowArgs, fields: Arc<[Field]>, stages: Stages) -> Print {
        let colour = args.color.on(io::stdout().is_terminal());
        let table = query::table(&fields, colour);
        let out = io::BufWriter::new(io::stdout());
        Print {
            format: args.output,
            fields,
            stages,
            table,
            out,
            left: args.limit.unwrap_or(u64::MAX),
        }
    }

    /// Prints the column names like `query`. A table prints them with its first row.
    fn header(&mut self) -> io::Result<()> {
        let separator = match self.format {
            Format::Csv => ",",
            Format::Tsv => "\t",
            _ => return Ok(()),
        };
        let names: Vec<_> = self.fields.iter().map(Field::name).collect();
        writeln!(self.out, "{}", names.join(separator))?;
        self.out.flush()
    }

    fn is_done(&self) -> bool {
        self.left == 0
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn line(&mut self, line: &[u8], filter: &Filter, path: &std::path::Path) -> io::Result<()> {
        let mut result = Ok(());
        crate::event::each(line, |event| {
            let wanted = match &self.stages {
                // Whether a later event follows is not known yet, so an unfinished event does not
                // count.
                Stages::Last => !event.is_unfinished(),
                Stages::All => true,
                Stages::Only(stages) => stages.iter().any(|stage| event.stage.is(stage.as_bytes())),
            };
            if wanted && filter.matches(event) && result.is_ok() && self.left > 0 {
                self.left -= 1;
                result = self.event(event, Place { path, offset: 0 });
            }
        });
        result
    }

    fn event(&mut self, event: &Event<'_>, place: Place<'_>) -> io::Result<()> {
        let (mut text, mut scratch) = (Vec::new(), Vec::new());
        match self.format {
            Format::Json => push_compact(&mut text, event.raw),
            Format::Yaml => push_yaml(&mut text, event.raw),
            Format::Id => event.audit_id.push_to(&mut text),
            Format::Csv | Format::Tsv => {
                for (index, field) in self.fields.iter().enumerate() {
                    scratch.clear();
                    field.push(event, place, &mut scratch);
                    match self.format {
                        Format::Csv => {
                            text.extend((index > 0).then_some(b','));
                            push_csv(&mut text, &scratch);
                        }
                        _ => {
                            text.extend((index > 0).then_some(b'\t'));
                            push_tsv(&mut text, &scratch);
                        }
                    }
                }
            }
            Format::Table | Format::Wide => {
                query::push_cells(&mut text, &self.fields, event, place, &mut scratch);
                self.table.row(query::cells(&text), &mut self.out)?;
                return self.table.flush(&mut self.out);
            }
        }
        if self.format != Format::Yaml {
            text.push(b'\n');
        }
        self.out.write_all(&text)
    }
}
