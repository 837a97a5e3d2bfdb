//! `kube-audit-proxy policy`: checks policies, and shows what they do with requests.

mod cases;
mod check;
mod events;
mod explain;
mod flags;
mod replay;
mod request;
mod suggest;
mod table;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::output;
use crate::policy::{InvalidPolicy, LoadError, Loaded, extension};

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  Is it recorded when Alice reads a Secret?
    kube-audit-proxy policy explain policy.yaml --user alice --group system:authenticated \\
      --verb get --resource secrets -n prod --name db
  Health checks of an unauthenticated client:
    kube-audit-proxy policy explain policy.yaml --verb get --url /healthz
  All events of a log, one JSON object a line:
    kube-audit-proxy policy explain policy.yaml --event audit.log -o json";

const REPLAY_EXAMPLES: &str = "\
Examples:
  Which rule writes how much?
    kube-audit-proxy policy replay policy.yaml audit.log
  What does a change gain and lose?
    kube-audit-proxy policy replay new.yaml --against policy.yaml audit.log
  Only what people do, as JSON:
    kube-audit-proxy policy replay policy.yaml --human -o json audit.log";

/// Arguments of `policy`.
#[derive(Debug, clap::Args)]
pub(super) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum PolicyCommand {
    /// Validate policy files like kube-apiserver does at startup; fails if one is invalid
    Check {
        /// Audit policies (audit.k8s.io/v1, kind Policy), YAML or JSON
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Show which rule matches a request, and why the rules before it do not match
    #[command(after_long_help = EXPLAIN_EXAMPLES)]
    Explain(Box<explain::ExplainArgs>),
    /// Evaluate the requests of an audit log: how often rules match, and how much they record
    ///
    /// Each request counts once, by its last event. Daily figures are extrapolated from the period
    /// of the log. A policy cannot be evaluated for requests that are not in the log: record all
    /// requests at level Metadata first.
    #[command(after_long_help = REPLAY_EXAMPLES)]
    Replay(Box<replay::ReplayArgs>),
    /// Propose rules for the most frequent reads of system components in an audit log
    ///
    /// Prints a policy that records everything else at level Metadata. A comment at each
    /// rule states what it saves and which evidence is lost.
    Suggest(suggest::SuggestArgs),
    /// Run test cases for a policy; fails if a result differs from the expected one
    Test(test::TestArgs),
}

/// Runs the subcommand. Results go to standard output, problems and warnings to standard error, one
/// a line.
pub(super) fn run(args: PolicyArgs) -> ExitCode {
    match args.command {
        PolicyCommand::Check { files } => check::run(&files),
        PolicyCommand::Explain(args) => finish(args.run()),
        PolicyCommand::Replay(args) => finish(args.run()),
        PolicyCommand::Suggest(args) => finish(args.run()),
        PolicyCommand::Test(args) => finish(args.run()),
    }
}

/// Prints an error. Exit code: 0 if the command did what it was asked for, 1 if it found something
/// wrong, 2 if it could not do it.
fn finish(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => output::failed(&error, 2),
    }
}

/// Loads a policy and prints warnings.
fn load(file: &Path) -> anyhow::Result<Loaded> {
    let loaded = match extension::load_with_extension(file) {
        Ok((loaded, _)) => loaded,
        Err(LoadError::Invalid(InvalidPolicy { errors, warnings })) => {
            for warning in warnings {
                output::error_line(format_args!("warning: {warning}"));
            }
            for problem in &errors {
                output::error_line(format_args!("{problem}"));
            }
            anyhow::bail!("{} is not a valid policy", file.display());
        }
        Err(error) => return Err(error.into()),
    };
    for warning in &loaded.warnings {
        output::error_line(format_args!("warning: {warning}"));
    }
    Ok(loaded)
}
