//! `kube-audit-proxy kubeconfig`: a kubeconfig with which clients use the proxy.
//!
//! It has the proxy's address and CA, and the credentials of an existing kubeconfig.

mod edit;
mod emit;
mod entries;
mod write;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::Context;
use api_client::Endpoint;
use api_client::config::Peer;
use api_client::kubeconfig::{KubeconfigSource, Selection};
use clap::Args;

use self::entries::{Entries, Request};
use super::{Failure, output};

const EXAMPLES: &str = "\
Examples:
  kube-audit-proxy kubeconfig --from ~/.kube/config --server https://proxy.example:7443 \\
    --certificate-authority certs/kube-audit-proxy.crt > audited.kubeconfig
  kube-audit-proxy kubeconfig --server https://proxy.example:7443 --merge
  kubectl --context CONTEXT-audit get pods

Exit codes: 0 success, 1 a file cannot be read, used or written, 2 wrong usage";

/// Arguments of `kubeconfig`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct KubeconfigArgs {
    /// Kubeconfig with the credentials; by default kubectl's: the files of $KUBECONFIG, or
    /// ~/.kube/config
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Context with the user and the namespace; the current context by default
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// URL of the proxy, such as https://proxy.example:7443
    #[arg(long, value_name = "URL")]
    server: String,
    /// CA of the proxy's serving certificate, PEM (--tls-cert-file, or kube-audit-proxy.crt in
    /// --cert-dir if it is self-signed); by default, clients use the CAs of their system
    #[arg(long, value_name = "FILE")]
    certificate_authority: Option<PathBuf>,
    /// Name in the proxy's serving certificate, if it is not the host of the URL
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// Name of the new context and cluster; CONTEXT-audit by default
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Copy certificates and keys into the kubeconfig instead of naming their files
    #[arg(long)]
    embed_certs: bool,
    /// Add the context to this kubeconfig instead of printing a new one; without FILE, to that of
    /// --from. The rest of the file does not change
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    merge: Option<Option<PathBuf>>,
    /// With --merge: make the new context the current one
    #[arg(long, requires = "merge")]
    use_context: bool,
}

/// Prints the kubeconfig, or merges it into a file.
pub(super) fn run(args: &KubeconfigArgs) -> Result<(), Failure> {
    let server = Endpoint::parse(&args.server, "--server")
        .map_err(|error| Failure::Usage(error.to_string()))?;
    if !server.is_https() {
        let message =
            "--server: the proxy serves https only; give a URL like https://proxy.example:7443";
        return Err(Failure::Usage(message.to_owned()));
    }
    let source = KubeconfigSource::find(args.from.as_deref().map(|path| ("--from", path)));
    let kubeconfig = source.load()?;
    if kubeconfig.is_empty() {
        let reason = match source.paths() {
            [] => "--from: give a kubeconfig".to_owned(),
            paths => format!("{}: there is no kubeconfig; give one with --from", names(paths)),
        };
        return Err(anyhow::Error::msg(reason).into());
    }
    let context = args.context.as_deref();
    let selection = Selection { context, ..Selection::current(Peer::ApiServer) };
    let selected = kubeconfig.selected(selection)?;
    let target = args.merge.as_ref().map(|file| target(file.as_deref(), &source, &selected.file));
    let request = Request {
        name: args.name.clone().unwrap_or_else(|| format!("{}-audit", selected.context)),
        server: args.server.clone(),
        certificate_authority: args.certificate_authority.clone(),
        tls_server_name: args.tls_server_name.clone(),
        embed: args.embed_certs,
    };
    let mut entries = Entries::read(&request, &selected)?;
    let Some(target) = target else {
        let text = emit::document(&entries.document());
        output::line(format_args!("{}", text.trim_end()))?;
        return Ok(());
    };
    merge(&mut entries, &target, selected.user.as_ref().map(|(_, file)| file.as_path()), args)
}

/// The file that `--merge` writes.
fn target(file: Option<&Path>, source: &KubeconfigSource, context_file: &Path) -> PathBuf {
    match (file, source) {
        (Some(file), _) => file.to_owned(),
        // kubectl changes a context where it is defined, too.
        (None, KubeconfigSource::Environment(_)) => context_file.to_owned(),
        (None, source) => source.paths().first().cloned().unwrap_or_default(),
    }
}

fn merge(
    entries: &mut Entries,
    target: &Path,
    user_file: Option<&Path>,
    args: &KubeconfigArgs,
) -> Result<(), Failure> {
    let lock = write::Lock::take(target)?;
    let text = write::read(target)?;
    let is_users = |file: &Path| write::is_same_file(file, target);
    if user_file.is_some_and(is_users) {
        entries.use_existing_user();
    } else {
        entries.rename_user_if_taken(&text).with_context(|| target.display().to_string())?;
    }
    let edited = edit::merge(&text, entries, args.use_context)
        .with_context(|| target.display().to_string())?;
    if edited.is_rewritten {
        output::error_line(format_args!(
            "warning: {}: its YAML cannot be edited in place; the file was rewritten without comments",
            target.display()
        ));
    }
    write::replace(target, &edited.text)?;
    drop(lock);
    output::line(format_args!(
        "context {:?} written to {}; use it with: kubectl --context {} get pods",
        entries.context_name(),
        target.display(),
        entries.context_name(),
    ))?;
    Ok(())
}

fn names(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}
