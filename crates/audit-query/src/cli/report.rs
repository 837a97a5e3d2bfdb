//! The command `report`: counts and summarizes events.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Subcommand, ValueEnum};

use super::{Colour, CommandError, InputArgs};
use crate::filter::FilterArgs;
use crate::input::InputError;
use crate::objects::Stores;
use crate::output::Field;
use crate::proof::Seals;
use crate::report::kinds;

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
    /// One HTML file with charts, for a browser or for print
    Html,
}

/// What all reports take.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ReportOptions {
    /// Which events.
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Where from.
    #[command(flatten)]
    pub(super) input: InputArgs,
    /// How the report is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Format,
    /// Print at most this many rows
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    /// When to colour
    #[arg(long, alias = "colour", value_enum, default_value_t, value_name = "WHEN")]
    pub(super) color: Colour,
    /// Do not start a pager on a terminal
    #[arg(long)]
    pub(super) no_pager: bool,
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
    /// Requests for deprecated APIs, where kube-apiserver's annotations say so
    Deprecated(ReportOptions),
    /// What Pod Security enforced, warned about, or exempted, by kube-apiserver's annotations
    Psa(ReportOptions),
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

impl Report {
    fn options(&mut self) -> &mut ReportOptions {
        match self {
            Report::Summary(options)
            | Report::Users(options)
            | Report::Failed(options)
            | Report::Secrets(options)
            | Report::Exec(options)
            | Report::Anonymous(options)
            | Report::Rbac(options)
            | Report::Impersonation(options)
            | Report::Tokens(options)
            | Report::Deprecated(options)
            | Report::Psa(options)
            | Report::Top { options, .. }
            | Report::Latency { options, .. }
            | Report::Volume { options, .. }
            | Report::History { options, .. }
            | Report::RbacFor { options }
            | Report::Agents { options, .. } => options,
        }
    }
}

impl ReportArgs {
    /// Allows URLs of objects as paths.
    pub fn with_stores(mut self, stores: Arc<dyn Stores>) -> ReportArgs {
        let options = self.report.as_mut().map(Report::options).unwrap_or(&mut self.summary);
        options.input.stores = Some(stores);
        self
    }

    /// Runs the command, prints an error, and returns the exit code.
    pub fn run(&self, seals: &dyn Seals) -> ExitCode {
        super::exit_code(self.execute(seals))
    }

    fn execute(&self, seals: &dyn Seals) -> Result<bool, CommandError> {
        let Some(report) = &self.report else {
            let result = self.summary.summary(seals);
            return result.map_err(|error| self.hint_at_report_name(error));
        };
        match report {
            Report::Summary(options) => options.summary(seals),
            Report::Top { by, options } => {
                options.groups("Requests by group", &kinds::top(fields(by)?))
            }
            Report::Users(options) => options.groups("Users", &kinds::users()),
            Report::Failed(options) => options.groups("Failed requests", &kinds::failed()),
            Report::Secrets(options) => options.groups("Access to Secrets", &kinds::secrets()),
            Report::Exec(options) => {
                options.groups("Commands in pods, and connections to them", &kinds::exec())
            }
            Report::Anonymous(options) => options.groups("Anonymous requests", &kinds::anonymous()),
            Report::Rbac(options) => {
                options.groups("Changes of roles and bindings", &kinds::rbac())
            }
            Report::Impersonation(options) => {
                options.groups("Impersonation", &kinds::impersonation())
            }
            Report::Tokens(options) => {
                options.groups("Tokens requested and reviewed", &kinds::tokens())
            }
            Report::Deprecated(options) => options.annotated(
                "Requests for deprecated APIs",
                &kinds::deprecated(),
                "k8s.io/deprecated",
            ),
            Report::Psa(options) => options.annotated(
                "Pod Security",
                &kinds::pod_security(),
                "pod-security.kubernetes.io/*",
            ),
            Report::Latency { by, options } => options.latency(field(by)?),
            Report::Volume { by, options } => {
                options.groups("Volume of the log", &kinds::volume(fields(by)?))
            }
            Report::History { object, diff, options } => options.history(object, *diff),
            Report::RbacFor { options } => options.rbac_for(),
            Report::Agents { new_since, options } => options.agents(new_since.as_ref()),
        }
    }
}

impl ReportArgs {
    /// If a path that does not exist looks like the name of a report, returns an error that lists
    /// the reports. Otherwise returns `error`.
    fn hint_at_report_name(&self, error: CommandError) -> CommandError {
        let is_word =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        match (&error, &self.summary.input.paths[..]) {
            (CommandError::Input(InputError::NotFound { path, .. }), [first, ..])
                if first.as_os_str() == path.as_str() && is_word(path) =>
            {
                let command = Report::augment_subcommands(clap::Command::new("report"));
                let names: Vec<_> = command.get_subcommands().map(|one| one.get_name()).collect();
                CommandError::Usage(format!(
                    "{path}: neither a log nor a report; reports are {}",
                    names.join(", ")
                ))
            }
            _ => error,
        }
    }
}

fn field(name: &String) -> Result<Field, CommandError> {
    name.parse().map_err(|problem| CommandError::Usage(format!("--by={name}: {problem}")))
}

fn fields(names: &[String]) -> Result<Vec<Field>, CommandError> {
    names.iter().map(field).collect()
}
