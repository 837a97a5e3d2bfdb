//! `kube-audit-proxy`: arguments to exit code.

use std::process::ExitCode;

/// Many short-lived buffers of all sizes on all threads, for months: jemalloc fragments less.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    kube_audit_proxy::cli::run(std::env::args_os().collect())
}
