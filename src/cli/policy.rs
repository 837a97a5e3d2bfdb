//! `kube-audit-proxy policy`: what the server would say of a policy file, without a server.

use std::path::PathBuf;
use std::process::ExitCode;

use super::output;
use crate::policy::{self, InvalidPolicy, LoadError};

/// Arguments of `policy`.
#[derive(Debug, clap::Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum PolicyCommand {
    /// Checks policy files as kube-apiserver would at its start; fails if one is refused
    Check {
        /// Audit policies (audit.k8s.io/v1, kind Policy), YAML or JSON
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

/// Runs the subcommand. Verdicts go to standard output, problems and warnings to standard error,
/// one a line.
pub fn run(args: PolicyArgs) -> ExitCode {
    let PolicyCommand::Check { files } = args.command;
    let mut code = ExitCode::SUCCESS;
    for file in files {
        let (warnings, problems) = match policy::load(&file) {
            Ok(loaded) => {
                let rules = loaded.policy.rule_count();
                let plural = if rules == 1 { "" } else { "s" };
                let verdict = format_args!("{}: ok, {rules} rule{plural}", file.display());
                if let Err(error) = output::line(verdict) {
                    return output::failed(&error.into(), 1);
                }
                (loaded.warnings, None)
            }
            Err(LoadError::Invalid(InvalidPolicy { errors: problems, warnings })) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                (warnings, Some(lines.join("\n")))
            }
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        for warning in warnings {
            output::complain(format_args!("warning: {warning}"));
        }
        if let Some(problems) = problems {
            output::complain(format_args!("{problems}"));
            code = ExitCode::FAILURE;
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::test_dir::TestDir;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        policy: PolicyArgs,
    }

    #[test]
    fn one_refused_file_among_several_fails_the_check() {
        let dir = TestDir::new();
        let header = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        let good = dir.write("good.yaml", &format!("{header}rules: [{{level: None}}]\nnope: 1\n"));
        let bad = dir.write("bad.yaml", header);
        let check = |files: &[&PathBuf]| {
            let files = files.iter().map(|file| file.as_os_str());
            run(Cli::parse_from(["policy", "check"].map(AsRef::as_ref).into_iter().chain(files))
                .policy)
        };
        assert_eq!(check(&[&good]), ExitCode::SUCCESS);
        assert_eq!(check(&[&bad, &good]), ExitCode::FAILURE);
        assert_eq!(check(&[&good, &dir.path().join("missing")]), ExitCode::FAILURE);
    }
}
