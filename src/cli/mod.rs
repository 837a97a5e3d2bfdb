//! Arguments, subcommands, exit codes: 0 is success, 1 is failure, 2 is wrong usage.

mod backends;
mod completion;
#[cfg(feature = "demo")]
mod demo;
mod error;
mod kubeconfig;
mod log;
mod logging;
mod notify;
mod output;
mod policy;
pub(crate) mod process;
mod recordings;
mod seals;
mod serve;
mod session;
mod sessions;
mod signals;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::ServeFlags;

/// Reverse proxy in front of kube-apiserver that writes Kubernetes audit events. It applies an
/// audit policy, which can be changed while it runs, and records requests like kube-apiserver does.
#[derive(Debug, Parser)]
#[command(name = "kube-audit-proxy", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    // Boxed, as it is many times the size of the others.
    Serve(Box<ServeFlags>),
    /// Try it: the proxy in front of an in-memory API, with its audit events as they happen
    #[cfg(feature = "demo")]
    Demo(demo::DemoFlags),
    /// Search, summarize, follow, and verify audit logs
    Log(log::LogArgs),
    /// List, show, and replay recordings of exec and attach sessions
    Session(session::SessionArgs),
    /// Check audit policies, and show what they record
    Policy(policy::PolicyArgs),
    /// Print a kubeconfig for clients of the proxy, or merge it into an existing one
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Print a shell completion script
    Completion(completion::CompletionArgs),
    /// Write manual pages of all commands to a directory
    Man(completion::ManArgs),
}

/// The name by which kubectl runs a plugin as `kubectl audit`.
const PLUGIN: &str = "kubectl-audit";

/// Search, summarize, follow, and verify Kubernetes audit logs.
#[derive(Debug, Parser)]
#[command(name = PLUGIN, bin_name = "kubectl audit", version, max_term_width = 100)]
struct PluginCli {
    #[command(subcommand)]
    command: log::LogCommand,
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// The arguments are invalid.
    Usage(String),
    /// The command could not be completed.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(error.into())
    }
}

/// Runs the command in `arguments`, whose first element is the program's name, to completion.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let program = arguments.first().map(Path::new).and_then(Path::file_stem);
    if program.is_some_and(|name| name == PLUGIN) {
        return match PluginCli::try_parse_from(&arguments) {
            Ok(plugin) => log::execute(plugin.command),
            Err(error) => tell(error),
        };
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        // Requests for help or the version are errors with exit code 0.
        Err(error) => return tell(error),
    };
    let result = match cli.command {
        Command::Serve(_) => serve::run(arguments_of(&arguments, "serve")),
        #[cfg(feature = "demo")]
        Command::Demo(flags) => demo::run(&flags),
        Command::Log(args) => return log::run(args),
        Command::Session(args) => return session::run(args),
        Command::Policy(args) => return policy::run(args),
        Command::Kubeconfig(args) => kubeconfig::run(&args),
        Command::Completion(args) => completion::script(&args, &mut Cli::command()),
        Command::Man(args) => completion::man_pages(&args, Cli::command()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            output::error_line(format_args!(
                "error: {message}\n\nFor more information, try '--help'."
            ));
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) => output::failed(&error, 1),
    }
}

/// Returns the arguments after the subcommand.
fn arguments_of<'a>(arguments: &'a [OsString], command: &str) -> &'a [OsString] {
    let at = arguments.iter().position(|argument| argument == command);
    &arguments[at.map_or(arguments.len(), |at| at + 1)..]
}

fn tell(error: clap::Error) -> ExitCode {
    // If standard error cannot be written, the error cannot be reported.
    let _ = error.print();
    ExitCode::from(error.exit_code() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn code(arguments: &[&str]) -> ExitCode {
        run(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        PluginCli::command().debug_assert();
    }

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        let cases: [(&[&str], u8); 15] = [
            (&["kube-audit-proxy", "--version"], 0),
            (&["kube-audit-proxy", "serve", "--help"], 0),
            (&["kube-audit-proxy"], 2),
            (&["/usr/bin/kubectl-audit", "query", "--help"], 0),
            (&["kubectl-audit", "serve"], 2),
            (&["kubectl-audit", "query", "--since=never", "/nowhere/audit.log"], 2),
            (&["kubectl-audit", "query", "/nowhere/audit.log"], 2),
            (&["kube-audit-proxy", "serv"], 2),
            (&["kube-audit-proxy", "kubeconfig"], 2),
            (&["kube-audit-proxy", "kubeconfig", "--server=proxy:7443"], 2),
            (&["kube-audit-proxy", "kubeconfig", "--server=http://proxy"], 2),
            (&["kube-audit-proxy", "kubeconfig", "--server=https://p", "--from=/nowhere/c"], 1),
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

    #[test]
    fn the_demo_exists_only_with_its_feature() {
        let has_demo = Cli::command().find_subcommand("demo").is_some();
        assert_eq!(has_demo, cfg!(feature = "demo"));
        assert_eq!(Cli::command().render_help().to_string().contains("demo"), has_demo);
    }

    #[test]
    fn deployments_use_flags_that_there_are() {
        for manifest in [
            include_str!("../../deploy/static-pod.yaml"),
            include_str!("../../deploy/sidecar.yaml"),
        ] {
            let flags =
                manifest.lines().map(str::trim).filter_map(|line| line.strip_prefix("- --"));
            let arguments: Vec<_> = flags.map(|flag| OsString::from(format!("--{flag}"))).collect();
            assert!(arguments.len() > 10);
            config::file::parse(&arguments).unwrap().unwrap();
        }
    }

    #[test]
    fn the_sample_settings_are_settings() {
        for name in ["config/settings.yaml", "deploy/debian/config.yaml"] {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            let flag = OsString::from(format!("--config={}", file.display()));
            config::file::parse(&[flag]).unwrap().unwrap();
        }
    }

    #[test]
    fn the_sample_policies_are_faultless() {
        for name in ["policy-recommended.yaml", "policy-minimal.yaml"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
            let loaded = crate::policy::load(&path).unwrap();
            assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
        }
    }
}
