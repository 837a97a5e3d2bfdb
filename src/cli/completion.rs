//! `kube-audit-proxy completion` and `man`: files that packages install in addition to the program.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use clap_complete::Shell;

use super::Failure;

/// Arguments of `completion`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: kube-audit-proxy completion bash > /etc/bash_completion.d/kube-audit-proxy"
)]
pub(super) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: kube-audit-proxy man /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// The directory; must exist
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Prints the script for a shell.
pub(super) fn script(args: &CompletionArgs, command: &mut clap::Command) -> Result<(), Failure> {
    clap_complete::generate(args.shell, command, "kube-audit-proxy", &mut io::stdout());
    Ok(())
}

/// Writes one page per command.
pub(super) fn man_pages(args: &ManArgs, command: clap::Command) -> Result<(), Failure> {
    clap_mangen::generate_to(command, &args.folder)
        .with_context(|| format!("cannot write man pages to {}", args.folder.display()))?;
    Ok(())
}
