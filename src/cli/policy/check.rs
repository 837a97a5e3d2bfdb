//! `policy check`: what the server would report about a policy file, without a server.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::output;
use crate::policy::{InvalidPolicy, LoadError, extension};

/// Checks all files.
pub(super) fn run(files: &[PathBuf]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        let (warnings, problems) = match extension::load_with_extension(file) {
            Ok((loaded, _)) => {
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
            output::error_line(format_args!("warning: {warning}"));
        }
        if let Some(problems) = problems {
            output::error_line(format_args!("{problems}"));
            code = ExitCode::FAILURE;
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::PolicyArgs;
    use super::*;
    use test_support::TempDir;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        policy: PolicyArgs,
    }

    #[test]
    fn one_refused_file_among_several_fails_the_check() {
        let dir = TempDir::new();
        let header = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        let good = dir.write("good.yaml", &format!("{header}rules: [{{level: None}}]\nnope: 1\n"));
        let bad = dir.write("bad.yaml", header);
        let check = |files: &[&PathBuf]| {
            let files = files.iter().map(|file| file.as_os_str());
            super::super::run(
                Cli::parse_from(["policy", "check"].map(AsRef::as_ref).into_iter().chain(files))
                    .policy,
            )
        };
        assert_eq!(check(&[&good]), ExitCode::SUCCESS);
        assert_eq!(check(&[&bad, &good]), ExitCode::FAILURE);
        assert_eq!(check(&[&good, &dir.path().join("missing")]), ExitCode::FAILURE);
    }
}
