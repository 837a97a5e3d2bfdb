//! Arguments, subcommands, exit codes: 0 is success, 1 is failure, 2 is wrong usage.

mod backends;
mod demo;
mod error;
mod log;
mod logging;
mod policy;
pub mod process;
mod serve;
mod signals;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ServeFlags;

/// Records what Kubernetes clients do: a reverse proxy in front of kube-apiserver that writes the
/// audit events that kube-apiserver would, by a policy that can be changed while it runs.
#[derive(Debug, Parser)]
#[command(name = "kube-audit-proxy", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy
    // Boxed, as it is many times the size of the others.
    Serve(Box<ServeFlags>),
    /// Shows what it does: the proxy before an API in memory, events as they happen
    Demo(demo::DemoFlags),
    /// Seals of audit logs: makes keys, and tells whether a log is what was written
    Log(log::LogArgs),
    /// Looks at audit policies
    Policy(policy::PolicyArgs),
}

/// How a command ended, other than well.
#[derive(Debug)]
enum Failure {
    /// It was asked for something that it does not do.
    Usage(String),
    /// It could not do what it was asked for.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(error.into())
    }
}

/// Runs the command that `arguments` (the first is the program's name) ask for, to its end.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        // Also that help or the version was asked for, with code 0.
        Err(error) => return tell(error),
    };
    let result = match cli.command {
        Command::Serve(_) => serve::run(arguments_of(&arguments, "serve")),
        Command::Demo(flags) => demo::run(&flags),
        Command::Log(args) => return log::run(args),
        Command::Policy(args) => return policy::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            eprintln!("error: {message}\n\nFor more information, try '--help'.");
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) => {
            eprintln!("error: {}", error::describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// The arguments behind the subcommand.
fn arguments_of<'a>(arguments: &'a [OsString], command: &str) -> &'a [OsString] {
    let at = arguments.iter().position(|argument| argument == command);
    &arguments[at.map_or(arguments.len(), |at| at + 1)..]
}

fn tell(error: clap::Error) -> ExitCode {
    // Where not even that can be written, there is nobody to tell.
    let _ = error.print();
    ExitCode::from(error.exit_code() as u8)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn code(arguments: &[&str]) -> ExitCode {
        run(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        let cases: [(&[&str], u8); 7] = [
            (&["kube-audit-proxy", "--version"], 0),
            (&["kube-audit-proxy", "serve", "--help"], 0),
            (&["kube-audit-proxy"], 2),
            (&["kube-audit-proxy", "serv"], 2),
            (&["kube-audit-proxy", "serve", "--audit-polcy-file=x"], 2),
            (&["kube-audit-proxy", "serve", "--config=/nowhere/config.yaml"], 2),
            (
                &[
                    "kube-audit-proxy",
                    "serve",
                    "--audit-policy-file=/nowhere/policy.yaml",
                    "--audit-log-path=-",
                    "--upstream-server=no URL",
                ],
                1,
            ),
        ];
        for (arguments, expected) in cases {
            assert_eq!(code(arguments), ExitCode::from(expected), "{arguments:?}");
        }
    }
}
